#include "gpu_worker/models/family.h"

/* ERNIE 4.5 with experts: a softmax chooses them, corrected for the choice alone. */
const struct family family_ernie4_5_moe = {
    .name = "ernie4_5_moe",
    .names = {{ROLE_ROUTER_BIAS, "mlp.moe_statics.e_score_correction_bias"}},
};
