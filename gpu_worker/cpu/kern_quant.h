/* kern_quant.h - quantised weights times int8 activations, written once over the vectors of a vec_*.h.
 *
 *     for each block of 32 columns, in order:
 *         c = sum of w_u8 * x_i8 (- offset * sum of x)       exact, in integers
 *         f = fma(d * s, c, f);   f = fma(m, s * sum, f)     formats with a minimum
 *     formats with a scale every 16 columns: c of each half; then, exact as well, C = scale * c + scale * c, and
 *         g = fma(s, C, g);   f = fma(m, s * sum, f) for each half;   f = fma(d, g, f) at a super-block's end
 *
 * Always: this order, so that every instruction set gives the same bits; c and C cannot overflow (32 * 255 * 127 * 128
 * < 2^31).
 * Owner: nobody; kern_*.c include it after kern_rows.h. Its slow twin: tests/kernels, in double precision. */
#ifndef GPU_WORKER_CPU_KERN_QUANT_H
#define GPU_WORKER_CPU_KERN_QUANT_H

#include "gpu_worker/cpu/cpu_kernels.h"
#include "gpu_worker/cpu/cpu_formats.h"

/* Levels of IQ4_NL plus 128, and of twice fp4 plus 12 (dtype.h has them signed). */
static const uint8_t iq4_levels[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                       129, 141, 153, 166, 181, 197, 217, 241};
static const uint8_t fp4_levels[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

/* Columns 4j … 4j + 3 of a block, for the rows of one vector, as bytes; levels: of a format that has them. */
INLINE vb weights_at(const enum cpu_format fmt, const uint8_t *levels, const uint8_t *block, int j,
                     int part) {
    const int bits = CPU_FORMAT_BITS(fmt);
    block += part * 4 * VN;
    if (bits == 8) return vb_load(block + 64 * j);
    if (bits <= 3) {
        vb v = vb_part(vb_load(block + 64 * (j / 4)), 2 * (j % 4), 3);
        return bits == 2 ? v : vb_or(v, vb_part(vb_load(block + 128), j - 2, 4));
    }
    vb v = vb_part(vb_load(block + 64 * (j % 4)), j / 4 * 4, 15);
    if (CPU_FORMAT_HAS_LEVELS(fmt)) return vb_lookup(levels, v);
    if (fmt == CPU_MXFP4) return vb_lookup(fp4_levels, v);
    if (bits == 5) v = vb_or(v, vb_part(vb_load(block + 256), j - 4, 16));
    if (bits == 6) v = vb_or(v, vb_part(vb_load(block + 256 + 64 * (j / 4)), 2 * (j % 4) - 4, 48));
    return v;
}

/* Scale of block b of a group whose scales lie at sc (a super-block: of a block whose small scales lie there); d: a
 * super-block's. */
INLINE vf scale_at(const enum cpu_format fmt, const uint8_t *sc, int b, int part, vf d) {
    const int at = part * VN;
    switch (CPU_FORMAT_SCALES(fmt)) {
    case CPU_SCALE_E8:
        return v_set1(0.5f) * (vf)(vi_load_u8(sc + 16 * b + at) << 23);
    case CPU_SCALE_D:
        return v_load_f16((const uint16_t *)(sc + 32 * b) + at);
    case CPU_SCALE_DM:
        return v_load_f16((const uint16_t *)sc + at);
    case CPU_SCALE_K:
        return d * v_of_int(vi_load_u8(sc + at));
    default:
        return d * v_of_int(vi_load_i8((const int8_t *)sc + at));
    }
}

/* Scale of 16-column half h of a block, a whole number. */
INLINE vi half_scale_at(const enum cpu_format fmt, const uint8_t *sc, int h, int part) {
    const int at = 16 * h + part * VN;
    if (CPU_FORMAT_SCALES(fmt) == CPU_SCALE_K16M) return vi_load_u8(sc + at) & vi_set1(15);
    return vi_load_i8((const int8_t *)sc + at);
}

/* What is added: m, or -dmin times the block's minimum. */
INLINE vf minimum_at(const enum cpu_format fmt, const uint8_t *sc, int h, int part, vf m) {
    const int at = part * VN;
    if (CPU_FORMAT_SCALES(fmt) == CPU_SCALE_DM) return v_load_f16((const uint16_t *)(sc + 32) + at);
    if (CPU_FORMAT_SCALES(fmt) == CPU_SCALE_K) return m * v_of_int(vi_load_u8(sc + 16 + at));
    return m * v_of_int(vi_load_u8(sc + 16 * h + at) >> 4);
}

/* Returns where block b of a group begins; its scales lie at *sc; d, m: a super-block's, for np vectors of each of ns strips. */
INLINE const uint8_t *scales_before(const enum cpu_format fmt, const int p0, const int np,
                                    const int ns, size_t next, int b, const uint8_t *strip,
                                    const uint8_t **sc, vf *d, vf *m) {
    if (b == 0) {
        *sc = strip;
        const uint8_t *at = strip;
        UNROLL(4)
        for (int s = 0; s < ns && CPU_FORMAT_IS_SUPER(fmt); s++, at += next, d += np, m += np) {
            UNROLL(2)
            for (int p = 0; p < np; p++) {
                d[p] = CPU_FORMAT_SCALES(fmt) == CPU_SCALE_K16W
                           ? v_load((const float *)at + (p0 + p) * VN)
                           : v_load_f16((const uint16_t *)at + (p0 + p) * VN);
                if (CPU_FORMAT_HAS_MIN(fmt))
                    m[p] = v_load_f16((const uint16_t *)(at + 32) + (p0 + p) * VN);
            }
        }
        strip += 64;
    }
    if (!CPU_FORMAT_IS_SUPER(fmt)) return strip;
    *sc += 64 / CPU_FORMAT_SHARE(fmt);
    if (b % CPU_FORMAT_SHARE(fmt) == 0) {
        *sc = strip;
        strip += 64;
    }
    return strip;
}

/* c = products of half h (or all) of a block with T rows, np vectors from p0 on. */
INLINE void block_products(const enum cpu_format fmt, const int T, const int p0, const int np,
                           const uint8_t *levels, const uint8_t *block, int h, const int32_t *a,
                           vi *c) {
    const bool x2 = CPU_FORMAT_ACT(fmt) == CPU_ACT_I8X2;
    const int steps = x2 ? 4 : 8, fits = BY_MIN(CPU_FORMAT_FITS(fmt), steps);
    vh sums[2 * CPU_TILE_MAX];
    UNROLL(12)
    for (int t = 0; t < T; t++) {
        UNROLL(2)
        for (int p = 0; p < np; p++)
            c[t * np + p] = CPU_FORMAT_OFFSET(fmt) ? dot_start(a[(x2 ? 11 + h : 10) * T + t], fits)
                                                   : vi_set1(0);
    }
    UNROLL(8)
    for (int i = 0; i < steps; i++) {
        const int j = x2 ? 4 * h + i : i / 2 + i % 2 * 4; /* a line's two nibbles together */
        UNROLL(2)
        for (int p = 0; p < np; p++) {
            vb w = weights_at(fmt, levels, block, j, p0 + p);
            UNROLL(12)
            for (int t = 0; t < T; t++)
                dot(&c[t * np + p], &sums[t * np + p], w, a[j * T + t], i, fits);
        }
    }
}

/* What half h (or all) of a block adds by its minima: f = fma(m, s * sum, f). */
INLINE void add_minima(const enum cpu_format fmt, const int T, const int p0, const int np,
                       const uint8_t *sc, int h, const float *s_sum, const vf *group_m, vf *f) {
    UNROLL(2)
    for (int p = 0; p < np; p++) {
        vf m = minimum_at(fmt, sc, h, p0 + p, group_m[p]);
        UNROLL(12)
        for (int t = 0; t < T; t++)
            f[t * np + p] = v_fma(m, v_set1(s_sum[t]), f[t * np + p]);
    }
}

/* Block b of a group, with one scale: f += its products with T rows. */
INLINE void quant_block(const enum cpu_format fmt, const int T, const int p0, const int np,
                        const uint8_t *levels, const uint8_t *block, const uint8_t *sc, int b,
                        const int32_t *a, const vf *group_d, const vf *group_m, vf *f) {
    const float *s = (const float *)a + 8 * T;
    vi c[2 * CPU_TILE_MAX];
    block_products(fmt, T, p0, np, levels, block, 0, a, c);
    UNROLL(2)
    for (int p = 0; p < np; p++) {
        vf d = scale_at(fmt, sc, b, p0 + p, group_d[p]);
        UNROLL(12)
        for (int t = 0; t < T; t++)
            f[t * np + p] = v_fma(d * v_set1(s[t]), v_of_int(c[t * np + p]), f[t * np + p]);
    }
    if (CPU_FORMAT_HAS_MIN(fmt)) add_minima(fmt, T, p0, np, sc, 0, s + T, group_m, f);
}

/* A block with a scale for each half: g += its products without d. */
INLINE void quant_halves(const enum cpu_format fmt, const int T, const int p0, const int np,
                         const uint8_t *levels, const uint8_t *block, const uint8_t *sc,
                         const int32_t *a, const vf *group_m, vf *f, vf *g) {
    const float *s = (const float *)a + 8 * T;
    vi c[2 * CPU_TILE_MAX], all[2 * CPU_TILE_MAX];
    UNROLL(2)
    for (int h = 0; h < 2; h++) {
        block_products(fmt, T, p0, np, levels, block, h, a, c);
        UNROLL(2)
        for (int p = 0; p < np; p++) {
            vi scale = half_scale_at(fmt, sc, h, p0 + p);
            UNROLL(12)
            for (int t = 0; t < T; t++) {
                const int k = t * np + p;
                all[k] = vi_mul_add(scale, c[k], h == 0 ? vi_set1(0) : all[k]);
                settle(all[k]);
            }
        }
        if (CPU_FORMAT_HAS_MIN(fmt)) add_minima(fmt, T, p0, np, sc, h, s + (1 + h) * T, group_m, f);
    }
    UNROLL(24)
    for (int i = 0; i < T * np; i++)
        g[i] = v_fma(v_set1(s[i / np]), v_of_int(all[i]), g[i]);
}

/* f += d * g, for n sums of each of ns strips. */
INLINE void end_group(const int n, const int np, const int ns, const vf *d, vf *f, vf *g) {
    UNROLL(24)
    for (int i = 0; i < ns * n; i++) {
        f[i] = v_fma(d[i / n * np + i % n % np], g[i], f[i]);
        g[i] = v_set1(0);
    }
}

/* T rows, np vectors from vector p0 on of each of ns strips that lie `next` bytes apart. */
INLINE void quant_tile(const enum cpu_format fmt, const int T, const int p0, const int np,
                       const int ns, const uint8_t *strip, size_t next, uint32_t n_in,
                       const int32_t *a, float *out, uint32_t ld) {
    const bool x2 = CPU_FORMAT_ACT(fmt) == CPU_ACT_I8X2;
    const int words = x2 ? 13 : 11, n_sums = T * np;
    const int n_group = CPU_FORMAT_GROUP(fmt);
    const int n_blocks = (int)(n_in / 32);
    const uint8_t *sc = NULL, *levels = CPU_FORMAT_HEAD(fmt) ? strip : iq4_levels;
    strip += CPU_FORMAT_HEAD(fmt);
    vf f[2 * CPU_TILE_MAX], g[2 * CPU_TILE_MAX], group_d[8], group_m[8];
    UNROLL(8)
    for (int i = 0; i < ns * np; i++)
        group_d[i] = group_m[i] = v_set1(0);
    UNROLL(24)
    for (int i = 0; i < ns * n_sums; i++)
        f[i] = g[i] = v_set1(0);
    for (int done = 0; done < n_blocks; done++, strip += CPU_FORMAT_BLOCK(fmt), a += words * T) {
        const int b = done % n_group;
        strip = scales_before(fmt, p0, np, ns, next, b, strip, &sc, group_d, group_m);
        UNROLL(4)
        for (int s = 0; s < ns; s++) {
            const uint8_t *block = strip + (size_t)s * next, *scales = sc + (size_t)s * next;
            const vf *d = group_d + s * np, *m = group_m + s * np;
            if (x2)
                quant_halves(fmt, T, p0, np, levels, block, scales, a, m, f + s * n_sums,
                             g + s * n_sums);
            else
                quant_block(fmt, T, p0, np, levels, block, scales, b, a, d, m, f + s * n_sums);
        }
        if (x2 && b == n_group - 1) end_group(n_sums, np, ns, group_d, f, g);
    }
    UNROLL(12)
    for (int t = 0; t < T; t++) {
        UNROLL(4)
        for (int s = 0; s < ns; s++) {
            UNROLL(2)
            for (int p = 0; p < np; p++)
                v_store(strip_out(out, ld, T, t, s) + (p0 + p) * VN, f[s * n_sums + t * np + p]);
        }
    }
}

/* Few rows take both halves of a strip at once, many one after the other: registers. */
INLINE void quant_strip(const enum cpu_format fmt, const int T, const uint8_t *strip, uint32_t n_in,
                        const void *tile, float *out, uint32_t ld) {
    if (VP == 1 || T <= 2) {
        quant_tile(fmt, T, 0, VP, 1, strip, 0, n_in, tile, out, ld);
        return;
    }
    for (int p = 0; p < VP; p++)
        quant_tile(fmt, T, p, 1, 1, strip, 0, n_in, tile, out, ld);
}

#define QUANT_ONE(fmt, T) \
    static __attribute__((noinline)) void quant_##fmt##_##T(const uint8_t *strip, size_t next, \
                                                            uint32_t n_in, const void *tile, \
                                                            float *out, uint32_t ld) { \
        (void)next; \
        quant_strip(fmt, T, strip, n_in, tile, out, ld); \
    }
#define QUANT_FOUR(fmt, T) \
    static __attribute__((noinline)) void quant_four_##fmt##_##T( \
        const uint8_t *strip, size_t next, uint32_t n_in, const void *tile, float *out, \
        uint32_t ld) { \
        quant_tile(fmt, T, 0, VP, 4, strip, next, n_in, tile, out, ld); \
    }

#endif
