/* Texts that make a tokenizer quadratic somewhere: with any of these quadratic, the test would not end within its time limit. */
#include "common/base/file.h"
#include "common/text/stream_decode.h"
#include "tests/unit/test.h"

static const char *const names[] = {"tiny-bbpe-gpt2", "tiny-bbpe-llama3", "tiny-bbpe-qwen2",
                                    "tiny-spm-gemma", "tiny-spm-llama",   "tiny-unigram",
                                    "tiny-wordpiece"};

static struct by_tokenizer *open_tiny(const char *name) {
    struct by_tokenizer *t = NULL;
    struct by_buf file;
    struct by_err err;
    char path[512];
    by_buf_init(&file, 1 << 20);
    snprintf(path, sizeof path, TEST_VECTORS "/tokenizers/%s/tokenizer.json", name);
    if (by_file_read(&file, path, &err)) fail_msg("%s", err.text);
    if (by_tokenizer_parse(&t, by_buf_str(&file), name, &err)) fail_msg("%s", err.text);
    by_buf_release(&file);
    return t;
}

/* Encodes, decodes at once and in a stream. */
static void run(struct by_tokenizer *t, struct by_str text) {
    struct by_encode_options o = {.allow_special = true};
    struct by_decode_options d = {0};
    struct by_stream_decode s;
    struct by_ids ids;
    struct by_buf whole, parts;
    struct by_err err;
    by_ids_init(&ids, 1 << 24);
    by_buf_init(&whole, 64 << 20);
    by_buf_init(&parts, 64 << 20);
    if (by_tokenizer_encode(t, text, &o, &ids, &err)) fail_msg("%s", err.text);
    by_tokenizer_decode(t, ids.p, ids.n, &d, &whole);
    by_stream_decode_init(&s, t, &d);
    for (size_t i = 0; i < ids.n; i++)
        by_stream_decode_push(&s, ids.p[i], &parts);
    by_stream_decode_finish(&s, &parts);
    assert_true(!whole.is_full && !parts.is_full);
    assert_true(by_str_eq(by_buf_str(&whole), by_buf_str(&parts)));
    by_stream_decode_release(&s);
    by_buf_release(&parts);
    by_buf_release(&whole);
    by_ids_release(&ids);
}

static void run_all(const char *unit, size_t times) {
    struct by_buf text;
    by_buf_init(&text, 64 << 20);
    for (size_t i = 0; i < times; i++)
        by_buf_addz(&text, unit);
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        struct by_tokenizer *t = open_tiny(names[i]);
        run(t, by_buf_str(&text));
        by_tokenizer_close(t);
    }
    by_buf_release(&text);
}

TEST(a_megabyte_without_a_space) {
    UNUSED_STATE;
    run_all("abcdefghijklmnop", (1 << 20) / 16);
    run_all("a", 1 << 20);
}

TEST(a_hundred_thousand_marks_on_one_letter) {
    UNUSED_STATE;
    run_all("\xCC\x81\xCC\xA3", 50000); /* acute, dot below: put in order by the normal forms */
}

TEST(a_megabyte_of_spaces_and_lines) {
    UNUSED_STATE;
    run_all("        \n", (1 << 20) / 9);
    run_all(" ", 1 << 20);
}

TEST(a_megabyte_of_characters_that_no_piece_has) {
    UNUSED_STATE;
    run_all("\xF0\x9F\xA6\x80\xE2\x80\x8D", (1 << 20) / 7);
}

TEST(ten_megabytes_of_words) {
    UNUSED_STATE;
    struct by_buf text;
    by_buf_init(&text, 64 << 20);
    while (text.n < 10 << 20)
        by_buf_addz(&text, "The quick brown fox isn't 12345 lazy dogs; <s> na\xC3\xAFve "
                           "\xE6\x97\xA5\xE6\x9C\xAC.\n");
    struct by_tokenizer *t = open_tiny("tiny-bbpe-llama3");
    run(t, by_buf_str(&text));
    by_tokenizer_close(t);
    by_buf_release(&text);
}

TESTS(RUN(a_megabyte_without_a_space), RUN(a_hundred_thousand_marks_on_one_letter),
      RUN(a_megabyte_of_spaces_and_lines), RUN(a_megabyte_of_characters_that_no_piece_has),
      RUN(ten_megabytes_of_words));
