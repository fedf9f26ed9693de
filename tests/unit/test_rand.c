#include "common/base/rand.h"

#include "tests/unit/test.h"

/* Known answers of Philox4x32-10 as published with Random123 (kat_vectors). */
TEST(philox_gives_the_published_numbers) {
    UNUSED_STATE;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < BY_COUNTOF(known); i++) {
        uint32_t out[4];
        by_philox(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

TEST(words_are_spread_and_depend_on_position_and_sample) {
    UNUSED_STATE;
    unsigned high[16] = {0}, low[16] = {0};
    for (uint32_t i = 0; i < 16000; i++) {
        uint64_t r = by_rand_word(42, i, 0, 0);
        high[r >> 60]++;
        low[r & 15]++;
    }
    for (int i = 0; i < 16; i++) {
        assert_in_range(high[i], 850, 1150);
        assert_in_range(low[i], 850, 1150);
    }
    assert_true(by_rand_word(42, 7, 0, 0) == by_rand_word(42, 7, 0, 0));
    assert_true(by_rand_word(42, 7, 0, 0) != by_rand_word(42, 7, 1, 0));
}

TESTS(RUN(philox_gives_the_published_numbers),
      RUN(words_are_spread_and_depend_on_position_and_sample));
