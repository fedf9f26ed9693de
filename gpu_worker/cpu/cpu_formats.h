/* cpu_formats.h - the numbers of each packed format, as constants that kernels can fold.
 *
 *     format    bits   scales                     offset      weight =
 *     Q4_0        4    d                               8      d * (q - 8)
 *     Q4_1, Q5_1  4 5  d, m                            -      d * q + m
 *     Q8_0, Q5_0  8 5  d                         128, 16      d * (q - offset)
 *     IQ4_NL      4    d                             128      d * (level[q] - 128)
 *     MXFP4       4    exponent e                     12      2^(e - 127) / 2 * (level[q] - 12)
 *     Q4_K, Q5_K  4 5  d, -dmin, 8 x (sc, mn)          -      d * sc * q + (-dmin) * mn
 *     Q6_K        6    d, 16 x sc                     32      d * sc * (q - 32)
 *     Q3_K        3    d, 16 x sc                      4      d * sc * (q - 4)
 *     Q2_K        2    d, -dmin, 16 x (sc, mn)         -      d * sc * q + (-dmin) * mn
 *     IQ4_XS      4    d, 8 x sc                     128      d * sc * (level[q] - 128)
 *     IQ          4    d (f32), 16 x sc              128      d * sc * (level[q] - 128)    levels: the strip's own
 *
 * Always: bytes of a block here equal the strips that cpu_pack.c writes.
 * Owner: nobody. */
#ifndef GPU_WORKER_CPU_CPU_FORMATS_H
#define GPU_WORKER_CPU_CPU_FORMATS_H

#include "gpu_worker/cpu/cpu_kernels.h"

/* Scales of a group, which go before its blocks: as many blocks as fill whole lines with theirs. Super-blocks (_K on) have
 * one line for the f16 of all eight blocks, and before each two or four blocks one for the small scales of these: bytes are
 * read in the order in which they lie. */
enum cpu_scales {
    CPU_SCALE_D,    /* a group of 2 blocks: 2 x 16 f16 */
    CPU_SCALE_DM,   /* 1: 16 + 16 f16 */
    CPU_SCALE_E8,   /* 4: 4 x 16 bytes */
    CPU_SCALE_K,    /* 8: 16 + 16 f16; 2 blocks: 2 x (16 scales, 16 minima) */
    CPU_SCALE_K16,  /* 8: 16 f16; 2 blocks: 4 x 16 signed scales */
    CPU_SCALE_K16M, /* 8: 16 + 16 f16; 2 blocks: 4 x 16 bytes, scale low and minimum high */
    CPU_SCALE_K32,  /* 8: 16 f16; 4 blocks: 4 x 16 signed scales */
    CPU_SCALE_K16W, /* 8: 16 f32; 2 blocks: 4 x 16 signed scales */
};

#define CPU_FORMAT_IS_FLOAT(f) ((f) <= CPU_BF16X2)
#define CPU_FORMAT_IS_SUPER(f) ((f) >= CPU_Q4_K)
#define CPU_FORMAT_BITS(f) \
    ((f) == CPU_Q8_0                                         ? 8 \
     : (f) == CPU_Q6_K                                       ? 6 \
     : (f) == CPU_Q5_0 || (f) == CPU_Q5_1 || (f) == CPU_Q5_K ? 5 \
     : (f) == CPU_Q3_K                                       ? 3 \
     : (f) == CPU_Q2_K                                       ? 2 \
                                                             : 4)
/* bytes of 16 rows x 32 columns: lines of nibbles, of bit pairs, of bits */
#define CPU_FORMAT_BLOCK(f) (64 * CPU_FORMAT_BITS(f))
#define CPU_FORMAT_SCALES(f) \
    ((f) == CPU_Q4_1 || (f) == CPU_Q5_1   ? CPU_SCALE_DM \
     : (f) == CPU_MXFP4                   ? CPU_SCALE_E8 \
     : (f) == CPU_Q4_K || (f) == CPU_Q5_K ? CPU_SCALE_K \
     : (f) == CPU_Q6_K || (f) == CPU_Q3_K ? CPU_SCALE_K16 \
     : (f) == CPU_Q2_K                    ? CPU_SCALE_K16M \
     : (f) == CPU_IQ4_XS                  ? CPU_SCALE_K32 \
     : (f) == CPU_IQ                      ? CPU_SCALE_K16W \
                                          : CPU_SCALE_D)
/* blocks of a group, and how many of a super-block's share a line of small scales */
#define CPU_FORMAT_GROUP(f) \
    (CPU_FORMAT_SCALES(f) == CPU_SCALE_DM   ? 1 \
     : CPU_FORMAT_SCALES(f) == CPU_SCALE_D  ? 2 \
     : CPU_FORMAT_SCALES(f) == CPU_SCALE_E8 ? 4 \
                                            : 8)
#define CPU_FORMAT_SHARE(f) (CPU_FORMAT_SCALES(f) == CPU_SCALE_K32 ? 4 : 2)
#define CPU_FORMAT_GROUP_BYTES(f) \
    (64 + CPU_FORMAT_GROUP(f) * CPU_FORMAT_BLOCK(f) + \
     (CPU_FORMAT_IS_SUPER(f) ? 64 * 8 / CPU_FORMAT_SHARE(f) : 0))
#define CPU_FORMAT_HAS_MIN(f) \
    (CPU_FORMAT_SCALES(f) == CPU_SCALE_DM || CPU_FORMAT_SCALES(f) == CPU_SCALE_K || \
     CPU_FORMAT_SCALES(f) == CPU_SCALE_K16M)
#define CPU_FORMAT_HAS_LEVELS(f) ((f) == CPU_IQ4_NL || (f) == CPU_IQ4_XS || (f) == CPU_IQ)
/* bytes before a strip's first group: 16 levels plus 128 */
#define CPU_FORMAT_HEAD(f) ((f) == CPU_IQ ? 64 : 0)
#define CPU_FORMAT_OFFSET(f) \
    ((f) == CPU_Q4_0                               ? 8 \
     : (f) == CPU_Q8_0 || CPU_FORMAT_HAS_LEVELS(f) ? 128 \
     : (f) == CPU_Q5_0                             ? 16 \
     : (f) == CPU_MXFP4                            ? 12 \
     : (f) == CPU_Q6_K                             ? 32 \
     : (f) == CPU_Q3_K                             ? 4 \
                                                   : 0)
#define CPU_FORMAT_ACT(f) \
    ((f) == CPU_BF16X2                                                        ? CPU_ACT_BF16 \
     : (f) <= CPU_BF16X2                                                      ? CPU_ACT_F32 \
     : (f) == CPU_Q6_K || (f) == CPU_Q3_K || (f) == CPU_Q2_K || (f) == CPU_IQ ? CPU_ACT_I8X2 \
                                                                              : CPU_ACT_I8)
/* How many pairs of products with int8 a signed i16 holds: vec_avx2.h. */
#define CPU_FORMAT_FITS(f) \
    (CPU_FORMAT_OFFSET(f) == 128                   ? 1 \
     : CPU_FORMAT_BITS(f) == 6                     ? 2 \
     : CPU_FORMAT_BITS(f) == 5 || (f) == CPU_MXFP4 ? 4 \
                                                   : 8)

#endif
