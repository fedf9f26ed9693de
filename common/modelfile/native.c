#include "common/modelfile/native.h"

#include <string.h>

/* Switches of config.json that change how a family computes, in ways that are left to transformers. */
enum test { IS_TRUE, IS_FALSE, DIFFERS, IS_ALL };
static const struct {
    const char *family, *key;
    /* refused when the key is there and true, false, another number than `number` (0: hidden size), or "all" */
    enum test test;
    double number;
    const char *why;
} refused[] = {
    {"cohere", "use_qk_norm", IS_TRUE, 0,
     "q and k norms with weights of their own for each head (Command R+)"},
    {"stablelm", "qk_layernorm", IS_TRUE, 0,
     "q and k norms with weights of their own for each head (StableLM 2 12B)"},
    {"gpt2", "scale_attn_by_inverse_layer_idx", IS_TRUE, 0,
     "attention scaled by the layer's number"},
    {"gpt2", "scale_attn_weights", IS_FALSE, 0, "attention that is not scaled"},
    {"gpt_bigcode", "scale_attn_weights", IS_FALSE, 0, "attention that is not scaled"},
    {"gpt_bigcode", "add_cross_attention", IS_TRUE, 0, "attention to another text"},
    {"phi", "tie_word_embeddings", IS_TRUE, 0, "an output that is the embedding and has a bias"},
    {"qwen2_moe", "use_sliding_window", IS_TRUE, 0,
     "a window, which no two versions of transformers put into the same layers,"},
    {"gemma", "use_bidirectional_attention", IS_TRUE, 0, "attention in both directions"},
    {"gemma2", "use_bidirectional_attention", IS_TRUE, 0, "attention in both directions"},
    {"gemma3_text", "use_bidirectional_attention", IS_TRUE, 0,
     "attention in both directions (EmbeddingGemma)"},
    {"gemma4", "use_bidirectional_attention", IS_ALL, 0, "attention in both directions"},
    {"gemma4_unified", "use_bidirectional_attention", IS_ALL, 0, "attention in both directions"},
    {"opt", "do_layer_norm_before", IS_FALSE, 0, "norms behind the layers (OPT-350m)"},
    {"opt", "word_embed_proj_dim", DIFFERS, 0,
     "an embedding of another width than the layers (OPT-350m)"},
    {"opt", "_remove_final_layer_norm", IS_TRUE, 0, "no norm behind the last layer"},
    {"opt", "layer_norm_elementwise_affine", IS_FALSE, 0, "norms without weights"},
    {"falcon", "alibi", IS_TRUE, 0, "alibi positions (Falcon RW)"},
    {"deepseek_v2", "norm_topk_prob", IS_TRUE, 0,
     "weights of experts that sum to 1, which transformers leaves as they are,"},
    {"hunyuan_v1_moe", "use_cla", IS_TRUE, 0, "keys and values shared by layers"},
    {"ernie4_5_moe", "use_bias", IS_TRUE, 0, "a bias, which the tied output would have, too,"},
    {"ernie4_5_moe", "moe_norm_min", DIFFERS, 1e-12, "another least sum of weights than 1e-12"},
    {"hy_v3", "mlp_bias", IS_TRUE, 0, "a bias of the feed-forward"},
    {"olmoe", "clip_qkv", DIFFERS, -1, "queries, keys and values that are clipped"},
    {"glm4_moe_lite", "first_k_dense_replace", DIFFERS, 1,
     "another first layer with experts than the second, unless mlp_layer_types says so,"},
    {"hy_v3", "first_k_dense_replace", DIFFERS, 1,
     "another first layer with experts than the second, unless mlp_layer_types says so,"},
    {"gpt_oss", "swiglu_limit", DIFFERS, 7, "another limit of the activation than 7"},
};

static int check_switches(const struct by_model_info *m, const struct by_json *config,
                          struct by_err *err) {
    for (size_t i = 0; config && i < BY_COUNTOF(refused); i++) {
        const struct by_json *v = by_json_get(config, refused[i].key);
        if (strcmp(m->family, refused[i].family) != 0 || !v) continue;
        double number = refused[i].number != 0 ? refused[i].number : (double)m->hidden;
        bool is_bool = by_json_type(v) == BY_JSON_BOOL,
             is_number = by_json_type(v) == BY_JSON_NUMBER;
        bool hit = refused[i].test == DIFFERS ? is_number && by_json_f64(v) != number
                   : refused[i].test == IS_ALL
                       ? by_str_eqz(by_json_str(v), "all")
                       : is_bool && by_json_bool(v) == (refused[i].test == IS_TRUE);
        if (hit)
            return by_fail(err, BY_EUNSUPPORTED, "%s: %s is not supported natively", refused[i].key,
                           refused[i].why);
    }
    return 0;
}

static int check_quant(const struct by_quant_info *q, struct by_err *err) {
    static const char *const formats[] = {
        "", "dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized"};
    if (q->method == BY_QUANT_OTHER)
        return by_fail(err, BY_EUNSUPPORTED, "weights quantised by '%s' are not supported natively",
                       q->name);
    if (q->method != BY_QUANT_COMPRESSED) return 0;
    for (size_t i = 0; i < BY_COUNTOF(formats); i++) {
        if (strcmp(q->format, formats[i]) == 0) return 0;
    }
    return by_fail(err, BY_EUNSUPPORTED,
                   "compressed-tensors of the format '%s' are not supported natively", q->format);
}

int by_native_check(const struct by_model_info *m, const struct by_json *config,
                    struct by_err *err) {
    if (!by_family_find(by_str_of(m->family)))
        return by_fail(err, BY_EUNSUPPORTED,
                       "the family '%s' is not one that the native engine knows", m->family);
    if (m->rope.kind == BY_ROPE_DYNAMIC)
        return by_fail(err, BY_EUNSUPPORTED,
                       "rope of type 'dynamic' changes with the length of the text, which a shared "
                       "cache cannot hold");
    int rc = check_quant(&m->quant, err);
    return rc ? rc : check_switches(m, config, err);
}

uint64_t by_native_kv_bytes(const struct by_model_info *m, uint32_t number_bytes) {
    uint64_t n = 0;
    if (m->mla.kv_rank)
        return ((uint64_t)m->mla.kv_rank + m->mla.rope_dim) * m->n_layers * number_bytes;
    for (uint32_t i = 0; i < m->n_layers; i++) {
        bool is_full = !(m->layer_flags[i] & BY_LAYER_SLIDING);
        if (m->layer_flags[i] & BY_LAYER_STATE || by_model_info_kv_layer(m, i) != i) continue;
        n += is_full ? 2 * (uint64_t)m->full_kv_heads * m->full_head_dim
                     : 2 * (uint64_t)m->n_kv_heads * m->head_dim;
    }
    return n * number_bytes;
}

uint64_t by_native_state_bytes(const struct by_model_info *m) {
    const struct by_state_info *x = &m->state;
    if (!x->kind) return 0;
    uint64_t window = (uint64_t)(x->conv - 1) * by_model_info_conv_cols(m);
    return (m->n_layers - by_model_info_n_keyed(m)) * sizeof(float) *
           (window + (uint64_t)x->n_v_heads * x->k_dim * x->v_dim);
}
