/* norm.cuh - what a norm takes a row's numbers by: (x - mean) * factor.
 *
 *     x[0 … n - 1] ─▶ mean (a layer norm's; else 0) ─▶ squares of what is beside it ─▶ factor
 *
 * Always: every thread of the block calls it, and has the same bits then.
 * Owner: nobody. */
#ifndef GPU_WORKER_CUDA_NORM_CUH
#define GPU_WORKER_CUDA_NORM_CUH

#include "gpu_worker/cuda/device.cuh"

struct moments {
    float mean, factor;
};

/* room: 33 floats of shared memory. */
static __device__ __forceinline__ struct moments moments_of(const float *x, uint32_t n,
                                                            bool is_layer, float eps, float *room) {
    struct moments m = {0, 1};
    float sum = 0;
    for (uint32_t i = threadIdx.x; i < n && is_layer; i += blockDim.x)
        sum += x[i];
    if (is_layer) m.mean = block_sum(sum, room) / (float)n;
    sum = 0;
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
        sum += (x[i] - m.mean) * (x[i] - m.mean);
    m.factor = 1.0f / sqrtf(block_sum(sum, room) / (float)n + eps);
    return m;
}

#endif
