/* vec_avx2.h - the vectors of the kernels on AVX2 with FMA and F16C: 8 lanes, two vectors a strip of 16 rows.
 *
 *     dot: maddubs gives i16 sums of two products; `fits` of them (weights up to 15: 8, 31: 4, 63: 2) are added up as
 *     i16 before pmaddwd widens them. fits 1: weights are signed bytes plus 128, whose products would overflow; then
 *     |w| is multiplied with x * sign(w). Activations lie in -127 … 127 for both.
 *     settle: v has its value here. gcc else makes all products of an unrolled block first, and keeps them on the stack.
 *
 * Always: bit for bit what vec_portable.h gives. Owner: kern_avx2.c includes it, nobody else. */
#ifndef GPU_WORKER_CPU_VEC_AVX2_H
#define GPU_WORKER_CPU_VEC_AVX2_H

#include "common/base/base.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL(n) PRAGMA(GCC unroll n)
#define PRAGMA(text) _Pragma(#text)

enum { VN = 8, VP = 2 };
typedef __m256 vf;
typedef int32_t vi __attribute__((vector_size(32)));
typedef __m256i vb;
typedef __m256i vh;
#define settle(v) __asm__ volatile("" : "+x"(v))

INLINE vf v_set1(float x) {
    return _mm256_set1_ps(x);
}

INLINE vi vi_set1(int32_t x) {
    return (vi)_mm256_set1_epi32(x);
}

INLINE vf v_load(const float *p) {
    return _mm256_loadu_ps(p);
}

INLINE void v_store(float *p, vf v) {
    _mm256_storeu_ps(p, v);
}

INLINE __m256i first_lanes(uint32_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n < VN ? n : VN)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE vf v_load_n(const float *p, uint32_t n) {
    return _mm256_maskload_ps(p, first_lanes(n));
}

INLINE void v_store_n(float *p, vf v, uint32_t n) {
    _mm256_maskstore_ps(p, first_lanes(n), v);
}

INLINE vf v_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

INLINE vf v_load_bf16(const uint16_t *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

INLINE vi vi_load_i8(const int8_t *p) {
    return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

INLINE vi vi_load_u8(const uint8_t *p) {
    return (vi)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

INLINE vi vi_load(const void *p) {
    return (vi)_mm256_loadu_si256(p);
}

INLINE void vi_store_bytes(int8_t *p, vi v) {
    __m256i low = _mm256_shuffle_epi8(
        (__m256i)v, _mm256_setr_epi32(0x0c080400, -1, -1, -1, 0x0c080400, -1, -1, -1));
    __m256i both = _mm256_permutevar8x32_epi32(low, _mm256_setr_epi32(0, 4, 0, 0, 0, 0, 0, 0));
    _mm_storel_epi64((__m128i *)p, _mm256_castsi256_si128(both));
}

INLINE vf v_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}

INLINE vf v_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}

INLINE vf v_min(vf a, vf b) {
    return _mm256_min_ps(a, b);
}

INLINE vf v_if_less(vf a, vf b, vf x, vf y) {
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}

INLINE vf v_pick(uint32_t bits, vf v, vf other) {
    __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i on = _mm256_and_si256(_mm256_set1_epi32((int)bits), lane);
    return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(_mm256_cmpeq_epi32(on, lane)));
}

INLINE vi vi_max(vi a, vi b) {
    return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b);
}

INLINE vi vi_mul_add(vi a, vi b, vi c) {
    return (vi)_mm256_add_epi32(_mm256_mullo_epi32((__m256i)a, (__m256i)b), (__m256i)c);
}

INLINE vf v_of_int(vi v) {
    return _mm256_cvtepi32_ps((__m256i)v);
}

/* v[i] becomes lane i of all: 24 shuffles. */
INLINE void v_turn(vf *v) {
    vf t[VN];
    UNROLL(8)
    for (int i = 0; i < VN; i += 2) {
        t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    UNROLL(4)
    for (int i = 0; i < VN; i += 4) {
        UNROLL(2)
        for (int k = 0; k < 2; k++) {
            __m256d a = _mm256_castps_pd(t[i + k]), b = _mm256_castps_pd(t[i + 2 + k]);
            v[i + 2 * k] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
            v[i + 2 * k + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
        }
    }
    UNROLL(4)
    for (int k = 0; k < 4; k++) {
        t[k] = _mm256_permute2f128_ps(v[k], v[k + 4], 0x20);
        t[k + 4] = _mm256_permute2f128_ps(v[k], v[k + 4], 0x31);
    }
    UNROLL(16)
    for (int i = 0; i < VN; i++)
        v[i] = t[i];
}

INLINE float v16_sum(const vf *v) {
    __m256 s = _mm256_add_ps(v[0], v[1]);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}

INLINE float v16_max(const vf *v) {
    __m256 s = _mm256_max_ps(v[0], v[1]);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}

INLINE int32_t v16_sum_int(const vi *v) {
    __m256i s = _mm256_add_epi32((__m256i)v[0], (__m256i)v[1]);
    __m128i q = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}

INLINE int32_t v16_max_int(const vi *v) {
    __m256i s = _mm256_max_epi32((__m256i)v[0], (__m256i)v[1]);
    __m128i q = _mm_max_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    q = _mm_max_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}

INLINE vb vb_load(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

INLINE vb vb_part(vb v, int right, int mask) {
    if (right > 0) v = _mm256_srli_epi16(v, right);
    if (right < 0) v = _mm256_slli_epi16(v, -right);
    return _mm256_and_si256(v, _mm256_set1_epi8((char)mask));
}

INLINE vb vb_or(vb a, vb b) {
    return _mm256_or_si256(a, b);
}

INLINE vb vb_lookup(const uint8_t *table, vb v) {
    __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    return _mm256_shuffle_epi8(t, v);
}

INLINE void dot(vi *c, vh *h, vb w, int32_t x, int i, int fits) {
    const __m256i one = _mm256_set1_epi16(1);
    __m256i xs = _mm256_set1_epi32(x);
    if (fits == 1) {
        __m256i v = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
        __m256i p = _mm256_maddubs_epi16(_mm256_abs_epi8(v), _mm256_sign_epi8(xs, v));
        *c += (vi)_mm256_madd_epi16(p, one);
        settle(*c);
        return;
    }
    __m256i p = _mm256_maddubs_epi16(w, xs);
    *h = i % fits == 0 ? p : _mm256_add_epi16(*h, p);
    settle(*h);
    if (i % fits == fits - 1) *c += (vi)_mm256_madd_epi16(*h, one);
}

INLINE vi dot_start(int32_t x_off, int fits) {
    return vi_set1(fits == 1 ? 0 : x_off);
}

#endif
