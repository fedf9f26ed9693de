/* The truth: every kernel over vectors of plain C. */
#include "gpu_worker/cpu/vec_portable.h"

#include "gpu_worker/cpu/kern_rows.h"
#include "gpu_worker/cpu/kern_quant.h"
#include "gpu_worker/cpu/kern_float.h"
#include "gpu_worker/cpu/kern_attention.h"

QUANT_ONE(CPU_Q4_0, 1);
QUANT_ONE(CPU_Q4_1, 1);
QUANT_ONE(CPU_Q8_0, 1);
QUANT_ONE(CPU_Q5_0, 1);
QUANT_ONE(CPU_Q5_1, 1);
QUANT_ONE(CPU_IQ4_NL, 1);
QUANT_ONE(CPU_MXFP4, 1);
QUANT_ONE(CPU_Q4_K, 1);
QUANT_ONE(CPU_Q5_K, 1);
QUANT_ONE(CPU_Q6_K, 1);
QUANT_ONE(CPU_Q3_K, 1);
QUANT_ONE(CPU_Q2_K, 1);

#define FLOAT_TABLE_1(fmt) \
    { \
        1, {0, float_one_##fmt##_1}, { \
            0 \
        } \
    }
FLOAT_ONE(CPU_F32, 1);
FLOAT_ONE(CPU_F16, 1);
FLOAT_ONE(CPU_BF16, 1);

#define ATTEND_TABLE_1(type) \
    { 0, attend_##type##_1 }
ATTEND_ONE(KV_F32, 1, 1, 1);
ATTEND_ONE(KV_BF16, 1, 1, 1);
ATTEND_ONE(KV_F16, 1, 1, 1);
ATTEND_ONE(KV_INT8, 1, 1, 1);

const struct cpu_kernels cpu_kernels_portable = {
    .name = "portable",
    .attend_rows = 1,
    .linear =
        {
            [CPU_F32] = FLOAT_TABLE_1(CPU_F32),
            [CPU_F16] = FLOAT_TABLE_1(CPU_F16),
            [CPU_BF16] = FLOAT_TABLE_1(CPU_BF16),
            [CPU_Q4_0] = QUANT_TABLE_1(CPU_Q4_0),
            [CPU_Q4_1] = QUANT_TABLE_1(CPU_Q4_1),
            [CPU_Q8_0] = QUANT_TABLE_1(CPU_Q8_0),
            [CPU_Q5_0] = QUANT_TABLE_1(CPU_Q5_0),
            [CPU_Q5_1] = QUANT_TABLE_1(CPU_Q5_1),
            [CPU_IQ4_NL] = QUANT_TABLE_1(CPU_IQ4_NL),
            [CPU_MXFP4] = QUANT_TABLE_1(CPU_MXFP4),
            [CPU_Q4_K] = QUANT_TABLE_1(CPU_Q4_K),
            [CPU_Q5_K] = QUANT_TABLE_1(CPU_Q5_K),
            [CPU_Q6_K] = QUANT_TABLE_1(CPU_Q6_K),
            [CPU_Q3_K] = QUANT_TABLE_1(CPU_Q3_K),
            [CPU_Q2_K] = QUANT_TABLE_1(CPU_Q2_K),
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
            [KV_F32] = ATTEND_TABLE_1(KV_F32),
            [KV_BF16] = ATTEND_TABLE_1(KV_BF16),
            [KV_F16] = ATTEND_TABLE_1(KV_F16),
            [KV_INT8] = ATTEND_TABLE_1(KV_INT8),
        },
    .merge = merge_rows,
    .attend_finish = attend_finish_row,
};
