#include "gpu_worker/models/family.h"

/* Mixtral's experts, chosen by a sigmoid with a correction; all of q and all of k normed at once. */
const struct family family_minimax_m2 = {
    .name = "minimax_m2",
    .qk_whole = true,
    .names = {{ROLE_Q_NORM, "self_attn.q_norm"},
              {ROLE_K_NORM, "self_attn.k_norm"},
              {ROLE_ROUTER, "block_sparse_moe.gate"},
              {ROLE_ROUTER_BIAS, "block_sparse_moe.e_score_correction_bias"},
              {ROLE_EXPERT_GATE, "block_sparse_moe.experts.@.w1"},
              {ROLE_EXPERT_UP, "block_sparse_moe.experts.@.w3"},
              {ROLE_EXPERT_DOWN, "block_sparse_moe.experts.@.w2"}},
};
