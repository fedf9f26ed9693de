#include "gpu_worker/cuda/blocks.h"

bool blocks_known(enum by_dtype t) {
    switch (t) {
    case BY_DTYPE_Q5_0:
    case BY_DTYPE_Q5_1:
    case BY_DTYPE_Q2_K:
    case BY_DTYPE_Q3_K:
    case BY_DTYPE_Q4_K:
    case BY_DTYPE_Q5_K:
    case BY_DTYPE_Q6_K:
    case BY_DTYPE_IQ4_NL:
    case BY_DTYPE_IQ4_XS:
        return true;
    default:
        return false;
    }
}

static void share(float *sm, uint32_t n_groups, float s, float m) {
    for (uint32_t i = 0; i < n_groups; i++) {
        sm[2 * i] = s;
        sm[2 * i + 1] = m;
    }
}

static uint32_t nibble(const uint8_t *qs, uint32_t i) {
    return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

/* 32 columns. */
static void unpack_small(enum by_dtype t, const uint8_t *src, int8_t *q, float *sm) {
    const bool is_5 = t == BY_DTYPE_Q5_0 || t == BY_DTYPE_Q5_1, has_min = t == BY_DTYPE_Q5_1;
    uint16_t d, m = 0;
    uint32_t high = 0;
    memcpy(&d, src, 2);
    if (has_min) memcpy(&m, src + 2, 2);
    const uint8_t *at = src + (has_min ? 4 : 2);
    if (is_5) memcpy(&high, at, 4);
    const uint8_t *qs = at + (is_5 ? 4 : 0);
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t v = nibble(qs, i);
        q[i] = t == BY_DTYPE_IQ4_NL
                   ? by_iq4_values[v]
                   : (int8_t)((int)(v | (high >> i & 1) << 4) - (has_min ? 0 : 16));
    }
    share(sm, 2, by_f16_to_f32(d), by_f16_to_f32(m));
}

/* Six bits each of scale and minimum j of Q4_K and Q5_K. */
static void scale_min(const uint8_t *p, uint32_t j, uint32_t *scale, uint32_t *min) {
    *scale = j < 4 ? p[j] & 63u : (p[j + 4] & 15u) | (uint32_t)(p[j - 4] >> 6) << 4;
    *min = j < 4 ? p[j + 4] & 63u : (uint32_t)(p[j + 4] >> 4) | (uint32_t)(p[j] >> 6) << 4;
}

static void unpack_q45_k(bool is_5, const uint8_t *src, int8_t *q, float *sm) {
    struct by_block_q5_k b = {0};
    if (is_5) {
        memcpy(&b, src, sizeof b);
    } else {
        memcpy(&b, src, offsetof(struct by_block_q4_k, qs));
        memcpy(b.qs, src + offsetof(struct by_block_q4_k, qs), sizeof b.qs);
    }
    for (uint32_t j = 0; j < 8; j++) {
        uint32_t scale, min;
        scale_min(b.scales, j, &scale, &min);
        share(sm + 4 * j, 2, by_f16_to_f32(b.d) * (float)scale,
              -by_f16_to_f32(b.dmin) * (float)min);
        for (uint32_t i = 0; i < 32; i++)
            q[32 * j + i] =
                (int8_t)((b.qs[j / 2 * 32 + i] >> (j % 2 * 4) & 15) | (b.qh[i] >> j & 1) << 4);
    }
}

static void unpack_q6_k(const uint8_t *src, int8_t *q, float *sm) {
    struct by_block_q6_k b;
    memcpy(&b, src, sizeof b);
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t half = i / 128, round = i % 128 / 32, l = i % 32;
        uint32_t low = b.ql[half * 64 + round % 2 * 32 + l] >> (round / 2 * 4) & 15;
        q[i] = (int8_t)((int)(low | (uint32_t)(b.qh[half * 32 + l] >> (2 * round) & 3) << 4) - 32);
    }
    for (uint32_t g = 0; g < 16; g++)
        share(sm + 2 * g, 1, by_f16_to_f32(b.d) * (float)b.scales[g], 0);
}

static void unpack_q3_k(const uint8_t *src, int8_t *q, float *sm) {
    struct by_block_q3_k b;
    memcpy(&b, src, sizeof b);
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t half = i / 128, round = i % 128 / 32;
        int low = b.qs[half * 32 + i % 32] >> (2 * round) & 3,
            high = b.hmask[i % 32] >> (i / 32) & 1;
        q[i] = (int8_t)((low | high << 2) - 4);
    }
    for (uint32_t g = 0; g < 16; g++) {
        int low = b.scales[g % 8] >> (g / 8 * 4) & 15,
            high = b.scales[8 + g % 4] >> (g / 4 * 2) & 3;
        share(sm + 2 * g, 1, by_f16_to_f32(b.d) * (float)((low | high << 4) - 32), 0);
    }
}

static void unpack_q2_k(const uint8_t *src, int8_t *q, float *sm) {
    struct by_block_q2_k b;
    memcpy(&b, src, sizeof b);
    for (uint32_t i = 0; i < 256; i++)
        q[i] = (int8_t)(b.qs[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3);
    for (uint32_t g = 0; g < 16; g++)
        share(sm + 2 * g, 1, by_f16_to_f32(b.d) * (float)(b.scales[g] & 15),
              -by_f16_to_f32(b.dmin) * (float)(b.scales[g] >> 4));
}

static void unpack_iq4_xs(const uint8_t *src, int8_t *q, float *sm) {
    struct by_block_iq4_xs b;
    memcpy(&b, src, sizeof b);
    for (uint32_t j = 0; j < 8; j++) {
        int low = b.scales_l[j / 2] >> (j % 2 * 4) & 15, high = b.scales_h >> (2 * j) & 3;
        share(sm + 4 * j, 2, by_f16_to_f32(b.d) * (float)((low | high << 4) - 32), 0);
        for (uint32_t i = 0; i < 32; i++)
            q[32 * j + i] = by_iq4_values[nibble(b.qs + 16 * j, i)];
    }
}

void blocks_unpack(enum by_dtype t, const uint8_t *src, uint32_t n, int8_t *q, float *sm) {
    uint32_t len = by_dtype_block_len(t), bytes = by_dtype_block_bytes(t);
    for (uint32_t i = 0; i < n; i += len, src += bytes, q += len, sm += len / 8) {
        if (t == BY_DTYPE_Q4_K || t == BY_DTYPE_Q5_K)
            unpack_q45_k(t == BY_DTYPE_Q5_K, src, q, sm);
        else if (t == BY_DTYPE_Q6_K)
            unpack_q6_k(src, q, sm);
        else if (t == BY_DTYPE_Q3_K)
            unpack_q3_k(src, q, sm);
        else if (t == BY_DTYPE_Q2_K)
            unpack_q2_k(src, q, sm);
        else if (t == BY_DTYPE_IQ4_XS)
            unpack_iq4_xs(src, q, sm);
        else
            unpack_small(t, src, q, sm);
    }
}
