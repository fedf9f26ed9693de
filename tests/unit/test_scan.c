/* The hand-written scanners against the regular expressions that they stand for, and what those may cost. */
#include "common/base/buf.h"
#include "common/base/rand.h"
#include "common/base/utf8.h"
#include "common/text/regex.h"
#include "common/text/scan.h"
#include "tests/unit/test.h"

enum { STEPS_A_BYTE = 32, STEPS_BASE = 64 }; /* a half of what regex.c allows */

/* Split patterns without a scanner: DeepSeek's, Unigram's spaces. */
static const char *const others[] = {
    " {2,}",
    "[\r\n]",
    "\\s?\\p{L}+",
    "\\s?\\p{P}+",
    "[\xE4\xB8\x80-\xE9\xBE\xA5\xE0\xA0\x80-\xE4\xB8\x80\xEA\xB0\x80-\xED\x9F\xBF]+",
    "\\p{N}{1,3}",
    "[!\"#$%&'()*+,\\-./"
    ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
};

static struct by_regex *compile(const char *pattern) {
    struct by_regex *r = NULL;
    struct by_err err;
    if (by_regex_new(&r, by_str_of(pattern), &err)) fail_msg("%s", err.text);
    return r;
}

/* Of each kind that a pattern tells apart, some; those of one's neighbourhood more often. */
static size_t below(uint64_t *rand, size_t n) {
    return by_rand_next(rand) % n;
}

static uint32_t any_char(uint64_t *rand) {
    static const uint32_t often[] = {
        ' ',    ' ',    '\n',   '\r',   '\t',     '\'',  'a',    's',    't',    'r',     'e',
        'v',    'm',    'l',    'd',    'S',      'T',   'L',    'Z',    '0',    '7',     '/',
        '!',    '_',    '-',    0xA0,   0x85,     0xE9,  0x17F,  0x212A, 0x301,  0x300,   0x2028,
        0x1C5,  0x2B0,  0xAA,   0x4E2D, 0x3042,   0x661, 0xBD,   0x2160, 0x20DD, 0x903,   0x1F600,
        0x200D, 0xFE0F, 0x3000, 0xAD,   0x10FFFF, 0x130, 0x1E9E, 0x180E, 0x200B, 0x10400, 0x10428};
    if (below(rand, 8)) return often[below(rand, BY_COUNTOF(often))];
    /* assigned for long: pcre2's tables are of another year than ours */
    return (uint32_t)below(rand, 0x800);
}

static void random_text(uint64_t *rand, size_t n, struct by_buf *out) {
    by_buf_clear(out);
    for (size_t i = 0; i < n;) {
        uint32_t cp = any_char(rand);
        size_t times = below(rand, 4) ? 1 : 1 + below(rand, 4);
        for (size_t k = 0; k < times && i < n; k++, i++) {
            char c[4];
            by_buf_add(out, c, by_utf8_encode(cp, c));
        }
    }
}

/* The next piece is what the pattern finds there. */
static void same_pieces(const struct by_uni *u, const struct by_scan *s, struct by_regex *twin,
                        struct by_str text) {
    struct by_err err;
    by_regex_begin(twin);
    for (size_t at = 0, start = 0, end = 0; at < text.n; at = end) {
        int rc = by_regex_find(twin, text, at, &start, &end, &err);
        if (rc < 0) fail_msg("%s: %s", s->name, err.text);
        size_t n = s->fn(u, text.p + at, text.n - at);
        if (rc && start == at && end == at + n) continue;
        fail_msg("%s: '%.*s' at %zu: pattern %zu to %zu, scanner %zu", s->name, (int)text.n, text.p,
                 at, start, end, at + n);
    }
}

TEST(a_scanner_cuts_as_its_pattern_does) {
    UNUSED_STATE;
    uint64_t rand = test_seed();
    struct by_uni *u = by_uni_new();
    struct by_buf text;
    by_buf_init(&text, 1 << 16);
    for (size_t i = 0; by_scan_at(i); i++) {
        struct by_regex *twin = compile(by_scan_at(i)->pattern);
        for (int k = 0; k < 20000; k++) {
            random_text(&rand, 1 + below(&rand, 24), &text);
            same_pieces(u, by_scan_at(i), twin, by_buf_str(&text));
        }
        by_regex_free(twin);
    }
    by_buf_release(&text);
    by_uni_free(u);
}

/* SmolLM's two steps in one: each number by itself, GPT-2's pattern between them. */
TEST(a_scanner_of_two_steps_cuts_as_both_do) {
    UNUSED_STATE;
    uint64_t rand = test_seed();
    struct by_uni *u = by_uni_new();
    struct by_regex *gpt2 = compile(by_scan_at(0)->pattern), *number = compile("\\p{N}");
    struct by_buf text;
    struct by_err err;
    by_buf_init(&text, 1 << 16);
    for (int k = 0; k < 20000; k++) {
        random_text(&rand, 1 + below(&rand, 24), &text);
        struct by_str whole = by_buf_str(&text);
        by_regex_begin(gpt2);
        by_regex_begin(number);
        for (size_t at = 0, start, end; at < whole.n; at = end) {
            if (by_regex_find(number, whole, at, &start, &end, &err) != 1) start = end = whole.n;
            for (size_t from, to; at < start; at = to) {
                assert_int_equal(
                    by_regex_find(gpt2, by_str_sub(whole, 0, start), at, &from, &to, &err), 1);
                assert_int_equal(by_scan_digits_gpt2(u, whole.p + at, whole.n - at), to - from);
            }
            if (end > start)
                assert_int_equal(by_scan_digits_gpt2(u, whole.p + at, whole.n - at), end - start);
        }
    }
    by_buf_release(&text);
    by_regex_free(number);
    by_regex_free(gpt2);
    by_uni_free(u);
}

/* Cuts [from, to) of the text as the Splits from `step` on do, and holds the scanner against each piece. */
static void cut_as_steps(const struct by_uni *u, struct by_regex **step, size_t n_steps,
                         struct by_str text, size_t from, size_t to) {
    struct by_err err;
    if (!n_steps) {
        if (from < to)
            assert_int_equal(by_scan_deepseek_v3(u, text.p + from, text.n - from), to - from);
        return;
    }
    for (size_t at = from, start, end; at < to; at = end) {
        struct by_str part = by_str_sub(text, from, to - from);
        if (by_regex_find(*step, part, at - from, &start, &end, &err) != 1) start = end = part.n;
        start += from;
        end += from;
        cut_as_steps(u, step + 1, n_steps - 1, text, at, start);
        cut_as_steps(u, step + 1, n_steps - 1, text, start, end);
    }
}

TEST(a_scanner_of_three_steps_cuts_as_all_do) {
    UNUSED_STATE;
    uint64_t rand = test_seed();
    struct by_uni *u = by_uni_new();
    struct by_regex *steps[3];
    struct by_buf text;
    by_buf_init(&text, 1 << 16);
    for (size_t i = 0; i < 3; i++)
        steps[i] = compile(by_scan_deepseek_v3_steps[i]);
    for (int k = 0; k < 20000; k++) {
        random_text(&rand, 1 + below(&rand, 24), &text);
        for (size_t i = 0; i < 3; i++)
            by_regex_begin(steps[i]);
        cut_as_steps(u, steps, 3, by_buf_str(&text), 0, text.n);
    }
    for (size_t i = 0; i < 3; i++)
        by_regex_free(steps[i]);
    by_buf_release(&text);
    by_uni_free(u);
}

/* ---- what a search may cost ---- */

/* Steps for all matches in the text, or the code of the refusal. */
static int64_t steps_of(struct by_regex *r, struct by_str text) {
    struct by_err err;
    int rc = 1;
    by_regex_begin(r);
    for (size_t at = 0, start, end; rc > 0 && at <= text.n; at = end + (end == start))
        rc = by_regex_find(r, text, at, &start, &end, &err);
    return rc < 0 ? rc : (int64_t)by_regex_steps(r);
}

static void is_cheap(const char *pattern, struct by_str text) {
    struct by_regex *r = compile(pattern);
    int64_t steps = steps_of(r, text);
    if (steps < 0 || steps > (int64_t)(STEPS_BASE + STEPS_A_BYTE * text.n))
        fail_msg("%s: %lld steps for %zu bytes '%.20s'…", pattern, (long long)steps, text.n,
                 text.p);
    by_regex_free(r);
}

static void are_cheap(const char *unit, size_t n) {
    struct by_buf text;
    by_buf_init(&text, n + 16);
    while (text.n < n)
        by_buf_addz(&text, unit);
    for (size_t k = 0; by_scan_at(k); k++)
        is_cheap(by_scan_at(k)->pattern, by_buf_str(&text));
    for (size_t k = 0; k < BY_COUNTOF(others); k++)
        is_cheap(others[k], by_buf_str(&text));
    by_buf_release(&text);
}

/* Of one thing all along, most of which no match ends for long: half of the allowance is never used. */
TEST(known_patterns_are_far_from_the_limit) {
    UNUSED_STATE;
    static const char *const units[] = {"\n", "!",  "1",   "\xE4\xB8\xAD", "\xCC\x81",
                                        "aB", " a", "' s", "\t\n  "};
    for (size_t i = 0; i < BY_COUNTOF(units); i++)
        are_cheap(units[i], 256 << 10);
    are_cheap("a", 5 << 20);
    are_cheap(" ", 5 << 20);
}

/* Jais 2's blanks: a look at 512 was charged for every step of the pattern, and 400 bytes of prose were refused. */
TEST(a_count_is_charged_where_it_stands) {
    UNUSED_STATE;
    struct by_buf text;
    by_buf_init(&text, 1 << 18);
    while (text.n < 200 * 1000)
        by_buf_addz(&text, "and so on, 1 2  3 -\n");
    is_cheap(
        "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+"
        "|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)"
        "|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}",
        by_buf_str(&text));
    by_buf_release(&text);
}

/* What a search may take grows with what it has come to, so a bomb at the start of a long text is as short as in a short one. */
TEST(a_bomb_before_a_long_text_is_refused_as_soon) {
    UNUSED_STATE;
    struct by_buf text;
    by_buf_init(&text, 8 << 20);
    by_buf_addz(&text, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac");
    while (text.n < 5 << 20)
        by_buf_addz(&text, " and so on");
    struct by_regex *r = compile("(a+)+$");
    assert_int_equal(steps_of(r, by_buf_str(&text)), BY_ELIMIT);
    assert_true(by_regex_steps(r) < 210 * 1000);
    by_regex_free(r);
    by_buf_release(&text);
}

/* A budget that grows with the text alone gave one word of 5 MB six seconds. */
TEST(a_bomb_on_a_long_word_costs_what_a_text_may_cost_at_most) {
    UNUSED_STATE;
    struct by_buf text;
    by_buf_init(&text, 8 << 20);
    while (text.n < 5 << 20)
        by_buf_addz(&text, "abcdefghijklmnop");
    struct by_regex *r = compile("\\w+[0-9]");
    assert_int_equal(steps_of(r, by_buf_str(&text)), BY_ELIMIT);
    assert_true(by_regex_steps(r) < 80 * 1000 * 1000);
    by_regex_free(r);
    by_buf_release(&text);
}

/* Exponential, cubic and square ones; those that pcre2's own limit does not see, as it counts each start by itself and no character
 * of a run: \\w+[0-9] took six seconds for 20,000 letters. */
TEST(a_bomb_is_refused) {
    UNUSED_STATE;
    static const char *const bombs[] = {"(a+)+$",     "(a+)+\\z",    "(a*)*[bd]",     "a+[bd]",
                                        "\\w+[0-9]",  "a*a*a*[bd]",  "(.*)*[bd]",     "\\s+$|a+d",
                                        "(a|a)*[bd]", "a{9999}[bd]", "(?<=a)(a|aa)+$"};
    struct by_buf text;
    by_buf_init(&text, 1 << 16);
    for (int i = 0; i < 20000; i++)
        by_buf_addc(&text, 'a');
    by_buf_addc(&text, 'c');
    for (size_t i = 0; i < BY_COUNTOF(bombs); i++) {
        struct by_regex *r = compile(bombs[i]);
        if (steps_of(r, by_buf_str(&text)) != BY_ELIMIT) fail_msg("%s is not refused", bombs[i]);
        assert_true(by_regex_steps(r) < 2 * 1000 * 1000);
        assert_true(steps_of(r, BY_STR("aac")) >= 0); /* and works on */
        by_regex_free(r);
    }
    by_buf_release(&text);
}

TESTS(RUN(a_scanner_cuts_as_its_pattern_does), RUN(a_scanner_of_two_steps_cuts_as_both_do),
      RUN(a_scanner_of_three_steps_cuts_as_all_do), RUN(known_patterns_are_far_from_the_limit),
      RUN(a_count_is_charged_where_it_stands), RUN(a_bomb_before_a_long_text_is_refused_as_soon),
      RUN(a_bomb_is_refused), RUN(a_bomb_on_a_long_word_costs_what_a_text_may_cost_at_most));
