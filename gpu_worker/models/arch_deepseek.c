#include "gpu_worker/models/family.h"

/* Latent attention (mla.h), experts with shared ones beside them; V3 chooses by sigmoid with a correction for the choice
 * alone, V2 by softmax, both perhaps within groups. */
const struct family family_deepseek_v2 = {
    .name = "deepseek_v2",
    .names = {{ROLE_SHARED_GATE, "mlp.shared_experts.gate_proj"},
              {ROLE_SHARED_UP, "mlp.shared_experts.up_proj"},
              {ROLE_SHARED_DOWN, "mlp.shared_experts.down_proj"}},
    .gguf = {{ROLE_K_B, "attn_k_b"}, {ROLE_V_B, "attn_v_b"}},
};
const struct family family_deepseek_v3 = {
    .name = "deepseek_v3",
    .names = {{ROLE_ROUTER_BIAS, "mlp.gate.e_score_correction_bias"},
              {ROLE_SHARED_GATE, "mlp.shared_experts.gate_proj"},
              {ROLE_SHARED_UP, "mlp.shared_experts.up_proj"},
              {ROLE_SHARED_DOWN, "mlp.shared_experts.down_proj"}},
    .gguf = {{ROLE_K_B, "attn_k_b"}, {ROLE_V_B, "attn_v_b"}},
};
