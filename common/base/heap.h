/* heap.h - intrusive binary min-heap: timers, eviction order.
 *
 *     at[0] is the least; children of i are 2i+1 and 2i+2; every node knows its index, so removal is O(log n).
 *
 * Always: before(child, parent) is false; at[i]->index == i. A node in no heap has index BY_HEAP_OUT.
 * Owner: one thread; the array grows by doubling and never shrinks. */
#ifndef COMMON_BASE_HEAP_H
#define COMMON_BASE_HEAP_H

#include "common/base/base.h"

enum { BY_HEAP_OUT = 0xFFFFFFFFu };

struct by_heap_node {
    uint32_t index; /* BY_HEAP_OUT when in no heap; set it so before the first push */
};
struct by_heap {
    struct by_heap_node **at;
    uint32_t n, cap;
    bool (*before)(const struct by_heap_node *a, const struct by_heap_node *b);
};

void by_heap_init(struct by_heap *h,
                  bool (*before)(const struct by_heap_node *, const struct by_heap_node *));
void by_heap_release(struct by_heap *h);
void by_heap_push(struct by_heap *h, struct by_heap_node *node);
void by_heap_remove(struct by_heap *h, struct by_heap_node *node);
void by_heap_fix(struct by_heap *h, struct by_heap_node *node); /* its key changed */
struct by_heap_node *by_heap_first(const struct by_heap *h);    /* NULL when empty */
struct by_heap_node *by_heap_pop(struct by_heap *h);            /* NULL when empty */
bool by_heap_check(const struct by_heap *h);

#endif
