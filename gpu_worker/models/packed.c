#include "gpu_worker/models/packed.h"

#include "common/base/mem.h"

#include <inttypes.h>
#include <string.h>

enum { TILE_ROWS = 16 /* outputs of neighbouring words: one cache line */ };

/* ---- rows by all lanes ---- */

int packed_own(struct matrix *m, enum by_dtype t, struct by_err *err) {
    if (!by_dtype_row_bytes(t, m->n_cols, &m->row_bytes))
        return by_fail(err, BY_EUNSUPPORTED, "the tensor %s: rows of %u are no whole blocks of 32",
                       m->name, m->n_cols);
    m->dtype = t;
    m->owned = by_try_alloc(m->row_bytes * m->n_rows);
    if (!m->owned)
        return by_fail(err, BY_ENOMEM, "%s: no memory for %zu bytes", m->name,
                       m->row_bytes * m->n_rows);
    m->rows = m->owned;
    return 0;
}

struct job {
    struct matrix *m;
    struct backend *b;
    void (*tile)(const void *ctx, uint32_t first, uint32_t n);
    const void *ctx;
};

static void job_lane(struct lane *lane, void *ctx) {
    const struct job *j = ctx;
    uint32_t n_tiles = BY_DIV_UP(j->m->n_rows, (uint32_t)TILE_ROWS);
    for (uint32_t i; (i = j->b->lane_next(lane, n_tiles)) != UINT32_MAX;)
        j->tile(j->ctx, i * TILE_ROWS, BY_MIN((uint32_t)TILE_ROWS, j->m->n_rows - i * TILE_ROWS));
    j->b->barrier(lane);
}

void packed_unpack(struct matrix *m, struct backend *b,
                   void (*tile)(const void *ctx, uint32_t first, uint32_t n), const void *ctx) {
    struct job j = {.m = m, .b = b, .tile = tile, .ctx = ctx};
    b->run(b, job_lane, &j);
}

/* ---- the words ---- */

enum order { ORDER_AWQ, ORDER_GPTQ, ORDER_ROWS };

struct packed {
    struct matrix *m;
    enum order order;
    uint32_t bits, n_groups, group;
    const struct by_tensor_info *q, *zeros, *scales, *index; /* zeros, index: may be NULL */
    uint32_t zero_less; /* what the stored zero is less than the true one */
    uint16_t *group_of; /* [n_in], when inputs are not in the order of their groups; else NULL */
};

static uint32_t field(const struct by_tensor_info *t, uint64_t word, uint32_t at, uint32_t bits) {
    uint32_t v;
    memcpy(&v, t->data + word * 4, 4);
    return v >> (at * bits) & ((1u << bits) - 1);
}

/* Where output `out` of a row of words lies: AWQ deals eight to a word as 0 2 4 6 1 3 5 7. */
static uint32_t out_field(const struct packed *p, const struct by_tensor_info *t, uint64_t row,
                          uint32_t out) {
    static const uint8_t awq[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    uint32_t each = 32 / p->bits, n_words = p->m->n_rows / each, at = out % each;
    return field(t, row * n_words + out / each, p->order == ORDER_AWQ ? awq[at] : at, p->bits);
}

static uint32_t value(const struct packed *p, uint32_t in, uint32_t out) {
    uint32_t each = 32 / p->bits;
    if (p->order == ORDER_AWQ) return out_field(p, p->q, in, out);
    if (p->order == ORDER_GPTQ)
        return field(p->q, (uint64_t)(in / each) * p->m->n_rows + out, in % each, p->bits);
    return field(p->q, (uint64_t)out * (p->m->n_cols / each) + in / each, in % each, p->bits);
}

static uint32_t zero(const struct packed *p, uint32_t g, uint32_t out) {
    uint32_t each = 32 / p->bits;
    if (!p->zeros) return 1u << (p->bits - 1);
    /* compressed-tensors packs the zeros of eight outputs into a word: [n_out / 8, n_groups] */
    if (p->order == ORDER_ROWS)
        return field(p->zeros, (uint64_t)(out / each) * p->n_groups + g, out % each, p->bits);
    return out_field(p, p->zeros, g, out) + p->zero_less;
}

static float scale(const struct packed *p, uint32_t g, uint32_t out) {
    float v;
    uint64_t i =
        p->order == ORDER_ROWS ? (uint64_t)out * p->n_groups + g : (uint64_t)g * p->m->n_rows + out;
    by_dtype_to_f32(p->scales->dtype, p->scales->data + i * by_dtype_block_bytes(p->scales->dtype),
                    &v, 1);
    return v;
}

/* ---- into blocks ---- */

static void write_block(const struct packed *p, uint8_t *dst, const int32_t *q, int32_t z,
                        uint16_t d) {
    if (p->m->dtype == BY_DTYPE_Q8_0) {
        struct by_block_q8_0 b = {.d = d};
        for (uint32_t i = 0; i < BY_QK; i++)
            b.qs[i] = (int8_t)q[i];
        memcpy(dst, &b, sizeof b);
    } else if (p->m->dtype == BY_DTYPE_Z4_32) {
        struct by_block_z4_32 b = {.d = d, .z = (uint16_t)z};
        for (uint32_t i = 0; i < BY_QK / 2; i++)
            b.qs[i] = (uint8_t)((q[i] + z) | (q[i + BY_QK / 2] + z) << 4);
        memcpy(dst, &b, sizeof b);
    } else if (p->m->dtype == BY_DTYPE_Q4_0) {
        struct by_block_q4_0 b = {.d = d};
        for (uint32_t i = 0; i < BY_QK / 2; i++)
            b.qs[i] = (uint8_t)((q[i] + 8) | (q[i + BY_QK / 2] + 8) << 4);
        memcpy(dst, &b, sizeof b);
    } else {
        struct by_block_q5_0 b = {.d = d};
        uint32_t high = 0;
        for (uint32_t i = 0; i < BY_QK; i++)
            high |= (uint32_t)((q[i] + 16) >> 4) << i;
        memcpy(b.qh, &high, sizeof high);
        for (uint32_t i = 0; i < BY_QK / 2; i++)
            b.qs[i] = (uint8_t)(((q[i] + 16) & 15) | ((q[i + BY_QK / 2] + 16) & 15) << 4);
        memcpy(dst, &b, sizeof b);
    }
}

static void block_tile(const void *ctx, uint32_t first, uint32_t n) {
    const struct packed *p = ctx;
    const size_t bytes = by_dtype_block_bytes(p->m->dtype);
    int32_t q[BY_QK];
    for (uint32_t in = 0; in < p->m->n_cols; in += BY_QK) {
        uint32_t g = in / p->group;
        for (uint32_t out = first; out < first + n; out++) {
            int32_t z = (int32_t)zero(p, g, out);
            for (uint32_t i = 0; i < BY_QK; i++)
                q[i] = (int32_t)value(p, in + i, out) - z;
            write_block(p, (uint8_t *)p->m->owned + p->m->row_bytes * out + in / BY_QK * bytes, q,
                        z, by_f32_to_f16(scale(p, g, out)));
        }
    }
}

static void float_tile(const void *ctx, uint32_t first, uint32_t n) {
    const struct packed *p = ctx;
    for (uint32_t in = 0; in < p->m->n_cols; in++) {
        uint32_t g = p->group_of ? p->group_of[in] : in / p->group;
        for (uint32_t out = first; out < first + n; out++) {
            int32_t q = (int32_t)value(p, in, out) - (int32_t)zero(p, g, out);
            float v = scale(p, g, out) * (float)q;
            memcpy((uint8_t *)p->m->owned + p->m->row_bytes * out + in * sizeof v, &v, sizeof v);
        }
    }
}

/* ---- opening ---- */

/* Is the true zero the middle, everywhere? */
static bool is_symmetric(const struct packed *p) {
    for (uint32_t g = 0; p->zeros && g < p->n_groups; g++) {
        for (uint32_t out = 0; out < p->m->n_rows; out++) {
            if (zero(p, g, out) != 1u << (p->bits - 1)) return false;
        }
    }
    return true;
}

static int read_index(struct packed *p, struct by_err *err) {
    bool is_ordered = true;
    if (!p->index) return 0;
    if (p->index->dtype != BY_DTYPE_I32 || p->index->n_elems != p->m->n_cols)
        return matrix_shape_error(p->index, err, "[%u] of I32", p->m->n_cols);
    p->group_of = by_alloc_array(p->m->n_cols, sizeof *p->group_of);
    for (uint32_t i = 0; i < p->m->n_cols; i++) {
        int32_t g;
        memcpy(&g, p->index->data + i * sizeof g, sizeof g);
        if (g < 0 || (uint32_t)g >= p->n_groups || g > UINT16_MAX)
            return by_fail(err, BY_EFORMAT, "the tensor %.*s: entry %u is group %d of %u",
                           (int)BY_MIN(p->index->name.n, (size_t)200), p->index->name.p, i, g,
                           p->n_groups);
        p->group_of[i] = (uint16_t)g;
        is_ordered &= (uint32_t)g == i / p->group;
    }
    if (!is_ordered) return 0;
    by_free(p->group_of);
    p->group_of = NULL;
    return 0;
}

/* bits and groups follow from the shapes, which then must fit each other. */
static int measure(struct packed *p, struct by_err *err) {
    const struct matrix *m = p->m;
    uint64_t rows, cols, s_rows, s_cols;
    by_tensor_rows(p->q, &rows, &cols);
    by_tensor_rows(p->scales, &s_rows, &s_cols);
    bool is_rows = p->order == ORDER_ROWS;
    uint64_t across = p->order == ORDER_AWQ ? m->n_rows : m->n_cols;
    uint64_t words = p->order == ORDER_GPTQ ? rows : cols,
             other = p->order == ORDER_GPTQ ? cols : rows;
    uint64_t other_want = p->order == ORDER_AWQ ? m->n_cols : m->n_rows,
             groups = is_rows ? s_cols : s_rows;
    p->bits = across ? (uint32_t)(words * 32 / across) : 0;
    bool is_known = p->bits == 4 || (p->order != ORDER_AWQ && (p->bits == 2 || p->bits == 8));
    if (p->q->dtype != BY_DTYPE_I32 || other != other_want || !is_known ||
        words * 32 != across * p->bits)
        return by_fail(err, BY_EUNSUPPORTED,
                       "the tensor %s: %" PRIu64 " x %" PRIu64
                       " words for a matrix of %u x %u are not %s bits a weight",
                       m->name, rows, cols, m->n_rows, m->n_cols,
                       p->order == ORDER_AWQ ? "AWQ's 4" : "2, 4 or 8");
    if (!by_dtype_is_float(p->scales->dtype) || (is_rows ? s_rows : s_cols) != m->n_rows ||
        groups == 0 || groups > m->n_cols || m->n_cols % groups)
        return matrix_shape_error(p->scales, err, "a scale a group for each of %u outputs",
                                  m->n_rows);
    p->n_groups = (uint32_t)groups;
    p->group = (uint32_t)(m->n_cols / groups);
    uint32_t each = 32 / p->bits;
    if (p->zeros && (p->zeros->dtype != BY_DTYPE_I32 || m->n_rows % each ||
                     p->zeros->n_elems != groups * (m->n_rows / each)))
        return matrix_shape_error(p->zeros, err, "%u x %" PRIu64 " packed zeros", m->n_rows / each,
                                  groups);
    return 0;
}

static int unpack(struct packed *p, struct backend *b, struct by_err *err) {
    int rc = measure(p, err);
    if (!rc) rc = read_index(p, err);
    if (rc) return rc;
    bool fits = !p->group_of && p->group % BY_QK == 0, is_mid = is_symmetric(p);
    enum by_dtype t = BY_DTYPE_F32;
    if (fits && p->bits == 4) {
        t = is_mid ? BY_DTYPE_Q4_0 : BY_DTYPE_Q5_0;
        if (!is_mid && b->keeps_packed) t = BY_DTYPE_Z4_32;
    }
    if (fits && p->bits == 2) t = BY_DTYPE_Q4_0;
    if (fits && p->bits == 8 && is_mid) t = BY_DTYPE_Q8_0;
    rc = packed_own(p->m, t, err);
    if (!rc) packed_unpack(p->m, b, t == BY_DTYPE_F32 ? float_tile : block_tile, p);
    return rc;
}

int packed_open(struct matrix *m, const struct matrix_source *s, const struct matrix_want *w,
                bool *is_packed, struct by_err *err) {
    const struct by_quant_info *info = &by_model_dir_info(s->dir)->quant;
    struct packed p = {.m = m, .q = matrix_find(s, w->stem, ".qweight")};
    *is_packed = true;
    if (p.q) {
        p.order = info->method == BY_QUANT_AWQ ? ORDER_AWQ : ORDER_GPTQ;
        p.zeros = matrix_find(s, w->stem, ".qzeros");
        p.scales = matrix_find(s, w->stem, ".scales");
        p.index = matrix_find(s, w->stem, ".g_idx");
        p.zero_less = p.order == ORDER_GPTQ && !info->is_v2;
    } else {
        p.order = ORDER_ROWS;
        p.q = matrix_find(s, w->stem, ".weight_packed");
        p.zeros = matrix_find(s, w->stem, ".weight_zero_point");
        p.scales = matrix_find(s, w->stem, ".weight_scale");
        p.index = matrix_find(s, w->stem, ".weight_g_idx");
        matrix_find(s, w->stem, ".weight_shape");
    }
    *is_packed = p.q != NULL;
    if (!p.q) return 0;
    if (!p.scales)
        return by_fail(err, BY_ENOTFOUND, "there are no scales for the packed tensor %s", w->stem);
    int rc = unpack(&p, s->b, err);
    by_free(p.group_of);
    m->t = p.q;
    return rc;
}
