#include "common/base/buf.h"

#include "common/base/arena.h"
#include "common/base/mem.h"
#include "common/base/rand.h"
#include <float.h>
#include <math.h>

#include "tests/unit/test.h"

TEST(a_full_buffer_stays_as_it_was) {
    UNUSED_STATE;
    struct by_buf b;
    by_buf_init(&b, 8);
    by_buf_addz(&b, "12345678");
    assert_false(b.is_full);
    by_buf_addc(&b, '9');
    assert_true(b.is_full);
    assert_string_equal(b.p, "12345678");
    by_buf_clear(&b);
    by_buf_addf(&b, "%d", 42);
    assert_string_equal(b.p, "42");
    by_buf_release(&b);
}

TEST(json_strings_are_escaped) {
    UNUSED_STATE;
    struct by_buf b;
    by_buf_init(&b, 1024);
    by_buf_add_json_str(&b, BY_STR("a\"\\\n\x01\x7f\xC3\xA9\xFFz"));
    assert_string_equal(b.p, "\"a\\\"\\\\\\n\\u0001\x7f\xC3\xA9\xEF\xBF\xBDz\"");
    by_buf_release(&b);
}

TEST(json_numbers_are_shortest_and_exact) {
    UNUSED_STATE;
    uint64_t seed = test_seed();
    struct by_buf b;
    by_buf_init(&b, 1024);
    for (int i = 0; i < 2000; i++) {
        uint64_t bits = by_rand_next(&seed);
        double v, back = 0;
        memcpy(&v, &bits, 8);
        if (!(v - v == 0)) continue; /* NaN and infinities */
        by_buf_clear(&b);
        by_buf_add_json_f64(&b, v);
        assert_true(by_str_to_f64(by_buf_str(&b), &back));
        assert_true(back == v);
    }
    by_buf_clear(&b);
    by_buf_add_json_f64(&b, 0.1);
    by_buf_addc(&b, ' ');
    by_buf_add_json_f64(&b, -3);
    assert_string_equal(b.p, "0.1 -3");
    by_buf_release(&b);
}

/* A double's digits, and a search for the fewest, took 10 us a log probability: a million of them held the router for ten seconds. */
TEST(json_floats_are_shortest_and_exact) {
    UNUSED_STATE;
    static const struct {
        float v;
        const char *text;
    } rows[] = {{0, "0"},
                {-0.0f, "0"},
                {0.1f, "0.1"},
                {-124.5f, "-124.5"},
                {1, "1"},
                {16777216, "16777216"},
                {0.3f, "0.3"},
                {9.9999998e-6f, "1e-05"},
                {1e-5f, "1e-05"},
                {3.4e38f, "3.4e+38"},
                {99999992, "99999992"},
                {-16.803755f, "-16.803755"},
                {100, "100"},
                {0.00123f, "0.00123"},
                {1e-45f, "1.4013e-45"},
                {NAN, "null"},
                {-INFINITY, "null"},
                {99999999, "1e+08"}};
    uint64_t seed = test_seed();
    struct by_buf b;
    char longest[400];
    by_buf_init(&b, 1024);
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        by_buf_clear(&b);
        by_buf_add_json_f32(&b, rows[i].v);
        assert_string_equal(b.p, rows[i].text);
    }
    for (uint32_t i = 0; i < 400000; i++) {
        uint32_t bits = (uint32_t)by_rand_next(&seed);
        float v;
        if (i % 2) bits = (bits & 0x80ffffff) | (100 + i % 60) << 24 >> 1; /* of common sizes */
        memcpy(&v, &bits, 4);
        if (!(v - v == 0)) continue; /* NaN and infinities */
        by_buf_clear(&b);
        by_buf_add_json_f32(&b, v);
        if (strtof(b.p, NULL) != v) fail_msg("%s is not %.9g", b.p, (double)v);
        int digits = FLT_DIG;
        do
            snprintf(longest, sizeof longest, "%.*g", digits++, (double)v);
        while (strtof(longest, NULL) != v);
        size_t n_exp =
            strcspn(longest, "e") == strlen(longest) ? 0 : 16; /* 1e+08 is 100000000 too */
        if (b.n > strlen(longest) + n_exp) fail_msg("%s could be %s", b.p, longest);
    }
    by_buf_release(&b);
}

TEST(take_and_drop_keep_the_bytes) {
    UNUSED_STATE;
    struct by_buf b;
    size_t n;
    by_buf_init(&b, 100);
    by_buf_addz(&b, "hello world");
    by_buf_drop_front(&b, 6);
    char *p = by_buf_take(&b, &n);
    assert_string_equal(p, "world");
    assert_int_equal(n, 5);
    assert_int_equal(b.n, 0);
    by_free(p);
}

TEST(an_arena_gives_zeroed_aligned_memory_under_its_ceiling) {
    UNUSED_STATE;
    struct by_arena a;
    by_arena_init(&a, 100000);
    for (size_t i = 1; i < 200; i++) {
        char *p = by_arena_get(&a, i);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t k = 0; k < i; k++)
            assert_int_equal(p[k], 0);
        memset(p, 0xAA, i);
    }
    assert_null(by_arena_try(&a, 100001));
    by_arena_clear(&a); /* now in one block, what took two */
    uint64_t before = by_mem_n_allocs();
    for (int i = 0; i < 200; i++)
        memset(by_arena_get(&a, 100), 1, 100);
    by_arena_clear(&a);
    for (int i = 0; i < 200; i++)
        memset(by_arena_get(&a, 100), 1, 100);
    assert_int_equal(by_mem_n_allocs(), before);
    by_arena_release(&a);
}

TEST(strict_numbers_take_all_or_nothing) {
    UNUSED_STATE;
    int64_t i;
    uint64_t u;
    double d;
    assert_true(by_str_to_i64(BY_STR("-9223372036854775808"), &i));
    assert_true(i == INT64_MIN);
    assert_false(by_str_to_i64(BY_STR("9223372036854775808"), &i));
    assert_true(by_str_to_u64(BY_STR("18446744073709551615"), &u));
    assert_false(by_str_to_u64(BY_STR("18446744073709551616"), &u));
    assert_false(by_str_to_u64(BY_STR(" 1"), &u));
    uint32_t h;
    assert_true(by_str_hex(BY_STR("x00fFg"), 1, 4, &h) && h == 255);
    assert_true(by_str_hex(BY_STR("ffffffff"), 0, 8, &h) && h == UINT32_MAX);
    assert_false(by_str_hex(BY_STR("x00fFg"), 2, 4, &h));
    assert_false(by_str_hex(BY_STR("00f"), 0, 4, &h));
    assert_false(by_str_hex(BY_STR("00f"), SIZE_MAX, 1, &h));
    assert_false(by_str_hex(BY_STR("000000000"), 0, 9, &h));
    assert_false(by_str_to_f64(BY_STR("1x"), &d));
    assert_false(by_str_to_f64(BY_STR("inf"), &d));
    assert_false(by_str_to_f64(BY_STR("1e999"), &d));
}

TESTS(RUN(a_full_buffer_stays_as_it_was), RUN(json_strings_are_escaped),
      RUN(json_numbers_are_shortest_and_exact), RUN(json_floats_are_shortest_and_exact),
      RUN(take_and_drop_keep_the_bytes),
      RUN(an_arena_gives_zeroed_aligned_memory_under_its_ceiling),
      RUN(strict_numbers_take_all_or_nothing));
