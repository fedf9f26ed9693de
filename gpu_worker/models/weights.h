/* weights.h - binds the tensors of a model to the layers of a decoder.
 *
 *     names of arch.h ─▶ matrix.h (rows, as the file lays them) ─▶ stacks: q k v in one, gate and up in one ─▶ weight_new
 *
 * Always: each shape is checked against the config, each number is finite; errors name the tensor. A tensor of the file
 * that nothing asked for is logged: what it says would be missing from the result.
 * Owner: model_open, on the main thread. */
#ifndef GPU_WORKER_MODELS_WEIGHTS_H
#define GPU_WORKER_MODELS_WEIGHTS_H

#include "gpu_worker/models/decoder.h"

/* Fills d's weights; d->b, info and arch are set. On an error what was bound stays for weights_release. */
BY_MUST_USE int weights_load(struct decoder *d, const struct by_model_dir *dir,
                             const struct model_options *o, struct by_err *err);
void weights_release(struct decoder *d);

#endif
