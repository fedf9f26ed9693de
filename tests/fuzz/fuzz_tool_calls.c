/* Any text as a model's answer, the first byte says in which form: for splits of it what the shorter gives begins what the longer
 * gives, and arguments are JSON. */
#include "common/base/check.h"
#include "common/base/json.h"
#include "common/base/utf8.h"
#include "router/parse_reasoning.h"
#include "router/parse_tools.h"
#include "tests/fuzz/fuzz.h"

enum { TEXT_MAX = 256, SPLITS = 2, STRIDE_MAX = 64 };

static void check_begins(const struct parse_tools_result *a, const struct parse_tools_result *b) {
    by_assert(by_str_starts(by_buf_str(&b->content), by_buf_str(&a->content)));
    by_assert(a->n_calls <= b->n_calls);
    for (size_t i = 0; i < a->n_calls; i++) {
        by_assert(by_str_eq(a->calls[i].name, b->calls[i].name));
        by_assert(by_str_eq(a->calls[i].arguments, b->calls[i].arguments));
    }
}

/* JSON, but for what by_json_parse alone refuses: an escaped NUL in a key, and 1e999. */
static void check_arguments(const struct parse_tools_result *r) {
    const struct by_json_limits lim = {.bytes_max = 1 << 24, .depth_max = 256};
    for (size_t i = 0; i < r->n_calls; i++) {
        struct by_json *j = NULL;
        struct by_err err = {0};
        struct by_str text = r->calls[i].arguments;
        if (by_json_parse(&j, text, &lim, &err))
            by_assert(strstr(err.text, "\\u0000 is not allowed in a key") ||
                      strstr(err.text, "a number out of range"));
        by_json_free(j);
    }
}

static void check_reasoning(enum parse_reasoning kind, struct by_str s) {
    struct parse_reasoning_parts steps = {0}, was = {0};
    for (size_t n = 0; n <= s.n + 1; n++) {
        struct parse_reasoning_parts now = {0};
        parse_reasoning_split(kind, by_str_sub(s, 0, n), n > s.n, &now);
        parse_reasoning_split(kind, by_str_sub(s, 0, n), n > s.n, &steps);
        by_assert(by_str_eq(now.reasoning, steps.reasoning));
        by_assert(by_str_eq(now.content, steps.content));
        by_assert(by_str_starts(now.reasoning, was.reasoning));
        by_assert(by_str_starts(now.content, was.content));
        was = now;
    }
}

/* In pieces of `stride` bytes, the first of `first`: the same in the end as at once. */
static void check_pieces(enum parse_tools kind, struct by_str s, size_t first, size_t stride,
                         const struct parse_tools_result *whole) {
    struct parse_tools_result steps;
    parse_tools_init(&steps, NULL);
    for (size_t n = first; n < s.n; n += stride)
        parse_tools_advance(kind, by_str_sub(s, 0, n), false, &steps);
    parse_tools_advance(kind, s, true, &steps);
    check_begins(whole, &steps);
    check_begins(&steps, whole);
    parse_tools_release(&steps);
}

/* Some places of the text, by its own bytes: all of them in each execution would cost the square of its length. */
static void check_splits(enum parse_tools kind, struct by_str s, uint32_t seed,
                         const struct parse_tools_result *whole) {
    for (int i = 0; i < SPLITS; i++) {
        seed = seed * 1664525 + 1013904223;
        check_pieces(kind, s, (seed >> 8) % s.n, s.n, whole);
    }
    check_pieces(kind, s, (seed >> 16) % STRIDE_MAX, 1 + (seed >> 24) % STRIDE_MAX, whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    enum parse_tools kind = data[0] % PARSE_TOOLS_N;
    size_t n = by_utf8_clean_len((const char *)data + 1, BY_MIN(size - 1, (size_t)TEXT_MAX));
    struct by_str s = {(const char *)data + 1, n};
    uint32_t seed = (uint32_t)by_str_hash(s);
    size_t stride = 1 + seed % STRIDE_MAX;
    struct parse_tools_result was, now, steps;
    parse_tools_init(&steps, NULL);
    parse_tools_init(&was, NULL);
    for (n = 0; n <= s.n + 1; n = BY_MAX(BY_MIN(n + stride, s.n + 1), n + 1)) {
        parse_tools_read(kind, NULL, by_str_sub(s, 0, n), n > s.n, &now);
        check_begins(&was, &now);
        parse_tools_advance(kind, by_str_sub(s, 0, n), n > s.n, &steps);
        check_begins(&now, &steps);
        check_begins(&steps, &now);
        parse_tools_release(&was);
        was = now;
    }
    check_arguments(&was);
    if (s.n) check_splits(kind, s, seed, &was);
    parse_tools_release(&was);
    parse_tools_release(&steps);
    check_reasoning(data[0] % PARSE_REASONING_N, s);
    return 0;
}
