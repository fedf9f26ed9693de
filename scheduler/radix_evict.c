/* radix_evict.c - locks, and who goes when pages run out. */
#include "common/base/check.h"
#include "scheduler/radix_node.h"

bool radix_leaf_before(const struct by_heap_node *a, const struct by_heap_node *b) {
    const struct radix_hold *x = BY_CONTAINER_OF(a, struct radix_hold, leaf);
    const struct radix_hold *y = BY_CONTAINER_OF(b, struct radix_hold, leaf);
    return x->key[0] != y->key[0] ? x->key[0] < y->key[0] : x->key[1] < y->key[1];
}

/* The least key goes first. Every policy's key only grows while a node lives. */
static void key_of(const struct radix *t, const struct radix_node *n, uint64_t key[2]) {
    enum { SLRU_HITS = 2 }; /* used again since it came: protected */
    key[0] = 0;
    key[1] = n->last_used;
    switch (t->policy) {
    case RADIX_LRU:
        break;
    case RADIX_LFU:
        key[0] = n->n_hits;
        break;
    case RADIX_FIFO:
        key[1] = n->created;
        break;
    case RADIX_SLRU:
        key[0] = n->n_hits >= SLRU_HITS;
        break;
    case RADIX_PRIORITY:
        key[0] = (uint64_t)((int64_t)n->priority - INT32_MIN);
        break;
    }
}

static void leaf_push(struct radix *t, struct radix_node *n, uint32_t r) {
    key_of(t, n, n->hold[r].key);
    by_heap_push(&t->replica[r].leaves, &n->hold[r].leaf);
}

void radix_leaf_update(struct radix *t, struct radix_node *n, uint32_t r) {
    struct radix_hold *h = &n->hold[r];
    bool is_leaf = h->pages && h->n_lock == 0 && h->n_kids == 0;
    if (is_leaf == (h->leaf.index != BY_HEAP_OUT)) return;
    if (is_leaf)
        leaf_push(t, n, r);
    else
        by_heap_remove(&t->replica[r].leaves, &h->leaf);
}

void radix_root_tidy(struct radix *t, struct radix_node *root) {
    if (root->parent || root->child) return;
    for (uint32_t r = 0; r < t->n_replicas; r++) {
        if (root->hold[r].n_lock) return;
    }
    uint64_t value;
    bool was_there = by_strmap_remove(&t->spaces, root->space, &value);
    by_assert(was_there);
    radix_node_free(t, root);
}

void radix_lock(struct radix *t, struct radix_node *node, uint32_t replica) {
    for (struct radix_node *n = node; n; n = n->parent) {
        if (n->hold[replica].n_lock++ > 0) continue;
        t->replica[replica].n_locked += n->n_pages;
        radix_leaf_update(t, n, replica);
    }
}

void radix_unlock(struct radix *t, struct radix_node *node, uint32_t replica) {
    struct radix_node *root = node;
    for (struct radix_node *n = node; n; n = n->parent) {
        by_assert(n->hold[replica].n_lock > 0);
        root = n;
        if (--n->hold[replica].n_lock > 0) continue;
        t->replica[replica].n_locked -= n->n_pages;
        radix_leaf_update(t, n, replica);
    }
    radix_root_tidy(t, root);
}

/* Replica r forgets node n, a leaf of its; whoever holds it no more goes. */
static void drop(struct radix *t, struct radix_node *n, uint32_t r) {
    struct radix_hold *h = &n->hold[r];
    struct radix_node *parent = n->parent;
    states_cut(t->replica[r].states, &h->states, 0);
    pages_give(t->replica[r].pages, h->pages, n->n_pages);
    pool_put(t->pool, h->pages, h->pages_cap);
    h->pages = NULL;
    t->replica[r].n_held -= n->n_pages;
    radix_leaf_update(t, n, r);
    parent->hold[r].n_kids--;
    radix_leaf_update(t, parent, r);
    if (--n->n_holders > 0) return;
    radix_node_free(t, n);
    radix_root_tidy(t, parent);
}

/* Cuts the last k pages off a leaf. */
static void trim(struct radix *t, struct radix_node *n, uint32_t r, uint32_t k) {
    if (n->n_holders > 1) { /* the others keep the whole run: only r's lower half goes */
        radix_split(t, n, n->n_pages - k);
        drop(t, n, r);
        return;
    }
    n->n_pages -= k;
    n->id = ++t->next_id; /* it has no children, and marks behind its end mean nothing any more */
    states_cut(t->replica[r].states, &n->hold[r].states, n->n_pages);
    pages_give(t->replica[r].pages, n->hold[r].pages + n->n_pages, k);
    t->replica[r].n_held -= k;
}

uint32_t radix_evict(struct radix *t, uint32_t replica, uint32_t n_pages) {
    struct radix_replica *rep = &t->replica[replica];
    uint32_t n_done = 0;
    while (n_done < n_pages) {
        struct by_heap_node *first = by_heap_first(&rep->leaves);
        if (!first) break;
        struct radix_hold *h = BY_CONTAINER_OF(first, struct radix_hold, leaf);
        struct radix_node *n = h->node;
        uint64_t now[2];
        key_of(t, n, now);
        if (now[0] != h->key[0] || now[1] != h->key[1]) { /* used since it was pushed */
            by_heap_remove(&rep->leaves, first);
            leaf_push(t, n, replica);
            continue;
        }
        uint32_t k = BY_MIN(n->n_pages, n_pages - n_done);
        if (k == n->n_pages)
            drop(t, n, replica);
        else
            trim(t, n, replica, k);
        n_done += k;
    }
    t->n_evicted += n_done;
    return n_done;
}

static struct radix_at same_up_to(struct radix_at at, uint32_t replica, const uint32_t *pages) {
    struct radix_at same = at;
    uint32_t end = at.n_pages;
    for (struct radix_node *n = at.node; n->parent; n = n->parent) {
        end -= n->n_pages;
        if (memcmp(n->hold[replica].pages, pages + end, n->n_pages * sizeof *pages) != 0)
            same = (struct radix_at){.node = n->parent, .n_pages = end};
    }
    return same;
}

struct radix_at radix_let_go(struct radix *t, struct radix_at at, uint32_t replica,
                             const uint32_t *pages) {
    struct radix_at same = same_up_to(at, replica, pages);
    if (same.n_pages == at.n_pages) return at;
    radix_lock(t, same.node, replica);
    radix_unlock(t, at.node, replica);
    for (struct radix_node *n = at.node, *up; n != same.node; n = up) {
        up = n->parent;
        if (n->hold[replica].leaf.index == BY_HEAP_OUT) break; /* locked, or the way to others */
        drop(t, n, replica);
    }
    return same;
}

void radix_leave(struct radix *t, uint32_t replica) {
    struct radix_replica *rep = &t->replica[replica];
    by_assert(rep->n_locked == 0);
    uint64_t n_before = t->n_evicted;
    radix_evict(t, replica, UINT32_MAX);
    t->n_evicted = n_before; /* lost, not evicted */
    by_assert(rep->n_held == 0);
    rep->pages = NULL;
    rep->states = NULL;
}
