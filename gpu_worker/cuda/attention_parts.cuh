/* attention_parts.cuh - numbers of f32 on the tensor cores: as several smaller ones whose sum they are, beside keys that are exact.
 *
 *     f32 = 3 of bf16, or 2 of f16 with an f16 cache         bytes of a cache: two to a word ─▶ pairs of bf16
 *
 * Always: nothing is lost but below what an f32 sum keeps.
 * Owner: attention_strips.cu, attention_heads.cu. */
#ifndef GPU_WORKER_CUDA_ATTENTION_PARTS_CUH
#define GPU_WORKER_CUDA_ATTENTION_PARTS_CUH

#include "gpu_worker/cuda/mma.cuh"

/* Weights are at most 1, and what f16 has not below 2^-24 is less than f32 has beside a 1. */
template <int T> static constexpr int PARTS = T == KV_F16 ? 2 : 3;

enum { F16_UP = 14 /* queries that become f16 are brought to about 2^14 first */ };

/* A power of two by which a query whose largest number is top comes to 2^F16_UP, and back. */
static __device__ __forceinline__ void bring_up(float top, float &up, float &down) {
    const uint32_t exponent = BY_MAX(as_u32(top) >> 23, F16_UP + 1u);
    up = as_f32((254 + F16_UP - exponent) << 23), down = as_f32((exponent - F16_UP) << 23);
}

/* Nothing but -inf so far: all weights are 0. */
static __device__ __forceinline__ float finite(float max) {
    return max == -INFINITY ? 0 : max;
}

/* Bytes 0 and 1, 2 and 3 of a word (turned: 0 and 2, 1 and 3) as pairs of bf16, exactly. */
template <int T, bool IS_TURNED>
static __device__ __forceinline__ void widen(uint32_t bytes, uint32_t &first, uint32_t &second) {
    uint32_t pairs[2];
    for (int i = 0; i < 2; i++) {
        const uint32_t low = IS_TURNED ? i : 2 * i, high = IS_TURNED ? i + 2 : 2 * i + 1;
        if (T ==
            KV_FP8) { /* in the upper half of 16 bits; the exponent's bias is 7, bf16's is 127 */
            uint32_t v = __byte_perm(bytes, 0, 0x0404 | low << 4 | high << 12);
            pairs[i] = fma_bf16((v & 0x80008000u) | (v >> 4 & 0x07f007f0u), 0x7b807b80u, 0);
        } else { /* 128 + the lower 7 bits, less 128 or 256 */
            uint32_t v = __byte_perm(bytes, 0, 0x4040 | low | high << 8);
            pairs[i] = fma_bf16(0x43004300u | (v & 0x007f007fu), 0x3f803f80u,
                                0xc300c300u | (v & 0x00800080u));
        }
    }
    first = pairs[0], second = pairs[1];
}

#endif
