/* cgroup.h - what the control groups of this process leave it: CPUs and memory.
 *
 *     /proc/self/cgroup  "0::/a/b"        ─▶  /sys/fs/cgroup/a/b, …/a, …             the least of each counts
 *       of version 1     "4:memory:/a/b"  ─▶  /sys/fs/cgroup/memory/a/b, …; and likewise cpu
 *
 * A container sees its own group as the root; under systemd a unit's limits lie deeper.
 * Always: what cannot be read limits nothing. Pages of files count as free: the kernel gives them back before it refuses.
 * Owner: no state; asked at start. */
#ifndef COMMON_BASE_CGROUP_H
#define COMMON_BASE_CGROUP_H

#include "common/base/base.h"

struct by_cgroup {
    uint32_t n_cpus;                  /* that the quota pays for, rounded up; 0: no quota */
    uint64_t memory_max, memory_free; /* bytes; UINT64_MAX: no limit */
};
/* root: "/sys/fs/cgroup"; membership: "/proc/self/cgroup". */
void by_cgroup_read(struct by_cgroup *out, const char *root, const char *membership);

#define BY_CGROUP_ROOT "/sys/fs/cgroup"
#define BY_CGROUP_MINE "/proc/self/cgroup"

#endif
