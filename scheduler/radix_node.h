/* radix_node.h - the nodes behind radix.h; read radix.h first. Only the radix_*.c files include this.
 *
 *     bucket[hash(parent, first page)] ─▶ node ─chain─▶ node        finds a child without asking its siblings
 *     parent ─child─▶ node ⇄ node ⇄ node                            walks them: show, check, top-k
 *
 * Always: hold[r].pages != NULL exactly when replica r holds the node (roots: never); n_holders counts those.
 * Owner: radix.c. */
#ifndef SCHEDULER_RADIX_NODE_H
#define SCHEDULER_RADIX_NODE_H

#include "common/base/heap.h"
#include "common/base/map.h"
#include "scheduler/radix.h"

struct radix_hold {           /* one node as one replica sees it */
    struct radix_node *node;  /* back pointer, for the heap */
    uint32_t *pages;          /* [node->n_pages], NULL: not held */
    size_t pages_cap;         /* bytes */
    uint32_t n_lock;          /* locks on this node or below */
    uint32_t n_kids;          /* children that this replica holds */
    struct states_run states; /* those filed in it */
    struct by_heap_node leaf; /* in heap[r] while evictable */
    uint64_t key[2];          /* as of the push; the least goes first */
};

struct radix_node {
    struct radix_node *parent; /* NULL: the root of a space */
    struct radix_node *child;  /* the first one */
    struct radix_node *prev, *next;
    struct radix_node *chain; /* next in the bucket */
    size_t cap;               /* bytes of this block */
    uint64_t id; /* never reused: keys of the buckets; of a leaf that is trimmed another one */
    uint64_t hash;
    uint32_t *tokens; /* [n_pages * page_size] */
    size_t tokens_cap;
    uint32_t n_pages;
    uint32_t n_holders;
    uint64_t last_used, created; /* ticks */
    uint64_t n_hits;
    int32_t priority;
    uint32_t weight; /* of the branch, in round weight_round (radix_order.c) */
    uint64_t weight_round;
    struct by_str space; /* roots: the key, owned */
    struct radix_hold hold[];
};

struct radix_replica {
    struct pages *pages;   /* NULL: not there */
    struct states *states; /* NULL: pages are all that a prefix needs */
    struct by_heap leaves; /* evictable holds, by key */
    uint32_t n_held, n_locked;
};

struct radix {
    uint32_t page_size, n_replicas;
    enum radix_policy policy;
    struct pool *pool;
    struct by_strmap spaces; /* key -> root */
    struct radix_node **bucket;
    size_t n_buckets; /* a power of two */
    uint32_t n_nodes;
    uint64_t tick, next_id, n_evicted;
    struct radix_replica replica[RADIX_REPLICAS_MAX];
};

/* radix.c */
uint64_t radix_hash(const struct radix *t, const struct radix_node *parent, const uint32_t *page);
struct radix_node *radix_child(const struct radix *t, const struct radix_node *parent,
                               const uint32_t *page);
struct radix_node *radix_marked(const struct radix *t,
                                const struct radix_mark *mark); /* NULL: gone */
struct radix_node *radix_split(struct radix *t, struct radix_node *n, uint32_t k);
void radix_node_free(struct radix *t, struct radix_node *n);
/* radix_evict.c: call after anything that may make (n, r) a leaf or stop it being one. */
void radix_leaf_update(struct radix *t, struct radix_node *n, uint32_t r);
void radix_root_tidy(struct radix *t, struct radix_node *root); /* frees an empty, unlocked root */
bool radix_leaf_before(const struct by_heap_node *a, const struct by_heap_node *b);

#endif
