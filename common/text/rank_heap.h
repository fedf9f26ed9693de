/* rank_heap.h - a binary heap of numbers, the least on top: what bpe.c merges next.
 *
 *     key:   3 7 4 9 8        children of key[i] are key[2 i + 1] and key[2 i + 2]
 *
 * Always: no key is less than its parent, once ordered.
 * Owner: bpe.c, whose innermost loop it is; only bpe_parts.h includes this. by_free(key) ends it. */
#ifndef COMMON_TEXT_RANK_HEAP_H
#define COMMON_TEXT_RANK_HEAP_H

#include "common/base/mem.h"

struct by_rank_heap {
    uint64_t *key; /* [cap] */
    size_t n, cap;
};

static inline void by_rank_heap_reserve(struct by_rank_heap *h, size_t n) {
    if (n <= h->cap) return;
    h->cap = BY_MAX(h->cap * 2, BY_MAX(n, (size_t)256));
    h->key = by_realloc_array(h->key, h->cap, sizeof *h->key);
}

static inline void by_rank_heap_sink(struct by_rank_heap *h, size_t i, uint64_t key) {
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->n) break;
        if (child + 1 < h->n && h->key[child + 1] < h->key[child]) child++;
        if (key <= h->key[child]) break;
        h->key[i] = h->key[child];
        i = child;
    }
    h->key[i] = key;
}

/* Keys that were put down in any order. */
static inline void by_rank_heap_order(struct by_rank_heap *h) {
    for (size_t i = h->n / 2; i-- > 0;)
        by_rank_heap_sink(h, i, h->key[i]);
}

static inline void by_rank_heap_push(struct by_rank_heap *h, uint64_t key) {
    by_rank_heap_reserve(h, h->n + 1);
    size_t i = h->n++;
    while (i > 0 && key < h->key[(i - 1) / 2]) {
        h->key[i] = h->key[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h->key[i] = key;
}

static inline uint64_t by_rank_heap_pop(struct by_rank_heap *h) {
    uint64_t top = h->key[0], last = h->key[--h->n];
    if (h->n) by_rank_heap_sink(h, 0, last);
    return top;
}

#endif
