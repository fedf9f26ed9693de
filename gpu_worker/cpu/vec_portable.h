/* vec_portable.h - the vectors of the kernels in plain C: 16 lanes, one after the other. The truth.
 *
 *     vf 16 x f32     vi 16 x i32     vb 64 bytes, four a lane     VN lanes a vector, VP vectors a strip of 16
 *
 * Always: each function gives what its namesake in vec_avx2.h and vec_avx512.h gives, bit for bit: kernels written once
 * over these words (kern_*.h) are bit-equal on all three.
 * Owner: kern_portable.c includes it, nobody else. */
#ifndef GPU_WORKER_CPU_VEC_PORTABLE_H
#define GPU_WORKER_CPU_VEC_PORTABLE_H

#include "common/modelfile/dtype.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL(n) /* the truth stays small */

enum { VN = 16, VP = 1 };
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint8_t vb __attribute__((vector_size(64)));
typedef vi vh; /* partial sums of dot(); not used here */
#define settle(v) (void)(v)

INLINE vf v_set1(float x) {
    return (vf){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

INLINE vi vi_set1(int32_t x) {
    return (vi){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

INLINE vf v_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void v_store(float *p, vf v) {
    memcpy(p, &v, sizeof v);
}

/* n lanes, the others 0 */
INLINE vf v_load_n(const float *p, uint32_t n) {
    vf v = {0};
    memcpy(&v, p, (n < VN ? n : VN) * sizeof *p);
    return v;
}

INLINE void v_store_n(float *p, vf v, uint32_t n) {
    memcpy(p, &v, (n < VN ? n : VN) * sizeof *p);
}

INLINE vf v_load_f16(const uint16_t *p) {
    vf v;
    for (int i = 0; i < VN; i++)
        v[i] = by_f16_to_f32(p[i]);
    return v;
}

INLINE vf v_load_bf16(const uint16_t *p) {
    vf v;
    for (int i = 0; i < VN; i++)
        v[i] = by_bf16_to_f32(p[i]);
    return v;
}

INLINE vi vi_load_i8(const int8_t *p) {
    vi v;
    for (int i = 0; i < VN; i++)
        v[i] = p[i];
    return v;
}

INLINE vi vi_load_u8(const uint8_t *p) {
    vi v;
    for (int i = 0; i < VN; i++)
        v[i] = p[i];
    return v;
}

INLINE vi vi_load(const void *p) {
    vi v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* each lane's low byte */
INLINE void vi_store_bytes(int8_t *p, vi v) {
    for (int i = 0; i < VN; i++)
        p[i] = (int8_t)v[i];
}

/* a * b + c, rounded once */
INLINE vf v_fma(vf a, vf b, vf c) {
    for (int i = 0; i < VN; i++)
        c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
}

/* As x86 does it: of a NaN and anything, the second. */
INLINE vf v_max(vf a, vf b) {
    vi m = a > b;
    return (vf)(((vi)a & m) | ((vi)b & ~m));
}

INLINE vf v_min(vf a, vf b) {
    vi m = a < b;
    return (vf)(((vi)a & m) | ((vi)b & ~m));
}

/* a < b ? x : y */
INLINE vf v_if_less(vf a, vf b, vf x, vf y) {
    vi m = a < b;
    return (vf)(((vi)x & m) | ((vi)y & ~m));
}

/* Lane i of v where bit i is set, else of other. */
INLINE vf v_pick(uint32_t bits, vf v, vf other) {
    for (int i = 0; i < VN; i++)
        v[i] = bits >> i & 1 ? v[i] : other[i];
    return v;
}

INLINE vi vi_max(vi a, vi b) {
    vi m = a > b;
    return (a & m) | (b & ~m);
}

/* a * b + c, unsigned: a row of NaN has any sums */
INLINE vi vi_mul_add(vi a, vi b, vi c) {
    for (int i = 0; i < VN; i++)
        c[i] = (int32_t)((uint32_t)a[i] * (uint32_t)b[i] + (uint32_t)c[i]);
    return c;
}

INLINE vf v_of_int(vi v) {
    return __builtin_convertvector(v, vf);
}

/* ---- 16 lanes to one number: halves are folded, 8, 4, 2, 1 ---- */

/* v[i] becomes lane i of all */
INLINE void v_turn(vf *v) {
    for (int i = 0; i < VN; i++) {
        for (int k = 0; k < i; k++) {
            float x = v[i][k];
            v[i][k] = v[k][i];
            v[k][i] = x;
        }
    }
}

INLINE float v16_sum(const vf *v) {
    float s[16];
    memcpy(s, v, sizeof s);
    for (int half = 8; half; half /= 2) {
        for (int i = 0; i < half; i++)
            s[i] += s[i + half];
    }
    return s[0];
}

INLINE float v16_max(const vf *v) {
    float s[16];
    memcpy(s, v, sizeof s);
    for (int half = 8; half; half /= 2) {
        for (int i = 0; i < half; i++)
            s[i] = s[i] > s[i + half] ? s[i] : s[i + half];
    }
    return s[0];
}

INLINE int32_t v16_sum_int(const vi *v) {
    uint32_t s = 0;
    for (int i = 0; i < 16; i++)
        s += (uint32_t)(*v)[i];
    return (int32_t)s;
}

INLINE int32_t v16_max_int(const vi *v) {
    int32_t s = (*v)[0];
    for (int i = 1; i < 16; i++)
        s = s > (*v)[i] ? s : (*v)[i];
    return s;
}

/* ---- bytes ---- */

INLINE vb vb_load(const uint8_t *p) {
    vb v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* some bits of each byte, moved to the right (or left): mask says where they are then; none may come from a neighbour */
INLINE vb vb_part(vb v, int right, int mask) {
    v = right < 0 ? v << -right : v >> right;
    return v & (uint8_t)mask;
}

INLINE vb vb_or(vb a, vb b) {
    return a | b;
}

/* each byte 0 … 15 replaced by its entry */
INLINE vb vb_lookup(const uint8_t *table, vb v) {
    for (int i = 0; i < 4 * VN; i++)
        v[i] = table[v[i]];
    return v;
}

/* c[lane] += w[4 bytes of the lane, unsigned] . x[4 bytes, signed]. What i and fits mean: vec_avx2.h. */
INLINE void dot(vi *c, vh *h, vb w, int32_t x, int i, int fits) {
    (void)h, (void)i, (void)fits;
    int32_t x0 = (int8_t)x, x1 = (int8_t)(x >> 8), x2 = (int8_t)(x >> 16), x3 = x >> 24;
    for (int r = 0; r < VN; r++)
        (*c)[r] += w[4 * r] * x0 + w[4 * r + 1] * x1 + w[4 * r + 2] * x2 + w[4 * r + 3] * x3;
}

/* What dot's sums start from, for weights stored with an offset: x_off = -offset * sum of x. */
INLINE vi dot_start(int32_t x_off, int fits) {
    (void)fits;
    return vi_set1(x_off);
}

#endif
