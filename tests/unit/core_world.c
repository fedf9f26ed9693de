/* core_world.c - the server around the core: what it says and to whom, who comes and goes, and how time passes. */
#include "tests/unit/core_world.h"

#include "common/base/log.h"
#include "common/base/mem.h"

static struct w_worker *w_worker_of(struct world *w, uint32_t peer) {
    for (uint32_t i = 0; i < W_REPLICAS; i++) {
        if (w->worker[i].is_up && w->worker[i].peer == peer) return &w->worker[i];
    }
    return NULL;
}

static void w_on_tokens(struct world *w, const struct msg_tokens *m) {
    w->n_tokens_frames++;
    w->is_detok_dead |= w->deadly_rid && m->name.rid == w->deadly_rid;
    if (w->is_deaf || w->is_detok_dead) return;
    assert_true(m->name.rid < W_REQS && m->sample < W_SAMPLES);
    struct w_req *q = &w->req[m->name.rid];
    struct w_sample *s = &q->sample[m->sample];
    if (m->is_open) {
        assert_int_equal(m->pos, 0);
        s->is_open = true;
        assert_int_equal(m->prompt_ids.n, m->sample == 0 ? q->n_ids : 0);
        if (m->sample == 0) assert_memory_equal(m->prompt_ids.p, q->ids, q->n_ids * 4);
    }
    assert_true(s->is_open);
    assert_true(m->pos <= s->n); /* no gap */
    assert_int_equal(m->n_prompt, q->n_ids);
    if (m->logprobs.p) assert_int_equal(m->logprobs.n, m->ids.n);
    if (s->n == 0 && m->ids.n) q->first_token_ns = w->now;
    for (uint32_t i = 0; i < m->ids.n; i++) {
        uint32_t at = m->pos + i;
        /* what was delivered never changes */
        if (at < s->n) assert_int_equal(s->ids[at], m->ids.p[i]);
        assert_true(at < W_OUT);
        s->ids[at] = m->ids.p[i];
        s->n = BY_MAX(s->n, at + 1);
    }
    if (s->finish && m->finish) assert_int_equal(s->finish, m->finish);
    if (m->finish) s->finish = m->finish;
    s->matched_id = m->matched_id;
    if (m->vector.n) {
        assert_true(m->finish && m->vector.n == W_EMBED);
        s->n_vector = m->vector.n;
        memcpy(s->vector, m->vector.p, sizeof s->vector);
    }
    for (uint32_t i = 0; i < m->prompts.n; i++) {
        if (m->is_open && i == 0) s->n_prompt_logprobs = 0;
        assert_int_equal(m->prompts.p[i].start, 1 + s->n_prompt_logprobs);
        s->n_prompt_logprobs += m->prompts.p[i].logprobs.n;
    }
    s->n_cached = m->n_cached;
}

void w_send(void *ctx, uint32_t peer, const struct msg *m) {
    struct world *w = ctx;
    struct w_worker *k = w_worker_of(w, peer);
    if (m->kind == MSG_step) {
        assert_non_null(k);
        assert_true(k->n < W_STEPS);
        struct by_buf *b = &k->frames[(k->first + k->n++) % W_STEPS];
        if (!b->max) {
            by_buf_init(b, LIMIT_FRAME_BYTES);
            /* so that only the core's allocations are counted */
            assert_non_null(by_buf_reserve(b, 1 << 17));
        }
        by_buf_clear(b);
        msg_encode(m, b);
        assert_false(b->is_full);
    } else if (m->kind == MSG_update) {
        assert_non_null(k);
        k->update = m->update; /* but for its path */
    } else if (m->kind == MSG_tokens) {
        assert_int_equal(peer, w->detok);
        w_on_tokens(w, &m->tokens);
    } else if (m->kind == MSG_reading) {
        assert_int_equal(peer, w->detok);
        if (w->is_detok_dead) return;
        w->asked = m->reading.name;
        w->n_asked++;
    } else if (m->kind == MSG_failed) {
        struct w_req *q = &w->req[m->failed.name.rid];
        if (q->is_failed) assert_int_equal(m->failed.code, q->code); /* to a copy, the same again */
        q->is_failed = true;
        q->code = m->failed.code;
        q->retry_after_ms = m->failed.retry_after_ms;
    } else if (m->kind == MSG_peers) {
        w->is_ready = m->peers.is_ready;
    } else if (m->kind == MSG_answer) {
        assert_true(m->answer.json.n < sizeof w->answer);
        memcpy(w->answer, m->answer.json.p, m->answer.json.n);
        w->answer[m->answer.json.n] = '\0';
        w->answer_code = m->answer.code;
    } else if (m->kind == MSG_cancel) {
        w->n_cancels++;
    }
}

void w_end(void *ctx, uint32_t peer, const char *why) {
    struct world *w = ctx;
    (void)why;
    struct w_worker *k = w_worker_of(w, peer);
    if (k) k->is_up = false;
}

void w_up(struct world *w, uint32_t peer, enum role role, uint64_t epoch) {
    struct msg_hello h = {
        .role = role, .epoch = epoch, .instance = BY_STR("0"), .endpoint = BY_STR("ipc://x")};
    core_on_up(w->core, w->now, peer, &h);
    assert_true(core_check(w->core));
}

void w_detok_up(struct world *w) {
    w->detok = W_DETOK + 1000 * (uint32_t)++w->detok_epoch;
    w_up(w, w->detok, ROLE_DETOKENIZER, w->detok_epoch);
}

void w_detok_kill(struct world *w) {
    for (uint32_t i = 0; i < W_REQS; i++) {
        for (uint32_t k = 0; k < W_SAMPLES; k++)
            w->req[i].sample[k].is_open = false;
    }
    w->is_detok_dead = false;
    w->n_asked = 0;
    core_on_down(w->core, w->now, w->detok, "killed");
    assert_true(core_check(w->core));
}

bool w_detok_read(struct world *w) {
    struct msg m = {.kind = MSG_reading, .reading = {.name = w->asked, .is_done = true}};
    if (!w->n_asked || w->is_detok_dead) return false;
    w->n_asked--;
    core_on_message(w->core, w->now, w->detok, &m);
    assert_true(core_check(w->core));
    return true;
}

void world_start(struct world *w) {
    struct core_sink sink = {.send = w_send, .end = w_end, .ctx = w};
    w->page_size = w->page_size ? w->page_size : 4;
    w->n_pages = w->n_pages ? w->n_pages : 256;
    w->n_slots = w->n_slots ? w->n_slots : 16;
    w->step_tokens = w->step_tokens ? w->step_tokens : 256;
    if (!w->opt.n_replicas) w->opt.n_replicas = 1;
    if (!w->opt.max_running) w->opt.max_running = W_SLOTS;
    if (!w->opt.max_queued) w->opt.max_queued = 1000;
    if (!w->opt.chunked_prefill_size) w->opt.chunked_prefill_size = 64;
    if (!w->opt.depth) w->opt.depth = 2;
    if (w->opt.conservativeness == 0) w->opt.conservativeness = 1;
    by_log_init(&(struct by_log_options){.process = "test", .level = BY_LOG_ERROR});
    w->now = 1000;
    w->epoch = 77;
    by_arena_init(&w->arena, 0);
    w->req = by_alloc_array(W_REQS, sizeof *w->req);
    w->core = core_new(&w->opt, &sink);
    w_up(w, W_ROUTER, ROLE_ROUTER, w->epoch);
    w_up(w, W_TOKENIZER, ROLE_TOKENIZER_WORKER, 5);
    w_detok_up(w);
    for (uint32_t i = 0; i < w->opt.n_replicas; i++) {
        w->worker[i].kv = by_alloc_array((size_t)w->n_pages * w->page_size, sizeof(uint64_t));
        w_worker_up(w, i);
    }
}

void world_stop(struct world *w) {
    assert_true(core_check(w->core));
    core_free(w->core);
    for (uint32_t i = 0; i < W_REPLICAS; i++) {
        by_free(w->worker[i].kv);
        for (uint32_t k = 0; k < W_STEPS; k++)
            by_buf_release(&w->worker[i].frames[k]);
    }
    by_arena_release(&w->arena);
    by_free(w->req);
}

void w_show(const struct world *w) {
    struct by_buf b;
    by_buf_init(&b, 1 << 20);
    core_show(w->core, &b);
    fputs(b.p ? b.p : "", stderr);
    by_buf_release(&b);
}

void w_ask(struct world *w, const char *what, const char *json) {
    struct msg m = {.kind = MSG_ask,
                    .ask = {.id = 1, .what = by_str_of(what), .json = by_str_of(json)}};
    w->answer[0] = '\0';
    core_on_message(w->core, w->now, W_ROUTER, &m);
    assert_true(core_check(w->core));
    assert_true(w->answer[0] != '\0');
}

bool w_step(struct world *w) {
    bool any = false;
    uint64_t before = by_mem_n_allocs();
    while (core_next_step(w->core, w->now))
        any = true;
    w->n_allocs += by_mem_n_allocs() - before;
    assert_true(core_check(w->core));
    while (!w->is_slow_to_read && w_detok_read(w))
        any = true;
    return any;
}

void w_run(struct world *w) {
    for (uint32_t i = 0; i < 100000; i++) {
        bool any = w_step(w);
        for (uint32_t r = 0; r < w->opt.n_replicas; r++)
            any |= w_work(w, r, 0);
        w->now += 1000000;
        if (!any) return;
    }
    w_show(w);
    fail_msg("it never comes to rest");
}
