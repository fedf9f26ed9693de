/* proven.h - ways of computing that a kind of card must have shown to be right before they are taken on it.
 *
 *     tests/gpu/check.sh ─its tests pass─▶ $BANYAN_CACHE/cuda-proven:  "windows 5c27f0a19d3b NVIDIA H100 80GB HBM3"
 *     open of the backend ─▶ the ways that stand there for this card in this version, and no other
 *
 * Always: without the file there is none; a change of a way's sources is another version (cmake/ProvenWays.cmake).
 * BANYAN_TEST_CUDA_WAYS, a list of names or "all", takes its place: for tests.
 * Owner: cuda_backend.c, once. */
#ifndef GPU_WORKER_CUDA_PROVEN_H
#define GPU_WORKER_CUDA_PROVEN_H

#include <stdint.h>

enum proven_way {
    PROVEN_WINDOWS = 1,   /* sums in memory that ranks read of each other (tp_nccl.c) */
    PROVEN_F8 = 2,        /* FP8 times FP8, one scale a weight row (large_f8.cu) */
    PROVEN_F8_BLOCKS = 4, /* the same, a scale for 128 columns */
    PROVEN_WGMMA = 8,     /* attention of prompts by warpgroups (attention_wgmma.cu) */
    PROVEN_OVERLAP = 16,  /* kernels that come up before the one before is done (port_overlap) */
};

uint32_t proven_ways(const char *device); /* bits of enum proven_way */
/* "windows 5c27f0a19d3b,…": the ways of this build and their versions. */
extern const char *const proven_versions;

#endif
