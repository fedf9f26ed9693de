#include "gpu_worker/models/family.h"

/* Learned positions that begin at row 2. */
const struct family family_opt = {
    .name = "opt",
    .norm = NORM_LAYER,
    .is_ungated = true,
    .layer_prefix = "model.decoder.layers.#.",
    .names = {{ROLE_EMBED, "model.decoder.embed_tokens"},
              {ROLE_POSITIONS, "model.decoder.embed_positions"},
              {ROLE_FINAL_NORM, "model.decoder.final_layer_norm"},
              {ROLE_ATTN_NORM, "self_attn_layer_norm"},
              {ROLE_O, "self_attn.out_proj"},
              {ROLE_FFN_NORM, "final_layer_norm"},
              {ROLE_UP, "fc1"},
              {ROLE_DOWN, "fc2"}},
};
