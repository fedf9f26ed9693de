#include "gpu_worker/models/family.h"

/* Latent attention (mla.h), experts with shared ones beside them; V3 chooses by sigmoid with a correction for the choice
 * alone, V2 by softmax, both perhaps within groups. */
const struct family family_deepseek_v2 = {
    .name = "deepseek_v2",
    .gguf = {{ROLE_K_B, "attn_k_b"}, {ROLE_V_B, "attn_v_b"}},
};
const struct family family_deepseek_v3 = {
    .name = "deepseek_v3",
    .gguf = {{ROLE_K_B, "attn_k_b"}, {ROLE_V_B, "attn_v_b"}},
};
/* Latent attention without experts; MiniCPM 3 scales what layers add, the embedding and the logits. */
const struct family family_minicpm3 = {.name = "minicpm3"};
const struct family family_youtu = {.name = "youtu"};
