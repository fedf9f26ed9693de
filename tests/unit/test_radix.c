#include "scheduler/radix.h"

#include "common/base/mem.h"
#include "common/base/rand.h"
#include "tests/unit/test.h"

enum { PAGES = 256, LONGEST = 24 /* tokens */, SEQS = 400, REPLICAS = 2, ASKERS = 16, HELD = 6 };

struct fixture {
    struct pool pool;
    struct radix *t;
    struct pages *pages[REPLICAS];
};

static void setup(struct fixture *f, uint32_t page_size, enum radix_policy policy) {
    pool_init(&f->pool);
    f->t = radix_new(page_size, REPLICAS, policy, &f->pool);
    for (uint32_t r = 0; r < REPLICAS; r++) {
        f->pages[r] = pages_new(PAGES);
        radix_join(f->t, r, f->pages[r], NULL);
    }
}

static void teardown(struct fixture *f) {
    assert_true(radix_check(f->t));
    radix_free(f->t);
    for (uint32_t r = 0; r < REPLICAS; r++)
        pages_free(f->pages[r]);
    pool_release(&f->pool);
}

/* Files ids with fresh pages, as a sequence that ends at once would; returns the first page. */
static uint32_t put(struct fixture *f, uint32_t r, const uint32_t *ids, uint32_t n) {
    uint32_t pages[LONGEST];
    assert_true(pages_take(f->pages[r], n, pages));
    struct radix_node *root = radix_root(f->t, BY_STR(""));
    radix_insert(f->t, (struct radix_at){root, 0}, r, ids, n, pages, 0);
    pages_give(f->pages[r], pages, n);
    return pages[0];
}

static uint32_t held(struct fixture *f, uint32_t r, const uint32_t *ids, uint32_t n) {
    struct radix_held by_replica[REPLICAS];
    struct radix_mark mark = {0};
    radix_peek(f->t, BY_STR(""), ids, n, &mark, by_replica);
    return by_replica[r].n_pages;
}

TEST(a_split_keeps_both_halves_and_their_locks) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f, 1, RADIX_LRU);
    uint32_t a[] = {1, 2, 3, 4}, b[] = {1, 2, 9}, pages[4];
    put(&f, 0, a, 4);
    struct radix_at at = radix_match(f.t, radix_root(f.t, BY_STR("")), 0, a, 4, pages);
    assert_int_equal(at.n_pages, 4);
    radix_lock(f.t, at.node, 0);
    put(&f, 0, b, 3);
    assert_int_equal(radix_n_nodes(f.t), 3);
    assert_int_equal(radix_n_held(f.t, 0), 5);
    assert_int_equal(radix_n_evictable(f.t, 0), 1);
    assert_int_equal(radix_evict(f.t, 0, 100), 1);
    assert_int_equal(held(&f, 0, a, 4), 4);
    assert_int_equal(held(&f, 0, b, 3), 2);
    radix_unlock(f.t, at.node, 0);
    assert_int_equal(radix_evict(f.t, 0, 100), 4);
    assert_int_equal(radix_n_nodes(f.t), 0);
    assert_int_equal(pages_n_free(f.pages[0]), PAGES);
    teardown(&f);
}

TEST(a_partial_page_is_never_matched) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f, 4, RADIX_LRU);
    uint32_t a[] = {1, 2, 3, 4, 5, 6, 7, 8}, b[] = {1, 2, 3, 4, 5, 6, 7, 9};
    put(&f, 0, a, 2);
    assert_int_equal(held(&f, 0, b, 2), 1);
    assert_int_equal(held(&f, 0, a, 2), 2);
    assert_int_equal(held(&f, 1, a, 2), 0);
    teardown(&f);
}

TEST(one_users_run_grows_in_place) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f, 1, RADIX_LRU);
    uint32_t ids[] = {1, 2, 3, 4, 5, 6}, pages[6];
    assert_true(pages_take(f.pages[0], 6, pages));
    struct radix_at at = {radix_root(f.t, BY_STR("")), 0};
    radix_lock(f.t, at.node, 0);
    for (uint32_t n = 2; n <= 6; n += 2) {
        struct radix_at next = radix_insert(f.t, at, 0, ids, n, pages, 0);
        radix_lock(f.t, next.node, 0);
        radix_unlock(f.t, at.node, 0);
        at = next;
        assert_true(radix_check(f.t));
    }
    assert_int_equal(radix_n_nodes(f.t), 1);
    assert_int_equal(radix_n_evictable(f.t, 0), 0);
    radix_unlock(f.t, at.node, 0);
    pages_give(f.pages[0], pages, 6);
    assert_int_equal(radix_n_evictable(f.t, 0), 6);
    teardown(&f);
}

TEST(spaces_do_not_see_each_other) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f, 1, RADIX_LRU);
    uint32_t ids[] = {1, 2, 3};
    struct radix_held by_replica[REPLICAS];
    put(&f, 0, ids, 3);
    struct radix_mark mark = {0};
    radix_peek(f.t, BY_STR("salt"), ids, 3, &mark, by_replica);
    assert_int_equal(by_replica[0].n_pages, 0);
    teardown(&f);
}

/* Three runs of two pages; which one goes first says which policy it is. */
static uint32_t first_victim(enum radix_policy policy) {
    struct fixture f;
    setup(&f, 1, policy);
    uint32_t runs[3][2] = {{10, 11}, {20, 21}, {30, 31}};
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t pages[2];
        assert_true(pages_take(f.pages[0], 2, pages));
        struct radix_at root = {radix_root(f.t, BY_STR("")), 0};
        radix_insert(f.t, root, 0, runs[i], 2, pages, i == 1 ? -5 : (int32_t)i);
        pages_give(f.pages[0], pages, 2);
    }
    struct radix_node *root = radix_root(f.t, BY_STR(""));
    /* run 0 thrice in all; run 2 is the latest, but not a hit */
    static const uint8_t uses[] = {2, 1, 0, 0, 1};
    for (uint32_t i = 0; i < BY_COUNTOF(uses); i++)
        radix_match(f.t, root, 0, runs[uses[i] == 2 ? 0 : uses[i]], 2, NULL);
    uint32_t victim = 3;
    assert_int_equal(radix_evict(f.t, 0, 2), 2);
    for (uint32_t i = 0; i < 3; i++) {
        if (held(&f, 0, runs[i], 2) == 0) victim = i;
    }
    teardown(&f);
    return victim;
}

TEST(each_policy_picks_its_victim) {
    UNUSED_STATE;
    assert_int_equal(first_victim(RADIX_LRU), 2);      /* never used again */
    assert_int_equal(first_victim(RADIX_LFU), 2);      /* no hits */
    assert_int_equal(first_victim(RADIX_FIFO), 0);     /* came first */
    assert_int_equal(first_victim(RADIX_SLRU), 2);     /* the only one not protected */
    assert_int_equal(first_victim(RADIX_PRIORITY), 1); /* lowest priority, though used last */
}

/* One that was filed chunk by chunk kept the priority of its first. */
TEST(a_run_that_grows_in_place_rises_with_who_files) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f, 1, RADIX_PRIORITY);
    uint32_t low[] = {1, 2, 3, 4}, mid[] = {5, 6}, pages[4];
    put(&f, 0, low, 2);
    assert_true(pages_take(f.pages[0], 4, pages));
    struct radix_at at = radix_match(f.t, radix_root(f.t, BY_STR("")), 0, low, 2, NULL);
    radix_lock(f.t, at.node, 0);
    at = radix_insert(f.t, at, 0, low, 4, pages, 9);
    assert_int_equal(radix_n_nodes(f.t), 1);
    radix_unlock(f.t, at.node, 0);
    radix_insert(f.t, (struct radix_at){radix_root(f.t, BY_STR("")), 0}, 0, mid, 2, pages, 5);
    pages_give(f.pages[0], pages, 4);
    assert_int_equal(radix_evict(f.t, 0, 2), 2);
    assert_int_equal(held(&f, 0, low, 4), 4);
    assert_int_equal(held(&f, 0, mid, 2), 0);
    teardown(&f);
}

TEST(a_leaf_gives_only_what_is_asked) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f, 1, RADIX_LRU);
    uint32_t a[] = {1, 2, 3, 4, 5, 6};
    put(&f, 0, a, 6);
    put(&f, 1, a, 6);
    assert_int_equal(radix_n_nodes(f.t), 1);
    assert_int_equal(radix_evict(f.t, 0, 2), 2);
    assert_int_equal(held(&f, 0, a, 6), 4);
    assert_int_equal(held(&f, 1, a, 6), 6);
    assert_true(radix_check(f.t));
    radix_leave(f.t, 1);
    assert_int_equal(held(&f, 0, a, 6), 4);
    assert_int_equal(held(&f, 1, a, 6), 0);
    radix_join(f.t, 1, f.pages[1], NULL);
    teardown(&f);
}

/* ---- the twin: a list of sequences a replica holds, each with its pages ---- */

struct twin_seq {
    uint32_t r, n; /* n pages */
    uint32_t ids[LONGEST];
    uint32_t pages[LONGEST];
};
struct twin {
    uint32_t page_size, n;
    struct twin_seq seq[SEQS];
};
struct holder { /* a lock taken in both */
    struct radix_at at;
    struct twin_seq seq;
    bool is_used;
};

static uint32_t shared_pages(const struct twin *w, const struct twin_seq *s, const uint32_t *ids,
                             uint32_t n) {
    uint32_t k = 0;
    while (k < n && k < s->n &&
           memcmp(s->ids + k * w->page_size, ids + k * w->page_size, 4 * w->page_size) == 0)
        k++;
    return k;
}

static uint32_t twin_match(const struct twin *w, uint32_t r, const uint32_t *ids, uint32_t n,
                           uint32_t *pages) {
    uint32_t best = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        if (w->seq[i].r != r) continue;
        uint32_t k = shared_pages(w, &w->seq[i], ids, n);
        if (k <= best) continue;
        best = k;
        memcpy(pages, w->seq[i].pages, k * sizeof *pages);
    }
    return best;
}

static uint32_t twin_n_held(const struct twin *w, uint32_t r) {
    bool seen[PAGES] = {false};
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        for (uint32_t k = 0; w->seq[i].r == r && k < w->seq[i].n; k++) {
            n += !seen[w->seq[i].pages[k]];
            seen[w->seq[i].pages[k]] = true;
        }
    }
    return n;
}

static void random_ids(uint64_t *seed, uint32_t *ids) {
    /* mostly zeros: long shared prefixes */
    for (uint32_t i = 0; i < LONGEST; i++)
        ids[i] = by_rand_next(seed) % 8 == 0;
}

static void do_match(struct fixture *f, struct twin *w, uint64_t *seed, struct holder *h) {
    uint32_t ids[LONGEST], got[LONGEST], want[LONGEST];
    random_ids(seed, ids);
    uint32_t r = (uint32_t)(by_rand_next(seed) % REPLICAS);
    uint32_t n = (uint32_t)(by_rand_next(seed) % (LONGEST / w->page_size + 1));
    uint32_t n_want = twin_match(w, r, ids, n, want);
    assert_int_equal(held(f, r, ids, n), n_want);
    struct radix_at at = radix_match(f->t, radix_root(f->t, BY_STR("")), r, ids, n, got);
    assert_int_equal(at.n_pages, n_want);
    assert_memory_equal(got, want, n_want * sizeof *got);
    if (h->is_used) {
        radix_unlock(f->t, h->at.node, h->seq.r);
        h->is_used = false;
        return;
    }
    radix_lock(f->t, at.node, r);
    *h = (struct holder){.at = at, .seq = {.r = r, .n = at.n_pages}, .is_used = true};
    memcpy(h->seq.ids, ids, sizeof ids);
}

static void do_insert(struct fixture *f, struct twin *w, uint64_t *seed, struct holder *h) {
    struct twin_seq s = {0};
    struct radix_at at = {radix_root(f->t, BY_STR("")), 0};
    random_ids(seed, s.ids);
    s.r = (uint32_t)(by_rand_next(seed) % REPLICAS);
    s.n = (uint32_t)(by_rand_next(seed) % (LONGEST / w->page_size + 1));
    if (h->is_used) { /* go on from a locked place, as a running sequence does */
        memcpy(s.ids, h->seq.ids, h->seq.n * w->page_size * sizeof *s.ids);
        s.r = h->seq.r;
        s.n = BY_MAX(s.n, h->seq.n);
        at = h->at;
    }
    uint32_t n_old = twin_match(w, s.r, s.ids, s.n, s.pages), own[LONGEST];
    uint32_t n_new = s.n - at.n_pages;
    if (w->n == SEQS || !pages_take(f->pages[s.r], n_new, own + at.n_pages)) return;
    struct radix_at end = radix_insert(f->t, at, s.r, s.ids, s.n, own, 0);
    assert_int_equal(end.n_pages, s.n);
    pages_give(f->pages[s.r], own + at.n_pages, n_new);
    memcpy(s.pages + n_old, own + n_old, (s.n - n_old) * sizeof *own);
    w->seq[w->n++] = s;
    if (!h->is_used) return;
    radix_lock(f->t, end.node, s.r);
    radix_unlock(f->t, h->at.node, s.r);
    h->at = end;
    h->seq = s;
}

static void do_evict(struct fixture *f, struct twin *w, uint64_t *seed) {
    uint32_t r = (uint32_t)(by_rand_next(seed) % REPLICAS);
    uint32_t want = (uint32_t)(by_rand_next(seed) % 40);
    uint32_t room = radix_n_evictable(f->t, r), before = twin_n_held(w, r);
    uint32_t n = radix_evict(f->t, r, want);
    assert_int_equal(n, BY_MIN(want, room));
    for (uint32_t i = 0; i < w->n; i++) {
        if (w->seq[i].r == r) w->seq[i].n = held(f, r, w->seq[i].ids, w->seq[i].n);
        if (w->seq[i].n == 0) w->seq[i--] = w->seq[--w->n];
    }
    assert_int_equal(before - n, twin_n_held(w, r));
}

struct asker {
    uint32_t ids[LONGEST];
    struct radix_mark mark;
};

/* Who asks again and again gets what one would who asks for the first time, of as many pages as it likes. */
static void ask_again(struct fixture *f, struct asker *a, uint32_t page_size, uint64_t *seed) {
    struct radix_held again[REPLICAS], first[REPLICAS];
    struct radix_mark none = {0};
    uint32_t n = LONGEST / page_size;
    if (by_rand_next(seed) % 4 == 0) n = (uint32_t)(by_rand_next(seed) % (n + 1));
    radix_peek(f->t, BY_STR(""), a->ids, n, &a->mark, again);
    radix_peek(f->t, BY_STR(""), a->ids, n, &none, first);
    assert_memory_equal(again, first, sizeof first);
    for (uint32_t r = 0; r < REPLICAS; r++)
        assert_ptr_equal(radix_find(f->t, BY_STR(""), &a->mark, r),
                         radix_find(f->t, BY_STR(""), &none, r));
}

static void against_the_twin(uint32_t page_size, uint64_t seed) {
    struct fixture f;
    setup(&f, page_size, (enum radix_policy)(page_size % 5));
    struct twin *w = by_alloc(sizeof *w);
    w->page_size = page_size;
    struct holder holders[HELD] = {{.is_used = false}};
    struct asker askers[ASKERS] = {{.mark = {0}}};
    for (uint32_t i = 0; i < ASKERS; i++)
        random_ids(&seed, askers[i].ids);
    for (int step = 0; step < 4000; step++) {
        struct holder *h = &holders[by_rand_next(&seed) % HELD];
        switch (by_rand_next(&seed) % 4) {
        case 0:
        case 1:
            do_insert(&f, w, &seed, h);
            break;
        case 2:
            do_match(&f, w, &seed, h);
            break;
        default:
            do_evict(&f, w, &seed);
        }
        assert_true(radix_check(f.t));
        ask_again(&f, &askers[step % ASKERS], page_size, &seed);
        for (uint32_t i = 0; i < HELD; i++) { /* what is locked stays */
            struct holder *k = &holders[i];
            if (k->is_used) assert_int_equal(held(&f, k->seq.r, k->seq.ids, k->seq.n), k->seq.n);
        }
        for (uint32_t r = 0; r < REPLICAS; r++) {
            assert_int_equal(radix_n_held(f.t, r), twin_n_held(w, r));
            assert_int_equal(radix_n_held(f.t, r) + pages_n_free(f.pages[r]), PAGES);
        }
    }
    for (uint32_t i = 0; i < HELD; i++) {
        if (holders[i].is_used) radix_unlock(f.t, holders[i].at.node, holders[i].seq.r);
    }
    for (uint32_t r = 0; r < REPLICAS; r++)
        radix_evict(f.t, r, UINT32_MAX);
    assert_int_equal(radix_n_nodes(f.t), 0);
    by_free(w);
    teardown(&f);
}

TEST(a_mark_is_not_believed_when_its_run_was_another_meanwhile) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f, 1, RADIX_LRU);
    uint32_t a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, 2, 3, 4, 9, 9}, pages[6];
    struct radix_mark mark = {0};
    struct radix_held held[REPLICAS];
    put(&f, 0, a, 6);
    radix_peek(f.t, BY_STR(""), a, 6, &mark, held);
    assert_int_equal(held[0].n_pages, 6);
    assert_int_equal(radix_evict(f.t, 0, 2), 2);
    struct radix_at at = radix_match(f.t, radix_root(f.t, BY_STR("")), 0, b, 6, pages);
    radix_lock(f.t, at.node, 0);
    assert_true(pages_take(f.pages[0], 2, pages + at.n_pages));
    struct radix_at end = radix_insert(f.t, at, 0, b, 6, pages, 0);
    assert_ptr_equal(end.node, at.node); /* it grew in place */
    radix_peek(f.t, BY_STR(""), a, 6, &mark, held);
    assert_int_equal(held[0].n_pages, 4);
    assert_int_equal(held[0].n_locked, 4);
    pages_give(f.pages[0], pages + 4, 2);
    radix_unlock(f.t, end.node, 0);
    teardown(&f);
}

TEST(agrees_with_a_list_of_sequences) {
    UNUSED_STATE;
    uint64_t seed = test_seed();
    for (uint32_t page_size = 1; page_size <= 4; page_size++)
        against_the_twin(page_size, seed + page_size);
}

TEST(a_warm_tree_allocates_nothing) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f, 2, RADIX_LRU);
    uint64_t n_allocs = 0;
    for (int pass = 0; pass < 2;
         pass++) { /* the same load twice: the second finds all it needs in the pool */
        uint64_t seed = 7;
        n_allocs = by_mem_n_allocs();
        for (int round = 0; round < 2000; round++) {
            uint32_t ids[LONGEST];
            random_ids(&seed, ids);
            if (pages_n_free(f.pages[0]) < LONGEST) radix_evict(f.t, 0, LONGEST);
            put(&f, 0, ids, LONGEST / 2);
        }
        radix_evict(f.t, 0, UINT32_MAX - 1);
        n_allocs = by_mem_n_allocs() - n_allocs;
    }
    assert_int_equal(n_allocs, 1); /* the root of the space, which went with its last node */
    teardown(&f);
}

/* Where there are states a prefix ends at the last of them; they go the way of their pages. */
TEST(a_prefix_ends_at_a_state) {
    UNUSED_STATE;
    struct fixture f;
    setup(&f, 1, RADIX_LRU);
    radix_leave(f.t, 0);
    struct states *st = states_new(4);
    radix_join(f.t, 0, f.pages[0], st);
    uint32_t a[] = {1, 2, 3, 4, 5, 6}, got[6];
    struct radix_mark mark = {0}, none = {0};
    struct radix_held has[REPLICAS];
    struct radix_node *root = radix_root(f.t, BY_STR(""));
    put(&f, 0, a, 6);
    struct radix_at at = radix_match(f.t, root, 0, a, 6, got);
    radix_lock(f.t, at.node, 0);
    radix_peek(f.t, BY_STR(""), a, 6, &mark, has);
    assert_int_equal(has[0].n_pages, 0);
    assert_int_equal(has[0].n_locked, 0); /* of none */
    assert_int_equal(has[0].n_matched, 6);
    uint32_t deep = states_take(st), shallow = states_take(st);
    radix_keep(f.t, at, 0, 5, deep, false);
    radix_keep(f.t, at, 0, 2, shallow, false);
    radix_peek(f.t, BY_STR(""), a, 6, &mark, has);
    assert_int_equal(has[0].n_pages, 5);
    assert_int_equal(has[0].n_locked, 5);
    radix_peek(f.t, BY_STR(""), a, 4, &none, has);
    assert_int_equal(has[0].n_pages, 2);
    struct radix_at up = radix_match(f.t, root, 0, a, 2, got); /* splits the run */
    uint64_t stamp = 1;
    assert_int_equal(radix_use_state(f.t, up, 0, &stamp), shallow);
    assert_int_equal(stamp, states_stamp(st, shallow)); /* its first use */
    radix_use_state(f.t, up, 0, &stamp);
    assert_int_equal(stamp, 0);
    assert_true(radix_check(f.t));
    radix_peek(f.t, BY_STR(""), a, 6, &mark, has);
    assert_int_equal(has[0].n_pages, 5);
    radix_unlock(f.t, at.node, 0);
    radix_evict(f.t, 0, 2); /* the last page, and that of the deep one */
    radix_peek(f.t, BY_STR(""), a, 6, &mark, has);
    assert_int_equal(has[0].n_pages, 2);
    assert_int_equal(has[0].n_matched, 4);
    assert_int_equal(states_n_filed(st), 1);
    radix_evict(f.t, 0, UINT32_MAX);
    assert_int_equal(states_n_filed(st), 0);
    teardown(&f);
    states_free(st);
}

TESTS(RUN(a_prefix_ends_at_a_state), RUN(a_split_keeps_both_halves_and_their_locks),
      RUN(a_partial_page_is_never_matched), RUN(one_users_run_grows_in_place),
      RUN(spaces_do_not_see_each_other), RUN(each_policy_picks_its_victim),
      RUN(a_run_that_grows_in_place_rises_with_who_files), RUN(a_leaf_gives_only_what_is_asked),
      RUN(a_mark_is_not_believed_when_its_run_was_another_meanwhile),
      RUN(agrees_with_a_list_of_sequences), RUN(a_warm_tree_allocates_nothing));
