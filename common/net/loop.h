/* loop.h - the poll loop of every process but the router: fds and timers, one function a wake-up.
 *
 *     while (!stop) { poll(fds, until the next timer); call whoever is due; }
 *
 * Always: blocks in poll when there is nothing to do (0 % CPU when idle). Callbacks run on the loop's thread and may
 * add and remove sources. Level-triggered poll on an edge-triggered fd is fine as long as the callback drains.
 * Owner: one thread. Ends when by_proc_should_stop() (unless a drain hook says wait) or by_loop_stop. */
#ifndef COMMON_NET_LOOP_H
#define COMMON_NET_LOOP_H

#include "common/base/base.h"

struct by_loop;
typedef void by_loop_fn(void *ctx, uint64_t now_ns);

struct by_loop *by_loop_new(void);
void by_loop_free(struct by_loop *l);
/* called when readable */
void by_loop_add_fd(struct by_loop *l, int fd, by_loop_fn *fn, void *ctx);
void by_loop_remove_fd(struct by_loop *l, int fd);
/* Calls fn once at or after due_ns (monotonic); setting it again moves it, 0 switches it off. Keyed by (fn, ctx). */
void by_loop_set_timer(struct by_loop *l, uint64_t due_ns, by_loop_fn *fn, void *ctx);
/* Called after each round of callbacks, before sleeping: the place to build a step from all that came in. */
void by_loop_set_idle(struct by_loop *l, by_loop_fn *fn, void *ctx);
void by_loop_run(struct by_loop *l);
void by_loop_stop(struct by_loop *l);

#endif
