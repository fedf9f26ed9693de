#include "gpu_worker/models/family.h"

/* Hunyuan with experts, all as wide as the shared one. */
const struct family family_hunyuan_v1_moe = {
    .name = "hunyuan_v1_moe",
    .qk_norm_is_last = true,
    .names = {{ROLE_Q_NORM, "self_attn.query_layernorm"},
              {ROLE_K_NORM, "self_attn.key_layernorm"},
              {ROLE_ROUTER, "mlp.gate.wg"},
              {ROLE_SHARED_GATE, "mlp.shared_mlp.gate_proj"},
              {ROLE_SHARED_UP, "mlp.shared_mlp.up_proj"},
              {ROLE_SHARED_DOWN, "mlp.shared_mlp.down_proj"}},
};
