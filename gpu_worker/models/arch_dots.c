#include "gpu_worker/models/family.h"

/* dots.llm1: attention of Qwen3, experts of DeepSeek V3. */
const struct family family_dots1 = {
    .name = "dots1",
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"}, {ROLE_K_NORM, "self_attn.k_norm"}},
};
