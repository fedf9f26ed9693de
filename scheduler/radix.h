/* radix.h - the one prefix tree: which token runs have their KV in which pages, on which replica.
 *
 *     space "" ── [the cat sat] ─┬─ [on the mat .]         one node = one run of whole pages; for each replica
 *                 r0: 4 9 1      │   r0: 7 2               that holds it: page numbers, locks
 *                 r1: 3 3 8      └─ [down and slept]
 *                                    r1: 5 6               (r0 lacks this branch)
 *
 *     a split: [a b c d] locked 2   ──at b|c──▶   [a b] locked 2 ── [c d] locked 2     pointers stay on the lower half
 *
 * Keys are token ids under a space (model, adapter, cache salt), compared a page at a time; only whole pages live here.
 * A lock on a node covers its path to the root: locked pages are never evicted. The tree has one ref (pages.h) on each
 * page it holds. Evictable leaves wait in a heap for each replica, kept up to date as locks and children come and go;
 * their keys only grow, so a stale key is mended when it is popped.
 *
 * Where a model carries a state along, a prefix ends at a page that a state stands behind (states.h). States are filed in the
 * runs, and leave the tree with their pages.
 *
 * Always: siblings differ in their first page; a replica that holds a node holds its parent; lock(node) >= sum of its
 * children's locks; a node that nobody holds is gone; the leaf heap of a replica is exactly its nodes without lock
 * and without a child it holds.
 * Owner: the scheduler core, one thread. */
#ifndef SCHEDULER_RADIX_H
#define SCHEDULER_RADIX_H

#include "common/base/buf.h"
#include "scheduler/pages.h"
#include "scheduler/pool.h"
#include "scheduler/states.h"

enum radix_policy { RADIX_LRU, RADIX_LFU, RADIX_FIFO, RADIX_SLRU, RADIX_PRIORITY };
enum { RADIX_REPLICAS_MAX = 64 };

struct radix;
struct radix_node;
/* A place on a page border: the end of `node`, n_pages from the root. */
struct radix_at {
    struct radix_node *node;
    uint32_t n_pages;
};

struct radix *radix_new(uint32_t page_size, uint32_t n_replicas, enum radix_policy policy,
                        struct pool *pool);
void radix_free(struct radix *t); /* gives no page back: the replicas' page tables go with it */
BY_MUST_USE bool radix_policy_parse(const char *name, enum radix_policy *out);

/* A replica comes with its empty page table (borrowed), and that of its states if its model has any (NULL: it has not), and
 * goes: what it held is forgotten, its locks must be gone. */
void radix_join(struct radix *t, uint32_t replica, struct pages *pages, struct states *states);
void radix_leave(struct radix *t, uint32_t replica);

/* The root of a space; made when it is new. It stays while it has nodes or locks. */
struct radix_node *radix_root(struct radix *t, struct by_str space);
/* How much of the first n_pages pages of ids each replica holds. Changes nothing in the tree. The mark, zeros at first and the
 * same ids' and space's each time, remembers where that was: who asks again is not compared again up to there, though the tree
 * may have changed. */
struct radix_held {
    uint32_t n_pages;   /* with states: up to the last one */
    uint32_t n_locked;  /* of them, those under a lock */
    uint32_t n_matched; /* whether there is a state or not */
};
struct radix_mark {
    uint64_t id, hash;          /* of the last node that matched; it may be gone */
    uint32_t n_before, n_pages; /* pages before it, and of its run those that matched */
};
void radix_peek(const struct radix *t, struct by_str space, const uint32_t *ids, uint32_t n_pages,
                struct radix_mark *mark, struct radix_held *held /* [n_replicas] */);
/* The longest prefix of ids, at most n_pages pages, that the replica holds; its page numbers go to pages (may be
 * NULL). A node is split if the match ends inside it. Counts as a use. */
struct radix_at radix_match(struct radix *t, struct radix_node *root, uint32_t replica,
                            const uint32_t *ids, uint32_t n_pages, uint32_t *pages);
/* Files pages[at.n_pages … n_pages) of ids below `at`: {root, 0}, or a place whose lock is the caller's. Runs that the
 * replica already holds keep the pages they have; the caller's stay the caller's. */
struct radix_at radix_insert(struct radix *t, struct radix_at at, uint32_t replica,
                             const uint32_t *ids, uint32_t n_pages, const uint32_t *pages,
                             int32_t priority);
/* The caller, who holds the lock at `at`, goes on with pages of its own: its lock moves to the last place up to which the
 * way holds just these, and what was behind is forgotten as far as nobody else needs it. Returns that place. */
struct radix_at radix_let_go(struct radix *t, struct radix_at at, uint32_t replica,
                             const uint32_t *pages);
/* The state behind the first n_pages pages of the way to `at`, whose lock is the caller's, is kept under this number. */
void radix_keep(struct radix *t, struct radix_at at, uint32_t replica, uint32_t n_pages,
                uint32_t number, bool is_chat);
/* The number of the state at this very place, which is there. Counts as a use. *chat_stamp: its stamp where it is a chat's next turn
 * that starts here, as far as one can see: nobody has used it before, and no two go on from here. Otherwise 0. */
uint32_t radix_use_state(struct radix *t, struct radix_at at, uint32_t replica,
                         uint64_t *chat_stamp);
void radix_lock(struct radix *t, struct radix_node *node, uint32_t replica);
void radix_unlock(struct radix *t, struct radix_node *node, uint32_t replica);
/* Forgets at least n_pages evictable pages, worst first, or all there are; returns how many. */
uint32_t radix_evict(struct radix *t, uint32_t replica, uint32_t n_pages);

/* For a depth-first order of those who wait: the last node that lies wholly within what radix_peek found, and is held; each
 * waiting one adds its weight to the path; then the branches compare. NULL: nobody has anything in that space. */
struct radix_node *radix_find(const struct radix *t, struct by_str space,
                              const struct radix_mark *mark, uint32_t replica);
void radix_weigh(struct radix_node *node, uint64_t round);
bool radix_weighs_before(const struct radix_node *a, const struct radix_node *b);

uint32_t radix_n_held(const struct radix *t, uint32_t replica);      /* pages */
uint32_t radix_n_evictable(const struct radix *t, uint32_t replica); /* of them, not locked */
uint32_t radix_n_nodes(const struct radix *t);                       /* roots not counted */
uint64_t radix_n_evicted(const struct radix *t);                     /* pages, since the start */
uint32_t radix_n_locks(const struct radix *t, uint32_t replica);     /* taken and not given back */
/* The runs that saved most: by tokens times hits. ids and space are borrowed until the tree changes. */
struct radix_top {
    const uint32_t *ids; /* [n_tokens] */
    uint32_t n_tokens, n_path_tokens;
    uint64_t n_hits, replicas; /* a bit each */
    struct by_str space;
};
/* Fills out[], at most n; returns how many. */
uint32_t radix_top(const struct radix *t, struct radix_top *out, uint32_t n);
bool radix_check(const struct radix *t);
/* The tree as text, one node a line: for a person who looks at a failing seed. */
void radix_show(const struct radix *t, struct by_buf *out);

#endif
