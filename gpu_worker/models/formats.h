/* formats.h - checkpoints whose weights are spread over several tensors, unpacked into rows.
 *
 *     AWQ         qweight [n_in, n_out/8], qzeros [groups, n_out/8], scales [groups, n_out]
 *     GPTQ        qweight [n_in/8, n_out], qzeros [groups, n_out/8], scales [groups, n_out], g_idx [n_in]
 *     FP8         weight F8 [n_out, n_in], weight_scale_inv [blocks, blocks] or weight_scale
 *     compressed  weight_packed I32 [n_out, n_in/8] or weight I8, weight_scale, weight_zero_point
 *     MXFP4       NAME_blocks U8 [n_experts, n_out, n_in/32, 16], NAME_scales U8 [n_experts, n_out, n_in/32]
 *
 * Always: the type they are turned into holds scale * (q - zero) exactly (Q4_0, Q5_0 or Z4_32, Q8_0, MXFP4, F8_32, else F32), where
 * the scale is an f16.
 * Owner: matrix.c. */
#ifndef GPU_WORKER_MODELS_FORMATS_H
#define GPU_WORKER_MODELS_FORMATS_H

#include "gpu_worker/models/matrix.h"

/* t: the tensor NAME.weight or NAME, or NULL. *is_packed: these were such tensors and m has its rows; else m is as it
 * was. */
BY_MUST_USE int formats_open(struct matrix *m, const struct matrix_source *s,
                             const struct matrix_want *w, const struct by_tensor_info *t,
                             bool *is_packed, struct by_err *err);

#endif
