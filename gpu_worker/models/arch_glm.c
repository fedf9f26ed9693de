#include "gpu_worker/models/family.h"

/* GLM-4: half of each head turns, in pairs of neighbours; from 0414 on there are norms on both sides. The GGUF files of its
 * first code have q, k and v in one tensor, those of transformers' three. */
const struct family family_glm = {
    .name = "glm",
    .names = {{ROLE_GATE_UP, "mlp.gate_up_proj"}},
    .gguf = {{ROLE_QKV, "attn_qkv"}},
};
const struct family family_glm4 = {
    .name = "glm4",
    .names = {{ROLE_POST_ATTN_NORM, "post_self_attn_layernorm"},
              {ROLE_POST_FFN_NORM, "post_mlp_layernorm"},
              {ROLE_GATE_UP, "mlp.gate_up_proj"}},
};
