#include "common/base/json.h"

#include "tests/unit/test.h"

static const struct by_json_limits limits = {
    .bytes_max = 1 << 20, .depth_max = 64, .refuse_duplicates = true};

static int parse(const char *text, struct by_json **out, struct by_err *err) {
    return by_json_parse(out, by_str_of(text), &limits, err);
}

TEST(good_text_comes_back_the_same) {
    UNUSED_STATE;
    static const char *const texts[] = {
        "null",
        "true",
        "-0.5",
        "1e-07",
        "[]",
        "{}",
        "[[],{},[1,2,3]]",
        "\"\\u00e9\\ud83d\\ude00\"",
        "{\"a\":{\"b\":[true,false,null,\"\\\"\\\\\\n\"]},\"c\":12345678901}",
    };
    for (size_t i = 0; i < BY_COUNTOF(texts); i++) {
        struct by_err err;
        struct by_json *j, *again;
        struct by_buf a, b;
        by_buf_init(&a, 1 << 16);
        by_buf_init(&b, 1 << 16);
        assert_int_equal(parse(texts[i], &j, &err), 0);
        by_json_print(j, &a);
        assert_int_equal(parse(a.p, &again, &err), 0);
        by_json_print(again, &b);
        assert_string_equal(a.p, b.p);
        by_json_free(j);
        by_json_free(again);
        by_buf_release(&a);
        by_buf_release(&b);
    }
}

/* It ended strings, and a prompt that held one was refused: data/tokenizers has such a text. */
TEST(a_string_may_hold_a_nul) {
    UNUSED_STATE;
    struct by_json *j;
    struct by_err err;
    struct by_buf out;
    by_buf_init(&out, 1 << 16);
    const char *text =
        "[\"\\u0000\",\"a\\u0000\\u0000b\",{\"k\":\"\\\\u0000\"},\"\",\"\\u00e9\\u0000\"]";
    assert_int_equal(parse(text, &j, &err), 0);
    const struct by_json *it = by_json_first(j);
    assert_true(by_str_eq(by_json_str(it), (struct by_str){"\0", 1}));
    it = by_json_next(it);
    assert_true(by_str_eq(by_json_str(it), (struct by_str){"a\0\0b", 4}));
    it = by_json_next(it);
    assert_true(by_str_eqz(by_json_str(by_json_get(it, "k")), "\\u0000"));
    it = by_json_next(it);
    assert_int_equal(by_json_str(it).n, 0);
    by_json_print(j, &out);
    assert_string_equal(
        out.p, "[\"\\u0000\",\"a\\u0000\\u0000b\",{\"k\":\"\\\\u0000\"},\"\",\"é\\u0000\"]");
    by_json_free(j);
    by_buf_release(&out);
    assert_int_not_equal(parse("{\"a\\u0000\":1}", &j, &err), 0);
    assert_non_null(strstr(err.text, "key"));
}

TEST(bad_text_is_refused) {
    UNUSED_STATE;
    static const char *const texts[] = {
        "",
        " ",
        "{",
        "[",
        "[1,]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "1e999",
        "nul",
        "truex",
        "\"",
        "\"\n\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "[1] 2",
        "{\"a\":1,\"a\":2}",
        "\"\xC3\"",
        "\xEF\xBB\xBF{}",
        "NaN",
        "[1 2]",
        "{\"a\":1 \"b\":2}",
        "]",
    };
    for (size_t i = 0; i < BY_COUNTOF(texts); i++) {
        struct by_err err = {0};
        struct by_json *j;
        if (parse(texts[i], &j, &err) == 0) fail_msg("this was taken: %s", texts[i]);
        assert_null(j);
        assert_true(strlen(err.text) > 0);
    }
}

TEST(depth_and_size_have_ceilings) {
    UNUSED_STATE;
    struct by_buf b;
    struct by_err err;
    struct by_json *j;
    by_buf_init(&b, 4 << 20);
    for (int i = 0; i < 1000000; i++)
        by_buf_addc(&b, '[');
    assert_int_equal(by_json_parse(&j, by_buf_str(&b), &limits, &err), BY_ELIMIT);
    by_buf_clear(&b);
    for (int i = 0; i < 64; i++)
        by_buf_addc(&b, '[');
    for (int i = 0; i < 64; i++)
        by_buf_addc(&b, ']');
    assert_int_equal(by_json_parse(&j, by_buf_str(&b), &limits, &err), 0);
    by_json_free(j);
    by_buf_clear(&b);
    while (b.n <= limits.bytes_max)
        by_buf_addc(&b, ' ');
    assert_int_equal(by_json_parse(&j, by_buf_str(&b), &limits, &err), BY_ETOOBIG);
    by_buf_release(&b);
}

TEST(every_truncation_is_refused) {
    UNUSED_STATE;
    static const char text[] = "{\"a\":[1,2.5e3,\"x\\u00e9\",{\"b\":null}],\"c\":true}";
    for (size_t n = 0; n + 1 < sizeof text - 1; n++) {
        struct by_json *j;
        assert_int_not_equal(by_json_parse(&j, (struct by_str){text, n}, &limits, NULL), 0);
    }
}

TEST(getters_name_the_path) {
    UNUSED_STATE;
    struct by_err err;
    struct by_json *j;
    double d = 7;
    int64_t i = 7;
    assert_int_equal(parse("{\"top_p\":\"x\",\"n\":1.5,\"k\":null,\"big\":10}", &j, &err), 0);
    assert_int_equal(by_json_get_f64(j, "sampling_params", "top_p", 0, 1, &d, &err), BY_EINVAL);
    assert_string_equal(err.text, "sampling_params.top_p: expected a number, got a string");
    assert_int_equal(by_json_get_i64(j, "", "n", 0, 9, &i, &err), BY_EINVAL);
    assert_int_equal(by_json_get_i64(j, "", "big", 0, 9, &i, &err), BY_EINVAL);
    assert_non_null(strstr(err.text, "from 0 to 9"));
    assert_int_equal(by_json_get_i64(j, "", "k", 0, 9, &i, &err), 0);
    assert_int_equal(by_json_get_i64(j, "", "missing", 0, 9, &i, &err), 0);
    assert_int_equal(i, 7);
    by_json_free(j);
}

/* A body of ten million numbers once held a router for 2.7 s, one of four million keys as long. */
TEST(values_and_members_have_ceilings) {
    UNUSED_STATE;
    const struct by_json_limits few = {
        .bytes_max = 1 << 20, .depth_max = 8, .values_max = 6, .members_max = 3};
    static const struct {
        const char *text;
        int rc;
    } cases[] = {
        {"[1,2,3,4,5]", 0},
        {"[1,2,3,4,5,6]", BY_ELIMIT},
        {"[[],[],{},[],[]]", 0},
        {"[[],[],{},[],[],[]]", BY_ELIMIT},
        {"{\"a\":{\"b\":[1,2,3]}}", 0},
        {"{\"a\":{\"b\":[1,2,3,4]}}", BY_ELIMIT},
        {"{\"a\":1,\"b\":2,\"c\":3}", 0},
        {"{\"a\":1,\"b\":2,\"c\":3,\"d\":4}", BY_ELIMIT},
        {"{\"a\":{\"a\":1,\"b\":2,\"c\":3},\"b\":2}", 0},
    };
    for (size_t i = 0; i < BY_COUNTOF(cases); i++) {
        struct by_json *j = NULL;
        assert_int_equal(by_json_parse(&j, by_str_of(cases[i].text), &few, NULL), cases[i].rc);
        by_json_free(j);
    }
}

TEST(numbers_out_of_range_are_refused_whichever_way_they_are_written) {
    UNUSED_STATE;
    char digits[400];
    struct by_json *j;
    struct by_err err;
    memset(digits, '9', sizeof digits - 1);
    digits[sizeof digits - 1] = '\0';
    assert_int_equal(parse(digits, &j, &err), BY_EFORMAT);
    assert_int_equal(parse("1e309", &j, &err), BY_EFORMAT);
    digits[299] = '\0';
    assert_int_equal(parse(digits, &j, &err), 0);
    assert_true(by_json_f64(j) > 1e298);
    by_json_free(j);
}

TESTS(RUN(good_text_comes_back_the_same), RUN(a_string_may_hold_a_nul), RUN(bad_text_is_refused),
      RUN(depth_and_size_have_ceilings), RUN(every_truncation_is_refused),
      RUN(getters_name_the_path), RUN(values_and_members_have_ceilings),
      RUN(numbers_out_of_range_are_refused_whichever_way_they_are_written));
