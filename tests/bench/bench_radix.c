/* bench_radix.c - the prefix tree alone: 1,000 sequences of 1,000 ids, prefixes of 512 shared by ten, as radix_sglang.py
 * does it with SGLang's tree. Also: does a match cost more in a larger tree? */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rand.h"
#include "scheduler/radix.h"
#include "tests/bench/bench.h"

enum { SEQS = 1000, LEN = 1000, SHARED = 512, GROUP = 10, REPEATS = 7, EVICTED = 100000 };

struct load {
    uint32_t *ids; /* [n, LEN] */
    uint32_t n;
};

static struct load make_load(uint32_t n, uint64_t seed) {
    struct load l = {.ids = by_alloc_array((size_t)n * LEN, sizeof(uint32_t)), .n = n};
    for (uint32_t i = 0; i < n; i++) {
        uint64_t own = seed + 1000003 * i, group = seed + 7 + 1000003 * (i / GROUP);
        for (uint32_t k = 0; k < LEN; k++)
            l.ids[(size_t)i * LEN + k] =
                (uint32_t)(by_rand_next(k < SHARED ? &group : &own) % 128000);
    }
    return l;
}

struct server {
    struct pool pool;
    struct pages *pages;
    struct radix *t;
    uint32_t page_size;
};

static struct server start(uint32_t page_size, uint64_t n_tokens) {
    struct server s = {.page_size = page_size};
    pool_init(&s.pool);
    s.pages = pages_new((uint32_t)(n_tokens / page_size));
    return s;
}

static void open_tree(struct server *s) {
    s->t = radix_new(s->page_size, 1, RADIX_LRU, &s->pool);
    radix_join(s->t, 0, s->pages, NULL);
}

static void stop(struct server *s) {
    radix_free(s->t);
    pages_free(s->pages);
    pool_release(&s->pool);
}

/* Match, then insert with pages that were taken before, as radix_sglang.py inserts indices that it has. */
static void match_insert(struct server *s, const uint32_t *ids, const uint32_t *own) {
    uint32_t pages[LEN], n = LEN / s->page_size;
    struct radix_node *root = radix_root(s->t, BY_STR(""));
    struct radix_at at = radix_match(s->t, root, 0, ids, n, pages);
    memcpy(pages + at.n_pages, own + at.n_pages, (n - at.n_pages) * sizeof *own);
    struct radix_at end = radix_insert(s->t, at, 0, ids, n, pages, 0);
    if (end.n_pages != n) abort();
}

/* Pages for n sequences, and given back once the tree has what it wants. */
static uint32_t *take_pages(struct server *s, uint32_t n) {
    uint32_t n_pages = n * (LEN / s->page_size), *own = by_alloc_array(n_pages, sizeof *own);
    if (!pages_take(s->pages, n_pages, own)) abort();
    return own;
}

static double us_since(uint64_t from) {
    return (double)(by_now_ns() - from) / 1e3;
}

static void bench_page_size(uint32_t page_size) {
    struct load l = make_load(SEQS, 1);
    double match = 1e9, insert = 1e9, evict = 1e9;
    uint32_t pages[LEN], n_matched = 0;
    struct server s = start(page_size, (uint64_t)SEQS * LEN);
    for (uint32_t rep = 0; rep < REPEATS; rep++) {
        open_tree(&s);
        uint32_t *own = take_pages(&s, SEQS);
        uint64_t from = by_now_ns();
        for (uint32_t i = 0; i < SEQS; i++)
            match_insert(&s, l.ids + (size_t)i * LEN, own + i * (LEN / page_size));
        insert = BY_MIN(insert, us_since(from) / SEQS);
        pages_give(s.pages, own, SEQS * (LEN / page_size));
        by_free(own);
        struct radix_node *root = radix_root(s.t, BY_STR(""));
        from = by_now_ns();
        for (uint32_t i = 0; i < SEQS; i++)
            n_matched +=
                radix_match(s.t, root, 0, l.ids + (size_t)i * LEN, LEN / page_size, pages).n_pages;
        match = BY_MIN(match, us_since(from) / SEQS);
        from = by_now_ns();
        uint32_t n = radix_evict(s.t, 0, EVICTED / page_size);
        evict = BY_MIN(evict, us_since(from) / 1e3);
        if (n != EVICTED / page_size) abort();
        radix_evict(s.t, 0, UINT32_MAX);
        radix_free(s.t);
    }
    if (n_matched != REPEATS * SEQS * (LEN / page_size)) abort();
    char parameter[32];
    snprintf(parameter, sizeof parameter, "page=%u", page_size);
    bench_row("radix match 1000 tokens", parameter, match, "us");
    bench_row("radix match+insert", parameter, insert, "us");
    bench_row("radix evict 100000 tokens", parameter, evict, "ms");
    open_tree(&s);
    stop(&s);
    by_free(l.ids);
}

static void bench_growth(uint32_t page_size) {
    for (uint64_t n_tokens = 10000; n_tokens <= 10000000; n_tokens *= 10) {
        struct load l = make_load((uint32_t)(n_tokens / LEN), 5);
        struct server s = start(page_size, n_tokens + LEN);
        uint32_t pages[LEN];
        double best = 1e9;
        open_tree(&s);
        uint32_t *own = take_pages(&s, l.n);
        for (uint32_t i = 0; i < l.n; i++)
            match_insert(&s, l.ids + (size_t)i * LEN, own + i * (LEN / page_size));
        by_free(own);
        struct radix_node *root = radix_root(s.t, BY_STR(""));
        for (uint32_t rep = 0; rep < REPEATS;
             rep++) { /* the same ten each time: what the CPU's caches do is not asked */
            uint64_t from = by_now_ns();
            for (uint32_t i = 0; i < 1000; i++)
                radix_match(s.t, root, 0, l.ids + (size_t)(i % 10 * (l.n / 10)) * LEN,
                            LEN / page_size, pages);
            best = BY_MIN(best, us_since(from) / 1000);
        }
        char parameter[64];
        snprintf(parameter, sizeof parameter, "page=%u tokens=%llu", page_size,
                 (unsigned long long)n_tokens);
        bench_row("radix match in a tree of", parameter, best, "us");
        stop(&s);
        by_free(l.ids);
    }
}

int main(void) {
    bench_page_size(1);
    bench_page_size(16);
    bench_growth(1);
    bench_growth(16);
    return 0;
}
