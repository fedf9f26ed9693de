/* kern_rows.h - what is done to rows of f32: norms, tiles of activations, what follows a matrix product, rotation.
 *
 *     sums over a row: 16 partial sums (column i adds to i % 16), then halves are folded: 8, 4, 2, 1
 *
 * Always: the same operations in the same order on every instruction set.
 * Owner: nobody; kern_*.c include it after a vec_*.h. */
#ifndef GPU_WORKER_CPU_KERN_ROWS_H
#define GPU_WORKER_CPU_KERN_ROWS_H

#include "common/modelfile/dtype.h"
#include "gpu_worker/cpu/cpu_kernels.h"
#include "gpu_worker/cpu/kern_math.h"

#include <math.h>

/* Columns of a row that vector p of its 16 at column c still has. */
INLINE uint32_t left(uint32_t n, uint32_t c, int p) {
    uint32_t at = c + (uint32_t)(p * VN);
    return n > at ? n - at : 0;
}

/* Where the sums of row t of T with strip s of some go: see cpu_linear_fn. */
INLINE float *strip_out(float *out, uint32_t ld, int T, int t, int s) {
    return out + (size_t)(s / 2 * T + t) * ld + s % 2 * CPU_STRIP;
}

/* ---- norms ---- */

static float row_sum(const float *x, uint32_t n) {
    vf s[VP];
    for (int p = 0; p < VP; p++)
        s[p] = v_set1(0);
    for (uint32_t c = 0; c < n; c += 16) {
        for (int p = 0; p < VP; p++)
            s[p] += v_load_n(x + c + p * VN, left(n, c, p));
    }
    return v16_sum(s);
}

/* sum of (x - mean)^2 */
static float row_squares(const float *x, uint32_t n, float mean) {
    vf s[VP], m = v_set1(mean);
    for (int p = 0; p < VP; p++)
        s[p] = v_set1(0);
    uint32_t c = 0;
    for (; c + 16 <= n; c += 16) {
        for (int p = 0; p < VP; p++) {
            vf v = v_load(x + c + p * VN) - m;
            s[p] = v_fma(v, v, s[p]);
        }
    }
    for (int p = 0; p < VP && c < n; p++) {
        uint32_t k = left(n, c, p);
        vf v = v_load_n(x + c + p * VN, k) - m;
        v = v_pick(k < VN ? (1u << k) - 1 : 0xffffu, v, v_set1(0));
        s[p] = v_fma(v, v, s[p]);
    }
    return v16_sum(s);
}

INLINE void put_row(float *y, vf v, uint32_t k, bool is_add, vf scale) {
    if (is_add)
        v = v_fma(scale, v, v_load_n(y, k));
    else
        v = scale * v;
    v_store_n(y, v, k);
}

static void norm_row(const struct norm *norm, const float *x, uint32_t n, float *y, bool is_add,
                     float scale) {
    float mean = 0, r = 1;
    if (norm) {
        if (norm->kind == NORM_LAYER) mean = row_sum(x, n) / (float)n;
        r = 1 / sqrtf(row_squares(x, n, mean) / (float)n + norm->eps);
    }
    vf m = v_set1(mean), rs = v_set1(r), sc = v_set1(scale);
    for (uint32_t c = 0; c < n; c += VN) {
        uint32_t k = n - c;
        vf v = v_load_n(x + c, k);
        if (norm) {
            v = (v - m) * rs * v_load_n(norm->w + c, k);
            if (norm->b) v = v + v_load_n(norm->b + c, k);
        }
        put_row(y + c, v, k, is_add, sc);
    }
}

static void scale_row(float *x, uint32_t n, float by) {
    for (uint32_t c = 0; c < n; c += VN)
        v_store_n(x + c, v_load_n(x + c, n - c) * v_set1(by), n - c);
}

static void add_scaled_row(float *y, const float *x, uint32_t n, float by) {
    for (uint32_t c = 0; c < n; c += VN)
        put_row(y + c, v_load_n(x + c, n - c), n - c, true, v_set1(by));
}

static float sigmoid_of(float x) {
    float out[VN];
    v_store(out, v_sigmoid(v_set1(x)));
    return out[0];
}

/* ---- rotation ---- */

/* (a, b) -> (a cos - b sin, b cos + a sin), each product rounded, as torch does it */
static void rotate_row(float *x, const float *cos, const float *sin, uint32_t n_rot,
                       bool is_interleaved) {
    uint32_t half = n_rot / 2;
    if (is_interleaved) {
        for (uint32_t i = 0; i < half; i++) {
            float a = x[2 * i], b = x[2 * i + 1];
            x[2 * i] = a * cos[i] - b * sin[i];
            x[2 * i + 1] = b * cos[i] + a * sin[i];
        }
        return;
    }
    for (uint32_t i = 0; i < half; i += VN) {
        uint32_t k = half - i;
        vf a = v_load_n(x + i, k), b = v_load_n(x + half + i, k);
        vf c = v_load_n(cos + i, k), s = v_load_n(sin + i, k);
        v_store_n(x + i, a * c - b * s, k);
        v_store_n(x + half + i, b * c + a * s, k);
    }
}

/* ---- tiles of activations ---- */

static void fill_f32(void *tile, uint32_t n_rows, uint32_t t, const float *x, uint32_t n_in,
                     int32_t offset) {
    float *a = (float *)tile + t;
    (void)offset;
    for (uint32_t k = 0; k < n_in; k++)
        a[(size_t)k * n_rows] = x[k];
    if (n_in % 2) a[(size_t)n_in * n_rows] = 0; /* bf16 weights come in pairs */
}

/* 32 columns as int8: q = round(x * 127 / largest). The largest is sought among bit patterns, where a NaN is largest
 * of all, so that it reaches the result instead of vanishing in a comparison. */
INLINE float quantise_32(const float *x, int8_t *q, int32_t *low_sum, int32_t *high_sum) {
    const vf magic = v_set1(12582912.0f);
    vf v[2 * VP];
    vi top[VP], sum[2][VP];
    for (int p = 0; p < 2 * VP; p++)
        v[p] = v_load(x + p * VN);
    for (int p = 0; p < VP; p++)
        top[p] = vi_max((vi)v_abs(v[p]), (vi)v_abs(v[VP + p]));
    float largest = by_bits_f32((uint32_t)v16_max_int(top));
    bool is_zero = largest <= 0x1p-100f; /* its inverse would overflow */
    vf inverse = v_set1(is_zero ? 0 : 127.0f / largest);
    for (int p = 0; p < 2 * VP; p++) {
        vi whole = (vi)(v[p] * inverse + magic) - (vi)magic;
        sum[p / VP][p % VP] = whole;
        vi_store_bytes(q + p * VN, whole);
    }
    *low_sum = v16_sum_int(sum[0]);
    *high_sum = v16_sum_int(sum[1]);
    return is_zero ? 0 : largest / 127.0f;
}

static void fill_i8(void *tile, uint32_t n_rows, uint32_t t, const float *x, uint32_t n_in,
                    int32_t offset) {
    uint32_t *a = (uint32_t *)tile + t;
    for (uint32_t b = 0; b < n_in / 32; b++, x += 32, a += 11 * (size_t)n_rows) {
        uint32_t q[8];
        int32_t low, high;
        float s = quantise_32(x, (int8_t *)q, &low, &high);
        for (uint32_t j = 0; j < 8; j++)
            a[j * n_rows] = q[j];
        int32_t sum = (int32_t)((uint32_t)low + (uint32_t)high);
        a[8 * n_rows] = by_f32_bits(s);
        a[9 * n_rows] = by_f32_bits(s * (float)sum);
        a[10 * n_rows] = (uint32_t)-offset * (uint32_t)sum;
    }
}

static void fill_i8x2(void *tile, uint32_t n_rows, uint32_t t, const float *x, uint32_t n_in,
                      int32_t offset) {
    uint32_t *a = (uint32_t *)tile + t;
    for (uint32_t b = 0; b < n_in / 32; b++, x += 32, a += 13 * (size_t)n_rows) {
        uint32_t q[8];
        int32_t low, high;
        float s = quantise_32(x, (int8_t *)q, &low, &high);
        for (uint32_t j = 0; j < 8; j++)
            a[j * n_rows] = q[j];
        a[8 * n_rows] = by_f32_bits(s);
        a[9 * n_rows] = by_f32_bits(s * (float)low);
        a[10 * n_rows] = by_f32_bits(s * (float)high);
        a[11 * n_rows] = (uint32_t)-offset * (uint32_t)low;
        a[12 * n_rows] = (uint32_t)-offset * (uint32_t)high;
    }
}

/* What quantise_32 leaves; the products are exact (7 bits times 24, rounded once with the difference). */
static void remainder_row(const float *x, uint32_t n_in, float *y) {
    for (uint32_t b = 0; b < n_in / 32; b++, x += 32, y += 32) {
        int8_t q[32];
        int32_t low, high;
        float s = quantise_32(x, q, &low, &high);
        for (int k = 0; k < 32; k++)
            y[k] = fmaf(-s, (float)q[k], x[k]);
    }
}

/* ---- after a matrix product ---- */

/* n columns of vector p of one row. */
INLINE void finish_vector(const struct cpu_finish *f, const float *sums, float *y, int p,
                          uint32_t n, bool is_whole) {
    vf scale = v_set1(f->scale), v = v_load(sums + p * VN);
    if (f->bias) v = v + v_load(f->bias + p * VN);
    if (f->is_gated) {
        vf up = v_load(sums + CPU_STRIP + p * VN);
        if (f->bias) up = up + v_load(f->bias + CPU_STRIP + p * VN);
        v = v_act_gated(f->act, v, up);
    } else if (f->act != ACT_NONE) {
        v = v_act(f->act, v);
    }
    y += p * VN;
    if (f->softcap > 0) {
        vf cap = v_set1(f->softcap);
        v_store_n(y, cap * v_tanh(scale * v / cap), n);
    } else if (is_whole) {
        if (f->is_add)
            v = v_fma(scale, v, v_load(y));
        else
            v = scale * v;
        v_store(y, v);
    } else {
        put_row(y, v, n, f->is_add, scale);
    }
}

static void finish_tile(const struct cpu_finish *f, const float *sums, uint32_t n_rows, float *y,
                        size_t y_ld, const uint32_t *rows) {
    for (uint32_t i = 0; i < n_rows; i++, sums += 2 * CPU_STRIP) {
        float *out = y + (rows ? rows[i] : i) * y_ld;
        for (int p = 0; p < VP && f->n == CPU_STRIP; p++)
            finish_vector(f, sums, out, p, VN, true);
        for (int p = 0; p < VP && f->n != CPU_STRIP; p++) {
            uint32_t n = left(f->n, 0, p);
            if (n) finish_vector(f, sums, out, p, n, false);
        }
    }
}

#endif
