/* Frames that are well formed and make no sense, from every kind of peer, at any time: the core may refuse, drop, end
 * sessions; it may not assert, and what always holds must hold. */
#include "common/base/log.h"
#include "tests/unit/core_world.h"

enum { RUNS = 300, EVENTS = 400, PEERS = 12, SMALL = 6 };

struct hostile {
    struct core *core;
    uint64_t z, now, last_step[PEERS + 1];
    uint32_t n_samples[PEERS + 1][4]; /* of its steps, by number */
    uint64_t answered[PEERS + 1];
    uint32_t role[PEERS + 1]; /* 0: not here */
    uint32_t n_ends;
};

static void on_send(void *ctx, uint32_t peer, const struct msg *m) {
    struct hostile *h = ctx;
    static struct by_buf frame;
    assert_true(peer >= 1 && peer <= PEERS);
    assert_true(h->role[peer] != 0); /* never to somebody who is gone */
    if (m->kind == MSG_step) {
        h->last_step[peer] = m->step.step;
        uint32_t *n = &h->n_samples[peer][m->step.step % 4];
        *n = 0;
        for (uint32_t i = 0; i < m->step.row_samples.n; i++)
            *n += m->step.row_samples.p[i];
    }
    if (!frame.max) by_buf_init(&frame, LIMIT_FRAME_BYTES);
    by_buf_clear(&frame);
    msg_encode(m, &frame);
    assert_false(frame.is_full);
}

static void on_end(void *ctx, uint32_t peer, const char *why) {
    struct hostile *h = ctx;
    assert_true(strlen(why) > 0);
    h->role[peer] = 0;
    h->n_ends++;
}

static uint32_t below(struct hostile *h, uint32_t n) {
    return (uint32_t)(by_rand_next(&h->z) % n);
}
/* Mostly small, now and then at the edge. */
static uint32_t odd(struct hostile *h) {
    static const uint32_t edges[] = {0, 1, UINT32_MAX, UINT32_MAX - 1, 0x80000000u, 65535, 1000000};
    return below(h, 8) ? below(h, SMALL) : edges[below(h, BY_COUNTOF(edges))];
}
static struct msg_u32s some(struct hostile *h, uint32_t *room, uint32_t n_max) {
    uint32_t n = below(h, n_max + 1);
    for (uint32_t i = 0; i < n; i++)
        room[i] = odd(h);
    return (struct msg_u32s){room, n};
}
static struct msg_name a_name(struct hostile *h) {
    return (struct msg_name){below(h, 5), below(h, 10)};
}

static void up(struct hostile *h, uint32_t peer) {
    static const uint32_t roles[] = {ROLE_ROUTER,      ROLE_TOKENIZER_WORKER,
                                     ROLE_DETOKENIZER, ROLE_GPU_WORKER,
                                     ROLE_GPU_WORKER,  ROLE_TOOL,
                                     ROLE_SCHEDULER,   77};
    struct msg_hello hello = {
        .role = roles[below(h, BY_COUNTOF(roles))],
        .epoch = below(h, 5),
        .instance = BY_STR("i"),
        .model = {.n_vocab = SMALL, .context_len = below(h, 3) ? 64 : odd(h)},
        .capacity = {.page_size = below(h, 4) ? 4 : odd(h),
                     .n_pages = 8 + below(h, 40),
                     .n_slots = below(h, 4) ? 1 + below(h, 8) : BY_MIN(odd(h), 70000u),
                     .step_tokens_max = below(h, 4) ? 8 + below(h, 64) : odd(h),
                     .world = below(h, 4) ? 1 : odd(h),
                     .rank = below(h, 4) ? 0 : odd(h),
                     .replica = below(h, 4) ? below(h, 2) : odd(h)}};
    struct by_err err = {0};
    if (core_admit(h->core, &hello, &err) != 0) {
        assert_true(strlen(err.text) > 0);
        return;
    }
    h->role[peer] = hello.role;
    h->last_step[peer] = h->answered[peer] = 0;
    core_on_up(h->core, h->now, peer, &hello);
}

static void say(struct hostile *h, uint32_t peer) {
    uint32_t a[300], b[16], c[16], d[16];
    float f[300] = {0};
    struct msg_resume resume[3];
    struct msg_top tops[4] = {{.n_each = odd(h)}};
    struct msg_prompt_logprobs prompts = {
        .slot = odd(h),
        .start = odd(h),
        .logprobs = {f, below(h, 9)},
        .top = {.n_each = odd(h), .ids = some(h, d, 8), .logprobs = {f, below(h, 9)}}};
    static const enum msg_kind kinds[] = {
        MSG_tokenized, MSG_tokenized, MSG_tokenized, MSG_step_done, MSG_step_done, MSG_step_done,
        MSG_step_done, MSG_ack,       MSG_cancel,    MSG_finish,    MSG_pause,     MSG_unpause,
        MSG_ask,       MSG_text,      MSG_generate,  MSG_hello,     MSG_peers};
    struct msg m = {.kind = kinds[below(h, BY_COUNTOF(kinds))]};
    if (m.kind == MSG_tokenized) {
        m.tokenized.name = a_name(h);
        m.tokenized.ids = some(h, a, below(h, 8) ? 40 : 300);
        m.tokenized.sampling =
            (struct msg_sampling){.n = below(h, 6) ? 1 : odd(h),
                                  .max_new_tokens = odd(h),
                                  .min_new_tokens = odd(h),
                                  .ignore_eos = below(h, 2),
                                  .stop_ids = some(h, b, 3),
                                  .logprobs = below(h, 2),
                                  .top_logprobs = below(h, 4) ? 0 : odd(h),
                                  .logprob_start = below(h, 2) ? -1 : (int32_t)odd(h),
                                  .logprob_ids = some(h, c, 2)};
        for (uint32_t i = 0; i < 3; i++)
            resume[i] = (struct msg_resume){.sample = odd(h),
                                            .ids = some(h, c, 8),
                                            .n_delivered = odd(h),
                                            .is_done = below(h, 4) == 0};
        m.tokenized.resume.p = resume;
        m.tokenized.resume.n = below(h, 3) ? 0 : below(h, 4);
        m.tokenized.routing =
            (struct msg_routing){.tenant = below(h, 2) ? BY_STR("") : BY_STR("t"),
                                 .extra_key = below(h, 2) ? BY_STR("") : BY_STR("k"),
                                 .priority = (int32_t)odd(h),
                                 .queue_timeout_ms = odd(h),
                                 .run_timeout_ms = odd(h)};
    } else if (m.kind == MSG_step_done) {
        m.step_done.step = below(h, 6) ? h->answered[peer] + 1 : odd(h);
        m.step_done.tokens = some(h, a, 8);
        if (below(h, 8)) { /* as it should: so that nonsense meets requests in every state */
            uint32_t n = h->n_samples[peer][m.step_done.step % 4];
            for (uint32_t i = 0; i < n; i++)
                a[i] = below(h, SMALL);
            m.step_done.tokens = (struct msg_u32s){a, n};
        }
        if (m.step_done.step <= h->last_step[peer]) h->answered[peer] = m.step_done.step;
        m.step_done.logprobs = (struct msg_f32s){f, below(h, 9)};
        m.step_done.failed_slots = some(h, b, below(h, 4) ? 0 : 4);
        m.step_done.tops.p = tops;
        m.step_done.tops.n = below(h, 2);
        m.step_done.prompts.p = &prompts;
        m.step_done.prompts.n = below(h, 2);
        m.step_done.code = below(h, 4) ? 0 : (int32_t)odd(h);
        m.step_done.compute_us = odd(h);
    } else if (m.kind == MSG_ack) {
        m.ack = (struct msg_ack){
            .name = a_name(h), .sample = odd(h), .n_tokens = odd(h), .is_final = below(h, 2)};
    } else if (m.kind == MSG_finish) {
        m.finish = (struct msg_finish){
            .name = a_name(h), .sample = odd(h), .n_output = odd(h), .reason = odd(h)};
    } else if (m.kind == MSG_ask) {
        static const char *const what[] = {"dump", "flush", "abort", "pin", "loads", "drain", "x"};
        static const char *const json[] = {"{}", "{\"all\":true}", "{\"ids\":[1,2,3,4,5,0,0]}", "[",
                                           "{\"top\":5}"};
        uint32_t i = below(h, BY_COUNTOF(what));
        if (i == 5 && below(h, 20)) i = 0; /* a draining core is dull */
        m.ask = (struct msg_ask){.what = by_str_of(what[i]),
                                 .json = by_str_of(json[below(h, BY_COUNTOF(json))])};
    } else {
        struct msg_name name = a_name(h);
        if (m.kind == MSG_cancel) m.cancel.name = name;
        if (m.kind == MSG_pause) m.pause.name = name;
        if (m.kind == MSG_unpause) m.unpause.name = name;
    }
    core_on_message(h->core, h->now, peer, &m);
}

static void run(uint64_t seed) {
    struct hostile h = {.z = seed, .now = 1};
    struct core_options o = {.n_replicas = 2,
                             .max_running = 8,
                             .max_queued = 20,
                             .chunked_prefill_size = 1 + (uint32_t)(by_rand_next(&h.z) % 32),
                             .depth = 1 + (uint32_t)(by_rand_next(&h.z) % 2),
                             .conservativeness = 0.5,
                             .policy = (enum policy_kind)(by_rand_next(&h.z) % 7),
                             .preemption_gap = 1,
                             .eviction = (enum radix_policy)(by_rand_next(&h.z) % 5)};
    struct core_sink sink = {.send = on_send, .end = on_end, .ctx = &h};
    h.core = core_new(&o, &sink);
    for (uint32_t i = 0; i < EVENTS; i++) {
        uint32_t peer = 1 + below(&h, PEERS);
        h.now += below(&h, 10) ? 1000 : UINT64_C(3000000000);
        if (!h.role[peer]) {
            up(&h, peer);
        } else if (below(&h, 30) == 0) {
            h.role[peer] = 0;
            core_on_down(h.core, h.now, peer, "gone");
        } else {
            say(&h, peer);
        }
        for (uint32_t n = 0; n < 8 && core_next_step(h.core, h.now); n++)
            ;
        assert_true(core_check(h.core));
        (void)core_next_timer(h.core);
    }
    for (uint32_t peer = 1; peer <= PEERS; peer++) {
        if (!h.role[peer]) continue;
        h.role[peer] = 0;
        core_on_down(h.core, h.now, peer, "gone");
        assert_true(core_check(h.core));
    }
    core_free(h.core);
}

TEST(nonsense_is_dropped_and_nothing_breaks) {
    UNUSED_STATE;
    uint64_t seed = test_seed();
    by_log_init(&(struct by_log_options){.process = "test", .level = BY_LOG_ERROR});
    for (uint64_t i = 0; i < RUNS; i++)
        run(seed * RUNS + i);
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

/* Only replicas were compared: a group of two page sizes came up, each rank with pages of its own. */
TEST(a_rank_of_another_page_size_is_refused) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_worker_kill(&w, 0);
    struct msg_hello h = {
        .role = ROLE_GPU_WORKER,
        .epoch = 9,
        .model = {.n_vocab = W_VOCAB},
        .capacity = {.page_size = 4, .n_pages = 9, .n_slots = 1, .step_tokens_max = 9, .world = 2}};
    struct by_err err = {0};
    assert_int_equal(core_admit(w.core, &h, &err), 0);
    core_on_up(w.core, w.now, 100, &h);
    h.capacity.rank = 1;
    h.capacity.page_size = 8;
    assert_int_equal(core_admit(w.core, &h, &err), BY_EINVAL);
    h.capacity.page_size = 4;
    assert_int_equal(core_admit(w.core, &h, &err), 0);
    world_stop(&w);
}

/* The last rank's hello alone said how long sequences may be, and another rank had less memory. */
TEST(a_group_holds_what_its_smallest_rank_can) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_worker_kill(&w, 0);
    struct msg_hello h = {
        .role = ROLE_GPU_WORKER,
        .epoch = 9,
        .model = {.n_vocab = W_VOCAB, .context_len = 50},
        .capacity = {
            .page_size = 4, .n_pages = 100, .n_slots = 1, .step_tokens_max = 100, .world = 2}};
    core_on_up(w.core, w.now, 100, &h);
    h.capacity.rank = 1;
    h.model.context_len = 80;
    core_on_up(w.core, w.now, 101, &h);
    w_submit(&w, 1, 0, 60, 10);
    assert_int_equal(w.req[1].code, BY_ETOOLONG);
    world_stop(&w);
}

/* Both routers count their requests from 1. A pause was taken from any of them; an ack and a cancel were not. */
TEST(a_router_speaks_for_its_own_requests_only) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    w_up(&w, 2000, ROLE_ROUTER, w.epoch + 1);
    w_submit(&w, 1, 0, 10, 10);
    struct msg_name name = {w.epoch, 1};
    struct msg says[] = {{.kind = MSG_pause, .pause.name = name},
                         {.kind = MSG_ack, .ack = {.name = name, .is_final = true}},
                         {.kind = MSG_cancel, .cancel.name = name}};
    for (uint32_t i = 0; i < BY_COUNTOF(says); i++)
        core_on_message(w.core, w.now, 2000, &says[i]);
    w_run(&w);
    w_assert_whole(&w, 1);
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

TESTS(RUN(nonsense_is_dropped_and_nothing_breaks),
      RUN(a_worker_that_lies_about_its_capacity_is_refused),
      RUN(a_rank_of_another_page_size_is_refused), RUN(a_group_holds_what_its_smallest_rank_can),
      RUN(a_router_speaks_for_its_own_requests_only),
      RUN(results_that_make_no_sense_end_the_session_not_the_scheduler));
