#include "gpu_worker/models/formats.h"

#include "gpu_worker/models/packed.h"

#include <inttypes.h>
#include <string.h>

/* ---- F8 with scales ---- */

struct f8 {
    struct matrix *m;
    const struct by_tensor_info *t, *scales;
    uint64_t block_rows, block_cols; /* of weights a scale */
    uint64_t scale_cols;
};

static float scale_at(const struct by_tensor_info *t, uint64_t i) {
    float v;
    size_t each = by_dtype_block_bytes(t->dtype);
    by_dtype_to_f32(t->dtype, t->data + i * each, &v, 1);
    return v;
}

static void f8_tile(const void *ctx, uint32_t first, uint32_t n) {
    const struct f8 *f = ctx;
    const uint32_t n_cols = f->m->n_cols;
    for (uint32_t r = first; r < first + n; r++) {
        const uint8_t *src = f->t->data + (size_t)r * n_cols;
        float *dst = (float *)((uint8_t *)f->m->owned + f->m->row_bytes * r);
        by_dtype_to_f32(f->t->dtype, src, dst, n_cols);
        for (uint32_t from = 0, end; f->scales && from < n_cols; from = end) {
            end = (uint32_t)BY_MIN(from + f->block_cols, (uint64_t)n_cols);
            float scale =
                scale_at(f->scales, r / f->block_rows * f->scale_cols + from / f->block_cols);
            for (uint32_t i = from; i < end; i++)
                dst[i] *= scale;
        }
    }
}

/* The same numbers left in 8 bits, their scale before each 32 of them. */
static void f8_block_tile(const void *ctx, uint32_t first, uint32_t n) {
    const struct f8 *f = ctx;
    const uint32_t n_cols = f->m->n_cols;
    for (uint32_t r = first; r < first + n; r++) {
        struct by_block_f8_32 *b =
            (struct by_block_f8_32 *)((uint8_t *)f->m->owned + f->m->row_bytes * r);
        for (uint32_t i = 0; i < n_cols; i += BY_QK, b++) {
            b->s = f->scales
                       ? scale_at(f->scales, r / f->block_rows * f->scale_cols + i / f->block_cols)
                       : 1;
            memcpy(b->qs, f->t->data + (size_t)r * n_cols + i, BY_QK);
        }
    }
}

/* One scale for all, one a row, or one a block of the size that the two shapes and the config agree on. */
static int f8_blocks(struct f8 *f, const struct matrix_source *s, struct by_err *err) {
    uint64_t rows, cols;
    const struct by_tensor_info *t = f->scales;
    const struct by_quant_info *q = &by_model_dir_info(s->dir)->quant;
    const uint32_t n_rows = f->m->n_rows, n_cols = f->m->n_cols;
    f->block_rows = n_rows;
    f->block_cols = n_cols;
    f->scale_cols = 1;
    if (!t || t->n_elems == 1) return 0;
    by_tensor_rows(t, &rows, &cols);
    if (t->n_elems == n_rows) {
        f->block_rows = 1;
        return 0;
    }
    uint32_t b0 = q->block[0] ? q->block[0] : 128, b1 = q->block[1] ? q->block[1] : 128;
    if (rows != BY_DIV_UP(n_rows, b0) || cols != BY_DIV_UP(n_cols, b1))
        return matrix_shape_error(t, err, "[%u, %u], a scale for each block of %u x %u",
                                  BY_DIV_UP(n_rows, b0), BY_DIV_UP(n_cols, b1), b0, b1);
    f->block_rows = b0;
    f->block_cols = b1;
    f->scale_cols = cols;
    return 0;
}

static int open_f8(struct matrix *m, const struct matrix_source *s, const struct matrix_want *w,
                   const struct by_tensor_info *t, struct by_err *err) {
    struct f8 f = {.m = m, .t = t, .scales = matrix_find(s, w->stem, ".weight_scale_inv")};
    if (!f.scales) f.scales = matrix_find(s, w->stem, ".weight_scale");
    if (t->n_dims != 2 || t->shape[0] != m->n_rows || t->shape[1] != m->n_cols || w->is_transposed)
        return matrix_shape_error(t, err, "[%u, %u]", m->n_rows, m->n_cols);
    if (f.scales && !by_dtype_is_float(f.scales->dtype))
        return by_fail(err, BY_EUNSUPPORTED, "the scales of %s are of type %s", m->name,
                       by_dtype_name(f.scales->dtype));
    int rc = f8_blocks(&f, s, err);
    bool is_kept = s->b->keeps_packed && t->dtype == BY_DTYPE_F8_E4M3 && m->n_cols % BY_QK == 0 &&
                   f.block_cols % BY_QK == 0;
    if (!rc) rc = packed_own(m, is_kept ? BY_DTYPE_F8_32 : BY_DTYPE_F32, err);
    if (!rc) packed_unpack(m, s->b, is_kept ? f8_block_tile : f8_tile, &f);
    m->t = t;
    return rc;
}

/* ---- I8 with scales ---- */

struct i8 {
    struct matrix *m;
    const struct by_tensor_info *t, *scales;
    uint32_t n_groups;
};

static void i8_tile(const void *ctx, uint32_t first, uint32_t n) {
    const struct i8 *f = ctx;
    const uint32_t n_cols = f->m->n_cols, group = n_cols / f->n_groups;
    for (uint32_t r = first; r < first + n; r++) {
        struct by_block_q8_0 *b =
            (struct by_block_q8_0 *)((uint8_t *)f->m->owned + f->m->row_bytes * r);
        for (uint32_t i = 0; i < n_cols; i += BY_QK, b++) {
            b->d = by_f32_to_f16(scale_at(f->scales, (uint64_t)r * f->n_groups + i / group));
            memcpy(b->qs, f->t->data + (size_t)r * n_cols + i, BY_QK);
        }
    }
}

static int open_i8(struct matrix *m, const struct matrix_source *s, const struct matrix_want *w,
                   const struct by_tensor_info *t, struct by_err *err) {
    struct i8 f = {.m = m, .t = t, .scales = matrix_find(s, w->stem, ".weight_scale")};
    if (t->n_dims != 2 || t->shape[0] != m->n_rows || t->shape[1] != m->n_cols || w->is_transposed)
        return matrix_shape_error(t, err, "[%u, %u]", m->n_rows, m->n_cols);
    if (!f.scales || !by_dtype_is_float(f.scales->dtype) || f.scales->n_elems % m->n_rows ||
        f.scales->n_elems == 0 || matrix_find(s, w->stem, ".weight_zero_point"))
        return by_fail(err, BY_EUNSUPPORTED,
                       "the tensor %s is of type I8 without a scale a row and no zero points",
                       m->name);
    uint64_t n_groups = f.scales->n_elems / m->n_rows;
    if (n_groups > m->n_cols || m->n_cols % n_groups || m->n_cols / n_groups % BY_QK)
        return by_fail(err, BY_EUNSUPPORTED,
                       "the tensor %s: %" PRIu64 " scales for %u columns are no groups of 32",
                       m->name, n_groups, m->n_cols);
    f.n_groups = (uint32_t)n_groups;
    int rc = packed_own(m, BY_DTYPE_Q8_0, err);
    if (!rc) packed_unpack(m, s->b, i8_tile, &f);
    m->t = t;
    return rc;
}

/* ---- MXFP4 ---- */

struct mxfp4 {
    struct matrix *m;
    const uint8_t *blocks, *scales; /* of this slice */
};

/* The file has neighbours in one byte, ggml's block elements i and i + 16. */
static void mxfp4_tile(const void *ctx, uint32_t first, uint32_t n) {
    const struct mxfp4 *f = ctx;
    const uint32_t n_blocks = f->m->n_cols / BY_QK;
    for (size_t i = (size_t)first * n_blocks; i < (size_t)(first + n) * n_blocks; i++) {
        const uint8_t *src = f->blocks + i * (BY_QK / 2);
        struct by_block_mxfp4 *b = (struct by_block_mxfp4 *)f->m->owned + i;
        b->e = f->scales[i];
        for (uint32_t k = 0; k < BY_QK / 2; k++) {
            uint8_t low = (uint8_t)(src[k / 2] >> (k % 2 * 4) & 15),
                    high = (uint8_t)(src[k / 2 + 8] >> (k % 2 * 4) & 15);
            b->qs[k] = (uint8_t)(low | high << 4);
        }
    }
}

static int open_mxfp4(struct matrix *m, const struct matrix_source *s, const struct matrix_want *w,
                      const struct by_tensor_info *blocks, struct by_err *err) {
    const struct by_tensor_info *scales = matrix_find(s, w->stem, "_scales");
    const uint32_t n = m->n_cols / BY_QK;
    if (blocks->dtype != BY_DTYPE_U8 || blocks->n_dims != 4 || blocks->shape[0] != w->n_slices ||
        blocks->shape[1] != m->n_rows || blocks->shape[2] != n || blocks->shape[3] != BY_QK / 2 ||
        m->n_cols % BY_QK)
        return matrix_shape_error(blocks, err, "[%u, %u, %u, 16] of U8", w->n_slices, m->n_rows, n);
    if (!scales) return by_fail(err, BY_ENOTFOUND, "there is no tensor %s_scales", w->stem);
    if (scales->dtype != BY_DTYPE_U8 || scales->n_elems != (uint64_t)w->n_slices * m->n_rows * n)
        return matrix_shape_error(scales, err, "[%u, %u, %u] of U8", w->n_slices, m->n_rows, n);
    size_t at = (size_t)w->slice * m->n_rows * n;
    struct mxfp4 f = {
        .m = m, .blocks = blocks->data + at * (BY_QK / 2), .scales = scales->data + at};
    int rc = packed_own(m, BY_DTYPE_MXFP4, err);
    if (!rc) packed_unpack(m, s->b, mxfp4_tile, &f);
    if (w->slice + 1 == w->n_slices) m->t = blocks;
    return rc;
}

/* ---- which is it? ---- */

int formats_open(struct matrix *m, const struct matrix_source *s, const struct matrix_want *w,
                 const struct by_tensor_info *t, bool *is_packed, struct by_err *err) {
    *is_packed = true;
    if (t && (t->dtype == BY_DTYPE_F8_E4M3 || t->dtype == BY_DTYPE_F8_E5M2))
        return open_f8(m, s, w, t, err);
    if (t && t->dtype == BY_DTYPE_I8) return open_i8(m, s, w, t, err);
    *is_packed = false;
    if (t) return 0;
    const struct by_tensor_info *blocks = matrix_find(s, w->stem, "_blocks");
    *is_packed = true;
    if (blocks) return open_mxfp4(m, s, w, blocks, err);
    return packed_open(m, s, w, is_packed, err);
}
