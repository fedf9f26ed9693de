/* Folders whose weights contradict their config, or hold what is no number: refused with names and numbers. */
#include "gpu_worker/models/matrix.h"
#include "gpu_worker/models/model.h"

#include "tests/models/naive_backend.h"
#include "tests/models/st_writer.h"

#define CONFIG \
    "\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":" \
    "1,\"num_attention_heads\":2," \
    "\"num_key_value_heads\":1,\"vocab_size\":40,\"max_position_embeddings\":64"

/* Of two values for a key the first one counts: what a test says comes before CONFIG. */

/* What is done to the one tensor whose name ends so. */
struct harm {
    const char *name;
    enum { HARM_NONE, HARM_LOST, HARM_NAN, HARM_INFINITE, HARM_WIDER, HARM_TYPE } what;
};

static void add(struct st_writer *w, const struct harm *h, const char *name, uint64_t rows,
                uint64_t cols) {
    bool is_hit = h->what != HARM_NONE && strcmp(name, h->name) == 0;
    if (is_hit && h->what == HARM_LOST) return;
    if (is_hit && h->what == HARM_WIDER) cols += 32;
    enum by_dtype t = is_hit && h->what == HARM_TYPE ? BY_DTYPE_I16 : BY_DTYPE_F32;
    void *data = st_add(w, name, t, rows, cols);
    if (t != BY_DTYPE_F32) return;
    float *p = data;
    for (uint64_t i = 0; i < (rows ? rows : 1) * cols; i++)
        p[i] = (float)(i % 13) / 13 - 0.4f;
    if (is_hit && h->what == HARM_NAN) p[cols / 2] = NAN;
    if (is_hit && h->what == HARM_INFINITE) p[cols / 2] = INFINITY;
}

static int open_model(const struct harm *h, const char *config_first, struct by_err *err) {
    char dir[] = "/tmp/banyan-weights-XXXXXX", config[1024];
    struct st_writer *w = by_alloc(sizeof *w);
    struct by_model_dir *d = NULL;
    struct model *m = NULL;
    assert_non_null(mkdtemp(dir));
    st_begin(w);
    add(w, h, "model.embed_tokens.weight", 40, 32);
    add(w, h, "model.norm.weight", 0, 32);
    add(w, h, "lm_head.weight", 40, 32);
    add(w, h, "model.layers.0.input_layernorm.weight", 0, 32);
    add(w, h, "model.layers.0.self_attn.q_proj.weight", 32, 32);
    add(w, h, "model.layers.0.self_attn.k_proj.weight", 16, 32);
    add(w, h, "model.layers.0.self_attn.v_proj.weight", 16, 32);
    add(w, h, "model.layers.0.self_attn.o_proj.weight", 32, 32);
    add(w, h, "model.layers.0.post_attention_layernorm.weight", 0, 32);
    add(w, h, "model.layers.0.mlp.gate_proj.weight", 64, 32);
    add(w, h, "model.layers.0.mlp.up_proj.weight", 64, 32);
    add(w, h, "model.layers.0.mlp.down_proj.weight", 32, 64);
    snprintf(config, sizeof config, "{%s%s%s}", config_first, *config_first ? "," : "", CONFIG);
    st_end(w, dir, config);
    by_free(w);
    *err = (struct by_err){0};
    int rc = by_model_dir_open(&d, dir, err);
    const struct model_options o = {.page_size = 16, .rows_max = 16, .logit_rows_max = 4};
    if (!rc) rc = model_open(&m, d, naive_backend(), &o, err);
    model_close(m);
    by_model_dir_close(d);
    by_dir_remove(dir);
    return rc;
}

static void refused(const struct harm *h, const char *config_first, const char *says,
                    const char *and_says) {
    struct by_err err;
    if (open_model(h, config_first, &err) == 0) fail_msg("%s was taken", h->name);
    if (!strstr(err.text, says) || !strstr(err.text, and_says))
        fail_msg("'%s' says neither '%s' nor '%s'", err.text, says, and_says);
}

static const struct harm none = {.name = ""};

TEST(a_sound_folder_opens) {
    UNUSED_STATE;
    struct by_err err;
    if (open_model(&none, "", &err)) fail_msg("%s", err.text);
}

TEST(numbers_that_are_none_are_refused_by_name) {
    UNUSED_STATE;
    static const char *const names[] = {"model.embed_tokens.weight", "model.norm.weight",
                                        "model.layers.0.self_attn.v_proj.weight",
                                        "model.layers.0.mlp.up_proj.weight"};
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        refused(&(struct harm){names[i], HARM_NAN}, "", names[i], "not finite");
        refused(&(struct harm){names[i], HARM_INFINITE}, "", names[i], "not finite");
    }
}

/* What is looked at, a block's scales, tells of all its numbers. */
TEST(blocks_are_finite_when_their_numbers_are) {
    UNUSED_STATE;
    enum { BLOCKS = 3000, BYTES = 256 };
    uint32_t x = 7, n_bad = 0;
    for (int t = 0; t < BY_DTYPE_F8_32; t++) { /* those of GGUF */
        const uint32_t n = by_dtype_block_len((enum by_dtype)t),
                       bytes = by_dtype_block_bytes((enum by_dtype)t);
        for (uint32_t k = 0; k < BLOCKS && by_dtype_is_quantised((enum by_dtype)t); k++) {
            uint8_t block[BYTES];
            float v[BY_QK_K];
            bool is_finite = true;
            for (uint32_t i = 0; i < bytes; i++) {
                x = x * 1664525u + 1013904223u;
                block[i] = (uint8_t)(x >> 24);
                if (k % 8 == 0) block[i] |= 0x78; /* more often near the largest exponent */
            }
            by_dtype_to_f32((enum by_dtype)t, block, v, n);
            for (uint32_t i = 0; i < n; i++)
                is_finite = is_finite && isfinite(v[i]);
            n_bad += !is_finite;
            if (t == BY_DTYPE_MXFP4) is_finite = block[0] <= 252; /* some larger ones would be */
            if (matrix_row_is_finite((enum by_dtype)t, block, bytes) != is_finite)
                fail_msg("%s, block %u: finite: %d", by_dtype_name((enum by_dtype)t), k, is_finite);
        }
    }
    assert_in_range(n_bad, 1000, 20000);
}

TEST(shapes_that_contradict_the_config_are_refused_with_both) {
    UNUSED_STATE;
    refused(&(struct harm){"model.layers.0.mlp.down_proj.weight", HARM_WIDER}, "",
            "mlp.down_proj.weight has the shape [32, 96]", "[32, 64]");
    refused(&(struct harm){"model.norm.weight", HARM_WIDER}, "",
            "model.norm.weight has the shape [64]", "[32]");
    refused(&none, "\"head_dim\":64", "self_attn.q_proj.weight has the shape [32, 32]",
            "[128, 32]");
}

TEST(a_missing_tensor_is_named) {
    UNUSED_STATE;
    refused(&(struct harm){"model.layers.0.self_attn.k_proj.weight", HARM_LOST}, "",
            "model.layers.0.self_attn.k_proj.weight", "no tensor");
    refused(&(struct harm){"lm_head.weight", HARM_LOST}, "", "lm_head.weight", "tie");
    refused(&none, "\"attention_bias\":true", "self_attn.q_proj.bias", "no tensor");
}

TEST(a_type_without_a_reading_is_named) {
    UNUSED_STATE;
    refused(&(struct harm){"model.layers.0.self_attn.q_proj.weight", HARM_TYPE}, "",
            "self_attn.q_proj.weight", "I16");
}

TEST(sizes_out_of_reason_are_refused) {
    UNUSED_STATE;
    refused(&none, "\"head_dim\":1048576", "1048576", "head size");
    refused(&none, "\"model_type\":\"mixtral\",\"num_local_experts\":5,\"num_experts_per_tok\":9",
            "9 of 5 experts", "");
    refused(&none, "\"num_hidden_layers\":0", "number of layers is 0", "1 to");
    refused(&none, "\"num_key_value_heads\":3", "2 attention heads", "3 key-value heads");
}

TEST(a_tied_model_without_its_embedding_is_refused) {
    UNUSED_STATE;
    struct by_err err;
    refused(&(struct harm){"model.embed_tokens.weight", HARM_LOST}, "\"tie_word_embeddings\":true",
            "embed_tokens.weight", "no tensor");
    if (open_model(&(struct harm){"lm_head.weight", HARM_LOST}, "\"tie_word_embeddings\":true",
                   &err))
        fail_msg("a tied model needs no lm_head: %s", err.text);
}

TEST(experts_that_do_not_divide_are_refused_with_the_numbers) {
    UNUSED_STATE;
    static const char groups[] =
        "\"model_type\":\"deepseek_v3\",\"kv_lora_rank\":16,\"qk_rope_head_dim\":8,"
        "\"qk_nope_head_dim\":8,\"v_head_dim\":16,\"moe_intermediate_size\":32,"
        "\"n_routed_experts\":10,\"num_experts_per_tok\":2,\"n_group\":4,\"topk_group\":2";
    refused(&none, groups, "10 experts do not divide into 4 groups", "2 are used");
    refused(&none, "\"model_type\":\"mixtral\",\"num_local_experts\":4,\"num_experts_per_tok\":2",
            "block_sparse_moe", "no tensor");
}

TESTS(RUN(a_sound_folder_opens), RUN(numbers_that_are_none_are_refused_by_name),
      RUN(blocks_are_finite_when_their_numbers_are),
      RUN(shapes_that_contradict_the_config_are_refused_with_both), RUN(a_missing_tensor_is_named),
      RUN(a_type_without_a_reading_is_named), RUN(sizes_out_of_reason_are_refused),
      RUN(a_tied_model_without_its_embedding_is_refused),
      RUN(experts_that_do_not_divide_are_refused_with_the_numbers));
