/* Which models the native engine takes, and what it says of the others. */
#include "common/modelfile/native.h"

#include "common/modelfile/hf_config.h"
#include "gpu_worker/models/family.h"
#include "tests/unit/test.h"

static int check(const char *text, struct by_err *err) {
    const struct by_json_limits lim = {.bytes_max = 1 << 20, .depth_max = 16};
    struct by_json *config = NULL;
    struct by_model_info m;
    *err = (struct by_err){0};
    assert_int_equal(by_json_parse(&config, by_str_of(text), &lim, err), 0);
    int rc = by_hf_config_read(&m, config, "config.json", err);
    if (!rc) rc = by_native_check(&m, config, err);
    by_json_free(config);
    return rc;
}

#define SIZES \
    "\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_" \
    "heads\":4,\"vocab_size\":640," \
    "\"intermediate_size\":128"

static void refused(const char *config, const char *says) {
    struct by_err err;
    assert_int_equal(check(config, &err), BY_EUNSUPPORTED);
    if (!strstr(err.text, says)) fail_msg("'%s' does not say '%s'", err.text, says);
}

TEST(the_two_lists_of_families_are_one) {
    UNUSED_STATE;
    size_t n = 0, m = 0;
    for (; by_family_at(n); n++) {
        if (!family_find(by_str_of(by_family_at(n)->name)))
            fail_msg("gpu_worker/models has no file for '%s'", by_family_at(n)->name);
    }
    while (family_at(m))
        m++;
    assert_int_equal(n, m);
}

TEST(a_plain_llama_is_taken) {
    UNUSED_STATE;
    struct by_err err;
    assert_int_equal(check("{\"model_type\":\"llama\"," SIZES "}", &err), 0);
    assert_int_equal(check("{\"model_type\":\"gpt_oss\",\"num_local_experts\":4,\"num_experts_per_"
                           "tok\":2,\"swiglu_limit\":7.0," SIZES "}",
                           &err),
                     0);
}

TEST(what_is_not_known_is_named) {
    UNUSED_STATE;
    refused("{\"model_type\":\"mamba\"," SIZES "}", "mamba");
    refused("{\"model_type\":\"odd\",\"d_ff\":128}", "odd");
    /* The choice of experts has room for so many; more was an assertion at the first step. */
    refused("{\"model_type\":\"mixtral\",\"num_local_experts\":2000," SIZES "}", "2000 experts");
    refused("{\"model_type\":\"deepseek_v3\",\"n_group\":128," SIZES "}", "128 groups");
    refused("{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}," SIZES
            "}",
            "dynamic");
    refused("{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}"
            "," SIZES "}",
            "bitsandbytes");
    refused("{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"compressed-"
            "tensors\",\"format\":\"marlin-24\"}," SIZES "}",
            "marlin-24");
    /* It was dropped without a word. */
    refused("{\"model_type\":\"gemma3_text\",\"rope_parameters\":{\"full_attention\":"
            "{\"rope_type\":\"default\"},\"sliding_attention\":{\"rope_type\":\"linear\","
            "\"factor\":2}}}",
            "layers with a window");
    refused("{\"model_type\":\"phi\",\"tie_word_embeddings\":true," SIZES "}",
            "tie_word_embeddings");
    refused("{\"model_type\":\"falcon\",\"alibi\":true," SIZES "}", "alibi");
    refused("{\"model_type\":\"opt\",\"word_embed_proj_dim\":32," SIZES "}", "word_embed_proj_dim");
    refused("{\"model_type\":\"opt\",\"do_layer_norm_before\":false," SIZES "}",
            "do_layer_norm_before");
    refused("{\"model_type\":\"hunyuan_v1_moe\",\"use_cla\":true," SIZES "}", "use_cla");
    refused("{\"model_type\":\"hunyuan_v1_moe\",\"num_experts\":8,\"moe_topk\":[2,3]," SIZES "}",
            "moe_topk");
    refused("{\"model_type\":\"ernie4_5_moe\",\"use_bias\":true," SIZES "}", "use_bias");
    refused("{\"model_type\":\"ernie4_5_moe\",\"moe_norm_min\":0.5," SIZES "}", "moe_norm_min");
    refused("{\"model_type\":\"olmoe\",\"clip_qkv\":8.0," SIZES "}", "clip_qkv");
    refused("{\"model_type\":\"gemma4_text\",\"use_bidirectional_attention\":\"all\"," SIZES ","
            "\"vocab_size_per_layer_input\":640}",
            "both directions");
    refused("{\"model_type\":\"gemma4_text\"," SIZES "}", "vocab_size_per_layer_input");
    refused("{\"model_type\":\"gemma4_text\"," SIZES ",\"hidden_size_per_layer_input\":0,"
            "\"per_layer_config\":{\"0\":{\"head_dim\":8}}}",
            "per_layer_config");
    refused("{\"model_type\":\"glm4_moe_lite\",\"first_k_dense_replace\":2," SIZES "}",
            "first_k_dense_replace");
    refused("{\"model_type\":\"gpt_oss\",\"num_local_experts\":4,\"num_experts_per_tok\":2,"
            "\"swiglu_limit\":5," SIZES "}",
            "swiglu_limit");
}

TEST(the_cache_of_a_latent_model_is_small) {
    UNUSED_STATE;
    struct by_model_info m = {.n_layers = 2,
                              .n_kv_heads = 8,
                              .head_dim = 64,
                              .full_kv_heads = 2,
                              .full_head_dim = 128,
                              .layer_flags = {BY_LAYER_SLIDING}};
    assert_int_equal(by_native_kv_bytes(&m, 2), 2 * (8 * 64 + 2 * 128) * 2);
    m.n_layers = 3;
    m.n_kv_shared = 1; /* kept once */
    assert_int_equal(by_native_kv_bytes(&m, 2), 2 * (8 * 64 + 2 * 128) * 2);
    m.n_layers = 2;
    m.mla = (struct by_mla_info){.kv_rank = 32, .rope_dim = 16};
    assert_int_equal(by_native_kv_bytes(&m, 2), 2 * (32 + 16) * 2);
}

TESTS(RUN(the_two_lists_of_families_are_one), RUN(a_plain_llama_is_taken),
      RUN(what_is_not_known_is_named), RUN(the_cache_of_a_latent_model_is_small));
