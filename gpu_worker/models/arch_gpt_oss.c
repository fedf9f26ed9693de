#include "gpu_worker/models/family.h"

static void adjust(struct arch *a, const struct by_model_info *m, const struct by_json *config) {
    (void)m;
    (void)config;
    a->act = ACT_SWIGLU_OAI;
}

/* A sink in each head's softmax, a window in every other layer, biases on router and experts, a clamped activation. */
const struct family family_gpt_oss = {
    .name = "gpt_oss",
    .layout = {.experts_transposed = true, .gate_up_by_pairs = true},
    .names = {{ROLE_SINKS, "self_attn.sinks"},
              {ROLE_ROUTER, "mlp.router"},
              {ROLE_EXPERT_GATE_UP, "mlp.experts.gate_up_proj"},
              {ROLE_EXPERT_DOWN, "mlp.experts.down_proj"}},
    .gguf = {{ROLE_FFN_NORM, "post_attention_norm"}},
    .adjust = adjust,
};
