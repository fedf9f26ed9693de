#include "common/base/json.h"
#include "tests/unit/core_world.h"

/* The answer is JSON; the number at a path like "loads.0.num_running_reqs". */
static double number_at(const struct world *w, const char *path) {
    static const struct by_json_limits limits = {
        .bytes_max = 1 << 20, .depth_max = 16, .refuse_duplicates = true};
    struct by_json *root = NULL;
    struct by_err err;
    if (by_json_parse(&root, by_str_of(w->answer), &limits, &err) != 0)
        fail_msg("%s: %s", err.text, w->answer);
    const struct by_json *at = root;
    struct by_str rest = by_str_of(path), head;
    while (rest.n) {
        by_str_split(&rest, '.', &head);
        uint64_t i;
        char key[64];
        if (by_str_to_u64(head, &i)) {
            at = by_json_first(at);
            for (; at && i > 0; i--)
                at = by_json_next(at);
        } else {
            memcpy(key, head.p, head.n);
            key[head.n] = '\0';
            at = by_json_get(at, key);
        }
        if (!at) fail_msg("no %s in %s", path, w->answer);
    }
    double value = by_json_f64(at);
    by_json_free(root);
    return value;
}

TEST(loads_and_dump_tell_what_runs) {
    UNUSED_STATE;
    struct world w = {.n_slots = 2};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 5; rid++) {
        w_prepare(&w, rid, 0, 20, 40)->routing.tenant = BY_STR("t\"1\"");
        w_tokenized(&w, rid, NULL, 0);
    }
    for (int i = 0; i < 6; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w_ask(&w, "loads", "");
    assert_int_equal(w.answer_code, 0);
    assert_true(number_at(&w, "loads.0.num_running_reqs") == 2);
    assert_true(number_at(&w, "loads.0.num_waiting_reqs") == 3);
    assert_true(number_at(&w, "loads.0.max_total_num_tokens") == 1024);
    assert_true(number_at(&w, "loads.0.num_used_tokens") >= 40);
    w_ask(&w, "dump", "{\"top\":3}");
    assert_true(number_at(&w, "queued") == 3);
    assert_true(number_at(&w, "running.0.prompt_tokens") == 20);
    assert_true(number_at(&w, "tenants.0.requests") == 5);
    assert_true(number_at(&w, "waiting.2.rid") == 5);
    w_run(&w);
    w_ask(&w, "dump", "");
    assert_true(number_at(&w, "tenants.0.output_tokens") == 200);
    assert_true(number_at(&w, "output_tokens") == 200);
    w_ask(&w, "metrics", "{}");
    assert_int_equal(w.answer_code, 0);
    world_stop(&w);
}

/* Behind a hundred tenants with requests all idle ones were listed, ten thousand at most. */
TEST(a_hundred_tenants_are_listed_busy_ones_first) {
    UNUSED_STATE;
    struct world w = {0};
    char name[W_REQS][8];
    world_start(&w);
    for (uint32_t rid = 1; rid <= 130; rid++) {
        snprintf(name[rid], sizeof name[rid], "t%u", rid);
        w_prepare(&w, rid, 0, 4, 1)->routing.tenant = by_str_of(name[rid]);
        w_tokenized(&w, rid, NULL, 0);
    }
    w_run(&w);
    for (uint32_t rid = 1; rid <= 20; rid++)
        w_router_says(&w, MSG_ack, rid, 0, 1, true);
    w_ask(&w, "dump", "");
    uint32_t n = 0;
    for (const char *at = w.answer; (at = strstr(at, "\"counter\":")) != NULL; at++)
        n++;
    assert_int_equal(n, 100);
    assert_null(strstr(w.answer, "\"t20\""));
    world_stop(&w);
}

/* It was a hundredth too low. */
TEST(what_waits_is_told_from_the_first_hundred) {
    UNUSED_STATE;
    struct world w = {.n_slots = 1};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 201; rid++) {
        w_submit(&w, rid, 0, 10, 4);
        if (rid == 1) w_step(&w);
    }
    w_ask(&w, "loads", "");
    assert_true(number_at(&w, "loads.0.num_waiting_uncached_tokens") == 2000);
    world_stop(&w);
}

/* A server that had nothing to do told the rate of its last second of work for ever. */
TEST(a_server_at_rest_generates_nothing) {
    UNUSED_STATE;
    enum { STEP_NS = 50000000 };
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 0, 10, 60);
    while (w_step(&w) | w_work(&w, 0, 0))
        w.now += STEP_NS;
    w_assert_whole(&w, 1);
    w_ask(&w, "loads", "");
    double rate = number_at(&w, "loads.0.gen_throughput");
    assert_true(rate > 15 && rate < 25);
    w.now += 60 * UINT64_C(1000000000);
    w_ask(&w, "loads", "");
    assert_true(number_at(&w, "loads.0.gen_throughput") < 1);
    world_stop(&w);
}

TEST(the_tree_shows_its_best_runs) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 4; rid++) {
        w_submit(&w, rid, 40, 8, 2);
        w_run(&w);
    }
    w_ask(&w, "cache", "{\"top\":2}");
    assert_true(number_at(&w, "top.0.tokens") == 40);
    assert_true(number_at(&w, "top.0.hits") == 3);
    assert_true(number_at(&w, "cached_tokens") == 120);
    world_stop(&w);
}

TEST(after_a_flush_nothing_is_cached) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 40, 0, 4);
    w_run(&w);
    w_ask(&w, "flush", "{}");
    assert_true(number_at(&w, "flushed_tokens") == 40); /* 43 have KV; a page is 4 */
    assert_true(number_at(&w, "kept_tokens") == 0);
    w_submit(&w, 2, 40, 0, 4);
    w_run(&w);
    assert_int_equal(w.req[2].sample[0].n_cached, 0);
    world_stop(&w);
}

TEST(a_pinned_prefix_outlives_a_flush_until_its_time) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 20, 0, 4);
    w_run(&w);
    char json[512] = "{\"ttl_s\":5,\"ids\":[";
    for (uint32_t i = 0; i < 20; i++)
        snprintf(json + strlen(json), sizeof json - strlen(json), "%s%u", i ? "," : "",
                 w.req[1].ids[i]);
    snprintf(json + strlen(json), sizeof json - strlen(json), "]}");
    w_ask(&w, "pin", json);
    assert_true(number_at(&w, "pinned_tokens") == 20);
    w_ask(&w, "flush", "{}");
    assert_true(number_at(&w, "kept_tokens") == 20);
    w_submit(&w, 2, 20, 0, 4);
    w_run(&w);
    assert_int_equal(w.req[2].sample[0].n_cached, 16);
    w.now = core_next_timer(w.core);
    w_step(&w);
    w_ask(&w, "flush", "{}");
    assert_true(number_at(&w, "kept_tokens") == 0);
    w_ask(&w, "unpin", "{\"pin\":1}");
    assert_int_equal(w.answer_code, BY_ENOTFOUND);
    world_stop(&w);
}

TEST(a_pin_goes_with_its_replica_and_leaves_half_the_pages) {
    UNUSED_STATE;
    struct world w = {.n_pages = 16};
    world_start(&w);
    w_submit(&w, 1, 60, 0, 1);
    w_run(&w);
    char json[512] = "{\"ids\":[";
    for (uint32_t i = 0; i < 60; i++)
        snprintf(json + strlen(json), sizeof json - strlen(json), "%s%u", i ? "," : "",
                 w.req[1].ids[i]);
    snprintf(json + strlen(json), sizeof json - strlen(json), "]}");
    w_ask(&w, "pin", json);
    assert_true(number_at(&w, "pinned_tokens") == 32);
    w_submit(&w, 2, 0, 30, 2);
    w_run(&w);
    w_assert_whole(&w, 2);
    w_worker_kill(&w, 0);
    w_worker_up(&w, 0);
    w_submit(&w, 3, 0, 60, 2);
    w_run(&w);
    w_assert_whole(&w, 3);
    world_stop(&w);
}

TEST(an_abort_ends_with_what_there_is) {
    UNUSED_STATE;
    struct world w = {.n_slots = 1};
    world_start(&w);
    w_submit(&w, 1, 0, 10, 50);
    w_submit(&w, 2, 0, 10, 50);
    for (int i = 0; i < 8; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w_ask(&w, "abort", "{\"epoch\":77,\"rid\":1}");
    assert_true(number_at(&w, "aborted") == 1);
    assert_int_equal(w.req[1].sample[0].finish, FINISH_ABORT);
    assert_true(w.req[1].sample[0].n > 0);
    w_ask(&w, "abort", "{\"all\":true}");
    assert_true(number_at(&w, "aborted") == 1);
    assert_int_equal(w.req[2].sample[0].finish, FINISH_ABORT);
    w_run(&w);
    for (uint32_t rid = 1; rid <= 2; rid++)
        w_router_says(&w, MSG_ack, rid, 0, 0, true);
    assert_true(core_is_idle(w.core));
    world_stop(&w);
}

TEST(a_draining_server_takes_nothing_new) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_submit(&w, 1, 0, 10, 10);
    w_ask(&w, "drain", "{}");
    w_submit(&w, 2, 0, 10, 10);
    assert_int_equal(w.req[2].code, BY_EDRAINING);
    w_run(&w);
    assert_false(w.is_ready);
    w_assert_whole(&w, 1);
    world_stop(&w);
}

TEST(bad_questions_are_answered_in_words) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    static const char *const bad[][2] = {
        {"nonsense", "{}"},
        {"dump", "{"},
        {"dump", "{\"top\":-1}"},
        {"abort", "{}"},
        {"pin", "{}"},
        {"pin", "{\"ids\":[]}"},
        {"pin", "{\"ids\":[1,\"x\"]}"},
        {"pin", "{\"ids\":[1e30]}"},
        {"unpin", "[]"},
        {"pin", "{\"ids\":7}"},
        {"abort", "{\"rid\":\"a\"}"},
    };
    for (uint32_t i = 0; i < BY_COUNTOF(bad); i++) {
        w_ask(&w, bad[i][0], bad[i][1]);
        assert_true(w.answer_code < 0);
        assert_true(strncmp(w.answer, "{\"error\":\"", 10) == 0);
    }
    w_ask(&w, "pin", "{\"ids\":[1,2,3,4,5]}"); /* nothing of it is in the tree: no pin, no error */
    assert_true(number_at(&w, "pin") == 0);
    world_stop(&w);
}

TESTS(RUN(loads_and_dump_tell_what_runs), RUN(a_hundred_tenants_are_listed_busy_ones_first),
      RUN(what_waits_is_told_from_the_first_hundred), RUN(a_server_at_rest_generates_nothing),
      RUN(the_tree_shows_its_best_runs), RUN(after_a_flush_nothing_is_cached),
      RUN(a_pinned_prefix_outlives_a_flush_until_its_time),
      RUN(a_pin_goes_with_its_replica_and_leaves_half_the_pages),
      RUN(an_abort_ends_with_what_there_is), RUN(a_draining_server_takes_nothing_new),
      RUN(bad_questions_are_answered_in_words));
