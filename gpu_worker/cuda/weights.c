/* From the rows of a file to rows that a warp reads with wide loads (layout: cuda.h). */
#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/modelfile/super_block.h"
#include "gpu_worker/cuda/cuda.h"
#include "gpu_worker/cuda/products.h"

#include <string.h>

enum { LOAD_BYTES = 4 << 20 /* on their way to the device at a time */ };

static const enum cuda_format formats[BY_N_DTYPES] = {
    [BY_DTYPE_BF16] = CUDA_BF16,    [BY_DTYPE_F16] = CUDA_F16,
    [BY_DTYPE_F8_E4M3] = CUDA_BF16, /* which holds every value of both */
    [BY_DTYPE_F8_E5M2] = CUDA_BF16, [BY_DTYPE_Q4_0] = CUDA_Q4,
    [BY_DTYPE_Q4_1] = CUDA_Q4,      [BY_DTYPE_Q5_0] = CUDA_Q5,
    [BY_DTYPE_Q5_1] = CUDA_Q5,      [BY_DTYPE_Q8_0] = CUDA_Q8,
    [BY_DTYPE_IQ4_NL] = CUDA_L4,    [BY_DTYPE_Z4_32] = CUDA_Z4,
    [BY_DTYPE_MXFP4] = CUDA_F4,     [BY_DTYPE_F8_32] = CUDA_F8,
    [BY_DTYPE_Q2_K] = CUDA_Q2_K,    [BY_DTYPE_Q3_K] = CUDA_Q3_K,
    [BY_DTYPE_Q4_K] = CUDA_Q4_K,    [BY_DTYPE_Q5_K] = CUDA_Q5_K,
    [BY_DTYPE_Q6_K] = CUDA_Q6_K,    [BY_DTYPE_TQ1_0] = CUDA_Q2_K,
    [BY_DTYPE_TQ2_0] = CUDA_Q2_K,
};

static enum cuda_format format_of(enum by_dtype t) {
    return by_super_levels(t) ? CUDA_L4_K : formats[t]; /* not in the table: f32 */
}

static const struct cuda_layout layouts[] = {CUDA_FORMATS(CUDA_FORMAT_LAYOUT, )};

static void lay_out(struct weight *w) {
    const struct cuda_layout *of = &layouts[w->format];
    w->k_pad = BY_ALIGN_UP(w->n_in, (uint32_t)of->block);
    w->scale_at = BY_ALIGN_UP(w->k_pad / 8 * of->bits, 16u);
    w->row_bytes = BY_ALIGN_UP(w->scale_at + (CUDA_FORMAT_HAS_LEVELS(w->format) ? 16 : 0) +
                                   w->k_pad / of->block * of->scale_bytes,
                               16u);
}

/* ---- one row ---- */

/* ggml's half blocks side by side become neighbours: byte i holds columns 2i and 2i + 1. */
static void pack_nibbles(const uint8_t *qs, uint8_t *q) {
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t low = 2 * i < 16 ? qs[2 * i] & 15 : qs[2 * i - 16] >> 4;
        uint32_t high = 2 * i < 16 ? qs[2 * i + 1] & 15 : qs[2 * i - 15] >> 4;
        q[i] = (uint8_t)(low | high << 4);
    }
}

static void pack_q4(const uint8_t *src, bool has_min, uint32_t n_blocks, uint8_t *q,
                    uint8_t *scales) {
    uint32_t each = has_min ? sizeof(struct by_block_q4_1) : sizeof(struct by_block_q4_0);
    for (uint32_t b = 0; b < n_blocks; b++, src += each) {
        const uint8_t *qs = src + (has_min ? 4 : 2);
        uint16_t dm[2];
        memcpy(dm, src, has_min ? 4 : 2);
        if (!has_min) dm[1] = by_f32_to_f16(-8 * by_f16_to_f32(dm[0])); /* exact below 8190 */
        memcpy(scales + 4 * (size_t)b, dm, 4);
        pack_nibbles(qs, q + 16 * (size_t)b);
    }
}

static void pack_q5(const uint8_t *src, bool has_min, uint32_t n_blocks, uint8_t *q,
                    uint8_t *scales) {
    uint32_t each = has_min ? sizeof(struct by_block_q5_1) : sizeof(struct by_block_q5_0);
    for (uint32_t b = 0; b < n_blocks; b++, src += each, scales += 8) {
        uint16_t dm[2];
        memcpy(dm, src, has_min ? 4 : 2);
        if (!has_min) dm[1] = by_f32_to_f16(-16 * by_f16_to_f32(dm[0])); /* exact below 4095 */
        memcpy(scales, dm, 4);
        memcpy(scales + 4, src + (has_min ? 4 : 2), 4);
        pack_nibbles(src + (has_min ? 8 : 6), q + 16 * (size_t)b);
    }
}

static void pack_q8(const uint8_t *src, uint32_t n_blocks, uint8_t *q, uint8_t *scales) {
    for (uint32_t b = 0; b < n_blocks; b++, src += sizeof(struct by_block_q8_0)) {
        memcpy(scales + 2 * (size_t)b, src, 2);
        memcpy(q + 32 * (size_t)b, src + 2, 32);
    }
}

static void pack_iq4_nl(const uint8_t *src, uint32_t n_blocks, uint8_t *q, uint8_t *scales) {
    memcpy(scales, by_iq4_values, 16);
    scales += 16;
    for (uint32_t b = 0; b < n_blocks; b++, src += sizeof(struct by_block_iq4_nl)) {
        memcpy(scales + 2 * (size_t)b, src, 2);
        pack_nibbles(src + 2, q + 16 * (size_t)b);
    }
}

static void pack_z4(const uint8_t *src, uint32_t n_blocks, uint8_t *q, uint8_t *scales) {
    struct by_block_z4_32 b;
    for (uint32_t i = 0; i < n_blocks; i++) {
        memcpy(&b, src + i * sizeof b, sizeof b);
        const uint16_t dz[2] = {b.d, by_f32_to_f16((float)b.z)};
        memcpy(scales + 4 * (size_t)i, dz, 4);
        pack_nibbles(b.qs, q + 16 * (size_t)i);
    }
}

static void pack_f4(const uint8_t *src, uint32_t n_blocks, uint8_t *q, float *scales) {
    for (uint32_t i = 0; i < n_blocks; i++, src += sizeof(struct by_block_mxfp4)) {
        scales[i] = by_f8_e8m0_to_f32(src[0]);
        pack_nibbles(src + 1, q + 16 * (size_t)i);
    }
}

static void pack_f8(const uint8_t *src, uint32_t n_blocks, uint8_t *q, float *scales) {
    struct by_block_f8_32 b;
    for (uint32_t i = 0; i < n_blocks; i++) {
        memcpy(&b, src + i * sizeof b, sizeof b);
        scales[i] = b.s;
        memcpy(q + 32 * (size_t)i, b.qs, 32);
    }
}

/* How many blocks share a scale at least, in a row of n: all of them, 4 (128 columns) or one. */
static uint32_t run_of(const float *scales, uint32_t n) {
    bool are_equal = true, are_fours = n % 4 == 0;
    for (uint32_t i = 1; i < n; i++) {
        are_equal = are_equal && scales[i] == scales[0];
        are_fours = are_fours && scales[i] == scales[i / 4 * 4];
    }
    return are_equal ? n : are_fours ? 4 : 1;
}

/* `bits` bits of each of 256 numbers, from bit `first` on, side by side: eight numbers at a time, by halves that close up. */
static inline void pack_bits(const uint8_t *numbers, uint32_t first, uint32_t bits, uint8_t *to) {
    const uint64_t each = (1u << bits) - 1, ones = each * 0x0101010101010101u,
                   twos = (each | each << bits) * 0x0001000100010001u;
    for (uint32_t i = 0; i < BY_QK_K; i += 8, to += bits) {
        uint64_t v;
        memcpy(&v, numbers + i, 8);
        v = v >> first & ones;
        v = (v | v >> (8 - bits)) & twos;
        v |= v >> (16 - 2 * bits);
        v = (v & 0xffffffffu >> (32 - 4 * bits)) | (v >> 32 & 0xffffffffu >> (32 - 4 * bits))
                                                       << (4 * bits);
        memcpy(to, &v, bits);
    }
}

/* 20 bytes: cuda.h. Both halves of 32 columns have equal ones in Q4_K and Q5_K: a scale and a minimum take their places. */
static void pack_scales(enum cuda_format f, const struct by_super_block *b, uint8_t *to) {
    const bool has_pairs = f == CUDA_Q4_K || f == CUDA_Q5_K;
    memcpy(to, &b->half_d, 2);
    memcpy(to + 2, &b->half_dmin, 2);
    if (f == CUDA_L4_K) memcpy(to, &b->d, 4);
    for (uint32_t g = 0; g < 16; g++) {
        uint8_t scale = (uint8_t)b->scales[g];
        if (f == CUDA_Q2_K) scale = (uint8_t)(scale | b->mins[g] << 4);
        to[4 + g] = has_pairs && g % 2 ? b->mins[g] : scale;
    }
}

static void pack_super(enum cuda_format f, enum by_dtype t, const uint8_t *src, uint32_t n_blocks,
                       uint8_t *q, uint8_t *scales) {
    const uint32_t bits = layouts[f].bits, low = bits < 4 ? 2 : 4, high = bits - low;
    uint8_t *highs = q + n_blocks * (BY_QK_K / 8) * low;
    struct by_super_block b;
    if (f == CUDA_L4_K) memcpy(scales, by_super_levels(t), 16), scales += 16;
    for (uint32_t i = 0; i < n_blocks; i++, src += by_dtype_block_bytes(t)) {
        by_super_unpack(t, src, &b);
        pack_scales(f, &b, scales);
        scales += layouts[f].scale_bytes;
        if (low == 2) pack_bits(b.q, 0, 2, q);
        if (low == 4) pack_bits(b.q, 0, 4, q);
        if (high == 1) pack_bits(b.q, low, 1, highs);
        if (high == 2) pack_bits(b.q, low, 2, highs);
        q += BY_QK_K / 8 * low;
        highs += BY_QK_K / 8 * high;
    }
}

static void pack_floats(const struct weight *w, enum by_dtype t, const uint8_t *src, uint8_t *dst,
                        float *floats) {
    by_dtype_to_f32(t, src, floats, w->n_in);
    if (w->format == CUDA_F32) memcpy(dst, floats, (size_t)w->n_in * sizeof *floats);
    for (uint32_t i = 0; i < w->n_in && w->format == CUDA_BF16; i++)
        ((uint16_t *)dst)[i] = by_f32_to_bf16(floats[i]);
}

/* floats: room for n_in of them */
static void pack_row(const struct weight *w, enum by_dtype t, const uint8_t *src, uint8_t *dst,
                     float *floats) {
    uint8_t *scales = dst + w->scale_at;
    memset(dst, 0, w->row_bytes);
    if (CUDA_FORMAT_IS_K(w->format))
        pack_super(w->format, t, src, w->n_in / BY_QK_K, dst, scales);
    else if (w->format == CUDA_Q4)
        pack_q4(src, t == BY_DTYPE_Q4_1, w->n_in / 32, dst, scales);
    else if (w->format == CUDA_Q5)
        pack_q5(src, t == BY_DTYPE_Q5_1, w->n_in / 32, dst, scales);
    else if (w->format == CUDA_L4)
        pack_iq4_nl(src, w->n_in / 32, dst, scales);
    else if (w->format == CUDA_Q8)
        pack_q8(src, w->n_in / 32, dst, scales);
    else if (w->format == CUDA_Z4)
        pack_z4(src, w->n_in / 32, dst, scales);
    else if (w->format == CUDA_F4)
        pack_f4(src, w->n_in / 32, dst, (float *)scales);
    else if (w->format == CUDA_F8)
        pack_f8(src, w->n_in / 32, dst, (float *)scales);
    else if (t == BY_DTYPE_BF16 || t == BY_DTYPE_F16)
        memcpy(dst, src, (size_t)w->n_in * 2);
    else
        pack_floats(w, t, src, dst, floats);
}

/* Which row of the source is row r of the weight. */
static uint32_t source_row(const struct weight *w, uint32_t r) {
    return w->is_gated ? r / 2 + r % 2 * (w->n_out / 2) : r;
}

/* ---- a weight ---- */

static int load_rows(struct cuda *c, struct weight *w, const struct weight_source *src,
                     struct by_err *err) {
    size_t in_bytes;
    if (!by_dtype_row_bytes(src->dtype, src->n_in, &in_bytes))
        return by_fail(err, BY_EINVAL, "rows of %u columns of %s are no whole blocks", src->n_in,
                       by_dtype_name(src->dtype));
    uint32_t n_each = (uint32_t)BY_MAX(LOAD_BYTES / w->row_bytes, (uint64_t)1);
    n_each = BY_MIN(n_each, w->n_out);
    uint8_t *in = by_alloc(in_bytes), *out = by_alloc_array(n_each, w->row_bytes);
    float *floats = by_alloc_array(w->n_in, sizeof *floats);
    int rc = 0;
    for (uint32_t first = 0; first < w->n_out && !rc; first += n_each) {
        uint32_t n = BY_MIN(n_each, w->n_out - first);
        for (uint32_t i = 0; i < n; i++) {
            src->row(src->ctx, source_row(w, first + i), in);
            uint8_t *row = out + i * w->row_bytes;
            pack_row(w, src->dtype, in, row, floats);
            if (w->format != CUDA_F8) continue;
            w->scale_run =
                BY_MIN(w->scale_run, run_of((const float *)(row + w->scale_at), w->n_in / 32));
        }
        rc = port_load(c->port, w->rows + first * w->row_bytes, out, n * w->row_bytes);
    }
    by_free(floats);
    by_free(out);
    by_free(in);
    return rc ? by_fail(err, BY_EIO, "%s", port_error(c->port)) : 0;
}

static int load_bias(struct cuda *c, struct weight *w, const float *bias, struct by_err *err) {
    float *turned = by_alloc_array(w->n_out, sizeof *turned);
    for (uint32_t r = 0; r < w->n_out; r++)
        turned[r] = bias[source_row(w, r)];
    w->bias = cuda_alloc(c, w->n_out * sizeof *turned, CUDA_MEM_WEIGHTS);
    int rc = 0;
    if (!w->bias)
        rc = by_fail(err, BY_ENOMEM, "no device memory for a bias");
    else if (port_load(c->port, w->bias, turned, w->n_out * sizeof *turned))
        rc = by_fail(err, BY_EIO, "%s", port_error(c->port));
    by_free(turned);
    return rc;
}

int cuda_weight_new(struct backend *b, struct weight **out, const struct weight_source *src,
                    struct by_err *err) {
    struct cuda *c = cuda_of(b);
    if (!by_dtype_has_f32(src->dtype))
        return by_fail(err, BY_EUNSUPPORTED, "no kernel for weights in %s",
                       by_dtype_name(src->dtype));
    by_assert(src->n_out > 0 && src->n_in > 0);
    struct weight *w = by_alloc(sizeof *w);
    *w = (struct weight){.format = format_of(src->dtype),
                         .n_out = src->n_out,
                         .n_in = src->n_in,
                         .scale_run = UINT32_MAX,
                         .is_gated = src->is_gated};
    lay_out(w);
    int rc = 0;
    w->rows = cuda_alloc(c, w->row_bytes * w->n_out, CUDA_MEM_WEIGHTS);
    if (!w->rows || !cuda_reserve(c, w->k_pad))
        rc =
            by_fail(err, BY_ENOMEM,
                    "the weights do not fit: %.1f MB are on the device, the next matrix takes %.1f "
                    "MB, %.1f MB are free; quantise (--quantization) or use more ranks (--tp-size)",
                    (double)c->n_bytes[CUDA_MEM_WEIGHTS] / 1e6,
                    (double)w->row_bytes * w->n_out / 1e6, (double)port_free_bytes(c->port) / 1e6);
    if (!rc) rc = load_rows(c, w, src, err);
    if (!rc && src->bias) rc = load_bias(c, w, src->bias, err);
    if (!rc && product_tune(c, w, src->out_n ? src->out_n : w->n_out))
        rc = by_fail(err, BY_EIO, "%s", port_error(c->port));
    if (rc) {
        cuda_weight_free(b, w);
        return rc;
    }
    *out = w;
    return 0;
}

void cuda_weight_free(struct backend *b, struct weight *w) {
    struct cuda *c = cuda_of(b);
    if (!w) return;
    for (uint32_t i = 0; i < c->n_tables; i++) /* one of them may name this weight */
        cuda_free(c, c->tables[i].at);
    c->n_tables = 0;
    cuda_free(c, w->rows);
    cuda_free(c, w->f8_scales);
    cuda_free(c, w->bias);
    by_free(w);
}
