#include "common/base/arena.h"

#include "common/base/check.h"
#include "common/base/mem.h"

enum { BLOCK_BYTES = 16 * 1024, BLOCK_MAX = 1 << 20, ALIGN = 16 };

struct by_arena_block {
    struct by_arena_block *next;
    size_t n, cap;
};

static_assert(sizeof(struct by_arena_block) <= 2 * ALIGN, "the bytes start 32 behind the block");
enum { HEAD = 2 * ALIGN };

void by_arena_init(struct by_arena *a, size_t max) {
    *a = (struct by_arena){.max = max};
}

static void free_from(struct by_arena_block *b) {
    while (b) {
        struct by_arena_block *next = b->next;
        by_free(b);
        b = next;
    }
}

void by_arena_release(struct by_arena *a) {
    free_from(a->first);
    *a = (struct by_arena){.max = a->max};
}

static bool add_block(struct by_arena *a, size_t n) {
    size_t cap =
        BY_MAX(n, a->last ? BY_MIN(a->last->cap * 2, (size_t)BLOCK_MAX) : (size_t)BLOCK_BYTES);
    struct by_arena_block *b = by_try_alloc(HEAD + cap);
    if (!b) return false;
    *b = (struct by_arena_block){.cap = cap};
    if (a->last)
        a->last->next = b;
    else
        a->first = b;
    a->last = b;
    return true;
}

/* Several blocks become one that holds as much: the next round finds room without asking for it. */
void by_arena_clear(struct by_arena *a) {
    size_t all = 0;
    for (struct by_arena_block *b = a->first; b; b = b->next)
        all += b->cap;
    all = BY_MIN(all, (size_t)BLOCK_MAX);
    if (a->first && a->first->next && all > a->first->cap) {
        free_from(a->first);
        a->first = a->last = NULL;
        (void)!add_block(a, all); /* without it the next round asks again */
    } else if (a->first) {
        free_from(a->first->next);
        a->first->next = NULL;
        a->first->n = 0;
    }
    a->last = a->first;
    a->n_bytes = 0;
}

void *by_arena_try_raw(struct by_arena *a, size_t n) {
    if (n > SIZE_MAX / 4) return NULL;
    n = BY_ALIGN_UP(n ? n : 1, (size_t)ALIGN);
    if (a->max && n > a->max - BY_MIN(a->n_bytes, a->max)) return NULL;
    if (!a->last || n > a->last->cap - a->last->n) {
        if (!add_block(a, n)) return NULL;
    }
    void *p = (char *)a->last + HEAD + a->last->n;
    a->last->n += n;
    a->n_bytes += n;
    return p;
}

void *by_arena_try(struct by_arena *a, size_t n) {
    void *p = by_arena_try_raw(a, n);
    return p ? memset(p, 0, n) : NULL;
}

void *by_arena_get(struct by_arena *a, size_t n) {
    void *p = by_arena_try(a, n);
    if (!p) by_die("out of memory: an arena of %zu bytes cannot give %zu more", a->n_bytes, n);
    return p;
}

void *by_arena_get_array(struct by_arena *a, size_t n, size_t each) {
    size_t all;
    if (__builtin_mul_overflow(n, each, &all)) by_die("out of memory: %zu x %zu bytes", n, each);
    return by_arena_get(a, all);
}

struct by_str by_arena_copy(struct by_arena *a, struct by_str s) {
    char *p = by_arena_get(a, s.n + 1);
    if (s.n) memcpy(p, s.p, s.n);
    return (struct by_str){p, s.n};
}
