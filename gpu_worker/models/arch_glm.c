#include "gpu_worker/models/family.h"

/* GLM-4: half of each head turns, in pairs of neighbours; from 0414 on there are norms on both sides. The GGUF files of its
 * first code have q, k and v in one tensor, those of transformers' three. */
const struct family family_glm = {
    .name = "glm",
    .names = {{ROLE_GATE_UP, "mlp.gate_up_proj"}},
    .gguf = {{ROLE_QKV, "attn_qkv"}},
};
const struct family family_glm4 = {
    .name = "glm4",
    .names = {{ROLE_POST_ATTN_NORM, "post_self_attn_layernorm"},
              {ROLE_POST_FFN_NORM, "post_mlp_layernorm"},
              {ROLE_GATE_UP, "mlp.gate_up_proj"}},
};

/* From 4.5 on: Llama's norms, halves turn, experts as DeepSeek V3 has them; 4.7 Flash has its latent attention, too. */
const struct family family_glm4_moe = {
    .name = "glm4_moe",
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"}, {ROLE_K_NORM, "self_attn.k_norm"}},
    .gguf = {{ROLE_FFN_NORM, "post_attention_norm"}},
};
const struct family family_glm4_moe_lite = {.name = "glm4_moe_lite"};
const struct family family_solar_open = {.name = "solar_open"};
