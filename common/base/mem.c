#include "common/base/mem.h"

#include "common/base/check.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_uint_fast64_t n_allocs, n_frees;

static void *counted(void *p) {
    if (p) atomic_fetch_add_explicit(&n_allocs, 1, memory_order_relaxed);
    return p;
}

static void *or_die(void *p, size_t n) {
    if (!p) by_die("out of memory: %zu bytes could not be had", n);
    return p;
}

static size_t product(size_t n, size_t each) {
    size_t all;
    if (__builtin_mul_overflow(n, each, &all)) by_die("out of memory: %zu x %zu bytes", n, each);
    return all;
}

void *by_alloc(size_t n) {
    return or_die(counted(calloc(1, n ? n : 1)), n);
}

void *by_alloc_array(size_t n, size_t each) {
    return by_alloc(product(n, each));
}

void *by_try_alloc(size_t n) {
    return counted(malloc(n ? n : 1));
}

void *by_realloc(void *p, size_t n) {
    void *q = or_die(realloc(p, n ? n : 1), n);
    return p ? q : counted(q);
}

void *by_realloc_array(void *p, size_t n, size_t each) {
    return by_realloc(p, product(n, each));
}

void *by_try_alloc_aligned(size_t align, size_t n) {
    return counted(aligned_alloc(align, BY_ALIGN_UP(n ? n : 1, align)));
}

void *by_memdup(const void *p, size_t n) {
    void *q = by_alloc(n);
    if (n) memcpy(q, p, n);
    return q;
}

char *by_strndup(const char *s, size_t n) {
    char *q = by_alloc(n + 1);
    if (n) memcpy(q, s, n);
    return q;
}

char *by_strdup(const char *s) {
    return s ? by_strndup(s, strlen(s)) : NULL;
}

void by_free(void *p) {
    if (!p) return;
    atomic_fetch_add_explicit(&n_frees, 1, memory_order_relaxed);
    free(p);
}

uint64_t by_mem_n_live(void) {
    return atomic_load(&n_allocs) - atomic_load(&n_frees);
}

uint64_t by_mem_n_allocs(void) {
    return atomic_load(&n_allocs);
}

void by_mem_one_heap(void) {
    (void)mallopt(M_ARENA_MAX, 1);
}

void by_mem_give_back(void) {
    (void)malloc_trim(0);
}
