#include "gpu_worker/models/family.h"

#define MAMBA_NAMES \
    {ROLE_STATE_IN, "mamba.in_proj"}, {ROLE_STATE_CONV, "mamba.conv1d"}, \
        {ROLE_STATE_LOG_A, "mamba.A_log"}, {ROLE_STATE_DT, "mamba.dt_bias"}, \
        {ROLE_STATE_SKIP, "mamba.D"}, {ROLE_STATE_NORM, "mamba.norm"}, { \
        ROLE_STATE_OUT, "mamba.out_proj" \
    }

/* Granite 4: Mamba-2 in most layers, but for the smallest; dense ones have the feed-forward under the shared expert's name. A
 * GGUF has gate and up apart. */
const struct family family_granitemoehybrid = {
    .name = "granitemoehybrid",
    .names = {MAMBA_NAMES,
              {ROLE_GATE_UP, "shared_mlp.input_linear"},
              {ROLE_DOWN, "shared_mlp.output_linear"},
              {ROLE_ROUTER, "block_sparse_moe.router.layer"},
              {ROLE_EXPERT_GATE_UP, "block_sparse_moe.input_linear"},
              {ROLE_EXPERT_DOWN, "block_sparse_moe.output_linear"},
              {ROLE_SHARED_GATE_UP, "shared_mlp.input_linear"},
              {ROLE_SHARED_DOWN, "shared_mlp.output_linear"}},
    .gguf = {{ROLE_GATE_UP, ""}},
};

/* IBM's Bamba, from which they come. */
const struct family family_bamba = {
    .name = "bamba",
    .names = {MAMBA_NAMES,
              {ROLE_FINAL_NORM, "model.final_layernorm"},
              {ROLE_FFN_NORM, "pre_ff_layernorm"},
              {ROLE_GATE, "feed_forward.gate_proj"},
              {ROLE_UP, "feed_forward.up_proj"},
              {ROLE_DOWN, "feed_forward.down_proj"}},
};
