/* Requests that nothing disturbs, and what ends one: its length, a stop, a cancel, a limit. */
#include "common/base/mem.h"
#include "tests/unit/core_world.h"

TEST(a_request_runs_to_its_length) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 0, 10, 20);
    w_run(&w);
    assert_true(w.is_ready);
    w_assert_whole(&w, 1);
    assert_int_equal(w.req[1].sample[0].n_cached, 0);
    w_router_says(&w, MSG_ack, 1, 0, 20, true);
    assert_true(core_is_idle(w.core));
    world_stop(&w);
}

TEST(a_stop_id_ends_it_and_the_overrun_is_dropped) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    struct w_req *q = w_prepare(&w, 1, 0, 10, 100);
    uint32_t want[W_OUT], finish;
    world_expect(q, 0, want, &finish);
    q->stop_ids[0] = want[6];
    q->sampling.stop_ids = (struct msg_u32s){q->stop_ids, 1};
    q->sampling.ignore_eos = false;
    w_tokenized(&w, 1, NULL, 0);
    w_run(&w);
    w_assert_whole(&w, 1);
    assert_int_equal(q->sample[0].finish, FINISH_STOP_ID);
    assert_int_equal(q->sample[0].matched_id, want[6]);
    assert_true(q->sample[0].n <= 7);
    world_stop(&w);
}

TEST(the_prompt_alone_is_computed_for_no_tokens) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 0, 100, 0);
    w_run(&w);
    assert_int_equal(w.req[1].sample[0].finish, FINISH_LENGTH);
    assert_int_equal(w.req[1].sample[0].n, 0);
    world_stop(&w);
}

TEST(long_prompts_come_in_chunks_beside_decodes) {
    UNUSED_STATE;
    struct world w = {.n_pages = 1024, .opt = {.chunked_prefill_size = 32}};
    world_start(&w);
    w_submit(&w, 1, 0, 8, 60);
    w_step(&w);
    w_work(&w, 0, 0);
    w_submit(&w, 2, 0, 1000, 4);
    w_run(&w);
    assert_true(w.tokens_max <= 33);
    w_assert_whole(&w, 1);
    w_assert_whole(&w, 2);
    world_stop(&w);
}

TEST(prompt_logprobs_begin_at_position_one) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    struct w_req *q = w_prepare(&w, 1, 0, 10, 4);
    q->sampling.logprob_start = 0; /* from the start: but nothing predicts the first token */
    w_tokenized(&w, 1, NULL, 0);
    w_run(&w);
    w_assert_whole(&w, 1);
    assert_int_equal(q->sample[0].n_prompt_logprobs, 9);
    world_stop(&w);
}

TEST(an_earlier_stop_in_the_text_wins) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 0, 8, 60);
    for (int i = 0; i < 12; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    assert_true(w.req[1].sample[0].n > 6);
    w_finish(&w, 1, 0, 5);
    uint32_t n = w.req[1].sample[0].n;
    w_run(&w);
    assert_int_equal(w.req[1].sample[0].n, n); /* nothing came after it */
    w_router_says(&w, MSG_ack, 1, 0, 5, true);
    assert_true(core_is_idle(w.core));
    world_stop(&w);
}

TEST(a_cancel_frees_within_the_steps_in_flight) {
    UNUSED_STATE;
    struct world w = {.n_pages = 16};
    world_start(&w);
    w_submit(&w, 1, 0, 40, 20);
    w_step(&w);
    w_work(&w, 0, 0);
    w_step(&w);
    w_router_says(&w, MSG_cancel, 1, 0, 0, false);
    w_step(&w);
    while (w_work(&w, 0, 0))
        ;
    assert_true(core_is_idle(w.core));
    w_tokenized(&w, 1, NULL, 0); /* a late copy of it does not run */
    assert_true(core_is_idle(w.core));
    w_submit(&w, 2, 0, 50, 10); /* needs nearly all pages */
    w_run(&w);
    w_assert_whole(&w, 2);
    world_stop(&w);
}

TEST(a_cancel_that_overtakes_its_request_holds) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_router_says(&w, MSG_cancel, 7, 0, 0, false);
    w_submit(&w, 7, 0, 10, 10);
    assert_true(core_is_idle(w.core));
    world_stop(&w);
}

TEST(one_too_many_is_refused_with_a_time) {
    UNUSED_STATE;
    struct world w = {.n_slots = 1, .opt = {.max_queued = 3}};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 5; rid++) {
        w_submit(&w, rid, 0, 10, 5);
        w_step(&w);
    }
    for (uint32_t rid = 1; rid <= 4; rid++)
        assert_false(w.req[rid].is_failed);
    assert_int_equal(w.req[5].code, BY_EFULL);
    assert_true(w.req[5].retry_after_ms >= 1000);
    w_run(&w);
    for (uint32_t rid = 1; rid <= 4; rid++)
        w_assert_whole(&w, rid);
    world_stop(&w);
}

/* A quiet night counted as the time that one request took: in the morning a full queue said to come back in a minute. */
TEST(idle_time_is_no_part_of_the_pace) {
    UNUSED_STATE;
    struct world w = {.n_slots = 1, .opt = {.max_queued = 3}};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 2; rid++) {
        w_submit(&w, rid, 0, 10, 5);
        w_run(&w);
        w_router_says(&w, MSG_ack, rid, 0, 5, true);
        w.now += UINT64_C(8) * 3600 * 1000000000;
    }
    for (uint32_t rid = 3; rid <= 7; rid++) {
        w_submit(&w, rid, 0, 10, 5);
        w_step(&w);
    }
    assert_int_equal(w.req[7].code, BY_EFULL);
    assert_int_equal(w.req[7].retry_after_ms, 1000);
    world_stop(&w);
}

TEST(time_limits_end_a_request) {
    UNUSED_STATE;
    struct world w = {.n_slots = 1, .opt = {.queue_timeout_ms = 100, .run_timeout_ms = 1000}};
    world_start(&w);
    w_submit(&w, 1, 0, 10, 400);
    w_submit(&w, 2, 0, 10, 4);
    w_step(&w);
    w.now += 200 * UINT64_C(1000000);
    w_step(&w);
    assert_int_equal(w.req[2].code, BY_ETIMEOUT);
    assert_false(w.req[1].is_failed);
    w.now += 2000 * UINT64_C(1000000);
    w_step(&w);
    assert_int_equal(w.req[1].code, BY_ETIMEOUT);
    w_run(&w);
    assert_true(core_is_idle(w.core));
    world_stop(&w);
}

TEST(a_steady_step_allocates_nothing) {
    UNUSED_STATE;
    struct world w = {.n_pages = 8192, .n_slots = 64};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 64; rid++)
        w_submit(&w, rid, 0, 10, 400);
    for (int i = 0; i < 100; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w.n_allocs = 0;
    for (int i = 0; i < 200; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    assert_int_equal(w.n_allocs, 0);
    w_run(&w);
    world_stop(&w);
}

/* 4,096 may wait, whatever their prompts: of long ones with many samples that was more than any memory. */
TEST(what_waits_has_a_ceiling_in_bytes_and_large_ones_feel_it_first) {
    UNUSED_STATE;
    struct world w = {.n_pages = 2048, .n_slots = 4};
    world_start(&w);
    uint64_t base = by_mem_n_bytes();
    world_stop(&w);
    w = (struct world){.n_pages = 2048, .n_slots = 4, .opt.held_max = (base + (2 << 20)) / 3 * 4};
    world_start(&w);
    uint32_t rid = 1, n_large;
    for (; !w.req[rid - (rid > 1)].is_failed; rid++) {
        w_prepare(&w, rid, 0, 1500, 8)->sampling.n = 4;
        w_tokenized(&w, rid, NULL, 0);
        assert_true(rid < 100);
    }
    n_large = rid - 2;
    assert_int_equal(w.req[n_large + 1].code, BY_EFULL);
    assert_true(w.req[n_large + 1].retry_after_ms > 0);
    assert_true(n_large > 0);
    w_submit(&w, rid, 0, 100, 8);
    assert_false(w.req[rid].is_failed);
    w_run(&w);
    w_assert_whole(&w, rid);
    for (uint32_t i = 1; i <= n_large; i++) {
        w_assert_whole(&w, i);
        w_router_says(&w, MSG_ack, i, 0, 8, true);
    }
    rid++;
    w_prepare(&w, rid, 0, 1500, 8)->sampling.n = 4; /* what was freed is there for others */
    w_tokenized(&w, rid, NULL, 0);
    w_run(&w);
    w_assert_whole(&w, rid);
    world_stop(&w);
}

TESTS(RUN(what_waits_has_a_ceiling_in_bytes_and_large_ones_feel_it_first),
      RUN(a_request_runs_to_its_length), RUN(a_stop_id_ends_it_and_the_overrun_is_dropped),
      RUN(the_prompt_alone_is_computed_for_no_tokens),
      RUN(long_prompts_come_in_chunks_beside_decodes), RUN(prompt_logprobs_begin_at_position_one),
      RUN(an_earlier_stop_in_the_text_wins), RUN(a_cancel_frees_within_the_steps_in_flight),
      RUN(a_cancel_that_overtakes_its_request_holds), RUN(one_too_many_is_refused_with_a_time),
      RUN(idle_time_is_no_part_of_the_pace), RUN(time_limits_end_a_request),
      RUN(a_steady_step_allocates_nothing));
