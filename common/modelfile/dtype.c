#include "common/modelfile/dtype.h"

#include "common/base/check.h"
#include "common/modelfile/super_block.h"

#include <math.h>

struct dtype_row {
    const char *name;
    uint16_t block_len, block_bytes;
    bool is_float;
};

static const struct dtype_row rows[BY_N_DTYPES] = {
    [BY_DTYPE_NONE] = {"?", 1, 0, false},
    [BY_DTYPE_F64] = {"F64", 1, 8, true},
    [BY_DTYPE_F32] = {"F32", 1, 4, true},
    [BY_DTYPE_F16] = {"F16", 1, 2, true},
    [BY_DTYPE_BF16] = {"BF16", 1, 2, true},
    [BY_DTYPE_F8_E4M3] = {"F8_E4M3", 1, 1, true},
    [BY_DTYPE_F8_E5M2] = {"F8_E5M2", 1, 1, true},
    [BY_DTYPE_F8_E8M0] = {"F8_E8M0", 1, 1, true},
    [BY_DTYPE_I8] = {"I8", 1, 1, false},
    [BY_DTYPE_U8] = {"U8", 1, 1, false},
    [BY_DTYPE_I16] = {"I16", 1, 2, false},
    [BY_DTYPE_U16] = {"U16", 1, 2, false},
    [BY_DTYPE_I32] = {"I32", 1, 4, false},
    [BY_DTYPE_U32] = {"U32", 1, 4, false},
    [BY_DTYPE_I64] = {"I64", 1, 8, false},
    [BY_DTYPE_U64] = {"U64", 1, 8, false},
    [BY_DTYPE_BOOL] = {"BOOL", 1, 1, false},
    [BY_DTYPE_Q4_0] = {"Q4_0", BY_QK, sizeof(struct by_block_q4_0), false},
    [BY_DTYPE_Q4_1] = {"Q4_1", BY_QK, sizeof(struct by_block_q4_1), false},
    [BY_DTYPE_Q5_0] = {"Q5_0", BY_QK, sizeof(struct by_block_q5_0), false},
    [BY_DTYPE_Q5_1] = {"Q5_1", BY_QK, sizeof(struct by_block_q5_1), false},
    [BY_DTYPE_Q8_0] = {"Q8_0", BY_QK, sizeof(struct by_block_q8_0), false},
    [BY_DTYPE_Q2_K] = {"Q2_K", BY_QK_K, sizeof(struct by_block_q2_k), false},
    [BY_DTYPE_Q3_K] = {"Q3_K", BY_QK_K, sizeof(struct by_block_q3_k), false},
    [BY_DTYPE_Q4_K] = {"Q4_K", BY_QK_K, sizeof(struct by_block_q4_k), false},
    [BY_DTYPE_Q5_K] = {"Q5_K", BY_QK_K, sizeof(struct by_block_q5_k), false},
    [BY_DTYPE_Q6_K] = {"Q6_K", BY_QK_K, sizeof(struct by_block_q6_k), false},
    [BY_DTYPE_IQ4_NL] = {"IQ4_NL", BY_QK, sizeof(struct by_block_iq4_nl), false},
    [BY_DTYPE_IQ4_XS] = {"IQ4_XS", BY_QK_K, sizeof(struct by_block_iq4_xs), false},
    [BY_DTYPE_IQ1_S] = {"IQ1_S", BY_QK_K, 50, false},
    [BY_DTYPE_IQ1_M] = {"IQ1_M", BY_QK_K, 56, false},
    [BY_DTYPE_IQ2_XXS] = {"IQ2_XXS", BY_QK_K, 66, false},
    [BY_DTYPE_IQ2_XS] = {"IQ2_XS", BY_QK_K, 74, false},
    [BY_DTYPE_IQ2_S] = {"IQ2_S", BY_QK_K, 82, false},
    [BY_DTYPE_IQ3_XXS] = {"IQ3_XXS", BY_QK_K, 98, false},
    [BY_DTYPE_IQ3_S] = {"IQ3_S", BY_QK_K, 110, false},
    [BY_DTYPE_TQ1_0] = {"TQ1_0", BY_QK_K, 54, false},
    [BY_DTYPE_TQ2_0] = {"TQ2_0", BY_QK_K, 66, false},
    [BY_DTYPE_MXFP4] = {"MXFP4", BY_QK, sizeof(struct by_block_mxfp4), false},
    [BY_DTYPE_F8_32] = {"F8_32", BY_QK, sizeof(struct by_block_f8_32), false},
    [BY_DTYPE_Z4_32] = {"Z4_32", BY_QK, sizeof(struct by_block_z4_32), false},
};

/* ggml's numbering; a name without a type of ours is refused by that name. */
static const struct {
    const char *name;
    enum by_dtype dtype;
} ggml_types[] = {
    [0] = {"F32", BY_DTYPE_F32},          [1] = {"F16", BY_DTYPE_F16},
    [2] = {"Q4_0", BY_DTYPE_Q4_0},        [3] = {"Q4_1", BY_DTYPE_Q4_1},
    [6] = {"Q5_0", BY_DTYPE_Q5_0},        [7] = {"Q5_1", BY_DTYPE_Q5_1},
    [8] = {"Q8_0", BY_DTYPE_Q8_0},        [9] = {"Q8_1", BY_DTYPE_NONE},
    [10] = {"Q2_K", BY_DTYPE_Q2_K},       [11] = {"Q3_K", BY_DTYPE_Q3_K},
    [12] = {"Q4_K", BY_DTYPE_Q4_K},       [13] = {"Q5_K", BY_DTYPE_Q5_K},
    [14] = {"Q6_K", BY_DTYPE_Q6_K},       [15] = {"Q8_K", BY_DTYPE_NONE},
    [16] = {"IQ2_XXS", BY_DTYPE_IQ2_XXS}, [17] = {"IQ2_XS", BY_DTYPE_IQ2_XS},
    [18] = {"IQ3_XXS", BY_DTYPE_IQ3_XXS}, [19] = {"IQ1_S", BY_DTYPE_IQ1_S},
    [20] = {"IQ4_NL", BY_DTYPE_IQ4_NL},   [21] = {"IQ3_S", BY_DTYPE_IQ3_S},
    [22] = {"IQ2_S", BY_DTYPE_IQ2_S},     [23] = {"IQ4_XS", BY_DTYPE_IQ4_XS},
    [24] = {"I8", BY_DTYPE_I8},           [25] = {"I16", BY_DTYPE_I16},
    [26] = {"I32", BY_DTYPE_I32},         [27] = {"I64", BY_DTYPE_I64},
    [28] = {"F64", BY_DTYPE_F64},         [29] = {"IQ1_M", BY_DTYPE_IQ1_M},
    [30] = {"BF16", BY_DTYPE_BF16},       [34] = {"TQ1_0", BY_DTYPE_TQ1_0},
    [35] = {"TQ2_0", BY_DTYPE_TQ2_0},     [39] = {"MXFP4", BY_DTYPE_MXFP4},
};

const int8_t by_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};
const int8_t by_fp4_values_x2[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static const struct dtype_row *row_of(enum by_dtype t) {
    return &rows[(unsigned)t < BY_N_DTYPES ? t : BY_DTYPE_NONE];
}

const char *by_dtype_name(enum by_dtype t) {
    return row_of(t)->name;
}

uint32_t by_dtype_block_len(enum by_dtype t) {
    return row_of(t)->block_len;
}

uint32_t by_dtype_block_bytes(enum by_dtype t) {
    return row_of(t)->block_bytes;
}

bool by_dtype_is_quantised(enum by_dtype t) {
    return row_of(t)->block_len > 1;
}

bool by_dtype_is_float(enum by_dtype t) {
    return row_of(t)->is_float;
}

bool by_dtype_has_f32(enum by_dtype t) {
    return row_of(t)->block_bytes != 0;
}

bool by_dtype_row_bytes(enum by_dtype t, uint64_t n, size_t *bytes) {
    const struct dtype_row *r = row_of(t);
    if (n % r->block_len != 0) return false;
    return !__builtin_mul_overflow(n / r->block_len, (size_t)r->block_bytes, bytes);
}

enum by_dtype by_dtype_of_ggml(uint32_t ggml_type) {
    return ggml_type < BY_COUNTOF(ggml_types) ? ggml_types[ggml_type].dtype : BY_DTYPE_NONE;
}

const char *by_dtype_ggml_name(uint32_t ggml_type) {
    const char *name = ggml_type < BY_COUNTOF(ggml_types) ? ggml_types[ggml_type].name : NULL;
    return name ? name : "?";
}

enum by_dtype by_dtype_of_name(const char *name, size_t n) {
    for (int t = BY_DTYPE_F64; t <= BY_DTYPE_BOOL; t++) {
        if (strlen(rows[t].name) == n && memcmp(rows[t].name, name, n) == 0) return t;
    }
    return BY_DTYPE_NONE;
}

/* Halves of f16 subnormals round in the float adder: 2^-24 is the last place there, as it is in the file. */
uint16_t by_f32_to_f16(float f) {
    uint32_t b = by_f32_bits(f), sign = (b >> 16) & 0x8000u, rest = b & 0x7fffffffu;
    if (rest > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (rest >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above */
    if (rest < 0x38800000u) { /* below 2^-14: 0.5f's last place is 2^-24 */
        uint32_t shifted = by_f32_bits(by_bits_f32(rest) + 0.5f);
        return (uint16_t)(sign | (shifted - 0x3f000000u));
    }
    uint32_t rounded = rest + 0xfffu + ((rest >> 13) & 1);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

float by_f8_e4m3_to_f32(uint8_t v) {
    uint32_t sign = (uint32_t)(v & 0x80u) << 24, exp = (v >> 3) & 15u, man = v & 7u;
    if ((v & 0x7fu) == 0x7fu) return by_bits_f32(sign | 0x7fc00000u);
    if (exp == 0) return by_bits_f32(sign | by_f32_bits((float)man * 0x1p-9f));
    return by_bits_f32(sign | (exp + 120u) << 23 | man << 20);
}

static float e5m2_to_f32(uint8_t v) {
    return by_f16_to_f32((uint16_t)(v << 8)); /* the upper half of an f16 */
}

float by_f8_e8m0_to_f32(uint8_t v) {
    if (v == 0xff) return by_bits_f32(0x7fc00000u);
    return v ? by_bits_f32((uint32_t)v << 23) : 0x1p-127f;
}

static void q4_0_to_f32(const uint8_t *src, float *dst) {
    struct by_block_q4_0 b;
    memcpy(&b, src, sizeof b);
    float d = by_f16_to_f32(b.d);
    for (int i = 0; i < BY_QK / 2; i++) {
        dst[i] = d * (float)((b.qs[i] & 15) - 8);
        dst[i + BY_QK / 2] = d * (float)((b.qs[i] >> 4) - 8);
    }
}

static void q4_1_to_f32(const uint8_t *src, float *dst) {
    struct by_block_q4_1 b;
    memcpy(&b, src, sizeof b);
    float d = by_f16_to_f32(b.d), m = by_f16_to_f32(b.m);
    for (int i = 0; i < BY_QK / 2; i++) {
        dst[i] = d * (float)(b.qs[i] & 15) + m;
        dst[i + BY_QK / 2] = d * (float)(b.qs[i] >> 4) + m;
    }
}

static int fifth_bit(const uint8_t *qh, int i) {
    return (qh[i / 8] >> (i % 8) & 1) << 4;
}

static void q5_0_to_f32(const uint8_t *src, float *dst) {
    struct by_block_q5_0 b;
    memcpy(&b, src, sizeof b);
    float d = by_f16_to_f32(b.d);
    for (int i = 0; i < BY_QK / 2; i++) {
        dst[i] = d * (float)(((b.qs[i] & 15) | fifth_bit(b.qh, i)) - 16);
        dst[i + 16] = d * (float)(((b.qs[i] >> 4) | fifth_bit(b.qh, i + 16)) - 16);
    }
}

static void q5_1_to_f32(const uint8_t *src, float *dst) {
    struct by_block_q5_1 b;
    memcpy(&b, src, sizeof b);
    float d = by_f16_to_f32(b.d), m = by_f16_to_f32(b.m);
    for (int i = 0; i < BY_QK / 2; i++) {
        dst[i] = d * (float)((b.qs[i] & 15) | fifth_bit(b.qh, i)) + m;
        dst[i + 16] = d * (float)((b.qs[i] >> 4) | fifth_bit(b.qh, i + 16)) + m;
    }
}

static void q8_0_to_f32(const uint8_t *src, float *dst) {
    struct by_block_q8_0 b;
    memcpy(&b, src, sizeof b);
    float d = by_f16_to_f32(b.d);
    for (int i = 0; i < BY_QK; i++)
        dst[i] = d * (float)b.qs[i];
}

static void iq4_nl_to_f32(const uint8_t *src, float *dst) {
    struct by_block_iq4_nl b;
    memcpy(&b, src, sizeof b);
    float d = by_f16_to_f32(b.d);
    for (int i = 0; i < BY_QK / 2; i++) {
        dst[i] = d * (float)by_iq4_values[b.qs[i] & 15];
        dst[i + BY_QK / 2] = d * (float)by_iq4_values[b.qs[i] >> 4];
    }
}

static void mxfp4_to_f32(const uint8_t *src, float *dst) {
    struct by_block_mxfp4 b;
    memcpy(&b, src, sizeof b);
    float d = by_f8_e8m0_to_f32(b.e);
    for (int i = 0; i < BY_QK / 2; i++) {
        dst[i] = d * (0.5f * (float)by_fp4_values_x2[b.qs[i] & 15]);
        dst[i + BY_QK / 2] = d * (0.5f * (float)by_fp4_values_x2[b.qs[i] >> 4]);
    }
}

static void f8_32_to_f32(const uint8_t *src, float *dst) {
    struct by_block_f8_32 b;
    memcpy(&b, src, sizeof b);
    for (int i = 0; i < BY_QK; i++)
        dst[i] = b.s * by_f8_e4m3_to_f32(b.qs[i]);
}

static void z4_32_to_f32(const uint8_t *src, float *dst) {
    struct by_block_z4_32 b;
    memcpy(&b, src, sizeof b);
    float d = by_f16_to_f32(b.d);
    for (int i = 0; i < BY_QK / 2; i++) {
        dst[i] = d * (float)((b.qs[i] & 15) - b.z);
        dst[i + BY_QK / 2] = d * (float)((b.qs[i] >> 4) - b.z);
    }
}

static void (*const small_readers[BY_N_DTYPES])(const uint8_t *src, float *dst) = {
    [BY_DTYPE_Q4_0] = q4_0_to_f32,   [BY_DTYPE_Q4_1] = q4_1_to_f32,
    [BY_DTYPE_Q5_0] = q5_0_to_f32,   [BY_DTYPE_Q5_1] = q5_1_to_f32,
    [BY_DTYPE_Q8_0] = q8_0_to_f32,   [BY_DTYPE_IQ4_NL] = iq4_nl_to_f32,
    [BY_DTYPE_MXFP4] = mxfp4_to_f32, [BY_DTYPE_F8_32] = f8_32_to_f32,
    [BY_DTYPE_Z4_32] = z4_32_to_f32,
};

/* Each case reads one element; the switch lies inside the loop, which a truth can afford. */
static float plain_to_f32(enum by_dtype t, const uint8_t *p) {
    union {
        double f64;
        float f32;
        uint16_t u16;
        int16_t i16;
        int32_t i32;
        uint32_t u32;
        int64_t i64;
        uint64_t u64;
    } v = {0};
    memcpy(&v, p, rows[t].block_bytes);
    switch (t) {
    case BY_DTYPE_F64:
        return (float)v.f64;
    case BY_DTYPE_F32:
        return v.f32;
    case BY_DTYPE_F16:
        return by_f16_to_f32(v.u16);
    case BY_DTYPE_BF16:
        return by_bf16_to_f32(v.u16);
    case BY_DTYPE_F8_E4M3:
        return by_f8_e4m3_to_f32(*p);
    case BY_DTYPE_F8_E5M2:
        return e5m2_to_f32(*p);
    case BY_DTYPE_F8_E8M0:
        return by_f8_e8m0_to_f32(*p);
    case BY_DTYPE_I8:
        return (float)(int8_t)*p;
    case BY_DTYPE_U8:
        return (float)*p;
    case BY_DTYPE_I16:
        return (float)v.i16;
    case BY_DTYPE_U16:
        return (float)v.u16;
    case BY_DTYPE_I32:
        return (float)v.i32;
    case BY_DTYPE_U32:
        return (float)v.u32;
    case BY_DTYPE_I64:
        return (float)v.i64;
    case BY_DTYPE_U64:
        return (float)v.u64;
    default:
        return *p ? 1.0f : 0.0f; /* BOOL */
    }
}

void by_dtype_to_f32(enum by_dtype t, const void *src, float *dst, size_t n) {
    const struct dtype_row *r = row_of(t);
    by_assert(r->block_bytes > 0);
    by_assert(n % r->block_len == 0);
    const uint8_t *p = src;
    if (t == BY_DTYPE_F32) {
        if (n) memcpy(dst, p, n * sizeof *dst);
        return;
    }
    for (size_t i = 0; i < n; i += r->block_len, p += r->block_bytes) {
        if (r->block_len == BY_QK_K)
            by_super_to_f32(t, p, dst + i);
        else if (r->block_len > 1)
            small_readers[t](p, dst + i);
        else
            dst[i] = plain_to_f32(t, p);
    }
}

/* v cut off to a whole number of lo..hi; NaN gives lo. */
static int level(float v, int lo, int hi) {
    if (!(v > (float)lo)) return lo;
    return v < (float)hi ? (int)v : hi;
}

static void q8_0_from_f32(const float *src, uint8_t *dst) {
    struct by_block_q8_0 b;
    float top = 0;
    for (int i = 0; i < BY_QK; i++)
        top = fmaxf(top, fabsf(src[i]));
    float d = top / 127, inv = d != 0 ? 1 / d : 0;
    b.d = by_f32_to_f16(d);
    for (int i = 0; i < BY_QK; i++)
        b.qs[i] = (int8_t)level(roundf(src[i] * inv), -127, 127);
    memcpy(dst, &b, sizeof b);
}

/* The value of the largest magnitude keeps its sign and becomes -8 d, so that the sixteenth level is not wasted. */
static void q4_0_from_f32(const float *src, uint8_t *dst) {
    struct by_block_q4_0 b;
    float top = 0, at_top = 0;
    for (int i = 0; i < BY_QK; i++) {
        if (fabsf(src[i]) <= top) continue;
        top = fabsf(src[i]);
        at_top = src[i];
    }
    float d = at_top / -8, inv = d != 0 ? 1 / d : 0;
    b.d = by_f32_to_f16(d);
    for (int i = 0; i < BY_QK / 2; i++) {
        int lo = level(src[i] * inv + 8.5f, 0, 15), hi = level(src[i + 16] * inv + 8.5f, 0, 15);
        b.qs[i] = (uint8_t)(lo | hi << 4);
    }
    memcpy(dst, &b, sizeof b);
}

static void q4_1_from_f32(const float *src, uint8_t *dst) {
    struct by_block_q4_1 b;
    float low = src[0], high = src[0];
    for (int i = 1; i < BY_QK; i++) {
        low = fminf(low, src[i]);
        high = fmaxf(high, src[i]);
    }
    float d = (high - low) / 15, inv = d != 0 ? 1 / d : 0;
    b.d = by_f32_to_f16(d);
    b.m = by_f32_to_f16(low);
    for (int i = 0; i < BY_QK / 2; i++) {
        int lo = level((src[i] - low) * inv + 0.5f, 0, 15);
        int hi = level((src[i + 16] - low) * inv + 0.5f, 0, 15);
        b.qs[i] = (uint8_t)(lo | hi << 4);
    }
    memcpy(dst, &b, sizeof b);
}

bool by_dtype_from_f32(enum by_dtype t, const float *src, void *dst, size_t n) {
    const struct dtype_row *r = row_of(t);
    uint8_t *p = dst;
    by_assert(n % r->block_len == 0);
    for (size_t i = 0; i < n; i += r->block_len, p += r->block_bytes) {
        uint16_t half;
        switch (t) {
        case BY_DTYPE_F32:
            memcpy(p, &src[i], sizeof(float));
            break;
        case BY_DTYPE_F16:
        case BY_DTYPE_BF16:
            half = t == BY_DTYPE_F16 ? by_f32_to_f16(src[i]) : by_f32_to_bf16(src[i]);
            memcpy(p, &half, sizeof half);
            break;
        case BY_DTYPE_Q8_0:
            q8_0_from_f32(src + i, p);
            break;
        case BY_DTYPE_Q4_0:
            q4_0_from_f32(src + i, p);
            break;
        case BY_DTYPE_Q4_1:
            q4_1_from_f32(src + i, p);
            break;
        default:
            return false;
        }
    }
    return true;
}
