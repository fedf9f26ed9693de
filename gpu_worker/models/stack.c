#include "gpu_worker/models/stack.h"

#include "common/base/check.h"

#include <string.h>

enum { PIECE = 256 /* elements converted at a time: a multiple of every block */ };

static void convert(enum by_dtype from, enum by_dtype to, const uint8_t *src, uint8_t *dst,
                    uint32_t n) {
    float piece[PIECE];
    for (uint32_t i = 0; i < n; i += PIECE) {
        uint32_t k = BY_MIN(n - i, (uint32_t)PIECE);
        by_dtype_to_f32(from, src + i / by_dtype_block_len(from) * by_dtype_block_bytes(from),
                        piece, k);
        bool is_ok = by_dtype_from_f32(
            to, piece, dst + i / by_dtype_block_len(to) * by_dtype_block_bytes(to), k);
        by_assert(is_ok);
    }
}

void stack_row(const void *ctx, uint32_t out, void *bytes) {
    /* The source is const for the backend; what it finds wrong is ours to note. */
    struct stack *s = (struct stack *)(uintptr_t)ctx;
    uint32_t i = 0, r = out;
    while (i + 1 < s->n_parts && r >= s->parts[i].n)
        r -= s->parts[i++].n;
    const struct stack_part *p = &s->parts[i];
    by_assert(r < p->n);
    uint32_t row = p->run ? r / p->run * p->stride + r % p->run + p->offset : r + p->offset;
    by_assert(row < p->m->n_rows);
    const uint8_t *src = p->m->rows + p->m->row_bytes * row;
    enum by_dtype from = p->m->dtype;
    src += s->col_first / by_dtype_block_len(from) * by_dtype_block_bytes(from);
    size_t n_bytes = s->n_cols / by_dtype_block_len(from) * by_dtype_block_bytes(from);
    if (!matrix_row_is_finite(from, src, n_bytes)) atomic_store(&s->bad, i + 1);
    if (from == s->dtype)
        memcpy(bytes, src, n_bytes);
    else
        convert(from, s->dtype, src, bytes, s->n_cols);
}
