/* What kernels must know of a step: for each row its place and what it sees, and the pages. */
#include "gpu_worker/cuda/cuda.h"

#include <string.h>

struct cuda_kv cuda_kv_of(const struct kv_shape *s) {
    static const uint8_t bytes[] = {
        [KV_F32] = 4, [KV_BF16] = 2, [KV_F16] = 2, [KV_INT8] = 1, [KV_FP8] = 1};
    uint32_t each = bytes[s->dtype], n_kinds = s->v_in_k ? 1 : 2;
    struct cuda_kv y = {.k_pad = BY_ALIGN_UP(s->k_dim, 8u), .v_pad = BY_ALIGN_UP(s->v_dim, 8u)};
    y.k_step = y.k_pad * each;
    y.v_step = s->v_in_k ? y.k_step : y.v_pad * each;
    y.v_at = s->v_in_k ? 0 : (uint64_t)s->page_size * y.k_step;
    y.v_scale = s->v_in_k ? 0 : s->page_size;
    y.scale_at = y.v_at + (uint64_t)s->page_size * y.v_step;
    y.head_bytes = y.scale_at;
    if (CUDA_KV_IS_SCALED(s->dtype)) y.head_bytes += n_kinds * s->page_size * sizeof(float);
    y.head_bytes = BY_ALIGN_UP(y.head_bytes, (uint64_t)16);
    y.page_bytes = y.head_bytes * s->n_kv_heads;
    return y;
}

static uint32_t pages_of(const struct seq_rows *s, uint32_t page_size) {
    return BY_DIV_UP(s->position + s->n, page_size);
}

const struct cuda_row *cuda_rows(struct cuda *c, const struct seq_rows *seqs, uint32_t n_seqs,
                                 uint32_t page_size, bool is_full, const uint32_t **pages) {
    uint32_t n_rows = 0, n_pages = 0;
    const void *device_rows, *device_pages;
    bool new_rows, new_pages;
    for (uint32_t i = 0; i < n_seqs; i++) {
        n_rows = seqs[i].first + seqs[i].n;
        n_pages += pages_of(&seqs[i], page_size);
    }
    struct cuda_row *rows = queue_room(c->queue, seqs, is_full ? CUDA_ROOM_FULL : CUDA_ROOM_ROWS,
                                       n_rows * sizeof *rows, &device_rows, &new_rows);
    uint32_t *list = queue_room(c->queue, seqs, CUDA_ROOM_PAGES, n_pages * sizeof *list,
                                &device_pages, &new_pages);
    n_pages = 0;
    for (uint32_t i = 0; i < n_seqs && (new_rows || new_pages); i++) {
        const struct seq_rows *s = &seqs[i];
        for (uint32_t k = 0; k < s->n && new_rows; k++)
            rows[s->first + k] = (struct cuda_row){.position = s->position + k,
                                                   .end = s->position + (is_full ? s->n : k + 1),
                                                   .first_page = n_pages};
        uint32_t n = pages_of(s, page_size);
        if (new_pages) memcpy(list + n_pages, s->pages, n * sizeof *list);
        n_pages += n;
    }
    *pages = device_pages;
    return device_rows;
}
