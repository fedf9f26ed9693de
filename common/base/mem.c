#include "common/base/mem.h"

#include "common/base/check.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_uint_fast64_t n_allocs, n_frees, n_bytes;

/* Below 0, as a number that wraps: less. */
static void add_bytes(size_t n) {
    atomic_fetch_add_explicit(&n_bytes, n, memory_order_relaxed);
}

static void *counted(void *p) {
    if (!p) return NULL;
    atomic_fetch_add_explicit(&n_allocs, 1, memory_order_relaxed);
    add_bytes(malloc_usable_size(p));
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
    size_t before = malloc_usable_size(p); /* of NULL: 0 */
    void *q = or_die(realloc(p, n ? n : 1), n);
    if (!p) return counted(q);
    add_bytes(malloc_usable_size(q) - before);
    return q;
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
    add_bytes(-malloc_usable_size(p));
    free(p);
}

uint64_t by_mem_n_live(void) {
    return atomic_load(&n_allocs) - atomic_load(&n_frees);
}

uint64_t by_mem_n_bytes(void) {
    return atomic_load_explicit(&n_bytes, memory_order_relaxed);
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
