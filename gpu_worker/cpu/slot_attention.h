/* slot_attention.h - attention over a pool of slots for the Transformers worker: shapes and rules in kernels.h.
 *
 *     task = (sequence, kv head, block of query rows); keys in blocks of 64, a running maximum and sum (Milakov and
 *     Gimelshein, "Online normalizer calculation for softmax", 2018)
 *
 * Always: f32 inside whatever the dtype; the order of keys is the order of positions, whatever the batch or threads.
 * Owner: the caller; no state. */
#ifndef GPU_WORKER_CPU_SLOT_ATTENTION_H
#define GPU_WORKER_CPU_SLOT_ATTENTION_H

#include "gpu_worker/kernels/kernels.h"

int slot_attention_run(const struct banyan_attention *a, int n_threads);

/* The same in pieces, for a caller that has threads: how many tasks (-1: a size makes no sense); each row's key and value into its
 * slot; when all are there, the tasks that next gives, until it gives none of 0 … n_tasks - 1. */
int64_t slot_attention_count(const struct banyan_attention *a);
void slot_attention_write(const struct banyan_attention *a, int row);
void slot_attention_tasks(const struct banyan_attention *a, uint32_t n_tasks,
                          uint32_t (*next)(void *ctx), void *ctx);

#endif
