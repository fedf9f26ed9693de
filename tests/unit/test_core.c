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

/* DESIGN's exactness rule: floor((len - 1) / page) * page of the same prompt, the page floor of a shared part. */
TEST(cached_tokens_tell_the_truth) {
    UNUSED_STATE;
    for (uint32_t page = 1; page <= 16; page *= 4) {
        for (uint32_t len = 30; len <= 34; len++) {
            struct world w = {.page_size = page};
            world_start(&w);
            w_submit(&w, 1, len, 0, 4);
            w_run(&w);
            w_submit(&w, 2, len, 0, 4);
            w_run(&w);
            w_submit(&w, 3, 21, 12, 4);
            w_run(&w);
            assert_int_equal(w.req[1].sample[0].n_cached, 0);
            assert_int_equal(w.req[2].sample[0].n_cached, (len - 1) / page * page);
            assert_int_equal(w.req[3].sample[0].n_cached, 21 / page * page);
            for (uint32_t rid = 1; rid <= 3; rid++)
                w_assert_whole(&w, rid);
            world_stop(&w);
        }
    }
}

TEST(two_prompts_at_once_compute_their_prefix_once) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 200, 8, 4);
    w_submit(&w, 2, 200, 8, 4);
    w_run(&w);
    /* The second waits while the first computes; the last few tokens are not worth one more step. */
    assert_true(w.req[2].sample[0].n_cached > 200 - 32);
    assert_true(w.n_prefill_tokens < 208 + 8 + 32);
    w_assert_whole(&w, 1);
    w_assert_whole(&w, 2);
    world_stop(&w);
}

TEST(samples_share_the_prompts_whole_pages) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    struct w_req *q = w_prepare(&w, 1, 0, 22, 8);
    q->sampling.n = W_SAMPLES;
    w_tokenized(&w, 1, NULL, 0);
    w_run(&w);
    w_assert_whole(&w, 1);
    assert_int_equal(w.n_prefill_tokens, 22 + 3 * 2); /* 20 of 22 lie in whole pages */
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

TEST(memory_pressure_retracts_and_nobody_notices) {
    UNUSED_STATE;
    struct world w = {.n_pages = 40, .opt = {.conservativeness = 0.05}};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 8; rid++)
        w_submit(&w, rid, 0, 10, 100);
    w_run(&w);
    for (uint32_t rid = 1; rid <= 8; rid++)
        w_assert_whole(&w, rid);
    world_stop(&w);
}

/* Two samples that may not read the cache each compute the prompt. The second filed its chunks, found the first one's in the
 * tree and locked them: pages for two prompts, of which there were not enough, and nobody to retract. */
TEST(a_copy_of_a_run_does_not_hold_its_twin) {
    UNUSED_STATE;
    struct world w = {.n_pages = 40, .n_slots = 1};
    world_start(&w);
    struct w_req *q = w_prepare(&w, 1, 0, 100, 20);
    q->sampling.n = 2;
    q->sampling.logprob_start = 0;
    w_tokenized(&w, 1, NULL, 0);
    w_run(&w);
    w_assert_whole(&w, 1);
    world_stop(&w);
}

/* Slow readers kept all pages, and whoever came had to wait for them. */
TEST(the_paused_give_way_when_nobody_runs) {
    UNUSED_STATE;
    struct world w = {.n_pages = 40};
    world_start(&w);
    w_submit(&w, 1, 0, 100, 40);
    for (int i = 0; i < 30; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w_router_says(&w, MSG_pause, 1, 0, 0, false);
    w_run(&w);
    w_submit(&w, 2, 0, 120, 10);
    w_run(&w);
    w_assert_whole(&w, 2);
    w_router_says(&w, MSG_unpause, 1, 0, 0, false);
    w_run(&w);
    w_assert_whole(&w, 1);
    world_stop(&w);
}

/* Clients that do not read held every slot, and then most of the pages, while others waited behind the few that ran. */
TEST(the_paused_give_way_to_those_who_wait) {
    UNUSED_STATE;
    struct world w = {.n_pages = 110, .n_slots = 3, .opt = {.conservativeness = 0.05}};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 3; rid++)
        w_submit(&w, rid, 0, 100, 60);
    for (int i = 0; i < 30; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    for (uint32_t rid = 1; rid <= 2; rid++)
        w_router_says(&w, MSG_pause, rid, 0, 0, false);
    w_submit(&w, 4, 0, 120, 10);
    for (int i = 0; i < 20 && !w.req[4].sample[0].finish; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w_assert_whole(&w, 4);
    assert_false(w.req[3].sample[0].finish); /* 4 did not wait for it */
    for (uint32_t rid = 1; rid <= 2; rid++)
        w_router_says(&w, MSG_unpause, rid, 0, 0, false);
    w_run(&w);
    for (uint32_t rid = 1; rid <= 3; rid++)
        w_assert_whole(&w, rid);
    world_stop(&w);
}

TEST(a_pin_gives_way_to_one_who_runs_alone) {
    UNUSED_STATE;
    struct world w = {.n_pages = 40};
    world_start(&w);
    w_submit(&w, 1, 0, 80, 4);
    w_run(&w);
    char json[1024] = "{\"ids\":[";
    for (uint32_t i = 0; i < 76; i++)
        snprintf(json + strlen(json), sizeof json - strlen(json), i ? ",%u" : "%u",
                 w.req[1].ids[i]);
    snprintf(json + strlen(json), sizeof json - strlen(json), "],\"ttl_s\":1000}");
    w_ask(&w, "pin", json);
    assert_non_null(strstr(w.answer, "\"pinned_tokens\":76"));
    w_submit(&w, 2, 0, 120, 30); /* needs nearly all of the pages */
    w_run(&w);
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

TEST(a_prompt_beyond_the_cache_is_refused) {
    UNUSED_STATE;
    struct world w = {.n_pages = 16};
    world_start(&w);
    w_submit(&w, 1, 0, 65, 10);
    w_submit(&w, 2, 0, 60, 100); /* runs up to what fits */
    w_run(&w);
    assert_int_equal(w.req[1].code, BY_ETOOLONG);
    assert_int_equal(w.req[2].sample[0].n, 5);
    assert_int_equal(w.req[2].sample[0].finish, FINISH_LENGTH);
    world_stop(&w);
}

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

TEST(an_orphan_waits_ten_seconds_for_its_router) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w.epoch = 78;
    w_submit(&w, 1, 0, 10, 4);
    w_run(&w);
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
    world_start(&w);
    w.epoch = 78;
    w_submit(&w, 1, 0, 10, 4);
    w_run(&w);
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

TEST(a_slow_reader_holds_and_goes_on) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 0, 10, 40);
    w_submit(&w, 2, 0, 10, 40);
    for (int i = 0; i < 6; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w_router_says(&w, MSG_pause, 1, 0, 0, false);
    w_run(&w);
    w_assert_whole(&w, 2);
    assert_true(w.req[1].sample[0].n < 20);
    w_router_says(&w, MSG_unpause, 1, 0, 0, false);
    w_run(&w);
    w_assert_whole(&w, 1);
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

TEST(a_worker_that_lies_about_its_capacity_is_refused) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    struct msg_capacity bad[] = {
        {.page_size = 0, .n_pages = 9, .n_slots = 1, .step_tokens_max = 1, .world = 1},
        {.page_size = 4, .n_pages = 0, .n_slots = 1, .step_tokens_max = 1, .world = 1},
        {.page_size = 4, .n_pages = UINT32_MAX, .n_slots = 1, .step_tokens_max = 1, .world = 1},
        {.page_size = 4, .n_pages = 9, .n_slots = UINT32_MAX, .step_tokens_max = 1, .world = 1},
        {.page_size = 4, .n_pages = 9, .n_slots = 1, .step_tokens_max = 0, .world = 1},
        {.page_size = 4, .n_pages = 9, .n_slots = 1, .step_tokens_max = 1, .world = 0},
        {.page_size = 4, .n_pages = 9, .n_slots = 1, .step_tokens_max = 1, .world = 2, .rank = 2},
        {.page_size = 4,
         .n_pages = 9,
         .n_slots = 1,
         .step_tokens_max = 1,
         .world = 1,
         .replica = 9},
    };
    for (uint32_t i = 0; i < BY_COUNTOF(bad); i++) {
        struct msg_hello h = {
            .role = ROLE_GPU_WORKER, .epoch = 9, .model = {.n_vocab = W_VOCAB}, .capacity = bad[i]};
        struct by_err err = {0};
        assert_int_equal(core_admit(w.core, &h, &err), BY_EINVAL);
        assert_true(strlen(err.text) > 10);
    }
    world_stop(&w);
}

TEST(results_that_make_no_sense_end_the_session_not_the_scheduler) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 0, 10, 10);
    w_step(&w);
    struct msg stale = {.kind = MSG_step_done, .step_done = {.step = 0}};
    core_on_message(w.core, w.now, w.worker[0].peer, &stale);
    assert_true(w.worker[0].is_up);
    struct msg wrong = {.kind = MSG_step_done, .step_done = {.step = 1}}; /* no tokens */
    core_on_message(w.core, w.now, w.worker[0].peer, &wrong);
    assert_true(core_check(w.core));
    assert_false(w.worker[0].is_up);
    w_worker_up(&w, 0);
    w_run(&w);
    w_assert_whole(&w, 1);
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

enum { CHAOS_RUNS = 200 };
static uint64_t chaos_run;

/* Random clients, faults and memory pressure; every output must equal the undisturbed run's, every page come home. */
static void chaos(uint64_t seed) {
    uint64_t z = seed;
    struct world w = {.page_size = 1 + (uint32_t)(by_rand_next(&z) % 8),
                      .n_pages = 60 + (uint32_t)(by_rand_next(&z) % 100),
                      .n_slots = 1 + (uint32_t)(by_rand_next(&z) % 12),
                      .step_tokens = 16 + (uint32_t)(by_rand_next(&z) % 100),
                      .opt = {.n_replicas = 1 + (uint32_t)(by_rand_next(&z) % 2),
                              .chunked_prefill_size = 4 + (uint32_t)(by_rand_next(&z) % 60),
                              .depth = 1 + (uint32_t)(by_rand_next(&z) % 2),
                              .conservativeness = (double)(by_rand_next(&z) % 10) / 8 + 0.01,
                              .policy = (enum policy_kind)(by_rand_next(&z) % 7),
                              .preemption_gap = 2,
                              .eviction = (enum radix_policy)(by_rand_next(&z) % 5),
                              .no_radix_cache = by_rand_next(&z) % 8 == 0}};
    world_start(&w);
    uint32_t n_reqs = 0;
    bool is_cancelled[W_REQS] = {false};
    for (int event = 0; event < 400; event++) {
        uint32_t r = (uint32_t)(by_rand_next(&z) % w.opt.n_replicas);
        uint32_t rid = n_reqs ? (uint32_t)(by_rand_next(&z) % n_reqs) : 0;
        switch (by_rand_next(&z) % 24) {
        case 0:
        case 1:
        case 2: {
            uint32_t room = w.n_pages * w.page_size / 3;
            struct w_req *q = w_prepare(&w, n_reqs, (uint32_t)(by_rand_next(&z) % (room / 2 + 1)),
                                        1 + (uint32_t)(by_rand_next(&z) % (room / 4 + 1)),
                                        1 + (uint32_t)(by_rand_next(&z) % BY_MIN(room, 60u)));
            q->sampling.n =
                1 + (uint32_t)(by_rand_next(&z) % 6 == 0 ? by_rand_next(&z) % W_SAMPLES : 0);
            q->sampling.logprobs = by_rand_next(&z) % 4 == 0;
            q->stop_ids[0] = (uint32_t)(by_rand_next(&z) % W_VOCAB);
            q->sampling.stop_ids = (struct msg_u32s){q->stop_ids, 1};
            q->sampling.ignore_eos = by_rand_next(&z) % 2;
            q->sampling.min_new_tokens = (uint32_t)(by_rand_next(&z) % 3);
            static const char *const tenants[] = {"", "a", "b", "c"};
            q->routing.tenant = by_str_of(tenants[by_rand_next(&z) % 4]);
            q->routing.priority = (int32_t)(by_rand_next(&z) % 8);
            if (by_rand_next(&z) % 4 == 0) q->routing.extra_key = BY_STR("salt");
            w_tokenized(&w, n_reqs++, NULL, 0);
            break;
        }
        case 3:
            if (n_reqs == 0 || by_rand_next(&z) % 2) break;
            is_cancelled[rid] = true;
            w_router_says(&w, MSG_cancel, rid, 0, 0, false);
            break;
        case 4:
            if (n_reqs) w_router_says(&w, MSG_pause, rid, 0, 0, false);
            break;
        case 5:
            if (n_reqs) w_router_says(&w, MSG_unpause, rid, 0, 0, false);
            break;
        case 6:
            if (by_rand_next(&z) % 4) break;
            w_worker_kill(&w, r);
            break;
        case 7:
            if (!w.worker[r].is_up) w_worker_up(&w, r);
            break;
        case 8:
            if (by_rand_next(&z) % 4) break;
            w_detok_kill(&w);
            w_detok_up(&w);
            break;
        case 9:
            w_work(&w, r, by_rand_next(&z) % 4 == 0 ? BY_EIO : 0);
            break;
        case 10: { /* a copy of something */
            if (n_reqs == 0) break;
            struct msg_resume resume = {.n_delivered = 0};
            w_tokenized(&w, rid, &resume, 1);
            break;
        }
        case 11:
            if (n_reqs && w.req[rid].sampling.n == 1)
                w_router_says(&w, MSG_ack, rid, 0, w.req[rid].sample[0].n,
                              w.req[rid].sample[0].finish != 0);
            break;
        default:
            if (by_rand_next(&z) % 2)
                w_step(&w);
            else
                w_work(&w, r, 0);
        }
    }
    for (uint32_t i = 0; i < w.opt.n_replicas; i++) {
        if (!w.worker[i].is_up) w_worker_up(&w, i);
    }
    for (uint32_t i = 0; i < n_reqs; i++)
        w_router_says(&w, MSG_unpause, i, 0, 0, false);
    w_run(&w);
    for (uint32_t i = 0; i < n_reqs; i++) {
        if (is_cancelled[i] || (w.req[i].is_failed && w.req[i].code == BY_EPOISON)) continue;
        if (!w.req[i].sample[0].finish) w_show(&w);
        w_assert_whole(&w, i);
        w_router_says(&w, MSG_ack, i, 0, 0, true);
    }
    assert_true(core_is_idle(w.core));
    world_stop(&w);
}

TEST(chaos_changes_nothing) {
    UNUSED_STATE;
    uint64_t seed = test_seed();
    for (uint64_t i = 0; i < CHAOS_RUNS; i++) {
        /* a failure names it: set SEED to chaos_run / CHAOS_RUNS */
        chaos_run = seed * CHAOS_RUNS + i;
        chaos(chaos_run);
    }
}

TESTS(RUN(a_request_runs_to_its_length), RUN(a_stop_id_ends_it_and_the_overrun_is_dropped),
      RUN(the_prompt_alone_is_computed_for_no_tokens), RUN(cached_tokens_tell_the_truth),
      RUN(two_prompts_at_once_compute_their_prefix_once),
      RUN(samples_share_the_prompts_whole_pages), RUN(long_prompts_come_in_chunks_beside_decodes),
      RUN(an_earlier_stop_in_the_text_wins), RUN(a_cancel_frees_within_the_steps_in_flight),
      RUN(a_cancel_that_overtakes_its_request_holds), RUN(one_too_many_is_refused_with_a_time),
      RUN(memory_pressure_retracts_and_nobody_notices), RUN(a_copy_of_a_run_does_not_hold_its_twin),
      RUN(the_paused_give_way_when_nobody_runs), RUN(the_paused_give_way_to_those_who_wait),
      RUN(a_pin_gives_way_to_one_who_runs_alone), RUN(prompt_logprobs_begin_at_position_one),
      RUN(a_prompt_beyond_the_cache_is_refused), RUN(a_lost_worker_is_only_a_pause),
      RUN(a_lost_detokenizer_gets_it_all_again), RUN(a_copy_of_a_live_request_replays_it),
      RUN(a_new_scheduler_goes_on_from_the_journal), RUN(a_lost_router_takes_its_requests_along),
      RUN(an_orphan_waits_ten_seconds_for_its_router),
      RUN(an_orphan_is_told_again_when_its_router_comes),
      RUN(a_failure_is_told_to_a_router_that_was_away),
      RUN(a_text_that_kills_its_detokenizer_is_found_and_nobody_else),
      RUN(a_detokenizer_that_dies_before_it_reads_accuses_nobody),
      RUN(who_leaves_while_it_is_read_alone_holds_nobody_up),
      RUN(a_poison_request_is_found_and_nobody_else), RUN(a_broken_session_is_no_death),
      RUN(deaths_without_a_step_in_flight_count_against_nobody),
      RUN(a_failed_step_is_computed_again), RUN(a_slow_reader_holds_and_goes_on),
      RUN(time_limits_end_a_request), RUN(a_worker_that_lies_about_its_capacity_is_refused),
      RUN(results_that_make_no_sense_end_the_session_not_the_scheduler),
      RUN(a_steady_step_allocates_nothing), RUN(chaos_changes_nothing));
