/* tensor_info.h - one tensor as its file describes it. Both readers (gguf, safetensors) hand out this struct.
 *
 *     shape   row-major: shape[n_dims - 1] runs fastest      [n_out, n_in] for a linear layer in both formats
 *     GGUF writes the dimensions the other way round; the reader turns them.
 *
 * Always: n_bytes is exactly what dtype and shape need, and lies inside the mapping; no product overflows;
 * rows are whole blocks. An empty tensor (a dimension of 0) has n_elems and n_bytes 0.
 * Owner: the reader; name and data are borrowed until it closes. */
#ifndef COMMON_MODELFILE_TENSOR_INFO_H
#define COMMON_MODELFILE_TENSOR_INFO_H

#include "common/base/str.h"
#include "common/modelfile/dtype.h"

enum {
    BY_TENSOR_DIMS_MAX = 8,
    BY_TENSOR_NAME_MAX = 1024, /* bytes */
    BY_TENSORS_MAX = 1 << 20,  /* tensors of a model, all shards together */
};

struct by_tensor_info {
    struct by_str name;
    enum by_dtype dtype;
    uint32_t n_dims;                    /* 0 for a scalar */
    uint64_t shape[BY_TENSOR_DIMS_MAX]; /* row-major */
    uint64_t n_elems;
    const uint8_t *data; /* may be unaligned: read with memcpy or by_dtype_to_f32 */
    size_t n_bytes;
};

/* "[128, 64]" into out; returns out. */
const char *by_tensor_shape_show(const struct by_tensor_info *t, char *out, size_t cap);
/* A two-dimensional view of t: n_rows rows of n_cols (the last dimension). A scalar is 1 x 1, a vector 1 x n. */
void by_tensor_rows(const struct by_tensor_info *t, uint64_t *n_rows, uint64_t *n_cols);
/* Row `row` of that view as f32 (n_cols of them). The dtype must have an f32 reading. */
void by_tensor_row_f32(const struct by_tensor_info *t, uint64_t row, float *out);
/* Fills n_elems and n_bytes from dtype and shape; false when a product overflows or rows are not whole blocks. */
BY_MUST_USE bool by_tensor_measure(struct by_tensor_info *t);

#endif
