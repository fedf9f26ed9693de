/* cpu_threads.h - a team of threads that run the same function, meet at barriers and share out numbers.
 *
 *     lane 0 (the caller)  ─run─▶ fn ──── barrier ──── fn ends ─▶ back
 *     lanes 1 … n-1       asleep ▶ fn ──── barrier ──── fn ends ─▶ spin 25 us, then asleep
 *
 * Always: who waits spins for at most 25 us and then sleeps on a futex. Other processes share these CPUs, and the kernel
 * may put two lanes on one CPU: then each barrier costs at most the spin, not a time slice (measured: reference figures
 * in README.md). Idle lanes use no CPU. The counter of team_next starts from 0 after each barrier.
 * Owner: the thread that made the team; it alone calls run. */
#ifndef GPU_WORKER_CPU_CPU_THREADS_H
#define GPU_WORKER_CPU_CPU_THREADS_H

#include "common/base/err.h"

struct cpu_team;

/* n lanes, the caller's included. BY_ENOMEM or BY_EIO when a thread cannot be started. */
BY_MUST_USE int cpu_team_new(struct cpu_team **out, uint32_t n, struct by_err *err);
void cpu_team_free(struct cpu_team *t); /* NULL is fine; waits for the threads */
void cpu_team_run(struct cpu_team *t, void (*fn)(void *ctx, uint32_t lane), void *ctx);
void cpu_team_barrier(struct cpu_team *t);
/* 0, 1, 2 … to whoever asks; the count begins anew at each barrier. */
uint32_t cpu_team_next(struct cpu_team *t);

#endif
