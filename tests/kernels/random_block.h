/* random_block.h - a block of a weight's type with random bits, whose numbers are finite and small.
 *
 *     random_block(BY_DTYPE_Q4_K, bytes, random)        by_dtype_block_bytes(t) of them; random: 64 bits, the upper half is used
 *
 * Owner: the test program. */
#ifndef TESTS_KERNELS_RANDOM_BLOCK_H
#define TESTS_KERNELS_RANDOM_BLOCK_H

#include "common/modelfile/dtype.h"

#include <string.h>

static inline float random_float(uint64_t (*random)(void)) { /* about normal, 0 ± 1 */
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)(random() >> 40) / 16777216.0f - 0.5f;
    return sum * 1.7f;
}

static inline uint16_t random_scale(uint64_t (*random)(void)) {
    return by_f32_to_f16(random_float(random) * 0.02f);
}

/* Where f16 scales lie in a block: two offsets, or -1. */
static inline void random_scales_at(enum by_dtype t, int *a, int *b) {
    *a = 0;
    *b = -1;
    if (t == BY_DTYPE_Q4_1 || t == BY_DTYPE_Q5_1 || t == BY_DTYPE_Q4_K || t == BY_DTYPE_Q5_K)
        *b = 2;
    if (t == BY_DTYPE_Q2_K) *a = offsetof(struct by_block_q2_k, d), *b = *a + 2;
    if (t == BY_DTYPE_Q3_K) *a = offsetof(struct by_block_q3_k, d);
    if (t == BY_DTYPE_Q6_K) *a = offsetof(struct by_block_q6_k, d);
    if (t == BY_DTYPE_TQ1_0 || t == BY_DTYPE_TQ2_0) *a = (int)by_dtype_block_bytes(t) - 2;
}

static inline void random_block(enum by_dtype t, uint8_t *p, uint64_t (*random)(void)) {
    uint32_t n = by_dtype_block_bytes(t);
    for (uint32_t i = 0; i < n; i++)
        p[i] = (uint8_t)(random() >> 24);
    if (t == BY_DTYPE_MXFP4) {
        p[0] = (uint8_t)(118 + (random() >> 33) % 8);
        return;
    }
    if (t == BY_DTYPE_F8_32) { /* no NaN, and small */
        float s = 0.001f * (1 + (float)((random() >> 33) % 9));
        memcpy(p, &s, sizeof s);
        for (uint32_t i = sizeof s; i < n; i++)
            if ((p[i] & 0x7f) == 0x7f) p[i] = 0;
        return;
    }
    if (t == BY_DTYPE_Z4_32) p[2] %= 17, p[3] = 0;
    if (t == BY_DTYPE_IQ1_M) { /* in four high halves of bytes */
        uint16_t h = random_scale(random);
        for (uint32_t i = 0; i < 4; i++)
            p[49 + 2 * i] = (uint8_t)((p[49 + 2 * i] & 15) | (h >> (4 * i) & 15) << 4);
        return;
    }
    int at[2];
    random_scales_at(t, &at[0], &at[1]);
    for (int i = 0; i < 2; i++) {
        uint16_t h = random_scale(random);
        if (at[i] >= 0) memcpy(p + at[i], &h, 2);
    }
}

#endif
