/* sampler_device.h - sampler.h for a device that holds the logits: what it must know of a row, and what its answer means.
 *
 *     sampler_seq ─ask─▶ sample_row ──backend's op sample──▶ words ─take─▶ sampler_pick, with the bits of sampler_pick()
 *
 * Random numbers are drawn here, logarithms are taken here; the device does the rest in the integers of sampler.h.
 * Always: equal logits give equal answers on both ways (tests/cuda/test_cuda_sample.c). A change of one is a change of both.
 * Owner: the gpu worker's main thread. */
#ifndef GPU_WORKER_SAMPLER_DEVICE_H
#define GPU_WORKER_SAMPLER_DEVICE_H

#include "common/base/arena.h"
#include "gpu_worker/backend.h"
#include "gpu_worker/sampler.h"

/* Row, slot and place of the answer are the caller's to fill. Lists are of the arena, or q's own. n_ahead: output ids that q
 * has not been told of, because nobody here knows them yet; not for one that counts them. */
void sampler_device_ask(const struct sampler_seq *q, uint32_t n_ahead, struct by_arena *arena,
                        struct sample_row *out);
void sampler_device_ask_score(const struct msg_sampling *params, uint32_t id,
                              struct sample_row *out);
uint32_t sampler_device_words(const struct sample_row *row); /* of its answer */
/* words: the answer, changed in place; *out points into it. BY_EINTERNAL as sampler_pick. */
BY_MUST_USE int sampler_device_take(const struct sample_row *row, const struct msg_sampling *params,
                                    uint32_t n_vocab, uint32_t *words, struct sampler_pick *out);

#endif
