/* queue.h - one run of the forward pass as a list of commands; a list that comes again is started as one graph.
 *
 *     begin ─▶ stage host arrays, add kernels ─▶ end:  list ──seen before, byte for byte──▶ graph (recorded at the 2nd sight)
 *                                                         └──new──▶ one launch after the other
 *
 *     staging:  | ids | positions | rows | pages … |   pinned, a ring of PORT_MARKS ─copied─▶ device, always at the same place
 *
 * A decode step of n rows differs from the last one in what the staged arrays hold, not in the commands: room for an array
 * is rounded up to a power of two, so that its neighbours stay where they are. So no kernel knows of graphs, and a graph
 * can never be stale: every argument of every command is compared.
 * A list in which ranks meet is a graph on all of them or on none, for NCCL wants it so: where the device has no memory for another
 * graph, those that were not used for longest make room, and are recorded anew when their list comes again.
 * Always: the same host pointer and size staged twice in a run is copied once. Nothing is allocated once lists and arrays
 * have had their largest size, but for new graphs.
 * Owner: cuda_backend.c, the gpu worker's main thread. Compiles as C++. */
#ifndef GPU_WORKER_CUDA_QUEUE_H
#define GPU_WORKER_CUDA_QUEUE_H

#include "gpu_worker/cuda/port.h"

#ifdef __cplusplus
extern "C" {
#endif

struct queue;

struct queue_counts {
    uint64_t n_runs, n_graph_runs, n_graphs, n_commands;
};

struct queue *queue_new(struct port *p, bool use_graphs);
void queue_free(struct queue *q);

void queue_begin(struct queue *q);
/* A kernel with its one argument, copied. */
void queue_add(struct queue *q, const struct port_launch *l, const void *args);
/* A call of the host that enqueues work itself (a library); args are copied, ctx is not compared. */
void queue_call(struct queue *q, int (*fn)(void *ctx, const void *args), void *ctx,
                const void *args, uint32_t n_args);
/* The same, of a call in which ranks meet. */
void queue_meet(struct queue *q, int (*fn)(void *ctx, const void *args), void *ctx,
                const void *args, uint32_t n_args);
/* The device's copy of n bytes at host: there when the commands of this run are. */
const void *queue_stage(struct queue *q, const void *host, size_t n);
/* Room of n bytes to be filled at once: *device is where it will lie. An array that is made of another one is named by that
 * one's address and a number of its own; *is_new is false when it was made in this run already. */
void *queue_room(struct queue *q, const void *of, uint64_t variant, size_t n, const void **device,
                 bool *is_new);
/* After the commands of this run n bytes are copied to `to`, pinned memory; once a run. */
void queue_fetch(struct queue *q, void *to, const void *from, size_t n);
/* Hands all over to the device; does not wait. */
BY_MUST_USE int queue_end(struct queue *q);
/* Is the run done that was the n-th to end? 1: yes, 0: not yet, -1: the device failed, or took longer than deadline_ms for it since
 * the one before it was seen to be done. */
BY_MUST_USE int queue_reached(struct queue *q, uint64_t n, uint32_t deadline_ms);
/* Until all that was handed over is done. */
BY_MUST_USE int queue_wait(struct queue *q, uint32_t deadline_ms);
void queue_forget(struct queue *q); /* all graphs, what is under way included */
struct queue_counts queue_counted(const struct queue *q);

#ifdef __cplusplus
}
#endif
#endif
