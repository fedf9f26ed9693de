#include "common/base/utf8.h"

#include "common/base/rand.h"
#include "tests/unit/test.h"

/* Slow twin: a character is valid iff encoding its value gives the same bytes. */
static bool slow_is_char(const char *p, size_t n, size_t *len) {
    for (uint32_t cp = 0; cp < 0x110000; cp += cp == 0xD7FF ? 0x801 : 1) {
        char out[4];
        size_t k = by_utf8_encode(cp, out);
        if (k <= n && memcmp(p, out, k) == 0) {
            *len = k;
            return true;
        }
        if (cp == 0x7FF && (unsigned char)p[0] < 0xC2) return false; /* no longer form starts so */
    }
    return false;
}

TEST(every_character_survives_a_round_trip) {
    UNUSED_STATE;
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        if (cp >= 0xD800 && cp < 0xE000) continue;
        char out[4];
        size_t n = by_utf8_encode(cp, out), len;
        assert_int_equal(by_utf8_decode(out, n, &len), cp);
        assert_int_equal(len, n);
        if (n > 1) {
            assert_int_equal(by_utf8_clean_len(out, n - 1), 0);
            assert_false(by_utf8_valid(out, n - 1));
        }
    }
}

TEST(random_bytes_agree_with_the_slow_twin) {
    UNUSED_STATE;
    uint64_t seed = test_seed();
    for (int round = 0; round < 60; round++) {
        uint64_t bits = by_rand_next(&seed);
        char p[4];
        memcpy(p, &bits, 4);
        if (round % 2) p[0] = (char)(0xC0 | (p[0] & 0x3F)), p[1] = (char)(0x80 | (p[1] & 0x3F));
        size_t len, slow_len = 0;
        bool is_good = by_utf8_decode(p, 4, &len) != BY_UTF8_BAD;
        assert_int_equal(is_good, slow_is_char(p, 4, &slow_len));
        if (is_good) assert_int_equal(len, slow_len);
    }
}

TEST(forbidden_forms_are_refused) {
    UNUSED_STATE;
    static const char *const forms[] = {
        "\xC0\x80",         "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "\x80",         "\xFF"};
    for (size_t i = 0; i < BY_COUNTOF(forms); i++) {
        size_t len;
        assert_int_equal(by_utf8_decode(forms[i], strlen(forms[i]), &len), BY_UTF8_BAD);
        assert_int_equal(len, 1);
    }
}

TEST(a_cut_tail_is_held_back_and_a_broken_one_is_not) {
    UNUSED_STATE;
    assert_int_equal(by_utf8_clean_len("ab\xE2\x82", 4), 2);
    assert_int_equal(by_utf8_clean_len("ab\xE2\x82\xAC", 5), 5);
    assert_int_equal(by_utf8_clean_len("ab\xE2\x41", 4), 4);
    assert_int_equal(by_utf8_clean_len("ab\xFF", 3), 3);
    assert_int_equal(by_utf8_count("a\xE2\x82z", 4), 3);
}

TESTS(RUN(every_character_survives_a_round_trip), RUN(random_bytes_agree_with_the_slow_twin),
      RUN(forbidden_forms_are_refused), RUN(a_cut_tail_is_held_back_and_a_broken_one_is_not));
