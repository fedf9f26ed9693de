#include "gpu_worker/models/family.h"

/* K-EXAONE: attention of EXAONE 4, Llama's norms, experts of DeepSeek V3. */
const struct family family_exaone_moe = {
    .name = "exaone_moe",
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"},
              {ROLE_K_NORM, "self_attn.k_norm"},
              {ROLE_ROUTER_BIAS, "mlp.e_score_correction_bias"}},
};
