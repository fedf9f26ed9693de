#include "gpu_worker/models/family.h"

/* Liquid's LFM2: gated short convolutions in most layers, attention in the others; names of its own throughout. */
#define LFM2_NAMES \
    {ROLE_FINAL_NORM, "model.embedding_norm"}, {ROLE_ATTN_NORM, "operator_norm"}, \
        {ROLE_FFN_NORM, "ffn_norm"}, {ROLE_Q_NORM, "self_attn.q_layernorm"}, \
        {ROLE_K_NORM, "self_attn.k_layernorm"}, {ROLE_O, "self_attn.out_proj"}, \
        {ROLE_STATE_IN, "conv.in_proj"}, {ROLE_STATE_CONV, "conv.conv"}, \
        {ROLE_STATE_OUT, "conv.out_proj"}, {ROLE_GATE, "feed_forward.w1"}, \
        {ROLE_UP, "feed_forward.w3"}, { \
        ROLE_DOWN, "feed_forward.w2" \
    }
/* Files call the last norm as if it were the first. */
#define LFM2_GGUF \
    {ROLE_FINAL_NORM, "token_embd_norm"}, {ROLE_STATE_IN, "shortconv.in_proj"}, \
        {ROLE_STATE_CONV, "shortconv.conv"}, { \
        ROLE_STATE_OUT, "shortconv.out_proj" \
    }

const struct family family_lfm2 = {
    .name = "lfm2",
    .names = {LFM2_NAMES},
    .gguf = {LFM2_GGUF},
};
const struct family family_lfm2_moe = {
    .name = "lfm2_moe",
    .names = {LFM2_NAMES,
              {ROLE_ROUTER, "feed_forward.gate"},
              {ROLE_ROUTER_BIAS, "feed_forward.expert_bias"},
              {ROLE_EXPERT_GATE, "feed_forward.experts.@.w1"},
              {ROLE_EXPERT_UP, "feed_forward.experts.@.w3"},
              {ROLE_EXPERT_DOWN, "feed_forward.experts.@.w2"}},
    .gguf = {LFM2_GGUF},
};
