/* ggml's blocks as numbers, against what gguf 0.19.0 (PyPI) makes of the same bytes. */
#include "common/modelfile/dtype.h"
#include "common/base/mem.h"
#include "tests/unit/test.h"

#include <string.h>

enum { N_BLOCKS = 6 };

/* Bytes count on by x = x * 1664525 + 1013904223 (the top one of each x), but for the f16 at scale[k], which in block b is
 * 0x2c66 or 0x1e19 plus 77 b (IQ1_M: the first, in the high halves of bytes 49, 51, 53 and 55); hash: FNV-1a over the bits of
 * all numbers of gguf.quants.dequantize, 32 bits at a time. */
static const struct {
    enum by_dtype type;
    int scale[2];
    uint32_t hash;
} wanted[] = {
    {BY_DTYPE_Q4_0, {0, -1}, 0xf2b734c5},    {BY_DTYPE_Q4_1, {0, 2}, 0x363e1c65},
    {BY_DTYPE_Q5_0, {0, -1}, 0x5f0866c5},    {BY_DTYPE_Q5_1, {0, 2}, 0xd15e3e95},
    {BY_DTYPE_Q8_0, {0, -1}, 0x1baa7605},    {BY_DTYPE_Q2_K, {80, 82}, 0x547a0065},
    {BY_DTYPE_Q3_K, {108, -1}, 0x6b5237c5},  {BY_DTYPE_Q4_K, {0, 2}, 0xcea2b6c6},
    {BY_DTYPE_Q5_K, {0, 2}, 0x535b185b},     {BY_DTYPE_Q6_K, {208, -1}, 0x85d4de15},
    {BY_DTYPE_IQ4_NL, {0, -1}, 0xfdb10585},  {BY_DTYPE_IQ4_XS, {0, -1}, 0xa8b197ff},
    {BY_DTYPE_IQ1_S, {0, -1}, 0xa5278c45},   {BY_DTYPE_IQ1_M, {-1, -1}, 0x74253f85},
    {BY_DTYPE_IQ2_XXS, {0, -1}, 0x4c0cbdcd}, {BY_DTYPE_IQ2_XS, {0, -1}, 0xfcff9a0d},
    {BY_DTYPE_IQ2_S, {0, -1}, 0x47d2cead},   {BY_DTYPE_IQ3_XXS, {0, -1}, 0x51c96fb5},
    {BY_DTYPE_IQ3_S, {0, -1}, 0xd8d59d75},   {BY_DTYPE_TQ1_0, {52, -1}, 0x9d7ab5c5},
    {BY_DTYPE_TQ2_0, {64, -1}, 0x941dd5c5},
};

TEST(blocks_have_the_bits_that_gguf_gives_them) {
    UNUSED_STATE;
    for (size_t w = 0; w < BY_COUNTOF(wanted); w++) {
        const enum by_dtype t = wanted[w].type;
        const uint32_t bytes = by_dtype_block_bytes(t), n = N_BLOCKS * by_dtype_block_len(t);
        uint8_t *p = by_alloc(N_BLOCKS * bytes);
        float *y = by_alloc_array(n, sizeof *y);
        uint32_t x = 1, hash = 0x811c9dc5;
        for (uint32_t b = 0; b < N_BLOCKS; b++) {
            for (uint32_t i = 0; i < bytes; i++) {
                x = x * 1664525u + 1013904223u;
                p[b * bytes + i] = (uint8_t)(x >> 24);
            }
            for (uint32_t i = 0; i < 4 && t == BY_DTYPE_IQ1_M; i++) {
                uint8_t *at = p + b * bytes + 49 + 2 * i;
                *at = (uint8_t)((*at & 15) | ((0x2c66 + 77 * b) >> (4 * i) & 15) << 4);
            }
            for (int k = 0; k < 2; k++) {
                uint16_t h = (uint16_t)((k ? 0x1e19 : 0x2c66) + 77 * b);
                if (wanted[w].scale[k] >= 0) memcpy(p + b * bytes + wanted[w].scale[k], &h, 2);
            }
        }
        by_dtype_to_f32(t, p, y, n);
        for (uint32_t i = 0; i < n; i++)
            hash = (hash ^ by_f32_bits(y[i])) * 0x01000193u;
        if (hash != wanted[w].hash) fail_msg("%s: 0x%08x", by_dtype_name(t), hash);
        by_free(y);
        by_free(p);
    }
}

TESTS(RUN(blocks_have_the_bits_that_gguf_gives_them));
