/* arch.h - how a family of models computes, beyond the sizes in by_model_info: flags, and what its tensors are called.
 *
 *     by_model_info (sizes) ─┐                       a new family is a new struct family: flags and names
 *     struct family (flags) ─┴─▶ struct arch ─▶ weights.c binds, decoder.c runs: one forward pass for all
 *
 * Which norms a layer has follows from the names: a role without a name is not there.
 *
 *     attn_norm ─▶ attention ─▶ post_attn_norm ─▶ + ─▶ ffn_norm ─▶ feed-forward ─▶ post_ffn_norm ─▶ +
 *
 * Always: decoder.c and weights.c know no family by name. models/README.md is the table of what differs.
 * Owner: constants; an arch is a plain value that points into them. */
#ifndef GPU_WORKER_MODELS_ARCH_H
#define GPU_WORKER_MODELS_ARCH_H

#include "common/base/err.h"
#include "common/base/json.h"
#include "common/modelfile/model_info.h"
#include "gpu_worker/backend.h"

/* What a tensor is for. Those from ROLE_ATTN_NORM on are one a layer. */
enum role {
    ROLE_EMBED,
    ROLE_POSITIONS,
    ROLE_TYPES,
    ROLE_EMBED_NORM,
    ROLE_TOKEN_LAYERS, /* what each layer adds of a token: [vocab, n_layers * per_layer] … */
    ROLE_TOKEN_LAYERS_PROJ, /* … and of its embedding: hidden -> n_layers * per_layer, normed by layer */
    ROLE_TOKEN_LAYERS_NORM,
    ROLE_FINAL_NORM,
    ROLE_OUTPUT,
    ROLE_POOLER, /* BERT: dense layer of the first token's row … */
    ROLE_SCORES, /* … and the classifier on top of it */
    ROLE_ATTN_NORM,
    ROLE_Q,
    ROLE_K,
    ROLE_V,
    ROLE_QKV, /* the three in one tensor; then Q, K and V are not looked for */
    ROLE_Q_NORM,
    ROLE_K_NORM,
    ROLE_SINKS,
    ROLE_O,
    ROLE_POST_ATTN_NORM,
    ROLE_FFN_NORM,
    ROLE_GATE,
    ROLE_UP,
    ROLE_GATE_UP, /* both in one tensor */
    ROLE_DOWN,
    ROLE_POST_FFN_NORM,
    ROLE_TOKEN_GATE, /* hidden -> per_layer, times what the layer has of the token, -> hidden, normed, added */
    ROLE_TOKEN_OUT,
    ROLE_POST_TOKEN_NORM,
    ROLE_LAYER_SCALE, /* a number that x is multiplied by, last of all */
    ROLE_ROUTER,
    ROLE_ROUTER_BIAS,  /* for the choice only */
    ROLE_ROUTER_SCALE, /* weights of the router's own norm, times sqrt(hidden) */
    ROLE_EXPERT_SCALE, /* a number an expert, which its weight is multiplied by */
    ROLE_EXPERT_NORM,  /* experts beside the feed-forward: each has a norm before and behind */
    ROLE_POST_EXPERT_NORM,
    ROLE_POST_DENSE_NORM,
    ROLE_EXPERT_GATE, /* a tensor an expert, or one [n_experts, …] */
    ROLE_EXPERT_UP,
    ROLE_EXPERT_GATE_UP,
    ROLE_EXPERT_DOWN,
    ROLE_EXPERT_DOWN_ALL, /* of all experts, beside a ROLE_EXPERT_GATE_UP of all */
    ROLE_SHARED_GATE,
    ROLE_SHARED_UP,
    ROLE_SHARED_GATE_UP,
    ROLE_SHARED_DOWN,
    ROLE_SHARED_SCORE,
    ROLE_Q_A, /* latent attention: hidden -> q_rank -> heads */
    ROLE_Q_A_NORM,
    ROLE_Q_B,
    ROLE_KV_A, /* hidden -> latent + the rotated part of the key */
    ROLE_KV_A_NORM,
    ROLE_KV_B, /* latent -> each head's key and value */
    ROLE_K_B, /* its halves, where a GGUF has them apart: [n_heads, kv_rank, nope_dim], [n_heads, v_dim, kv_rank] */
    ROLE_V_B,
    ROLE_STATE_IN, /* layers with a state: all that is projected, in one tensor */
    ROLE_STATE_CONV,
    ROLE_STATE_LOG_A, /* a GGUF's is the decay itself, -exp of it */
    ROLE_STATE_DT,
    ROLE_STATE_SKIP,
    ROLE_STATE_NORM,
    ROLE_STATE_OUT,
    ROLE_DELTA_QKV, /* gated delta nets; Z: the gate of the output, A and B: decay and strength of an update */
    ROLE_DELTA_Z,
    ROLE_DELTA_QKVZ, /* by key head its q, k, the v and the z of its value heads; then QKV and Z are not looked for */
    ROLE_DELTA_B,
    ROLE_DELTA_A,
    ROLE_DELTA_BA, /* by key head the b and the a of its value heads */
    N_ROLES,
    ROLE_LAYER_FIRST = ROLE_ATTN_NORM,
};

/* How safetensors files of a family lay out what GGUF files have in one common order. */
struct layout {
    bool norm_less_one; /* norm weights are stored less 1 (Gemma) */
    bool is_transposed; /* linear layers are [n_in, n_out] (GPT-2) */
    /* rows of QKV: for each key-value head its queries, key, value; else all q, all k, all v */
    bool qkv_by_group;
    bool experts_transposed; /* [n_experts, n_in, n_out] (gpt-oss) */
    /* … unless their shape is the other one: transformers 5 saves them so (Qwen3-VL) */
    bool experts_either_way;
    bool gate_up_by_pairs; /* rows gate, up, gate, up … (gpt-oss) */
};

struct family;

struct arch {
    const struct family *family; /* family.h */
    enum norm_kind norm;
    enum act_kind act;
    bool is_ungated;            /* down(act(up(x))) */
    bool is_parallel;           /* attention and feed-forward read the same x, both are added */
    bool is_post_ln;            /* the post norms take x + f(x) and give the new x (BERT) */
    bool qk_whole;              /* q and k norms go over all heads at once */
    bool qk_norm_is_last;       /* q and k are normed after they have turned */
    bool has_v_norm;            /* each head of v is normed, without weights */
    bool is_encoder;            /* every token sees every other; no output matrix */
    bool ffn_norm_is_attn_norm; /* parallel families with one norm for both */
    struct layout layout;
    const char *layer_prefix;   /* "model.layers.#." */
    const char *names[N_ROLES]; /* within the layer; NULL: this family has no such thing */
};

/* BY_EUNSUPPORTED names the family or the feature. */
BY_MUST_USE int arch_make(struct arch *out, const struct by_model_info *m,
                          const struct by_json *config, struct by_err *err);

/* The full name of a role's tensor without ".weight": '#' and '@' filled in. Returns out, or NULL when there is none or
 * it does not fit. */
const char *arch_name(const struct arch *a, enum role role, uint32_t layer, uint32_t expert,
                      char *out, size_t cap);
/* The same for a name given. */
const char *arch_expand(const struct arch *a, enum role role, const char *name, uint32_t layer,
                        uint32_t expert, char *out, size_t cap);

#endif
