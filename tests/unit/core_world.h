/* core_world.h - a whole server around the scheduler core, made of arrays: router, detokenizer, workers. For tests.
 *
 *     submit ─▶ core ─step─▶ worker: KV memory of hashes ─step_done─▶ core ─tokens─▶ log of each sample
 *
 * The worker keeps, for every position of every page, a hash of the ids up to there, and picks the next token from the
 * hash it reads back through the page table. So a page that was reused too early, matched wrongly, or filled by a
 * failed step gives another token than world_expect, which hashes the ids themselves.
 * Always: core_check after each call into the core.
 * Owner: one test. */
#ifndef TESTS_UNIT_CORE_WORLD_H
#define TESTS_UNIT_CORE_WORLD_H

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/rand.h"
#include "scheduler/core.h"
#include "tests/unit/test.h"

enum {
    W_REPLICAS = 2,
    W_SLOTS = 64,
    W_PAGES_MAX = 4096,
    W_STEPS = 4,
    W_REQS = 512,
    W_SAMPLES = 4,
    W_OUT = 512,
    W_VOCAB = 97,
    W_ROUTER = 1,
    W_TOKENIZER = 2,
    W_DETOK = 3,
    W_WORKER = 10,
    W_IDS = 2048,
    W_EMBED = 3,
};

struct w_slot {
    bool is_used, is_void;
    uint32_t ids[W_IDS], n_ids, n_done;
    uint32_t pages[W_IDS], n_pages;
    uint32_t sample, n_prompt;
    int32_t logprob_start;
    uint32_t vector;
    uint64_t seed;
};
struct w_worker {
    uint32_t peer, n_free_pages;
    uint32_t epoch;           /* 0 after a kill: the next life gets one of its own */
    const char *weights_id;   /* in its hello; NULL: none */
    struct msg_update update; /* the last one it was told */
    bool is_up;
    uint64_t last_step;
    struct w_slot slot[W_SLOTS];
    uint64_t *kv;                  /* [n_pages * page_size] */
    struct by_buf frames[W_STEPS]; /* steps to do, encoded */
    uint32_t first, n;
};
struct w_sample {
    uint32_t ids[W_OUT], n;
    uint32_t finish, matched_id, n_cached, n_prompt, n_prompt_logprobs;
    bool is_open;
    float vector[W_EMBED];
    uint32_t n_vector;
};
struct w_req {
    bool is_failed, is_acked;
    int32_t code;
    uint32_t retry_after_ms;
    uint32_t ids[W_IDS], n_ids;
    struct msg_sampling sampling;
    struct msg_routing routing;
    uint64_t first_token_ns;
    uint32_t stop_ids[2];
    struct w_sample sample[W_SAMPLES];
};
struct world {
    struct core *core;
    struct core_options opt;
    struct by_arena arena;
    uint64_t now, epoch, detok_epoch;
    uint32_t page_size, n_pages, n_slots, step_tokens;
    uint32_t detok; /* peer; a new one each life */
    struct w_worker worker[W_REPLICAS];
    struct w_req *req;                            /* [W_REQS] by rid */
    bool is_encoder, pools_all, makes_no_vectors; /* what the workers say of the model, and do */
    bool is_ready, is_deaf /* the detokenizer loses frames */;
    uint64_t deadly_rid; /* kills the detokenizer that reads its tokens; 0: nothing does */
    bool is_detok_dead, is_slow_to_read;
    struct msg_name asked; /* "have you read all before this?", the last time of … */
    uint32_t n_asked;
    uint32_t n_cancels, n_tokens_frames, n_steps, n_rows, n_prefill_tokens;
    uint32_t rows_max, tokens_max; /* of one step */
    uint64_t n_allocs;             /* in the core while it steps */
    char answer[65536];
    int32_t answer_code;
};

static inline uint64_t w_hash(uint64_t h, uint32_t id) {
    uint64_t z = h ^ (id + UINT64_C(0x9E3779B97F4A7C15));
    return by_rand_next(&z);
}
static inline uint32_t w_pick(uint64_t h, uint64_t seed, uint32_t sample) {
    uint64_t z = h ^ seed ^ (sample * UINT64_C(0x100000001B3));
    return (uint32_t)(by_rand_next(&z) % W_VOCAB);
}

static inline struct w_worker *w_worker_of(struct world *w, uint32_t peer) {
    for (uint32_t i = 0; i < W_REPLICAS; i++) {
        if (w->worker[i].is_up && w->worker[i].peer == peer) return &w->worker[i];
    }
    return NULL;
}

static inline void w_on_tokens(struct world *w, const struct msg_tokens *m) {
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

static inline void w_send(void *ctx, uint32_t peer, const struct msg *m) {
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

static inline void w_end(void *ctx, uint32_t peer, const char *why) {
    struct world *w = ctx;
    (void)why;
    struct w_worker *k = w_worker_of(w, peer);
    if (k) k->is_up = false;
}

static inline void w_up(struct world *w, uint32_t peer, enum role role, uint64_t epoch) {
    struct msg_hello h = {
        .role = role, .epoch = epoch, .instance = BY_STR("0"), .endpoint = BY_STR("ipc://x")};
    core_on_up(w->core, w->now, peer, &h);
    assert_true(core_check(w->core));
}

static inline void w_worker_up(struct world *w, uint32_t replica) {
    struct w_worker *k = &w->worker[replica];
    k->peer = k->peer ? k->peer + W_REPLICAS : W_WORKER + replica;
    if (!k->epoch) k->epoch = k->peer;
    k->is_up = true;
    k->last_step = 0;
    k->n = k->first = 0;
    memset(k->slot, 0, sizeof k->slot);
    memset(k->kv, 0xAA, (size_t)w->n_pages * w->page_size * sizeof *k->kv);
    struct msg_hello h = {.role = ROLE_GPU_WORKER,
                          .instance = BY_STR("0"),
                          .epoch = k->epoch,
                          .model = {.n_vocab = W_VOCAB,
                                    .context_len = w->is_encoder ? w->step_tokens : W_IDS,
                                    .is_encoder = w->is_encoder,
                                    .n_embed = W_EMBED,
                                    .pools_all = w->pools_all,
                                    .weights_id = by_str_of(k->weights_id)},
                          .capacity = {.page_size = w->page_size,
                                       .n_pages = w->n_pages,
                                       .n_slots = w->n_slots,
                                       .step_tokens_max = w->step_tokens,
                                       .world = 1,
                                       .replica = replica,
                                       .no_prefix_reuse = w->is_encoder}};
    struct by_err err;
    assert_int_equal(core_admit(w->core, &h, &err), 0);
    core_on_up(w->core, w->now, k->peer, &h);
    assert_true(core_check(w->core));
}

static inline void w_worker_kill(struct world *w, uint32_t replica) {
    struct w_worker *k = &w->worker[replica];
    if (!k->is_up) return;
    k->is_up = false;
    k->epoch = 0;
    core_on_down(w->core, w->now, k->peer, "killed");
    assert_true(core_check(w->core));
}

static inline void w_detok_up(struct world *w) {
    w->detok = W_DETOK + 1000 * (uint32_t)++w->detok_epoch;
    w_up(w, w->detok, ROLE_DETOKENIZER, w->detok_epoch);
}

static inline void w_detok_kill(struct world *w) { /* its open samples are forgotten with it */
    for (uint32_t i = 0; i < W_REQS; i++) {
        for (uint32_t k = 0; k < W_SAMPLES; k++)
            w->req[i].sample[k].is_open = false;
    }
    w->is_detok_dead = false;
    w->n_asked = 0;
    core_on_down(w->core, w->now, w->detok, "killed");
    assert_true(core_check(w->core));
}

/* It has read all before a question. False: there is none. */
static inline bool w_detok_read(struct world *w) {
    struct msg m = {.kind = MSG_reading, .reading = {.name = w->asked, .is_done = true}};
    if (!w->n_asked || w->is_detok_dead) return false;
    w->n_asked--;
    core_on_message(w->core, w->now, w->detok, &m);
    assert_true(core_check(w->core));
    return true;
}

/* Everything but page_size, n_pages, n_slots, step_tokens and opt has a default. */
static inline void world_start(struct world *w) {
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

static inline void world_stop(struct world *w) {
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

/* ---- the worker ---- */

static inline uint64_t *w_kv(struct world *w, struct w_worker *k, struct w_slot *s, uint32_t pos) {
    assert_true(pos / w->page_size < s->n_pages);
    uint32_t page = s->pages[pos / w->page_size];
    assert_true(page < w->n_pages);
    return &k->kv[(size_t)page * w->page_size + pos % w->page_size];
}

static inline void w_apply(struct world *w, struct w_worker *k, const struct msg_step *m) {
    assert_int_equal(m->step, k->last_step + 1);
    k->last_step++;
    for (uint32_t i = 0; i < m->free_slots.n; i++) {
        assert_true(k->slot[m->free_slots.p[i]].is_used);
        k->slot[m->free_slots.p[i]].is_used = false;
    }
    for (uint32_t i = 0; i < m->admits.n; i++) {
        const struct msg_admit *a = &m->admits.p[i];
        assert_true(a->slot < w->n_slots);
        struct w_slot *s = &k->slot[a->slot];
        assert_false(s->is_used);
        memset(s, 0, sizeof *s);
        s->is_used = true;
        s->sample = a->sample;
        s->seed = a->sampling.seed;
        s->logprob_start = a->sampling.logprob_start;
        s->vector = a->sampling.vector;
        s->n_prompt = a->n_prompt;
        s->n_done = s->n_ids = a->n_cached;
        assert_int_equal(a->n_cached % w->page_size, 0);
        for (uint32_t j = 0; j < a->ids.n; j++)
            s->ids[s->n_ids++] = a->ids.p[j];
        s->n_pages = a->pages.n;
        memcpy(s->pages, a->pages.p, a->pages.n * sizeof *s->pages);
        assert_int_equal(a->output_ids.n,
                         a->n_cached > a->n_prompt ? a->n_cached - a->n_prompt : 0);
    }
    assert_int_equal(m->append_slots.n, m->append_pages.n);
    for (uint32_t i = 0; i < m->append_slots.n; i++) {
        struct w_slot *s = &k->slot[m->append_slots.p[i]];
        assert_true(s->is_used);
        s->pages[s->n_pages++] = m->append_pages.p[i];
    }
}

/* One row; returns the token when it samples. `is_bad`: its KV is written wrong, as by a failed step. */
static inline uint32_t w_row(struct world *w, struct w_worker *k, struct w_slot *s, uint32_t n,
                             bool is_sampling, bool is_bad) {
    uint64_t h = s->n_done ? *w_kv(w, k, s, s->n_done - 1) : 0;
    for (uint32_t j = 0; j < n; j++) {
        assert_true(s->n_done < s->n_ids);
        h = w_hash(h, s->ids[s->n_done]);
        *w_kv(w, k, s, s->n_done++) = is_bad ? UINT64_MAX : h;
    }
    if (!is_sampling) return 0;
    assert_int_equal(s->n_done, s->n_ids);
    uint32_t id = w_pick(h, s->seed, s->sample);
    s->ids[s->n_ids++] = id;
    return id;
}

/* The vector of ids is made of their hash. */
static inline void w_vector(uint64_t h, float *out) {
    for (uint32_t i = 0; i < W_EMBED; i++)
        out[i] = (float)(by_rand_next(&h) >> 40);
}

/* The oldest step of this worker is computed and answered. `code`: it fails as a whole. */
static inline bool w_work(struct world *w, uint32_t replica, int32_t code) {
    struct w_worker *k = &w->worker[replica];
    if (!k->is_up || k->n == 0) return false;
    struct by_buf *b = &k->frames[k->first];
    k->first = (k->first + 1) % W_STEPS;
    k->n--;
    struct msg in;
    struct by_err err;
    by_arena_clear(&w->arena);
    assert_int_equal(msg_decode(&in, by_buf_str(b), &w->arena, &err), 0);
    const struct msg_step *m = &in.step;
    w_apply(w, k, m);
    uint32_t tokens[W_SLOTS], n = 0, n_tokens = 0, n_prompts = 0;
    float logprobs[W_SLOTS], zeros[W_IDS] = {0};
    struct msg_prompt_logprobs prompts[W_SLOTS];
    struct msg_slot_vector vectors[W_SLOTS];
    float values[W_SLOTS][W_EMBED];
    uint32_t n_vectors = 0;
    for (uint32_t i = 0; i < m->row_slots.n; i++) {
        struct w_slot *s = &k->slot[m->row_slots.p[i]];
        assert_true(s->is_used);
        for (uint32_t j = 0; j < i; j++)
            assert_int_not_equal(m->row_slots.p[i], m->row_slots.p[j]);
        if (code) s->is_void = true;
        uint32_t from = BY_MAX(s->n_done + 1, (uint32_t)BY_MAX(s->logprob_start, 0));
        uint32_t id = w_row(w, k, s, m->row_tokens.p[i], m->row_samples.p[i], s->is_void);
        uint32_t end = BY_MIN(s->n_done + 1, s->n_prompt); /* a row predicts the token after it */
        if (s->logprob_start >= 0 && from < end)
            prompts[n_prompts++] = (struct msg_prompt_logprobs){
                .slot = m->row_slots.p[i], .start = from, .logprobs = {zeros, end - from}};
        n_tokens += m->row_tokens.p[i];
        if (s->vector && s->n_done == s->n_prompt && !w->makes_no_vectors) {
            w_vector(*w_kv(w, k, s, s->n_done - 1), values[n_vectors]);
            vectors[n_vectors] = (struct msg_slot_vector){.slot = m->row_slots.p[i],
                                                          .values = {values[n_vectors], W_EMBED}};
            n_vectors++;
        }
        if (m->row_tokens.p[i] > 1) w->n_prefill_tokens += m->row_tokens.p[i];
        if (!m->row_samples.p[i]) continue;
        logprobs[n] = -(float)id;
        tokens[n++] = id;
    }
    assert_true(n_tokens <= w->step_tokens);
    w->n_steps++;
    w->n_rows += m->row_slots.n;
    w->rows_max = BY_MAX(w->rows_max, m->row_slots.n);
    w->tokens_max = BY_MAX(w->tokens_max, n_tokens);
    struct msg done = {
        .kind = MSG_step_done,
        .step_done = {
            .step = m->step, .tokens = {tokens, n}, .logprobs = {logprobs, n}, .code = code}};
    done.step_done.prompts.p = prompts;
    done.step_done.prompts.n = code ? 0 : n_prompts;
    done.step_done.vectors.p = vectors;
    done.step_done.vectors.n = code ? 0 : n_vectors;
    if (code) done.step_done.tokens.n = 0;
    uint64_t before = by_mem_n_allocs();
    core_on_message(w->core, w->now, k->peer, &done);
    w->n_allocs += by_mem_n_allocs() - before;
    assert_true(core_check(w->core));
    return true;
}

/* ---- the clients ---- */

static inline void w_tokenized(struct world *w, uint32_t rid, const struct msg_resume *resume,
                               uint32_t n_resume) {
    struct w_req *q = &w->req[rid];
    struct msg m = {.kind = MSG_tokenized,
                    .tokenized = {.name = {w->epoch, rid},
                                  .ids = {q->ids, q->n_ids},
                                  .sampling = q->sampling,
                                  .routing = q->routing}};
    m.tokenized.resume.p = resume;
    m.tokenized.resume.n = n_resume;
    core_on_message(w->core, w->now, W_TOKENIZER, &m);
    assert_true(core_check(w->core));
}

/* Prompt: `shared` ids that all prompts have in common, then ids of its own. */
static inline struct w_req *w_prepare(struct world *w, uint32_t rid, uint32_t n_shared,
                                      uint32_t n_own, uint32_t max_new) {
    struct w_req *q = &w->req[rid];
    memset(q, 0, sizeof *q);
    q->n_ids = n_shared + n_own;
    assert_true(q->n_ids <= W_IDS);
    for (uint32_t i = 0; i < q->n_ids; i++)
        q->ids[i] = i < n_shared ? (i * 7 + 1) % W_VOCAB : (rid * 31 + i * 5 + 2) % W_VOCAB;
    q->sampling = (struct msg_sampling){.n = 1,
                                        .max_new_tokens = max_new,
                                        .seed = rid,
                                        .logprob_start = -1,
                                        .repetition_penalty = 1,
                                        .ignore_eos = true};
    return q;
}

static inline void w_submit(struct world *w, uint32_t rid, uint32_t n_shared, uint32_t n_own,
                            uint32_t max_new) {
    w_prepare(w, rid, n_shared, n_own, max_new);
    w_tokenized(w, rid, NULL, 0);
}

static inline void w_router_says(struct world *w, enum msg_kind kind, uint32_t rid, uint32_t sample,
                                 uint32_t n, bool is_final) {
    struct msg_name name = {w->epoch, rid};
    struct msg m = {.kind = kind};
    if (kind == MSG_ack)
        m.ack =
            (struct msg_ack){.name = name, .sample = sample, .n_tokens = n, .is_final = is_final};
    if (kind == MSG_cancel) m.cancel = (struct msg_cancel){.name = name};
    if (kind == MSG_pause) m.pause = (struct msg_pause){.name = name};
    if (kind == MSG_unpause) m.unpause = (struct msg_unpause){.name = name};
    core_on_message(w->core, w->now, W_ROUTER, &m);
    assert_true(core_check(w->core));
}

static inline void w_finish(struct world *w, uint32_t rid, uint32_t sample, uint32_t n_output) {
    struct msg m = {.kind = MSG_finish,
                    .finish = {.name = {w->epoch, rid},
                               .sample = sample,
                               .n_output = n_output,
                               .reason = FINISH_STOP_TEXT}};
    core_on_message(w->core, w->now, w->detok, &m);
    assert_true(core_check(w->core));
}

static inline void w_show(const struct world *w) { /* for a person who looks at a failing seed */
    struct by_buf b;
    by_buf_init(&b, 1 << 20);
    core_show(w->core, &b);
    fputs(b.p ? b.p : "", stderr);
    by_buf_release(&b);
}

static inline void w_ask(struct world *w, const char *what, const char *json) {
    struct msg m = {.kind = MSG_ask,
                    .ask = {.id = 1, .what = by_str_of(what), .json = by_str_of(json)}};
    w->answer[0] = '\0';
    core_on_message(w->core, w->now, W_ROUTER, &m);
    assert_true(core_check(w->core));
    assert_true(w->answer[0] != '\0');
}

static inline bool w_step(struct world *w) { /* builds all that can go out */
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

/* Until nobody has anything to do. */
static inline void w_run(struct world *w) {
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

/* What an undisturbed run gives for this sample, and how it ends. */
static inline uint32_t world_expect(const struct w_req *q, uint32_t sample, uint32_t *out,
                                    uint32_t *finish) {
    uint64_t h = 0;
    for (uint32_t i = 0; i < q->n_ids; i++)
        h = w_hash(h, q->ids[i]);
    *finish = FINISH_LENGTH;
    for (uint32_t n = 0; n < q->sampling.max_new_tokens; n++) {
        out[n] = w_pick(h, q->sampling.seed, sample);
        h = w_hash(h, out[n]);
        for (uint32_t k = 0; k < q->sampling.stop_ids.n && !q->sampling.ignore_eos; k++) {
            if (out[n] != q->sampling.stop_ids.p[k] || n < q->sampling.min_new_tokens) continue;
            *finish = FINISH_STOP_ID;
            return n + 1;
        }
    }
    return q->sampling.max_new_tokens;
}

/* A request for an embedding of this prompt. */
static inline struct w_req *w_embed(struct world *w, uint32_t rid, uint32_t n_shared,
                                    uint32_t n_own) {
    struct w_req *q = w_prepare(w, rid, n_shared, n_own, 0);
    q->sampling.vector = VECTOR_EMBEDDING;
    w_tokenized(w, rid, NULL, 0);
    return q;
}

static inline void w_assert_vector(const struct world *w, uint32_t rid) {
    const struct w_req *q = &w->req[rid];
    float want[W_EMBED];
    uint64_t h = 0;
    for (uint32_t i = 0; i < q->n_ids; i++)
        h = w_hash(h, q->ids[i]);
    w_vector(h, want);
    assert_false(q->is_failed);
    assert_int_equal(q->sample[0].finish, FINISH_LENGTH);
    assert_int_equal(q->sample[0].n, 0);
    assert_int_equal(q->sample[0].n_vector, W_EMBED);
    assert_memory_equal(q->sample[0].vector, want, sizeof want);
}

static inline void w_assert_whole(const struct world *w, uint32_t rid) {
    const struct w_req *q = &w->req[rid];
    assert_false(q->is_failed);
    for (uint32_t k = 0; k < q->sampling.n; k++) {
        uint32_t want[W_OUT], finish, n = world_expect(q, k, want, &finish);
        assert_int_equal(q->sample[k].n, n);
        assert_memory_equal(q->sample[k].ids, want, n * sizeof *want);
        assert_int_equal(q->sample[k].finish, finish);
    }
}

#endif
