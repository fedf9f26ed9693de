/* policy.h - in which order those who wait are asked in.
 *
 *     fcfs                    as they came
 *     fair                    the tenant with the least counter; within a tenant as they came (tenant.h)
 *     priority                the highest first; above a gap a waiting one takes the place of a running one
 *     lpm                     longest prefix in the tree first
 *     dfs-weight              a walk through the tree: whoever shares a branch follows one another, heaviest branch first
 *     lof                     most tokens to generate first
 *     shortest-prefill-first  fewest prompt tokens to compute first
 *
 * The last four sort a window of the oldest; whoever has waited for ten seconds goes first there, so nobody starves.
 * A round (begin, next …, end) hands out each candidate once; candidates may enter, fail or stay meanwhile. Who is too long for
 * the round's replica is none, and hides nobody behind it (under priority: 128 of them do).
 * Always: what waits is in core.waiting in order of arrival, and in its tenant's list in order of arrival.
 * Owner: the scheduler core, one thread. */
#ifndef SCHEDULER_POLICY_H
#define SCHEDULER_POLICY_H

#include "scheduler/tenant.h"

enum policy_kind {
    POLICY_FCFS,
    POLICY_FAIR,
    POLICY_PRIORITY,
    POLICY_LPM,
    POLICY_DFS_WEIGHT,
    POLICY_LOF,
    POLICY_SHORTEST_PREFILL,
};
enum { POLICY_WINDOW = 128, POLICY_ASKED_MAX = 64 };

struct core;
struct radix_node;
struct replica;
struct seq;
struct policy_pick {
    struct seq *seq;               /* NULL: it left meanwhile */
    const struct radix_node *node; /* dfs-weight: where its match ends */
    uint64_t key;                  /* the least goes first */
};
struct policy {
    enum policy_kind kind;
    struct by_heap by_priority; /* POLICY_PRIORITY: of seq.in_priority */
    bool in_round;
    uint64_t round;
    const struct replica
        *replica; /* that the round is for; who is too long for it is passed over */
    uint32_t n_asked;
    struct by_list *at;      /* fcfs, fair: the next one */
    const struct tenant *of; /* fair: whose; so many of its list were looked at */
    uint32_t n_looked;
    /* windows: sorted; priority: those taken out of the heap */
    struct policy_pick pick[POLICY_WINDOW];
    uint32_t n_picks, i_pick;
    /* fair: taken out of the heap until the end of the round */
    struct tenant *aside[POLICY_ASKED_MAX];
    uint32_t n_aside;
};

BY_MUST_USE bool policy_parse(const char *name, enum policy_kind *out);
const char *policy_name(enum policy_kind kind);
void policy_init(struct policy *p, enum policy_kind kind);
void policy_release(struct policy *p);

/* s, in state WAITING and in core.waiting, joins or leaves those who are asked. */
void policy_push(struct core *c, struct seq *s);
void policy_pull(struct core *c, struct seq *s);

void policy_begin(struct core *c, struct replica *r);
struct seq *policy_next(struct core *c); /* NULL: nobody is left, or enough were asked */
void policy_end(struct core *c);

/* Should the first who waits get its prompt tokens before the running prompts do? */
bool policy_is_ahead(struct core *c, struct replica *r);
/* The running prompt of r that goes on next, of those not handed out in this round; NULL: that was all. */
struct seq *policy_next_prefill(struct core *c, struct replica *r, uint64_t round);
/* The running sequence of r that gives its place to s, or NULL. */
struct seq *policy_victim(struct core *c, struct replica *r, const struct seq *s);
/* When somebody must give way: does a go before b? */
bool policy_gives_way(const struct core *c, const struct seq *a, const struct seq *b);

#endif
