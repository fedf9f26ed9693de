#include "gpu_worker/models/family.h"

/* OLMoE norms all of q and all of k at once. */
const struct family family_olmoe = {
    .name = "olmoe",
    .qk_whole = true,
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"}, {ROLE_K_NORM, "self_attn.k_norm"}},
};

/* OLMo 2 norms what attention and feed-forward give, not what they take; q and k are normed over all heads at once. */
#define OLMO2_NAMES \
    { \
        {ROLE_ATTN_NORM, ""}, {ROLE_FFN_NORM, ""}, \
            {ROLE_POST_ATTN_NORM, "post_attention_layernorm"}, \
            {ROLE_POST_FFN_NORM, "post_feedforward_layernorm"}, {ROLE_Q_NORM, "self_attn.q_norm"}, \
            {ROLE_K_NORM, "self_attn.k_norm"}, \
    }
const struct family family_olmo2 = {.name = "olmo2", .qk_whole = true, .names = OLMO2_NAMES};
const struct family family_olmo3 = {.name = "olmo3", .qk_whole = true, .names = OLMO2_NAMES};
/* EXAONE 4 has the same norms, but q and k by head. */
const struct family family_exaone4 = {.name = "exaone4", .names = OLMO2_NAMES};
/* The same with experts, one of them for each set of data that was brought in. */
const struct family family_flex_olmo = {
    .name = "flex_olmo",
    .qk_whole = true,
    .names = OLMO2_NAMES,
};
