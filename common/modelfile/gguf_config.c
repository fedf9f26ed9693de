#include "common/modelfile/gguf_config.h"

#include "common/base/buf.h"
#include "common/base/json.h"
#include "common/modelfile/hf_config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* GGUF's keys are written over as a config.json of the same family, and that is read: one reader, one table of defaults.
 * What only tensors can tell (tied, biases, rope factors) follows. */

enum { TEXT_MAX = 65536 };

struct writer {
    const struct by_gguf *g;
    struct by_buf text;
    char arch[64];
    const char *family;
    struct by_err *err;
    int rc;
};

static const char *key_of(struct writer *w, const char *name) {
    static _Thread_local char key[160];
    snprintf(key, sizeof key, "%s.%s", w->arch, name);
    return key;
}

static void put_i64(struct writer *w, const char *name, const char *json) {
    int64_t n = -1;
    const struct by_gguf_key *k = by_gguf_key(w->g, key_of(w, name));
    if (w->rc || !k) return;
    if (k->type == BY_GGUF_ARRAY) { /* one a layer: equal in the families we know */
        struct by_gguf_array a;
        w->rc = by_gguf_get_array(w->g, key_of(w, name), BY_GGUF_I64, &a, w->err);
        if (!w->rc && a.n) n = by_gguf_at_i64(&a, 0);
    } else {
        w->rc = by_gguf_get_i64(w->g, key_of(w, name), 0, UINT32_MAX, &n, w->err);
    }
    if (!w->rc && n >= 0) by_buf_addf(&w->text, ",\"%s\":%" PRId64, json, n);
}

static void put_f64(struct writer *w, const char *name, const char *json) {
    double v = 0;
    if (w->rc || !by_gguf_key(w->g, key_of(w, name))) return;
    w->rc = by_gguf_get_f64(w->g, key_of(w, name), -1e30, 1e30, &v, w->err);
    if (w->rc) return;
    by_buf_addf(&w->text, ",\"%s\":", json);
    by_buf_add_json_f64(&w->text, v);
}

static void put_bool(struct writer *w, const char *json, bool value) {
    by_buf_addf(&w->text, ",\"%s\":%s", json, value ? "true" : "false");
}

static bool is_family(const struct writer *w, const char *name) {
    return strcmp(w->family, name) == 0;
}

static bool is_latent(struct writer *w) {
    return by_gguf_key(w->g, key_of(w, "attention.kv_lora_rank")) != NULL;
}

static int64_t get_i64(struct writer *w, const char *name, int64_t otherwise) {
    if (!w->rc)
        w->rc = by_gguf_get_i64(w->g, key_of(w, name), 0, BY_HIDDEN_MAX, &otherwise, w->err);
    return otherwise;
}

static bool has_tensor(const struct by_gguf *g, const char *name) {
    return by_gguf_find(g, by_str_of(name)) != NULL;
}

static void put_vocab(struct writer *w) {
    const struct by_tensor_info *t = by_gguf_find(w->g, BY_STR("token_embd.weight"));
    struct by_gguf_array tokens = {0};
    uint64_t rows = 0, cols;
    if (t) {
        by_tensor_rows(t, &rows, &cols);
    } else if (by_gguf_key(w->g, "tokenizer.ggml.tokens")) {
        w->rc = by_gguf_get_array(w->g, "tokenizer.ggml.tokens", BY_GGUF_STR, &tokens, w->err);
        rows = tokens.n;
    }
    by_buf_addf(&w->text, ",\"vocab_size\":%" PRIu64, BY_MIN(rows, (uint64_t)UINT32_MAX));
}

/* What only a tensor tells, by its rows: a classifier's labels. */
static void put_rows(struct writer *w, const char *tensor, const char *json) {
    const struct by_tensor_info *t = by_gguf_find(w->g, by_str_of(tensor));
    uint64_t rows, cols;
    if (!t) return;
    by_tensor_rows(t, &rows, &cols);
    by_buf_addf(&w->text, ",\"%s\":%" PRIu64, json, BY_MIN(rows, (uint64_t)UINT32_MAX));
}

/* DeepSeek: a tenth of mscale_all_dim, which mscale equals in every model there is. */
static void put_mscale(struct writer *w) {
    double log_mul = 0;
    const char *key = key_of(w, "rope.scaling.yarn_log_multiplier");
    if (w->rc || !by_gguf_key(w->g, key)) return;
    w->rc = by_gguf_get_f64(w->g, key, 0, 100, &log_mul, w->err);
    if (!w->rc && log_mul > 0)
        by_buf_addf(&w->text, ",\"mscale\":%.9g,\"mscale_all_dim\":%.9g", 10 * log_mul,
                    10 * log_mul);
}

static void put_rope(struct writer *w) {
    struct by_str kind = {0};
    if (is_family(w, "gemma4")) { /* whose pairs that turn are in rope_freqs.weight */
        by_buf_addz(&w->text,
                    ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"");
        put_f64(w, "rope.freq_base", "rope_theta");
        by_buf_addz(&w->text, "},\"sliding_attention\":{\"rope_type\":\"default\"");
        put_f64(w, "rope.freq_base_swa", "rope_theta");
        by_buf_addz(&w->text, "}}");
        return;
    }
    put_f64(w, "rope.freq_base", "rope_theta");
    if (!by_gguf_key(w->g, key_of(w, "rope.scaling.type"))) {
        put_i64(w, "rope.scaling.original_context_length", "original_max_position_embeddings");
        return;
    }
    if (!w->rc) w->rc = by_gguf_get_str(w->g, key_of(w, "rope.scaling.type"), &kind, w->err);
    if (w->rc || by_str_eqz(kind, "none")) return;
    by_buf_addz(&w->text, ",\"rope_scaling\":{\"rope_type\":");
    by_buf_add_json_str(&w->text, kind);
    put_f64(w, "rope.scaling.factor", "factor");
    put_f64(w, "rope.scaling.attn_factor", "attention_factor");
    put_f64(w, "rope.scaling.yarn_beta_fast", "beta_fast");
    put_f64(w, "rope.scaling.yarn_beta_slow", "beta_slow");
    if (is_family(w, "gpt_oss")) put_bool(w, "truncate", false);
    put_mscale(w);
    put_f64(w, "attention.temperature_scale", "llama_4_scaling_beta");
    put_i64(w, "rope.scaling.original_context_length", "original_max_position_embeddings");
    by_buf_addc(&w->text, '}');
}

/* Of a truth a layer; empty where it is none. */
static void get_pattern(struct writer *w, struct by_gguf_array *out) {
    static const char name[] = "attention.sliding_window_pattern";
    const struct by_gguf_key *k = by_gguf_key(w->g, key_of(w, name));
    if (w->rc || !k || k->type != BY_GGUF_ARRAY) return;
    w->rc =
        by_gguf_get_array(w->g, key_of(w, name),
                          k->item_type == BY_GGUF_BOOL ? BY_GGUF_BOOL : BY_GGUF_I64, out, w->err);
}

/* Which layers have the window: every one but each n-th, as config.json may say, too, or a truth a layer. */
static void put_windows(struct writer *w) {
    static const char name[] = "attention.sliding_window_pattern";
    const struct by_gguf_key *k = by_gguf_key(w->g, key_of(w, name));
    struct by_gguf_array a = {0};
    static const char *const may_have_none[] = {"exaone4", "exaone_moe", "mistral", "dots1"};
    for (size_t i = 0; i < BY_COUNTOF(may_have_none); i++) {
        if (is_family(w, may_have_none[i]) &&
            !by_gguf_key(w->g, key_of(w, "attention.sliding_window")))
            by_buf_addz(&w->text, ",\"sliding_window\":null");
    }
    put_i64(w, "attention.sliding_window", "sliding_window");
    put_f64(w, "rope.freq_base_swa", "rope_local_base_freq");
    if (w->rc || !k) return;
    if (k->type != BY_GGUF_ARRAY) {
        put_i64(w, name, "sliding_window_pattern");
        return;
    }
    get_pattern(w, &a);
    by_buf_addz(&w->text, ",\"layer_types\":[");
    for (uint64_t i = 0; !w->rc && i < a.n && i < BY_LAYERS_MAX; i++)
        by_buf_addf(&w->text, "%s\"%s\"", i ? "," : "",
                    by_gguf_at_i64(&a, i) ? "sliding_attention" : "full_attention");
    by_buf_addc(&w->text, ']');
}

/* A key of one number a layer, or of one for all. */
static int64_t get_of_layer(struct writer *w, const char *name, uint64_t layer, int64_t otherwise) {
    struct by_gguf_array a = {0};
    const struct by_gguf_key *k = by_gguf_key(w->g, key_of(w, name));
    if (w->rc || !k || k->type != BY_GGUF_ARRAY) return get_i64(w, name, otherwise);
    w->rc = by_gguf_get_array(w->g, key_of(w, name), BY_GGUF_I64, &a, w->err);
    return !w->rc && layer < a.n ? by_gguf_at_i64(&a, layer) : otherwise;
}

/* Layers with a state: a truth a layer, or each but the n-th. */
static void put_delta(struct writer *w) {
    static const char name[] = "attention.recurrent_layers";
    struct by_gguf_array a = {0};
    int64_t n_v = get_i64(w, "ssm.time_step_rank", 0), all = get_i64(w, "ssm.inner_size", 0);
    put_i64(w, "ssm.conv_kernel", "linear_conv_kernel_dim");
    put_i64(w, "ssm.state_size", "linear_key_head_dim");
    put_i64(w, "ssm.group_count", "linear_num_key_heads");
    put_i64(w, "ssm.time_step_rank", "linear_num_value_heads");
    if (n_v > 0) by_buf_addf(&w->text, ",\"linear_value_head_dim\":%" PRId64, all / n_v);
    put_bool(w, "_tiled_heads", !is_family(w, "qwen3_next"));
    put_i64(w, "full_attention_interval", "full_attention_interval");
    if (w->rc || !by_gguf_key(w->g, key_of(w, name))) return;
    w->rc = by_gguf_get_array(w->g, key_of(w, name), BY_GGUF_BOOL, &a, w->err);
    by_buf_addz(&w->text, ",\"layer_types\":[");
    for (uint64_t i = 0; !w->rc && i < a.n && i < BY_LAYERS_MAX; i++)
        by_buf_addf(&w->text, "%s\"%s\"", i ? "," : "",
                    by_gguf_at_i64(&a, i) ? "linear_attention" : "full_attention");
    by_buf_addc(&w->text, ']');
}

/* Without a key it is hidden / heads in every family of ggml. */
static void put_head_dim(struct writer *w) {
    int64_t hidden = get_i64(w, "embedding_length", 0),
            heads = get_i64(w, "attention.head_count", 0);
    if (by_gguf_key(w->g, key_of(w, "attention.key_length")))
        put_i64(w, "attention.key_length", "head_dim");
    else if (heads > 0)
        by_buf_addf(&w->text, ",\"head_dim\":%" PRId64, hidden / heads);
}

/* Layers without key-value heads have a state; how many heads the others have. The first of them; -1: there is none. */
static int64_t put_layer_kinds(struct writer *w, const char *kind) {
    const int64_t n = get_i64(w, "block_count", 0);
    int64_t n_kv = 0, first = -1;
    by_buf_addz(&w->text, ",\"layer_types\":[");
    for (int64_t i = 0; !w->rc && i < n && i < BY_LAYERS_MAX; i++) {
        const int64_t heads = get_of_layer(w, "attention.head_count_kv", (uint64_t)i, 0);
        by_buf_addf(&w->text, "%s\"%s\"", i ? "," : "", heads ? "full_attention" : kind);
        n_kv = BY_MAX(n_kv, heads);
        if (!heads && first < 0) first = i;
    }
    by_buf_addf(&w->text, "],\"num_key_value_heads\":%" PRId64, n_kv);
    return first;
}

static void put_short_conv(struct writer *w) { /* LFM2 */
    if (!w->rc && by_gguf_key(w->g, key_of(w, "attention.sliding_window")))
        w->rc = by_fail(w->err, BY_EUNSUPPORTED, "a window beside convolutions is not supported");
    put_layer_kinds(w, "conv");
    put_i64(w, "shortconv.l_cache", "conv_L_cache");
    put_bool(w, "conv_bias", false);
    put_bool(w, "block_auto_adjust_ff_dim", false); /* the length is what came out of it */
    put_head_dim(w);
}

/* Granite 4, whose rope is on or off, and Bamba, which scales attention as usual; a dense one's feed-forward is that of the shared
 * expert. */
static void put_mamba(struct writer *w) {
    static const char finetuned[] = "rope.scaling.finetuned";
    char bias[64];
    bool turns = true;
    const int64_t first = put_layer_kinds(w, "mamba"), n = get_i64(w, "ssm.time_step_rank", 0),
                  n_experts = get_i64(w, "expert_count", 0);
    put_i64(w, "ssm.conv_kernel", "mamba_d_conv");
    put_i64(w, "ssm.state_size", "mamba_d_state");
    put_i64(w, "ssm.group_count", "mamba_n_groups");
    put_i64(w, "ssm.time_step_rank", "mamba_n_heads");
    if (n > 0)
        by_buf_addf(&w->text, ",\"mamba_d_head\":%" PRId64, get_i64(w, "ssm.inner_size", 0) / n);
    snprintf(bias, sizeof bias, "blk.%u.ssm_conv1d.bias", (unsigned)BY_MAX(first, (int64_t)0));
    put_bool(w, "mamba_conv_bias", has_tensor(w->g, bias));
    if (!w->rc && by_gguf_key(w->g, key_of(w, finetuned)))
        w->rc = by_gguf_get_bool(w->g, key_of(w, finetuned), &turns, w->err);
    if (turns) by_buf_addz(&w->text, ",\"position_embedding_type\":\"rope\"");
    by_buf_addf(&w->text, ",\"num_local_experts\":%" PRId64, n_experts);
    put_i64(w, n_experts ? "expert_shared_feed_forward_length" : "feed_forward_length",
            "shared_intermediate_size");
    put_head_dim(w);
    const int64_t heads = get_i64(w, "attention.head_count", 1),
                  dim = get_i64(w, "embedding_length", 0) / BY_MAX(heads, (int64_t)1);
    if (dim > 0 && !by_gguf_key(w->g, key_of(w, "attention.scale"))) {
        by_buf_addz(&w->text, ",\"attention_multiplier\":");
        by_buf_add_json_f64(&w->text, 1 / sqrt((double)get_i64(w, "attention.key_length", dim)));
    }
}

/* Gemma 4: the layers without a window, and those that share keys, have numbers of their own. */
static void put_layer_shapes(struct writer *w) {
    const uint64_t n = (uint64_t)get_i64(w, "block_count", 0);
    struct by_gguf_array sliding = {0};
    get_pattern(w, &sliding);
    uint64_t windowed = 0, full = 0; /* the first ones: later ones may have no keys */
    for (uint64_t i = w->rc ? 0 : sliding.n; i-- > 0;)
        *(by_gguf_at_i64(&sliding, i) ? &windowed : &full) = i;
    put_i64(w, "attention.key_length_swa", "head_dim");
    by_buf_addf(&w->text, ",\"num_key_value_heads\":%" PRId64 ",\"per_layer_config\":{",
                get_of_layer(w, "attention.head_count_kv", windowed, 0));
    bool is_first = true;
    for (uint64_t i = 0; !w->rc && i < sliding.n && i < BY_LAYERS_MAX; i++) {
        if (by_gguf_at_i64(&sliding, i)) continue;
        by_buf_addf(&w->text, "%s\"%" PRIu64 "\":{\"num_key_value_heads\":%" PRId64,
                    is_first ? "" : ",", i, get_of_layer(w, "attention.head_count_kv", i, 0));
        put_i64(w, "attention.key_length", "head_dim");
        by_buf_addc(&w->text, '}');
        is_first = false;
    }
    by_buf_addc(&w->text, '}');
    char v[64];
    snprintf(v, sizeof v, "blk.%u.attn_v.weight", (unsigned)full);
    put_bool(w, "attention_k_eq_v", !has_tensor(w->g, v));
    put_i64(w, "attention.shared_kv_layers", "num_kv_shared_layers");
    put_bool(w, "use_double_wide_mlp",
             n && get_of_layer(w, "feed_forward_length", n - 1, 0) !=
                      get_of_layer(w, "feed_forward_length", 0, 0));
    by_buf_addf(&w->text, ",\"hidden_size_per_layer_input\":%" PRId64,
                get_i64(w, "embedding_length_per_layer_input", 0));
    put_bool(w, "enable_moe_block", get_i64(w, "expert_count", 0) > 0);
}

static void put_special(struct writer *w, const char *key, const char *json) {
    int64_t id = -1;
    if (w->rc || !by_gguf_key(w->g, key)) return;
    w->rc = by_gguf_get_i64(w->g, key, -1, INT64_MAX, &id, w->err);
    if (!w->rc && id >= 0 && id < BY_VOCAB_MAX) by_buf_addf(&w->text, ",\"%s\":%" PRId64, json, id);
}

/* Latent attention: head lengths are those before or, in newer files, after keys were moved to the query's side. */
static void put_mla(struct writer *w) {
    int64_t rope = get_i64(w, "rope.dimension_count", 0);
    int64_t key = get_i64(w, "attention.key_length_mla", get_i64(w, "attention.key_length", 0));
    int64_t value =
        get_i64(w, "attention.value_length_mla", get_i64(w, "attention.value_length", 0));
    by_buf_addf(&w->text, ",\"qk_rope_head_dim\":%" PRId64 ",\"qk_nope_head_dim\":%" PRId64, rope,
                BY_MAX(key - rope, (int64_t)0));
    if (value) by_buf_addf(&w->text, ",\"v_head_dim\":%" PRId64, value);
    put_i64(w, "attention.kv_lora_rank", "kv_lora_rank");
    if (by_gguf_key(w->g, key_of(w, "attention.q_lora_rank")))
        put_i64(w, "attention.q_lora_rank", "q_lora_rank");
    else
        by_buf_addz(&w->text, ",\"q_lora_rank\":null");
}

static void put_experts(struct writer *w) {
    put_i64(w, "expert_count", "num_experts");
    put_i64(w, "expert_used_count", "num_experts_per_tok");
    put_i64(w, "expert_feed_forward_length", "moe_intermediate_size");
    put_i64(w, "expert_shared_feed_forward_length", "shared_expert_intermediate_size");
    put_i64(w, "expert_shared_count", "n_shared_experts");
    by_buf_addf(&w->text, ",\"first_k_dense_replace\":%" PRId64,
                get_i64(w, "leading_dense_block_count", 0));
    put_i64(w, "interleave_moe_layer_step", "moe_layer_interval");
    put_i64(w, "expert_group_count", "n_group");
    put_i64(w, "expert_group_used_count", "topk_group");
    put_f64(w, "expert_weights_scale", "routed_scaling_factor");
    if (by_gguf_key(w->g, key_of(w, "expert_weights_norm"))) {
        bool norm = false;
        if (!w->rc) w->rc = by_gguf_get_bool(w->g, key_of(w, "expert_weights_norm"), &norm, w->err);
        put_bool(w, "norm_topk_prob", norm);
    } else if (is_family(w, "qwen3_moe")) { /* no key says it; ggml does it for this one */
        put_bool(w, "norm_topk_prob", true);
    } else if (is_family(w, "deepseek_v3") || is_family(w, "glm4_moe") ||
               is_family(w, "exaone_moe")) { /* written where true */
        put_bool(w, "norm_topk_prob", false);
    }
}

/* ggml divides by the size of a head, but in the two models of 27B by hidden / heads. */
static void put_gemma_scale(struct writer *w) {
    int64_t n_layers = get_i64(w, "block_count", 0), heads = get_i64(w, "attention.head_count", 1);
    bool is_27b = n_layers == (is_family(w, "gemma2") ? 46 : 62);
    int64_t each = is_27b ? get_i64(w, "embedding_length", 0) / BY_MAX(heads, (int64_t)1)
                          : get_i64(w, "attention.key_length", 256);
    by_buf_addf(&w->text, ",\"query_pre_attn_scalar\":%" PRId64, each);
}

/* Layers that guess further tokens count as blocks. */
static void put_layers(struct writer *w) {
    int64_t all = get_i64(w, "block_count", 0), guessing = get_i64(w, "nextn_predict_layers", 0);
    if (all > guessing) by_buf_addf(&w->text, ",\"num_hidden_layers\":%" PRId64, all - guessing);
}

/* What the model's authors recommend, as generation_config.json has it. What is no number is as if it were not there. */
static void put_sampling(struct writer *w) {
    static const char *const names[][2] = {
        {"general.sampling.temp", "temperature"},
        {"general.sampling.top_k", "top_k"},
        {"general.sampling.top_p", "top_p"},
        {"general.sampling.min_p", "min_p"},
        {"general.sampling.penalty_repeat", "repetition_penalty"}};
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        double v = 0;
        if (!by_gguf_key(w->g, names[i][0]) ||
            by_gguf_get_f64(w->g, names[i][0], -1e30, 1e30, &v, NULL))
            continue;
        by_buf_addf(&w->text, ",\"%s\":", names[i][1]);
        by_buf_add_json_f64(&w->text, v);
    }
}

static void write_config(struct writer *w) {
    by_buf_addz(&w->text, "{\"model_type\":");
    by_buf_add_json_str(&w->text, by_str_of(w->family));
    by_buf_addz(&w->text, ",\"architectures\":[");
    by_buf_add_json_str(&w->text, by_str_of(w->arch));
    by_buf_addc(&w->text, ']');
    put_layers(w);
    put_i64(w, "embedding_length", "hidden_size");
    put_i64(w, "feed_forward_length", "intermediate_size");
    put_i64(w, "attention.head_count", "num_attention_heads");
    if (is_family(w, "gemma4")) {
        put_layer_shapes(w);
    } else if (by_gguf_key(w->g, key_of(w, "shortconv.l_cache"))) {
        put_short_conv(w);
    } else if (is_family(w, "granitemoehybrid")) {
        put_mamba(w);
    } else {
        put_i64(w, "attention.head_count_kv", "num_key_value_heads");
        if (!is_latent(w)) put_head_dim(w);
    }
    put_i64(w, "context_length", "max_position_embeddings");
    put_f64(w, "attention.layer_norm_rms_epsilon", "rms_norm_eps");
    put_f64(w, "attention.layer_norm_epsilon", "layer_norm_eps");
    put_windows(w);
    put_experts(w);
    if (is_latent(w)) put_mla(w);
    if (by_gguf_key(w->g, key_of(w, "ssm.group_count")) && !is_family(w, "granitemoehybrid"))
        put_delta(w);
    if (is_family(w, "falcon")) { /* no key tells the two architectures apart */
        int64_t n_kv = get_i64(w, "attention.head_count_kv", 1);
        put_bool(w, "new_decoder_architecture", n_kv > 1);
        by_buf_addf(&w->text, ",\"num_kv_heads\":%" PRId64, n_kv);
    }
    if (is_family(w, "gemma2") || is_family(w, "gemma3_text")) put_gemma_scale(w);
    bool is_granite = strncmp(w->family, "granite", strlen("granite")) == 0;
    put_f64(w, "attn_logit_softcapping", "attn_logit_softcapping");
    put_f64(w, "final_logit_softcapping", "final_logit_softcapping");
    put_f64(w, "logit_scale", is_granite ? "logits_scaling" : "logit_scale");
    put_f64(w, "embedding_scale", "embedding_multiplier");
    put_f64(w, "residual_scale", "residual_multiplier");
    put_f64(w, "attention.scale", "attention_multiplier");
    put_vocab(w);
    put_rows(w, "cls.output.weight", "num_labels");
    put_rope(w);
    put_special(w, "tokenizer.ggml.bos_token_id", "bos_token_id");
    put_special(w, "tokenizer.ggml.padding_token_id", "pad_token_id");
    put_special(w, "tokenizer.ggml.eos_token_id", "eos_token_id");
    if (is_family(w, "gemma4"))
        put_rows(w, "per_layer_token_embd.weight", "vocab_size_per_layer_input");
    put_bool(w, "tie_word_embeddings", !has_tensor(w->g, "output.weight"));
    put_bool(w, "attention_bias",
             has_tensor(w->g, "blk.0.attn_q.bias") || has_tensor(w->g, "blk.0.attn_qkv.bias"));
    put_bool(w, "use_qk_norm", has_tensor(w->g, "blk.0.attn_q_norm.weight"));
    put_bool(w, "mlp_bias", has_tensor(w->g, "blk.0.ffn_up.bias"));
    put_sampling(w);
    by_buf_addc(&w->text, '}');
    if (w->text.is_full && !w->rc) w->rc = by_fail(w->err, BY_ELIMIT, "its keys are too long");
}

/* One divisor a pair of dimensions: what llama3's scaling comes to, or longrope's two lists. */
static bool read_divisors(const struct by_gguf *g, const char *name, const struct by_model_info *m,
                          float *out) {
    const struct by_tensor_info *t = by_gguf_find(g, by_str_of(name));
    if (!t || t->dtype != BY_DTYPE_F32 || t->n_elems != m->rope.n_rot / 2 ||
        t->n_elems > BY_ROPE_PAIRS_MAX)
        return false;
    by_dtype_to_f32(t->dtype, t->data, out, t->n_elems);
    return true;
}

static int read_factors(struct writer *w, struct by_model_info *m) {
    struct by_rope *r = &m->rope;
    if (read_divisors(w->g, "rope_freqs.weight", m, r->long_factors)) r->kind = BY_ROPE_FACTORS;
    if (read_divisors(w->g, "rope_factors_long.weight", m, r->long_factors) &&
        read_divisors(w->g, "rope_factors_short.weight", m, r->short_factors)) {
        r->kind = BY_ROPE_LONGROPE;
        r->factor = BY_MAX(1.0, (double)m->context / BY_MAX((double)r->original_context, 1.0));
        r->attention_factor = 0; /* by the formula, unless the file says it */
    }
    if (r->kind != BY_ROPE_FACTORS && r->kind != BY_ROPE_LONGROPE) return 0;
    r->n_factors = r->n_rot / 2;
    return by_gguf_get_f64(w->g, key_of(w, "rope.scaling.attn_factor"), 0, 100,
                           &r->attention_factor, w->err);
}

static int read_local_turns(struct writer *w, struct by_model_info *m) {
    int64_t n = m->rope.n_rot_local;
    int rc = by_gguf_get_i64(w->g, key_of(w, "rope.dimension_count_swa"), 0, BY_HEAD_DIM_MAX, &n,
                             w->err);
    m->rope.n_rot_local = (uint32_t)n;
    return rc;
}

/* DeepSeek V3 says so by a key; GLM-4.7 Flash, which is one by its experts, by its tensors alone. */
static bool is_corrected(const struct by_gguf *g, const char *arch) {
    char key[96];
    int64_t scores = 1, first = 0;
    snprintf(key, sizeof key, "%s.expert_gating_func", arch);
    if (!by_gguf_get_i64(g, key, 0, 100, &scores, NULL) && scores == 2) return true;
    snprintf(key, sizeof key, "%s.leading_dense_block_count", arch);
    if (by_gguf_get_i64(g, key, 0, BY_LAYERS_MAX, &first, NULL)) return false;
    snprintf(key, sizeof key, "blk.%u.exp_probs_b.bias", (unsigned)first);
    return has_tensor(g, key);
}

/* Some architectures of ggml stand for two families. */
static const char *family_of(const struct by_gguf *g, const char *arch, const struct by_family *f) {
    char key[96];
    snprintf(key, sizeof key, "%s.expert_count", arch);
    if (f && strcmp(f->name, "llama") == 0 && by_gguf_key(g, key)) return "mixtral";
    snprintf(key, sizeof key, "%s.attention.temperature_scale", arch);
    if (f && strcmp(f->name, "ministral3") == 0 && !by_gguf_key(g, key)) return "mistral";
    snprintf(key, sizeof key, "%s.attention.sliding_window", arch);
    if (f && strcmp(f->name, "olmo2") == 0 && by_gguf_key(g, key)) return "olmo3";
    if (f && strcmp(f->name, "deepseek_v2") == 0 && is_corrected(g, arch)) return "deepseek_v3";
    return f ? f->name : arch;
}

static void add_ends(const struct by_gguf *g, struct by_model_info *m) {
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < BY_COUNTOF(keys); i++) {
        int64_t id = -1;
        if (!by_gguf_get_i64(g, keys[i], -1, INT64_MAX, &id, NULL)) by_model_info_add_eos(m, id);
    }
}

static int read_written(struct by_model_info *out, struct writer *w, const char *where) {
    const struct by_json_limits lim = {.bytes_max = TEXT_MAX, .depth_max = BY_CONFIG_DEPTH_MAX};
    struct by_json *config = NULL;
    int rc = by_json_parse(&config, by_buf_str(&w->text), &lim, w->err);
    if (!rc) rc = by_hf_config_read(out, config, where, w->err);
    if (!rc) rc = by_hf_config_add_generation(out, config, where, w->err);
    by_json_free(config);
    return rc;
}

int by_gguf_config_read(struct by_model_info *out, const struct by_gguf *g, const char *where,
                        struct by_err *err) {
    struct writer w = {.g = g, .err = err};
    struct by_str arch = {0}, name = {0};
    by_model_info_init(out);
    int rc = by_gguf_get_str(g, "general.architecture", &arch, err);
    if (rc) return rc;
    if (!arch.n || arch.n >= sizeof w.arch)
        return by_fail(err, BY_EFORMAT, "%s: there is no general.architecture; this is not a model",
                       where);
    snprintf(w.arch, sizeof w.arch, "%.*s", (int)arch.n, arch.p);
    const struct by_family *family = by_family_find_gguf(arch);
    by_buf_init(&w.text, TEXT_MAX);
    w.family = family_of(g, w.arch, family);
    write_config(&w);
    rc = w.rc ? w.rc : read_written(out, &w, where);
    by_buf_release(&w.text);
    out->is_gguf = true;
    if (rc) return rc;
    rc = by_gguf_get_str(g, "general.name", &name, err);
    snprintf(out->name, sizeof out->name, "%.*s", (int)BY_MIN(name.n, sizeof out->name - 1),
             name.p ? name.p : "");
    out->rope.is_interleaved = family && family->is_interleaved_gguf;
    int64_t n_rot = out->rope.n_rot;
    if (!rc)
        rc =
            by_gguf_get_i64(g, key_of(&w, "rope.dimension_count"), 2, BY_HEAD_DIM_MAX, &n_rot, err);
    if (out->rope.kind != BY_ROPE_NONE) out->rope.n_rot = (uint32_t)n_rot;
    if (!rc) rc = read_local_turns(&w, out);
    if (!rc) rc = read_factors(&w, out);
    add_ends(g, out);
    return rc ? rc : by_model_info_finish(out, where, err);
}
