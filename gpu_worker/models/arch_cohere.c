#include "gpu_worker/models/family.h"

/* Command R: one layer norm without bias, attention and feed-forward side by side behind it. R7B and A (cohere2) have windows
 * in three of four layers, and positions in those alone. */
const struct family family_cohere = {
    .name = "cohere",
    .norm = NORM_LAYER,
    .ffn_norm_is_attn_norm = true,
};
const struct family family_cohere2 = {
    .name = "cohere2",
    .norm = NORM_LAYER,
    .ffn_norm_is_attn_norm = true,
};
