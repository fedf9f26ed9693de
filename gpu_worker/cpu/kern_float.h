/* kern_float.h - f32, f16 and bf16 weights times f32 activations, written once over the vectors of a vec_*.h.
 *
 *     out[row] = fma(w[k], x[k], …fma(w[0], x[0], 0))      one chain a row, in the order of the columns
 *
 * Always: this order, whatever the rows of the tile and the strips at once.
 * Owner: nobody; kern_*.c include it after kern_rows.h. Its slow twin: tests/kernels, in double precision. */
#ifndef GPU_WORKER_CPU_KERN_FLOAT_H
#define GPU_WORKER_CPU_KERN_FLOAT_H

#include "gpu_worker/cpu/cpu_kernels.h"

/* Column k of vector p, of f32 and f16. */
INLINE vf float_at(const enum cpu_format fmt, const uint8_t *strip, uint32_t k, int part) {
    size_t at = (size_t)k * CPU_STRIP + (size_t)(part * VN);
    return fmt == CPU_F32 ? v_load((const float *)strip + at)
                          : v_load_f16((const uint16_t *)strip + at);
}

/* One of the two columns of bf16 that lie at `pairs`. Each is loaded for itself, and the first one's sums are settled before
 * the second one's: sums, not pairs, fill the registers. */
INLINE void pair_column(const int T, const int ns, const uint8_t *pairs, size_t next, bool is_odd,
                        const float *a, vf *f) {
    const int nv = ns * VP;
    vf w[8];
    UNROLL(8)
    for (int v = 0; v < nv; v++) {
        vi pair = vi_load(pairs + (size_t)(v / VP) * next + v % VP * 4 * VN);
        w[v] = (vf)(is_odd ? pair & vi_set1((int32_t)0xffff0000) : pair << 16);
    }
    UNROLL(12)
    for (int t = 0; t < T; t++) {
        vf x = v_set1(a[t]);
        UNROLL(8)
        for (int v = 0; v < nv; v++) {
            f[t * nv + v] = v_fma(w[v], x, f[t * nv + v]);
            settle(f[t * nv + v]);
        }
    }
}

/* T rows, ns strips that lie `next` bytes apart. */
INLINE void float_tile(const enum cpu_format fmt, const int T, const int ns, const uint8_t *strip,
                       size_t next, uint32_t n_in, const float *a, float *out, uint32_t ld) {
    const int nv = ns * VP;
    vf f[4 * CPU_TILE_MAX];
    UNROLL(48)
    for (int i = 0; i < T * nv; i++)
        f[i] = v_set1(0);
    if (fmt == CPU_BF16) {
        for (uint32_t k = 0; k < n_in; k += 2) {
            pair_column(T, ns, strip + 32 * (size_t)k, next, false, a + k * T, f);
            pair_column(T, ns, strip + 32 * (size_t)k, next, true, a + (k + 1) * T, f);
        }
    } else {
        for (uint32_t k = 0; k < n_in; k++) {
            vf w[8];
            UNROLL(8)
            for (int v = 0; v < nv; v++)
                w[v] = float_at(fmt, strip + (size_t)(v / VP) * next, k, v % VP);
            UNROLL(12)
            for (int t = 0; t < T; t++) {
                vf x = v_set1(a[k * T + t]);
                UNROLL(8)
                for (int v = 0; v < nv; v++)
                    f[t * nv + v] = v_fma(w[v], x, f[t * nv + v]);
            }
        }
    }
    UNROLL(12)
    for (int t = 0; t < T; t++) {
        UNROLL(8)
        for (int v = 0; v < nv; v++)
            v_store(strip_out(out, ld, T, t, v / VP) + v % VP * VN, f[t * nv + v]);
    }
}

#define FLOAT_FN(name, fmt, T, ns) \
    static __attribute__((noinline)) void name##_##fmt##_##T(const uint8_t *strip, size_t next, \
                                                             uint32_t n_in, const void *tile, \
                                                             float *out, uint32_t ld) { \
        float_tile(fmt, T, ns, strip, next, n_in, tile, out, ld); \
    }
#define FLOAT_ONE(fmt, T) FLOAT_FN(float_one, fmt, T, 1)
#define FLOAT_TWO(fmt, T) FLOAT_FN(float_two, fmt, T, 2)
#define FLOAT_FOUR(fmt, T) FLOAT_FN(float_four, fmt, T, 4)

#endif
