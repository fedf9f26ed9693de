/* cuda_group.h - sums between GPUs, through NCCL (tp_nccl.c); a build without it sums through the host (cuda_backend.c).
 *
 *     rank 0: new ─▶ "nccl:22809:<its device>:<id in base 64>" ─hello, group─▶ every rank: join, at its first step ─▶ sums ─▶ leave
 *
 *     sums lie in memory of NCCL that all ranks register at the same place (symmetric windows), where proven.h has it: small
 *     ones then take one kernel that reads every rank's part
 *
 * Always: ranks of two NCCL versions, and those that have the device of rank 0, are told so before anything waits; joining
 * ends at its deadline; a sum that a rank does not come to is found by the wait for the step, and the process ends (DESIGN D5): no
 * communicator is used twice.
 * Owner: cuda_backend.c, the gpu worker's main thread. Compiles as C++. */
#ifndef GPU_WORKER_CUDA_CUDA_GROUP_H
#define GPU_WORKER_CUDA_CUDA_GROUP_H

#include "gpu_worker/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDA_RANKS_MAX = 16 };

BY_MUST_USE int cuda_group_new(struct backend *b, char *address, size_t cap, struct by_err *err);
BY_MUST_USE int cuda_group_join(struct backend *b, const char *address, uint32_t rank,
                                uint32_t world, struct by_err *err);
void cuda_group_leave(struct backend *b);
/* Memory that sums are made in, before there is a group; NULL: any other serves. One at a time, into c->sums. */
void *cuda_group_alloc(struct cuda *c, size_t bytes);
void cuda_group_free(struct cuda *c); /* c->sums */
/* Adds the command: x[n] becomes the sum over ranks. */
void cuda_group_sum(struct cuda *c, float *x, size_t n);
/* Adds the command: all[world][n] from each rank's x[n]. */
void cuda_group_gather(struct cuda *c, const float *x, size_t n, float *all);

#ifdef __cplusplus
}
#endif
#endif
