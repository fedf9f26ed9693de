/* short_conv.h - gated short convolutions (LFM2): each column of x by itself over the last few tokens, gated before and behind.
 *
 *     W norm(x) ─▶ b c x        y = c * conv(b * x) ─out─▶ +
 *
 * Always: as states.h says; the window holds what b has gated. In the qkv buffer x comes first, as it is what convolves.
 * Owner: states.c. */
#ifndef GPU_WORKER_MODELS_SHORT_CONV_H
#define GPU_WORKER_MODELS_SHORT_CONV_H

#include "gpu_worker/models/states.h"

struct state_cols short_conv_cols(const struct by_model_info *m);
void short_conv_round(const struct pass *p, const struct state_layer *x,
                      const struct seq_rows *seqs, uint32_t n_seqs);
BY_MUST_USE int short_conv_bind(struct binder *b, struct layer *l, uint32_t layer);

#endif
