/* moe.h - the feed-forward that is routed to a few of many experts, in place of a dense one or beside it.
 *
 *     x ─norm─▶ router ─▶ n_used experts and their weights ─▶ x += sum of weight * expert(norm(x)) + shared(norm(x))
 *
 *     beside (Gemma 4):  x += post(norm1(dense(norm(x))) + norm2(sum of weight * expert(norm'(x))))
 *
 * Always: an expert is two matrices, gate and up in one; layer->moe is NULL in a dense layer.
 * Owner: the decoder. */
#ifndef GPU_WORKER_MODELS_MOE_H
#define GPU_WORKER_MODELS_MOE_H

#include "gpu_worker/models/bind.h"

void moe_forward(const struct pass *p, const struct layer *l);
/* act(gate) * up of the dense one is in d->ffn. */
void moe_beside(const struct pass *p, const struct layer *l);
BY_MUST_USE int moe_bind(struct binder *b, struct layer *l, uint32_t layer);
void moe_release(struct decoder *d, struct moe *m); /* NULL is fine */

#endif
