#include "gpu_worker/models/family.h"

/* Norm weights are stored less 1, the embedding is scaled by sqrt(hidden). From Gemma 2 on a norm stands on both sides of
 * attention and feed-forward; Gemma 2 caps its logits, Gemma 3 norms q and k. Gemma 4 stores norm weights as they are, norms
 * values, too, and its small ones have a second embedding for each layer, one has experts beside the feed-forward. */
const struct family family_gemma = {.name = "gemma", .layout = {.norm_less_one = true}};

const struct family family_gemma2 = {
    .name = "gemma2",
    .layout = {.norm_less_one = true},
    .names = {{ROLE_POST_ATTN_NORM, "post_attention_layernorm"},
              {ROLE_FFN_NORM, "pre_feedforward_layernorm"},
              {ROLE_POST_FFN_NORM, "post_feedforward_layernorm"}},
};
/* One that was trained in private; without the norms behind. */
const struct family family_vaultgemma = {
    .name = "vaultgemma",
    .layout = {.norm_less_one = true},
    .names = {{ROLE_FFN_NORM, "pre_feedforward_layernorm"}},
};
const struct family family_gemma3_text = {
    .name = "gemma3_text",
    .layout = {.norm_less_one = true},
    .names = {{ROLE_POST_ATTN_NORM, "post_attention_layernorm"},
              {ROLE_FFN_NORM, "pre_feedforward_layernorm"},
              {ROLE_POST_FFN_NORM, "post_feedforward_layernorm"},
              {ROLE_Q_NORM, "self_attn.q_norm"},
              {ROLE_K_NORM, "self_attn.k_norm"}},
};

const struct family family_gemma4 = {
    .name = "gemma4",
    .has_v_norm = true,
    .names = {{ROLE_POST_ATTN_NORM, "post_attention_layernorm"},
              {ROLE_FFN_NORM, "pre_feedforward_layernorm"},
              {ROLE_POST_FFN_NORM, "post_feedforward_layernorm"},
              {ROLE_Q_NORM, "self_attn.q_norm"},
              {ROLE_K_NORM, "self_attn.k_norm"},
              {ROLE_LAYER_SCALE, "layer_scalar"},
              {ROLE_TOKEN_LAYERS, "model.embed_tokens_per_layer"},
              {ROLE_TOKEN_LAYERS_PROJ, "model.per_layer_model_projection"},
              {ROLE_TOKEN_LAYERS_NORM, "model.per_layer_projection_norm"},
              {ROLE_TOKEN_GATE, "per_layer_input_gate"},
              {ROLE_TOKEN_OUT, "per_layer_projection"},
              {ROLE_POST_TOKEN_NORM, "post_per_layer_input_norm"},
              {ROLE_ROUTER, "router.proj"},
              {ROLE_ROUTER_SCALE, "router.scale"},
              {ROLE_EXPERT_SCALE, "router.per_expert_scale"},
              {ROLE_EXPERT_NORM, "pre_feedforward_layernorm_2"},
              {ROLE_POST_EXPERT_NORM, "post_feedforward_layernorm_2"},
              {ROLE_POST_DENSE_NORM, "post_feedforward_layernorm_1"},
              {ROLE_EXPERT_GATE_UP, "experts.gate_up_proj"},
              {ROLE_EXPERT_DOWN, "experts.down_proj"}},
};
const struct family family_gemma4_unified = {
    .name = "gemma4_unified",
    .has_v_norm = true,
    .names = {{ROLE_POST_ATTN_NORM, "post_attention_layernorm"},
              {ROLE_FFN_NORM, "pre_feedforward_layernorm"},
              {ROLE_POST_FFN_NORM, "post_feedforward_layernorm"},
              {ROLE_Q_NORM, "self_attn.q_norm"},
              {ROLE_K_NORM, "self_attn.k_norm"},
              {ROLE_LAYER_SCALE, "layer_scalar"}},
};
