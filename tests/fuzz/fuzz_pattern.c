/* Any bytes as a stop pattern, and behind a newline the text: refused in words, or the same match in pieces of any size. */
#include "common/base/check.h"
#include "common/base/utf8.h"
#include "common/text/pattern.h"
#include "tests/fuzz/fuzz.h"

struct found {
    bool is_match;
    uint64_t start, end, held;
};

static struct found search(struct by_pattern *p, struct by_str text) {
    struct found f = {0};
    for (size_t i = 0, len; i < text.n; i += len) {
        uint32_t cp = by_utf8_decode(text.p + i, text.n - i, &len);
        f.is_match = by_pattern_step(p, cp, len, &f.start, &f.end);
        if (f.is_match) return f;
        by_assert(by_pattern_n_held(p) <= i + len && by_pattern_n_held(p) <= BY_PATTERN_MATCH_MAX);
    }
    f.held = by_pattern_n_held(p);
    f.is_match = by_pattern_finish(p, &f.start, &f.end);
    return f;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct by_str rest = fuzz_bytes(data, size), pattern;
    struct by_pattern *a = NULL, *b = NULL;
    struct by_err err = {0};
    by_str_split(&rest, '\n', &pattern);
    rest = by_str_sub(rest, 0, 4096);
    if (by_pattern_new(&a, pattern, &err)) {
        by_assert(err.text[0] && !a);
        return 0;
    }
    by_assert(!by_pattern_new(&b, pattern, &err));
    struct found x = search(a, rest), y = search(b, rest);
    by_assert(x.is_match == y.is_match && x.held == y.held);
    if (x.is_match)
        by_assert(x.start == y.start && x.end == y.end && x.start < x.end && x.end <= rest.n);
    by_pattern_free(b);
    by_pattern_free(a);
    return 0;
}
