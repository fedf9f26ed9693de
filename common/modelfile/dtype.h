/* dtype.h - the types a weight can have in a file: plain numbers, and ggml's blocks of quantised ones.
 *
 *     Q4_0   | d f16 |  16 x (lo nibble: element i, hi nibble: element i + 16) |         w = d * (q - 8)
 *     Q4_1   | d f16 | m f16 | 16 nibble pairs |                                        w = d * q + m
 *     Q8_0   | d f16 | 32 x i8 |                                                        w = d * q
 *     Q4_K   | d, dmin f16 | 8 x (scale, min) of 6 bits in 12 bytes | 128 nibble pairs | w = d*sc*q - dmin*mn
 *     MXFP4  | e u8 | 16 nibble pairs |                                                 w = 2^(e-127) * fp4(q)
 *     F8_32  | s f32 | 32 x F8_E4M3 |   in no file, ours:                                w = s * q
 *     Z4_32  | d f16 | z u16 | 16 nibble pairs |   in no file, ours:                     w = d * (q - z)
 *
 * Always: a row is a whole number of blocks, blocks of a row lie one after the other, and rows likewise; the block
 * structs have exactly the size they have in a file (pinned below), with alignment 2 or 1.
 * Owner: nobody; there is no state. Kernels and CUDA files read this header too, so it compiles as C++. */
#ifndef COMMON_MODELFILE_DTYPE_H
#define COMMON_MODELFILE_DTYPE_H

#include "common/base/base.h"

#include <string.h>

/* Our own numbers: file formats are translated at their readers. */
enum by_dtype {
    BY_DTYPE_NONE = 0,
    BY_DTYPE_F64,
    BY_DTYPE_F32,
    BY_DTYPE_F16,
    BY_DTYPE_BF16,
    BY_DTYPE_F8_E4M3, /* the "fn" kind: no infinity, 0x7f and 0xff are NaN, largest 448 */
    BY_DTYPE_F8_E5M2,
    BY_DTYPE_F8_E8M0, /* a power of two: 2^(x-127), 0xff is NaN */
    BY_DTYPE_I8,
    BY_DTYPE_U8,
    BY_DTYPE_I16,
    BY_DTYPE_U16,
    BY_DTYPE_I32,
    BY_DTYPE_U32,
    BY_DTYPE_I64,
    BY_DTYPE_U64,
    BY_DTYPE_BOOL,
    BY_DTYPE_Q4_0,
    BY_DTYPE_Q4_1,
    BY_DTYPE_Q5_0,
    BY_DTYPE_Q5_1,
    BY_DTYPE_Q8_0,
    BY_DTYPE_Q2_K,
    BY_DTYPE_Q3_K,
    BY_DTYPE_Q4_K,
    BY_DTYPE_Q5_K,
    BY_DTYPE_Q6_K,
    BY_DTYPE_IQ4_NL,
    BY_DTYPE_IQ4_XS,
    BY_DTYPE_IQ1_S,
    BY_DTYPE_IQ1_M,
    BY_DTYPE_IQ2_XXS,
    BY_DTYPE_IQ2_XS,
    BY_DTYPE_IQ2_S,
    BY_DTYPE_IQ3_XXS,
    BY_DTYPE_IQ3_S,
    BY_DTYPE_TQ1_0,
    BY_DTYPE_TQ2_0,
    BY_DTYPE_MXFP4,
    BY_DTYPE_F8_32,
    BY_DTYPE_Z4_32,
    BY_N_DTYPES,
};

enum {
    BY_QK = 32,    /* elements of a small block */
    BY_QK_K = 256, /* elements of a super-block (the _K types) */
    BY_K_SCALES =
        12 /* bytes in which Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minima */
};

struct by_block_q4_0 {
    uint16_t d; /* f16 scale */
    /* element i in the low nibble of byte i, element i + 16 in the high one */
    uint8_t qs[BY_QK / 2];
};
struct by_block_q4_1 {
    uint16_t d, m; /* f16 scale and minimum */
    uint8_t qs[BY_QK / 2];
};
struct by_block_q5_0 {
    uint16_t d;
    uint8_t qh[4]; /* fifth bit of element i is bit i of the little-endian word */
    uint8_t qs[BY_QK / 2];
};
struct by_block_q5_1 {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t qs[BY_QK / 2];
};
struct by_block_q8_0 {
    uint16_t d;
    int8_t qs[BY_QK];
};
struct by_block_q2_k {
    /* of 16 elements each: scale in the low nibble, minimum in the high one */
    uint8_t scales[BY_QK_K / 16];
    uint8_t qs[BY_QK_K / 4];
    uint16_t d, dmin;
};
struct by_block_q3_k {
    uint8_t hmask[BY_QK_K / 8]; /* third bit: set means no 4 is taken off */
    uint8_t qs[BY_QK_K / 4];
    uint8_t scales[12]; /* sixteen 6-bit scales, biased by 32 */
    uint16_t d;
};
struct by_block_q4_k {
    uint16_t d, dmin;
    uint8_t scales[BY_K_SCALES];
    uint8_t qs[BY_QK_K / 2];
};
struct by_block_q5_k {
    uint16_t d, dmin;
    uint8_t scales[BY_K_SCALES];
    uint8_t qh[BY_QK_K / 8];
    uint8_t qs[BY_QK_K / 2];
};
struct by_block_q6_k {
    uint8_t ql[BY_QK_K / 2]; /* low four bits */
    uint8_t qh[BY_QK_K / 4]; /* high two bits */
    int8_t scales[BY_QK_K / 16];
    uint16_t d;
};
struct by_block_iq4_nl {
    uint16_t d;
    uint8_t qs[BY_QK / 2]; /* indices into by_iq4_values */
};
struct by_block_iq4_xs {
    uint16_t d;
    uint16_t scales_h;              /* bits 4 and 5 of scale j are bits 2j and 2j + 1 */
    uint8_t scales_l[BY_QK_K / 64]; /* eight low nibbles of scales that are biased by 32 */
    uint8_t qs[BY_QK_K / 2];        /* eight times 32 elements, as in IQ4_NL */
};
struct by_block_mxfp4 {
    uint8_t e; /* scale 2^(e-127) */
    uint8_t qs[BY_QK / 2];
};
/* What checkpoints of FP8 and AWQ become for a backend that multiplies them as they are. */
struct by_block_f8_32 {
    float s;
    uint8_t qs[BY_QK];
};
struct by_block_z4_32 {
    uint16_t d, z; /* z: 0 … 16 */
    uint8_t qs[BY_QK / 2];
};

#ifndef __cplusplus
static_assert(sizeof(struct by_block_f8_32) == 36 && sizeof(struct by_block_z4_32) == 20, "ours");
static_assert(sizeof(struct by_block_q4_0) == 18, "file format");
static_assert(sizeof(struct by_block_q4_1) == 20, "file format");
static_assert(sizeof(struct by_block_q5_0) == 22, "file format");
static_assert(sizeof(struct by_block_q5_1) == 24, "file format");
static_assert(sizeof(struct by_block_q8_0) == 34, "file format");
static_assert(sizeof(struct by_block_q2_k) == 84, "file format");
static_assert(sizeof(struct by_block_q3_k) == 110, "file format");
static_assert(sizeof(struct by_block_q4_k) == 144, "file format");
static_assert(sizeof(struct by_block_q5_k) == 176, "file format");
static_assert(sizeof(struct by_block_q6_k) == 210, "file format");
static_assert(sizeof(struct by_block_iq4_nl) == 18, "file format");
static_assert(sizeof(struct by_block_iq4_xs) == 136, "file format");
static_assert(sizeof(struct by_block_mxfp4) == 17, "file format");
#endif

/* The 16 levels of IQ4_NL and IQ4_XS, and twice the 16 values of fp4 (e2m1): 0 0.5 1 1.5 2 3 4 6 and their negatives. */
extern const int8_t by_iq4_values[16];
extern const int8_t by_fp4_values_x2[16];

const char *by_dtype_name(enum by_dtype t);     /* "Q4_1"; "?" for a number that is no type */
uint32_t by_dtype_block_len(enum by_dtype t);   /* elements a block; 1 for plain numbers */
uint32_t by_dtype_block_bytes(enum by_dtype t); /* bytes a block */
bool by_dtype_is_quantised(enum by_dtype t);    /* does it come in blocks? */
bool by_dtype_is_float(enum by_dtype t);        /* plain floating point, F64 to F8 */
bool by_dtype_has_f32(enum by_dtype t);         /* can by_dtype_to_f32 read it? */
/* Bytes of a row of n elements; false when n is no multiple of the block or the product overflows. */
BY_MUST_USE bool by_dtype_row_bytes(enum by_dtype t, uint64_t n, size_t *bytes);
/* ggml's type number and safetensors' type name; BY_DTYPE_NONE for what we do not read. */
enum by_dtype by_dtype_of_ggml(uint32_t ggml_type);
enum by_dtype by_dtype_of_name(const char *name, size_t n);
/* also for types that we refuse: "IQ2_XS"; "?" beyond the table */
const char *by_dtype_ggml_name(uint32_t ggml_type);

/* The truth: n elements (whole blocks) at src as f32. Every faster reader is tested against this. src needs no
 * alignment. Integers come out as their value, BOOL as 0 or 1. */
void by_dtype_to_f32(enum by_dtype t, const void *src, float *dst, size_t n);
/* Rounds n f32 to F32, F16, BF16, Q8_0, Q4_0 or Q4_1 (whole blocks, ggml's rounding); false for other types. */
BY_MUST_USE bool by_dtype_from_f32(enum by_dtype t, const float *src, void *dst, size_t n);

static inline float by_bits_f32(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t by_f32_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float by_bf16_to_f32(uint16_t h) {
    return by_bits_f32((uint32_t)h << 16);
}

/* Nearest, ties to even; NaN stays NaN. Without a branch, for loops of vectors. */
static inline uint16_t by_f32_to_bf16(float f) {
    uint32_t b = by_f32_bits(f), nan = (b >> 16) | 0x40;
    uint32_t rounded = (b + 0x7fffu + ((b >> 16) & 1)) >> 16;
    return (uint16_t)((b & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

/* The exponent is moved by a multiplication, which also normalises subnormals; exact for every f16. */
static inline float by_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t rest = (uint32_t)(h & 0x7fffu) << 13;
    if ((h & 0x7c00u) == 0x7c00u) return by_bits_f32(sign | 0x7f800000u | rest);
    return by_bits_f32(sign | by_f32_bits(by_bits_f32(rest) * 0x1p112f));
}

uint16_t
by_f32_to_f16(float f); /* nearest, ties to even; past the range: infinity; NaN stays NaN */
float by_f8_e4m3_to_f32(uint8_t v);
float by_f8_e8m0_to_f32(uint8_t v);

#endif
