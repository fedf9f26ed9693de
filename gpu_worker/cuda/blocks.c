#include "gpu_worker/cuda/blocks.h"

#include <string.h>

bool blocks_known(enum by_dtype t) {
    switch (t) {
    case BY_DTYPE_Q2_K:
    case BY_DTYPE_Q3_K:
    case BY_DTYPE_Q4_K:
    case BY_DTYPE_Q5_K:
    case BY_DTYPE_Q6_K:
    case BY_DTYPE_IQ4_XS:
        return true;
    default:
        return by_iq_levels(t) != NULL;
    }
}

static void unpack_q2_k(const uint8_t *src, struct super_block *to) {
    struct by_block_q2_k b;
    memcpy(&b, src, sizeof b);
    to->d = b.d, to->dmin = b.dmin;
    memcpy(to->scales, b.scales, sizeof b.scales);
    for (uint32_t j = 0; j < 8; j++)
        for (uint32_t i = 0; i < 32; i++)
            to->q[32 * j + i] = b.qs[j / 4 * 32 + i] >> (2 * (j % 4)) & 3;
}

static void unpack_q3_k(const uint8_t *src, struct super_block *to) {
    struct by_block_q3_k b;
    memcpy(&b, src, sizeof b);
    to->d = b.d, to->dmin = 0;
    for (uint32_t g = 0; g < 16; g++) {
        int low = b.scales[g % 8] >> (g / 8 * 4) & 15,
            high = b.scales[8 + g % 4] >> (g / 4 * 2) & 3;
        to->scales[g] = (uint8_t)((low | high << 4) - 32);
    }
    for (uint32_t j = 0; j < 8; j++)
        for (uint32_t i = 0; i < 32; i++)
            to->q[32 * j + i] =
                (uint8_t)((b.qs[j / 4 * 32 + i] >> (2 * (j % 4)) & 3) | (b.hmask[i] >> j & 1) << 2);
}

/* Q4_K is Q5_K without fifth bits. */
static void unpack_q45_k(bool is_5, const uint8_t *src, struct super_block *to) {
    struct by_block_q5_k b = {0};
    const size_t head = offsetof(struct by_block_q4_k, qs);
    memcpy(&b, src, is_5 ? sizeof b : head);
    if (!is_5) memcpy(b.qs, src + head, sizeof b.qs);
    to->d = b.d, to->dmin = b.dmin;
    for (uint32_t j = 0; j < 8; j++) {
        const uint8_t *p = b.scales + j % 4;
        to->scales[2 * j] = j < 4 ? p[0] & 63 : (uint8_t)((p[8] & 15) | (p[0] >> 6) << 4);
        to->scales[2 * j + 1] = j < 4 ? p[4] & 63 : (uint8_t)(p[8] >> 4 | (p[4] >> 6) << 4);
    }
    for (uint32_t j = 0; j < 8; j++)
        for (uint32_t i = 0; i < 32; i++)
            to->q[32 * j + i] =
                (uint8_t)((b.qs[j / 2 * 32 + i] >> (j % 2 * 4) & 15) | (b.qh[i] >> j & 1) << 4);
}

static void unpack_q6_k(const uint8_t *src, struct super_block *to) {
    struct by_block_q6_k b;
    memcpy(&b, src, sizeof b);
    to->d = b.d, to->dmin = 0;
    memcpy(to->scales, b.scales, sizeof b.scales);
    for (uint32_t j = 0; j < 8; j++) {
        const uint8_t *ql = b.ql + j / 4 * 64 + j % 2 * 32, *qh = b.qh + j / 4 * 32;
        for (uint32_t i = 0; i < 32; i++)
            to->q[32 * j + i] =
                (uint8_t)((ql[i] >> (j % 4 / 2 * 4) & 15) | (qh[i] >> (j % 4 * 2) & 3) << 4);
    }
}

static void unpack_iq4_xs(const uint8_t *src, struct super_block *to) {
    struct by_block_iq4_xs b;
    memcpy(&b, src, sizeof b);
    to->wide_d = by_f16_to_f32(b.d);
    for (uint32_t g = 0; g < 16; g++) {
        uint32_t j = g / 2, low = b.scales_l[j / 2] >> (j % 2 * 4) & 15u,
                 high = b.scales_h >> (2 * j) & 3u;
        to->scales[g] = (uint8_t)((low | high << 4) - 32);
    }
    for (uint32_t i = 0; i < BY_QK_K; i++) {
        uint8_t both = b.qs[i / 32 * 16 + i % 16];
        to->q[i] = (uint8_t)by_iq4_values[i % 32 < 16 ? both & 15 : both >> 4];
    }
}

static void unpack_iq(enum by_dtype t, const uint8_t *src, struct super_block *to) {
    const int8_t *levels = by_iq_levels(t);
    struct by_iq_block b;
    by_iq_unpack(t, src, &b);
    to->wide_d = b.d;
    memcpy(to->scales, b.scales, sizeof b.scales);
    for (uint32_t i = 0; i < BY_QK_K; i++)
        to->q[i] = (uint8_t)levels[b.q[i]];
}

void blocks_unpack(enum by_dtype t, const uint8_t *src, struct super_block *b) {
    if (by_iq_levels(t))
        unpack_iq(t, src, b);
    else if (t == BY_DTYPE_Q2_K)
        unpack_q2_k(src, b);
    else if (t == BY_DTYPE_Q3_K)
        unpack_q3_k(src, b);
    else if (t == BY_DTYPE_Q6_K)
        unpack_q6_k(src, b);
    else if (t == BY_DTYPE_IQ4_XS)
        unpack_iq4_xs(src, b);
    else
        unpack_q45_k(t == BY_DTYPE_Q5_K, src, b);
}
