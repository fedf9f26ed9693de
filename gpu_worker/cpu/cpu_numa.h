/* cpu_numa.h - memory on a machine of several nodes (sockets): spread evenly over those that this process may use.
 *
 *     node 0 |page 0|page 2|page 4| …        one node: nothing to do
 *     node 1 |page 1|page 3|page 5| …
 *
 * Strips of a weight are handed out as lanes come for them, so no node is the right one for a page; going round, every
 * memory controller works whoever reads. Lanes are not pinned: two workers on one machine would pin theirs to the same CPUs,
 * and a foreign process on one of them would then stop both.
 * Always: where the kernel refuses (a container's rules), memory stays on the node that touches it first.
 * Owner: no state. */
#ifndef GPU_WORKER_CPU_CPU_NUMA_H
#define GPU_WORKER_CPU_CPU_NUMA_H

#include "common/base/base.h"

/* bit i: memory of node i is ours to use (cpuset); 0: the kernel does not say */
uint64_t cpu_numa_nodes(void);
/* p: the start of a page, not touched yet. false: refused. */
bool cpu_numa_spread(void *p, size_t n, uint64_t nodes);

#endif
