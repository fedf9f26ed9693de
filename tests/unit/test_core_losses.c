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

/* Memory decides how long a worker's sequences may be, when it starts. One that came back with less was sent what had been checked
 * against its former life, ended its session at that step, came back, and so on for ever. */
TEST(a_worker_that_comes_back_smaller_gets_only_what_it_can_hold) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 0, 100, 300);
    while (w.req[1].sample[0].n < 50) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w_worker_kill(&w, 0);
    w_submit(&w, 2, 0, 150, 10);
    w_submit(&w, 3, 0, 100, 300);
    w_submit(&w, 4, 0, 100, 10);
    w.worker[0].context_len = 120;
    w_worker_up(&w, 0);
    w_run(&w);
    assert_true(w.req[1].sample[0].n >= 50); /* what it has, it keeps */
    assert_int_equal(w.req[1].sample[0].finish, FINISH_LENGTH);
    assert_int_equal(w.req[2].code, BY_ETOOLONG);
    assert_int_equal(w.req[3].sample[0].n, 20);
    assert_int_equal(w.req[3].sample[0].finish, FINISH_LENGTH);
    w_assert_whole(&w, 4);
    w_submit(&w, 5, 0, 120, 1);
    assert_int_equal(w.req[5].code, BY_ETOOLONG); /* at once */
    world_stop(&w);
}

/* What one replica cannot hold was refused, or cut, though it waited for the other one; and who ran there when that was lost, too. */
TEST(a_small_replica_leaves_long_ones_to_the_other) {
    UNUSED_STATE;
    struct world w = {.n_pages = 1024, .opt = {.n_replicas = 2}};
    w.worker[0].context_len = 120;
    w.worker[1].context_len = 1000;
    world_start(&w);
    for (uint32_t rid = 1; rid <= 4; rid++)
        w_submit(&w, rid, 0, 200, 40);
    for (uint32_t rid = 5; rid <= 8; rid++)
        w_submit(&w, rid, 0, 80, 40);
    for (int i = 0; i < 12; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
        w_work(&w, 1, 0);
    }
    w_worker_kill(&w, 1);
    w_submit(&w, 9, 0, 300, 40);
    w_run(&w); /* what the small one can do goes on, and the others wait */
    for (uint32_t rid = 5; rid <= 8; rid++)
        w_assert_whole(&w, rid);
    w_worker_up(&w, 1);
    w_run(&w);
    for (uint32_t rid = 1; rid <= 9; rid++)
        w_assert_whole(&w, rid);
    w_submit(&w, 10, 0, 1000, 1);
    assert_int_equal(w.req[10].code, BY_ETOOLONG);
    world_stop(&w);
}

/* Who had nothing yet waited for it as long as it was away, with no word to its client. */
TEST(a_replica_that_stays_away_keeps_nobody_waiting_who_has_nothing) {
    UNUSED_STATE;
    struct world w = {.n_pages = 1024, .opt = {.n_replicas = 2}};
    w.worker[0].context_len = 120;
    w.worker[1].context_len = 1000;
    world_start(&w);
    w_submit(&w, 1, 0, 200, 40);
    while (w.req[1].sample[0].n < 5) {
        w_step(&w);
        w_work(&w, 1, 0);
    }
    w_worker_kill(&w, 1);
    w_submit(&w, 2, 0, 200, 40);
    w_submit(&w, 3, 0, 80, 40);
    w_run(&w);
    w_assert_whole(&w, 3);
    assert_false(w.req[2].is_failed);
    uint64_t due = core_next_timer(w.core);
    assert_true(due < UINT64_MAX);
    w.now = BY_MAX(w.now, due);
    w_run(&w);
    assert_int_equal(w.req[2].code, BY_EUNAVAILABLE);
    w_submit(&w, 4, 0, 200, 40);
    assert_int_equal(w.req[4].code, BY_EUNAVAILABLE); /* at once */
    assert_false(w.req[1].is_failed);                 /* it has begun: it goes on */
    /* A former scheduler had it, and text of that may be on its way. */
    struct msg_resume again = {.sample = 0};
    w_prepare(&w, 6, 0, 200, 40);
    w_tokenized(&w, 6, &again, 1);
    assert_false(w.req[6].is_failed);
    w_worker_up(&w, 1);
    w_submit(&w, 5, 0, 200, 40);
    w_run(&w);
    w_assert_whole(&w, 1);
    w_assert_whole(&w, 5);
    w_assert_whole(&w, 6);
    world_stop(&w);
}

/* Nobody serves meanwhile, and routers say so: a model may take minutes to load. */
TEST(when_all_replicas_are_away_all_wait) {
    UNUSED_STATE;
    struct world w = {.n_pages = 1024};
    world_start(&w);
    w_worker_kill(&w, 0);
    w_submit(&w, 1, 0, 100, 20);
    w.now += UINT64_C(100000000000);
    w_run(&w);
    assert_false(w.req[1].is_failed);
    w_worker_up(&w, 0);
    w_run(&w);
    w_assert_whole(&w, 1);
    world_stop(&w);
}

TEST(who_outgrows_a_replica_goes_on_at_a_larger_one) {
    UNUSED_STATE;
    struct world w = {.n_pages = 1024, .opt = {.n_replicas = 2}};
    w.worker[0].context_len = 120;
    w.worker[1].n_pages = 100; /* the longest of all: 400 tokens */
    world_start(&w);
    for (uint32_t rid = 1; rid <= 8; rid++)
        w_submit(&w, rid, 0, 80, rid % 2 ? 60 : 30);
    w_submit(&w, 9, 0, 80, 400);
    w_run(&w);
    for (uint32_t rid = 1; rid <= 8; rid++)
        w_assert_whole(&w, rid);
    assert_true(w.worker[0].last_step > 30);
    assert_int_equal(w.req[9].sample[0].n, 320);
    assert_int_equal(w.req[9].sample[0].finish, FINISH_LENGTH);
    world_stop(&w);
}

/* After a restart of the scheduler the small replica may be the first to find it. */
TEST(a_long_one_waits_for_replicas_that_are_on_their_way) {
    UNUSED_STATE;
    struct world w = {.n_pages = 1024, .opt = {.n_replicas = 2}};
    struct core_sink sink = {.send = w_send, .end = w_end, .ctx = &w};
    w.worker[0].context_len = 120;
    world_start(&w);
    for (uint32_t i = 1; i <= 2; i++) {
        w_worker_kill(&w, 0);
        w_worker_kill(&w, 1);
        core_free(w.core);
        w.core = core_new(&w.opt, &sink);
        w_up(&w, W_ROUTER, ROLE_ROUTER, ++w.epoch);
        w_up(&w, W_TOKENIZER, ROLE_TOKENIZER_WORKER, 5);
        w_detok_up(&w);
        w_worker_up(&w, 0);
        w_submit(&w, i, 0, 200, 20);
        w_run(&w);
        assert_false(w.req[i].is_failed);
        if (i == 1) w_worker_up(&w, 1);
        uint64_t due = core_next_timer(w.core);
        w.now = BY_MAX(w.now, due < UINT64_MAX ? due : 0);
        w_run(&w);
    }
    w_assert_whole(&w, 1);
    assert_int_equal(w.req[2].code, BY_ETOOLONG); /* it never came */
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

TESTS(RUN(a_lost_worker_is_only_a_pause),
      RUN(a_worker_that_comes_back_smaller_gets_only_what_it_can_hold),
      RUN(a_small_replica_leaves_long_ones_to_the_other),
      RUN(a_replica_that_stays_away_keeps_nobody_waiting_who_has_nothing),
      RUN(when_all_replicas_are_away_all_wait), RUN(who_outgrows_a_replica_goes_on_at_a_larger_one),
      RUN(a_long_one_waits_for_replicas_that_are_on_their_way),
      RUN(a_failed_step_is_computed_again), RUN(a_lost_detokenizer_gets_it_all_again),
      RUN(a_copy_of_a_live_request_replays_it), RUN(a_new_scheduler_goes_on_from_the_journal),
      RUN(a_lost_router_takes_its_requests_along), RUN(an_orphan_waits_ten_seconds_for_its_router),
      RUN(an_orphan_is_told_again_when_its_router_comes),
      RUN(a_failure_is_told_to_a_router_that_was_away));
