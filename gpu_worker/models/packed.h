/* packed.h - integers packed into I32 words with a zero and a scale a group: AWQ, GPTQ, compressed-tensors.
 *
 *     w[out][in] = scale[group of in][out] * (q[in][out] - zero[group of in][out])
 *
 *     AWQ          a word holds outputs 0 2 4 6 1 3 5 7 of eight       [n_in, n_out / 8]
 *     GPTQ         a word holds eight inputs                           [n_in / 8, n_out]; zeros are stored less 1 in v1
 *     compressed   a word holds eight inputs                           [n_out, n_in / 8]
 *
 * They become Q4_0 where every zero is 8, Z4_32 where it is not and the backend keeps that, else Q5_0 (q - zero + 16); Q8_0
 * for 8 bits around 128: each holds w exactly. What does not fit a block of 32 inputs with one scale (act-order, odd groups)
 * becomes F32.
 * Always: every shape is checked before a word is read, every group index before it is used.
 * Owner: formats.c. */
#ifndef GPU_WORKER_MODELS_PACKED_H
#define GPU_WORKER_MODELS_PACKED_H

#include "gpu_worker/models/matrix.h"

/* *is_packed as in formats_open. */
BY_MUST_USE int packed_open(struct matrix *m, const struct matrix_source *s,
                            const struct matrix_want *w, bool *is_packed, struct by_err *err);
/* Room in m for its rows in this type. */
BY_MUST_USE int packed_own(struct matrix *m, enum by_dtype t, struct by_err *err);
/* All lanes fill m's rows, some at a time. */
void packed_unpack(struct matrix *m, struct backend *b,
                   void (*tile)(const void *ctx, uint32_t first, uint32_t n), const void *ctx);

#endif
