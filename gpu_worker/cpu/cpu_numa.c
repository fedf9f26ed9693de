#include "gpu_worker/cpu/cpu_numa.h"

#include <sys/syscall.h>
#include <unistd.h>

enum {
    NODES_MAX = 1024, /* the kernel wants room for all nodes that it could have */
    WORD_BITS = 64,
    MPOL_INTERLEAVE = 3, /* as set_mempolicy(2) has them */
    MPOL_F_MEMS_ALLOWED = 1 << 2,
};

uint64_t cpu_numa_nodes(void) {
    unsigned long mask[NODES_MAX / WORD_BITS] = {0};
    if (syscall(SYS_get_mempolicy, NULL, mask, (unsigned long)NODES_MAX, NULL,
                (unsigned long)MPOL_F_MEMS_ALLOWED))
        return 0;
    return mask[0];
}

bool cpu_numa_spread(void *p, size_t n, uint64_t nodes) {
    unsigned long mask = nodes;
    return syscall(SYS_mbind, p, n, MPOL_INTERLEAVE, &mask, WORD_BITS + 1ul, 0u) == 0;
}
