/* radix_order.c - the order of a walk through the tree, for --schedule-policy dfs-weight. */
#include "scheduler/radix_node.h"

struct radix_node *radix_find(const struct radix *t, struct by_str space,
                              const struct radix_mark *mark, uint32_t replica) {
    uint64_t root;
    struct radix_node *n = radix_marked(t, mark);
    if (!n)
        return by_strmap_get(&t->spaces, space, &root) ? (struct radix_node *)(uintptr_t)root
                                                       : NULL;
    if (mark->n_pages < n->n_pages) n = n->parent;
    while (n->parent && !n->hold[replica].pages)
        n = n->parent;
    return n;
}

void radix_weigh(struct radix_node *node, uint64_t round) {
    for (struct radix_node *n = node; n; n = n->parent) {
        if (n->weight_round != round) n->weight = 0;
        n->weight_round = round;
        n->weight++;
    }
}

static uint32_t depth_of(const struct radix_node *n) {
    uint32_t depth = 0;
    for (; n && n->parent; n = n->parent)
        depth++;
    return depth;
}

bool radix_weighs_before(const struct radix_node *a, const struct radix_node *b) {
    if (!a || !b) return a != NULL; /* a space nobody has anything in goes last */
    uint32_t da = depth_of(a), db = depth_of(b);
    bool a_above = da < db, b_above = db < da;
    for (; da > db; da--)
        a = a->parent;
    for (; db > da; db--)
        b = b->parent;
    if (a == b) return a_above || !b_above; /* one lies on the other's path: the shorter first */
    while (a->parent != b->parent) {
        a = a->parent;
        b = b->parent;
    }
    if (a->weight != b->weight) return a->weight > b->weight;
    /* Weights fall as branches are worked off: stay on the one in hand. */
    return a->last_used != b->last_used ? a->last_used > b->last_used : a->id < b->id;
}
