#include "common/modelfile/tensor_info.h"

#include "common/base/check.h"

#include <inttypes.h>
#include <stdio.h>

const char *by_tensor_shape_show(const struct by_tensor_info *t, char *out, size_t cap) {
    size_t n = 0;
    by_assert(cap > 2);
    for (uint32_t i = 0; i < t->n_dims && n + 1 < cap; i++) {
        n += (size_t)snprintf(out + n, cap - n, "%s%" PRIu64, i ? ", " : "[", t->shape[i]);
    }
    if (n + 1 >= cap) n = cap - 2;
    snprintf(out + n, cap - n, "%s", t->n_dims ? "]" : "[]");
    return out;
}

void by_tensor_rows(const struct by_tensor_info *t, uint64_t *n_rows, uint64_t *n_cols) {
    *n_cols = t->n_dims ? t->shape[t->n_dims - 1] : 1;
    *n_rows = *n_cols ? t->n_elems / *n_cols : 0;
}

void by_tensor_row_f32(const struct by_tensor_info *t, uint64_t row, float *out) {
    uint64_t n_rows, n_cols;
    size_t row_bytes;
    by_tensor_rows(t, &n_rows, &n_cols);
    by_assert(row < n_rows);
    bool is_whole = by_dtype_row_bytes(t->dtype, n_cols, &row_bytes);
    by_assert(is_whole);
    by_dtype_to_f32(t->dtype, t->data + row * row_bytes, out, n_cols);
}

bool by_tensor_measure(struct by_tensor_info *t) {
    uint64_t n_cols = t->n_dims ? t->shape[t->n_dims - 1] : 1;
    size_t row_bytes;
    t->n_elems = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (__builtin_mul_overflow(t->n_elems, t->shape[i], &t->n_elems)) return false;
    }
    if (!by_dtype_row_bytes(t->dtype, n_cols, &row_bytes)) return false;
    if (n_cols == 0) {
        t->n_bytes = 0;
        return true;
    }
    return !__builtin_mul_overflow(row_bytes, t->n_elems / n_cols, &t->n_bytes);
}
