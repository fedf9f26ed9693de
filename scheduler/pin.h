/* pin.h - prefixes that stay in the tree until a time: locks that no sequence holds.
 *
 *     pin {ids, ttl} ─▶ longest match on each replica, locked ─▶ ttl passes, or unpin, or the replica is lost
 *
 * Always: on each replica the pins lock at most half of the pages, so that work goes on, and give way one by one to a
 * sequence that runs alone and finds no page; at most PINS_MAX pins stand.
 * Owner: the scheduler core, one thread. */
#ifndef SCHEDULER_PIN_H
#define SCHEDULER_PIN_H

#include "common/base/err.h"
#include "common/base/list.h"
#include "scheduler/radix.h"

enum { PINS_MAX = 1000 };

struct core;
struct replica;
struct pin {
    struct by_list link; /* in core.pins, the next to expire first */
    uint64_t id, due_ns;
    struct radix_at at[RADIX_REPLICAS_MAX]; /* node NULL: nothing there */
};

/* *n_tokens: what the best replica holds of it now (0: nothing, and no pin was made). */
BY_MUST_USE int pin_add(struct core *c, struct by_str space, const uint32_t *ids, uint32_t n_ids,
                        uint64_t ttl_ns, uint64_t *id, uint32_t *n_tokens, struct by_err *err);
bool pin_remove(struct core *c, uint64_t id); /* false: no such pin */
void pin_expire(struct core *c, uint64_t now_ns);
uint64_t pin_next_due(const struct core *c);          /* UINT64_MAX: none */
bool pin_give_way(struct core *c, struct replica *r); /* the next to expire; false: none is there */
void pin_replica_lost(struct core *c, struct replica *r);

#endif
