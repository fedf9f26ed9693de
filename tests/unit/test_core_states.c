/* Models whose layers carry a state along: where it is kept, who starts from it, and when it is gone. The worker of hashes
 * (core_worker.c) fails a test when a sequence starts from the state of other ids. */
#include "scheduler/core_state.h"
#include "tests/unit/core_world.h"

/* A prompt of rid's whole text (prompt and output) and n_own ids more. */
static void next_turn(struct world *w, uint32_t rid, uint32_t of, uint32_t n_own,
                      uint32_t max_new) {
    const struct w_req *before = &w->req[of];
    struct w_req *q = w_prepare(w, rid, 0, before->n_ids + before->sample[0].n + n_own, max_new);
    memcpy(q->ids, before->ids, before->n_ids * sizeof *q->ids);
    memcpy(q->ids + before->n_ids, before->sample[0].ids, before->sample[0].n * sizeof *q->ids);
    w_tokenized(w, rid, NULL, 0);
}

static uint32_t n_held(const struct world *w) {
    return states_n_filed(w->core->replicas[0]->states);
}

static void write_until(struct world *w, uint32_t rid, uint32_t n_output) {
    while (w->req[rid].sample[0].n < n_output) {
        w_step(w);
        w_work(w, 0, 0);
    }
}

TEST(the_same_prompt_again_starts_at_its_last_page) {
    UNUSED_STATE;
    struct world w = {.n_states = 8};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 2; rid++) {
        w_submit(&w, rid, 99, 0, 4);
        w_run(&w);
        w_assert_whole(&w, rid);
    }
    assert_int_equal(w.req[1].sample[0].n_cached, 0);
    assert_int_equal(w.req[2].sample[0].n_cached, 96);
    assert_int_equal(n_held(&w), 1);
    world_stop(&w);
}

TEST(a_short_prompt_takes_no_number) {
    UNUSED_STATE;
    struct world w = {.n_states = 8};
    world_start(&w);
    w_submit(&w, 1, 0, CORE_SHARE_LEAST, 4);
    w_run(&w);
    assert_int_equal(n_held(&w), 0);
    world_stop(&w);
}

/* Two who begin alike, one after the other: only the tree knows where they part, and the third is the first to gain. */
TEST(the_third_with_a_common_beginning_starts_where_the_others_part) {
    UNUSED_STATE;
    struct world w = {.n_states = 8};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 3; rid++) {
        w_submit(&w, rid, 200, 60, 4);
        w_run(&w);
        w_assert_whole(&w, rid);
    }
    assert_int_equal(w.req[1].sample[0].n_cached, 0);
    assert_int_equal(w.req[2].sample[0].n_cached, 0);
    assert_int_equal(w.req[3].sample[0].n_cached, 200);
    world_stop(&w);
}

/* Each turn of a chat says all before again, the last answer too. */
TEST(a_chat_s_next_turn_starts_within_the_last_answer) {
    UNUSED_STATE;
    struct world w = {.n_states = 8};
    world_start(&w);
    w_submit(&w, 1, 0, 100, 300);
    w_run(&w);
    next_turn(&w, 2, 1, 20, 10);
    w_run(&w);
    w_assert_whole(&w, 2);
    uint32_t n = w.req[2].sample[0].n_cached;
    assert_true(n > 400 - CORE_STATE_EVERY - w.page_size && n <= 400);
    world_stop(&w);
}

/* One-off prompts take all places twice over between two turns. What a chat's first turn leaves looks like theirs and goes; from the
 * second on its states are better kept, and each turn's start makes room for what the turn leaves. */
TEST(one_off_prompts_do_not_push_a_chat_out) {
    UNUSED_STATE;
    struct world w = {.n_states = 8, .n_pages = 4096};
    world_start(&w);
    w_submit(&w, 1, 0, 100, 80);
    w_run(&w);
    for (uint32_t turn = 2; turn <= 5; turn++) {
        next_turn(&w, turn, turn - 1, 40, 80);
        w_run(&w);
        w_assert_whole(&w, turn);
        assert_true(w.req[turn].sample[0].n_cached + 64 + 80 >= w.req[turn].n_ids - 40);
        for (uint32_t i = 0; i < 16; i++)
            w_submit(&w, 64 * turn + i, 0, 60 + i, 1);
        w_run(&w);
    }
    assert_true(n_held(&w) <= 8);
    world_stop(&w);
}

/* A common beginning is nobody's chat: who starts from it does not pass it on. */
TEST(a_common_beginning_stays_while_it_is_used) {
    UNUSED_STATE;
    struct world w = {.n_states = 4, .n_pages = 4096};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 12; rid++) {
        w_submit(&w, rid, 200, 60, 4);
        w_run(&w);
        w_submit(&w, 100 + rid, 0, 60, 1);
        w_run(&w);
        if (rid > 2) assert_int_equal(w.req[rid].sample[0].n_cached, 200);
    }
    world_stop(&w);
}

/* What a sequence keeps as it writes is one number that moves along, unless somebody else started from it. */
TEST(a_rolling_state_moves_along_until_it_is_used) {
    UNUSED_STATE;
    struct world w = {.n_states = 8, .opt = {.depth = 1}};
    world_start(&w);
    w_submit(&w, 1, 0, 100, 400);
    write_until(&w, 1, 220);
    assert_int_equal(n_held(&w), 2); /* of the prompt, and of the output */
    next_turn(&w, 2, 1, 4, 1);
    write_until(&w, 2, 1);
    assert_int_equal(w.req[2].sample[0].n_cached, 96 + 3 * CORE_STATE_EVERY);
    w_run(&w);
    /* Of both prompts, of the output, and the one that was used. */
    assert_int_equal(n_held(&w), 4);
    w_assert_whole(&w, 1);
    world_stop(&w);
}

TEST(two_at_once_compute_their_common_beginning_once) {
    UNUSED_STATE;
    struct world w = {.n_states = 8};
    world_start(&w);
    w_submit(&w, 1, 200, 8, 4); /* chunks of 64: it has not come that far */
    w_submit(&w, 2, 200, 8, 4);
    w_run(&w);
    assert_int_equal(w.req[2].sample[0].n_cached, 200);
    assert_int_equal(w.n_prefill_tokens, 208 + 8);
    w_assert_whole(&w, 1);
    w_assert_whole(&w, 2);
    world_stop(&w);
}

/* The first's whole prompt goes into the step that is being built: it can still be asked to keep a state on its way. */
TEST(two_in_one_step_compute_their_common_beginning_once) {
    UNUSED_STATE;
    struct world w = {.n_states = 8, .opt = {.chunked_prefill_size = 256}};
    world_start(&w);
    w_submit(&w, 1, 120, 40, 4);
    w_submit(&w, 2, 120, 40, 4);
    w_run(&w);
    assert_int_equal(w.req[2].sample[0].n_cached, 120);
    assert_int_equal(w.n_prefill_tokens, 160 + 40);
    world_stop(&w);
}

/* Nobody waits for a state that will not be kept. */
TEST(who_comes_too_late_for_a_state_does_not_wait) {
    UNUSED_STATE;
    struct world w = {.n_states = 8, .opt = {.depth = 1}};
    world_start(&w);
    w_submit(&w, 1, 60, 300, 4);
    for (uint32_t i = 0; i < 2; i++) { /* 128 of its tokens are computed */
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w_submit(&w, 2, 60, 4, 4);
    while (w.core->n_waiting > 0 && w.req[1].sample[0].n == 0) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    assert_int_equal(w.core->n_waiting, 0); /* it went along with the first one's last chunk */
    w_run(&w);
    assert_int_equal(w.req[2].sample[0].n_cached, 0);
    w_assert_whole(&w, 2);
    world_stop(&w);
}

TEST(samples_share_their_prompt_s_state) {
    UNUSED_STATE;
    struct world w = {.n_states = 2};
    world_start(&w);
    struct w_req *q = w_prepare(&w, 1, 0, 22, 8);
    q->sampling.n = W_SAMPLES;
    w_tokenized(&w, 1, NULL, 0);
    w_run(&w);
    w_assert_whole(&w, 1);
    assert_int_equal(w.n_prefill_tokens, 22 + 3 * 2);
    world_stop(&w);
}

/* A state is gone with its page, with its worker, and when its number is wanted for another. */
TEST(a_state_goes_with_its_page) {
    UNUSED_STATE;
    struct world w = {.n_states = 4};
    world_start(&w);
    w_submit(&w, 1, 100, 0, 1);
    w_run(&w);
    assert_int_equal(n_held(&w), 1);
    w_ask(&w, "flush", "{}");
    assert_int_equal(n_held(&w), 0);
    w_submit(&w, 2, 100, 0, 1);
    w_run(&w);
    assert_int_equal(w.req[2].sample[0].n_cached, 0);
    w_worker_kill(&w, 0);
    w_worker_up(&w, 0);
    assert_int_equal(n_held(&w), 0);
    w_submit(&w, 3, 100, 0, 1);
    w_run(&w);
    assert_int_equal(w.req[3].sample[0].n_cached, 0);
    for (uint32_t rid = 4; rid < 12; rid++) /* each takes a number, and the third's goes */
        w_submit(&w, rid, 0, 50 + rid, 1);
    w_run(&w);
    assert_int_equal(n_held(&w), 4);
    w_submit(&w, 12, 100, 0, 1);
    w_run(&w);
    assert_int_equal(w.req[12].sample[0].n_cached, 0);
    world_stop(&w);
}

TEST(a_failed_step_keeps_nothing) {
    UNUSED_STATE;
    struct world w = {.n_states = 2};
    world_start(&w);
    w_submit(&w, 1, 60, 0, 10);
    w_step(&w);
    w_work(&w, 0, BY_EIO); /* the second step in flight is void as well */
    assert_int_equal(n_held(&w), 0);
    w_run(&w);
    w_assert_whole(&w, 1);
    assert_int_equal(n_held(&w), 1);
    world_stop(&w);
}

/* Output behind a stop string is cut off while its step is under way: the state that it kept is of ids that are none. */
TEST(a_state_of_output_that_was_cut_off_is_none) {
    UNUSED_STATE;
    struct world w = {.n_states = 2, .page_size = 1, .opt = {.state_every = 1, .depth = 2}};
    world_start(&w);
    w_submit(&w, 1, 60, 0, 40);
    write_until(&w, 1, 10);
    w_step(&w);
    w_finish(&w, 1, 0, 8);
    w_run(&w);
    assert_true(n_held(&w) <= 2);
    next_turn(&w, 2, 1, 4, 4);
    w_run(&w);
    w_assert_whole(&w, 2);
    world_stop(&w);
}

/* Numbers and frames are there from the start; what the tree takes as it grows is the pool's once it is warm. */
TEST(a_steady_step_that_keeps_states_allocates_nothing) {
    UNUSED_STATE;
    struct world w = {.n_pages = 8192, .n_slots = 64, .n_states = 40, .opt = {.state_every = 8}};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 128; rid++) {
        w_submit(&w, rid, 0, 10, 400);
        if (rid != 64) continue; /* these make it warm */
        w_run(&w);
        for (uint32_t k = 1; k <= rid; k++)
            w_router_says(&w, MSG_ack, k, 0, 400, true);
        w_ask(&w, "flush", "{}");
    }
    write_until(&w, 128, 100);
    w.n_allocs = w.n_keeps = 0;
    write_until(&w, 128, 300);
    assert_int_equal(w.n_allocs, 0);
    assert_true(w.n_keeps > 1000);
    w_run(&w);
    world_stop(&w);
}

TEST(n_states_that_make_no_sense_are_refused) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_worker_kill(&w, 0);
    struct msg_hello h = {.role = ROLE_GPU_WORKER,
                          .instance = BY_STR("0"),
                          .epoch = 5,
                          .model = {.n_vocab = W_VOCAB, .context_len = 64},
                          .capacity = {.page_size = w.page_size,
                                       .n_pages = w.n_pages,
                                       .n_slots = w.n_slots,
                                       .step_tokens_max = 64,
                                       .world = 1,
                                       .n_states = REPLICA_STATES_MAX}};
    struct by_err err = {0};
    assert_int_equal(core_admit(w.core, &h, &err), 0);
    h.capacity.n_states++;
    assert_int_equal(core_admit(w.core, &h, &err), BY_EINVAL);
    h.capacity.n_states = 1;
    h.capacity.no_prefix_reuse = true;
    assert_int_equal(core_admit(w.core, &h, &err), BY_EINVAL);
    world_stop(&w);
}

TESTS(RUN(the_same_prompt_again_starts_at_its_last_page), RUN(a_short_prompt_takes_no_number),
      RUN(the_third_with_a_common_beginning_starts_where_the_others_part),
      RUN(a_chat_s_next_turn_starts_within_the_last_answer),
      RUN(one_off_prompts_do_not_push_a_chat_out), RUN(a_common_beginning_stays_while_it_is_used),
      RUN(a_rolling_state_moves_along_until_it_is_used),
      RUN(two_at_once_compute_their_common_beginning_once),
      RUN(two_in_one_step_compute_their_common_beginning_once),
      RUN(who_comes_too_late_for_a_state_does_not_wait), RUN(samples_share_their_prompt_s_state),
      RUN(a_state_goes_with_its_page), RUN(a_failed_step_keeps_nothing),
      RUN(a_state_of_output_that_was_cut_off_is_none),
      RUN(a_steady_step_that_keeps_states_allocates_nothing),
      RUN(n_states_that_make_no_sense_are_refused));
