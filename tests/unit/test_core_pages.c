/* Pages: what the tree gives, and who gives way when there are not enough. */
#include "tests/unit/core_world.h"

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

/* Whoever waits for a prefix that another one computes is not compared with it in every step. But it must see that one go. */
TEST(who_waits_for_a_prefix_goes_on_when_its_leader_leaves) {
    UNUSED_STATE;
    struct world w = {.opt = {.chunked_prefill_size = 16, .policy = POLICY_FAIR}};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 3; rid++) {
        static const char *const tenants[] = {"a", "b", "c"};
        w_prepare(&w, rid, 200, 4, 4)->routing.tenant = by_str_of(tenants[rid - 1]);
        w_tokenized(&w, rid, NULL, 0);
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w_step(&w);
    assert_true(w.n_prefill_tokens < 64); /* the first one's alone */
    w_router_says(&w, MSG_cancel, 1, 0, 0, false);
    w_run(&w);
    w_assert_whole(&w, 2);
    w_assert_whole(&w, 3);
    assert_true(w.n_prefill_tokens < 64 + 204 + 48); /* and the third found the second's */
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

TEST(a_prompt_beyond_the_cache_is_refused) {
    UNUSED_STATE;
    struct world w = {.n_pages = 16};
    world_start(&w);
    w_submit(&w, 1, 0, 65, 10);
    w_submit(&w, 2, 0, 60, 100); /* runs up to what fits */
    w_run(&w);
    assert_int_equal(w.req[1].code, BY_ETOOLONG);
    assert_int_equal(w.req[2].sample[0].n, 4);
    assert_int_equal(w.req[2].sample[0].finish, FINISH_LENGTH);
    world_stop(&w);
}

/* Pages that others hold locked were not among those that can be had, but each newcomer was charged for them all the same:
 * of many who shared a prefix of half the cache one ran at a time. */
TEST(a_prefix_that_is_in_use_costs_a_newcomer_nothing) {
    UNUSED_STATE;
    struct world w = {.n_pages = 100};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 6; rid++)
        w_submit(&w, rid, 220, 4, 20); /* 55 pages together, and at most 7 each */
    w_run(&w);
    assert_int_equal(w.rows_max, 6);
    for (uint32_t rid = 1; rid <= 6; rid++)
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

/* The prompt whose turn it was had no page left and, as the youngest, gave its own up. The step ended there, empty, and nobody
 * woke the scheduler again for the older one that had room now. */
TEST(a_prompt_that_gives_way_itself_stops_no_other) {
    UNUSED_STATE;
    struct world w = {.n_pages = 40, .opt = {.chunked_prefill_size = 16, .depth = 1}};
    world_start(&w);
    w_submit(&w, 1, 0, 100, 4);
    for (int i = 0; i < 5; i++) { /* half of the pages */
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w_router_says(&w, MSG_pause, 1, 0, 0, false);
    w_submit(&w, 2, 0, 100, 4); /* nobody runs: it enters whatever the paused one has left */
    w_step(&w);
    w_work(&w, 0, 0);
    w_router_says(&w, MSG_unpause, 1, 0, 0, false); /* behind 2 in the order of chunks */
    w_run(&w);
    w_assert_whole(&w, 1);
    w_assert_whole(&w, 2);
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

TESTS(RUN(cached_tokens_tell_the_truth), RUN(two_prompts_at_once_compute_their_prefix_once),
      RUN(who_waits_for_a_prefix_goes_on_when_its_leader_leaves),
      RUN(samples_share_the_prompts_whole_pages), RUN(a_prompt_beyond_the_cache_is_refused),
      RUN(a_prefix_that_is_in_use_costs_a_newcomer_nothing),
      RUN(memory_pressure_retracts_and_nobody_notices), RUN(a_copy_of_a_run_does_not_hold_its_twin),
      RUN(a_slow_reader_holds_and_goes_on), RUN(the_paused_give_way_when_nobody_runs),
      RUN(the_paused_give_way_to_those_who_wait),
      RUN(a_prompt_that_gives_way_itself_stops_no_other),
      RUN(a_pin_gives_way_to_one_who_runs_alone));
