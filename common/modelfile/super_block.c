#include "common/modelfile/super_block.h"

#include "common/base/check.h"

/* In Q2_K and Q3_K each 32 bytes of qs hold 128 columns, two bits a round of 32. */
static void unpack_q2_k(const uint8_t *src, struct by_super_block *to) {
    struct by_block_q2_k b;
    memcpy(&b, src, sizeof b);
    to->half_d = b.d, to->half_dmin = b.dmin;
    for (uint32_t g = 0; g < 16; g++)
        to->scales[g] = b.scales[g] & 15, to->mins[g] = b.scales[g] >> 4;
    for (uint32_t j = 0; j < 8; j++)
        for (uint32_t i = 0; i < 32; i++)
            to->q[32 * j + i] = b.qs[j / 4 * 32 + i] >> (2 * (j % 4)) & 3;
}

/* Scale g: low four bits in bytes 0 … 7 (nibble g / 8), high two in bytes 8 … 11. */
static void unpack_q3_k(const uint8_t *src, struct by_super_block *to) {
    struct by_block_q3_k b;
    memcpy(&b, src, sizeof b);
    to->half_d = b.d;
    for (uint32_t g = 0; g < 16; g++) {
        int low = b.scales[g % 8] >> (g / 8 * 4) & 15,
            high = b.scales[8 + g % 4] >> (g / 4 * 2) & 3;
        to->scales[g] = (int8_t)((low | high << 4) - 32);
    }
    for (uint32_t j = 0; j < 8; j++)
        for (uint32_t i = 0; i < 32; i++)
            to->q[32 * j + i] =
                (uint8_t)((b.qs[j / 4 * 32 + i] >> (2 * (j % 4)) & 3) | (b.hmask[i] >> j & 1) << 2);
}

/* Q4_K is Q5_K without fifth bits. The first four scales and minima lie in the low six bits of bytes j and j + 4; the last four
 * have their low nibbles in bytes 8 … 11 and their high two bits on top of the first eight bytes. */
static void unpack_q45_k(bool is_5, const uint8_t *src, struct by_super_block *to) {
    struct by_block_q5_k b = {0};
    const size_t head = offsetof(struct by_block_q4_k, qs);
    memcpy(&b, src, is_5 ? sizeof b : head);
    if (!is_5) memcpy(b.qs, src + head, sizeof b.qs);
    to->half_d = b.d, to->half_dmin = b.dmin;
    for (uint32_t g = 0; g < 16; g++) {
        uint32_t j = g / 2;
        const uint8_t *p = b.scales + j % 4;
        to->scales[g] = (int8_t)(j < 4 ? p[0] & 63 : (p[8] & 15) | (p[0] >> 6) << 4);
        to->mins[g] = (uint8_t)(j < 4 ? p[4] & 63 : p[8] >> 4 | (p[4] >> 6) << 4);
    }
    for (uint32_t j = 0; j < 8; j++)
        for (uint32_t i = 0; i < 32; i++)
            to->q[32 * j + i] =
                (uint8_t)((b.qs[j / 2 * 32 + i] >> (j % 2 * 4) & 15) | (b.qh[i] >> j & 1) << 4);
}

/* Of each half of 128 columns, rounds 0 and 1 are the low nibbles of 64 bytes of ql, rounds 2 and 3 the high ones; qh has two
 * bits a round. */
static void unpack_q6_k(const uint8_t *src, struct by_super_block *to) {
    struct by_block_q6_k b;
    memcpy(&b, src, sizeof b);
    to->half_d = b.d;
    memcpy(to->scales, b.scales, sizeof b.scales);
    for (uint32_t j = 0; j < 8; j++) {
        const uint8_t *ql = b.ql + j / 4 * 64 + j % 2 * 32, *qh = b.qh + j / 4 * 32;
        for (uint32_t i = 0; i < 32; i++)
            to->q[32 * j + i] =
                (uint8_t)((ql[i] >> (j % 4 / 2 * 4) & 15) | (qh[i] >> (j % 4 * 2) & 3) << 4);
    }
}

static void unpack_iq4_xs(const uint8_t *src, struct by_super_block *to) {
    struct by_block_iq4_xs b;
    memcpy(&b, src, sizeof b);
    to->half_d = b.d;
    for (uint32_t g = 0; g < 16; g++) {
        int j = (int)g / 2, low = b.scales_l[j / 2] >> (j % 2 * 4) & 15,
            high = b.scales_h >> (2 * j) & 3;
        to->scales[g] = (int8_t)((low | high << 4) - 32);
    }
    for (uint32_t j = 0; j < 8; j++)
        for (uint32_t i = 0; i < 16; i++) {
            to->q[32 * j + i] = b.qs[16 * j + i] & 15;
            to->q[32 * j + 16 + i] = b.qs[16 * j + i] >> 4;
        }
}

/* 48 and 4 bytes, a column a digit of base 3 of a fraction of 256: five, of the last four bytes four | d */
static void unpack_tq1_0(const uint8_t *p, uint8_t *q) {
    static const struct {
        uint8_t from, n, digits;
    } parts[] = {{0, 32, 5}, {32, 16, 5}, {48, 4, 4}};
    for (uint32_t k = 0; k < BY_COUNTOF(parts); k++)
        for (uint32_t digit = 0, power = 1; digit < parts[k].digits; digit++, power *= 3)
            for (uint32_t i = 0; i < parts[k].n; i++)
                *q++ = (uint8_t)((uint8_t)(p[parts[k].from + i] * power) * 3 >> 8);
}

/* 64 bytes of four columns, 32 apart | d. Two bits may say 3; no file does. */
static void unpack_tq2_0(const uint8_t *p, uint8_t *q) {
    for (uint32_t j = 0; j < 8; j++)
        for (uint32_t i = 0; i < 32; i++)
            q[32 * j + i] = p[j / 4 * 32 + i] >> (j % 4 * 2) & 3;
}

/* -1, 0 and 1 times d: from 0, 1 and 2 a minimum of d is taken off. */
static void unpack_ternary(enum by_dtype t, const uint8_t *src, struct by_super_block *to) {
    memcpy(&to->half_d, src + by_dtype_block_bytes(t) - sizeof to->half_d, sizeof to->half_d);
    to->half_dmin = to->half_d;
    memset(to->scales, 1, sizeof to->scales);
    memset(to->mins, 1, sizeof to->mins);
    if (t == BY_DTYPE_TQ1_0)
        unpack_tq1_0(src, to->q);
    else
        unpack_tq2_0(src, to->q);
}

void by_super_unpack(enum by_dtype t, const uint8_t *src, struct by_super_block *b) {
    by_assert(by_dtype_block_len(t) == BY_QK_K);
    b->half_d = b->half_dmin = 0;
    memset(b->mins, 0, sizeof b->mins);
    switch (t) {
    case BY_DTYPE_Q2_K:
        unpack_q2_k(src, b);
        break;
    case BY_DTYPE_Q3_K:
        unpack_q3_k(src, b);
        break;
    case BY_DTYPE_Q4_K:
    case BY_DTYPE_Q5_K:
        unpack_q45_k(t == BY_DTYPE_Q5_K, src, b);
        break;
    case BY_DTYPE_Q6_K:
        unpack_q6_k(src, b);
        break;
    case BY_DTYPE_IQ4_XS:
        unpack_iq4_xs(src, b);
        break;
    case BY_DTYPE_TQ1_0:
    case BY_DTYPE_TQ2_0:
        unpack_ternary(t, src, b);
        break;
    default:
        by_iq_unpack(t, src, b);
        return;
    }
    b->d = by_f16_to_f32(b->half_d);
}

const int8_t *by_super_levels(enum by_dtype t) {
    return t == BY_DTYPE_IQ4_XS ? by_iq4_values : by_iq_levels(t);
}

void by_super_to_f32(enum by_dtype t, const uint8_t *src, float *dst) {
    const int8_t *levels = by_super_levels(t);
    const int bias = t == BY_DTYPE_Q3_K ? 4 : t == BY_DTYPE_Q6_K ? 32 : 0;
    struct by_super_block b;
    by_super_unpack(t, src, &b);
    const float dmin = by_f16_to_f32(b.half_dmin);
    for (uint32_t g = 0; g < 16; g++) {
        const float d = b.d * (float)b.scales[g], m = dmin * (float)b.mins[g];
        for (uint32_t i = 16 * g; i < 16 * g + 16; i++)
            dst[i] = d * (float)(levels ? levels[b.q[i] & 15] : b.q[i] - bias) - m;
    }
}
