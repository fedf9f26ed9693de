/* The kernels on AVX-512 with VNNI. 32 registers: 12 rows of a tile, 8 where a format needs more room. */
#if defined(__AVX512VNNI__)
#include "gpu_worker/cpu/vec_avx512.h"

#include "gpu_worker/cpu/kern_rows.h"
#include "gpu_worker/cpu/kern_quant.h"
#include "gpu_worker/cpu/kern_float.h"
#include "gpu_worker/cpu/kern_attention.h"

QUANT_12(CPU_Q4_0);
QUANT_12(CPU_Q4_1);
QUANT_12(CPU_Q8_0);
QUANT_8(CPU_Q5_0);
QUANT_8(CPU_Q5_1);
QUANT_8(CPU_IQ4_NL);
QUANT_8(CPU_MXFP4);
QUANT_8(CPU_Q4_K);
QUANT_8(CPU_Q5_K);
QUANT_8(CPU_Q6_K);
QUANT_8(CPU_Q3_K);
QUANT_8(CPU_Q2_K);

#define FLOAT_BOTH(fmt, T) FLOAT_ONE(fmt, T) FLOAT_TWO(fmt, T)
#define FLOAT_12(fmt) \
    FLOAT_BOTH(fmt, 1) \
    FLOAT_BOTH(fmt, 2) \
    FLOAT_BOTH(fmt, 3) \
    FLOAT_BOTH(fmt, 4) \
    FLOAT_BOTH(fmt, 5) \
    FLOAT_BOTH(fmt, 6) \
    FLOAT_BOTH(fmt, 7) \
    FLOAT_BOTH(fmt, 8) \
    FLOAT_BOTH(fmt, 9) FLOAT_BOTH(fmt, 10) FLOAT_BOTH(fmt, 11) FLOAT_BOTH(fmt, 12)
#define FLOAT_ROW_12(name, fmt) \
    { \
        0, name##_##fmt##_1, name##_##fmt##_2, name##_##fmt##_3, name##_##fmt##_4, \
            name##_##fmt##_5, name##_##fmt##_6, name##_##fmt##_7, name##_##fmt##_8, \
            name##_##fmt##_9, name##_##fmt##_10, name##_##fmt##_11, name##_##fmt##_12 \
    }
#define FLOAT_TABLE_12(fmt) \
    { 12, FLOAT_ROW_12(float_one, fmt), FLOAT_ROW_12(float_two, fmt) }
FLOAT_12(CPU_F32);
FLOAT_12(CPU_F16);
FLOAT_12(CPU_BF16);

#define ATTEND_12(type) \
    ATTEND_ONE(type, 1, 4, 8) \
    ATTEND_ONE(type, 2, 4, 8) \
    ATTEND_ONE(type, 3, 4, 4) \
    ATTEND_ONE(type, 4, 2, 4) \
    ATTEND_ONE(type, 5, 2, 4) \
    ATTEND_ONE(type, 6, 2, 4) \
    ATTEND_ONE(type, 7, 1, 2) \
    ATTEND_ONE(type, 8, 1, 2) \
    ATTEND_ONE(type, 9, 1, 2) \
    ATTEND_ONE(type, 10, 1, 2) ATTEND_ONE(type, 11, 1, 2) ATTEND_ONE(type, 12, 1, 2)
#define ATTEND_TABLE_12(type) \
    { \
        0, attend_##type##_1, attend_##type##_2, attend_##type##_3, attend_##type##_4, \
            attend_##type##_5, attend_##type##_6, attend_##type##_7, attend_##type##_8, \
            attend_##type##_9, attend_##type##_10, attend_##type##_11, attend_##type##_12 \
    }
ATTEND_12(KV_F32);
ATTEND_12(KV_BF16);
ATTEND_12(KV_F16);
ATTEND_12(KV_INT8);

const struct cpu_kernels cpu_kernels_avx512 = {
    .name = "avx512-vnni",
    .attend_rows = 12,
    .linear =
        {
            [CPU_F32] = FLOAT_TABLE_12(CPU_F32),
            [CPU_F16] = FLOAT_TABLE_12(CPU_F16),
            [CPU_BF16] = FLOAT_TABLE_12(CPU_BF16),
            [CPU_Q4_0] = QUANT_TABLE_12(CPU_Q4_0),
            [CPU_Q4_1] = QUANT_TABLE_12(CPU_Q4_1),
            [CPU_Q8_0] = QUANT_TABLE_12(CPU_Q8_0),
            [CPU_Q5_0] = QUANT_TABLE_8(CPU_Q5_0),
            [CPU_Q5_1] = QUANT_TABLE_8(CPU_Q5_1),
            [CPU_IQ4_NL] = QUANT_TABLE_8(CPU_IQ4_NL),
            [CPU_MXFP4] = QUANT_TABLE_8(CPU_MXFP4),
            [CPU_Q4_K] = QUANT_TABLE_8(CPU_Q4_K),
            [CPU_Q5_K] = QUANT_TABLE_8(CPU_Q5_K),
            [CPU_Q6_K] = QUANT_TABLE_8(CPU_Q6_K),
            [CPU_Q3_K] = QUANT_TABLE_8(CPU_Q3_K),
            [CPU_Q2_K] = QUANT_TABLE_8(CPU_Q2_K),
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
            [KV_F32] = ATTEND_TABLE_12(KV_F32),
            [KV_BF16] = ATTEND_TABLE_12(KV_BF16),
            [KV_F16] = ATTEND_TABLE_12(KV_F16),
            [KV_INT8] = ATTEND_TABLE_12(KV_INT8),
        },
    .merge = merge_rows,
    .attend_finish = attend_finish_row,
};
#endif
