#include "gpu_worker/models/family.h"

#define GPT2_NAMES \
    { \
        {ROLE_EMBED, "transformer.wte"}, {ROLE_POSITIONS, "transformer.wpe"}, \
            {ROLE_FINAL_NORM, "transformer.ln_f"}, {ROLE_ATTN_NORM, "ln_1"}, \
            {ROLE_QKV, "attn.c_attn"}, {ROLE_O, "attn.c_proj"}, {ROLE_FFN_NORM, "ln_2"}, \
            {ROLE_UP, "mlp.c_fc"}, {ROLE_DOWN, "mlp.c_proj"}, \
    }

/* Learned positions, weights transposed in safetensors. */
const struct family family_gpt2 = {
    .name = "gpt2",
    .norm = NORM_LAYER,
    .is_ungated = true,
    .layout = {.is_transposed = true},
    .layer_prefix = "transformer.h.#.",
    .names = GPT2_NAMES,
};

/* StarCoder, SantaCoder, Granite Code: GPT-2 with the weights as others lay them out, and one key-value head for all; where each
 * head has its own, its query, key and value lie together. */
static void adjust_bigcode(struct arch *a, const struct by_model_info *m,
                           const struct by_json *config) {
    a->layout.qkv_by_group = config && m->n_kv_heads > 1;
}
const struct family family_gpt_bigcode = {
    .name = "gpt_bigcode",
    .norm = NORM_LAYER,
    .is_ungated = true,
    .layer_prefix = "transformer.h.#.",
    .names = GPT2_NAMES,
    .adjust = adjust_bigcode,
};
