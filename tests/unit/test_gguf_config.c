/* What a GGUF's keys mean, for families whose architecture ggml names differently or describes in its own way. */
#include "common/modelfile/gguf_config.h"

#include "common/base/buf.h"
#include "tests/unit/test.h"

/* A header without tensors, key by key. */
struct header {
    struct by_buf keys;
    uint64_t n;
};

static void add_str(struct by_buf *b, const char *s) {
    uint64_t n = strlen(s);
    by_buf_add(b, &n, sizeof n);
    by_buf_add(b, s, n);
}

static void add_key(struct header *h, const char *name, uint32_t type, const void *value,
                    size_t n) {
    add_str(&h->keys, name);
    by_buf_add(&h->keys, &type, sizeof type);
    by_buf_add(&h->keys, value, n);
    h->n++;
}

static void add_u32(struct header *h, const char *name, uint32_t v) {
    add_key(h, name, BY_GGUF_U32, &v, sizeof v);
}

static void add_f32(struct header *h, const char *name, float v) {
    add_key(h, name, BY_GGUF_F32, &v, sizeof v);
}

static void add_bools(struct header *h, const char *name, const char *values, uint64_t n) {
    uint32_t item = BY_GGUF_BOOL;
    add_key(h, name, BY_GGUF_ARRAY, &item, sizeof item);
    by_buf_add(&h->keys, &n, sizeof n);
    by_buf_add(&h->keys, values, n);
}

static void add_str_key(struct header *h, const char *name, const char *value) {
    add_key(h, name, BY_GGUF_STR, "", 0);
    add_str(&h->keys, value);
}

static void begin(struct header *h, const char *arch) {
    uint32_t item = BY_GGUF_STR;
    uint64_t n = 40;
    by_buf_init(&h->keys, 1 << 16);
    h->n = 0;
    add_str_key(h, "general.architecture", arch);
    add_key(h, "tokenizer.ggml.tokens", BY_GGUF_ARRAY, &item, sizeof item);
    by_buf_add(&h->keys, &n, sizeof n);
    for (uint64_t i = 0; i < n; i++)
        add_str(&h->keys, "t");
}

static struct by_model_info read_header(struct header *h) {
    const uint32_t version = 3;
    const uint64_t n_tensors = 0;
    struct by_buf all;
    struct by_gguf *g = NULL;
    struct by_err err = {0};
    struct by_model_info m;
    by_buf_init(&all, 1 << 17);
    by_buf_add(&all, "GGUF", 4);
    by_buf_add(&all, &version, sizeof version);
    by_buf_add(&all, &n_tensors, sizeof n_tensors);
    by_buf_add(&all, &h->n, sizeof h->n);
    by_buf_add(&all, h->keys.p, h->keys.n);
    if (by_gguf_parse(&g, by_buf_str(&all), "test", &err)) fail_msg("%s", err.text);
    if (by_gguf_config_read(&m, g, "test", &err)) fail_msg("%s", err.text);
    by_gguf_close(g);
    by_buf_release(&all);
    by_buf_release(&h->keys);
    return m;
}

static void add_sizes(struct header *h, const char *arch) {
    static const struct {
        const char *key;
        uint32_t value;
    } sizes[] = {
        {"block_count", 4},          {"embedding_length", 64},       {"feed_forward_length", 128},
        {"attention.head_count", 4}, {"attention.head_count_kv", 4}, {"context_length", 512}};
    for (size_t i = 0; i < BY_COUNTOF(sizes); i++) {
        char key[96];
        snprintf(key, sizeof key, "%s.%s", arch, sizes[i].key);
        add_u32(h, key, sizes[i].value);
    }
}

TEST(a_llama_with_experts_is_a_mixtral) {
    UNUSED_STATE;
    struct header h;
    begin(&h, "llama");
    add_sizes(&h, "llama");
    add_u32(&h, "llama.expert_count", 4);
    add_u32(&h, "llama.expert_used_count", 2);
    struct by_model_info m = read_header(&h);
    assert_string_equal(m.family, "mixtral");
    assert_true(m.moe.norm_topk && m.moe.n_experts == 4 && m.moe.ffn == 128);
    assert_true(m.rope.is_interleaved);
}

TEST(deepseek_is_told_apart_by_its_scores_and_keeps_its_head_parts) {
    UNUSED_STATE;
    for (uint32_t is_split = 0; is_split < 2; is_split++) {
        struct header h;
        begin(&h, "deepseek2");
        add_sizes(&h, "deepseek2");
        add_u32(&h, "deepseek2.rope.dimension_count", 16);
        add_u32(&h, "deepseek2.attention.kv_lora_rank", 32);
        add_u32(&h, "deepseek2.attention.key_length", is_split ? 48 : 40);
        add_u32(&h, "deepseek2.attention.value_length", is_split ? 32 : 20);
        if (is_split) add_u32(&h, "deepseek2.attention.key_length_mla", 40);
        if (is_split) add_u32(&h, "deepseek2.attention.value_length_mla", 20);
        add_u32(&h, "deepseek2.expert_count", 8);
        add_u32(&h, "deepseek2.expert_used_count", 2);
        add_u32(&h, "deepseek2.expert_feed_forward_length", 24);
        add_u32(&h, "deepseek2.expert_shared_count", 2);
        add_u32(&h, "deepseek2.leading_dense_block_count", 1);
        add_u32(&h, "deepseek2.expert_gating_func", is_split ? 2 : 1);
        add_u32(&h, "deepseek2.expert_group_count", 2);
        add_u32(&h, "deepseek2.expert_group_used_count", 1);
        struct by_model_info m = read_header(&h);
        assert_string_equal(m.family, is_split ? "deepseek_v3" : "deepseek_v2");
        assert_int_equal(m.mla.nope_dim, 24);
        assert_int_equal(m.mla.rope_dim, 16);
        assert_int_equal(m.mla.v_dim, 20);
        assert_int_equal(m.mla.q_rank, 0);
        assert_int_equal(m.moe.shared_ffn, 48);
        assert_int_equal(m.moe.score, is_split ? BY_MOE_SIGMOID : BY_MOE_SOFTMAX);
        assert_false(m.layer_flags[0] & BY_LAYER_MOE);
        assert_true(m.layer_flags[1] & BY_LAYER_MOE);
    }
}

TEST(granite_divides_its_logits_and_command_r_multiplies) {
    UNUSED_STATE;
    static const char *const archs[] = {"granite", "command-r"};
    for (int i = 0; i < 2; i++) {
        struct header h;
        char key[64];
        begin(&h, archs[i]);
        add_sizes(&h, archs[i]);
        snprintf(key, sizeof key, "%s.logit_scale", archs[i]);
        add_f32(&h, key, 4);
        assert_true(read_header(&h).logit_scale == (i ? 4 : 0.25));
    }
}

TEST(falcons_architecture_follows_from_its_key_value_heads) {
    UNUSED_STATE;
    struct header h;
    begin(&h, "falcon");
    add_sizes(&h, "falcon");
    assert_int_equal(read_header(&h).n_kv_heads, 4);
}

/* GLM's files have no key for it, and got the 128 of its config.json. */
TEST(a_head_without_a_key_is_its_share_of_the_hidden_size) {
    UNUSED_STATE;
    static const char *const archs[] = {"chatglm", "gemma", "llama"};
    for (size_t i = 0; i < BY_COUNTOF(archs); i++) {
        struct header h;
        begin(&h, archs[i]);
        add_sizes(&h, archs[i]);
        assert_int_equal(read_header(&h).head_dim, 16);
    }
}

TEST(windows_are_every_layers_but_each_nth_or_a_list) {
    UNUSED_STATE;
    static const char *const archs[] = {"olmo2", "cohere2"};
    for (size_t i = 0; i < BY_COUNTOF(archs); i++) {
        for (int is_list = 0; is_list < 2; is_list++) {
            struct header h;
            char key[96];
            begin(&h, archs[i]);
            add_sizes(&h, archs[i]);
            snprintf(key, sizeof key, "%s.attention.sliding_window", archs[i]);
            add_u32(&h, key, 32);
            snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", archs[i]);
            if (is_list)
                add_bools(&h, key, "\1\0\0\1", 4);
            else
                add_u32(&h, key, 2);
            struct by_model_info m = read_header(&h);
            assert_string_equal(m.family, i ? "cohere2" : "olmo3");
            assert_int_equal(m.sliding_window, 32);
            for (uint32_t l = 0; l < 4; l++) {
                bool is_sliding = is_list ? l % 3 == 0 : l % 2 == 0;
                uint32_t other = i ? BY_LAYER_NO_ROPE : 0;
                assert_int_equal(m.layer_flags[l], is_sliding ? BY_LAYER_SLIDING : other);
            }
        }
    }
}

/* Only the larger of the two EXAONE 4 has a window; config.json's default is one. */
TEST(a_file_without_the_key_has_no_window) {
    UNUSED_STATE;
    static const char *const archs[] = {"olmo2", "exaone4"};
    for (size_t i = 0; i < BY_COUNTOF(archs); i++) {
        struct header h;
        begin(&h, archs[i]);
        add_sizes(&h, archs[i]);
        struct by_model_info m = read_header(&h);
        assert_string_equal(m.family, archs[i]);
        assert_int_equal(m.sliding_window, 0);
        assert_int_equal(m.layer_flags[0] | m.layer_flags[3], 0);
    }
}

TEST(blocks_that_guess_further_tokens_are_no_layers) {
    UNUSED_STATE;
    struct header h;
    begin(&h, "glm4moe");
    add_sizes(&h, "glm4moe");
    add_u32(&h, "glm4moe.nextn_predict_layers", 1);
    add_u32(&h, "glm4moe.attention.key_length", 16);
    add_u32(&h, "glm4moe.expert_count", 8);
    add_u32(&h, "glm4moe.expert_used_count", 2);
    struct by_model_info m = read_header(&h);
    assert_int_equal(m.n_layers, 3);
    /* Neither a key for dense layers nor for weights that sum to 1: there are none, they do not. */
    assert_int_equal(m.layer_flags[0], BY_LAYER_MOE);
    assert_false(m.moe.norm_topk);
    assert_false(m.has_qk_norm);
}

/* ggml has one architecture for Ministral 3 and for Mistral Small 3.1 and later. */
TEST(a_ministral_is_told_apart_by_its_growing_queries) {
    UNUSED_STATE;
    for (int has_growth = 0; has_growth < 2; has_growth++) {
        struct header h;
        begin(&h, "mistral3");
        add_sizes(&h, "mistral3");
        add_str_key(&h, "mistral3.rope.scaling.type", "yarn");
        add_f32(&h, "mistral3.rope.scaling.factor", 16);
        add_u32(&h, "mistral3.rope.scaling.original_context_length", 64);
        if (has_growth) add_f32(&h, "mistral3.attention.temperature_scale", 0.5f);
        struct by_model_info m = read_header(&h);
        assert_string_equal(m.family, has_growth ? "ministral3" : "mistral");
        assert_int_equal(m.query_growth_every, has_growth ? 64 : 0);
        assert_true(m.query_growth == (has_growth ? 0.5 : 0));
        assert_true(m.rope.kind == BY_ROPE_YARN && m.rope.is_interleaved);
        assert_int_equal(m.sliding_window, 0);
    }
}

/* llama.cpp's converter writes generation_config.json there, and its server listens to it. */
TEST(what_the_authors_recommend_is_as_in_a_folder) {
    UNUSED_STATE;
    struct header h;
    begin(&h, "llama");
    add_sizes(&h, "llama");
    assert_false(read_header(&h).generation.is_given);
    begin(&h, "llama");
    add_sizes(&h, "llama");
    add_f32(&h, "general.sampling.temp", 0.5f);
    add_u32(&h, "general.sampling.top_k", 20);
    add_f32(&h, "general.sampling.penalty_repeat", 0); /* no value of it */
    add_str_key(&h, "general.sampling.min_p", "much");
    struct by_generation_info g = read_header(&h).generation;
    assert_true(g.is_given && g.temperature == 0.5 && g.top_k == 20);
    assert_true(g.top_p == 1 && g.min_p == 0 && g.repetition_penalty == 1);
}

TESTS(RUN(blocks_that_guess_further_tokens_are_no_layers), RUN(a_llama_with_experts_is_a_mixtral),
      RUN(deepseek_is_told_apart_by_its_scores_and_keeps_its_head_parts),
      RUN(granite_divides_its_logits_and_command_r_multiplies),
      RUN(a_head_without_a_key_is_its_share_of_the_hidden_size),
      RUN(windows_are_every_layers_but_each_nth_or_a_list),
      RUN(a_file_without_the_key_has_no_window),
      RUN(a_ministral_is_told_apart_by_its_growing_queries),
      RUN(falcons_architecture_follows_from_its_key_value_heads),
      RUN(what_the_authors_recommend_is_as_in_a_folder));
