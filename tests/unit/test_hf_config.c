/* What config.json's keys, their absence and null come to; tests/hf/test_configs.py asks transformers the same. */
#include "common/modelfile/hf_config.h"

#include "tests/unit/test.h"

#include <math.h>

static struct by_model_info read_text(const char *text) {
    const struct by_json_limits lim = {.bytes_max = 1 << 20, .depth_max = 16};
    struct by_json *config = NULL;
    struct by_model_info m;
    struct by_err err = {0};
    assert_int_equal(by_json_parse(&config, by_str_of(text), &lim, &err), 0);
    if (by_hf_config_read(&m, config, "config.json", &err)) fail_msg("%s", err.text);
    by_json_free(config);
    return m;
}

/* Mistral 7B from v0.2 on has no window and says so by null; it got the family's 4,096, and was wrong behind them. */
TEST(null_is_no_window_and_nothing_is_the_familys) {
    UNUSED_STATE;
    assert_int_equal(read_text("{\"model_type\":\"mistral\"}").sliding_window, 4096);
    assert_int_equal(
        read_text("{\"model_type\":\"mistral\",\"sliding_window\":null}").sliding_window, 0);
    assert_true(
        read_text("{\"model_type\":\"gemma2\",\"final_logit_softcapping\":null}").final_softcap ==
        0);
    assert_int_equal(read_text("{\"model_type\":\"deepseek_v2\",\"num_experts_per_tok\":6,"
                               "\"q_lora_rank\":null}")
                         .mla.q_rank,
                     0);
}

/* A Mistral that was renamed to Llama still has the key; transformers' Llama does not look at it. */
TEST(a_window_that_the_family_does_not_know_is_none) {
    UNUSED_STATE;
    struct by_model_info m = read_text("{\"model_type\":\"llama\",\"sliding_window\":4096}");
    assert_int_equal(m.sliding_window, 0);
    assert_int_equal(m.layer_flags[0], 0);
}

/* The text_config of Gemma 3 4B; it was refused for having no heads. */
TEST(sizes_that_a_text_config_leaves_out_are_transformers) {
    UNUSED_STATE;
    struct by_model_info m = read_text(
        "{\"model_type\":\"gemma3_text\",\"hidden_size\":2560,\"intermediate_size\":10240,"
        "\"num_hidden_layers\":34,\"rope_scaling\":{\"factor\":8.0,\"rope_type\":\"linear\"},"
        "\"sliding_window\":1024}");
    assert_int_equal(m.n_heads, 8);
    assert_int_equal(m.n_kv_heads, 4);
    assert_int_equal(m.vocab, 262208);
    assert_int_equal(m.context, 131072);
}

/* It was switched on for layers with rope, too. */
TEST(smollm3s_windows_are_where_no_rope_is) {
    UNUSED_STATE;
    struct by_model_info m = read_text(
        "{\"model_type\":\"smollm3\",\"use_sliding_window\":true,\"sliding_window\":512}");
    for (uint32_t i = 0; i < m.n_layers; i++)
        assert_int_equal(m.layer_flags[i], i % 4 == 3 ? BY_LAYER_SLIDING | BY_LAYER_NO_ROPE : 0);
}

/* EXAONE 4 32B has the pattern as a word beside the list. */
TEST(exaone4s_layers_without_a_window_do_not_turn_unless_there_are_no_windows) {
    UNUSED_STATE;
    struct by_model_info m =
        read_text("{\"model_type\":\"exaone4\",\"num_hidden_layers\":2,\"sliding_window\":9,"
                  "\"sliding_window_pattern\":\"LLLG\","
                  "\"layer_types\":[\"full_attention\",\"sliding_attention\"]}");
    assert_int_equal(m.layer_flags[0], BY_LAYER_NO_ROPE);
    assert_int_equal(m.layer_flags[1], BY_LAYER_SLIDING);
    m = read_text("{\"model_type\":\"exaone4\",\"sliding_window\":null,"
                  "\"sliding_window_pattern\":null}");
    assert_int_equal(m.layer_flags[0] | m.layer_flags[3], 0);
}

/* transformers' dots1 looks at neither use_sliding_window nor scoring_func nor mlp_layer_types. */
TEST(a_switch_that_the_family_does_not_know_switches_nothing) {
    UNUSED_STATE;
    struct by_model_info m = read_text(
        "{\"model_type\":\"dots1\",\"n_routed_experts\":4,\"num_experts_per_tok\":2,\"sliding_"
        "window\":64,\"use_sliding_window\":false,\"max_window_layers\":60,\"scoring_func\":"
        "\"noaux_tc\",\"mlp_layer_types\":[\"dense\"]}");
    assert_int_equal(m.sliding_window, 64);
    assert_int_equal(m.layer_flags[0], BY_LAYER_MOE);
    assert_int_equal(m.layer_flags[60], BY_LAYER_MOE | BY_LAYER_SLIDING);
    assert_true(m.moe.score == BY_MOE_SIGMOID && m.moe.is_bias_corrected);
}

/* Gemma 4: heads of two kinds, and layers that attend to the keys of the last of their kind before them. */
TEST(layers_may_have_other_heads_or_none_of_their_own) {
    UNUSED_STATE;
    struct by_model_info m = read_text(
        "{\"model_type\":\"gemma4_text\",\"num_hidden_layers\":6,\"intermediate_size\":64,"
        "\"layer_types\":[\"sliding_attention\",\"full_attention\",\"sliding_attention\","
        "\"sliding_attention\",\"full_attention\",\"sliding_attention\"],"
        "\"num_kv_shared_layers\":3,\"use_double_wide_mlp\":true,\"attention_k_eq_v\":true,"
        "\"num_global_key_value_heads\":2}");
    static const uint32_t want[] = {0, 1, 2, 2, 1, 1};
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(by_model_info_kv_layer(&m, i), want[i]); /* the last sees everything */
    assert_true(m.head_dim == 256 && m.full_head_dim == 512 && m.k_is_v);
    assert_true(m.n_kv_heads == 4 && m.full_kv_heads == 2);
    assert_true(m.ffn == 64 && m.shared_ffn == 128 && m.per_layer == 256);
    assert_true(m.rope.n_rot == 512 && m.rope.n_rot_local == 256 && m.attn_scale == 1);
    assert_true(m.rope.long_factors[63] == 1 && m.rope.long_factors[64] == 1e30f);
    m = read_text("{\"model_type\":\"gemma4_text\",\"num_hidden_layers\":2,\"layer_types\":["
                  "\"sliding_attention\",\"full_attention\"],\"rope_parameters\":null,"
                  "\"per_layer_config\":{\"1\":{\"head_dim\":128}}}");
    assert_true(m.full_head_dim == 128 && m.full_kv_heads == 4 && !m.k_is_v);
    assert_true(m.rope.theta_local == 10000 && m.rope.theta == 1e6);
}

TEST(which_layers_have_experts_may_be_a_list) {
    UNUSED_STATE;
    struct by_model_info m = read_text("{\"model_type\":\"glm4_moe_lite\",\"mlp_layer_types\":["
                                       "\"sparse\",\"dense\",\"sparse\"]}");
    assert_int_equal(m.layer_flags[0], BY_LAYER_MOE);
    assert_int_equal(m.layer_flags[1], 0);
    m = read_text("{\"model_type\":\"glm4_moe_lite\"}");
    assert_int_equal(m.layer_flags[0], 0);
    assert_int_equal(m.layer_flags[1], BY_LAYER_MOE);
    assert_int_equal(m.mla.kv_rank, 512);
}

/* Qwen 3.5 has experts in all layers and weights to sum 1: transformers knows no key that says otherwise, which Qwen 3 has. */
TEST(qwen35s_experts_are_in_all_layers) {
    UNUSED_STATE;
    static const char keys[] =
        "\"decoder_sparse_step\":2,\"mlp_only_layers\":[1],\"norm_topk_prob\":false}";
    char config[256];
    snprintf(config, sizeof config, "{\"model_type\":\"qwen3_5_moe_text\",%s", keys);
    struct by_model_info m = read_text(config);
    for (uint32_t i = 0; i < m.n_layers; i++)
        assert_true(m.layer_flags[i] & BY_LAYER_MOE);
    assert_true(m.moe.norm_topk);
    snprintf(config, sizeof config, "{\"model_type\":\"qwen3_moe\",%s", keys);
    m = read_text(config);
    assert_false(m.layer_flags[0] & BY_LAYER_MOE || m.layer_flags[1] & BY_LAYER_MOE ||
                 m.moe.norm_topk);
    assert_true(m.layer_flags[3] & BY_LAYER_MOE);
}

TEST(ernies_layers_with_experts_have_a_first_a_last_and_a_step) {
    UNUSED_STATE;
    struct by_model_info m =
        read_text("{\"model_type\":\"ernie4_5_moe\",\"moe_layer_start_index\":2,"
                  "\"moe_layer_end_index\":20,\"moe_layer_interval\":2}");
    for (uint32_t i = 0; i < m.n_layers; i++)
        assert_int_equal(m.layer_flags[i], i % 2 == 1 && i >= 2 && i <= 20 ? BY_LAYER_MOE : 0);
    m = read_text("{\"model_type\":\"ernie4_5_moe\"}");
    assert_int_equal(m.layer_flags[0], 0);
    assert_int_equal(m.layer_flags[27], BY_LAYER_MOE);
    assert_int_equal(m.moe.shared_ffn, 2 * 1536);
    assert_true(m.moe.score == BY_MOE_SOFTMAX && m.moe.is_bias_corrected && m.moe.norm_topk);
}

TEST(minimax_says_how_much_of_a_head_turns) {
    UNUSED_STATE;
    struct by_model_info m = read_text("{\"model_type\":\"minimax_m2\",\"rotary_dim\":64,"
                                       "\"shared_intermediate_size\":0,\"sliding_window\":9}");
    assert_int_equal(m.rope.n_rot, 64);
    assert_int_equal(m.sliding_window, 0);
    assert_int_equal(read_text("{\"model_type\":\"minimax_m2\"}").rope.n_rot, 128);
}

/* Its files have lists, a number a layer. */
TEST(hunyuans_experts_are_as_wide_as_a_dense_layer) {
    UNUSED_STATE;
    struct by_model_info m = read_text(
        "{\"model_type\":\"hunyuan_v1_moe\",\"intermediate_size\":3072,\"num_experts\":64,"
        "\"moe_topk\":[8,8],\"moe_intermediate_size\":[3072,3072]}");
    assert_int_equal(m.moe.n_used, 8);
    assert_int_equal(m.moe.ffn, 3072);
    assert_int_equal(m.moe.shared_ffn, 3072);
}

TEST(norms_of_q_and_k_are_an_option) {
    UNUSED_STATE;
    assert_false(read_text("{\"model_type\":\"glm4_moe\",\"head_dim\":128}").has_qk_norm);
    assert_true(read_text("{\"model_type\":\"glm4_moe\",\"head_dim\":128,\"use_qk_norm\":true}")
                    .has_qk_norm);
    assert_true(read_text("{\"model_type\":\"qwen3\",\"use_qk_norm\":false}").has_qk_norm);
}

/* Hunyuan's "dynamic" rope does not change with the length when it has an alpha: it is another base. */
TEST(hunyuans_alpha_is_a_base) {
    UNUSED_STATE;
    struct by_model_info m = read_text("{\"model_type\":\"hunyuan_v1_dense\",\"head_dim\":128,"
                                       "\"rope_scaling\":{\"type\":\"dynamic\","
                                       "\"alpha\":1000.0,\"factor\":1.0}}");
    assert_int_equal(m.rope.kind, BY_ROPE_PLAIN);
    assert_true(fabs(m.rope.theta - 11158839.9) < 0.1);
    m = read_text("{\"model_type\":\"hunyuan_v1_dense\",\"rope_scaling\":{\"type\":\"dynamic\","
                  "\"factor\":2.0}}");
    assert_int_equal(m.rope.kind, BY_ROPE_DYNAMIC);
}

/* It was refused for using none of one expert. */
TEST(a_dense_family_has_no_experts) {
    UNUSED_STATE;
    struct by_model_info m = read_text("{\"model_type\":\"hunyuan_v1_dense\",\"num_experts\":1}");
    assert_int_equal(m.moe.n_experts, 0);
    assert_int_equal(m.layer_flags[0], 0);
}

TEST(ministral3s_queries_grow_and_mistrals_do_not) {
    UNUSED_STATE;
    struct by_model_info m = read_text("{\"model_type\":\"ministral3\"}");
    assert_true(m.query_growth == 0.1 && m.query_growth_every == 16384);
    assert_true(m.rope.kind == BY_ROPE_YARN && m.rope.attention_factor == 1);
    m = read_text("{\"model_type\":\"mistral\",\"rope_parameters\":{\"rope_type\":\"default\","
                  "\"llama_4_scaling_beta\":0.1,\"original_max_position_embeddings\":64}}");
    assert_int_equal(m.query_growth_every, 0);
}

/* Latents are values of one head: the spans of the CUDA backend have a thread for 8 of its columns, and gave zeros for more than 1,024. */
TEST(latents_are_no_wider_than_a_head_may_be) {
    UNUSED_STATE;
    const struct by_json_limits lim = {.bytes_max = 1 << 20, .depth_max = 16};
    struct by_json *config = NULL;
    struct by_model_info m;
    struct by_err err = {0};
    assert_int_equal(
        read_text("{\"model_type\":\"deepseek_v3\",\"kv_lora_rank\":1024}").mla.kv_rank, 1024);
    assert_int_equal(by_json_parse(&config,
                                   BY_STR("{\"model_type\":\"deepseek_v3\",\"kv_lora_rank\":1032}"),
                                   &lim, &err),
                     0);
    assert_int_equal(by_hf_config_read(&m, config, "config.json", &err), BY_EINVAL);
    assert_non_null(strstr(err.text, "latent attention with rank 1032"));
    by_json_free(config);
}

TESTS(RUN(a_switch_that_the_family_does_not_know_switches_nothing),
      RUN(layers_may_have_other_heads_or_none_of_their_own),
      RUN(which_layers_have_experts_may_be_a_list), RUN(norms_of_q_and_k_are_an_option),
      RUN(qwen35s_experts_are_in_all_layers),
      RUN(ernies_layers_with_experts_have_a_first_a_last_and_a_step),
      RUN(minimax_says_how_much_of_a_head_turns),
      RUN(hunyuans_experts_are_as_wide_as_a_dense_layer),
      RUN(null_is_no_window_and_nothing_is_the_familys),
      RUN(a_window_that_the_family_does_not_know_is_none),
      RUN(sizes_that_a_text_config_leaves_out_are_transformers),
      RUN(smollm3s_windows_are_where_no_rope_is), RUN(hunyuans_alpha_is_a_base),
      RUN(a_dense_family_has_no_experts), RUN(ministral3s_queries_grow_and_mistrals_do_not),
      RUN(latents_are_no_wider_than_a_head_may_be),
      RUN(exaone4s_layers_without_a_window_do_not_turn_unless_there_are_no_windows));
