/* stop_regex beside Python's re: rows.jsonl was written by it (tests/vectors/stop_regex). */
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/rand.h"
#include "common/text/pattern.h"
#include "detokenizer/stop.h"
#include "tests/unit/test.h"

struct row {
    struct by_str pattern, text;
    int64_t start, end; /* characters; -1: no match */
    const struct by_json *held;
};

static const struct by_json_limits limits = {.bytes_max = 1 << 20, .depth_max = 8};

static struct by_json *read_row(struct row *r, struct by_str line) {
    struct by_json *j = NULL;
    struct by_err err;
    if (by_json_parse(&j, line, &limits, &err)) fail_msg("%s", err.text);
    r->pattern = by_json_str(by_json_get(j, "pattern"));
    r->text = by_json_str(by_json_get(j, "text"));
    assert_true(by_json_to_i64(by_json_get(j, "start"), &r->start));
    assert_true(by_json_to_i64(by_json_get(j, "end"), &r->end));
    r->held = by_json_get(j, "held");
    return j;
}

/* The byte at which a character begins. */
static size_t byte_of(struct by_str text, size_t n_chars) {
    size_t i = 0;
    for (; n_chars; n_chars--) {
        do
            i++;
        while (i < text.n && ((unsigned char)text.p[i] & 0xC0) == 0x80);
    }
    return i;
}

static size_t char_len(struct by_str text, size_t at) {
    return byte_of(by_str_sub(text, at, text.n), 1);
}

/* Feeds the row's text in random pieces of whole characters. */
static void run_row(const struct row *r, uint64_t *seed, bool keeps_match) {
    struct stop *s = stop_new(&(struct stop_wants){.regexes = &r->pattern, .n_regexes = 1});
    if (!s) fail_msg("refused: " BY_STR_FMT, BY_STR_ARG(r->pattern));
    struct by_buf out;
    bool is_stopped = false;
    by_buf_init(&out, 1024);
    for (size_t at = 0, n = 0; at < r->text.n && !is_stopped;) {
        size_t from = at;
        do {
            at += char_len(r->text, at);
            n++;
        } while (at < r->text.n && by_rand_next(seed) % 3);
        is_stopped = stop_feed(s, by_str_sub(r->text, from, at - from), keeps_match, &out);
        if (is_stopped || by_json_type(r->held) != BY_JSON_ARRAY) continue;
        int64_t held = -1;
        const struct by_json *it = by_json_first(r->held);
        for (size_t k = 1; it && k < n; k++)
            it = by_json_next(it);
        if (!it) continue;
        assert_true(by_json_to_i64(it, &held));
        size_t want = at - byte_of(r->text, n - (size_t)held);
        if (stop_n_held(s) > want)
            fail_msg("'" BY_STR_FMT "' on '" BY_STR_FMT
                     "': %zu bytes held after %zu characters, more than %zu",
                     BY_STR_ARG(r->pattern), BY_STR_ARG(r->text), stop_n_held(s), n, want);
    }
    if (!is_stopped) is_stopped = stop_finish(s, keeps_match, &out);
    size_t want =
        r->start < 0 ? r->text.n : byte_of(r->text, (size_t)(keeps_match ? r->end : r->start));
    if (is_stopped != (r->start >= 0) || out.n != want)
        fail_msg("'" BY_STR_FMT "' on '" BY_STR_FMT "': %zu bytes came out, not %zu (stopped: %d)",
                 BY_STR_ARG(r->pattern), BY_STR_ARG(r->text), out.n, want, is_stopped);
    assert_memory_equal(out.p ? out.p : "", r->text.p, want);
    if (is_stopped) assert_true(by_str_eq(stop_matched(s), r->pattern));
    by_buf_release(&out);
    stop_free(s);
}

TEST(random_pieces_agree_with_pythons_re) {
    UNUSED_STATE;
    struct by_buf file;
    struct by_err err;
    struct row r;
    uint64_t seed = test_seed();
    size_t n = 0;
    by_buf_init(&file, 8 << 20);
    if (by_file_read(&file, TEST_VECTORS "/stop_regex/rows.jsonl", &err)) fail_msg("%s", err.text);
    struct by_str rest = by_buf_str(&file), line;
    while (rest.n) {
        by_str_split(&rest, '\n', &line);
        struct by_json *j = read_row(&r, line);
        for (int k = 0; k < 4; k++)
            run_row(&r, &seed, k % 2);
        by_json_free(j);
        n++;
    }
    assert_int_equal(n, 1500);
    by_buf_release(&file);
}

static void refuse(const char *pattern, const char *why) {
    struct by_pattern *p = NULL;
    struct by_err err = {0};
    if (!by_pattern_new(&p, by_str_of(pattern), &err)) fail_msg("taken: %s", pattern);
    if (!strstr(err.text, why)) fail_msg("%s: '%s' does not say '%s'", pattern, err.text, why);
}

TEST(what_an_automaton_cannot_do_is_refused_by_name) {
    UNUSED_STATE;
    refuse("(a)\\1", "back reference");
    refuse("a(?=b)", "look-around");
    refuse("(?<!a)b", "look-around");
    refuse("(?P=n)", "back reference");
    refuse("(?>a)", "atomic");
    refuse("a++", "possessive");
    refuse("end$", "\\Z");
    refuse("a*", "no character");
    refuse("\\b", "no character");
    refuse("", "no character");
    refuse("((((a{100}){100}){100}){100})", "too large");
    refuse("(((((|){1000}){1000}){1000}){1000}){1000}x", "too large");
    refuse("[\\w-\\d", "without its end");
    refuse("(a", "without its end");
    refuse("a)", "without its (");
    refuse("*a", "nothing to repeat");
    refuse("\xFF", "not UTF-8");
    refuse("a\\", "backslash at the end");
}

TEST(a_bomb_takes_one_step_a_character) {
    UNUSED_STATE;
    struct by_str pattern = BY_STR("(?:(?:a|aa)+)+b|(?:x?){30}x{30}y|[ac]{0,400}z");
    struct stop *s = stop_new(&(struct stop_wants){.regexes = &pattern, .n_regexes = 1});
    struct by_buf out;
    by_buf_init(&out, 1 << 20);
    assert_non_null(s);
    for (int i = 0; i < 20000; i++)
        assert_false(stop_feed(s, i % 100 == 99 ? BY_STR("c") : BY_STR("a"), false, &out));
    assert_true(stop_n_held(s) <= 400);
    assert_false(stop_finish(s, false, &out));
    assert_int_equal(out.n, 20000);
    by_buf_release(&out);
    stop_free(s);
}

TEST(an_endless_match_is_given_up_and_its_text_let_go) {
    UNUSED_STATE;
    struct by_str pattern = BY_STR("<(?s:.)*>|stop");
    struct stop *s = stop_new(&(struct stop_wants){.regexes = &pattern, .n_regexes = 1});
    struct by_buf out;
    by_buf_init(&out, 1 << 20);
    assert_false(stop_feed(s, BY_STR("<"), false, &out));
    for (int i = 0; i < BY_PATTERN_MATCH_MAX / 8 + 100; i++)
        assert_false(stop_feed(s, BY_STR("abcdefgh"), false, &out));
    assert_true(stop_n_held(s) <= BY_PATTERN_MATCH_MAX);
    assert_true(out.n > 0);
    assert_true(stop_feed(s, BY_STR(" stop"), false, &out));
    assert_true(by_str_ends(by_buf_str(&out), BY_STR("h ")));
    by_buf_release(&out);
    stop_free(s);
}

TEST(strings_and_patterns_together_the_first_end_wins) {
    UNUSED_STATE;
    struct by_str string = BY_STR("xyz"), pattern = BY_STR("[a-y]+!");
    struct stop_wants w = {.strings = &string, .n_strings = 1, .regexes = &pattern, .n_regexes = 1};
    struct stop *s = stop_new(&w);
    struct by_buf out;
    by_buf_init(&out, 1024);
    assert_false(stop_feed(s, BY_STR("1 xy"), false, &out));
    assert_true(by_str_eqz(by_buf_str(&out), "1 "));
    assert_true(stop_feed(s, BY_STR("z!"), false, &out));
    assert_true(by_str_eqz(by_buf_str(&out), "1 "));
    assert_true(by_str_eqz(stop_matched(s), "xyz"));
    by_buf_release(&out);
    stop_free(s);
}

TESTS(RUN(random_pieces_agree_with_pythons_re), RUN(what_an_automaton_cannot_do_is_refused_by_name),
      RUN(a_bomb_takes_one_step_a_character), RUN(an_endless_match_is_given_up_and_its_text_let_go),
      RUN(strings_and_patterns_together_the_first_end_wins));
