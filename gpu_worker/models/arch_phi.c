#include "gpu_worker/models/family.h"

/* Phi-1 to 2: one layer norm, attention and feed-forward side by side behind it, biases everywhere, the output's too. The
 * norms of q and k that a config may ask for are layer norms, one for all heads. */
static void adjust_phi(struct arch *a, const struct by_model_info *m,
                       const struct by_json *config) {
    (void)m;
    if (!config || !by_json_bool(by_json_get(config, "qk_layernorm"))) return;
    a->names[ROLE_Q_NORM] = "self_attn.q_layernorm";
    a->names[ROLE_K_NORM] = "self_attn.k_layernorm";
}
const struct family family_phi = {
    .name = "phi",
    .norm = NORM_LAYER,
    .is_ungated = true,
    .ffn_norm_is_attn_norm = true,
    .names = {{ROLE_FINAL_NORM, "model.final_layernorm"},
              {ROLE_O, "self_attn.dense"},
              {ROLE_UP, "mlp.fc1"},
              {ROLE_DOWN, "mlp.fc2"}},
    .gguf = {{ROLE_QKV, "attn_qkv"}},
    .adjust = adjust_phi,
};

/* Phi-3 and 3.5: Llama with q, k, v in one tensor and gate, up in another. */
const struct family family_phi3 = {
    .name = "phi3",
    .names = {{ROLE_QKV, "self_attn.qkv_proj"}, {ROLE_GATE_UP, "mlp.gate_up_proj"}},
};
