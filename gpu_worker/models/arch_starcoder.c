#include "gpu_worker/models/family.h"

/* Layer norms, biases everywhere, a feed-forward without gate. */
const struct family family_starcoder2 = {
    .name = "starcoder2",
    .norm = NORM_LAYER,
    .is_ungated = true,
    .names = {{ROLE_UP, "mlp.c_fc"}, {ROLE_DOWN, "mlp.c_proj"}},
};
