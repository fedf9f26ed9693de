/* delta.h - gated delta nets (Qwen3-Next, Qwen3.5): linear attention that keeps a matrix a value head instead of keys and values.
 *
 *     W norm(x) ─▶ q k v ─conv over the last tokens, act─▶ q, k of length 1 ─┐        a ─▶ decay d of the state
 *                  z, b, a                                                   │        b ─▶ strength s of the update
 *     m = d * S^T k      S = d * S + k (s * (v - m))^T      o = S^T q  ─▶ norm(o) * silu(z) ─out─▶ +
 *
 * A slot of the worker has a state of its own in each such layer: the window of the convolution and the heads' matrices. It
 * goes on from row to row of its sequence, and begins with zeroes at position 0, or with a copy of one that was kept.
 * Always: token by token, in one order of sums: a state's bits depend on its sequence's tokens alone (DESIGN D6).
 * Owner: decoder.c; every rank of a group has the whole of it. */
#ifndef GPU_WORKER_MODELS_DELTA_H
#define GPU_WORKER_MODELS_DELTA_H

#include "gpu_worker/models/bind.h"

/* Where its parts lie in the qkv buffer (q from column 0 on), and how wide its output is. All 0 without such layers. */
struct delta_cols {
    uint32_t k, v, z, b, a, all, out;
};
struct delta_cols delta_cols(const struct by_model_info *m);

/* Once a step, for all layers: d->rounds. */
void delta_plan(struct decoder *d, const struct model_step *s);
void delta_new_rounds(struct decoder *d); /* nothing, of a model without states */
void delta_free_rounds(struct decoder *d);
/* Convolution and states, for all rows of the step; their projections are in the qkv buffer, the output goes to attn. */
void delta_run(const struct pass *p, const struct layer *l);

BY_MUST_USE int delta_bind(struct binder *b, struct layer *l, uint32_t layer);
void delta_release(struct decoder *d, struct delta *x); /* NULL is fine, here and below */

size_t delta_state_bytes(const struct by_model_info *m); /* of a slot in one layer */
/* Of d->n_slots slots and d->n_kept to keep. False: not enough memory. */
BY_MUST_USE bool delta_new_states(struct decoder *d, struct delta *x);
void delta_free_states(struct decoder *d, struct delta *x);

#endif
