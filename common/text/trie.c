#include "common/text/trie.h"

#include "common/base/check.h"
#include "common/base/mem.h"

/* While strings are put: first child and next sibling, siblings in order of their bytes. */
struct by_trie_loose {
    uint32_t child, sibling; /* 0: none */
    uint32_t value;
    uint8_t byte;
};

void by_trie_init(struct by_trie *t) {
    *t = (struct by_trie){0};
}

void by_trie_release(struct by_trie *t) {
    by_free(t->loose);
    if (!t->is_borrowed) {
        by_free(t->value);
        by_free(t->first);
        by_free(t->byte);
    }
    *t = (struct by_trie){0};
}

static uint32_t new_node(struct by_trie *t, uint8_t byte) {
    if (t->n_loose == t->loose_cap) {
        t->loose_cap = BY_MAX(t->loose_cap * 2, 256u);
        t->loose = by_realloc_array(t->loose, t->loose_cap, sizeof *t->loose);
    }
    t->loose[t->n_loose] = (struct by_trie_loose){.value = BY_TRIE_NONE, .byte = byte};
    return t->n_loose++;
}

static uint32_t child_for(struct by_trie *t, uint32_t parent, uint8_t byte) {
    uint32_t before = 0, at = t->loose[parent].child;
    while (at && t->loose[at].byte < byte) {
        before = at;
        at = t->loose[at].sibling;
    }
    if (at && t->loose[at].byte == byte) return at;
    uint32_t node = new_node(t, byte);
    t->loose[node].sibling = at;
    if (before)
        t->loose[before].sibling = node;
    else
        t->loose[parent].child = node;
    return node;
}

bool by_trie_put(struct by_trie *t, struct by_str s, uint32_t value) {
    by_assert(!t->first && value != BY_TRIE_NONE);
    if (!t->n_loose) new_node(t, 0);
    if (s.n > BY_TRIE_NODES_MAX - t->n_loose) return false;
    uint32_t at = 0;
    for (size_t i = 0; i < s.n; i++)
        at = child_for(t, at, (uint8_t)s.p[i]);
    t->loose[at].value = value;
    return true;
}

/* Breadth first, so that the children of a node follow one another. */
void by_trie_freeze(struct by_trie *t) {
    by_assert(!t->first);
    if (!t->n_loose) new_node(t, 0);
    uint32_t n = t->n_loose;
    uint32_t *order = by_alloc_array(n, sizeof *order); /* new number → loose node */
    t->n = n;
    t->byte = by_alloc(n);
    t->first = by_alloc_array((size_t)n + 1, sizeof *t->first);
    t->value = by_alloc_array(n, sizeof *t->value);
    uint32_t n_out = 1;
    for (uint32_t i = 0; i < n; i++) {
        const struct by_trie_loose *l = &t->loose[order[i]];
        t->byte[i] = l->byte;
        t->value[i] = l->value;
        t->first[i] = n_out;
        for (uint32_t c = l->child; c; c = t->loose[c].sibling)
            order[n_out++] = c;
    }
    by_assert(n_out == n);
    t->first[n] = n;
    by_free(order);
    by_free(t->loose);
    t->loose = NULL;
    t->n_loose = t->loose_cap = 0;
}

size_t by_trie_longest(const struct by_trie *t, uint32_t node, struct by_str s, uint32_t *value) {
    size_t n = 0;
    *value = BY_TRIE_NONE;
    for (size_t i = 0; i < s.n; i++) {
        node = by_trie_child(t, node, (uint8_t)s.p[i]);
        if (!node) break;
        if (t->value[node] == BY_TRIE_NONE) continue;
        *value = t->value[node];
        n = i + 1;
    }
    return n;
}

uint32_t by_trie_walk(const struct by_trie *t, struct by_str s) {
    uint32_t node = 0;
    for (size_t i = 0; i < s.n; i++) {
        node = by_trie_child(t, node, (uint8_t)s.p[i]);
        if (!node) return 0;
    }
    return node;
}

void by_trie_write(const struct by_trie *t, struct by_buf *out) {
    by_assert(t->first);
    by_freeze(out, t->byte, t->n, sizeof *t->byte);
    by_freeze(out, t->first, (size_t)t->n + 1, sizeof *t->first);
    by_freeze(out, t->value, t->n, sizeof *t->value);
}

void by_trie_thaw(struct by_trie *t, struct by_thaw *from, uint32_t n_values) {
    size_t n;
    *t = (struct by_trie){.is_borrowed = true};
    t->byte = (void *)(uintptr_t)by_thaw(from, sizeof *t->byte, &n);
    if (!n || n > BY_TRIE_NODES_MAX) from->is_bad = true;
    t->first = (void *)(uintptr_t)by_thaw_n(from, sizeof *t->first, n + 1);
    t->value = (void *)(uintptr_t)by_thaw_n(from, sizeof *t->value, n);
    if (from->is_bad) return;
    t->n = (uint32_t)n;
    bool is_sound = t->first[n] == n;
    for (uint32_t i = 0; i < n && is_sound; i++)
        is_sound = t->first[i] > i && t->first[i] <= t->first[i + 1] &&
                   (t->value[i] < n_values || t->value[i] == BY_TRIE_NONE);
    if (!is_sound) from->is_bad = true;
}
