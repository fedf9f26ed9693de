/* cpu_features.h - what this machine's CPU can do, and how many of them we may use.
 *
 * Always: an instruction set counts only when the kernel saves its registers too (xgetbv).
 * Owner: nobody; asked once at start. */
#ifndef GPU_WORKER_CPU_CPU_FEATURES_H
#define GPU_WORKER_CPU_CPU_FEATURES_H

#include "common/base/base.h"

bool cpu_features_has_bf16(void); /* AVX-512 BF16 */
/* Physical cores that this process may run on, at most as many as its cgroup's quota; at least 1. */
uint32_t cpu_features_n_cores(void);

#endif
