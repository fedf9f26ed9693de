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

#endif
