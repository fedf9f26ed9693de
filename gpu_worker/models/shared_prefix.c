#include "gpu_worker/models/shared_prefix.h"

#include <string.h>

/* Whole pages in front of the row. */
static uint32_t n_whole(const struct seq_rows *s, uint32_t page_size) {
    return s->position / page_size;
}

/* By page numbers, the shorter first; any order that keeps equal beginnings together would do. */
static bool is_after(const struct seq_rows *a, const struct seq_rows *b, uint32_t page_size) {
    uint32_t na = n_whole(a, page_size), nb = n_whole(b, page_size);
    int diff = memcmp(a->pages, b->pages, BY_MIN(na, nb) * sizeof *a->pages);
    return diff ? diff > 0 : na > nb;
}

static uint32_t common_tokens(const struct seq_rows *a, const struct seq_rows *b,
                              uint32_t page_size) {
    uint32_t n = BY_MIN(n_whole(a, page_size), n_whole(b, page_size)), i = 0;
    while (i < n && a->pages[i] == b->pages[i])
        i++;
    return i * page_size;
}

/* Shell's sort: nothing is allocated, which qsort may do. */
static void sort(const struct seq_rows *seqs, uint32_t page_size, uint32_t *order, uint32_t n) {
    uint32_t gap = 1;
    while (gap < n / 3)
        gap = gap * 3 + 1;
    for (; gap; gap /= 3) {
        for (uint32_t i = gap; i < n; i++) {
            uint32_t one = order[i], at = i;
            for (; at >= gap && is_after(&seqs[order[at - gap]], &seqs[one], page_size); at -= gap)
                order[at] = order[at - gap];
            order[at] = one;
        }
    }
}

uint32_t shared_prefix_find(const struct seq_rows *seqs, uint32_t n_seqs, uint32_t page_size,
                            uint32_t *order, uint32_t *common) {
    uint32_t n = 0;
    for (uint32_t s = 0; s < n_seqs; s++) {
        if (seqs[s].n == 1) order[n++] = s;
    }
    sort(seqs, page_size, order, n);
    for (uint32_t i = 0; i < n; i++)
        common[i] = i ? common_tokens(&seqs[order[i - 1]], &seqs[order[i]], page_size) : 0;
    return n;
}
