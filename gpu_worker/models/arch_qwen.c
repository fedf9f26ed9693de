#include "gpu_worker/models/family.h"

/* Qwen2 has biases on q, k and v; Qwen3 norms each head of q and k instead. */
const struct family family_qwen2 = {.name = "qwen2"};
const struct family family_qwen2_moe = {
    .name = "qwen2_moe",
    .names = {{ROLE_SHARED_GATE, "mlp.shared_expert.gate_proj"},
              {ROLE_SHARED_UP, "mlp.shared_expert.up_proj"},
              {ROLE_SHARED_DOWN, "mlp.shared_expert.down_proj"}},
};

const struct family family_qwen3 = {
    .name = "qwen3",
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"}, {ROLE_K_NORM, "self_attn.k_norm"}},
};
const struct family family_qwen3_moe = {
    .name = "qwen3_moe",
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"}, {ROLE_K_NORM, "self_attn.k_norm"}},
};

/* Those that read images: a text's positions in time, height and width are one, and so turn as one. */
const struct family family_qwen2_vl = {.name = "qwen2_vl"};
const struct family family_qwen2_5_vl = {.name = "qwen2_5_vl"};
const struct family family_qwen3_vl = {
    .name = "qwen3_vl",
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"}, {ROLE_K_NORM, "self_attn.k_norm"}},
};
/* Its quantised files have a tensor an expert, as Qwen3-MoE has. */
const struct family family_qwen3_vl_moe = {
    .name = "qwen3_vl_moe",
    .layout = {.experts_transposed = true, .experts_either_way = true},
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"},
              {ROLE_K_NORM, "self_attn.k_norm"},
              {ROLE_EXPERT_GATE_UP, "mlp.experts.gate_up_proj"},
              {ROLE_EXPERT_DOWN_ALL, "mlp.experts.down_proj"}},
};

/* Gated delta nets in most layers; attention with a gate in the others. Norms are stored less 1, but for the delta nets'. */
const struct family family_qwen3_5 = {
    .name = "qwen3_5",
    .layout = {.norm_less_one = true},
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"}, {ROLE_K_NORM, "self_attn.k_norm"}},
    .gguf = {{ROLE_FFN_NORM, "post_attention_norm"}},
};
/* Experts in one tensor on the hub, in one each where transformers has saved them. */
const struct family family_qwen3_5_moe = {
    .name = "qwen3_5_moe",
    .layout = {.norm_less_one = true},
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"},
              {ROLE_K_NORM, "self_attn.k_norm"},
              {ROLE_EXPERT_GATE_UP, "mlp.experts.gate_up_proj"},
              {ROLE_EXPERT_DOWN_ALL, "mlp.experts.down_proj"},
              {ROLE_SHARED_GATE, "mlp.shared_expert.gate_proj"},
              {ROLE_SHARED_UP, "mlp.shared_expert.up_proj"},
              {ROLE_SHARED_DOWN, "mlp.shared_expert.down_proj"}},
    .gguf = {{ROLE_FFN_NORM, "post_attention_norm"}},
};
const struct family family_qwen3_next = {
    .name = "qwen3_next",
    .layout = {.norm_less_one = true},
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"},
              {ROLE_K_NORM, "self_attn.k_norm"},
              {ROLE_SHARED_GATE, "mlp.shared_expert.gate_proj"},
              {ROLE_SHARED_UP, "mlp.shared_expert.up_proj"},
              {ROLE_SHARED_DOWN, "mlp.shared_expert.down_proj"}},
    .gguf = {{ROLE_FFN_NORM, "post_attention_norm"}},
};

/* JetBrains' Mellum 2: Qwen3-MoE with windows, and a base of its own in the layers that have one. */
const struct family family_mellum = {
    .name = "mellum",
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"}, {ROLE_K_NORM, "self_attn.k_norm"}},
};
