/* mamba.h - Mamba-2 (Granite 4 H, Bamba): a state space whose matrix a head decays by as much as the token says.
 *
 *     W norm(x) ─▶ x B C ─conv over the last tokens, act─┐        t = softplus(t + dt), within limits
 *                  z, t                                  │
 *     S = exp(decay * t) * S + B (t * x)^T      y = S^T C + skip * x  ─▶ norm(y * silu(z)), by groups of heads ─out─▶ +
 *
 * B and C are a group's. In the qkv buffer: x, B, C, z, t.
 * Always: as states.h says; t is kept in f32 whatever the file or --quantization says, as a delta net's decay.
 * Owner: states.c. */
#ifndef GPU_WORKER_MODELS_MAMBA_H
#define GPU_WORKER_MODELS_MAMBA_H

#include "gpu_worker/models/states.h"

struct state_cols mamba_cols(const struct by_model_info *m);
void mamba_round(const struct pass *p, const struct state_layer *x, const struct seq_rows *seqs,
                 uint32_t n_seqs);
/* The norm, of the rows in hand. */
void mamba_finish(const struct pass *p, const struct state_layer *x);
BY_MUST_USE int mamba_bind(struct binder *b, struct layer *l, uint32_t layer);

#endif
