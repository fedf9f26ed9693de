/* matrix.h - a tensor of the file, or a slice of one, as rows of a type that a backend can pack.
 *
 *     [n_out, n_in]               as it lies in the file
 *     [n_in, n_out]               turned first (GPT-2's Conv1D, gpt-oss)
 *     [n_slices, n_out, n_in]     one expert of many
 *     AWQ, GPTQ, F8, MXFP4 …      unpacked first, into a type that holds every value exactly (formats.h)
 *
 * Always: the shape is what the config says, or opening fails with both. What was unpacked lives until matrix_close; a
 * file's pages are given back then.
 * Owner: weights.c, for as long as one weight is packed; rows are read from several threads. */
#ifndef GPU_WORKER_MODELS_MATRIX_H
#define GPU_WORKER_MODELS_MATRIX_H

#include "common/modelfile/model_dir.h"
#include "gpu_worker/backend.h"

enum { MATRIX_NAME_MAX = 256 };

struct matrix {
    char name[MATRIX_NAME_MAX]; /* as in the file, for errors */
    enum by_dtype dtype;
    uint32_t n_rows, n_cols;
    size_t row_bytes;
    const uint8_t *rows;
    void *owned;                    /* an unpacked copy, or NULL */
    const struct by_tensor_info *t; /* whose pages are given back; NULL: nobody's */
    bool keep_pages;
};

struct matrix_source {
    const struct by_model_dir *dir;
    struct backend *b;                                       /* its lanes unpack */
    void (*seen)(void *ctx, const struct by_tensor_info *t); /* each tensor that is used */
    void *ctx;
};

struct matrix_want {
    const char *stem; /* name without ".weight" */
    uint32_t n_rows, n_cols;
    uint32_t slice, n_slices; /* n_slices 0: the tensor has two dimensions */
    bool is_transposed;
    bool is_optional; /* a missing tensor gives rows == NULL */
};

BY_MUST_USE int matrix_open(struct matrix *m, const struct matrix_source *s,
                            const struct matrix_want *w, struct by_err *err);
void matrix_close(struct matrix *m);
/* What the formats without rows of their own are turned into; frees nothing of m. */
const struct by_tensor_info *matrix_find(const struct matrix_source *s, const char *stem,
                                         const char *suffix);
BY_MUST_USE int matrix_shape_error(const struct by_tensor_info *t, struct by_err *err,
                                   const char *want, ...);

/* Has every number of this row a finite value? */
bool matrix_row_is_finite(enum by_dtype t, const uint8_t *row, size_t n_bytes);

#endif
