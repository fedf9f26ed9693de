#include "gpu_worker/models/family.h"

/* Layer norms, and a feed-forward of squared ReLU without a gate. Nemotron 3 to 4 and Minitron store their norms less 1; half
 * of each head turns. Jais 2 has biases everywhere. */
const struct family family_nemotron = {
    .name = "nemotron",
    .norm = NORM_LAYER,
    .is_ungated = true,
    .layout = {.norm_less_one = true},
};
const struct family family_jais2 = {.name = "jais2", .norm = NORM_LAYER, .is_ungated = true};
