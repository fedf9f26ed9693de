#include "gpu_worker/models/family.h"

const struct family family_mixtral = {
    .name = "mixtral",
    .names = {{ROLE_ROUTER, "block_sparse_moe.gate"},
              {ROLE_EXPERT_GATE, "block_sparse_moe.experts.@.w1"},
              {ROLE_EXPERT_UP, "block_sparse_moe.experts.@.w3"},
              {ROLE_EXPERT_DOWN, "block_sparse_moe.experts.@.w2"}},
};
