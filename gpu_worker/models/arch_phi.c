#include "gpu_worker/models/family.h"

/* Phi-3 and 3.5: Llama with q, k, v in one tensor and gate, up in another. */
const struct family family_phi3 = {
    .name = "phi3",
    .names = {{ROLE_QKV, "self_attn.qkv_proj"}, {ROLE_GATE_UP, "mlp.gate_up_proj"}},
};
