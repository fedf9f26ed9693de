/* kv.h - how much KV cache a worker has, and in which type: decided once, at start.
 *
 *     --max-total-tokens N          N tokens, or a sentence that says what fits
 *     without it                    --mem-fraction-static of the memory that is free, on a host no more than 16 longest sequences
 *                                   (or 65,536 tokens): address space that nobody touches costs nothing, a report that
 *                                   promises millions of tokens misleads
 *     states, where a model has some  one for each of --max-running-requests, but no more than half of that memory: fewer
 *                                   sequences then run at a time; of the rest, half again for two to keep for each of them
 *
 * Always: one longest sequence fits. A --context-length that does not is refused with what does; the model's own is
 * lowered to it.
 * Owner: no state. */
#ifndef GPU_WORKER_KV_H
#define GPU_WORKER_KV_H

#include "common/base/err.h"
#include "common/base/options.h"
#include "common/modelfile/model_dir.h"
#include "gpu_worker/backend.h"

/* --kv-cache-dtype; auto: as precise as the weights are (f32 for f32, bf16 for bf16), f16 for all others. */
enum kv_dtype kv_choose_dtype(const char *word, const struct by_model_dir *dir);
const char *kv_dtype_name(enum kv_dtype t);
/* Does the backend have it? */
BY_MUST_USE int kv_check_dtype(enum kv_dtype t, const struct backend *b, struct by_err *err);
struct kv_plan {
    size_t page_bytes, state_bytes; /* of a page, of a slot (0: it has none) */
    uint32_t n_slots, context_len;  /* what is wanted, and then what there is room for */
    uint32_t n_pages, n_kept;       /* worked out: pages, states beside those of the slots */
};
/* Of the memory that b's device has left, or the machine. */
BY_MUST_USE int kv_plan(struct kv_plan *p, const struct by_options *o, struct backend *b,
                        struct by_err *err);
/* Pages for an encoder's steps, whose keys and values nobody needs afterwards: those of two steps in flight. */
uint32_t kv_plan_steps(const struct by_options *o, uint32_t rows_max);
/* bytes this process may still take: the machine's, or its cgroup's if that is less */
uint64_t kv_free_memory(void);

#endif
