#include "gpu_worker/models/family.h"

/* Learned positions, weights transposed in safetensors. */
const struct family family_gpt2 = {
    .name = "gpt2",
    .norm = NORM_LAYER,
    .is_ungated = true,
    .layout = {.is_transposed = true},
    .layer_prefix = "transformer.h.#.",
    .names = {{ROLE_EMBED, "transformer.wte"},
              {ROLE_POSITIONS, "transformer.wpe"},
              {ROLE_FINAL_NORM, "transformer.ln_f"},
              {ROLE_ATTN_NORM, "ln_1"},
              {ROLE_QKV, "attn.c_attn"},
              {ROLE_O, "attn.c_proj"},
              {ROLE_FFN_NORM, "ln_2"},
              {ROLE_UP, "mlp.c_fc"},
              {ROLE_DOWN, "mlp.c_proj"}},
};
