/* ids.h - a growing list of token ids with a mandatory ceiling, in the manner of buf.h.
 *
 *     struct by_ids ids;  by_ids_init(&ids, LIMIT);  …  if (ids.is_full) "too long";
 *
 * Always: n <= max; an id that does not fit sets is_full and is dropped, and the caller asks once at the end.
 * Owner: the caller; init/release. */
#ifndef COMMON_TEXT_IDS_H
#define COMMON_TEXT_IDS_H

#include "common/base/mem.h"

struct by_ids {
    uint32_t *p;
    size_t n, cap, max;
    bool is_full;
};

static inline void by_ids_init(struct by_ids *ids, size_t max) {
    *ids = (struct by_ids){.max = max};
}

static inline void by_ids_release(struct by_ids *ids) {
    by_free(ids->p);
    *ids = (struct by_ids){.max = ids->max};
}

static inline void by_ids_clear(struct by_ids *ids) {
    ids->n = 0;
    ids->is_full = false;
}

static inline bool by_ids_grow(struct by_ids *ids, size_t more) {
    if (more > ids->max - ids->n) {
        ids->is_full = true;
        return false;
    }
    size_t cap = BY_MAX(ids->cap * 2, BY_MAX(ids->n + more, (size_t)64));
    ids->cap = BY_MIN(cap, ids->max);
    ids->p = by_realloc_array(ids->p, ids->cap, sizeof(uint32_t));
    return true;
}

static inline void by_ids_add(struct by_ids *ids, uint32_t id) {
    if (BY_UNLIKELY(ids->n == ids->cap) && !by_ids_grow(ids, 1)) return;
    ids->p[ids->n++] = id;
}

#endif
