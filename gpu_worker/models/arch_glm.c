#include "gpu_worker/models/family.h"

/* GLM-4: norms on both sides, half of each head turns, in pairs of neighbours. */
const struct family family_glm4 = {
    .name = "glm4",
    .names = {{ROLE_POST_ATTN_NORM, "post_self_attn_layernorm"},
              {ROLE_POST_FFN_NORM, "post_mlp_layernorm"},
              {ROLE_GATE_UP, "mlp.gate_up_proj"}},
};
