/* blocks.h - ggml's super-blocks taken apart: small integers, as the device takes them.
 *
 *     Q2_K … Q6_K ─▶ w = d * scale * (q - bias) - dmin * min        cuda.h has bias and layout by format
 *     IQ1 … IQ4   ─▶ w = d * scale * level, an int8
 *
 * Always: nothing is lost, and products follow that order, so that the device gets the number that dtype.c gives (where a
 * minimum is taken off: but for the last rounding).
 * Owner: nobody; there is no state. */
#ifndef GPU_WORKER_CUDA_BLOCKS_H
#define GPU_WORKER_CUDA_BLOCKS_H

#include "common/modelfile/dtype.h"

/* Scales are of 16 columns each. With minima: two bytes for 32 columns (Q4_K, Q5_K), or the two halves of one (Q2_K). */
struct super_block {
    union {
        struct {
            uint16_t d, dmin; /* f16 */
        };
        float wide_d; /* IQ1 … IQ4 */
    };
    uint8_t scales[16];
    uint8_t q[BY_QK_K]; /* IQ1 … IQ4: levels */
};

bool blocks_known(enum by_dtype t);
void blocks_unpack(enum by_dtype t, const uint8_t *src, struct super_block *b);

#endif
