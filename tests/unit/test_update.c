#include "tests/unit/core_world.h"

static void start(struct world *w) {
    w->opt.n_replicas = 2;
    world_start(w);
    for (uint32_t rid = 1; rid <= 6; rid++)
        w_submit(w, rid, 20, rid, 40);
    for (int i = 0; i < 8; i++) {
        w_step(w);
        w_work(w, 0, 0);
        w_work(w, 1, 0);
    }
    w_step(w); /* steps are in flight */
}

static void ask(struct world *w) {
    struct msg m = {
        .kind = MSG_ask,
        .ask = {.id = 1, .what = BY_STR("update"), .json = BY_STR("{\"model_path\":\"x\"}")}};
    w->answer[0] = '\0';
    core_on_message(w->core, w->now, W_ROUTER, &m);
    assert_true(core_check(w->core));
}

static void answer(struct world *w, uint32_t replica, int32_t code, const char *weights_id) {
    struct msg m = {.kind = MSG_updated,
                    .updated = {.id = w->worker[replica].update.id,
                                .code = code,
                                .text = code ? BY_STR("no") : (struct by_str){0},
                                .weights_id = by_str_of(weights_id)}};
    core_on_message(w->core, w->now, w->worker[replica].peer, &m);
    assert_true(core_check(w->core));
}

/* What was in flight comes back, and nothing new goes out. */
static void work_off(struct world *w) {
    while (w_work(w, 0, 0) || w_work(w, 1, 0))
        assert_false(w_step(w));
    assert_false(w_step(w));
}

static void assert_phase(const struct world *w, enum update_phase phase) {
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(w->worker[i].update.phase, phase);
}

static void end(struct world *w) {
    w_run(w);
    for (uint32_t rid = 1; rid <= 6; rid++)
        w_assert_whole(w, rid);
    world_stop(w);
}

TEST(all_switch_at_once_and_every_request_goes_on) {
    UNUSED_STATE;
    struct world w = {0};
    start(&w);
    ask(&w);
    assert_phase(&w, UPDATE_LOAD);
    work_off(&w);
    answer(&w, 0, 0, "new");
    assert_phase(&w, UPDATE_LOAD);
    answer(&w, 1, 0, "new");
    assert_phase(&w, UPDATE_SWITCH);
    assert_string_equal(w.answer, "");
    answer(&w, 1, 0, "new");
    answer(&w, 0, 0, "new");
    assert_string_equal(w.answer, "{\"paused\":6}");
    assert_int_equal(w.answer_code, 0);
    for (uint32_t i = 0; i < 2; i++) {
        assert_false(w.worker[i].is_up);
        w.worker[i].weights_id = "new";
        w_worker_up(&w, i);
    }
    end(&w);
}

TEST(one_that_cannot_load_stops_it_for_all) {
    UNUSED_STATE;
    struct world w = {0};
    start(&w);
    ask(&w);
    answer(&w, 0, 0, "new");
    answer(&w, 1, BY_EFORMAT, "");
    assert_phase(&w, UPDATE_DROP);
    assert_int_equal(w.answer_code, BY_EFORMAT);
    assert_string_equal(w.answer, "{\"error\":\"no\"}");
    assert_true(w.worker[0].is_up && w.worker[1].is_up);
    end(&w);
}

TEST(different_weights_under_one_path_are_refused) {
    UNUSED_STATE;
    struct world w = {0};
    start(&w);
    ask(&w);
    answer(&w, 0, 0, "new");
    answer(&w, 1, 0, "other");
    assert_phase(&w, UPDATE_DROP);
    assert_int_equal(w.answer_code, BY_EINVAL);
    end(&w);
}

TEST(one_that_is_lost_as_it_loads_stops_it) {
    UNUSED_STATE;
    struct world w = {0};
    start(&w);
    ask(&w);
    answer(&w, 0, 0, "new");
    w_worker_kill(&w, 1);
    assert_int_equal(w.worker[0].update.phase, UPDATE_DROP);
    assert_int_equal(w.answer_code, BY_EUNAVAILABLE);
    w_worker_up(&w, 1);
    end(&w);
}

TEST(one_that_is_lost_as_it_switches_is_told_when_it_comes) {
    UNUSED_STATE;
    struct world w = {0};
    start(&w);
    ask(&w);
    work_off(&w);
    answer(&w, 0, 0, "new");
    answer(&w, 1, 0, "new");
    w_worker_kill(&w, 1);
    answer(&w, 0, 0, "new");
    assert_string_equal(w.answer, "{\"paused\":6}");
    w.worker[0].weights_id = "new";
    w_worker_up(&w, 0);
    w_worker_up(&w, 1); /* with those it was started with: it gets no step */
    assert_int_equal(w.worker[1].update.phase, UPDATE_CATCH_UP);
    w_step(&w);
    assert_int_equal(w.worker[1].n, 0);
    answer(&w, 1, 0, "new");
    assert_false(w.worker[1].is_up);
    w.worker[1].weights_id = "new";
    w_worker_up(&w, 1);
    end(&w);
}

TEST(one_at_a_time) {
    UNUSED_STATE;
    struct world w = {0};
    start(&w);
    ask(&w);
    ask(&w);
    assert_int_equal(w.answer_code, BY_EAGAIN);
    answer(&w, 0, BY_EFORMAT, "");
    answer(&w, 1, BY_EFORMAT, "");
    assert_int_equal(w.answer_code, BY_EFORMAT);
    answer(&w, 1, 0, "of no round"); /* changes nothing */
    end(&w);
}

TESTS(RUN(all_switch_at_once_and_every_request_goes_on), RUN(one_that_cannot_load_stops_it_for_all),
      RUN(different_weights_under_one_path_are_refused), RUN(one_that_is_lost_as_it_loads_stops_it),
      RUN(one_that_is_lost_as_it_switches_is_told_when_it_comes), RUN(one_at_a_time));
