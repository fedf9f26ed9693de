/* rope.h - the frequencies with which a model's heads turn.
 *
 *     angle(position, i) = position * inv_freq[i]        plain: theta^(-2i / n_rot), then changed by kind
 *
 *     linear     / factor
 *     llama3     / factor for long waves, as they are for short ones, blended between
 *     yarn       / factor below the correction range, as they are above it, a ramp between
 *     longrope   / short_factors[i] or long_factors[i]      factors (GGUF): / long_factors[i]
 *
 * longrope: transformers takes the long factors when the text has grown past original_context, which changes the keys
 * already cached. Here, as in other paged engines, the length a model is opened with decides, once: longer than
 * original_context means long factors for every text.
 *
 * Always: the same frequencies for every text of a loaded model, or cached keys would not fit together.
 * Owner: no state. */
#ifndef GPU_WORKER_MODELS_ROPE_H
#define GPU_WORKER_MODELS_ROPE_H

#include "common/modelfile/model_info.h"

/* inv_freq: [n_rot / 2]; is_local: of sliding-window layers, [n_rot_local / 2] where those have their own base. Returns what cos and sin
 * are multiplied by. */
float rope_inv_freq(const struct by_rope *r, bool is_local, uint32_t context_len, float *inv_freq);

#endif
