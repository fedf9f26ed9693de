/* core_clients.c - requests and what else routers and detokenizers say, and what must come of a request. */
#include "tests/unit/core_world.h"

struct w_req *w_prepare(struct world *w, uint32_t rid, uint32_t n_shared, uint32_t n_own,
                        uint32_t max_new) {
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

/* ---- the clients ---- */

void w_tokenized(struct world *w, uint32_t rid, const struct msg_resume *resume,
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

void w_submit(struct world *w, uint32_t rid, uint32_t n_shared, uint32_t n_own, uint32_t max_new) {
    w_prepare(w, rid, n_shared, n_own, max_new);
    w_tokenized(w, rid, NULL, 0);
}

struct w_req *w_embed(struct world *w, uint32_t rid, uint32_t n_shared, uint32_t n_own) {
    struct w_req *q = w_prepare(w, rid, n_shared, n_own, 0);
    q->sampling.vector = VECTOR_EMBEDDING;
    w_tokenized(w, rid, NULL, 0);
    return q;
}

void w_router_says(struct world *w, enum msg_kind kind, uint32_t rid, uint32_t sample, uint32_t n,
                   bool is_final) {
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

void w_finish(struct world *w, uint32_t rid, uint32_t sample, uint32_t n_output) {
    struct msg m = {.kind = MSG_finish,
                    .finish = {.name = {w->epoch, rid},
                               .sample = sample,
                               .n_output = n_output,
                               .reason = FINISH_STOP_TEXT}};
    core_on_message(w->core, w->now, w->detok, &m);
    assert_true(core_check(w->core));
}

uint32_t world_expect(const struct w_req *q, uint32_t sample, uint32_t *out, uint32_t *finish) {
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

void w_assert_whole(const struct world *w, uint32_t rid) {
    const struct w_req *q = &w->req[rid];
    assert_false(q->is_failed);
    for (uint32_t k = 0; k < q->sampling.n; k++) {
        uint32_t want[W_OUT], finish, n = world_expect(q, k, want, &finish);
        assert_int_equal(q->sample[k].n, n);
        assert_memory_equal(q->sample[k].ids, want, n * sizeof *want);
        assert_int_equal(q->sample[k].finish, finish);
    }
}

void w_assert_vector(const struct world *w, uint32_t rid) {
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
