/* The kernels on AVX2 with FMA and F16C. 16 registers: 6 rows of a tile, 4 where a format needs more room. */
#if defined(__AVX2__)
#include "gpu_worker/cpu/vec_avx2.h"

#include "gpu_worker/cpu/kern_rows.h"
#include "gpu_worker/cpu/kern_quant.h"
#include "gpu_worker/cpu/kern_float.h"
#include "gpu_worker/cpu/kern_attention.h"

QUANT_6(CPU_Q4_0);
QUANT_6(CPU_Q4_1);
QUANT_4(CPU_Q8_0);
QUANT_4(CPU_Q5_0);
QUANT_4(CPU_Q5_1);
QUANT_4(CPU_IQ4_NL);
QUANT_4(CPU_MXFP4);
QUANT_4(CPU_Q4_K);
QUANT_4(CPU_Q5_K);
QUANT_4(CPU_Q6_K);
QUANT_4(CPU_Q3_K);
QUANT_4(CPU_Q2_K);

#define FLOAT_6(fmt) \
    FLOAT_ONE(fmt, 1) \
    FLOAT_ONE(fmt, 2) \
    FLOAT_ONE(fmt, 3) \
    FLOAT_ONE(fmt, 4) FLOAT_ONE(fmt, 5) FLOAT_ONE(fmt, 6) FLOAT_TWO(fmt, 1) FLOAT_TWO(fmt, 2)
#define FLOAT_TABLE_6(fmt) \
    { \
        6, \
            {0, \
             float_one_##fmt##_1, \
             float_one_##fmt##_2, \
             float_one_##fmt##_3, \
             float_one_##fmt##_4, \
             float_one_##fmt##_5, \
             float_one_##fmt##_6}, \
        { \
            0, float_two_##fmt##_1, float_two_##fmt##_2 \
        } \
    }
FLOAT_6(CPU_F32);
FLOAT_6(CPU_F16);
FLOAT_6(CPU_BF16);

#define ATTEND_6(type) \
    ATTEND_ONE(type, 1, 4, 8) \
    ATTEND_ONE(type, 2, 2, 4) \
    ATTEND_ONE(type, 3, 2, 4) \
    ATTEND_ONE(type, 4, 1, 2) ATTEND_ONE(type, 5, 1, 2) ATTEND_ONE(type, 6, 1, 2)
#define ATTEND_TABLE_6(type) \
    { \
        0, attend_##type##_1, attend_##type##_2, attend_##type##_3, attend_##type##_4, \
            attend_##type##_5, attend_##type##_6 \
    }
ATTEND_6(KV_F32);
ATTEND_6(KV_BF16);
ATTEND_6(KV_F16);
ATTEND_6(KV_INT8);

const struct cpu_kernels cpu_kernels_avx2 = {
    .name = "avx2",
    .attend_rows = 6,
    .linear =
        {
            [CPU_F32] = FLOAT_TABLE_6(CPU_F32),
            [CPU_F16] = FLOAT_TABLE_6(CPU_F16),
            [CPU_BF16] = FLOAT_TABLE_6(CPU_BF16),
            [CPU_Q4_0] = QUANT_TABLE_6(CPU_Q4_0),
            [CPU_Q4_1] = QUANT_TABLE_6(CPU_Q4_1),
            [CPU_Q8_0] = QUANT_TABLE_4(CPU_Q8_0),
            [CPU_Q5_0] = QUANT_TABLE_4(CPU_Q5_0),
            [CPU_Q5_1] = QUANT_TABLE_4(CPU_Q5_1),
            [CPU_IQ4_NL] = QUANT_TABLE_4(CPU_IQ4_NL),
            [CPU_MXFP4] = QUANT_TABLE_4(CPU_MXFP4),
            [CPU_Q4_K] = QUANT_TABLE_4(CPU_Q4_K),
            [CPU_Q5_K] = QUANT_TABLE_4(CPU_Q5_K),
            [CPU_Q6_K] = QUANT_TABLE_4(CPU_Q6_K),
            [CPU_Q3_K] = QUANT_TABLE_4(CPU_Q3_K),
            [CPU_Q2_K] = QUANT_TABLE_4(CPU_Q2_K),
        },
    .fill = {[CPU_ACT_F32] = fill_f32, [CPU_ACT_I8] = fill_i8, [CPU_ACT_I8X2] = fill_i8x2},
    .remainder = remainder_row,
    .finish = finish_tile,
    .norm = norm_row,
    .scale = scale_row,
    .add_scaled = add_scaled_row,
    .rotate = rotate_row,
    .sigmoid = sigmoid_of,
    .attend =
        {
            [KV_F32] = ATTEND_TABLE_6(KV_F32),
            [KV_BF16] = ATTEND_TABLE_6(KV_BF16),
            [KV_F16] = ATTEND_TABLE_6(KV_F16),
            [KV_INT8] = ATTEND_TABLE_6(KV_INT8),
        },
    .merge = merge_rows,
    .attend_finish = attend_finish_row,
};
#endif
