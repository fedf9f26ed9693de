#include "gpu_worker/models/family.h"

/* The old architecture shares one norm; the new one has two, unless the config says one. A GGUF file, which has no flag
 * for it, has the new one when there is more than one key-value head, and calls its norms the other way round. */
static void adjust(struct arch *a, const struct by_model_info *m, const struct by_json *config) {
    int64_t n_norms = 2;
    bool is_new =
        config ? by_json_bool(by_json_get(config, "new_decoder_architecture")) : m->n_kv_heads > 1;
    const struct by_json *n = config ? by_json_get(config, "num_ln_in_parallel_attn") : NULL;
    if (n && !by_json_to_i64(n, &n_norms)) n_norms = 2; /* null: two */
    a->is_parallel |= is_new;
    a->ffn_norm_is_attn_norm = a->is_parallel && !(is_new && n_norms == 2);
    if (is_new && n_norms == 2) {
        a->names[ROLE_ATTN_NORM] = config ? "ln_attn" : "attn_norm_2";
        a->names[ROLE_FFN_NORM] = config ? "ln_mlp" : "attn_norm";
    }
}

const struct family family_falcon = {
    .name = "falcon",
    .norm = NORM_LAYER,
    .is_ungated = true,
    .layout = {.qkv_by_group = true},
    .layer_prefix = "transformer.h.#.",
    .names = {{ROLE_EMBED, "transformer.word_embeddings"},
              {ROLE_FINAL_NORM, "transformer.ln_f"},
              {ROLE_QKV, "self_attention.query_key_value"},
              {ROLE_O, "self_attention.dense"},
              {ROLE_UP, "mlp.dense_h_to_4h"},
              {ROLE_DOWN, "mlp.dense_4h_to_h"}},
    .adjust = adjust,
};
