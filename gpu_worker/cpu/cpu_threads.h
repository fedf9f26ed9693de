/* cpu_threads.h - a team of threads that run the same function and share out its work, phase by phase.
 *
 *     lane 0 (the caller)  ─run─▶ fn: | next next next … meet | next … meet | … ─▶ back
 *     lane 1               asleep ▶ fn: | next next … meet    | next … meet | … ─▶ spin 25 us, then asleep
 *     lane 2, has no CPU    . . . . . . . . . . . . . ▶ fn: |meet|meet|meet| next … : catches up, nobody waited for it
 *
 * A phase is over when its pieces are done, not when all lanes have come: who was late finds nothing left of it and goes
 * on. So a lane that the kernel keeps from its CPU delays the others by the piece it has in hand, and by nothing when it
 * has none; fn may even be over before a lane begins.
 * Always: before `next` has handed a lane a piece, and after the last one, it reads nothing that a later phase writes.
 * Who waits spins for at most 25 us and then sleeps on a futex: other processes share these CPUs (figures: README.md).
 * Idle lanes use no CPU.
 * Owner: the thread that made the team; it alone calls run. */
#ifndef GPU_WORKER_CPU_CPU_THREADS_H
#define GPU_WORKER_CPU_CPU_THREADS_H

#include "common/base/err.h"

struct cpu_team;

/* n lanes, the caller's included. BY_ENOMEM or BY_EIO when a thread cannot be started. */
BY_MUST_USE int cpu_team_new(struct cpu_team **out, uint32_t n, struct by_err *err);
void cpu_team_free(struct cpu_team *t); /* NULL is fine; waits for the threads */
/* fn runs as lane 0, and as each of the others that comes before lane 0 is back from it. Returns when all are. */
void cpu_team_run(struct cpu_team *t, void (*fn)(void *ctx, uint32_t lane), void *ctx);
/* 0 … n-1, each to one lane; UINT32_MAX: no more, to be followed by meet or the end of fn. Asking again says that the
 * piece is done. All lanes give the same n. */
uint32_t cpu_team_next(struct cpu_team *t, uint32_t lane, uint32_t n);
/* Returns when all pieces of the phase are done; the next phase begins. */
void cpu_team_meet(struct cpu_team *t, uint32_t lane);

#endif
