/* A small GGUF file, whole, cut short at every byte, and with each byte changed. */
#include "common/modelfile/gguf.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/modelfile/gguf_config.h"
#include "tests/unit/test.h"

static struct by_buf whole;

static void read_seed(void) {
    struct by_err err = {0};
    by_buf_init(&whole, 1 << 20);
    if (by_file_read(&whole, TEST_VECTORS "/../fuzz/corpora/gguf/bpe", &err))
        fail_msg("%s", err.text);
}

TEST(keys_and_tensors_are_what_was_written) {
    UNUSED_STATE;
    struct by_gguf *g = NULL;
    struct by_err err = {0};
    struct by_model_info m;
    read_seed();
    if (by_gguf_parse(&g, by_buf_str(&whole), "seed", &err)) fail_msg("%s", err.text);
    assert_int_equal(by_gguf_n_tensors(g), 2);
    assert_int_equal(by_gguf_find(g, BY_STR("token_embd.weight"))->shape[0], 8);
    assert_int_equal(by_gguf_config_read(&m, g, "seed", &err), 0);
    assert_int_equal(m.hidden, 32);
    assert_int_equal(m.n_heads, 2);
    by_gguf_close(g);
    by_buf_release(&whole);
}

/* The copy ends where the file does, so a sanitizer sees a read beyond it. */
TEST(a_file_cut_anywhere_is_refused_in_words) {
    UNUSED_STATE;
    read_seed();
    for (size_t n = 0; n + 1 < whole.n; n++) {
        struct by_gguf *g = NULL;
        struct by_err err = {0};
        char *cut = by_memdup(whole.p, n);
        assert_int_not_equal(by_gguf_parse(&g, (struct by_str){cut, n}, "cut.gguf", &err), 0);
        assert_null(g);
        assert_non_null(strstr(err.text, "cut.gguf: "));
        by_free(cut);
    }
    by_buf_release(&whole);
}

TEST(a_changed_byte_is_refused_or_harmless) {
    UNUSED_STATE;
    read_seed();
    unsigned n_refused = 0;
    for (size_t i = 0; i < whole.n; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            struct by_gguf *g = NULL;
            struct by_err err = {0};
            struct by_model_info m;
            whole.p[i] ^= (char)(1 << bit);
            if (by_gguf_parse(&g, by_buf_str(&whole), "changed.gguf", &err)) {
                assert_true(err.text[0] && !g);
                n_refused++;
            } else if (by_gguf_config_read(&m, g, "changed.gguf", &err)) {
                assert_true(err.text[0]);
            }
            by_gguf_close(g);
            whole.p[i] ^= (char)(1 << bit);
        }
    }
    assert_true(n_refused > 1000);
    by_buf_release(&whole);
}

TESTS(RUN(keys_and_tensors_are_what_was_written), RUN(a_file_cut_anywhere_is_refused_in_words),
      RUN(a_changed_byte_is_refused_or_harmless));
