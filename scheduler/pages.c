#include "scheduler/pages.h"

#include "common/base/check.h"
#include "common/base/mem.h"

struct pages {
    uint32_t n, n_free;
    uint32_t *stack; /* [n_free] free page numbers, the next one to hand out last */
    uint32_t *refs;  /* [n] */
};

struct pages *pages_new(uint32_t n_pages) {
    struct pages *p = by_alloc(sizeof *p);
    p->n = p->n_free = n_pages;
    p->stack = by_alloc_array((size_t)n_pages + 1, sizeof *p->stack); /* one is written beyond */
    p->refs = by_alloc_array(n_pages, sizeof *p->refs);
    for (uint32_t i = 0; i < n_pages; i++)
        /* low numbers first: a small load stays in few memory pages */
        p->stack[i] = n_pages - 1 - i;
    return p;
}

void pages_free(struct pages *p) {
    if (!p) return;
    by_free(p->refs);
    by_free(p->stack);
    by_free(p);
}

/* These three run over every token at page size 1. Counters are kept in locals: refs and stack might alias them. */
bool pages_take(struct pages *p, uint32_t n, uint32_t *out) {
    if (n > p->n_free) return false;
    const uint32_t *top = p->stack + p->n_free;
    uint32_t *refs = p->refs;
    for (uint32_t i = 0; i < n; i++) {
        out[i] = *--top;
        refs[out[i]] = 1;
    }
    p->n_free -= n;
    return true;
}

void pages_share(struct pages *p, const uint32_t *ids, uint32_t n) {
    uint32_t *refs = p->refs, n_pages = p->n;
    for (uint32_t i = 0; i < n; i++) {
        by_assert(ids[i] < n_pages);
        by_assert(refs[ids[i]] > 0);
        refs[ids[i]]++;
    }
}

void pages_give(struct pages *p, const uint32_t *ids, uint32_t n) {
    uint32_t *refs = p->refs, *stack = p->stack, n_free = p->n_free, n_pages = p->n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = ids[i];
        by_assert(id < n_pages);
        by_assert(refs[id] > 0);
        /* written always, kept when it was the last ref: there is room for every page */
        stack[n_free] = id;
        n_free += --refs[id] == 0;
    }
    p->n_free = n_free;
}

uint32_t pages_n(const struct pages *p) {
    return p->n;
}

uint32_t pages_n_free(const struct pages *p) {
    return p->n_free;
}

uint32_t pages_refs(const struct pages *p, uint32_t id) {
    by_assert(id < p->n);
    return p->refs[id];
}

bool pages_check(const struct pages *p) {
    if (p->n_free > p->n) return false;
    uint32_t n_unused = 0;
    for (uint32_t i = 0; i < p->n; i++)
        n_unused += p->refs[i] == 0;
    if (n_unused != p->n_free) return false;
    /* All on the stack are unused, and n_unused of them are distinct: so each unused page is there once. */
    uint8_t *seen = by_alloc(p->n);
    bool ok = true;
    for (uint32_t i = 0; i < p->n_free && ok; i++) {
        uint32_t id = p->stack[i];
        ok = id < p->n && p->refs[id] == 0 && !seen[id];
        if (ok) seen[id] = 1;
    }
    by_free(seen);
    return ok;
}
