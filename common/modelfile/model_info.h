/* model_info.h - what a model's own description says of it, in one struct, whichever file it came from.
 *
 *     config.json (transformers 4 or 5) ─┐
 *     GGUF keys ─────────────────────────┼─▶ struct by_model_info ─▶ gpu_worker/models (struct arch), banyan model
 *     generation_config.json ────────────┘
 *
 * Always, once read: a family's own defaults are filled in for what the file leaves out; each number lies within the
 * limits below; n_heads is a multiple of n_kv_heads; 0, false or NONE means "this model has no such thing". How a
 * family computes (norm with 1 + w, where norms stand, tensor names) is not here but in gpu_worker/models; what one
 * family alone says is in the raw config (model_dir.h).
 * Owner: plain values, no pointers; copy it freely (about 12 KiB). */
#ifndef COMMON_MODELFILE_MODEL_INFO_H
#define COMMON_MODELFILE_MODEL_INFO_H

#include "common/base/err.h"
#include "common/base/str.h"

enum {
    BY_LAYERS_MAX = 1024,
    BY_HIDDEN_MAX = 1 << 17,
    BY_HEADS_MAX = 4096,
    BY_HEAD_DIM_MAX = 1024,
    BY_FFN_MAX = 1 << 20,
    BY_VOCAB_MAX = 1 << 21,
    BY_CONTEXT_MAX = 1 << 26,
    BY_EXPERTS_MAX = 1024,
    BY_EXPERT_GROUPS_MAX = 64,
    BY_EOS_MAX = 64,
    BY_LABELS_MAX = 65536,
    BY_CONV_MAX = 32,               /* columns of a convolution over time */
    BY_STATE_NUMBERS_MAX = 1 << 26, /* of a sequence, in a layer */
    BY_ROPE_PAIRS_MAX = BY_HEAD_DIM_MAX / 2,
};

enum by_act {
    BY_ACT_SILU,
    BY_ACT_GELU,      /* with erf */
    BY_ACT_GELU_TANH, /* gelu_new, gelu_pytorch_tanh, gelu_fast */
    BY_ACT_RELU,
    BY_ACT_RELU2,
    BY_ACT_QUICK_GELU,
};

enum by_rope_kind {
    BY_ROPE_NONE, /* learned positions, or none */
    BY_ROPE_PLAIN,
    BY_ROPE_LINEAR, /* positions / factor */
    BY_ROPE_LLAMA3, /* factor, low_freq, high_freq, original_context */
    BY_ROPE_YARN,   /* factor, beta_*, original_context, attention_factor, mscale*, is_truncated */
    BY_ROPE_LONGROPE, /* short_factors up to original_context, then long_factors; attention_factor */
    /* long_factors divide the frequencies: GGUF's rope_freqs.weight (llama3, worked out); "proportional", where
     * 1e30 is a pair that does not turn */
    BY_ROPE_FACTORS,
    BY_ROPE_DYNAMIC, /* NTK by sequence length: named here so that it can be refused */
};

/* inv_freq[i] = theta^(-2i / n_rot), then changed as `kind` says; i < n_rot / 2. */
struct by_rope {
    enum by_rope_kind kind;
    /* pairs are (2i, 2i+1), as the weights of this file are laid out; else (i, i+n_rot/2) */
    bool is_interleaved;
    uint32_t n_rot; /* dimensions of a head that turn; the rest pass */
    double theta;
    /* of sliding-window layers, which then ignore the scaling; 0: the same as the others */
    double theta_local;
    uint32_t n_rot_local; /* dimensions that turn there, where theta_local is not 0 */
    double factor;
    double low_freq, high_freq;
    double beta_fast, beta_slow;
    /* multiplies cos and sin; worked out by the kind's formula where the file gives none */
    double attention_factor;
    double mscale, mscale_all; /* DeepSeek's yarn; 0: not given */
    uint32_t original_context;
    bool is_truncated;  /* yarn: correction range rounded to whole dimensions */
    uint32_t n_factors; /* n_rot / 2, or 0 */
    float short_factors[BY_ROPE_PAIRS_MAX], long_factors[BY_ROPE_PAIRS_MAX];
};

enum by_layer_flag {
    BY_LAYER_SLIDING = 1, /* attention sees sliding_window positions, itself included */
    BY_LAYER_NO_ROPE = 2,
    BY_LAYER_MOE = 4,   /* feed-forward is routed to experts */
    BY_LAYER_STATE = 8, /* instead of attention what by_state_info says: no keys and values */
};

enum by_moe_score { BY_MOE_SOFTMAX, BY_MOE_SIGMOID };

struct by_moe_info {
    uint32_t n_experts, n_used; /* 0 experts: a dense model */
    uint32_t ffn;               /* of one expert */
    uint32_t shared_ffn;        /* of all shared experts together; 0: none */
    bool has_shared_gate;       /* the shared expert's output is weighed by sigmoid(x . gate) */
    bool norm_topk;             /* the chosen experts' weights are made to sum to 1 */
    bool is_bias_corrected;     /* choice by score + bias, weight by score (DeepSeek V3) */
    enum by_moe_score score;
    uint32_t n_groups, n_groups_used; /* group-limited choice; 1: no groups */
    bool group_by_top2;               /* a group's rank is the sum of its best two, else its best */
    double routed_scale;
};

struct by_mla_info {
    uint32_t q_rank;  /* 0: q is projected directly */
    uint32_t kv_rank; /* 0: no MLA */
    uint32_t nope_dim, rope_dim, v_dim;
};

enum by_state_kind {
    BY_STATE_NONE,
    /* gated delta nets: for each value head a matrix [k_dim, v_dim], behind a convolution of q, k and v */
    BY_STATE_DELTA,
    BY_STATE_MAMBA,      /* Mamba-2: the same, B of a group of heads as k, C as q and x as v */
    BY_STATE_SHORT_CONV, /* gated short convolutions of `hidden` columns (LFM2); no heads */
};

/* Layers that keep a state of a sequence, of one size however long it is. */
struct by_state_info {
    enum by_state_kind kind;
    uint32_t n_k_heads, n_v_heads;
    uint32_t k_dim, v_dim; /* of a head */
    uint32_t conv;         /* inputs of the causal convolution over time, the last one included */
    bool has_bias, has_conv_bias; /* of projections; of the convolution */
    double step_min, step_max;    /* Mamba-2: limits of softplus(t) */
    /* value head h reads key head h % n_k_heads, as ggml lays them; else h / (n_v_heads / n_k_heads) */
    bool is_tiled;
};

enum by_quant_method {
    BY_QUANT_NONE,
    BY_QUANT_AWQ,
    BY_QUANT_GPTQ,
    BY_QUANT_FP8,        /* weight_scale_inv by blocks, or weight_scale */
    BY_QUANT_COMPRESSED, /* compressed-tensors */
    BY_QUANT_MXFP4,
    BY_QUANT_OTHER, /* the name is in `name`: refused */
};
enum { BY_QUANT_SKIP_MAX = 64, BY_QUANT_SKIP_BYTES = 96 };

struct by_quant_info {
    enum by_quant_method method;
    char name[32]; /* quant_method as written */
    /* compressed-tensors: "pack-quantized", "int-quantized", "float-quantized" … */
    char format[48];
    uint32_t bits;
    uint32_t group; /* input columns a scale; 0: one a row */
    bool is_symmetric;
    bool has_act_order; /* g_idx is not sorted */
    bool is_v2;         /* gptq_v2: zeros are stored as they are, not less one */
    bool is_float;      /* f8 weights, not integers */
    uint32_t block[2];  /* FP8: rows, columns a scale; 0: one a tensor or a row */
};

struct by_generation_info {
    bool is_given; /* one of these is in the file; those that are not are neutral */
    double temperature, top_p, min_p, repetition_penalty;
    int32_t top_k; /* 0: all */
};

struct by_model_info {
    char family[48]; /* transformers' model_type: "llama", "qwen3_moe"; GGUF names are translated */
    char architecture[96]; /* architectures[0], or GGUF's general.architecture */
    char name[128];        /* GGUF's general.name; "" in config.json */
    bool is_gguf;
    bool has_custom_code; /* auto_map: the folder brings its own Python */

    uint32_t n_layers, hidden, n_heads, n_kv_heads, head_dim;
    uint32_t full_kv_heads, full_head_dim; /* of layers without a window, where others have one */
    uint32_t ffn;                          /* of a dense layer */
    uint32_t vocab;   /* rows of the embedding; may be more than the tokenizer has */
    uint32_t context; /* max_position_embeddings; 0: not given */
    enum by_act act;
    double norm_eps;
    bool is_tied;       /* the output matrix is the embedding */
    bool has_attn_bias; /* q, k, v (and where the family says so, o) */
    bool has_mlp_bias;
    bool has_qk_norm; /* false: not even where the family can have them */
    bool
        has_attn_gate; /* attention's output times the sigmoid of a gate, which q's matrix brings */
    bool is_parallel;  /* attention and feed-forward read the same normed input */

    struct by_rope rope;
    uint32_t sliding_window;            /* 0: none */
    uint8_t layer_flags[BY_LAYERS_MAX]; /* enum by_layer_flag */
    double attn_softcap, final_softcap; /* 0: none */
    double attn_scale;                  /* of q . k; always set */
    /* queries are multiplied by 1 + query_growth * ln(1 + position / every), the quotient a whole number; every 0: not */
    double query_growth;
    uint32_t query_growth_every;
    double embed_scale, residual_scale, logit_scale; /* 1: none */

    /* The last layers, which attend to the keys and values of the last one of their kind before them. */
    uint32_t n_kv_shared;
    uint32_t shared_ffn; /* of a dense layer among them; 0: as the others */
    bool k_is_v;         /* values of layers without a window are what their keys are made of */
    uint32_t per_layer;  /* numbers that each layer has of a token beside its embedding; 0: none */

    struct by_moe_info moe;
    struct by_mla_info mla;
    struct by_state_info state;
    uint32_t n_types, n_labels; /* BERT: token types; classifier outputs */
    uint32_t pos_offset;        /* OPT: rows before position 0 in the table of learned positions */

    int64_t bos, pad; /* -1: none */
    uint32_t n_eos;
    uint32_t eos[BY_EOS_MAX]; /* config.json's and generation_config.json's together */

    struct by_quant_info quant;
    struct by_generation_info generation;
};

/* Everything off and unset: what a reader starts from. */
void by_model_info_init(struct by_model_info *m);
/* Fills what follows from the rest (head_dim, attn_scale, layer flags left out) and checks every bound and every
 * relation; `where` begins the error. */
BY_MUST_USE int by_model_info_finish(struct by_model_info *m, const char *where,
                                     struct by_err *err);
/* Layers whose tokens have keys and values. */
uint32_t by_model_info_n_keyed(const struct by_model_info *m);
/* Columns that the convolution of a layer with a state goes over. */
uint32_t by_model_info_conv_cols(const struct by_model_info *m);
/* Whose keys and values a layer attends to: its own, or those of one before it; UINT32_MAX: there is none. */
uint32_t by_model_info_kv_layer(const struct by_model_info *m, uint32_t layer);
/* once each; out of range is ignored */
void by_model_info_add_eos(struct by_model_info *m, int64_t id);
/* transformers' activation name; false for one we do not know. */
BY_MUST_USE bool by_act_parse(struct by_str name, enum by_act *out);
const char *by_act_name(enum by_act a);
const char *by_rope_kind_name(enum by_rope_kind k);

/* What a family leaves unsaid in its files. NULL for a family that is not in the table: nothing is assumed then. */
struct by_family {
    const char *name;         /* transformers' model_type */
    const char *gguf;         /* ggml's architecture name; NULL: none */
    bool is_interleaved_hf;   /* rope pairs in a safetensors file … */
    bool is_interleaved_gguf; /* … and in a GGUF file (ggml permutes some families' q and k rows) */
    /* Sizes of transformers' own config: multimodal models leave out of their text_config what is the same. */
    uint32_t hidden, ffn, n_layers, n_heads, vocab, context;
    /* JSON: config keys with the values transformers gives them when missing */
    const char *defaults;
};
bool by_model_is(const struct by_model_info *m, const char *family); /* by its name */
bool by_model_is_gemma4(const struct by_model_info *m);
const struct by_family *by_family_at(size_t i); /* NULL past the end */
const struct by_family *by_family_find(struct by_str name);
const struct by_family *by_family_find_gguf(struct by_str architecture);

#endif
