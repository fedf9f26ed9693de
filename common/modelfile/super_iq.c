/* ggml's types with codebooks (IQ1, IQ2, IQ3): a few bits choose the magnitudes of 4 or 8 columns together, others their
 * signs. */
#include "common/modelfile/iq_grids.h"
#include "common/modelfile/super_block.h"

/* By a number of a block: below a magnitude's, from half of the table on its negative. IQ1: 8 * (-1, 0, 1), plus or minus 1. */
static const int8_t levels_1[16] = {-7, 1, 9, 0, -9, -1, 7};
static const int8_t levels_2[16] = {8, 25, 43, 0, 0, 0, 0, 0, -8, -25, -43};
static const int8_t levels_3_xxs[16] = {4,  12,  20,  28,  36,  44,  52,  62,
                                        -4, -12, -20, -28, -36, -44, -52, -62};
static const int8_t levels_3_s[16] = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};

const int8_t *by_iq_levels(enum by_dtype t) {
    switch (t) {
    case BY_DTYPE_IQ1_S:
    case BY_DTYPE_IQ1_M:
        return levels_1;
    case BY_DTYPE_IQ2_XXS:
    case BY_DTYPE_IQ2_XS:
    case BY_DTYPE_IQ2_S:
        return levels_2;
    case BY_DTYPE_IQ3_XXS:
        return levels_3_xxs;
    case BY_DTYPE_IQ3_S:
        return levels_3_s;
    default:
        return NULL;
    }
}

static uint16_t u16_at(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32_at(const uint8_t *p) {
    return (uint32_t)u16_at(p) | (uint32_t)u16_at(p + 2) << 16;
}

/* Seven signs; the eighth makes their number even. */
static uint32_t even_signs(uint32_t seven) {
    return seven | (uint32_t)__builtin_parity(seven) << 7;
}

static void put_8(uint8_t *q, uint32_t grid, uint32_t signs) {
    for (uint32_t i = 0; i < 8; i++)
        q[i] = (uint8_t)((grid >> (2 * i) & 3) | (signs >> i & 1) << 3);
}

static void put_4(uint8_t *q, uint32_t grid, uint32_t signs) {
    for (uint32_t i = 0; i < 4; i++)
        q[i] = (uint8_t)((grid >> (4 * i) & 7) | (signs >> i & 1) << 3);
}

static void put_1(uint8_t *q, uint32_t grid, bool is_below) {
    for (uint32_t i = 0; i < 8; i++)
        q[i] = (uint8_t)((grid >> (2 * i) & 3) | (uint32_t)is_below << 2);
}

static void two_scales(struct by_super_block *b, uint32_t block, uint32_t both) {
    b->scales[2 * block] = (int8_t)(2 * (both & 15) + 1);
    b->scales[2 * block + 1] = (int8_t)(2 * (both >> 4 & 15) + 1);
}

/* d | for 32 columns: four indices of a byte; four times seven signs, four bits of scale */
static void unpack_iq2_xxs(const uint8_t *p, struct by_super_block *b) {
    for (uint32_t j = 0; j < 8; j++) {
        const uint8_t *at = p + 2 + 8 * j;
        uint32_t word = u32_at(at + 4);
        two_scales(b, j, word >> 28 | word >> 28 << 4);
        for (uint32_t l = 0; l < 4; l++)
            put_8(b->q + 32 * j + 8 * l, by_iq2_xxs_grid[at[l]], even_signs(word >> (7 * l) & 127));
    }
}

/* d | 32 times nine bits of index and seven signs | scales */
static void unpack_iq2_xs(const uint8_t *p, struct by_super_block *b) {
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t word = u16_at(p + 2 + 2 * i);
        put_8(b->q + 8 * i, by_iq2_xs_grid[word & 511], even_signs(word >> 9));
    }
    for (uint32_t j = 0; j < 8; j++)
        two_scales(b, j, p[66 + j]);
}

/* d | 32 low bytes of an index | 32 bytes of signs | 8 bytes: four times two high bits | scales */
static void unpack_iq2_s(const uint8_t *p, struct by_super_block *b) {
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t high = p[66 + i / 4] >> (2 * (i % 4)) & 3;
        put_8(b->q + 8 * i, by_iq2_s_grid[p[2 + i] | high << 8], p[34 + i]);
    }
    for (uint32_t j = 0; j < 8; j++)
        two_scales(b, j, p[74 + j]);
}

/* d | 64 indices, of four columns each | eight words: four times seven signs, four bits of scale */
static void unpack_iq3_xxs(const uint8_t *p, struct by_super_block *b) {
    for (uint32_t j = 0; j < 8; j++) {
        uint32_t word = u32_at(p + 66 + 4 * j);
        two_scales(b, j, word >> 28 | word >> 28 << 4);
        for (uint32_t l = 0; l < 8; l++)
            put_4(b->q + 32 * j + 4 * l, by_iq3_xxs_grid[p[2 + 8 * j + l]],
                  even_signs(word >> (7 * (l / 2)) & 127) >> (l % 2 * 4));
    }
}

/* d | 64 low bytes of an index | 8 bytes of ninth bits | 32 bytes of signs | 4 bytes: two scales */
static void unpack_iq3_s(const uint8_t *p, struct by_super_block *b) {
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t high = p[66 + i / 8] >> (i % 8) & 1;
        put_4(b->q + 4 * i, by_iq3_s_grid[p[2 + i] | high << 8], p[74 + i / 2] >> (i % 2 * 4));
    }
    for (uint32_t j = 0; j < 8; j++) {
        uint32_t scale = p[106 + j / 2] >> (j % 2 * 4) & 15;
        two_scales(b, j, scale | scale << 4);
    }
}

/* d | 32 low bytes of an index | 8 words: four times three high bits, three of scale, is it below? */
static void unpack_iq1_s(const uint8_t *p, struct by_super_block *b) {
    for (uint32_t j = 0; j < 8; j++) {
        uint32_t word = u16_at(p + 34 + 2 * j), scale = word >> 12 & 7;
        two_scales(b, j, scale | scale << 4);
        for (uint32_t l = 0; l < 4; l++)
            put_1(b->q + 32 * j + 8 * l, by_iq1_grid[p[2 + 4 * j + l] | (word >> (3 * l) & 7) << 8],
                  word >> 15);
    }
}

/* 32 low bytes of an index | 16 bytes: two times three high bits, is it below? | 4 words: four scales of three bits, and four
 * bits of d */
static void unpack_iq1_m(const uint8_t *p, struct by_super_block *b) {
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t high = p[32 + i / 2] >> (i % 2 * 4) & 15;
        put_1(b->q + 8 * i, by_iq1_grid[p[i] | (high & 7) << 8], high >> 3);
    }
    for (uint32_t j = 0; j < 16; j++)
        b->scales[j] = (int8_t)(2 * (u16_at(p + 48 + j / 4 * 2) >> (j % 4 * 3) & 7) + 1);
}

/* Scales are odd numbers here, and levels of IQ1 eight times as large: what is left of ggml's factors is a power of two. */
void by_iq_unpack(enum by_dtype t, const uint8_t *src, struct by_super_block *b) {
    uint32_t d = u16_at(src);
    float factor = 0.125f;
    if (t == BY_DTYPE_IQ2_XXS) unpack_iq2_xxs(src, b);
    if (t == BY_DTYPE_IQ2_XS) unpack_iq2_xs(src, b);
    if (t == BY_DTYPE_IQ2_S) unpack_iq2_s(src, b);
    if (t == BY_DTYPE_IQ1_S) unpack_iq1_s(src, b);
    if (t == BY_DTYPE_IQ3_XXS) unpack_iq3_xxs(src, b), factor = 0.25f;
    if (t == BY_DTYPE_IQ3_S) unpack_iq3_s(src, b), factor = 1;
    if (t == BY_DTYPE_IQ1_M) {
        unpack_iq1_m(src, b);
        for (uint32_t i = d = 0; i < 4; i++)
            d |= (uint32_t)(src[49 + 2 * i] >> 4) << (4 * i);
    }
    b->d = factor * by_f16_to_f32((uint16_t)d);
}
