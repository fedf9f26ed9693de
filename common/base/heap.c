#include "common/base/heap.h"

#include "common/base/check.h"
#include "common/base/mem.h"

void by_heap_init(struct by_heap *h,
                  bool (*before)(const struct by_heap_node *, const struct by_heap_node *)) {
    *h = (struct by_heap){.before = before};
}

void by_heap_release(struct by_heap *h) {
    by_free(h->at);
    *h = (struct by_heap){.before = h->before};
}

static void put(struct by_heap *h, uint32_t i, struct by_heap_node *node) {
    h->at[i] = node;
    node->index = i;
}

static uint32_t up(struct by_heap *h, uint32_t i, struct by_heap_node *node) {
    while (i > 0 && h->before(node, h->at[(i - 1) / 2])) {
        put(h, i, h->at[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    return i;
}

static uint32_t down(struct by_heap *h, uint32_t i, struct by_heap_node *node) {
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= h->n) return i;
        if (child + 1 < h->n && h->before(h->at[child + 1], h->at[child])) child++;
        if (!h->before(h->at[child], node)) return i;
        put(h, i, h->at[child]);
        i = child;
    }
}

void by_heap_push(struct by_heap *h, struct by_heap_node *node) {
    by_assert(node->index == BY_HEAP_OUT);
    if (h->n == h->cap) {
        h->cap = h->cap ? h->cap * 2 : 16;
        h->at = by_realloc_array(h->at, h->cap, sizeof *h->at);
    }
    h->n++;
    put(h, up(h, h->n - 1, node), node);
}

void by_heap_remove(struct by_heap *h, struct by_heap_node *node) {
    uint32_t i = node->index;
    by_assert(i < h->n);
    by_assert(h->at[i] == node);
    struct by_heap_node *last = h->at[--h->n];
    node->index = BY_HEAP_OUT;
    if (last == node) return;
    uint32_t to = up(h, i, last);
    put(h, to == i ? down(h, i, last) : to, last);
}

void by_heap_fix(struct by_heap *h, struct by_heap_node *node) {
    by_heap_remove(h, node);
    by_heap_push(h, node);
}

struct by_heap_node *by_heap_first(const struct by_heap *h) {
    return h->n ? h->at[0] : NULL;
}

struct by_heap_node *by_heap_pop(struct by_heap *h) {
    struct by_heap_node *node = by_heap_first(h);
    if (node) by_heap_remove(h, node);
    return node;
}

bool by_heap_check(const struct by_heap *h) {
    for (uint32_t i = 0; i < h->n; i++) {
        if (h->at[i]->index != i) return false;
        if (i && h->before(h->at[i], h->at[(i - 1) / 2])) return false;
    }
    return true;
}
