/* vec_avx512.h - the vectors of the kernels on AVX-512 (F, BW, DQ, VL, VNNI): 16 lanes, one vector a strip of 16 rows.
 *
 * Always: bit for bit what vec_portable.h gives. Owner: kern_avx512*.c include it, nobody else. */
#ifndef GPU_WORKER_CPU_VEC_AVX512_H
#define GPU_WORKER_CPU_VEC_AVX512_H

#include "common/base/base.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL(n) PRAGMA(GCC unroll n)
#define PRAGMA(text) _Pragma(#text)

enum { VN = 16, VP = 1 };
typedef __m512 vf;
typedef int32_t vi __attribute__((vector_size(64)));
typedef __m512i vb;
typedef int vh;                                  /* vpdpbusd adds into i32 at once */
#define settle(v) __asm__ volatile("" : "+v"(v)) /* v has its value here: see vec_avx2.h */

INLINE vf v_set1(float x) {
    return _mm512_set1_ps(x);
}

INLINE vi vi_set1(int32_t x) {
    return (vi)_mm512_set1_epi32(x);
}

INLINE vf v_load(const float *p) {
    return _mm512_loadu_ps(p);
}

INLINE void v_store(float *p, vf v) {
    _mm512_storeu_ps(p, v);
}

INLINE __mmask16 first_lanes(uint32_t n) {
    return n < VN ? (__mmask16)((1u << n) - 1) : (__mmask16)0xffff;
}

INLINE vf v_load_n(const float *p, uint32_t n) {
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}

INLINE void v_store_n(float *p, vf v, uint32_t n) {
    _mm512_mask_storeu_ps(p, first_lanes(n), v);
}

INLINE vf v_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

INLINE vf v_load_bf16(const uint16_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

INLINE vi vi_load_i8(const int8_t *p) {
    return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}

INLINE vi vi_load_u8(const uint8_t *p) {
    return (vi)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

INLINE vi vi_load(const void *p) {
    return (vi)_mm512_loadu_si512(p);
}

INLINE void vi_store_bytes(int8_t *p, vi v) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)v));
}

INLINE vf v_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}

INLINE vf v_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}

INLINE vf v_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}

INLINE vf v_if_less(vf a, vf b, vf x, vf y) {
    return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), x);
}

INLINE vf v_pick(uint32_t bits, vf v, vf other) {
    return _mm512_mask_mov_ps(other, (__mmask16)bits, v);
}

INLINE vi vi_max(vi a, vi b) {
    return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b);
}

INLINE vi vi_mul_add(vi a, vi b, vi c) {
    return (vi)_mm512_add_epi32(_mm512_mullo_epi32((__m512i)a, (__m512i)b), (__m512i)c);
}

INLINE vf v_of_int(vi v) {
    return _mm512_cvtepi32_ps((__m512i)v);
}

/* v[i] becomes lane i of all: 64 shuffles. */
INLINE void v_turn(vf *v) {
    vf t[VN];
    UNROLL(8)
    for (int i = 0; i < VN; i += 2) {
        t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
    UNROLL(4)
    for (int i = 0; i < VN; i += 4) {
        UNROLL(2)
        for (int k = 0; k < 2; k++) {
            __m512d a = _mm512_castps_pd(t[i + k]), b = _mm512_castps_pd(t[i + 2 + k]);
            v[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            v[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    UNROLL(4)
    for (int k = 0; k < 4; k++) {
        vf even_a = _mm512_shuffle_f32x4(v[k], v[k + 4], 0x88);
        vf odd_a = _mm512_shuffle_f32x4(v[k], v[k + 4], 0xdd);
        vf even_b = _mm512_shuffle_f32x4(v[k + 8], v[k + 12], 0x88);
        vf odd_b = _mm512_shuffle_f32x4(v[k + 8], v[k + 12], 0xdd);
        t[k] = _mm512_shuffle_f32x4(even_a, even_b, 0x88);
        t[k + 8] = _mm512_shuffle_f32x4(even_a, even_b, 0xdd);
        t[k + 4] = _mm512_shuffle_f32x4(odd_a, odd_b, 0x88);
        t[k + 12] = _mm512_shuffle_f32x4(odd_a, odd_b, 0xdd);
    }
    UNROLL(16)
    for (int i = 0; i < VN; i++)
        v[i] = t[i];
}

INLINE float v16_sum(const vf *v) {
    __m256 s = _mm256_add_ps(_mm512_castps512_ps256(*v), _mm512_extractf32x8_ps(*v, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}

INLINE float v16_max(const vf *v) {
    __m256 s = _mm256_max_ps(_mm512_castps512_ps256(*v), _mm512_extractf32x8_ps(*v, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}

INLINE int32_t v16_sum_int(const vi *v) {
    /* not _mm512_reduce_add_epi32: its sums are signed, and those of a row of NaN overflow */
    __m512i all = (__m512i)*v;
    __m256i s = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti32x8_epi32(all, 1));
    __m128i q = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}

INLINE int32_t v16_max_int(const vi *v) {
    return _mm512_reduce_max_epi32((__m512i)*v);
}

INLINE vb vb_load(const uint8_t *p) {
    return _mm512_loadu_si512(p);
}

INLINE vb vb_part(vb v, int right, int mask) {
    if (right > 0) v = _mm512_srli_epi16(v, (unsigned)right);
    if (right < 0) v = _mm512_slli_epi16(v, (unsigned)-right);
    return _mm512_and_si512(v, _mm512_set1_epi8((char)mask));
}

INLINE vb vb_or(vb a, vb b) {
    return _mm512_or_si512(a, b);
}

INLINE vb vb_lookup(const uint8_t *table, vb v) {
    __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table));
    return _mm512_shuffle_epi8(t, v);
}

INLINE void dot(vi *c, vh *h, vb w, int32_t x, int i, int fits) {
    (void)h, (void)i, (void)fits;
    *c = (vi)_mm512_dpbusd_epi32((__m512i)*c, w, _mm512_set1_epi32(x));
}

INLINE vi dot_start(int32_t x_off, int fits) {
    (void)fits;
    return vi_set1(x_off);
}

#endif
