/* kern_table.h - every kernel of an instruction set, and the table of them: included by a kern_*.c, which has said
 *
 *     KERN_WIDE, KERN_BYTES, KERN_NARROW  rows of an activation tile, at most: 4-bit formats, Q8_0, those that need more room
 *     KERN_FLOAT, KERN_TWO                the same for plain numbers; … with two strips at once
 *     KERN_FOUR, KERN_FLOAT_FOUR          rows that take four strips at once, at most; … of plain numbers
 *     KERN_ATTEND                         rows of a tile of queries
 *     KERN_DELTA                          strips of a state at once: 1 or 2
 *     KERN_GROUPS(R), KERN_PANEL(R)       how R rows of queries take keys and values (attend_block)
 *
 * Always: a constant for each number of rows, so that the sums of a tile stay in registers.
 * Owner: nobody; the table is constant. */
#ifndef GPU_WORKER_CPU_KERN_TABLE_H
#define GPU_WORKER_CPU_KERN_TABLE_H

#include "gpu_worker/cpu/kern_rows.h"
#include "gpu_worker/cpu/kern_states.h"
#include "gpu_worker/cpu/kern_quant.h"
#include "gpu_worker/cpu/kern_float.h"
#include "gpu_worker/cpu/kern_attention.h"

#define QUANT_FORMATS(X) \
    X(CPU_Q4_0, KERN_WIDE) \
    X(CPU_Q4_1, KERN_WIDE) \
    X(CPU_Q8_0, KERN_BYTES) \
    X(CPU_Q5_0, KERN_NARROW) \
    X(CPU_Q5_1, KERN_NARROW) \
    X(CPU_IQ4_NL, KERN_NARROW) \
    X(CPU_MXFP4, KERN_NARROW) \
    X(CPU_Q4_K, KERN_NARROW) \
    X(CPU_Q5_K, KERN_NARROW) \
    X(CPU_Q6_K, KERN_NARROW) \
    X(CPU_Q3_K, KERN_NARROW) \
    X(CPU_Q2_K, KERN_NARROW) \
    X(CPU_IQ4_XS, KERN_NARROW) \
    X(CPU_IQ, KERN_NARROW)
#define FLOAT_FORMATS(X) X(CPU_F32) X(CPU_F16) X(CPU_BF16)
#define KV_TYPES(X) X(KV_F32) X(KV_BF16) X(KV_F16) X(KV_INT8)

#define QUANT_FNS(fmt, n) CPU_EACH(n, QUANT_ONE, fmt) CPU_EACH(KERN_FOUR, QUANT_FOUR, fmt)
#define FLOAT_FNS(fmt) \
    CPU_EACH(KERN_FLOAT, FLOAT_ONE, fmt) \
    CPU_EACH(KERN_TWO, FLOAT_TWO, fmt) CPU_EACH(KERN_FLOAT_FOUR, FLOAT_FOUR, fmt)
#define ATTEND_FN(type, R) ATTEND_ONE(type, R, KERN_GROUPS(R), KERN_PANEL(R))
#define ATTEND_FNS(type) CPU_EACH(KERN_ATTEND, ATTEND_FN, type)
QUANT_FORMATS(QUANT_FNS)
FLOAT_FORMATS(FLOAT_FNS)
KV_TYPES(ATTEND_FNS)

#define QUANT_AT(fmt, T) [T] = quant_##fmt##_##T,
#define QUANT_FOUR_AT(fmt, T) [T] = quant_four_##fmt##_##T,
#define FLOAT_FOUR_AT(fmt, T) [T] = float_four_##fmt##_##T,
#define FLOAT_ONE_AT(fmt, T) [T] = float_one_##fmt##_##T,
#define FLOAT_TWO_AT(fmt, T) [T] = float_two_##fmt##_##T,
#define ATTEND_AT(type, R) [R] = attend_##type##_##R,
#define QUANT_ROW(fmt, n) \
    [fmt] = {.tile_max = n, \
             .one = {CPU_EACH(n, QUANT_AT, fmt)}, \
             .four = {[0] = 0, CPU_EACH(KERN_FOUR, QUANT_FOUR_AT, fmt)}},
#define FLOAT_ROW(fmt) \
    [fmt] = {.tile_max = KERN_FLOAT, \
             .one = {CPU_EACH(KERN_FLOAT, FLOAT_ONE_AT, fmt)}, \
             .two = {[0] = 0, CPU_EACH(KERN_TWO, FLOAT_TWO_AT, fmt)}, \
             .four = {[0] = 0, CPU_EACH(KERN_FLOAT_FOUR, FLOAT_FOUR_AT, fmt)}},
#define ATTEND_ROW(type) [type] = {CPU_EACH(KERN_ATTEND, ATTEND_AT, type)},

#define KERN_ALL(users_name) \
    { \
        .name = users_name, .attend_rows = KERN_ATTEND, \
        .linear = {QUANT_FORMATS(QUANT_ROW) FLOAT_FORMATS(FLOAT_ROW)}, \
        .fill = {[CPU_ACT_F32] = fill_f32, [CPU_ACT_I8] = fill_i8, [CPU_ACT_I8X2] = fill_i8x2}, \
        .remainder = remainder_row, .finish = finish_tile, .norm = norm_row, .scale = scale_row, \
        .add_scaled = add_scaled_row, .rotate = rotate_row, .sigmoid = sigmoid_of, \
        .gate = gate_row, .conv = conv_part, .delta = delta_rows, .ssm = ssm_rows, \
        .attend = {KV_TYPES(ATTEND_ROW)}, .merge = merge_rows, .attend_finish = attend_finish_row, \
    }

#endif
