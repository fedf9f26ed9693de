/* Requests that kill whoever computes or reads them are found, and nobody else is blamed (DESIGN D5). */
#include "tests/unit/core_world.h"

/* F7: a poison request kills its worker at its third token, whoever runs beside it. */
TEST(a_poison_request_is_found_and_nobody_else) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    enum { POISON = 3, REQS = 5 };
    for (uint32_t rid = 1; rid <= REQS; rid++)
        w_submit(&w, rid, 0, 10 + rid, 30);
    uint32_t n_deaths = 0;
    for (int i = 0; i < 5000; i++) {
        bool any = w_step(&w);
        struct w_worker *k = &w.worker[0];
        struct msg in;
        struct by_err err;
        bool is_deadly = false;
        if (k->n) {
            assert_int_equal(msg_decode(&in, by_buf_str(&k->frames[k->first]), &w.arena, &err), 0);
            for (uint32_t j = 0; j < in.step.row_slots.n; j++) {
                const struct w_slot *s = &k->slot[in.step.row_slots.p[j]];
                uint64_t seed = s->is_used ? s->seed : 0;
                uint32_t n_ids = s->n_ids;
                for (uint32_t a = 0; a < in.step.admits.n; a++) {
                    if (in.step.admits.p[a].slot != in.step.row_slots.p[j]) continue;
                    seed = in.step.admits.p[a].sampling.seed;
                    n_ids = in.step.admits.p[a].n_cached + in.step.admits.p[a].ids.n;
                }
                is_deadly |= seed == POISON && n_ids >= 10 + POISON + 2;
            }
        }
        if (is_deadly) {
            w_worker_kill(&w, 0);
            w_worker_up(&w, 0);
            n_deaths++;
            continue;
        }
        any |= w_work(&w, 0, 0);
        if (!any) break;
    }
    assert_int_equal(n_deaths, 3);
    assert_int_equal(w.req[POISON].code, BY_EPOISON);
    for (uint32_t rid = 1; rid <= REQS; rid++) {
        if (rid != POISON) w_assert_whole(&w, rid);
    }
    world_stop(&w);
}

/* After a partition a worker's hellos came in a burst, each of which ended the session before; after three of them the
 * request that happened to run was taken for poison, and then the next one. */
TEST(a_broken_session_is_no_death) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 0, 10, 10);
    for (int i = 0; i < 10; i++) {
        w_step(&w);
        uint32_t epoch = w.worker[0].epoch;
        w_worker_kill(&w, 0);
        w.worker[0].epoch = epoch; /* the same life says hello again */
        w_worker_up(&w, 0);
    }
    w_run(&w);
    w_assert_whole(&w, 1);
    world_stop(&w);
}

TEST(deaths_without_a_step_in_flight_count_against_nobody) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 0, 10, 10);
    for (int i = 0; i < 6; i++) {
        w_worker_kill(&w, 0);
        w_worker_up(&w, 0);
    }
    w_run(&w);
    w_assert_whole(&w, 1);
    world_stop(&w);
}

/* Runs all; a detokenizer that dies is back at once. Returns how many did. */
static uint32_t run_with_deadly(struct world *w, uint64_t rid) {
    uint32_t n_deaths = 0;
    w->deadly_rid = rid;
    for (int i = 0; i < 5000; i++) {
        bool any = w_step(w);
        if (w->is_detok_dead) {
            w_detok_kill(w);
            w_detok_up(w);
            n_deaths++;
            continue;
        }
        any |= w_work(w, 0, 0);
        if (!any) break;
    }
    return n_deaths;
}

/* It was sent to one detokenizer after the other for as long as its client waited. */
TEST(a_text_that_kills_its_detokenizer_is_found_and_nobody_else) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    enum { POISON = 3, REQS = 5, LOST = 2, KILLED = 3 };
    for (uint32_t rid = 1; rid <= REQS; rid++)
        w_submit(&w, rid, 0, 10 + rid, 30);
    assert_int_equal(run_with_deadly(&w, POISON), LOST + KILLED);
    assert_int_equal(w.req[POISON].code, BY_EPOISON);
    for (uint32_t rid = 1; rid <= REQS; rid++) {
        if (rid != POISON) w_assert_whole(&w, rid);
    }
    world_stop(&w);
}

/* Of whatever it dies, it is not of those that it has not got. */
TEST(a_detokenizer_that_dies_before_it_reads_accuses_nobody) {
    UNUSED_STATE;
    struct world w = {.is_slow_to_read = true};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 5; rid++)
        w_submit(&w, rid, 0, 10 + rid, 30);
    for (uint32_t i = 0; i < 100; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
        w_detok_kill(&w);
        w_detok_up(&w);
    }
    w.is_slow_to_read = false;
    run_with_deadly(&w, 0);
    for (uint32_t rid = 1; rid <= 5; rid++)
        w_assert_whole(&w, rid);
    world_stop(&w);
}

TEST(who_leaves_while_it_is_read_alone_holds_nobody_up) {
    UNUSED_STATE;
    struct world w = {.is_slow_to_read = true};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 3; rid++)
        w_submit(&w, rid, 0, 10 + rid, 30);
    w_step(&w);
    w_work(&w, 0, 0);
    for (uint32_t i = 0; i < 2; i++) {
        w_detok_kill(&w);
        w_detok_up(&w);
    }
    for (uint64_t rid = 1; rid <= 2; rid++) { /* the first before it was sent, the second after */
        assert_int_equal(w.asked.rid, rid);
        while (rid == 2 && w.n_asked != 1)
            w_detok_read(&w);
        if (rid == 2) w_detok_read(&w);
        assert_int_equal(w.asked.rid, rid);
        struct msg m = {.kind = MSG_cancel, .cancel = {.name = {w.epoch, rid}}};
        core_on_message(w.core, w.now, W_ROUTER, &m);
    }
    w.is_slow_to_read = false;
    run_with_deadly(&w, 0);
    w_assert_whole(&w, 3);
    world_stop(&w);
}

TESTS(RUN(a_poison_request_is_found_and_nobody_else), RUN(a_broken_session_is_no_death),
      RUN(deaths_without_a_step_in_flight_count_against_nobody),
      RUN(a_text_that_kills_its_detokenizer_is_found_and_nobody_else),
      RUN(a_detokenizer_that_dies_before_it_reads_accuses_nobody),
      RUN(who_leaves_while_it_is_read_alone_holds_nobody_up));
