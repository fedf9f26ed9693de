/* reload.h - other weights beside those that serve: loaded, then taken or dropped.
 *
 *     reload_open(path) ─▶ checked against what serves ─▶ reload_take: the model, ready for steps
 *                                                    └─▶ reload_drop
 *
 * Meanwhile both models' weights are in memory; the KV cache is the new one's own, made when the old one's is gone.
 * Always: the new model has the shape of the old one: family, vocabulary, bytes of a KV page, context.
 * Owner: the gpu worker's main thread. */
#ifndef GPU_WORKER_RELOAD_H
#define GPU_WORKER_RELOAD_H

#include "gpu_worker/models/model.h"

struct reload { /* zero: nothing is there */
    struct model *model;
    char *path;
    char weights_id[20];
};

/* Names, shapes and the ends of every tensor: replicas that disagree on this do not serve one model. */
void reload_fingerprint(const struct by_model_dir *dir, char out[20]);
/* `like`: what serves. kv_word is --kv-cache-dtype: weights that would have their KV cache in another type are refused. */
BY_MUST_USE int reload_open(struct reload *r, const char *path, struct backend *b,
                            const struct model_options *o, const struct model *like,
                            const char *kv_word, struct by_err *err);
void reload_drop(struct reload *r);

#endif
