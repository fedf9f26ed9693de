/* bf16 weights times bf16 activations, two columns an instruction (vdpbf16ps, which sums pairs in f32). Activations are
 * rounded to bf16, so its bits are its own; one chain a row, in the order of the columns, as in kern_float.h. */
#if defined(__AVX512BF16__)
#include "gpu_worker/cpu/vec_avx512.h"

#include "common/modelfile/dtype.h"
#include "gpu_worker/cpu/cpu_kernels.h"

INLINE void pairs_tile(const int T, const int ns, const uint8_t *strip, size_t next, uint32_t n_in,
                       const int32_t *a, float *out, uint32_t ld) {
    __m512 f[2 * CPU_TILE_MAX];
    UNROLL(24)
    for (int i = 0; i < T * ns; i++)
        f[i] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < (n_in + 1) / 2; k++, a += T) {
        __m512bh w[2];
        UNROLL(2)
        for (int s = 0; s < ns; s++)
            w[s] = (__m512bh)_mm512_loadu_si512(strip + (size_t)s * next + 64 * (size_t)k);
        UNROLL(12)
        for (int t = 0; t < T; t++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32(a[t]);
            UNROLL(2)
            for (int s = 0; s < ns; s++)
                f[t * ns + s] = _mm512_dpbf16_ps(f[t * ns + s], w[s], x);
        }
    }
    UNROLL(12)
    for (int t = 0; t < T; t++) {
        UNROLL(2)
        for (int s = 0; s < ns; s++)
            v_store(out + (size_t)t * ld + s * VN, f[t * ns + s]);
    }
}

static void fill_bf16(void *tile, uint32_t n_rows, uint32_t t, const float *x, uint32_t n_in,
                      int32_t offset) {
    uint32_t *a = (uint32_t *)tile + t;
    (void)offset;
    for (uint32_t k = 0; k < n_in; k += 2) {
        uint32_t odd = k + 1 < n_in ? by_f32_to_bf16(x[k + 1]) : 0;
        a[(size_t)(k / 2) * n_rows] = by_f32_to_bf16(x[k]) | odd << 16;
    }
}

#define PAIRS(ns, T) \
    static __attribute__((noinline)) void pairs_##ns##_##T(const uint8_t *strip, size_t next, \
                                                           uint32_t n_in, const void *tile, \
                                                           float *out, uint32_t ld) { \
        pairs_tile(T, ns, strip, next, n_in, tile, out, ld); \
    }
#define PAIRS_AT(ns, T) [T] = pairs_##ns##_##T,
CPU_EACH(12, PAIRS, 1)
CPU_EACH(12, PAIRS, 2)

const struct cpu_linear_kernel cpu_linear_avx512_bf16 = {
    .tile_max = 12,
    .one = {CPU_EACH(12, PAIRS_AT, 1)},
    .two = {CPU_EACH(12, PAIRS_AT, 2)},
};
cpu_fill_fn *const cpu_fill_avx512_bf16 = fill_bf16;
#endif
