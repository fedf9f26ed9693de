/* blocks.h - ggml's less common blocks as one: 8-bit numbers, of which 16 share a scale and a minimum in f32.
 *
 *     Q5_0 Q5_1 Q2_K Q3_K Q5_K Q6_K IQ4_NL IQ4_XS ─▶ w = s * q + m   1.5 bytes a weight, and nothing lost
 *     Q4_K: the same numbers, of which weights.c makes four bits
 *
 * Always: s * q + m is the number that dtype.c gives, but for the last rounding of that sum.
 * Owner: nobody; there is no state. */
#ifndef GPU_WORKER_CUDA_BLOCKS_H
#define GPU_WORKER_CUDA_BLOCKS_H

#include "common/modelfile/dtype.h"

bool blocks_known(enum by_dtype t);
/* n columns (whole blocks) at src: q[n], and s, m for each 16 of them. */
void blocks_unpack(enum by_dtype t, const uint8_t *src, uint32_t n, int8_t *q, float *sm);

#endif
