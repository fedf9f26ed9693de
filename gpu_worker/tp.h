/* tp.h - tensor parallelism: the ranks of one group add up what each has computed.
 *
 *     rank 0 [ partial ]─┐
 *     rank 1 [ partial ]─┼─▶ sum, in the order of ranks ─▶ the same bits on every rank
 *     rank 2 [ partial ]─┘
 *
 * Rank 0 opens a group and hands its address to the others through the scheduler (hello ─▶ group); a group lives as long as
 * the session. CPU ranks meet in shared memory (tp_local.c), GPUs through NCCL (cuda/).
 * Always: every rank makes the same calls in the same order, with the same sizes. A rank that is dead, or silent past the
 * deadline, fails the call on all others: BY_EUNAVAILABLE, and the group is of no more use.
 * Owner: the thread that computes; one call at a time. */
#ifndef GPU_WORKER_TP_H
#define GPU_WORKER_TP_H

#include "common/base/err.h"
#include "common/base/str.h"

enum { TP_RANKS_MAX = 16, TP_ADDRESS_MAX = 256 };

struct tp;

/* Rank 0. deadline_ms: how long a call waits for a rank that is alive but silent. */
BY_MUST_USE int tp_open(struct tp **out, uint32_t world, uint32_t deadline_ms, struct by_err *err);
const char *tp_address(const struct tp *tp); /* what the others pass to tp_join */
/* Ranks 1 … world - 1. The address came over the wire: it is checked. */
BY_MUST_USE int tp_join(struct tp **out, struct by_str address, uint32_t rank, uint32_t world,
                        uint32_t deadline_ms, struct by_err *err);
void tp_close(struct tp *tp); /* NULL is fine; the others' next call fails */

uint32_t tp_rank(const struct tp *tp);
uint32_t tp_world(const struct tp *tp);
/* x[n] becomes the sum over ranks. */
BY_MUST_USE int tp_sum(struct tp *tp, float *x, size_t n);
/* all[world][n] from each rank's x[n], in the order of ranks. */
BY_MUST_USE int tp_gather(struct tp *tp, const float *x, size_t n, float *all);

#endif
