#include "scheduler/states.h"
#include "common/base/rand.h"
#include "tests/unit/test.h"

TEST(numbers_go_round_and_the_least_recently_used_goes_first) {
    UNUSED_STATE;
    struct states *st = states_new(3);
    struct states_run run = {0};
    uint32_t a = states_take(st), b = states_take(st), c = states_take(st);
    assert_int_equal(states_take(st), STATES_NONE); /* all are being kept */
    states_file(st, a, &run, 4, false);
    states_file(st, b, &run, 2, false);
    states_give(st, c);
    assert_int_equal(states_take(st), c); /* a free one before any that is filed */
    states_use(st, a);
    assert_int_equal(states_take(st), b);
    assert_int_equal(states_end(&run, 9), 4);
    assert_int_equal(states_end(&run, 3), 0);
    assert_true(states_check(st));
    states_free(st);
}

TEST(a_second_state_behind_the_same_page_is_given_back) {
    UNUSED_STATE;
    struct states *st = states_new(2);
    struct states_run run = {0};
    uint32_t a = states_take(st), b = states_take(st);
    states_file(st, a, &run, 4, false);
    uint64_t before = states_stamp(st, a);
    states_file(st, b, &run, 4, false);
    assert_int_equal(states_behind(st, &run, 4), a);
    assert_int_not_equal(states_stamp(st, a),
                         before); /* a use: nobody may move it along any more */
    assert_int_equal(states_stamp(st, b), 0);
    assert_int_equal(states_n_filed(st), 1);
    assert_int_equal(states_n_taken(st), 0);
    assert_int_equal(states_take(st), b);
    states_free(st);
}

TEST(a_chat_s_states_go_last_up_to_a_quarter_of_all) {
    UNUSED_STATE;
    enum { SOME = 8 };
    struct states *st = states_new(SOME);
    struct states_run run = {0};
    uint32_t number[SOME];
    for (uint32_t i = 0; i < SOME; i++) {
        number[i] = states_take(st);
        states_file(st, number[i], &run, 1 + i, i < 3);
        assert_true(states_check(st));
    }
    /* The first of three is one too many: it counts as used when the third came. */
    for (uint32_t i = 0; i < SOME; i++) {
        static const uint32_t order[SOME] = {0, 3, 4, 5, 6, 7, 1, 2};
        assert_int_equal(states_take(st), number[order[i]]);
        assert_true(states_check(st));
    }
    states_free(st);
}

TEST(what_was_passed_on_goes_next_unless_it_is_used_again) {
    UNUSED_STATE;
    struct states *st = states_new(4);
    struct states_run run = {0};
    uint32_t number[4];
    for (uint32_t i = 0; i < 4; i++) {
        number[i] = states_take(st);
        states_file(st, number[i], &run, 1 + i, i == 2);
    }
    uint64_t stamp = states_use(st, number[3]);
    assert_int_equal(stamp, states_stamp(st, number[3]));
    assert_int_equal(states_use(st, number[3]), 0); /* not the first time */
    states_pass_on(st, number[2]);
    states_pass_on(st, number[1]);
    assert_true(states_use(st, number[1]) > stamp);
    assert_true(states_check(st));
    assert_int_equal(states_take(st), number[2]);
    assert_int_equal(states_take(st), number[0]);
    assert_int_equal(states_take(st), number[3]);
    states_free(st);
}

enum { N = 12, PAGES = 40 };

/* The slow twin: which number stands behind each page of one long run. */
TEST(runs_are_cut_and_split_as_a_list_of_pages) {
    UNUSED_STATE;
    uint64_t z = test_seed();
    struct states *st = states_new(N);
    struct states_run run[2] = {{0}};
    uint32_t twin[2][PAGES + 1], n_pages[2] = {PAGES, 0};
    memset(twin, 0xFF, sizeof twin);
    for (uint32_t turn = 0; turn < 20000; turn++) {
        uint32_t i = n_pages[1] ? (uint32_t)(by_rand_next(&z) % 2) : 0,
                 what = by_rand_next(&z) % 16;
        uint32_t at = 1 + (uint32_t)(by_rand_next(&z) % BY_MAX(n_pages[i], 1u));
        if (what < 10 && at <= n_pages[i]) {
            uint32_t number = states_take(st);
            for (uint32_t k = 0; k < 2 * (PAGES + 1); k++) /* it may have been filed */
                if (twin[k / (PAGES + 1)][k % (PAGES + 1)] == number)
                    twin[k / (PAGES + 1)][k % (PAGES + 1)] = UINT32_MAX;
            states_file(st, number, &run[i], at, by_rand_next(&z) % 4 == 0);
            if (twin[i][at] == UINT32_MAX) twin[i][at] = number;
        } else if (what < 13) {
            states_cut(st, &run[i], at);
            for (uint32_t k = at + 1; k <= PAGES; k++)
                twin[i][k] = UINT32_MAX;
        } else if (n_pages[1] == 0 && at < n_pages[0]) { /* the first `at` become run 1 */
            states_split(&run[0], &run[1], at);
            memcpy(twin[1], twin[0], (at + 1) * sizeof **twin);
            memmove(twin[0] + 1, twin[0] + 1 + at, (PAGES - at) * sizeof **twin);
            memset(twin[0] + 1 + PAGES - at, 0xFF, at * sizeof **twin);
            n_pages[1] = at;
            n_pages[0] -= at;
        } else if (n_pages[1]) { /* all anew */
            states_cut(st, &run[0], 0);
            states_cut(st, &run[1], 0);
            memset(twin, 0xFF, sizeof twin);
            n_pages[0] = PAGES;
            n_pages[1] = 0;
        }
        uint32_t n = 0;
        assert_true(states_check(st));
        for (uint32_t k = 0; k < 2; k++) {
            uint32_t end = 0;
            assert_true(states_run_check(&run[k], n_pages[k], &n));
            for (uint32_t p = 1; p <= n_pages[k]; p++) {
                assert_int_equal(states_behind(st, &run[k], p), twin[k][p]);
                if (twin[k][p] != UINT32_MAX) end = p;
                assert_int_equal(states_end(&run[k], p), end);
            }
        }
        assert_int_equal(n, states_n_filed(st));
    }
    states_free(st);
}

TESTS(RUN(numbers_go_round_and_the_least_recently_used_goes_first),
      RUN(a_second_state_behind_the_same_page_is_given_back),
      RUN(a_chat_s_states_go_last_up_to_a_quarter_of_all),
      RUN(what_was_passed_on_goes_next_unless_it_is_used_again),
      RUN(runs_are_cut_and_split_as_a_list_of_pages));
