/* arena.h - memory that dies together: one per request, one per step.
 *
 *     block 0 [######   ] -> block 1 [###      ] -> …        by_arena_clear leaves one block, as large as all of them
 *
 * Always: 16-byte alignment; nothing is freed alone; after clear() a steady user of up to 1 MiB allocates nothing.
 * Owner: one thread. */
#ifndef COMMON_BASE_ARENA_H
#define COMMON_BASE_ARENA_H

#include "common/base/str.h"

struct by_arena_block;
struct by_arena {
    struct by_arena_block *first, *last;
    size_t n_bytes; /* handed out since the last clear */
    /* ceiling; 0 means none. by_arena_try returns NULL past it, by_arena_get ends the process */
    size_t max;
};

void by_arena_init(struct by_arena *a, size_t max);
void by_arena_release(struct by_arena *a);
void by_arena_clear(struct by_arena *a);
BY_MUST_USE void *by_arena_get(struct by_arena *a, size_t n); /* zeroed, never NULL */
BY_MUST_USE void *by_arena_get_array(struct by_arena *a, size_t n, size_t each);
/* zeroed; NULL past the ceiling */
BY_MUST_USE void *by_arena_try(struct by_arena *a, size_t n);
/* the same, but as it comes: for who writes every byte at once */
BY_MUST_USE void *by_arena_try_raw(struct by_arena *a, size_t n);
/* a NUL follows the copy */
BY_MUST_USE struct by_str by_arena_copy(struct by_arena *a, struct by_str s);

#endif
