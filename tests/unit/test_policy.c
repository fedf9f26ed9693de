#include "tests/unit/core_world.h"

enum { MS = 1000000 };

/* Order in which the first tokens of rids 1 … n came. */
static void order_of(const struct world *w, uint32_t n, uint32_t *out) {
    for (uint32_t i = 0; i < n; i++)
        out[i] = i + 1;
    for (uint32_t i = 1; i < n; i++) {
        for (uint32_t k = i;
             k > 0 && w->req[out[k]].first_token_ns < w->req[out[k - 1]].first_token_ns; k--) {
            uint32_t t = out[k];
            out[k] = out[k - 1];
            out[k - 1] = t;
        }
    }
}

static void assert_order(const struct world *w, const uint32_t *want, uint32_t n) {
    uint32_t got[W_REQS];
    order_of(w, n, got);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(got[i], want[i]);
}

static struct w_req *put(struct world *w, uint32_t rid, uint32_t n_shared, uint32_t n_own,
                         uint32_t max_new, const char *tenant, int32_t priority) {
    struct w_req *q = w_prepare(w, rid, n_shared, n_own, max_new);
    q->routing.tenant = by_str_of(tenant);
    q->routing.priority = priority;
    w_tokenized(w, rid, NULL, 0);
    w->now += MS;
    return q;
}

/* One slot: whoever comes next is whom the policy picked. Rid 1 runs while the others arrive. */
static struct world one_slot(enum policy_kind policy) {
    return (struct world){
        .n_slots = 1, .n_pages = 1024, .opt = {.policy = policy, .preemption_gap = 100}};
}

TEST(fcfs_goes_by_arrival) {
    UNUSED_STATE;
    struct world w = one_slot(POLICY_FCFS);
    world_start(&w);
    for (uint32_t rid = 1; rid <= 5; rid++)
        put(&w, rid, 0, 10 + rid, 3, "", 0);
    w_run(&w);
    assert_order(&w, (const uint32_t[]){1, 2, 3, 4, 5}, 5);
    world_stop(&w);
}

TEST(lpm_takes_the_longest_match_first) {
    UNUSED_STATE;
    struct world w = one_slot(POLICY_LPM);
    world_start(&w);
    put(&w, 1, 100, 4, 8, "", 0);
    w_step(&w);
    put(&w, 2, 0, 100, 3, "", 0);
    put(&w, 3, 40, 60, 3, "", 0);
    put(&w, 4, 100, 4, 3, "", 0);
    w_run(&w);
    assert_order(&w, (const uint32_t[]){1, 4, 3, 2}, 4);
    world_stop(&w);
}

TEST(lof_takes_the_longest_output_first) {
    UNUSED_STATE;
    struct world w = one_slot(POLICY_LOF);
    world_start(&w);
    put(&w, 1, 0, 10, 5, "", 0);
    w_step(&w);
    put(&w, 2, 0, 10, 5, "", 0);
    put(&w, 3, 0, 10, 50, "", 0);
    put(&w, 4, 0, 10, 20, "", 0);
    w_run(&w);
    assert_order(&w, (const uint32_t[]){1, 3, 4, 2}, 4);
    world_stop(&w);
}

TEST(shortest_prefill_counts_only_what_is_not_cached) {
    UNUSED_STATE;
    struct world w = one_slot(POLICY_SHORTEST_PREFILL);
    world_start(&w);
    put(&w, 1, 200, 4, 5, "", 0);
    w_step(&w);
    put(&w, 2, 0, 40, 3, "", 0);
    put(&w, 3, 200, 8, 3, "", 0);
    put(&w, 4, 0, 20, 3, "", 0);
    w_run(&w);
    assert_order(&w, (const uint32_t[]){1, 3, 4, 2}, 4);
    world_stop(&w);
}

TEST(dfs_weight_walks_the_heaviest_branch_first) {
    UNUSED_STATE;
    struct world w = one_slot(POLICY_DFS_WEIGHT);
    world_start(&w);
    put(&w, 1, 0, 40, 2, "", 0); /* two prompts leave two branches in the tree */
    put(&w, 2, 40, 4, 2, "", 0);
    w_run(&w);
    put(&w, 3, 80, 4, 40, "", 0);
    w_step(&w);
    for (uint32_t rid = 4; rid <= 8;
         rid++) { /* 4 and 7 go on from rid 1, the others share 40 ids with rid 2 */
        struct w_req *q = w_prepare(&w, rid, rid == 4 || rid == 7 ? 0 : 40, 44, 3);
        if (rid == 4 || rid == 7) memcpy(q->ids, w.req[1].ids, 40 * sizeof *q->ids);
        w_tokenized(&w, rid, NULL, 0);
        w.now += MS;
    }
    w_run(&w);
    /* Three against two; then two against two, where the branch in hand goes on; then one against two. */
    assert_order(&w, (const uint32_t[]){1, 2, 3, 5, 6, 4, 7, 8}, 8);
    world_stop(&w);
}

TEST(whoever_waited_ten_seconds_goes_first_in_any_window) {
    UNUSED_STATE;
    struct world w = one_slot(POLICY_SHORTEST_PREFILL);
    world_start(&w);
    put(&w, 1, 0, 10, 40, "", 0);
    put(&w, 2, 0, 200, 3, "", 0);
    w_step(&w);
    w.now += UINT64_C(11000) * MS;
    for (uint32_t rid = 3; rid <= 6; rid++)
        put(&w, rid, 0, 10, 3, "", 0);
    w_run(&w);
    uint32_t order[6];
    order_of(&w, 6, order);
    assert_int_equal(order[1], 2);
    world_stop(&w);
}

TEST(priority_goes_by_priority_then_arrival) {
    UNUSED_STATE;
    struct world w = one_slot(POLICY_PRIORITY);
    world_start(&w);
    put(&w, 1, 0, 10, 5, "", 0);
    w_step(&w);
    put(&w, 2, 0, 10, 3, "", 1);
    put(&w, 3, 0, 10, 3, "", 5);
    put(&w, 4, 0, 10, 3, "", 5);
    put(&w, 5, 0, 10, 3, "", -2);
    w_run(&w);
    assert_order(&w, (const uint32_t[]){1, 3, 4, 2, 5}, 5);
    world_stop(&w);
}

TEST(priority_above_the_gap_takes_a_running_place) {
    UNUSED_STATE;
    struct world w = one_slot(POLICY_PRIORITY);
    world_start(&w);
    put(&w, 1, 0, 10, 100, "", 0);
    for (int i = 0; i < 10; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    put(&w, 2, 0, 10, 3, "", 100); /* not above the gap of 100 */
    put(&w, 3, 0, 10, 3, "", 101);
    w_run(&w);
    w_assert_whole(&w, 1);
    w_assert_whole(&w, 3);
    assert_true(w.req[3].first_token_ns < w.req[2].first_token_ns);
    assert_true(w.req[3].first_token_ns < 40 * MS); /* it did not wait for the hundred tokens */
    world_stop(&w);
}

/* Whoever is ahead but waits for a prefix that is being computed takes nobody's place for it: the one who
 * gives way may be the one who computes it, and both would hand the place to and fro for ever. */
/* Rid 1 computes what rid 100 begins with, too, and gets no token of a step while more urgent prompts come. The most urgent of all
 * waited for it, and so for them. */
TEST(who_computes_a_prefix_is_as_urgent_as_who_waits_for_it) {
    UNUSED_STATE;
    struct world w = {
        .n_pages = 2048, .n_slots = 32, .opt = {.policy = POLICY_PRIORITY, .preemption_gap = 100}};
    world_start(&w);
    put(&w, 1, 300, 4, 3, "", 0);
    w_step(&w);
    put(&w, 100, 300, 8, 3, "", 9);
    for (uint32_t rid = 2; rid <= 20; rid++) {
        put(&w, rid, 0, 64, 1, "", 5);
        w_work(&w, 0, 0);
        w_step(&w);
    }
    assert_true(w.req[100].sample[0].n > 0);
    w_run(&w);
    w_assert_whole(&w, 1);
    w_assert_whole(&w, 100);
    world_stop(&w);
}

TEST(nobody_gives_way_for_one_who_would_wait_all_the_same) {
    UNUSED_STATE;
    struct world w = one_slot(POLICY_PRIORITY);
    w.step_tokens = 32;
    world_start(&w);
    put(&w, 1, 300, 4, 20, "", 0);
    w_step(&w);
    w_work(&w, 0, 0);
    w_step(&w); /* the prefix is half computed, and the next chunk in flight */
    put(&w, 2, 300, 4, 3, "", 1000);
    w_run(&w);
    w_assert_whole(&w, 1);
    w_assert_whole(&w, 2);
    assert_true(w.n_prefill_tokens < 2 * 304); /* its turn came when the prefix was there */
    assert_true(w.req[2].sample[0].n_cached > 300 - 32);
    world_stop(&w);
}

TEST(fair_takes_turns_between_tenants) {
    UNUSED_STATE;
    struct world w = one_slot(POLICY_FAIR);
    w.opt.chunked_prefill_size = 1000;
    w.step_tokens = 1000;
    world_start(&w);
    for (uint32_t rid = 1; rid <= 4; rid++)
        put(&w, rid, 0, 100, 3, "a", 0);
    w_step(&w);
    for (uint32_t rid = 5; rid <= 8; rid++)
        put(&w, rid, 0, 100, 3, "b", 0);
    w_run(&w);
    assert_order(&w, (const uint32_t[]){1, 5, 2, 6, 3, 7, 4, 8}, 8);
    world_stop(&w);
}

/* The flood of issue 4: A opens 100 streams of 2,000 ids (here 400), B asks once. */
static uint64_t first_token_of_b(bool is_flooded, uint32_t n_slots) {
    struct world w = {
        .n_slots = n_slots, .n_pages = 8192, .step_tokens = 256, .opt = {.policy = POLICY_FAIR}};
    world_start(&w);
    for (uint32_t rid = 1; is_flooded && rid <= 100; rid++)
        put(&w, rid, 0, 400, 100, "a", 0);
    for (int i = 0; is_flooded && i < 60; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    w_step(&w); /* a step of A's is under way when B comes */
    uint32_t before = w.n_steps;
    put(&w, 200, 0, 400, 4, "b", 0);
    uint32_t n = 0;
    while (w.req[200].sample[0].n == 0) {
        w_step(&w);
        assert_true(w_work(&w, 0, 0));
        n = w.n_steps - before;
    }
    w_run(&w);
    for (uint32_t rid = 1; is_flooded && rid <= 100; rid++)
        w_assert_whole(&w, rid);
    world_stop(&w);
    return n;
}

TEST(a_flood_does_not_drown_the_other_tenant) {
    UNUSED_STATE;
    uint64_t solo = first_token_of_b(false, 64);
    assert_true(first_token_of_b(true, 64) <= 2 * solo + 1);
    /* all slots are A's: one of them gives way */
    assert_true(first_token_of_b(true, 8) <= 2 * solo + 1);
}

/* A newcomer begins at the counter of who floods. Of equals the name decided, and b waited a step longer than a would have. */
TEST(a_newcomer_is_in_the_next_step_whatever_its_name) {
    UNUSED_STATE;
    for (int i = 0; i < 2; i++) {
        struct world w = {.n_pages = 2048, .step_tokens = 256, .opt = {.policy = POLICY_FAIR}};
        world_start(&w);
        for (uint32_t rid = 1; rid <= 20; rid++)
            put(&w, rid, 0, 1000, 3, "m", 0);
        w_step(&w);
        w_work(&w, 0, 0);
        w_step(&w); /* on its way when the newcomer comes */
        put(&w, 30, 0, 20, 3, i ? "a" : "z", 0);
        assert_true(w_work(&w, 0, 0));
        w_step(&w);
        assert_true(w_work(&w, 0, 0));
        assert_int_equal(w.req[30].sample[0].n, 1);
        w_run(&w);
        world_stop(&w);
    }
}

/* Each new tenant goes before the chunks of a long prompt, and the rest of its step stayed empty: while one came a step, the long
 * prompt stood still. */
TEST(a_long_prompt_goes_on_behind_newcomers) {
    UNUSED_STATE;
    enum { CHUNK = 64, LONG = 1000, STEPS = 30 };
    struct world w = {.n_pages = 1024,
                      .opt = {.policy = POLICY_FAIR, .chunked_prefill_size = CHUNK, .depth = 1}};
    char name[STEPS + 2][8];
    world_start(&w);
    put(&w, 1, 0, LONG, 4, "long", 0);
    w_step(&w);
    w_work(&w, 0, 0);
    for (uint32_t rid = 2; rid < STEPS + 2; rid++) {
        snprintf(name[rid], sizeof name[rid], "t%u", rid);
        put(&w, rid, 0, 8, 1, name[rid], 0);
        w_step(&w);
        w_work(&w, 0, 0);
        assert_int_equal(w.req[rid].sample[0].n, 1); /* none of them waits for it */
        assert_true(w.tokens_max <= CHUNK + 1);
    }
    assert_true(w.req[1].sample[0].n > 0);
    w_run(&w);
    w_assert_whole(&w, 1);
    world_stop(&w);
}

TEST(the_gap_between_busy_tenants_is_bounded) {
    UNUSED_STATE;
    struct world w = {.n_slots = 4, .n_pages = 2048, .opt = {.policy = POLICY_FAIR}};
    world_start(&w);
    uint32_t rid = 1;
    for (int i = 0; i < 40; i++) { /* a's are long, b's short */
        put(&w, rid++, 0, 120, 30, "a", 0);
        for (int k = 0; k < 4; k++)
            put(&w, rid++, 0, 20, 10, "b", 0);
    }
    uint64_t tokens[2] = {0};
    for (int i = 0; i < 300; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
    }
    for (uint32_t k = 1; k < rid; k++) {
        if (w.req[k].sample[0].n == 0) continue;
        uint64_t n = w.req[k].n_ids + 2 * w.req[k].sample[0].n;
        tokens[w.req[k].routing.tenant.p[0] == 'b'] += n;
    }
    int64_t gap = (int64_t)tokens[0] - (int64_t)tokens[1];
    /* VTC: 2 * max(longest prompt, 2 * tokens a batch holds); here slots * (prompt + 2 * output). */
    assert_true(llabs(gap) <= 2 * 4 * (120 + 2 * 30));
    w_run(&w);
    world_stop(&w);
}

/* In turn from the moment both wait, whatever one of them had used before. */
static void assert_turns(struct world *w, uint32_t first) {
    for (uint32_t rid = first; rid < first + 4; rid++)
        put(w, rid, 0, 100, 3, "b", 0);
    for (uint32_t rid = first + 4; rid < first + 8; rid++)
        put(w, rid, 0, 100, 3, "a", 0);
    w_run(w);
    uint64_t third[2] = {w->req[first + 2].first_token_ns, w->req[first + 6].first_token_ns};
    assert_true(third[0] < w->req[first + 7].first_token_ns);
    assert_true(third[1] < w->req[first + 3].first_token_ns);
}

/* Nobody was there when b came, so it began at 0, and a, who had used much, waited until b had used as much. */
TEST(being_alone_earns_no_credit) {
    UNUSED_STATE;
    struct world w = one_slot(POLICY_FAIR);
    world_start(&w);
    put(&w, 1, 0, 1000, 400, "a", 0);
    w_run(&w);
    put(&w, 2, 0, 10, 3, "b", 0);
    w_run(&w);
    assert_turns(&w, 3);
    world_stop(&w);
}

/* b had one stream running all the time and was not lifted when it asked for more. */
TEST(a_long_stream_earns_no_credit) {
    UNUSED_STATE;
    struct world w = {.n_slots = 2, .n_pages = 1024, .opt = {.policy = POLICY_FAIR}};
    world_start(&w);
    put(&w, 20, 0, 10, 500, "b", 0);
    for (uint32_t rid = 30; rid < 40; rid++) {
        put(&w, rid, 0, 400, 3, "a", 0);
        for (int i = 0; i < 12; i++) {
            w_step(&w);
            w_work(&w, 0, 0);
        }
    }
    assert_turns(&w, 3);
    world_stop(&w);
}

TEST(a_request_goes_where_its_prefix_is) {
    UNUSED_STATE;
    struct world w = {.n_pages = 1024, .opt = {.n_replicas = 2}};
    world_start(&w);
    w_submit(&w, 1, 200, 4, 4);
    w_run(&w);
    for (uint32_t rid = 2; rid <= 6; rid++) {
        w_submit(&w, rid, 200, 4, 4);
        w_run(&w);
        assert_int_equal(w.req[rid].sample[0].n_cached, 200);
    }
    world_stop(&w);
}

TEST(a_hot_prefix_spreads_to_the_idle_replica) {
    UNUSED_STATE;
    struct world w = {.n_pages = 2048, .n_slots = 32, .opt = {.n_replicas = 2}};
    world_start(&w);
    w_submit(&w, 1, 100, 4, 4);
    w_run(&w);
    uint64_t steps[2] = {w.worker[0].last_step, w.worker[1].last_step};
    assert_true(steps[0] == 0 || steps[1] == 0); /* so far one replica has done it all */
    for (uint32_t rid = 2; rid <= 40; rid++)
        w_submit(&w, rid, 100, 4, 30);
    w_run(&w);
    assert_true(w.worker[0].last_step > 10 && w.worker[1].last_step > 10);
    for (uint32_t rid = 2; rid <= 40; rid++)
        w_assert_whole(&w, rid);
    world_stop(&w);
}

/* Rid 1 fills replica 1, and is one running sequence: little work, as it seemed, so that whoever came waited for that replica,
 * though the other one had room. */
TEST(a_full_replica_is_no_better_place) {
    UNUSED_STATE;
    struct world w = {.n_pages = 1024, .opt = {.n_replicas = 2}};
    w.worker[1].n_pages = 100;
    world_start(&w);
    w_worker_kill(&w, 0);
    w_submit(&w, 1, 0, 100, 290);
    w_step(&w);
    w_worker_up(&w, 0);
    for (uint32_t rid = 2; rid <= 6; rid++)
        w_submit(&w, rid, 0, 40, 200);
    for (int i = 0; i < 20; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
        w_work(&w, 1, 0);
    }
    for (uint32_t rid = 1; rid <= 6; rid++)
        assert_true(w.req[rid].sample[0].n > 0);
    w_run(&w);
    for (uint32_t rid = 1; rid <= 6; rid++)
        w_assert_whole(&w, rid);
    world_stop(&w);
}

/* Its prefix is on replica 1, which is full: who runs there gave way, though the other replica had room. */
TEST(nobody_gives_way_while_another_replica_has_room) {
    UNUSED_STATE;
    struct world w = {.n_pages = 100,
                      .opt = {.n_replicas = 2, .policy = POLICY_PRIORITY, .preemption_gap = 1}};
    world_start(&w);
    w_worker_kill(&w, 0);
    put(&w, 1, 100, 4, 200, "", 0);
    w_step(&w);
    w_work(&w, 1, 0);
    w_step(&w);
    w_work(&w, 1, 0);
    w_worker_up(&w, 0);
    put(&w, 2, 100, 100, 200, "", 9);
    w_run(&w);
    for (uint32_t rid = 1; rid <= 2; rid++)
        w_assert_whole(&w, rid);
    w_ask(&w, "dump", "{}");
    assert_non_null(strstr(w.answer, "\"preemptions\":0,"));
    world_stop(&w);
}

/* Those at the head of the queue were too long for the small replica, and it stood idle: nobody behind them was asked. */
TEST(who_is_too_long_for_a_replica_hides_nobody_from_it) {
    UNUSED_STATE;
    static const enum policy_kind kinds[] = {POLICY_FAIR, POLICY_FCFS, POLICY_PRIORITY, POLICY_LOF};
    for (size_t k = 0; k < BY_COUNTOF(kinds); k++) {
        struct world w = {
            .n_slots = 2, .n_pages = 1024, .opt = {.n_replicas = 2, .policy = kinds[k]}};
        uint32_t n = kinds[k] == POLICY_PRIORITY ? 100 : 200;
        w.worker[0].context_len = 120;
        world_start(&w);
        for (uint32_t rid = 1; rid <= n; rid++)
            w_submit(&w, rid, 0, 200, 20);
        w_submit(&w, n + 1, 0, 80, 20);
        for (int i = 0; i < 30; i++) {
            w_step(&w);
            w_work(&w, 0, 0);
        }
        w_assert_whole(&w, n + 1);
        world_stop(&w);
    }
}

/* A worker that is stopped looked idle, and had the prefix: who came waited for its next step until it was found out. */
TEST(nobody_waits_for_a_replica_that_hangs) {
    UNUSED_STATE;
    struct world w = {.n_pages = 1024, .opt = {.n_replicas = 2}};
    world_start(&w);
    w_submit(&w, 1, 100, 4, 30);
    for (int i = 0; i < 6; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
        w_work(&w, 1, 0);
    }
    uint32_t hangs = w.worker[0].last_step > 2 ? 0 : 1; /* it computes rid 1, and now stops */
    w_step(&w);
    w_submit(&w, 2, 100, 4, 10);
    for (int i = 0; i < 20; i++) {
        w_step(&w);
        w_work(&w, !hangs, 0);
    }
    assert_int_equal(w.req[2].sample[0].n, 0); /* there its prefix is */
    uint64_t due = core_next_timer(w.core);
    assert_true(due <= w.now + UINT64_C(1000) * MS);
    w.now = BY_MAX(w.now, due);
    for (int i = 0; i < 20; i++) {
        w_step(&w);
        w_work(&w, !hangs, 0);
    }
    w_assert_whole(&w, 2);
    w_run(&w);
    w_assert_whole(&w, 1);
    world_stop(&w);
}

TEST(a_lost_replicas_requests_move) {
    UNUSED_STATE;
    struct world w = {.n_pages = 1024, .n_slots = 32, .opt = {.n_replicas = 2}};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 20; rid++)
        w_submit(&w, rid, 0, 40, 30);
    for (int i = 0; i < 6; i++) {
        w_step(&w);
        w_work(&w, 0, 0);
        w_work(&w, 1, 0);
    }
    w_worker_kill(&w, 0);
    w_run(&w);
    for (uint32_t rid = 1; rid <= 20; rid++)
        w_assert_whole(&w, rid);
    world_stop(&w);
}

/* One key's flood once filled the queue, and every other key was answered 429. */
TEST(a_tenant_with_a_name_leaves_room_for_others) {
    UNUSED_STATE;
    struct tenants t;
    struct tenant *alice;
    tenants_init(&t);
    alice = tenants_take(&t, BY_STR("alice"));
    uint32_t n = 0;
    for (; tenants_may_queue(&t, BY_STR("alice"), n, 100); n++)
        alice->n_queued++;
    assert_int_equal(n, 80);
    struct tenant *bob = tenants_take(&t, BY_STR("bob"));
    for (; tenants_may_queue(&t, BY_STR("bob"), n, 100); n++)
        bob->n_queued++;
    assert_int_equal(n, 96);
    assert_true(tenants_may_queue(&t, BY_STR("carol"), n, 100));
    assert_true(tenants_may_queue(&t, BY_STR("carol"), 99, 100));
    assert_false(tenants_may_queue(&t, BY_STR("carol"), 100, 100));
    assert_true(tenants_may_queue(&t, (struct by_str){0}, 99, 100)); /* without keys: all of it */
    tenants_give(&t, alice);
    tenants_give(&t, bob);
    tenants_release(&t);
}

TESTS(RUN(fcfs_goes_by_arrival), RUN(lpm_takes_the_longest_match_first),
      RUN(lof_takes_the_longest_output_first), RUN(shortest_prefill_counts_only_what_is_not_cached),
      RUN(dfs_weight_walks_the_heaviest_branch_first),
      RUN(whoever_waited_ten_seconds_goes_first_in_any_window),
      RUN(priority_goes_by_priority_then_arrival),
      RUN(priority_above_the_gap_takes_a_running_place),
      RUN(who_computes_a_prefix_is_as_urgent_as_who_waits_for_it),
      RUN(nobody_gives_way_for_one_who_would_wait_all_the_same),
      RUN(fair_takes_turns_between_tenants), RUN(a_flood_does_not_drown_the_other_tenant),
      RUN(a_newcomer_is_in_the_next_step_whatever_its_name),
      RUN(a_long_prompt_goes_on_behind_newcomers), RUN(the_gap_between_busy_tenants_is_bounded),
      RUN(being_alone_earns_no_credit), RUN(a_long_stream_earns_no_credit),
      RUN(a_request_goes_where_its_prefix_is), RUN(a_hot_prefix_spreads_to_the_idle_replica),
      RUN(a_full_replica_is_no_better_place), RUN(nobody_gives_way_while_another_replica_has_room),
      RUN(who_is_too_long_for_a_replica_hides_nobody_from_it),
      RUN(nobody_waits_for_a_replica_that_hangs), RUN(a_lost_replicas_requests_move),
      RUN(a_tenant_with_a_name_leaves_room_for_others));
