#include "gpu_worker/models/family.h"

/* Llama 1 to 3.3, SmolLM2 and all that took over their names: RMS norms before, a gated feed-forward, rope. What these
 * families have besides (windows, layers without rope, scales) is in by_model_info. */
const struct family family_llama = {.name = "llama"};
const struct family family_mistral = {.name = "mistral"};
const struct family family_ministral = {.name = "ministral"};
const struct family family_ministral3 = {.name = "ministral3"};
const struct family family_smollm3 = {.name = "smollm3"};
const struct family family_granite = {.name = "granite"};
/* Granite with norms behind as well, unless the config says no. */
static void adjust_hyperclovax(struct arch *a, const struct by_model_info *m,
                               const struct by_json *config) {
    const struct by_json *v = config ? by_json_get(config, "use_post_norm") : NULL;
    (void)m;
    if (v && !by_json_bool(v)) a->names[ROLE_POST_ATTN_NORM] = a->names[ROLE_POST_FFN_NORM] = NULL;
}
const struct family family_hyperclovax = {
    .name = "hyperclovax",
    .names = {{ROLE_POST_ATTN_NORM, "post_norm1"}, {ROLE_POST_FFN_NORM, "post_norm2"}},
    .adjust = adjust_hyperclovax,
};
const struct family family_helium = {.name = "helium"};
const struct family family_ernie4_5 = {.name = "ernie4_5"};
const struct family family_seed_oss = {
    .name = "seed_oss",
    .gguf = {{ROLE_FFN_NORM, "post_attention_norm"}},
};
const struct family family_hunyuan_v1_dense = {
    .name = "hunyuan_v1_dense",
    .qk_norm_is_last = true,
    .names = {{ROLE_Q_NORM, "self_attn.query_layernorm"}, {ROLE_K_NORM, "self_attn.key_layernorm"}},
};
const struct family family_arcee = {.name = "arcee", .is_ungated = true};

/* Llama under names of their own; CWM with windows. */
const struct family family_iquestcoder = {.name = "iquestcoder"};
const struct family family_cwm = {.name = "cwm"};
