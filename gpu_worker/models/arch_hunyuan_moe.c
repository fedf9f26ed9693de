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

/* Hunyuan 3: attention of Qwen3, experts of DeepSeek V3 without groups. */
const struct family family_hy_v3 = {
    .name = "hy_v3",
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"},
              {ROLE_K_NORM, "self_attn.k_norm"},
              {ROLE_ROUTER, "mlp.router.gate"},
              {ROLE_ROUTER_BIAS, "mlp.expert_bias"},
              {ROLE_SHARED_GATE, "mlp.shared_mlp.gate_proj"},
              {ROLE_SHARED_UP, "mlp.shared_mlp.up_proj"},
              {ROLE_SHARED_DOWN, "mlp.shared_mlp.down_proj"}},
};
