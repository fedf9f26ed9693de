#include "common/modelfile/hf_config.h"

#include "common/base/file.h"
#include "common/modelfile/config.h"
#include "common/modelfile/hf_quant.h"
#include "common/modelfile/hf_rope.h"
#include "common/modelfile/layer_shapes.h"

#include <math.h>
#include <string.h>

/* ---- sizes ---- */

static void read_sizes(struct by_config *c, struct by_model_info *m,
                       const struct by_family *family) {
    static const struct by_family none;
    const struct by_family *f = family ? family : &none;
    m->n_layers = by_config_u32(c, "num_hidden_layers|n_layer|num_layers|n_layers", f->n_layers);
    m->hidden = by_config_u32(c, "hidden_size|n_embd|d_model", f->hidden);
    m->n_heads = by_config_u32(c, "num_attention_heads|n_head|n_heads", f->n_heads);
    m->n_kv_heads = by_config_u32(c, "num_key_value_heads|num_kv_heads|n_head_kv", m->n_heads);
    m->head_dim = by_config_u32(c, "head_dim", 0);
    m->ffn = by_config_u32(c, "intermediate_size|n_inner|ffn_dim|ffn_hidden_size", f->ffn);
    m->vocab = by_config_u32(c, "vocab_size", f->vocab);
    m->context = by_config_u32(c, "max_position_embeddings|n_positions|n_ctx", f->context);
    m->norm_eps = by_config_f64(
        c, "rms_norm_eps|layer_norm_eps|layer_norm_epsilon|norm_epsilon|norm_eps", m->norm_eps);
    m->is_tied = by_config_bool(c, "tie_word_embeddings", false);
    const bool is_bigcode = by_model_is(m, "gpt_bigcode"), is_falcon = by_model_is(m, "falcon");
    if (!m->ffn && (by_model_is(m, "gpt2") || is_bigcode || is_falcon) &&
        m->hidden <= BY_HIDDEN_MAX)
        m->ffn = 4 * m->hidden;
    if (is_bigcode || (is_falcon && !by_config_bool(c, "new_decoder_architecture", false)))
        m->n_kv_heads = by_config_bool(c, "multi_query", true) ? 1 : m->n_heads;
    if (!m->head_dim && m->n_heads) m->head_dim = m->hidden / m->n_heads;
}

/* LFM2's own names, which outweigh the usual ones; two thirds of what is said, times a factor, in whole blocks. */
static void read_lfm2_sizes(struct by_config *c, struct by_model_info *m) {
    m->is_tied = by_config_bool(c, "tie_embedding", m->is_tied);
    if (!by_config_knows(c, "block_multiple_of")) return;
    m->ffn = by_config_u32(c, "block_ff_dim", m->ffn);
    const uint32_t unit = by_config_u32(c, "block_multiple_of", 1);
    if (!by_config_bool(c, "block_auto_adjust_ff_dim", true) || m->ffn > BY_FFN_MAX) return;
    m->ffn = 2 * m->ffn / 3;
    /* null: no factor, and no blocks */
    if (!by_config_has(c, "block_ffn_dim_multiplier") || !unit) return;
    const double n = by_config_f64(c, "block_ffn_dim_multiplier", 1) * m->ffn;
    m->ffn = n > 0 && n <= BY_FFN_MAX ? BY_DIV_UP((uint32_t)n, unit) * unit : 0;
}

static void read_act(struct by_config *c, struct by_model_info *m) {
    bool is_late_gemma = c->defaults && by_json_get(c->defaults, "hidden_activation");
    struct by_str name = by_config_str(
        c, is_late_gemma ? "hidden_activation" : "hidden_act|activation_function|activation");
    if (!c->rc && name.n && !by_act_parse(name, &m->act)) {
        c->rc =
            by_fail(c->err, BY_EUNSUPPORTED, "%s: the activation '%.*s' is not supported natively",
                    c->where, (int)BY_MIN(name.n, (size_t)64), name.p);
    }
    /* The first Gemma's files say gelu and mean this one. */
    if (by_model_is(m, "gemma") && m->act == BY_ACT_GELU) m->act = BY_ACT_GELU_TANH;
}

/* MiniCPM's: null is none. */
static void read_depth_scales(struct by_config *c, struct by_model_info *m) {
    double depth = by_config_f64(c, "scale_depth", 0),
           width = by_config_f64(c, "dim_model_base", 0);
    m->embed_scale = by_config_f64(c, "scale_emb", 1);
    if (depth > 0 && m->n_layers) m->residual_scale = depth / sqrt((double)m->n_layers);
    if (width > 0 && m->hidden) m->logit_scale = width / (double)m->hidden;
}

static void read_flags(struct by_config *c, struct by_model_info *m) {
    m->has_attn_bias =
        by_config_bool(c, "attention_bias|qkv_bias|use_qkv_bias|use_bias|enable_bias|bias", false);
    m->has_mlp_bias = by_config_bool(c, "mlp_bias|use_bias|enable_bias|bias", false);
    m->has_qk_norm = !by_config_knows(c, "use_qk_norm") || by_config_bool(c, "use_qk_norm", true);
    m->is_parallel = by_config_bool(c, "use_parallel_residual|parallel_attn", false);
    /* Later Gemmas have the key, too, and transformers does not look at it. */
    if (!by_model_is(m, "gemma3_text") && !by_model_is_gemma4(m))
        m->attn_softcap = by_config_f64(c, "attn_logit_softcapping", 0);
    m->final_softcap = by_config_f64(c, "final_logit_softcapping", 0);
    m->embed_scale = by_config_f64(c, "embedding_multiplier", 1);
    m->residual_scale = by_config_f64(c, "residual_multiplier", 1);
    m->logit_scale = by_config_f64(c, "logit_scale", 1);
    m->attn_scale = by_config_f64(c, "attention_multiplier", 0);
    double divided = by_config_f64(c, "logits_scaling", 0);
    if (divided > 0) m->logit_scale = by_model_is(m, "hyperclovax") ? divided : 1 / divided;
    double scalar = by_config_f64(c, "query_pre_attn_scalar", 0);
    if (scalar > 0 && !by_model_is_gemma4(m)) m->attn_scale = 1 / sqrt(scalar);
    if (by_config_bool(c, "_embed_sqrt", false)) m->embed_scale = sqrt((double)m->hidden);
    if (by_model_is(m, "minicpm3")) read_depth_scales(c, m);
    m->pos_offset = by_config_u32(c, "_pos_offset", 0);
    m->n_types = by_config_u32(c, "type_vocab_size", 0);
    const struct by_json *labels = by_config_find(c, "id2label");
    m->n_labels = by_config_u32(
        c, "num_labels", labels ? (uint32_t)BY_MIN(by_json_len(labels), (size_t)BY_LABELS_MAX) : 0);
}

/* ---- layers ---- */

static void mark_all(struct by_model_info *m, uint8_t flag) {
    for (uint32_t i = 0; i < m->n_layers && i < BY_LAYERS_MAX; i++)
        m->layer_flags[i] |= flag;
}

/* What a family calls its layers with a state. */
static bool is_state_layer(const struct by_config *c, struct by_str kind) {
    return (by_str_eqz(kind, "linear_attention") && by_config_knows(c, "linear_num_value_heads")) ||
           (by_str_eqz(kind, "conv") && by_config_knows(c, "conv_L_cache")) ||
           ((by_str_eqz(kind, "mamba") || by_str_eqz(kind, "linear_attention")) &&
            by_config_knows(c, "mamba_n_heads"));
}

static void read_layer_types(struct by_config *c, struct by_model_info *m,
                             const struct by_json *types) {
    uint32_t i = 0;
    for (const struct by_json *it = by_json_first(types); it && i < BY_LAYERS_MAX;
         it = by_json_next(it), i++) {
        struct by_str kind = by_json_str(it);
        if (by_str_eqz(kind, "sliding_attention"))
            m->layer_flags[i] |= BY_LAYER_SLIDING;
        else if (is_state_layer(c, kind))
            m->layer_flags[i] |= BY_LAYER_STATE;
        else if (!by_str_eqz(kind, "full_attention") && !by_str_eqz(kind, "attention") && !c->rc)
            c->rc = by_fail(c->err, BY_EUNSUPPORTED,
                            "%s: layers of type '%.*s' are not supported natively", c->where,
                            (int)BY_MIN(kind.n, (size_t)64), kind.p ? kind.p : "");
    }
}

static void read_windows(struct by_config *c, struct by_model_info *m) {
    bool is_on =
        !by_config_knows(c, "use_sliding_window") || by_config_bool(c, "use_sliding_window", true);
    if (is_on && by_config_knows(c, "sliding_window"))
        m->sliding_window = by_config_u32(c, "sliding_window", 0);
    if (!m->sliding_window) return;
    const struct by_json *types = by_config_find(c, "layer_types");
    const bool has_types = types && by_json_type(types) == BY_JSON_ARRAY;
    /* EXAONE 4 has it as a word, "LLLG", beside the list. */
    uint32_t pattern = has_types ? 0 : by_config_u32(c, "sliding_window_pattern", 0);
    if (by_model_is(m, "qwen3_moe")) { /* its layer_types and max_window_layers are not looked at */
        mark_all(m, BY_LAYER_SLIDING);
    } else if (has_types) {
        read_layer_types(c, m, types);
    } else if (by_model_is(m, "smollm3")) { /* those without rope */
        for (uint32_t i = 0; i < m->n_layers && i < BY_LAYERS_MAX; i++)
            m->layer_flags[i] |= m->layer_flags[i] & BY_LAYER_NO_ROPE ? BY_LAYER_SLIDING : 0;
    } else if (pattern) { /* Gemma: the last layer of each group sees everything; CWM: the first */
        uint32_t shift = by_config_bool(c, "_first_sees_all", false) ? 0 : 1;
        for (uint32_t i = 0; i < m->n_layers && i < BY_LAYERS_MAX; i++)
            m->layer_flags[i] |= (i + shift) % pattern ? BY_LAYER_SLIDING : 0;
    } else if (by_config_has(c, "max_window_layers")) { /* Qwen: from that layer on */
        for (uint32_t i = by_config_u32(c, "max_window_layers", 0);
             i < m->n_layers && i < BY_LAYERS_MAX; i++)
            m->layer_flags[i] |= BY_LAYER_SLIDING;
    } else {
        mark_all(m, BY_LAYER_SLIDING);
    }
}

/* ---- experts, latent attention ---- */

/* "dense" or "sparse", one a layer. */
static void read_ffn_types(struct by_model_info *m, const struct by_json *types) {
    uint32_t i = 0;
    for (const struct by_json *it = by_json_first(types); it && i < BY_LAYERS_MAX;
         it = by_json_next(it), i++)
        m->layer_flags[i] |= by_str_eqz(by_json_str(it), "sparse") ? BY_LAYER_MOE : 0;
}

/* Takes the flag from the layers of a list of numbers; NULL: there is none. */
static void clear_listed(struct by_model_info *m, const struct by_json *list, uint8_t flag) {
    for (const struct by_json *it = list ? by_json_first(list) : NULL; it; it = by_json_next(it)) {
        int64_t layer;
        if (by_json_to_i64(it, &layer) && layer >= 0 && layer < BY_LAYERS_MAX)
            m->layer_flags[layer] &= (uint8_t)~flag;
    }
}

static void mark_moe_layers(struct by_config *c, struct by_model_info *m) {
    const struct by_json *types =
        by_config_knows(c, "mlp_layer_types") ? by_config_find(c, "mlp_layer_types") : NULL;
    if (types && by_json_type(types) == BY_JSON_ARRAY) {
        read_ffn_types(m, types);
        return;
    }
    /* Qwen's; its later ones have experts in all layers, whatever these keys say. */
    const bool has_sparse_step = by_config_knows(c, "decoder_sparse_step");
    const char *steps = has_sparse_step ? "decoder_sparse_step|moe_layer_interval|moe_layer_freq"
                                        : "moe_layer_interval|moe_layer_freq";
    uint32_t first =
        by_config_u32(c, "first_k_dense_replace|moe_layer_start_index|num_dense_layers", 0);
    uint32_t step = BY_MAX(by_config_u32(c, steps, 1), 1u);
    bool from_one = (has_sparse_step && by_config_has(c, "decoder_sparse_step")) ||
                    by_config_has(c, "moe_layer_interval");
    int64_t last = -1;
    const struct by_json *end = by_config_find(c, "moe_layer_end_index");
    if (end && !by_json_to_i64(end, &last)) by_config_fail(c, c->key, "a whole number", end);
    if (last < 0 || last >= m->n_layers) last = (int64_t)m->n_layers - 1;
    for (uint32_t i = first; i <= last && i < BY_LAYERS_MAX; i++) {
        if ((from_one ? i + 1 : i) % step == 0) m->layer_flags[i] |= BY_LAYER_MOE;
    }
    const struct by_json *dense = has_sparse_step ? by_config_find(c, "mlp_only_layers") : NULL;
    clear_listed(m, dense, BY_LAYER_MOE);
}

/* Hunyuan's dense models say that they have one expert. */
static bool knows_experts(const struct by_config *c) {
    static const char *const keys[] = {"num_experts", "num_local_experts", "n_routed_experts",
                                       "moe_intermediate_size"};
    for (size_t i = 0; i < BY_COUNTOF(keys); i++) {
        if (by_config_knows(c, keys[i])) return true;
    }
    return false;
}

/* Hunyuan may have another number of them in every layer; in all that there are it is one. */
static void check_n_used(struct by_config *c, uint32_t n_used) {
    const struct by_json *list = by_config_find(c, "moe_topk");
    if (!list || by_json_type(list) != BY_JSON_ARRAY) return;
    for (const struct by_json *it = by_json_first(list); it && !c->rc; it = by_json_next(it)) {
        int64_t n;
        if (!by_json_to_i64(it, &n) || n != n_used)
            c->rc = by_fail(c->err, BY_EUNSUPPORTED,
                            "%s: moe_topk: another number of experts in another layer is not "
                            "supported natively",
                            c->where);
    }
}

static void read_moe(struct by_config *c, struct by_model_info *m) {
    struct by_moe_info *x = &m->moe;
    if (!knows_experts(c)) return;
    if (by_config_knows(c, "enable_moe_block") && !by_config_bool(c, "enable_moe_block", false))
        return;
    x->n_experts =
        by_config_u32(c, "num_experts|num_local_experts|n_routed_experts|moe_num_experts", 0);
    /* Granite 4's dense models: what is shared is all that there is. */
    if (!x->n_experts && by_model_is(m, "granitemoehybrid"))
        m->ffn = by_config_u32(c, "shared_intermediate_size", 0);
    if (!x->n_experts) return;
    x->n_used =
        by_config_u32(c, "num_experts_per_tok|experts_per_token|moe_k|moe_topk|top_k_experts", 0);
    x->ffn = by_config_u32(c, "moe_intermediate_size", m->ffn);
    x->shared_ffn = by_config_u32(c, "shared_expert_intermediate_size|shared_intermediate_size", 0);
    if (!x->shared_ffn)
        x->shared_ffn =
            BY_MIN(
                by_config_u32(c, "n_shared_experts|num_shared_experts|moe_num_shared_experts", 0),
                64u) *
            x->ffn;
    check_n_used(c, x->n_used);
    if (by_config_bool(c, "_experts_as_dense", false)) x->ffn = x->shared_ffn = m->ffn;
    x->has_shared_gate = by_config_bool(c, "_shared_gate", false);
    x->norm_topk =
        by_config_bool(c, "_norm_topk", false) || by_config_bool(c, "norm_topk_prob", false);
    x->routed_scale = by_config_f64(c, "routed_scaling_factor|router_scaling_factor", 1);
    x->score = by_config_bool(c, "_sigmoid", false) ? BY_MOE_SIGMOID : BY_MOE_SOFTMAX;
    x->is_bias_corrected = x->group_by_top2 = by_config_bool(
        c, by_config_knows(c, "use_expert_bias") ? "use_expert_bias" : "_choice_bias", false);
    if (x->is_bias_corrected ||
        (by_config_knows(c, "topk_method") &&
         by_str_eqz(by_config_str(c, "topk_method"), "group_limited_greedy"))) {
        x->n_groups = by_config_u32(c, "n_group", 1);
        x->n_groups_used = by_config_u32(c, "topk_group", 1);
    }
    mark_moe_layers(c, m);
}

static void read_mla(struct by_config *c, struct by_model_info *m) {
    if (!c->defaults || !by_config_knows(c, "kv_lora_rank")) return;
    const uint32_t head = m->n_heads ? m->hidden / m->n_heads : 0;
    m->mla = (struct by_mla_info){.q_rank = by_config_u32(c, "q_lora_rank", 0),
                                  .kv_rank = by_config_u32(c, "kv_lora_rank", 0),
                                  .nope_dim = by_config_u32(c, "qk_nope_head_dim", 0),
                                  .rope_dim = by_config_u32(c, "qk_rope_head_dim", 0),
                                  .v_dim = by_config_u32(c, "v_head_dim", head)};
}

/* Without a list every n-th layer is attention in full. */
static void read_delta(struct by_config *c, struct by_model_info *m) {
    if (!c->defaults || !by_config_knows(c, "linear_num_value_heads")) return;
    m->has_attn_gate = by_config_bool(c, "_attn_gate", false);
    const struct by_json *types = by_config_find(c, "layer_types");
    const uint32_t every = BY_MAX(by_config_u32(c, "full_attention_interval", 4), 1u);
    if (types && by_json_type(types) == BY_JSON_ARRAY) {
        read_layer_types(c, m, types);
    } else {
        for (uint32_t i = 0; i < m->n_layers && i < BY_LAYERS_MAX; i++)
            m->layer_flags[i] |= (i + 1) % every ? BY_LAYER_STATE : 0;
    }
    if (by_model_info_n_keyed(m) == m->n_layers) return;
    m->state = (struct by_state_info){.kind = BY_STATE_DELTA,
                                      .n_k_heads = by_config_u32(c, "linear_num_key_heads", 0),
                                      .n_v_heads = by_config_u32(c, "linear_num_value_heads", 0),
                                      .k_dim = by_config_u32(c, "linear_key_head_dim", 0),
                                      .v_dim = by_config_u32(c, "linear_value_head_dim", 0),
                                      .conv = by_config_u32(c, "linear_conv_kernel_dim", 0),
                                      .is_tiled = by_config_bool(c, "_tiled_heads", false)};
    if (!m->state.n_v_heads && !c->rc)
        c->rc = by_fail(c->err, BY_EINVAL, "%s: linear_num_value_heads: there are none", c->where);
}

/* All layers but those of a list of numbers; a list that is not there: `all`. */
static void mark_states_but(struct by_model_info *m, const struct by_json *list, bool all) {
    if (all || list) mark_all(m, BY_LAYER_STATE);
    clear_listed(m, list, BY_LAYER_STATE);
}

/* LFM2: all is attention that no list says is a convolution. */
static void read_short_conv(struct by_config *c, struct by_model_info *m) {
    if (!c->defaults || !by_config_knows(c, "conv_L_cache")) return;
    const struct by_json *types = by_config_find(c, "layer_types");
    if (types)
        read_layer_types(c, m, types);
    else
        mark_states_but(m, by_config_find(c, "full_attn_idxs"), false);
    if (by_model_info_n_keyed(m) == m->n_layers) return;
    m->state = (struct by_state_info){.kind = BY_STATE_SHORT_CONV,
                                      .conv = by_config_u32(c, "conv_L_cache", 0),
                                      .has_bias = by_config_bool(c, "conv_bias", false),
                                      .has_conv_bias = by_config_bool(c, "conv_bias", false)};
}

/* From … to; what is no number is no limit: JSON has no infinity. */
static void read_step_limits(struct by_config *c, struct by_state_info *x) {
    const struct by_json *list = by_config_find(c, "time_step_limit");
    const struct by_json *from = list ? by_json_first(list) : NULL,
                         *to = from ? by_json_next(from) : NULL;
    const bool has_to = to && by_json_type(to) == BY_JSON_NUMBER;
    x->step_min = from && by_json_type(from) == BY_JSON_NUMBER ? by_json_f64(from) : 0;
    x->step_max = has_to ? by_json_f64(to) : HUGE_VAL;
}

/* Granite 4 says which layers are attention by their types, in two spellings; Bamba by their numbers. */
static void read_mamba(struct by_config *c, struct by_model_info *m) {
    if (!c->defaults || !by_config_knows(c, "mamba_n_heads")) return;
    const bool has_numbers = by_config_knows(c, "attn_layer_indices");
    const struct by_json *types =
        has_numbers ? NULL : by_config_find(c, "layer_types|layers_block_type");
    if (types)
        read_layer_types(c, m, types);
    else
        mark_states_but(m, has_numbers ? by_config_find(c, "attn_layer_indices") : NULL, true);
    if (by_model_info_n_keyed(m) == m->n_layers) return;
    m->state = (struct by_state_info){.kind = BY_STATE_MAMBA,
                                      .n_k_heads = by_config_u32(c, "mamba_n_groups", 0),
                                      .n_v_heads = by_config_u32(c, "mamba_n_heads", 0),
                                      .k_dim = by_config_u32(c, "mamba_d_state", 0),
                                      .conv = by_config_u32(c, "mamba_d_conv", 0),
                                      .has_bias = by_config_bool(c, "mamba_proj_bias", false),
                                      .has_conv_bias = by_config_bool(c, "mamba_conv_bias", false)};
    read_step_limits(c, &m->state);
    const struct by_json *head = by_config_find(c, "mamba_d_head");
    const uint64_t wide = (uint64_t)by_config_u32(c, "mamba_expand", 0) * m->hidden;
    if (head && by_json_type(head) == BY_JSON_NUMBER)
        m->state.v_dim = by_config_u32(c, "mamba_d_head", 0);
    else if (m->state.n_v_heads) /* "auto" */
        m->state.v_dim = (uint32_t)BY_MIN(wide / m->state.n_v_heads, (uint64_t)UINT32_MAX);
}

/* ---- special ids ---- */

static void add_eos(struct by_config *c, struct by_model_info *m, const char *keys) {
    int64_t id;
    const struct by_json *v = by_config_find(c, keys);
    if (!v) return;
    if (by_json_type(v) == BY_JSON_ARRAY) {
        for (const struct by_json *it = by_json_first(v); it; it = by_json_next(it)) {
            if (by_json_to_i64(it, &id)) by_model_info_add_eos(m, id);
        }
    } else if (by_json_type(v) == BY_JSON_NUMBER && by_json_to_i64(v, &id)) {
        by_model_info_add_eos(m, id);
    } else {
        by_config_fail(c, c->key, "a token id or a list of them", v);
    }
}

static int64_t get_id(struct by_config *c, const char *keys) {
    int64_t id = -1;
    const struct by_json *v = by_config_find(c, keys);
    if (v && by_json_type(v) == BY_JSON_ARRAY) v = by_json_first(v);
    if (!v || !by_json_to_i64(v, &id) || id < 0 || id >= BY_VOCAB_MAX) return -1;
    return id;
}

static void read_all(struct by_config *c, struct by_model_info *m, const struct by_family *family) {
    read_sizes(c, m, family);
    if (c->defaults && by_config_knows(c, "conv_L_cache")) read_lfm2_sizes(c, m);
    read_act(c, m);
    read_flags(c, m);
    read_mla(c, m);
    read_delta(c, m);
    read_short_conv(c, m);
    read_mamba(c, m);
    by_hf_rope_mark_no_rope(c, m);
    read_windows(c, m);
    by_layer_shapes_read(c, m);
    by_hf_rope_read(c, m, family);
    by_hf_rope_mark_in_windows(c, m);
    read_moe(c, m);
    by_hf_quant_read(c, m);
    m->bos = get_id(c, "bos_token_id");
    m->pad = get_id(c, "pad_token_id");
    add_eos(c, m, "eos_token_id");
}

int by_hf_config_read(struct by_model_info *out, const struct by_json *config, const char *where,
                      struct by_err *err) {
    struct by_config c = {.config = config, .where = where, .err = err};
    struct by_json *defaults = NULL;
    by_model_info_init(out);
    if (by_json_type(config) != BY_JSON_OBJECT)
        return by_fail(err, BY_EFORMAT, "%s: expected an object, got %s", where,
                       by_json_type_name(config));
    by_config_copy(out->family, sizeof out->family, by_config_str(&c, "model_type"));
    out->has_custom_code = by_json_get(config, "auto_map") != NULL;
    if (!out->family[0] && !out->has_custom_code)
        return c.rc ? c.rc : by_fail(err, BY_EFORMAT, "%s: there is no model_type", where);
    const struct by_json *archs = by_json_get(config, "architectures");
    if (archs && by_json_first(archs))
        by_config_copy(out->architecture, sizeof out->architecture,
                       by_json_str(by_json_first(archs)));
    const struct by_family *family = by_family_find(by_str_of(out->family));
    if (family) {
        by_config_copy(out->family, sizeof out->family, by_str_of(family->name));
        const struct by_json_limits lim = {.bytes_max = BY_CONFIG_BYTES_MAX,
                                           .depth_max = BY_CONFIG_DEPTH_MAX};
        int rc = by_json_parse(&defaults, by_str_of(family->defaults), &lim, err);
        if (rc) return rc;
    }
    c.defaults = defaults;
    read_all(&c, out, family);
    by_json_free(defaults);
    int rc = c.rc ? c.rc : by_model_info_finish(out, where, err);
    /* What is missing then is perhaps only called otherwise. */
    if (rc && !family)
        return by_fail(err, BY_EUNSUPPORTED,
                       "%s: the family '%s' is not one that the native engine knows", where,
                       out->family);
    return rc;
}

/* A value from lo to hi. One outside of it asks for nothing that can be done, and counts as not said: -1 is what some files
 * write for none. */
static double said(struct by_config *c, struct by_generation_info *g, const char *key, double lo,
                   double hi, double otherwise) {
    double x = by_config_f64(c, key, otherwise);
    if (!by_config_has(c, key) || !(x >= lo && x <= hi)) return otherwise;
    g->is_given = true;
    return x;
}

int by_hf_config_add_generation(struct by_model_info *m, const struct by_json *generation,
                                const char *where, struct by_err *err) {
    struct by_config c = {.config = generation, .where = where, .err = err};
    struct by_generation_info *g = &m->generation;
    if (by_json_type(generation) != BY_JSON_OBJECT)
        return by_fail(err, BY_EFORMAT, "%s: expected an object, got %s", where,
                       by_json_type_name(generation));
    add_eos(&c, m, "eos_token_id");
    g->temperature = said(&c, g, "temperature", 0, 1e6, 1);
    g->top_p = said(&c, g, "top_p", 0x1p-126, 1, 1);
    g->min_p = said(&c, g, "min_p", 0, 1, 0);
    g->repetition_penalty = said(&c, g, "repetition_penalty", 0x1p-126, 2, 1);
    g->top_k = (int32_t)said(&c, g, "top_k", 0, 1 << 30, 0);
    return c.rc;
}

int by_hf_config_load(struct by_json **out, const char *path, struct by_err *err) {
    const struct by_json_limits lim = {.bytes_max = BY_CONFIG_BYTES_MAX,
                                       .depth_max = BY_CONFIG_DEPTH_MAX};
    struct by_buf text;
    by_buf_init(&text, BY_CONFIG_BYTES_MAX);
    int rc = by_file_read(&text, path, err);
    if (!rc && by_json_parse(out, by_buf_str(&text), &lim, err))
        rc = by_fail_prefix(err, "%s", path);
    by_buf_release(&text);
    return rc;
}
