#include "gpu_worker/models/family.h"

static void adjust(struct arch *a, const struct by_model_info *m, const struct by_json *config) {
    (void)config;
    a->ffn_norm_is_attn_norm = m->is_parallel;
}

/* Layer norms with bias, a quarter of each head turns. */
const struct family family_stablelm = {.name = "stablelm", .norm = NORM_LAYER, .adjust = adjust};
