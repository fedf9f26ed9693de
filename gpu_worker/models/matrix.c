#include "gpu_worker/models/matrix.h"

#include "common/base/mem.h"
#include "gpu_worker/models/formats.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { TILE = 32 };

const struct by_tensor_info *matrix_find(const struct matrix_source *s, const char *stem,
                                         const char *suffix) {
    char name[MATRIX_NAME_MAX];
    int n = snprintf(name, sizeof name, "%s%s", stem, suffix);
    if (n < 0 || (size_t)n >= sizeof name) return NULL;
    const struct by_tensor_info *t = by_model_dir_find(s->dir, name);
    if (t && s->seen) s->seen(s->ctx, t);
    return t;
}

int matrix_shape_error(const struct by_tensor_info *t, struct by_err *err, const char *want, ...) {
    char shape[128], wanted[128];
    va_list args;
    va_start(args, want);
    vsnprintf(wanted, sizeof wanted, want, args);
    va_end(args);
    return by_fail(err, BY_EINVAL,
                   "the tensor %.*s has the shape %s; by the config it should be %s",
                   (int)BY_MIN(t->name.n, (size_t)200), t->name.p,
                   by_tensor_shape_show(t, shape, sizeof shape), wanted);
}

static int check_shape(const struct by_tensor_info *t, const struct matrix_want *w,
                       struct by_err *err) {
    uint64_t rows = w->is_transposed ? w->n_cols : w->n_rows,
             cols = w->is_transposed ? w->n_rows : w->n_cols;
    uint32_t at = w->n_slices ? 1 : 0;
    bool fits = t->n_dims == 2 + at && t->shape[at] == rows && t->shape[at + 1] == cols &&
                (!at || t->shape[0] == w->n_slices);
    if (!at && t->n_dims == 1 && rows == 1 && t->shape[0] == cols) fits = true;
    if (fits) return 0;
    if (at)
        return matrix_shape_error(t, err, "[%u, %" PRIu64 ", %" PRIu64 "]", w->n_slices, rows,
                                  cols);
    return matrix_shape_error(t, err, "[%" PRIu64 ", %" PRIu64 "]", rows, cols);
}

/* dst[c][r] = src[r][c], element by element, tile by tile: both sides stay in cache. */
static void transpose(const uint8_t *src, uint8_t *dst, uint32_t n_rows, uint32_t n_cols,
                      size_t each) {
    for (uint32_t r0 = 0; r0 < n_rows; r0 += TILE) {
        for (uint32_t c0 = 0; c0 < n_cols; c0 += TILE) {
            for (uint32_t c = c0; c < BY_MIN(c0 + TILE, n_cols); c++) {
                for (uint32_t r = r0; r < BY_MIN(r0 + TILE, n_rows); r++)
                    memcpy(dst + ((size_t)c * n_rows + r) * each,
                           src + ((size_t)r * n_cols + c) * each, each);
            }
        }
    }
}

static int open_plain(struct matrix *m, const struct by_tensor_info *t, const struct matrix_want *w,
                      struct by_err *err) {
    int rc = check_shape(t, w, err);
    if (rc) return rc;
    bool is_readable = by_dtype_is_quantised(t->dtype) || t->dtype == BY_DTYPE_F32 ||
                       t->dtype == BY_DTYPE_F16 || t->dtype == BY_DTYPE_BF16;
    if (!is_readable || (w->is_transposed && by_dtype_is_quantised(t->dtype)))
        return by_fail(err, BY_EUNSUPPORTED,
                       "the tensor %s is of type %s, which is not supported%s", m->name,
                       by_dtype_name(t->dtype), w->is_transposed ? " for this family" : "");
    m->dtype = t->dtype;
    if (!by_dtype_row_bytes(t->dtype, w->n_cols, &m->row_bytes))
        return by_fail(err, BY_EINVAL, "the tensor %s: rows of %u are no whole blocks of %s",
                       m->name, w->n_cols, by_dtype_name(t->dtype));
    size_t bytes = m->row_bytes * w->n_rows;
    m->rows = t->data + bytes * w->slice;
    m->t = t;
    if (!w->is_transposed) return 0;
    m->owned = by_try_alloc(bytes);
    if (!m->owned) return by_fail(err, BY_ENOMEM, "%s: no memory for %zu bytes", m->name, bytes);
    transpose(m->rows, m->owned, w->n_cols, w->n_rows, by_dtype_block_bytes(t->dtype));
    m->rows = m->owned;
    return 0;
}

int matrix_open(struct matrix *m, const struct matrix_source *s, const struct matrix_want *w,
                struct by_err *err) {
    *m = (struct matrix){.n_rows = w->n_rows, .n_cols = w->n_cols};
    const struct by_tensor_info *t = matrix_find(s, w->stem, ".weight");
    if (!t) t = matrix_find(s, w->stem, "");
    snprintf(m->name, sizeof m->name, "%.*s", t ? (int)t->name.n : (int)strlen(w->stem),
             t ? t->name.p : w->stem);
    bool is_packed = false;
    int rc = formats_open(m, s, w, t, &is_packed, err);
    if (rc || is_packed) return rc;
    if (t) return open_plain(m, t, w, err);
    if (w->is_optional) return 0;
    return by_fail(err, BY_ENOTFOUND, "there is no tensor %s.weight", w->stem);
}

/* The file's pages of a tensor are not needed once it is packed: two copies of a model would not fit. */
static void drop_pages(const struct by_tensor_info *t) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = BY_ALIGN_UP((uintptr_t)t->data, page),
              to = ((uintptr_t)t->data + t->n_bytes) / page * page;
    if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
}

void matrix_close(struct matrix *m) {
    by_free(m->owned);
    if (m->t && !m->keep_pages) drop_pages(m->t);
    *m = (struct matrix){0};
}

/* ---- finite? ---- */

/* f16 and bf16 numbers at `at` of blocks of `step` bytes: an exponent of all ones is no number. */
static bool scales_are_finite(const uint8_t *row, size_t n_bytes, size_t step, size_t at,
                              uint16_t exponent) {
    uint16_t v, worst = 0;
    for (size_t i = at; i + 1 < n_bytes; i += step) {
        memcpy(&v, row + i, 2);
        worst |= (v & exponent) == exponent;
    }
    return !worst;
}

static bool f32_are_finite(const uint8_t *row, size_t n_bytes) {
    uint32_t v, worst = 0;
    for (size_t i = 0; i + 3 < n_bytes; i += 4) {
        memcpy(&v, row + i, 4);
        worst |= (v & 0x7f800000u) == 0x7f800000u;
    }
    return !worst;
}

/* Exponents: 255 is NaN, and six times 2^126 more than an f32 holds. */
static bool mxfp4_are_finite(const uint8_t *row, size_t n_bytes, size_t step) {
    uint8_t worst = 0;
    for (size_t i = 0; i < n_bytes; i += step)
        worst |= row[i] > 252;
    return !worst;
}

/* Scales and numbers: 0x7f and 0xff are NaN. */
static bool f8_are_finite(const uint8_t *row, size_t n_bytes) {
    struct by_block_f8_32 b;
    uint8_t worst = 0;
    for (size_t i = 0; i + sizeof b <= n_bytes; i += sizeof b) {
        memcpy(&b, row + i, sizeof b);
        worst |= (by_f32_bits(b.s) & 0x7f800000u) == 0x7f800000u;
        for (uint32_t k = 0; k < BY_QK; k++)
            worst |= (b.qs[k] & 0x7f) == 0x7f;
    }
    return !worst;
}

/* Its scale lies in the high halves of four bytes; the exponent in those of two (super_iq.c). */
static bool iq1_m_are_finite(const uint8_t *row, size_t n_bytes, size_t step) {
    uint8_t worst = 0;
    for (size_t i = 0; i < n_bytes; i += step)
        worst |= (row[i + 53] & 0xc0) == 0xc0 && (row[i + 55] & 0x70) == 0x70;
    return !worst;
}

bool matrix_row_is_finite(enum by_dtype t, const uint8_t *row, size_t n) {
    size_t step = by_dtype_block_bytes(t);
    const uint16_t half = 0x7c00;
    switch (t) {
    case BY_DTYPE_F32:
        return f32_are_finite(row, n);
    case BY_DTYPE_BF16:
        return scales_are_finite(row, n, step, 0, 0x7f80);
    case BY_DTYPE_MXFP4:
        return mxfp4_are_finite(row, n, step);
    case BY_DTYPE_F8_32:
        return f8_are_finite(row, n);
    case BY_DTYPE_IQ1_M:
        return iq1_m_are_finite(row, n, step);
    case BY_DTYPE_Q4_1:
    case BY_DTYPE_Q5_1:
    case BY_DTYPE_Q4_K:
    case BY_DTYPE_Q5_K:
        return scales_are_finite(row, n, step, 0, half) && scales_are_finite(row, n, step, 2, half);
    case BY_DTYPE_Q2_K:
        return scales_are_finite(row, n, step, step - 4, half) &&
               scales_are_finite(row, n, step, step - 2, half);
    case BY_DTYPE_Q3_K:
    case BY_DTYPE_Q6_K:
    case BY_DTYPE_TQ1_0:
    case BY_DTYPE_TQ2_0:
        return scales_are_finite(row, n, step, step - 2, half);
    default: /* F16 and blocks that begin with their scale */
        return scales_are_finite(row, n, step, 0, half);
    }
}
