/* Every tiny model of the shared data, every file cut short: what is read is what the config says, and nothing crashes. */
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/modelfile/hf_config.h"
#include "common/modelfile/model_dir.h"

#include <dirent.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "tests/unit/test.h"

#define TINY TEST_SHARED_DATA "/tiny/"

static struct by_model_dir *open_model(const char *path) {
    struct by_model_dir *d = NULL;
    struct by_err err = {0};
    if (by_model_dir_open(&d, path, &err)) fail_msg("%s", err.text);
    return d;
}

TEST(sizes_and_tensors_of_a_llama_folder) {
    UNUSED_STATE;
    struct by_model_dir *d = open_model(TINY "llama-gqa");
    const struct by_model_info *m = by_model_dir_info(d);
    assert_string_equal(m->family, "llama");
    assert_string_equal(m->architecture, "LlamaForCausalLM");
    assert_int_equal(m->hidden, 64);
    assert_int_equal(m->n_heads, 4);
    assert_int_equal(m->n_kv_heads, 2);
    assert_int_equal(m->head_dim, 16);
    assert_int_equal(m->vocab, 640);
    assert_false(m->is_tied);
    const struct by_tensor_info *t = by_model_dir_find(d, "model.embed_tokens.weight");
    assert_non_null(t);
    assert_int_equal(t->shape[0], 640);
    assert_int_equal(t->shape[1], 64);
    by_model_dir_close(d);
}

TEST(shards_hold_the_same_tensors_as_one_file) {
    UNUSED_STATE;
    struct by_model_dir *one = open_model(TINY "llama-gqa"),
                        *many = open_model(TINY "llama-gqa-sharded");
    assert_int_equal(by_model_dir_n_tensors(one), by_model_dir_n_tensors(many));
    for (size_t i = 0; i < by_model_dir_n_tensors(one); i++) {
        const struct by_tensor_info *a = by_model_dir_tensor(one, i);
        char *name = by_strndup(a->name.p, a->name.n);
        const struct by_tensor_info *b = by_model_dir_find(many, name);
        assert_non_null(b);
        assert_int_equal(a->n_bytes, b->n_bytes);
        by_free(name);
    }
    by_model_dir_close(one);
    by_model_dir_close(many);
}

/* config.json as the hub has it and as transformers 5 writes it describe the same model. */
TEST(both_styles_of_config_say_the_same) {
    UNUSED_STATE;
    unsigned n = 0;
    DIR *dir = opendir(TINY);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char a[512], b[512];
        struct by_json *old = NULL, *new = NULL;
        struct by_model_info x, y;
        struct by_err err = {0};
        snprintf(a, sizeof a, TINY "%.100s/config.json", e->d_name);
        snprintf(b, sizeof b, TINY "%.100s/config.transformers5.json", e->d_name);
        if (!by_file_exists(b)) continue;
        assert_int_equal(by_hf_config_load(&old, a, &err), 0);
        assert_int_equal(by_hf_config_load(&new, b, &err), 0);
        if (by_hf_config_read(&x, old, a, &err) || by_hf_config_read(&y, new, b, &err))
            fail_msg("%s", err.text);
        if (memcmp(&x.rope, &y.rope, sizeof x.rope))
            fail_msg("%s: rope differs between the two styles", e->d_name);
        if (memcmp(x.layer_flags, y.layer_flags, sizeof x.layer_flags))
            fail_msg("%s: layers differ", e->d_name);
        assert_int_equal(x.is_tied, y.is_tied);
        assert_int_equal(x.sliding_window, y.sliding_window);
        assert_true(x.attn_scale == y.attn_scale && x.norm_eps == y.norm_eps);
        by_json_free(old);
        by_json_free(new);
        n++;
    }
    closedir(dir);
    assert_true(n > 25);
}

TEST(a_gguf_file_and_its_folder_describe_one_model) {
    UNUSED_STATE;
    struct by_model_dir *hf = open_model(TINY "llama-gqa");
    unsigned n = 0;
    DIR *dir = opendir(TINY "llama-gqa-gguf");
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char path[512];
        if (!strstr(e->d_name, ".gguf")) continue;
        snprintf(path, sizeof path, TINY "llama-gqa-gguf/%.100s", e->d_name);
        struct by_model_dir *d = open_model(path);
        const struct by_model_info *a = by_model_dir_info(hf), *b = by_model_dir_info(d);
        assert_int_equal(by_model_dir_kind(d), BY_MODEL_GGUF);
        assert_string_equal(b->family, "llama");
        assert_int_equal(a->n_layers, b->n_layers);
        assert_int_equal(a->hidden, b->hidden);
        assert_int_equal(a->ffn, b->ffn);
        assert_int_equal(a->n_kv_heads, b->n_kv_heads);
        assert_int_equal(a->vocab, b->vocab);
        assert_int_equal(a->is_tied, b->is_tied);
        assert_true(a->rope.theta == b->rope.theta && a->rope.n_rot == b->rope.n_rot);
        assert_true(b->rope.is_interleaved && !a->rope.is_interleaved);
        by_model_dir_close(d);
        n++;
    }
    closedir(dir);
    by_model_dir_close(hf);
    assert_true(n >= 4);
}

/* The header, byte by byte: the file is mapped to its end, so a sanitizer sees a read beyond it. */
TEST(a_gguf_cut_anywhere_in_its_header_is_refused) {
    UNUSED_STATE;
    struct by_buf whole;
    struct by_err err = {0};
    by_buf_init(&whole, 1 << 24);
    assert_int_equal(by_file_read(&whole, TINY "llama-gqa-gguf/llama-gqa-Q8_0.gguf", &err), 0);
    struct by_gguf *g = NULL;
    assert_int_equal(by_gguf_parse(&g, by_buf_str(&whole), "whole", &err), 0);
    size_t header = (size_t)(by_gguf_tensor(g, 0)->data - (const uint8_t *)whole.p);
    by_gguf_close(g);
    for (size_t n = 0; n < header; n++) {
        char *cut = malloc(n ? n : 1);
        memcpy(cut, whole.p, n);
        g = NULL;
        assert_int_not_equal(by_gguf_parse(&g, (struct by_str){cut, n}, "cut", &err), 0);
        assert_null(g);
        free(cut);
    }
    by_buf_release(&whole);
}

TEST(a_missing_path_is_named) {
    UNUSED_STATE;
    struct by_model_dir *d = NULL;
    struct by_err err = {0};
    assert_int_equal(by_model_dir_open(&d, "/nowhere/model", &err), BY_ENOTFOUND);
    assert_non_null(strstr(err.text, "/nowhere/model"));
    assert_int_equal(by_model_dir_open(&d, TINY "gpt2-bin", &err), BY_ENOTFOUND);
    assert_non_null(strstr(err.text, "pickle"));
}

TEST(a_folder_with_a_tokenizer_alone_opens_for_text) {
    UNUSED_STATE;
    struct by_model_dir *d = NULL;
    struct by_err err = {0};
    assert_int_equal(by_model_dir_open_text(&d, TEST_SHARED_DATA "/tokenizers/gpt2", &err), 0);
    assert_int_equal(by_model_dir_kind(d), BY_MODEL_TEXT);
    assert_null(by_model_dir_info(d));
    assert_true(by_model_dir_has(d, "tokenizer.json"));
    by_model_dir_close(d);
}

TESTS(RUN(sizes_and_tensors_of_a_llama_folder), RUN(shards_hold_the_same_tensors_as_one_file),
      RUN(both_styles_of_config_say_the_same), RUN(a_gguf_file_and_its_folder_describe_one_model),
      RUN(a_gguf_cut_anywhere_in_its_header_is_refused), RUN(a_missing_path_is_named),
      RUN(a_folder_with_a_tokenizer_alone_opens_for_text));
