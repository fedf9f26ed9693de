/* Ranks as processes: sums and gathers are the same bits everywhere, and nobody waits for the dead. */
#include "gpu_worker/tp.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/base/rand.h"
#include "tests/unit/test.h"

enum { CALLS = 300, N_MAX = 70000, BIG = (1 << 18) * 3 + 5 };

/* Rank r of the test; rank 0 is this process. true: all calls gave what they should. */
typedef bool rank_fn(struct tp *tp);

static bool run(uint32_t world, rank_fn *fn) {
    struct by_err err;
    struct tp *tp;
    pid_t pids[TP_RANKS_MAX];
    assert_int_equal(tp_open(&tp, world, 5000, &err), 0);
    for (uint32_t r = 1; r < world; r++) {
        pids[r] = fork();
        if (pids[r] == 0) {
            struct tp *mine;
            if (tp_join(&mine, by_str_of(tp_address(tp)), r, world, 5000, &err)) _exit(2);
            _exit(fn(mine) ? 0 : 1);
        }
    }
    bool good = fn(tp);
    for (uint32_t r = 1; r < world; r++) {
        int status;
        waitpid(pids[r], &status, 0);
        good = good && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    tp_close(tp);
    return good;
}

static float value(uint32_t rank, uint32_t call, size_t i) {
    uint64_t seed = ((uint64_t)rank << 40) ^ ((uint64_t)call << 20) ^ i;
    return (float)(int32_t)(by_rand_next(&seed) >> 40) / 1024.0f;
}

static bool random_sums(struct tp *tp) {
    float *x = by_alloc_array(N_MAX, sizeof *x);
    bool good = true;
    uint64_t seed = 7;
    for (uint32_t call = 0; call < CALLS && good; call++) {
        size_t n = call % 10 ? by_rand_next(&seed) % 700 : by_rand_next(&seed) % N_MAX;
        for (size_t i = 0; i < n; i++)
            x[i] = value(tp_rank(tp), call, i);
        good = tp_sum(tp, x, n) == 0;
        for (size_t i = 0; i < n && good; i++) {
            float want = value(0, call, i);
            for (uint32_t r = 1; r < tp_world(tp); r++)
                want += value(r, call, i);
            good = memcmp(&want, &x[i], sizeof want) == 0;
        }
    }
    by_free(x);
    return good;
}

TEST(sums_are_the_same_bits_on_every_rank) {
    UNUSED_STATE;
    assert_true(run(2, random_sums));
    assert_true(run(3, random_sums));
}

static bool one_big_sum(struct tp *tp) {
    float *x = by_alloc_array(BIG, sizeof *x);
    for (size_t i = 0; i < BIG; i++)
        x[i] = (float)(tp_rank(tp) + 1);
    bool good = tp_sum(tp, x, BIG) == 0;
    for (size_t i = 0; i < BIG; i++)
        good = good && x[i] == 3;
    by_free(x);
    return good;
}

TEST(a_sum_larger_than_a_slot_goes_in_pieces) {
    UNUSED_STATE;
    assert_true(run(2, one_big_sum));
}

static bool one_gather(struct tp *tp) {
    float x[5], all[15];
    for (int i = 0; i < 5; i++)
        x[i] = (float)(10 * tp_rank(tp)) + (float)i;
    bool good = tp_gather(tp, x, 5, all) == 0;
    for (int i = 0; i < 15; i++)
        good = good && all[i] == (float)(i / 5 * 10 + i % 5);
    return good;
}

TEST(a_gather_lies_in_the_order_of_ranks) {
    UNUSED_STATE;
    assert_true(run(3, one_gather));
}

TEST(a_dead_rank_fails_the_call_at_once) {
    UNUSED_STATE;
    struct by_err err;
    struct tp *tp;
    float x[4] = {1, 2, 3, 4};
    assert_int_equal(tp_open(&tp, 2, 60000, &err), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct tp *mine;
        if (tp_join(&mine, by_str_of(tp_address(tp)), 1, 2, 60000, &err)) _exit(2);
        int rc = tp_sum(mine, x, 4);
        raise(rc ? SIGTERM : SIGKILL);
    }
    assert_int_equal(tp_sum(tp, x, 4), 0);
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(WTERMSIG(status), SIGKILL);
    /* long before its minute is over, or the test times out */
    assert_int_equal(tp_sum(tp, x, 4), BY_EUNAVAILABLE);
    tp_close(tp);
}

TEST(a_silent_rank_fails_the_call_at_the_deadline) {
    UNUSED_STATE;
    struct by_err err;
    struct tp *tp, *other;
    float x = 1;
    assert_int_equal(tp_open(&tp, 2, 100, &err), 0);
    assert_int_equal(tp_join(&other, by_str_of(tp_address(tp)), 1, 2, 100, &err), 0);
    assert_int_equal(tp_sum(tp, &x, 1), BY_EUNAVAILABLE);
    assert_int_equal(tp_sum(other, &x, 1), 0); /* rank 0 has come; it is only gone afterwards */
    assert_int_equal(tp_sum(other, &x, 1), BY_EUNAVAILABLE);
    tp_close(other);
    tp_close(tp);
}

TEST(an_address_that_is_none_is_refused) {
    UNUSED_STATE;
    struct by_err err;
    struct tp *tp;
    const char *bad[] = {"", "/etc/passwd", "/proc/1/fd/../../../etc/passwd", "/proc/-1/fd/3",
                         "/proc/self/fd/0"};
    for (size_t i = 0; i < BY_COUNTOF(bad); i++)
        assert_int_equal(tp_join(&tp, by_str_of(bad[i]), 1, 2, 100, &err), BY_EINVAL);
    assert_int_equal(tp_join(&tp, BY_STR("/proc/999999999/fd/3"), 1, 2, 100, &err),
                     BY_EUNAVAILABLE);
    assert_int_equal(tp_open(&tp, 1, 100, &err), BY_EINVAL);
    assert_int_equal(tp_open(&tp, TP_RANKS_MAX + 1, 100, &err), BY_EINVAL);
}

TESTS(RUN(sums_are_the_same_bits_on_every_rank), RUN(a_sum_larger_than_a_slot_goes_in_pieces),
      RUN(a_gather_lies_in_the_order_of_ranks), RUN(a_dead_rank_fails_the_call_at_once),
      RUN(a_silent_rank_fails_the_call_at_the_deadline), RUN(an_address_that_is_none_is_refused));
