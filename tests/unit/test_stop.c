#include "detokenizer/stop.h"

#include "common/base/rand.h"
#include "tests/unit/test.h"

/* Slow twin: looks through all of the text each time. */
struct found {
    size_t start, end; /* SIZE_MAX: nothing */
};

static struct found slow_find(struct by_str text, const struct by_str *strings, uint32_t n) {
    for (size_t end = 1; end <= text.n; end++) {
        struct found best = {SIZE_MAX, end};
        for (uint32_t i = 0; i < n; i++) {
            if (strings[i].n <= end && by_str_ends(by_str_sub(text, 0, end), strings[i]))
                best.start = BY_MIN(best.start, end - strings[i].n);
        }
        if (best.start != SIZE_MAX) return best;
    }
    return (struct found){SIZE_MAX, SIZE_MAX};
}

static size_t slow_held(struct by_str text, const struct by_str *strings, uint32_t n) {
    size_t held = 0;
    for (uint32_t i = 0; i < n; i++) {
        for (size_t k = 1; k < strings[i].n && k <= text.n; k++) {
            if (by_str_ends(text, by_str_sub(strings[i], 0, k))) held = BY_MAX(held, k);
        }
    }
    return held;
}

static void feed_at_random(uint64_t *seed, bool keeps_match) {
    char bytes[64], store[4][8];
    struct by_str strings[4];
    uint32_t n = 1 + by_rand_next(seed) % 4;
    for (uint32_t i = 0; i < n; i++) {
        size_t len = 1 + by_rand_next(seed) % 7;
        for (size_t k = 0; k < len; k++)
            store[i][k] = (char)('a' + by_rand_next(seed) % 2);
        strings[i] = (struct by_str){store[i], len};
    }
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)('a' + by_rand_next(seed) % 3);
    struct by_str text = {bytes, sizeof bytes};
    struct found want = slow_find(text, strings, n);
    struct stop *s = stop_new(&(struct stop_wants){.strings = strings, .n_strings = n});
    struct by_buf out;
    by_buf_init(&out, 1024);
    bool is_stopped = false;
    size_t fed = 0;
    while (fed < text.n && !is_stopped) {
        size_t any = 1 + by_rand_next(seed) % 5, len = BY_MIN(any, text.n - fed);
        is_stopped = stop_feed(s, by_str_sub(text, fed, len), keeps_match, &out);
        fed += len;
        if (is_stopped) break;
        struct by_str so_far = by_str_sub(text, 0, fed);
        assert_int_equal(stop_n_held(s), slow_held(so_far, strings, n));
        assert_int_equal(out.n, fed - stop_n_held(s));
    }
    assert_int_equal(is_stopped, want.start != SIZE_MAX);
    if (!is_stopped) assert_false(stop_finish(s, keeps_match, &out));
    size_t len = !is_stopped ? text.n : keeps_match ? want.end : want.start;
    assert_int_equal(out.n, len);
    assert_memory_equal(out.p ? out.p : "", text.p, len);
    if (is_stopped) assert_int_equal(stop_matched(s).n, want.end - want.start);
    by_buf_release(&out);
    stop_free(s);
}

TEST(random_pieces_agree_with_the_slow_twin) {
    UNUSED_STATE;
    uint64_t seed = test_seed();
    for (int round = 0; round < 20000; round++)
        feed_at_random(&seed, round % 2);
}

TEST(only_what_may_become_a_stop_is_held) {
    UNUSED_STATE;
    struct by_str strings[] = {BY_STR("\n\nUser:")};
    struct stop *s = stop_new(&(struct stop_wants){.strings = strings, .n_strings = 1});
    struct by_buf out;
    by_buf_init(&out, 1024);
    assert_false(stop_feed(s, BY_STR("Sure. \n"), false, &out));
    assert_int_equal(stop_n_held(s), 1);
    assert_false(stop_feed(s, BY_STR("\nUs"), false, &out));
    assert_int_equal(stop_n_held(s), 4);
    assert_false(stop_feed(s, BY_STR("ed it"), false, &out));
    assert_int_equal(stop_n_held(s), 0);
    assert_true(by_str_eqz(by_buf_str(&out), "Sure. \n\nUsed it"));
    assert_true(stop_feed(s, BY_STR("\n\nUser: and more"), false, &out));
    assert_true(by_str_eqz(by_buf_str(&out), "Sure. \n\nUsed it"));
    assert_true(by_str_eqz(stop_matched(s), "\n\nUser:"));
    by_buf_release(&out);
    stop_free(s);
}

TEST(no_string_to_look_for_is_no_stop) {
    UNUSED_STATE;
    struct by_str strings[] = {{"", 0}};
    assert_null(stop_new(&(struct stop_wants){.strings = strings, .n_strings = 1}));
    assert_null(stop_new(&(struct stop_wants){.n_strings = 0}));
}

TESTS(RUN(random_pieces_agree_with_the_slow_twin), RUN(only_what_may_become_a_stop_is_held),
      RUN(no_string_to_look_for_is_no_stop));
