#include "tests/unit/core_world.h"

enum { CHAOS_RUNS = 200 };
static uint64_t chaos_run;

/* Random clients, faults and memory pressure; every output must equal the undisturbed run's, every page come home. */
static void chaos(uint64_t seed) {
    uint64_t z = seed;
    struct world w = {.page_size = 1 + (uint32_t)(by_rand_next(&z) % 8),
                      .n_pages = 60 + (uint32_t)(by_rand_next(&z) % 100),
                      .n_slots = 1 + (uint32_t)(by_rand_next(&z) % 12),
                      .step_tokens = 16 + (uint32_t)(by_rand_next(&z) % 100),
                      .n_states = by_rand_next(&z) % 2 ? (uint32_t)(by_rand_next(&z) % 6) : 0,
                      .opt = {.n_replicas = 1 + (uint32_t)(by_rand_next(&z) % 2),
                              .chunked_prefill_size = 4 + (uint32_t)(by_rand_next(&z) % 60),
                              .depth = 1 + (uint32_t)(by_rand_next(&z) % 2),
                              .conservativeness = (double)(by_rand_next(&z) % 10) / 8 + 0.01,
                              .policy = (enum policy_kind)(by_rand_next(&z) % 7),
                              .preemption_gap = 2,
                              .eviction = (enum radix_policy)(by_rand_next(&z) % 5),
                              .no_radix_cache = by_rand_next(&z) % 8 == 0,
                              .state_every = (uint32_t)(by_rand_next(&z) % 20)}};
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

TESTS(RUN(chaos_changes_nothing));
