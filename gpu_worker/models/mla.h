/* mla.h - latent attention (DeepSeek): the cache holds, for all heads together, one latent and one turned part of a key.
 *
 *     kv_b would make each head's key and value out of the latent c. Its key half K is put on the query's side instead,
 *     and its value half V behind the attention, so that nothing but the latent is ever read:
 *
 *         q · (K c) = (K^T q) · c           sum p (V c) = V (sum p c)
 *
 * Always: for the backend this is attention with one key-value head of kv_rank + rope_dim, values its first kv_rank.
 * Owner: the decoder. */
#ifndef GPU_WORKER_MODELS_MLA_H
#define GPU_WORKER_MODELS_MLA_H

#include "gpu_worker/models/bind.h"

void mla_project(const struct pass *p, const struct layer *l); /* fills the qkv buffer */
void mla_output(const struct pass *p, const struct layer *l);  /* latents -> what goes into o */
BY_MUST_USE int mla_bind(struct binder *b, struct layer *l, uint32_t layer);
void mla_release(struct decoder *d, struct mla *m); /* NULL is fine */

#endif
