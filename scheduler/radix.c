#include "scheduler/radix.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "scheduler/radix_node.h"

enum { BUCKETS_LEAST = 1024 };

static size_t node_bytes(const struct radix *t) {
    return sizeof(struct radix_node) + t->n_replicas * sizeof(struct radix_hold);
}

static size_t run_bytes(const struct radix *t, uint32_t n_pages) {
    return (size_t)n_pages * t->page_size * sizeof(uint32_t);
}

struct radix *radix_new(uint32_t page_size, uint32_t n_replicas, enum radix_policy policy,
                        struct pool *pool) {
    by_assert(page_size > 0);
    by_assert(n_replicas > 0 && n_replicas <= RADIX_REPLICAS_MAX);
    struct radix *t = by_alloc(sizeof *t);
    t->page_size = page_size;
    t->n_replicas = n_replicas;
    t->policy = policy;
    t->pool = pool;
    by_strmap_init(&t->spaces);
    t->n_buckets = BUCKETS_LEAST;
    t->bucket = by_alloc_array(t->n_buckets, sizeof *t->bucket);
    for (uint32_t r = 0; r < n_replicas; r++)
        by_heap_init(&t->replica[r].leaves, radix_leaf_before);
    return t;
}

bool radix_policy_parse(const char *name, enum radix_policy *out) {
    static const char *const names[] = {
        [RADIX_LRU] = "lru",   [RADIX_LFU] = "lfu",           [RADIX_FIFO] = "fifo",
        [RADIX_SLRU] = "slru", [RADIX_PRIORITY] = "priority",
    };
    for (uint32_t i = 0; i < BY_COUNTOF(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum radix_policy)i;
            return true;
        }
    }
    return false;
}

void radix_join(struct radix *t, uint32_t replica, struct pages *pages, struct states *states) {
    by_assert(replica < t->n_replicas);
    by_assert(!t->replica[replica].pages);
    t->replica[replica].pages = pages;
    t->replica[replica].states = states;
}

/* ---- buckets ---- */

uint64_t radix_hash(const struct radix *t, const struct radix_node *parent, const uint32_t *page) {
    struct by_str bytes = {(const char *)page, t->page_size * sizeof *page};
    uint64_t h = by_str_hash(bytes) ^ (parent->id * UINT64_C(0x9E3779B97F4A7C15));
    return h ^ (h >> 32);
}

static void bucket_add(struct radix *t, struct radix_node *n) {
    struct radix_node **b = &t->bucket[n->hash & (t->n_buckets - 1)];
    n->chain = *b;
    *b = n;
}

static void bucket_remove(struct radix *t, struct radix_node *n) {
    struct radix_node **at = &t->bucket[n->hash & (t->n_buckets - 1)];
    while (*at != n)
        at = &(*at)->chain;
    *at = n->chain;
}

static void buckets_grow(struct radix *t) {
    struct radix_node **old = t->bucket;
    size_t n_old = t->n_buckets;
    t->n_buckets *= 2;
    t->bucket = by_alloc_array(t->n_buckets, sizeof *t->bucket);
    for (size_t i = 0; i < n_old; i++) {
        for (struct radix_node *n = old[i], *next; n; n = next) {
            next = n->chain;
            bucket_add(t, n);
        }
    }
    by_free(old);
}

struct radix_node *radix_child(const struct radix *t, const struct radix_node *parent,
                               const uint32_t *page) {
    uint64_t h = radix_hash(t, parent, page);
    struct radix_node *n = t->bucket[h & (t->n_buckets - 1)];
    while (n && (n->hash != h || n->parent != parent ||
                 memcmp(n->tokens, page, t->page_size * sizeof *page) != 0))
        n = n->chain;
    return n;
}

/* ---- nodes ---- */

static struct radix_node *node_new(struct radix *t, struct radix_node *parent,
                                   const uint32_t *tokens, uint32_t n_pages) {
    size_t cap;
    struct radix_node *n = pool_get(t->pool, node_bytes(t), &cap);
    memset(n, 0, node_bytes(t));
    n->cap = cap;
    n->id = ++t->next_id;
    n->parent = parent;
    n->created = n->last_used = t->tick;
    for (uint32_t r = 0; r < t->n_replicas; r++) {
        n->hold[r].node = n;
        n->hold[r].leaf.index = BY_HEAP_OUT;
    }
    if (!parent) return n;
    n->n_pages = n_pages;
    n->tokens = pool_get(t->pool, run_bytes(t, n_pages), &n->tokens_cap);
    memcpy(n->tokens, tokens, run_bytes(t, n_pages));
    n->hash = radix_hash(t, parent, tokens);
    if (++t->n_nodes > t->n_buckets) buckets_grow(t);
    bucket_add(t, n);
    n->next = parent->child;
    if (n->next) n->next->prev = n;
    parent->child = n;
    return n;
}

static void unlink_sibling(struct radix_node *n) {
    if (n->prev) n->prev->next = n->next;
    if (n->next) n->next->prev = n->prev;
    if (n->parent->child == n) n->parent->child = n->next;
    n->prev = n->next = NULL;
}

void radix_node_free(struct radix *t, struct radix_node *n) {
    by_assert(!n->child);
    by_assert(n->n_holders == 0);
    if (n->parent) {
        bucket_remove(t, n);
        unlink_sibling(n);
        t->n_nodes--;
    }
    pool_put(t->pool, n->tokens, n->tokens_cap);
    by_free((void *)n->space.p);
    pool_put(t->pool, n, n->cap);
}

static void free_below(struct radix *t, struct radix_node *root) {
    struct radix_node *n = root;
    for (;;) {
        while (n->child)
            n = n->child;
        if (n == root) return;
        struct radix_node *up = n->parent;
        for (uint32_t r = 0; r < t->n_replicas; r++)
            pool_put(t->pool, n->hold[r].pages, n->hold[r].pages_cap);
        n->n_holders = 0;
        radix_node_free(t, n);
        n = up;
    }
}

void radix_free(struct radix *t) {
    if (!t) return;
    for (size_t i = 0; i < t->spaces.cap; i++) {
        if (!t->spaces.slots[i].is_used) continue;
        struct radix_node *root = (struct radix_node *)(uintptr_t)t->spaces.slots[i].value;
        free_below(t, root);
        radix_node_free(t, root);
    }
    for (uint32_t r = 0; r < t->n_replicas; r++)
        by_heap_release(&t->replica[r].leaves);
    by_strmap_release(&t->spaces);
    by_free(t->bucket);
    by_free(t);
}

struct radix_node *radix_root(struct radix *t, struct by_str space) {
    uint64_t value;
    if (by_strmap_get(&t->spaces, space, &value)) return (struct radix_node *)(uintptr_t)value;
    struct radix_node *root = node_new(t, NULL, NULL, 0);
    root->space = (struct by_str){by_strndup(space.p ? space.p : "", space.n), space.n};
    by_strmap_put(&t->spaces, root->space, (uintptr_t)root);
    return root;
}

/* The first k pages of n become a node of their own above it. Whoever points at n still means the end of the run, and
 * an unlock from there passes through both halves. */
struct radix_node *radix_split(struct radix *t, struct radix_node *n, uint32_t k) {
    by_assert(k > 0 && k < n->n_pages);
    struct radix_node *parent = n->parent;
    bucket_remove(t, n);
    unlink_sibling(n);
    struct radix_node *upper = node_new(t, parent, n->tokens, k);
    upper->last_used = n->last_used;
    upper->created = n->created;
    upper->n_hits = n->n_hits;
    upper->priority = n->priority;
    upper->n_holders = n->n_holders;
    uint32_t rest = n->n_pages - k;
    for (uint32_t r = 0; r < t->n_replicas; r++) {
        struct radix_hold *low = &n->hold[r], *up = &upper->hold[r];
        if (!low->pages) continue;
        up->pages = pool_get(t->pool, k * sizeof *up->pages, &up->pages_cap);
        memcpy(up->pages, low->pages, k * sizeof *up->pages);
        memmove(low->pages, low->pages + k, rest * sizeof *low->pages);
        up->n_lock = low->n_lock;
        up->n_kids = 1;
        states_split(&low->states, &up->states, k);
    }
    memmove(n->tokens, n->tokens + (size_t)k * t->page_size, run_bytes(t, rest));
    n->n_pages = rest;
    n->parent = upper;
    n->hash = radix_hash(t, upper, n->tokens);
    bucket_add(t, n);
    upper->child = n;
    return upper;
}

/* ---- match ---- */

/* Whole pages that a and b have in common. memcmp runs over vectors, so it is asked for large pieces first. */
static uint32_t common_pages(const struct radix *t, const uint32_t *a, const uint32_t *b,
                             uint32_t n_pages) {
    enum { PIECE = 64 };
    size_t n = (size_t)n_pages * t->page_size, i = 0;
    if (memcmp(a, b, n * sizeof *a) == 0) return n_pages;
    while (i + PIECE <= n && memcmp(a + i, b + i, PIECE * sizeof *a) == 0)
        i += PIECE;
    while (i < n && a[i] == b[i])
        i++;
    return (uint32_t)(i / t->page_size);
}

/* A node is found again by its hash, and is what it was if it begins where it did: a split moves that, and whatever shortens
 * a run gives it another id. */
struct radix_node *radix_marked(const struct radix *t, const struct radix_mark *mark) {
    struct radix_node *n = mark->id ? t->bucket[mark->hash & (t->n_buckets - 1)] : NULL;
    while (n && n->id != mark->id)
        n = n->chain;
    uint32_t n_before = 0;
    for (const struct radix_node *up = n ? n->parent : NULL; up; up = up->parent)
        n_before += up->n_pages;
    return n_before == mark->n_before ? n : NULL;
}

/* The first `end` pages match down to n: who holds or locks how many of them, and up to which is there a state? */
static void add_held(const struct radix *t, const struct radix_node *n, uint32_t n_before,
                     uint32_t end, struct radix_held *held) {
    for (; n->parent; n = n->parent, end = n_before, n_before -= n->n_pages) {
        for (uint32_t r = 0; r < t->n_replicas; r++) {
            const struct radix_hold *h = &n->hold[r];
            if (h->pages && !held[r].n_matched) held[r].n_matched = end;
            if (h->n_lock && !held[r].n_locked) held[r].n_locked = end;
            uint32_t n_kept = held[r].n_pages ? 0 : states_end(&h->states, end - n_before);
            if (n_kept) held[r].n_pages = n_before + n_kept;
        }
    }
    for (uint32_t r = 0; r < t->n_replicas; r++) {
        if (!t->replica[r].states) held[r].n_pages = held[r].n_matched;
        held[r].n_locked = BY_MIN(held[r].n_locked, held[r].n_pages);
    }
}

void radix_peek(const struct radix *t, struct by_str space, const uint32_t *ids, uint32_t n_pages,
                struct radix_mark *mark, struct radix_held *held) {
    memset(held, 0, t->n_replicas * sizeof *held);
    uint64_t value;
    if (!by_strmap_get(&t->spaces, space, &value)) return;
    const struct radix_node *n = mark->n_before < n_pages ? radix_marked(t, mark) : NULL;
    uint32_t n_before = n ? mark->n_before : 0, k = n ? BY_MIN(mark->n_pages, n->n_pages) : 0;
    if (!n) n = (const struct radix_node *)(uintptr_t)value;
    for (;;) {
        uint32_t most = BY_MIN(n->n_pages, n_pages - n_before);
        size_t at = (size_t)k * t->page_size;
        const uint32_t *rest = ids + (size_t)n_before * t->page_size;
        k = k < most ? k + common_pages(t, n->tokens + at, rest + at, most - k) : most;
        const struct radix_node *child = k == n->n_pages && n_before + k < n_pages
                                             ? radix_child(t, n, rest + (size_t)k * t->page_size)
                                             : NULL;
        if (!child) break;
        n = child;
        n_before += k;
        k = 1; /* as radix_child has seen */
    }
    *mark = (struct radix_mark){0};
    if (!n->parent) return;
    *mark = (struct radix_mark){.id = n->id, .hash = n->hash, .n_before = n_before, .n_pages = k};
    add_held(t, n, n_before, n_before + k, held);
}

static void use(struct radix *t, struct radix_node *n) {
    n->last_used = t->tick;
    n->n_hits++;
}

struct radix_at radix_match(struct radix *t, struct radix_node *root, uint32_t replica,
                            const uint32_t *ids, uint32_t n_pages, uint32_t *pages) {
    struct radix_at at = {.node = root};
    t->tick++;
    while (at.n_pages < n_pages) {
        const uint32_t *rest = ids + (size_t)at.n_pages * t->page_size;
        struct radix_node *n = radix_child(t, at.node, rest);
        if (!n || !n->hold[replica].pages) break;
        uint32_t want = BY_MIN(n->n_pages, n_pages - at.n_pages);
        uint32_t k = common_pages(t, n->tokens, rest, want);
        bool is_whole = k == n->n_pages;
        if (!is_whole) n = radix_split(t, n, k);
        use(t, n);
        if (pages) memcpy(pages + at.n_pages, n->hold[replica].pages, k * sizeof *pages);
        at = (struct radix_at){.node = n, .n_pages = at.n_pages + k};
        if (!is_whole) break;
    }
    return at;
}

/* ---- insert ---- */

static void hold_add(struct radix *t, struct radix_node *n, uint32_t r, const uint32_t *pages) {
    struct radix_hold *h = &n->hold[r];
    h->pages = pool_get(t->pool, n->n_pages * sizeof *pages, &h->pages_cap);
    memcpy(h->pages, pages, n->n_pages * sizeof *pages);
    pages_share(t->replica[r].pages, pages, n->n_pages);
    t->replica[r].n_held += n->n_pages;
    n->n_holders++;
    n->parent->hold[r].n_kids++;
    radix_leaf_update(t, n->parent, r);
    radix_leaf_update(t, n, r);
}

/* A run that only its one user holds grows in place, so that a long prompt, filed chunk by chunk, stays one node. */
static bool may_extend(const struct radix_node *n, uint32_t r) {
    return n->parent && !n->child && n->n_holders == 1 && n->hold[r].n_lock == 1;
}

static void extend(struct radix *t, struct radix_node *n, uint32_t r, const uint32_t *tokens,
                   uint32_t more, const uint32_t *pages) {
    struct radix_hold *h = &n->hold[r];
    size_t have = run_bytes(t, n->n_pages), n_bytes = n->n_pages * sizeof *h->pages;
    n->tokens = pool_grow(t->pool, n->tokens, have, have + run_bytes(t, more), &n->tokens_cap);
    memcpy((char *)n->tokens + have, tokens, run_bytes(t, more));
    h->pages = pool_grow(t->pool, h->pages, n_bytes, n_bytes + more * sizeof *pages, &h->pages_cap);
    memcpy(h->pages + n->n_pages, pages, more * sizeof *pages);
    pages_share(t->replica[r].pages, pages, more);
    n->n_pages += more;
    t->replica[r].n_held += more;
    t->replica[r].n_locked += more; /* by the caller */
}

struct radix_at radix_insert(struct radix *t, struct radix_at at, uint32_t replica,
                             const uint32_t *ids, uint32_t n_pages, const uint32_t *pages,
                             int32_t priority) {
    t->tick++;
    if (at.n_pages < n_pages && may_extend(at.node, replica)) {
        extend(t, at.node, replica, ids + (size_t)at.n_pages * t->page_size, n_pages - at.n_pages,
               pages + at.n_pages);
        at.node->last_used = t->tick;
        at.node->priority = BY_MAX(at.node->priority, priority);
        return (struct radix_at){.node = at.node, .n_pages = n_pages};
    }
    while (at.n_pages < n_pages) {
        const uint32_t *rest = ids + (size_t)at.n_pages * t->page_size;
        uint32_t left = n_pages - at.n_pages;
        struct radix_node *n = radix_child(t, at.node, rest);
        if (!n) {
            n = node_new(t, at.node, rest, left);
            n->priority = priority;
        } else {
            uint32_t k = common_pages(t, n->tokens, rest, BY_MIN(n->n_pages, left));
            if (k < n->n_pages) n = radix_split(t, n, k);
        }
        if (!n->hold[replica].pages) hold_add(t, n, replica, pages + at.n_pages);
        n->last_used = t->tick;
        n->priority = BY_MAX(n->priority, priority);
        at = (struct radix_at){.node = n, .n_pages = at.n_pages + n->n_pages};
    }
    return at;
}

/* ---- states ---- */

void radix_keep(struct radix *t, struct radix_at at, uint32_t replica, uint32_t n_pages,
                uint32_t number, bool is_chat) {
    struct radix_node *n = at.node;
    uint32_t n_before = at.n_pages - n->n_pages;
    by_assert(n_pages > 0 && n_pages <= at.n_pages);
    while (n_pages <= n_before) {
        n = n->parent;
        n_before -= n->n_pages;
    }
    states_file(t->replica[replica].states, number, &n->hold[replica].states, n_pages - n_before,
                is_chat);
}

uint32_t radix_use_state(struct radix *t, struct radix_at at, uint32_t replica,
                         uint64_t *chat_stamp) {
    struct states *st = t->replica[replica].states;
    uint32_t number = states_behind(st, &at.node->hold[replica].states, at.node->n_pages);
    by_assert(number != STATES_NONE);
    uint64_t stamp = states_use(st, number);
    *chat_stamp =
        at.node->hold[replica].n_kids > 1 ? 0 : stamp; /* where others part, it is not one's own */
    return number;
}

uint32_t radix_n_held(const struct radix *t, uint32_t replica) {
    return t->replica[replica].n_held;
}

uint32_t radix_n_evictable(const struct radix *t, uint32_t replica) {
    return t->replica[replica].n_held - t->replica[replica].n_locked;
}

uint32_t radix_n_nodes(const struct radix *t) {
    return t->n_nodes;
}

uint64_t radix_n_evicted(const struct radix *t) {
    return t->n_evicted;
}
