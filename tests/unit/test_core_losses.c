/* Processes that die, sessions that break and frames that come again: no client notices more than a pause. */
#include "tests/unit/core_world.h"

TEST(a_lost_worker_is_only_a_pause) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 6; rid++)
        w_submit(&w, rid, 20, rid, 40);
    for (int i = 0; i < 10; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w_step(&w); /* two in flight */
    w_worker_kill(&w, 0);
    assert_false(w_step(&w));
    w_worker_up(&w, 0);
    w_run(&w);
    for (uint32_t rid = 1; rid <= 6; rid++)
        w_assert_whole(&w, rid);
    assert_true(w.is_ready);
    world_stop(&w);
}

TEST(a_failed_step_is_computed_again) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 4; rid++)
        w_submit(&w, rid, 100, 10, 20);
    for (int i = 0; i < 30; i++) {
        w_step(&w);
        w_work(&w, 0, i % 7 == 3 ? BY_ENOMEM : 0);
    }
    w_run(&w);
    for (uint32_t rid = 1; rid <= 4; rid++)
        w_assert_whole(&w, rid);
    world_stop(&w);
}

TEST(a_lost_detokenizer_gets_it_all_again) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 0, 10, 40);
    for (int i = 0; i < 10; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w_detok_kill(&w);
    w_step(&w);
    w_work(&w, 0, 0);
    w_detok_up(&w);
    assert_true(w.req[1].sample[0].is_open);
    w_run(&w);
    w_assert_whole(&w, 1);
    world_stop(&w);
}

TEST(a_copy_of_a_live_request_replays_it) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 0, 10, 20);
    w_run(&w);
    struct w_sample *s = &w.req[1].sample[0];
    s->n = 0;
    s->is_open = false;
    s->finish = 0;
    struct msg_resume r = {.sample = 0, .n_delivered = 0};
    w_tokenized(&w, 1, &r, 1);
    w_assert_whole(&w, 1); /* from the log: no step was needed */
    w_router_says(&w, MSG_ack, 1, 0, 20, true);
    s->n = 0;
    w_tokenized(&w, 1, &r, 1);
    w_run(&w);
    assert_int_equal(s->n, 0); /* acknowledged: nothing */
    world_stop(&w);
}

TEST(a_new_scheduler_goes_on_from_the_journal) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    struct w_req *q = w_prepare(&w, 1, 0, 10, 30);
    uint32_t want[W_OUT], finish;
    world_expect(q, 0, want, &finish);
    struct msg_resume r = {.ids = {want, 12}, .n_delivered = 12};
    w_tokenized(&w, 1, &r, 1);
    w_run(&w);
    w_assert_whole(&w, 1);
    q = w_prepare(&w, 2, 0, 10, 30); /* all of it was there already */
    world_expect(q, 0, want, &finish);
    r = (struct msg_resume){.ids = {want, 30}, .n_delivered = 30};
    w_tokenized(&w, 2, &r, 1);
    w_assert_whole(&w, 2);
    world_stop(&w);
}

TEST(a_lost_router_takes_its_requests_along) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 4; rid++)
        w_submit(&w, rid, 0, 10, 40);
    w_step(&w);
    w_work(&w, 0, 0);
    core_on_down(w.core, w.now, W_ROUTER, "killed");
    while (w_work(&w, 0, 0))
        ;
    assert_true(core_is_idle(w.core));
    w_tokenized(&w, 5, NULL, 0); /* its epoch is over */
    assert_true(core_is_idle(w.core));
    /* it was not dead after all, and sends all it owes again */
    w_up(&w, W_ROUTER, ROLE_ROUTER, w.epoch);
    w_tokenized(&w, 2, NULL, 0);
    w_run(&w);
    w_assert_whole(&w, 2);
    world_stop(&w);
}

/* A request whose router has no session. */
static void start_with_orphan(struct world *w) {
    world_start(w);
    w->epoch = 78;
    w_submit(w, 1, 0, 10, 4);
    w_run(w);
}

TEST(an_orphan_waits_ten_seconds_for_its_router) {
    UNUSED_STATE;
    struct world w = {0};
    start_with_orphan(&w);
    assert_false(core_is_idle(w.core));
    w.now = core_next_timer(w.core);
    w_step(&w);
    assert_true(core_is_idle(w.core));
    world_stop(&w);
}

/* A late copy ran to its end while its router had no session, so that the router's cancel went nowhere; nobody asked for
 * it again, and its log stayed for ever. */
TEST(an_orphan_is_told_again_when_its_router_comes) {
    UNUSED_STATE;
    struct world w = {0};
    start_with_orphan(&w);
    uint32_t before = w.n_tokens_frames;
    w_up(&w, 2000, ROLE_ROUTER, w.epoch);
    assert_true(w.n_tokens_frames > before);
    w_assert_whole(&w, 1);
    world_stop(&w);
}

/* A request failed while its router had no session. The router sent it again, the scheduler took that for a late copy, and
 * the client waited for ever. */
TEST(a_failure_is_told_to_a_router_that_was_away) {
    UNUSED_STATE;
    struct world w = {.opt = {.run_timeout_ms = 1000}};
    world_start(&w);
    w.epoch = 78;
    w_submit(&w, 1, 0, 10, 400);
    w_step(&w);
    w.now += UINT64_C(1100000000);
    w_step(&w);
    assert_false(w.req[1].is_failed); /* nobody is there to hear it */
    w_up(&w, 2000, ROLE_ROUTER, w.epoch);
    struct msg_resume r = {.n_delivered = 0};
    w_tokenized(&w, 1, &r, 1);
    assert_int_equal(w.req[1].code, BY_ETIMEOUT);
    w_run(&w);
    assert_true(core_is_idle(w.core));
    world_stop(&w);
}

TESTS(RUN(a_lost_worker_is_only_a_pause), RUN(a_failed_step_is_computed_again),
      RUN(a_lost_detokenizer_gets_it_all_again), RUN(a_copy_of_a_live_request_replays_it),
      RUN(a_new_scheduler_goes_on_from_the_journal), RUN(a_lost_router_takes_its_requests_along),
      RUN(an_orphan_waits_ten_seconds_for_its_router),
      RUN(an_orphan_is_told_again_when_its_router_comes),
      RUN(a_failure_is_told_to_a_router_that_was_away));
