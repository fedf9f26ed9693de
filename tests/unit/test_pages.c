#include "scheduler/pages.h"

#include "common/base/rand.h"
#include "tests/unit/test.h"

enum { PAGES = 64, STEPS = 20000 };

TEST(all_or_nothing) {
    UNUSED_STATE;
    struct pages *p = pages_new(4);
    uint32_t out[5];
    assert_true(pages_take(p, 3, out));
    assert_false(pages_take(p, 2, out));
    assert_int_equal(pages_n_free(p), 1);
    assert_true(pages_take(p, 1, out + 3));
    pages_give(p, out, 4);
    assert_int_equal(pages_n_free(p), 4);
    assert_true(pages_check(p));
    pages_free(p);
}

/* The twin: a plain array of reference counts. */
TEST(matches_a_set_of_counts) {
    UNUSED_STATE;
    uint64_t seed = test_seed();
    struct pages *p = pages_new(PAGES);
    uint32_t refs[PAGES] = {0};
    for (int step = 0; step < STEPS; step++) {
        uint32_t n_used = 0, used[PAGES];
        for (uint32_t i = 0; i < PAGES; i++) {
            if (refs[i]) used[n_used++] = i;
        }
        uint32_t out[PAGES], n = (uint32_t)(by_rand_next(&seed) % 8);
        switch (by_rand_next(&seed) % 4) {
        case 0:
        case 1:
            if (!pages_take(p, n, out)) {
                assert_true(n > PAGES - n_used);
                break;
            }
            for (uint32_t i = 0; i < n; i++) {
                assert_int_equal(refs[out[i]], 0);
                refs[out[i]] = 1;
            }
            break;
        case 2:
            if (n_used == 0) break;
            out[0] = used[by_rand_next(&seed) % n_used];
            pages_share(p, out, 1);
            refs[out[0]]++;
            break;
        default:
            if (n_used == 0) break;
            out[0] = used[by_rand_next(&seed) % n_used];
            pages_give(p, out, 1);
            refs[out[0]]--;
        }
        assert_true(pages_check(p));
        for (uint32_t i = 0; i < PAGES; i++)
            assert_int_equal(pages_refs(p, i), refs[i]);
    }
    pages_free(p);
}

TESTS(RUN(all_or_nothing), RUN(matches_a_set_of_counts));
