/* Packs rows of a file into strips of 16 (layout: cpu_kernels.h), with all lanes, and reads single rows back. */
#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/modelfile/super_block.h"
#include "gpu_worker/cpu/cpu.h"
#include "gpu_worker/cpu/cpu_formats.h"

#include <string.h>

/* A small block taken apart. */
struct parts {
    uint8_t q[32]; /* as they are stored: unsigned */
    uint16_t d, m; /* f16; MXFP4: d is the exponent */
};

static enum cpu_format format_of(const struct cpu *c, enum by_dtype t) {
    static const uint8_t formats[BY_N_DTYPES] = {
        [BY_DTYPE_F16] = CPU_F16,       [BY_DTYPE_BF16] = CPU_BF16,
        [BY_DTYPE_Q4_0] = CPU_Q4_0,     [BY_DTYPE_Q4_1] = CPU_Q4_1,
        [BY_DTYPE_Q5_0] = CPU_Q5_0,     [BY_DTYPE_Q5_1] = CPU_Q5_1,
        [BY_DTYPE_Q8_0] = CPU_Q8_0,     [BY_DTYPE_Q2_K] = CPU_Q2_K,
        [BY_DTYPE_Q3_K] = CPU_Q3_K,     [BY_DTYPE_Q4_K] = CPU_Q4_K,
        [BY_DTYPE_Q5_K] = CPU_Q5_K,     [BY_DTYPE_Q6_K] = CPU_Q6_K,
        [BY_DTYPE_IQ4_NL] = CPU_IQ4_NL, [BY_DTYPE_IQ4_XS] = CPU_IQ4_XS,
        [BY_DTYPE_MXFP4] = CPU_MXFP4,   [BY_DTYPE_TQ1_0] = CPU_Q2_K,
        [BY_DTYPE_TQ2_0] = CPU_Q2_K,
    };
    enum cpu_format f = formats[t];
    if (f == CPU_F32 && by_super_levels(t)) f = CPU_IQ;
    if (c->options.exact_activations && !CPU_FORMAT_IS_FLOAT(f)) return CPU_F32;
    if (f == CPU_BF16 && c->linear[CPU_BF16X2].tile_max) return CPU_BF16X2;
    return f;
}

static size_t strip_bytes_of(enum cpu_format f, uint32_t n_in) {
    if (f == CPU_F32) return (size_t)n_in * CPU_STRIP * 4;
    if (CPU_FORMAT_IS_FLOAT(f)) return (size_t)BY_ALIGN_UP(n_in, 2) * CPU_STRIP * 2;
    return CPU_FORMAT_HEAD(f) +
           BY_DIV_UP(n_in / 32, (size_t)CPU_FORMAT_GROUP(f)) * (size_t)CPU_FORMAT_GROUP_BYTES(f);
}

/* ---- taking ggml's small blocks apart (layouts: dtype.h; of 256 columns: super_block.h) ---- */

static void nibbles(const uint8_t *qs, uint8_t *q) {
    for (int i = 0; i < 16; i++) {
        q[i] = qs[i] & 15;
        q[i + 16] = qs[i] >> 4;
    }
}

static void fifth_bits(const uint8_t *qh, uint8_t *q) {
    for (int i = 0; i < 32; i++)
        q[i] = (uint8_t)(q[i] | (qh[i / 8] >> (i % 8) & 1) << 4);
}

static void part_small(enum cpu_format f, const uint8_t *src, struct parts *p) {
    uint8_t *q = p->q;
    if (f == CPU_MXFP4) {
        p->d = src[0];
        nibbles(src + 1, q);
        return;
    }
    memcpy(&p->d, src, 2);
    src += 2;
    if (CPU_FORMAT_HAS_MIN(f)) {
        memcpy(&p->m, src, 2);
        src += 2;
    }
    if (f == CPU_Q8_0) {
        for (int i = 0; i < 32; i++)
            q[i] = src[i] ^ 0x80;
        return;
    }
    bool is_5 = CPU_FORMAT_BITS(f) == 5;
    nibbles(src + (is_5 ? 4 : 0), q);
    if (is_5) fifth_bits(src, q);
}

/* ---- putting them into a strip ---- */

static uint32_t four_at(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static void or_four(uint8_t *p, uint32_t v) {
    v |= four_at(p);
    memcpy(p, &v, sizeof v);
}

/* 32 columns of row r, four at a time. The strip is zeroed before. */
static void put_block(int bits, const uint8_t *q, uint8_t *block, uint32_t r) {
    for (uint32_t j = 0; j < 8; j++) {
        uint32_t four = four_at(q + 4 * j), high = four >> 4 & 0x0f0f0f0f;
        if (bits == 8) {
            memcpy(block + 64 * j + 4 * r, &four, 4);
            continue;
        }
        if (bits <= 3) {
            or_four(block + 64 * (j / 4) + 4 * r, (four & 0x03030303) << (2 * (j % 4)));
            if (bits == 3) or_four(block + 128 + 4 * r, (four >> 2 & 0x01010101) << j);
            continue;
        }
        or_four(block + 64 * (j % 4) + 4 * r, (four & 0x0f0f0f0f) << (j / 4 * 4));
        if (bits == 5) {
            or_four(block + 256 + 4 * r, high << j);
        } else if (bits == 6) {
            or_four(block + 256 + 64 * (j / 4) + 4 * r, high << (2 * (j % 4)));
        }
    }
}

/* Scales of block b of a group of small blocks, and those of a super-block. */
static void put_small_scales(enum cpu_format f, const struct parts *p, uint8_t *sc, uint32_t b,
                             uint32_t r) {
    if (CPU_FORMAT_SCALES(f) == CPU_SCALE_E8)
        sc[16 * b + r] = (uint8_t)p->d;
    else
        memcpy(sc + 32 * b + 2 * r, &p->d, 2);
    if (CPU_FORMAT_SCALES(f) == CPU_SCALE_DM) memcpy(sc + 32 + 2 * r, &p->m, 2);
}

/* Where block b of a super-block and its small scales lie, from the group's start. */
static uint32_t super_block_at(enum cpu_format f, uint32_t b) {
    uint32_t n_lines = 2 + b / (uint32_t)CPU_FORMAT_SHARE(f);
    return 64 * n_lines + b * (uint32_t)CPU_FORMAT_BLOCK(f);
}

static uint32_t small_scales_at(enum cpu_format f, uint32_t b) {
    uint32_t share = (uint32_t)CPU_FORMAT_SHARE(f);
    return super_block_at(f, b / share * share) - 64 + b % share * (64 / share);
}

static void put_super_scales(enum cpu_format f, const struct by_super_block *p, uint8_t *group,
                             uint32_t r) {
    const uint16_t m = p->half_dmin ^ 0x8000;
    if (CPU_FORMAT_SCALES(f) == CPU_SCALE_K16W)
        memcpy(group + 4 * r, &p->d, 4);
    else
        memcpy(group + 2 * r, &p->half_d, 2);
    if (CPU_FORMAT_HAS_MIN(f)) memcpy(group + 32 + 2 * r, &m, 2);
    for (uint32_t b = 0; b < 8; b++) {
        uint8_t *sc = group + small_scales_at(f, b) + r;
        switch (CPU_FORMAT_SCALES(f)) {
        case CPU_SCALE_K:
            sc[0] = (uint8_t)p->scales[2 * b];
            sc[16] = p->mins[2 * b];
            break;
        case CPU_SCALE_K32:
            sc[0] = (uint8_t)p->scales[2 * b];
            break;
        default:
            for (uint32_t h = 0; h < 2; h++)
                sc[16 * h] = (uint8_t)(p->scales[2 * b + h] |
                                       (CPU_FORMAT_HAS_MIN(f) ? p->mins[2 * b + h] << 4 : 0));
        }
    }
}

static void put_small_blocks(const struct weight *w, const uint8_t *src, enum by_dtype t,
                             uint8_t *strip, uint32_t r) {
    const uint32_t bytes = by_dtype_block_bytes(t), n_group = (uint32_t)CPU_FORMAT_GROUP(w->format),
                   block_bytes = (uint32_t)CPU_FORMAT_BLOCK(w->format);
    const size_t group_bytes = (size_t)CPU_FORMAT_GROUP_BYTES(w->format);
    struct parts p;
    for (uint32_t b = 0; b < w->n_in / 32; b++, src += bytes) {
        uint8_t *group = strip + b / n_group * group_bytes;
        part_small(w->format, src, &p);
        put_block(CPU_FORMAT_BITS(w->format), p.q, group + 64 + b % n_group * block_bytes, r);
        put_small_scales(w->format, &p, group, b % n_group, r);
    }
}

static void put_super_blocks(const struct weight *w, const uint8_t *src, enum by_dtype t,
                             uint8_t *strip, uint32_t r) {
    const int8_t *levels = w->format == CPU_IQ ? by_super_levels(t) : NULL;
    struct by_super_block p;
    for (uint32_t i = 0; i < 16 && levels; i++)
        strip[i] = (uint8_t)(levels[i] + 128);
    strip += CPU_FORMAT_HEAD(w->format);
    for (uint32_t b = 0; b < w->n_in / BY_QK_K; b++, src += by_dtype_block_bytes(t)) {
        by_super_unpack(t, src, &p);
        for (uint32_t i = 0; i < 8; i++)
            put_block(CPU_FORMAT_BITS(w->format), p.q + 32 * i,
                      strip + super_block_at(w->format, i), r);
        put_super_scales(w->format, &p, strip, r);
        strip += CPU_FORMAT_GROUP_BYTES(w->format);
    }
}

/* f32 room: n_in floats */
static void put_float_row(const struct weight *w, const uint8_t *src, enum by_dtype t,
                          uint8_t *strip, uint32_t r, float *room) {
    if (w->format == CPU_F32) {
        by_dtype_to_f32(t, src, room, w->n_in);
        for (uint32_t k = 0; k < w->n_in; k++)
            ((float *)strip)[(size_t)k * CPU_STRIP + r] = room[k];
        return;
    }
    for (uint32_t k = 0; k < w->n_in; k++) {
        size_t at = w->format == CPU_F16 ? (size_t)k * CPU_STRIP + r
                                         : (size_t)(k / 2) * 2 * CPU_STRIP + 2 * r + k % 2;
        memcpy((uint16_t *)strip + at, src + 2 * (size_t)k, 2);
    }
}

/* ---- a weight ---- */

/* Row of the source that is row r of strip s; UINT32_MAX: padding. */
static uint32_t source_row(const struct weight *w, uint32_t s, uint32_t r) {
    uint32_t half = w->n_out / 2, i = (w->is_gated ? s / 2 : s) * CPU_STRIP + r;
    if (!w->is_gated) return i < w->n_out ? i : UINT32_MAX;
    return i < half ? i + (s % 2 ? half : 0) : UINT32_MAX;
}

struct packing {
    struct cpu *cpu;
    struct weight *w;
    const struct weight_source *src;
    uint8_t *rooms; /* a lane: one row of the source, one of floats */
    size_t row_bytes, room_bytes;
};

static void pack_strip(const struct packing *p, uint32_t s, uint8_t *row, float *room) {
    struct weight *w = p->w;
    for (uint32_t r = 0; r < CPU_STRIP; r++) {
        uint32_t from = source_row(w, s, r);
        if (from == UINT32_MAX) continue;
        p->src->row(p->src->ctx, from, row);
        uint8_t *strip = w->strips + (size_t)s * w->strip_bytes;
        if (CPU_FORMAT_IS_FLOAT(w->format))
            put_float_row(w, row, p->src->dtype, strip, r, room);
        else if (CPU_FORMAT_IS_SUPER(w->format))
            put_super_blocks(w, row, p->src->dtype, strip, r);
        else
            put_small_blocks(w, row, p->src->dtype, strip, r);
        if (w->bias) w->bias[(size_t)s * CPU_STRIP + r] = p->src->bias[from];
    }
}

static void pack_lane(void *ctx, uint32_t lane) {
    struct packing *p = ctx;
    uint8_t *row = p->rooms + lane * p->room_bytes;
    float *room = (float *)(row + BY_ALIGN_UP(p->row_bytes, CPU_ALIGN));
    for (uint32_t s; (s = cpu_team_next(p->cpu->team, lane, p->w->n_strips)) != UINT32_MAX;)
        pack_strip(p, s, row, room);
}

static int check_source(const struct weight_source *src, size_t *row_bytes, struct by_err *err) {
    bool is_known =
        src->dtype > BY_DTYPE_NONE && src->dtype < BY_N_DTYPES && by_dtype_has_f32(src->dtype);
    if (!is_known)
        return by_fail(err, BY_EUNSUPPORTED, "no CPU kernel for weights of type %u", src->dtype);
    if (src->n_out == 0 || src->n_in == 0 || src->n_out > INT32_MAX || src->n_in > INT32_MAX / 64)
        return by_fail(err, BY_ELIMIT, "a weight of %u x %u is out of range", src->n_out,
                       src->n_in);
    if (!by_dtype_row_bytes(src->dtype, src->n_in, row_bytes))
        return by_fail(err, BY_EFORMAT, "%u columns are no whole number of %s blocks", src->n_in,
                       by_dtype_name(src->dtype));
    if (src->is_gated && src->n_out % 2)
        return by_fail(err, BY_EFORMAT, "a gated weight has %u rows, an odd number", src->n_out);
    return 0;
}

int cpu_weight_new(struct backend *b, struct weight **out, const struct weight_source *src,
                   struct by_err *err) {
    struct cpu *c = cpu_of(b);
    struct packing p = {.cpu = c, .src = src};
    int rc = check_source(src, &p.row_bytes, err);
    if (rc) return rc;
    struct weight *w = by_alloc(sizeof *w);
    w->format = format_of(c, src->dtype);
    w->n_out = src->n_out;
    w->n_in = src->n_in;
    w->is_gated = src->is_gated;
    w->n_strips =
        src->is_gated ? 2 * BY_DIV_UP(src->n_out / 2, CPU_STRIP) : BY_DIV_UP(src->n_out, CPU_STRIP);
    w->strip_bytes = strip_bytes_of(w->format, src->n_in);
    p.w = w;
    p.room_bytes = BY_ALIGN_UP(p.row_bytes, CPU_ALIGN) +
                   BY_ALIGN_UP((size_t)src->n_in * sizeof(float), CPU_ALIGN);
    bool fits = w->strip_bytes <= SIZE_MAX / w->n_strips;
    w->strips = fits ? cpu_alloc(c, w->strip_bytes * w->n_strips, CPU_MEM_WEIGHTS) : NULL;
    if (src->bias)
        w->bias = cpu_alloc(c, (size_t)w->n_strips * CPU_STRIP * sizeof(float), CPU_MEM_WEIGHTS);
    p.rooms = by_try_alloc_aligned(CPU_ALIGN, p.room_bytes * c->b.n_lanes);
    bool has_all =
        w->strips && (w->bias || !src->bias) && p.rooms &&
        cpu_reserve_row(c, src->n_in, cpu_act_bytes(CPU_FORMAT_ACT(w->format), src->n_in));
    if (has_all)
        cpu_team_run(c->team, pack_lane, &p);
    else
        rc = by_fail(err, BY_ENOMEM, "no memory for a weight of %u x %u (%zu bytes)", src->n_out,
                     src->n_in, fits ? w->strip_bytes * w->n_strips : SIZE_MAX);
    by_free(p.rooms);
    if (rc) {
        cpu_weight_free(b, w);
        return rc;
    }
    *out = w;
    return 0;
}

void cpu_weight_free(struct backend *b, struct weight *w) {
    if (!w) return;
    cpu_free(cpu_of(b), w->strips);
    cpu_free(cpu_of(b), w->bias);
    by_free(w);
}

/* ---- reading a row back ---- */

static int get_q(int bits, const uint8_t *block, uint32_t r, uint32_t k) {
    uint32_t j = k / 4, at = 4 * r + k % 4;
    if (bits == 8) return block[64 * j + at];
    if (bits <= 3) {
        int low = block[64 * (j / 4) + at] >> (2 * (j % 4)) & 3;
        return bits == 2 ? low : low | (block[128 + at] >> j & 1) << 2;
    }
    int q = block[64 * (j % 4) + at] >> (j / 4 * 4) & 15;
    if (bits == 5) q |= (block[256 + at] >> j & 1) << 4;
    if (bits == 6) q |= (block[256 + 64 * (j / 4) + at] >> (2 * (j % 4)) & 3) << 4;
    return q;
}

static float half_at(const uint8_t *p, uint32_t r) {
    uint16_t h;
    memcpy(&h, p + 2 * r, 2);
    return by_f16_to_f32(h);
}

/* Scale d and minimum m of row r in block b of a group, half h of its columns. */
static void get_scales(enum cpu_format f, const uint8_t *group, uint32_t b, uint32_t h, uint32_t r,
                       float *d, float *m) {
    const uint8_t *sc = group + small_scales_at(f, b) + r; /* a super-block's */
    *m = CPU_FORMAT_HAS_MIN(f) ? half_at(group + 32, r) : 0;
    switch (CPU_FORMAT_SCALES(f)) {
    case CPU_SCALE_E8:
        *d = 0.5f * by_bits_f32((uint32_t)group[16 * b + r] << 23);
        break;
    case CPU_SCALE_D:
        *d = half_at(group + 32 * b, r);
        break;
    case CPU_SCALE_DM:
        *d = half_at(group, r);
        break;
    case CPU_SCALE_K:
        *d = half_at(group, r) * (float)sc[0];
        *m *= (float)sc[16];
        break;
    case CPU_SCALE_K16M:
        *d = half_at(group, r) * (float)(sc[16 * h] & 15);
        *m *= (float)(sc[16 * h] >> 4);
        break;
    case CPU_SCALE_K32:
        *d = half_at(group, r) * (float)(int8_t)sc[0];
        break;
    case CPU_SCALE_K16W:
        memcpy(d, group + 4 * r, sizeof *d);
        *d *= (float)(int8_t)sc[16 * h];
        break;
    default:
        *d = half_at(group, r) * (float)(int8_t)sc[16 * h];
    }
}

static float quant_at(const struct weight *w, const uint8_t *strip, uint32_t r, uint32_t k) {
    enum cpu_format f = w->format;
    uint32_t n_group = (uint32_t)CPU_FORMAT_GROUP(f), b = k / 32 % n_group;
    uint32_t block_bytes = (uint32_t)CPU_FORMAT_BLOCK(f);
    const uint8_t *levels = strip;
    strip += CPU_FORMAT_HEAD(f);
    const uint8_t *group = strip + (size_t)(k / 32 / n_group) * (size_t)CPU_FORMAT_GROUP_BYTES(f);
    uint32_t at = CPU_FORMAT_IS_SUPER(f) ? super_block_at(f, b) : 64 + b * block_bytes;
    int q = get_q(CPU_FORMAT_BITS(f), group + at, r, k % 32);
    float d, m;
    get_scales(f, group, b, k % 32 / 16, r, &d, &m);
    if (f == CPU_IQ) return d * (float)(levels[q] - 128);
    if (CPU_FORMAT_HAS_LEVELS(f)) return d * (float)by_iq4_values[q];
    if (f == CPU_MXFP4) return d * (float)by_fp4_values_x2[q];
    d *= (float)(q - CPU_FORMAT_OFFSET(f));
    return CPU_FORMAT_HAS_MIN(f) ? d + m : d;
}

void cpu_weight_row(const struct weight *w, uint32_t out, float scale, bool is_add, float *y) {
    by_assert(out < w->n_out);
    by_assert(!w->is_gated);
    const uint8_t *strip = w->strips + (size_t)(out / CPU_STRIP) * w->strip_bytes;
    uint32_t r = out % CPU_STRIP;
    for (uint32_t k = 0; k < w->n_in; k++) {
        float v;
        switch (w->format) {
        case CPU_F32:
            v = ((const float *)strip)[(size_t)k * CPU_STRIP + r];
            break;
        case CPU_F16:
            v = by_f16_to_f32(((const uint16_t *)strip)[(size_t)k * CPU_STRIP + r]);
            break;
        case CPU_BF16:
        case CPU_BF16X2:
            v = by_bf16_to_f32(
                ((const uint16_t *)strip)[(size_t)(k / 2) * 2 * CPU_STRIP + 2 * r + k % 2]);
            break;
        default:
            v = quant_at(w, strip, r, k);
        }
        y[k] = is_add ? y[k] + scale * v : scale * v;
    }
}
