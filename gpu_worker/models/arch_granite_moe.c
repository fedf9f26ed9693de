#include "gpu_worker/models/family.h"

/* Granite with experts, all of them in one tensor, and perhaps a shared one. In GGUF files the second is the first. */
const struct family family_granitemoe = {
    .name = "granitemoe",
    .names = {{ROLE_ROUTER, "block_sparse_moe.router.layer"},
              {ROLE_EXPERT_GATE_UP, "block_sparse_moe.input_linear"},
              {ROLE_EXPERT_DOWN, "block_sparse_moe.output_linear"}},
};
const struct family family_granitemoeshared = {
    .name = "granitemoeshared",
    .names = {{ROLE_ROUTER, "block_sparse_moe.router.layer"},
              {ROLE_EXPERT_GATE_UP, "block_sparse_moe.input_linear"},
              {ROLE_EXPERT_DOWN, "block_sparse_moe.output_linear"},
              {ROLE_SHARED_GATE_UP, "shared_mlp.input_linear"},
              {ROLE_SHARED_DOWN, "shared_mlp.output_linear"}},
};
