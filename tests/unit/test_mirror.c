/* The worker's mirror: what it takes from a step, and every way in which a step can contradict it. */
#include "gpu_worker/mirror.h"
#include "tests/unit/test.h"

enum { SLOTS = 4, PAGES = 32, PAGE = 16, VOCAB = 100, ROWS = 64, CONTEXT = 128 };

static struct mirror m;
static struct by_err err;

static void start(void) {
    mirror_init(&m, &(struct mirror_limits){.n_slots = SLOTS,
                                            .n_pages = PAGES,
                                            .page_size = PAGE,
                                            .n_vocab = VOCAB,
                                            .rows_max = ROWS,
                                            .context_len = CONTEXT});
}

static const uint32_t ids[] = {5,  6,  7,  8,  9,  10, 11, 12, 13, 14,
                               15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
static const uint32_t pages[] = {3, 4, 5};

static struct msg_admit admit_of(uint32_t slot, uint32_t n_cached, uint32_t n_ids,
                                 uint32_t n_pages) {
    return (struct msg_admit){.slot = slot,
                              .n_prompt = n_cached + n_ids,
                              .n_cached = n_cached,
                              .ids = {ids, n_ids},
                              .pages = {pages, n_pages},
                              .sampling = {.repetition_penalty = 1}};
}

static int admit_at(uint64_t step, const struct msg_admit *a) {
    struct msg_step s = {.step = step};
    s.admits.p = a;
    s.admits.n = 1;
    return mirror_apply(&m, &s, &err);
}

static int row_at(uint64_t step, uint32_t slot, uint32_t n) {
    uint32_t one = 1;
    struct msg_step s = {
        .step = step, .row_slots = {&slot, 1}, .row_tokens = {&n, 1}, .row_samples = {&one, 1}};
    return mirror_apply(&m, &s, &err);
}

TEST(takes_an_admit_and_its_rows) {
    UNUSED_STATE;
    start();
    struct msg_admit a = admit_of(2, 16, 20, 3);
    assert_int_equal(admit_at(1, &a), 0);
    struct slot *s = &m.slots[2];
    assert_int_equal(s->n_done, 16);
    assert_int_equal(s->ids[0], 5);
    assert_int_equal(s->n_pages, 3);
    assert_int_equal(row_at(2, 2, 20), 0);
    s->n_done += 20;
    assert_int_equal(row_at(3, 2, 1), BY_EFORMAT); /* nothing to run until a token is sampled */
    mirror_reset(&m);
    assert_false(s->is_used);
    mirror_release(&m);
}

TEST(a_sampled_token_is_the_next_to_run) {
    UNUSED_STATE;
    start();
    struct msg_admit a = admit_of(0, 0, 3, 1);
    assert_int_equal(admit_at(1, &a), 0);
    assert_int_equal(row_at(2, 0, 3), 0);
    m.slots[0].n_done += 3;
    mirror_push(&m.slots[0], 42);
    assert_int_equal(row_at(3, 0, 1), 0);
    assert_int_equal(m.slots[0].ids[3], 42);
    mirror_release(&m);
}

/* Two steps in flight: the second runs the token that the first is sampling. */
TEST(a_token_that_is_being_sampled_may_run_once) {
    UNUSED_STATE;
    start();
    struct msg_admit a = admit_of(0, 0, 3, 1);
    struct slot *s = &m.slots[0];
    assert_int_equal(admit_at(1, &a), 0);
    assert_int_equal(row_at(2, 0, 3), 0);
    s->n_done += 3;
    s->n_pending++;
    assert_int_equal(row_at(3, 0, 1), 0);
    s->n_done++;
    assert_int_equal(row_at(4, 0, 1), BY_EFORMAT);
    mirror_push(s, 42);
    assert_int_equal(s->n_pending, 0);
    assert_int_equal(s->ids[3], 42);
    mirror_release(&m);
}

TEST(output_ids_count_wherever_they_lie) {
    UNUSED_STATE;
    static const uint32_t before[] = {50, 51};
    start();
    struct msg_admit a = admit_of(1, 16, 4, 2);
    a.n_prompt = 14; /* 14 prompt tokens, two outputs cached, four to run */
    a.output_ids = (struct msg_u32s){before, 2};
    assert_int_equal(admit_at(1, &a), 0);
    assert_int_equal(m.slots[1].pick.n_output, 6);
    mirror_release(&m);
}

TEST(a_gap_in_the_steps_is_refused) {
    UNUSED_STATE;
    start();
    struct msg_step s = {.step = 2};
    assert_int_equal(mirror_apply(&m, &s, &err), BY_EFORMAT);
    mirror_release(&m);
}

TEST(an_admit_that_makes_no_sense_is_refused) {
    UNUSED_STATE;
    static const uint32_t bad_ids[] = {VOCAB}, bad_pages[] = {PAGES};
    struct msg_admit a[] = {admit_of(SLOTS, 0, 3, 1), admit_of(0, 0, 0, 1),
                            admit_of(0, 17, 3, 1),    admit_of(0, CONTEXT - 2, 3, 3),
                            admit_of(0, 0, 1, 1),     admit_of(0, 0, 3, 1),
                            admit_of(0, 16, 3, 2)};
    a[4].ids = (struct msg_u32s){bad_ids, 1};
    a[5].pages = (struct msg_u32s){bad_pages, 1};
    a[6].from_state = 1;
    for (size_t i = 0; i < BY_COUNTOF(a); i++) {
        start();
        assert_int_equal(admit_at(1, &a[i]), BY_EFORMAT);
        assert_true(strlen(err.text) > 0);
        mirror_release(&m);
    }
}

/* Of a model with states, which keeps two: slot 0 from `state` - 1 with n_cached tokens, then 20 rows, kept behind `at`. */
static int admit_and_keep(uint32_t state, uint32_t n_cached, uint32_t at, uint32_t number) {
    uint32_t slot = 0, n = 20, one = 1;
    struct msg_admit a = admit_of(0, n_cached, 20, 3);
    struct msg_step s = {.step = 1,
                         .row_slots = {&slot, 1},
                         .row_tokens = {&n, 1},
                         .row_samples = {&one, 1},
                         .keep_slots = {&slot, 1},
                         .keep_at = {&at, 1},
                         .keep_states = {&number, 1}};
    s.admits.p = &a;
    s.admits.n = 1;
    a.from_state = state;
    start();
    m.limits.has_states = true;
    m.limits.n_kept = 2;
    int rc = mirror_apply(&m, &s, &err);
    mirror_release(&m);
    return rc;
}

TEST(a_state_is_kept_within_its_rows_and_started_from_where_it_is) {
    UNUSED_STATE;
    static const struct {
        uint32_t state, n_cached, at, number;
        int rc;
    } cases[] = {
        {0, 0, 16, 1, 0},           {2, 16, 32, 0, 0},          {0, 16, 32, 0, BY_EFORMAT},
        {1, 0, 16, 0, BY_EFORMAT},  {3, 16, 32, 0, BY_EFORMAT}, {1, 16, 16, 0, BY_EFORMAT},
        {1, 16, 48, 0, BY_EFORMAT}, {1, 16, 33, 0, BY_EFORMAT}, {1, 16, 32, 2, BY_EFORMAT},
    };
    for (size_t i = 0; i < BY_COUNTOF(cases); i++)
        assert_int_equal(
            admit_and_keep(cases[i].state, cases[i].n_cached, cases[i].at, cases[i].number),
            cases[i].rc);
}

TEST(a_worker_without_states_keeps_none) {
    UNUSED_STATE;
    static const uint32_t zero[] = {0};
    start();
    struct msg_step s = {.step = 1, .keep_slots = {zero, 1}};
    assert_int_equal(mirror_apply(&m, &s, &err), BY_EFORMAT);
    mirror_release(&m);
}

TEST(a_slot_is_admitted_once) {
    UNUSED_STATE;
    start();
    struct msg_admit a = admit_of(0, 0, 3, 1);
    assert_int_equal(admit_at(1, &a), 0);
    assert_int_equal(admit_at(2, &a), BY_EFORMAT);
    mirror_release(&m);
}

TEST(rows_beyond_pages_or_slots_are_refused) {
    UNUSED_STATE;
    start();
    struct msg_admit a = admit_of(0, 0, 20, 1);
    assert_int_equal(admit_at(1, &a), 0);
    assert_int_equal(row_at(2, 0, 16), 0);
    m.slots[0].n_done += 16;
    assert_int_equal(row_at(3, 0, 4), BY_EFORMAT); /* one page holds 16 */
    assert_int_equal(row_at(4, 3, 1), BY_EFORMAT); /* not in use */
    assert_int_equal(row_at(5, SLOTS, 1), BY_EFORMAT);
    mirror_release(&m);
}

TEST(a_slot_has_one_row_a_step) {
    UNUSED_STATE;
    static const uint32_t slots[] = {0, 0}, tokens[] = {1, 1}, samples[] = {0, 1};
    start();
    struct msg_admit a = admit_of(0, 0, 3, 1);
    assert_int_equal(admit_at(1, &a), 0);
    struct msg_step s = {
        .step = 2, .row_slots = {slots, 2}, .row_tokens = {tokens, 2}, .row_samples = {samples, 2}};
    assert_int_equal(mirror_apply(&m, &s, &err), BY_EFORMAT);
    mirror_release(&m);
}

TEST(more_rows_than_fit_are_refused) {
    UNUSED_STATE;
    static const uint32_t slots[] = {0, 1, 2, 3}, tokens[] = {20, 20, 20, 20}, samples[4] = {0};
    start();
    for (uint32_t i = 0; i < 4; i++) {
        struct msg_admit a = admit_of(i, 0, 20, 2);
        assert_int_equal(admit_at(i + 1, &a), 0);
    }
    struct msg_step s = {
        .step = 5, .row_slots = {slots, 4}, .row_tokens = {tokens, 4}, .row_samples = {samples, 4}};
    assert_int_equal(mirror_apply(&m, &s, &err), BY_EFORMAT);
    mirror_release(&m);
}

TEST(the_crc_tells_mirrors_apart) {
    UNUSED_STATE;
    start();
    struct msg_admit a = admit_of(0, 0, 3, 1);
    uint32_t empty = mirror_crc(&m);
    assert_int_equal(admit_at(1, &a), 0);
    uint32_t one = mirror_crc(&m);
    assert_int_not_equal(one, empty);
    mirror_push(&m.slots[0], 7);
    assert_int_not_equal(mirror_crc(&m), one);
    mirror_release(&m);
}

TESTS(RUN(takes_an_admit_and_its_rows), RUN(a_sampled_token_is_the_next_to_run),
      RUN(a_token_that_is_being_sampled_may_run_once), RUN(output_ids_count_wherever_they_lie),
      RUN(a_gap_in_the_steps_is_refused), RUN(an_admit_that_makes_no_sense_is_refused),
      RUN(a_worker_without_states_keeps_none),
      RUN(a_state_is_kept_within_its_rows_and_started_from_where_it_is),
      RUN(a_slot_is_admitted_once), RUN(rows_beyond_pages_or_slots_are_refused),
      RUN(a_slot_has_one_row_a_step), RUN(more_rows_than_fit_are_refused),
      RUN(the_crc_tells_mirrors_apart));
