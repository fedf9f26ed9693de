#include "gpu_worker/models/family.h"

/* Command R: one layer norm without bias, attention and feed-forward side by side behind it. */
const struct family family_cohere = {
    .name = "cohere",
    .norm = NORM_LAYER,
    .ffn_norm_is_attn_norm = true,
};
