/* radix_show.c - draws the tree, and checks that what "always" holds does. */
#include "common/base/mem.h"
#include "scheduler/radix_node.h"

/* Walks all nodes below root in depth-first order without recursion (depth comes from outside). */
static const struct radix_node *next_node(const struct radix_node *root, const struct radix_node *n,
                                          uint32_t *depth) {
    if (n->child) {
        ++*depth;
        return n->child;
    }
    while (n != root && !n->next) {
        n = n->parent;
        --*depth;
    }
    return n == root ? NULL : n->next;
}

static void show_node(const struct radix *t, const struct radix_node *n, uint32_t depth,
                      struct by_buf *out) {
    enum { SHOWN = 8 };
    by_buf_addf(out, "%*s[", (int)(2 * depth), "");
    uint32_t n_tokens = n->n_pages * t->page_size;
    for (uint32_t i = 0; i < BY_MIN(n_tokens, (uint32_t)SHOWN); i++)
        by_buf_addf(out, "%s%u", i ? " " : "", n->tokens[i]);
    by_buf_addf(out, "%s] tokens=%u hits=%llu", n_tokens > SHOWN ? " …" : "", n_tokens,
                (unsigned long long)n->n_hits);
    for (uint32_t r = 0; r < t->n_replicas; r++) {
        if (!n->hold[r].pages) continue;
        by_buf_addf(out, " r%u:%u", r, n->hold[r].pages[0]);
        if (n->hold[r].n_lock) by_buf_addf(out, "(locks %u)", n->hold[r].n_lock);
        uint32_t n_kept = states_end(&n->hold[r].states, n->n_pages);
        if (n_kept) by_buf_addf(out, "(state behind %u pages)", n_kept);
    }
    by_buf_addc(out, '\n');
}

void radix_show(const struct radix *t, struct by_buf *out) {
    for (size_t i = 0; i < t->spaces.cap; i++) {
        if (!t->spaces.slots[i].is_used) continue;
        const struct radix_node *root = (const void *)(uintptr_t)t->spaces.slots[i].value;
        by_buf_addz(out, "space ");
        by_buf_add_json_str(out, root->space);
        by_buf_addc(out, '\n');
        uint32_t depth = 0;
        for (const struct radix_node *n = next_node(root, root, &depth); n;
             n = next_node(root, n, &depth))
            show_node(t, n, depth, out);
    }
}

uint32_t radix_n_locks(const struct radix *t, uint32_t replica) {
    uint32_t n = 0;
    for (size_t i = 0; i < t->spaces.cap; i++) {
        if (!t->spaces.slots[i].is_used) continue;
        const struct radix_node *root = (const void *)(uintptr_t)t->spaces.slots[i].value;
        n += root->hold[replica].n_lock; /* each lock passes through its root */
    }
    return n;
}

static struct radix_top top_of(const struct radix *t, const struct radix_node *n) {
    struct radix_top top = {
        .ids = n->tokens, .n_tokens = n->n_pages * t->page_size, .n_hits = n->n_hits};
    for (uint32_t r = 0; r < t->n_replicas; r++) {
        if (n->hold[r].pages) top.replicas |= UINT64_C(1) << r;
    }
    for (; n->parent; n = n->parent)
        top.n_path_tokens += n->n_pages * t->page_size;
    top.space = n->space;
    return top;
}

static uint64_t worth(const struct radix_top *top) {
    return top->n_tokens * top->n_hits;
}

uint32_t radix_top(const struct radix *t, struct radix_top *out, uint32_t n) {
    uint32_t n_out = 0;
    for (size_t i = 0; i < t->spaces.cap && n > 0; i++) {
        if (!t->spaces.slots[i].is_used) continue;
        const struct radix_node *root = (const void *)(uintptr_t)t->spaces.slots[i].value;
        uint32_t depth = 0;
        for (const struct radix_node *at = next_node(root, root, &depth); at;
             at = next_node(root, at, &depth)) {
            if (n_out == n && n_out > 0 &&
                at->n_pages * t->page_size * at->n_hits <= worth(&out[n - 1]))
                continue;
            struct radix_top top = top_of(t, at);
            uint32_t k = n_out < n ? n_out++ : n - 1;
            for (; k > 0 && worth(&top) > worth(&out[k - 1]); k--)
                out[k] = out[k - 1];
            out[k] = top;
        }
    }
    return n_out;
}

struct tally { /* of the whole tree, to compare with the counters */
    uint32_t n_nodes;
    uint32_t n_held[RADIX_REPLICAS_MAX], n_locked[RADIX_REPLICAS_MAX];
    uint32_t n_leaves[RADIX_REPLICAS_MAX], n_states[RADIX_REPLICAS_MAX];
};

static bool check_hold(const struct radix *t, const struct radix_node *n, uint32_t r,
                       struct tally *sum) {
    const struct radix_hold *h = &n->hold[r];
    uint32_t n_kids = 0, n_lock = 0;
    for (const struct radix_node *c = n->child; c; c = c->next) {
        n_kids += c->hold[r].pages != NULL;
        n_lock += c->hold[r].n_lock;
    }
    if (h->n_kids != n_kids || h->n_lock < n_lock || h->node != n) return false;
    bool is_leaf = h->pages && h->n_lock == 0 && h->n_kids == 0;
    if (is_leaf != (h->leaf.index != BY_HEAP_OUT)) return false;
    sum->n_leaves[r] += is_leaf;
    if (!states_run_check(&h->states, h->pages ? n->n_pages : 0, &sum->n_states[r])) return false;
    if (!h->pages) return !n->parent || h->n_lock == 0;
    if (n->parent->parent && !n->parent->hold[r].pages) return false;
    sum->n_held[r] += n->n_pages;
    if (h->n_lock) sum->n_locked[r] += n->n_pages;
    if (h->pages_cap < n->n_pages * sizeof *h->pages) return false;
    for (uint32_t i = 0; i < n->n_pages; i++) {
        if (h->pages[i] >= pages_n(t->replica[r].pages)) return false;
        if (pages_refs(t->replica[r].pages, h->pages[i]) == 0) return false;
    }
    return true;
}

static bool check_node(const struct radix *t, const struct radix_node *n, struct tally *sum) {
    uint32_t n_holders = 0;
    for (uint32_t r = 0; r < t->n_replicas; r++) {
        if (!check_hold(t, n, r, sum)) return false;
        n_holders += n->hold[r].pages != NULL;
    }
    if (n_holders != n->n_holders) return false;
    if (n->child && (n->child->prev || n->child->parent != n)) return false;
    if (!n->parent) return n->n_pages == 0 && n_holders == 0;
    sum->n_nodes++;
    if (n->next && (n->next->prev != n || n->next->parent != n->parent)) return false;
    if (n->n_pages == 0 || n_holders == 0) return false;
    if (n->tokens_cap < (size_t)n->n_pages * t->page_size * sizeof *n->tokens) return false;
    if (n->hash != radix_hash(t, n->parent, n->tokens)) return false;
    const struct radix_node *b = t->bucket[n->hash & (t->n_buckets - 1)];
    /* a sibling with the same first page would be found instead of this one */
    while (b && b != n) {
        if (b->parent == n->parent && b->hash == n->hash &&
            memcmp(b->tokens, n->tokens, t->page_size * sizeof *n->tokens) == 0)
            return false;
        b = b->chain;
    }
    return b == n;
}

bool radix_check(const struct radix *t) {
    struct tally *sum = by_alloc(sizeof *sum);
    bool ok = true;
    for (size_t i = 0; i < t->spaces.cap && ok; i++) {
        if (!t->spaces.slots[i].is_used) continue;
        const struct radix_node *root = (const void *)(uintptr_t)t->spaces.slots[i].value;
        ok = check_node(t, root, sum);
        uint32_t depth = 0;
        for (const struct radix_node *n = next_node(root, root, &depth); n && ok;
             n = next_node(root, n, &depth))
            ok = check_node(t, n, sum);
    }
    ok = ok && sum->n_nodes == t->n_nodes;
    for (uint32_t r = 0; r < t->n_replicas && ok; r++) {
        const struct radix_replica *rep = &t->replica[r];
        ok = sum->n_held[r] == rep->n_held && sum->n_locked[r] == rep->n_locked &&
             sum->n_leaves[r] == rep->leaves.n && by_heap_check(&rep->leaves) &&
             sum->n_states[r] == (rep->states ? states_n_filed(rep->states) : 0);
    }
    by_free(sum);
    return ok;
}
