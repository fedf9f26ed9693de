#include "gpu_worker/models/family.h"

/* EXAONE 3 and 3.5, Deep: Llama under GPT-2's names. */
const struct family family_exaone = {
    .name = "exaone",
    .layer_prefix = "transformer.h.#.",
    .names = {{ROLE_EMBED, "transformer.wte"},
              {ROLE_FINAL_NORM, "transformer.ln_f"},
              {ROLE_ATTN_NORM, "ln_1"},
              {ROLE_Q, "attn.attention.q_proj"},
              {ROLE_K, "attn.attention.k_proj"},
              {ROLE_V, "attn.attention.v_proj"},
              {ROLE_O, "attn.attention.out_proj"},
              {ROLE_FFN_NORM, "ln_2"},
              {ROLE_GATE, "mlp.c_fc_0"},
              {ROLE_UP, "mlp.c_fc_1"},
              {ROLE_DOWN, "mlp.c_proj"}},
};
