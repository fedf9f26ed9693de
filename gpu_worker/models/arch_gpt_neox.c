#include "gpu_worker/models/family.h"

/* Pythia: each head's query, key and value lie together; attention and feed-forward side by side, each with its norm. */
const struct family family_gpt_neox = {
    .name = "gpt_neox",
    .norm = NORM_LAYER,
    .is_ungated = true,
    .layout = {.qkv_by_group = true},
    .layer_prefix = "gpt_neox.layers.#.",
    .names = {{ROLE_EMBED, "gpt_neox.embed_in"},
              {ROLE_FINAL_NORM, "gpt_neox.final_layer_norm"},
              {ROLE_OUTPUT, "embed_out"},
              {ROLE_QKV, "attention.query_key_value"},
              {ROLE_O, "attention.dense"},
              {ROLE_UP, "mlp.dense_h_to_4h"},
              {ROLE_DOWN, "mlp.dense_4h_to_h"}},
};
