#include "gpu_worker/models/family.h"

/* Norm weights are stored less 1, the embedding is scaled by sqrt(hidden). From Gemma 2 on a norm stands on both sides of
 * attention and feed-forward; Gemma 2 caps its logits, Gemma 3 norms q and k. */
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
