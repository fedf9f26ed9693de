/* delta.h - gated delta nets (Qwen3-Next, Qwen3.5): linear attention that keeps a matrix a value head instead of keys and values.
 *
 *     W norm(x) ─▶ q k v ─conv over the last tokens, act─▶ q, k of length 1 ─┐        a ─▶ decay d of the state
 *                  z, b, a                                                   │        b ─▶ strength s of the update
 *     m = d * S^T k      S = d * S + k (s * (v - m))^T      o = S^T q  ─▶ norm(o) * silu(z) ─out─▶ +
 *
 * Always: as states.h says.
 * Owner: states.c. */
#ifndef GPU_WORKER_MODELS_DELTA_H
#define GPU_WORKER_MODELS_DELTA_H

#include "gpu_worker/models/states.h"

struct state_cols delta_state_cols(const struct by_model_info *m);
void delta_round(const struct pass *p, const struct state_layer *x, const struct seq_rows *seqs,
                 uint32_t n_seqs);
BY_MUST_USE int delta_bind(struct binder *b, struct layer *l, uint32_t layer);

#endif
