/* stack.h - one weight out of rows of several matrices: q, k and v, or gate and up.
 *
 *     [q rows | k rows | v rows]      row r of a part is row  r / run * stride + r % run + offset  of its matrix,
 *                                     which takes them out of one tensor however their rows are mixed
 *
 * Always: all rows come out in one type; a row that holds a NaN or an infinity is noted, not hidden.
 * Owner: bind.c, while one weight is packed; stack_row is called by several threads at once. */
#ifndef GPU_WORKER_MODELS_STACK_H
#define GPU_WORKER_MODELS_STACK_H

#include "gpu_worker/models/matrix.h"

#include <stdatomic.h>

enum { STACK_PARTS_MAX = 4 };

struct stack_part {
    const struct matrix *m;
    uint32_t n;                   /* rows */
    uint32_t run, stride, offset; /* run 0: r + offset */
};

/* Rows of up to four parts, one after the other, all of one type. */
struct stack {
    struct stack_part parts[STACK_PARTS_MAX];
    uint32_t n_parts;
    /* of what is given out; another than a part's own is converted through f32 */
    enum by_dtype dtype;
    uint32_t n_cols;
    uint32_t col_first; /* columns col_first … col_first + n_cols - 1 of every part: whole blocks */
    atomic_uint bad; /* 1 + the part in which a row with a NaN or an infinity was seen; 0: none */
};
/* For weight_source.row; ctx is the stack. */
void stack_row(const void *ctx, uint32_t out, void *bytes);

#endif
