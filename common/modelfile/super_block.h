/* super_block.h - a block of 256 columns of ggml's types taken apart: one set of small integers for all that read them, whether
 * they want numbers (dtype.c), strips (the CPU's packer) or rows (the CUDA module's).
 *
 *     Q2_K Q4_K Q5_K TQ    ─▶ w = d * scale * q - dmin * min
 *     Q3_K Q6_K            ─▶ w = d * scale * (q - bias)             bias 4, 32
 *     IQ1 IQ2 IQ3 IQ4_XS   ─▶ w = d * scale * levels[q]              q 0 … 15
 *
 * Always: nothing is lost, and rounding after each of those products gives gguf's bits (TQ: of a d below zero, but for the sign
 * of zeros; no file has one).
 * Layouts: ggml-common.h of llama.cpp; the truth our tests compare with: gguf 0.19.0.
 * Owner: nobody; there is no state. */
#ifndef COMMON_MODELFILE_SUPER_BLOCK_H
#define COMMON_MODELFILE_SUPER_BLOCK_H

#include "common/modelfile/dtype.h"

struct by_super_block {
    float d;            /* with ggml's factors in it */
    uint16_t half_d;    /* f16: d of types whose d is one; not IQ1, IQ2, IQ3 */
    uint16_t half_dmin; /* f16, 0 where there are no minima */
    int8_t scales[16];  /* of 16 columns each */
    uint8_t mins[16];   /* likewise */
    uint8_t q[BY_QK_K]; /* unsigned, as they are stored */
};

/* Types of 256 columns a block, and no others: by_dtype_block_len(t) == BY_QK_K. src needs no alignment. */
void by_super_unpack(enum by_dtype t, const uint8_t *src, struct by_super_block *b);
void by_super_to_f32(enum by_dtype t, const uint8_t *src, float *dst);
const int8_t *by_super_levels(enum by_dtype t); /* 16 of them; NULL: a type without */

/* super_iq.c's, for super_block.c: the types with codebooks. */
const int8_t *by_iq_levels(enum by_dtype t);
void by_iq_unpack(enum by_dtype t, const uint8_t *src, struct by_super_block *b);

#endif
