/* intake.c - what routers, tokenizer workers and detokenizers say about requests. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/metrics.h"
#include "scheduler/core_state.h"

enum {
    ORPHAN_MS = 10000,     /* a request whose router has not said hello yet waits so long for it */
    RETRY_LEAST_MS = 1000, /* Retry-After counts in seconds */
    RETRY_MOST_MS = 60000,
};

/* ---- a new request ---- */

static void refuse(struct core *c, const struct msg_name *name, int code, const char *text,
                   uint32_t retry_after_ms) {
    struct msg m = {.kind = MSG_failed,
                    .failed = {.name = *name,
                               .code = code,
                               .text = by_str_of(text),
                               .retry_after_ms = retry_after_ms}};
    c->counts.n_refused++;
    core_send_router(c, name->epoch, &m);
}

/* It failed while its router was away, or the news got lost. */
static void say_again(struct core *c, const struct msg_name *name) {
    int code = book_epitaph(&c->book, name);
    struct msg m = {
        .kind = MSG_failed,
        .failed = {.name = *name, .code = code, .text = by_str_of(by_err_sentence(code))}};
    core_send_router(c, name->epoch, &m);
}

/* When a place in the queue should come free: half the queue at the pace of late. */
static uint32_t retry_after_ms(const struct core *c) {
    double ms = c->finish_ns / (double)BY_NS_PER_MS * c->n_queued / 2;
    return (uint32_t)BY_MIN(BY_MAX(ms, RETRY_LEAST_MS), RETRY_MOST_MS);
}

static int check_ids(const struct core *c, const uint32_t *ids, uint32_t n, struct by_err *err) {
    for (uint32_t i = 0; i < n; i++) {
        if (ids[i] >= c->model.n_vocab)
            return by_fail(err, BY_EINVAL, "token id %u is not below the vocabulary size %u",
                           ids[i], c->model.n_vocab);
    }
    return 0;
}

/* Does the model make what is asked for? The router says it in its own words before. */
static int check_want(const struct core *c, const struct req *req, struct by_err *err) {
    const struct msg_model *m = &c->model;
    uint32_t want = req->sampling.vector;
    bool can = want == VECTOR_NONE        ? !m->is_encoder
               : want == VECTOR_EMBEDDING ? m->n_embed > 0
                                          : m->n_labels > 0;
    return can ? 0
               : by_fail(err, BY_EUNSUPPORTED, "the model " BY_STR_FMT " makes no %s",
                         BY_STR_ARG(m->type), vector_text(want));
}

int intake_check(struct core *c, struct req *req, struct by_err *err) {
    if (req->checked_by == c->n_models || c->model.n_vocab == 0) return 0;
    int rc = check_want(c, req, err);
    for (uint32_t i = 0; i < req->n_seqs && !rc; i++) {
        const struct seq *s = &req->seqs[i];
        /* The prompt is the same in each: look at it once. */
        uint32_t from = i == 0 ? 0 : req->n_prompt;
        rc = check_ids(c, s->ids + from, s->n_total - from, err);
    }
    if (!rc) req->checked_by = c->n_models;
    return rc;
}

static int check_shape(const struct msg_tokenized *m, struct by_err *err) {
    const struct msg_sampling *sp = &m->sampling;
    if (m->ids.n == 0) return by_fail(err, BY_EINVAL, "the prompt has no tokens");
    if (sp->n == 0 || sp->n > LIMIT_N)
        return by_fail(err, BY_EINVAL, "n is %u; it must be from 1 to %d", sp->n, LIMIT_N);
    if (sp->bias_ids.n != sp->bias_values.n)
        return by_fail(err, BY_EINVAL, "logit_bias has %u ids and %u values", sp->bias_ids.n,
                       sp->bias_values.n);
    if (sp->stop_ids.n > LIMIT_STOP_IDS || sp->bias_ids.n > LIMIT_LOGIT_BIAS ||
        sp->top_logprobs > LIMIT_TOP_LOGPROBS)
        return by_fail(err, BY_ELIMIT, "too many stop ids, biases or logprobs");
    if (sp->vector > VECTOR_SCORES || (sp->vector && (sp->n != 1 || sp->max_new_tokens)))
        return by_fail(err, BY_EINVAL, "a vector is of one prompt and no tokens");
    if (sp->pair_at >= m->ids.n)
        return by_fail(err, BY_EINVAL, "a pair's second text begins at %u of %u ids", sp->pair_at,
                       m->ids.n);
    for (uint32_t i = 0; i < m->resume.n; i++) {
        if (m->resume.p[i].sample >= sp->n)
            return by_fail(err, BY_EINVAL, "resume names sample %u of %u", m->resume.p[i].sample,
                           sp->n);
    }
    return 0;
}

static struct life *life_of(struct core *c, uint64_t epoch) {
    struct life *life = book_life(&c->book, epoch);
    if (life) return life;
    life = book_life_open(&c->book, epoch);
    life->orphan_due_ns = c->now_ns + ORPHAN_MS * BY_NS_PER_MS;
    return life;
}

/* What the sample had before: after a restart of the scheduler the router's journal knows. */
static void resume_seq(struct core *c, struct seq *s, const struct msg_resume *from) {
    uint32_t n = BY_MIN(from->ids.n, s->n_max - s->n_total);
    for (uint32_t i = 0; i < n; i++)
        req_push(&c->pool, s, from->ids.p[i], 0, NULL, NULL);
    s->n_acked = BY_MIN(from->n_delivered, n);
}

static void start_seq(struct core *c, struct seq *s, const struct msg_resume *from) {
    if (from) resume_seq(c, s, from);
    bool is_ended = (from && from->is_done) || (req_n_output(s) > 0 && req_check_end(s));
    if (!is_ended) {
        admit_enqueue(c, s);
        return;
    }
    seq_move(s, SEQ_DONE, &c->done);
    s->req->n_open--;
    if (from->is_done) s->is_end_sent = true; /* the router has its end */
}

static const struct msg_resume *resume_of(const struct msg_tokenized *m, uint32_t sample) {
    for (uint32_t i = 0; i < m->resume.n; i++) {
        if (m->resume.p[i].sample == sample) return &m->resume.p[i];
    }
    return NULL;
}

/* Each sample has a log of its own. */
static bool has_room(const struct core *c, const struct msg_tokenized *m) {
    return c->n_live == 0 ||
           !core_holds_too_much(c, (size_t)m->ids.n * m->sampling.n * sizeof(uint32_t));
}

static void start(struct core *c, const struct msg_tokenized *m) {
    struct req *req = req_new(&c->pool, m);
    struct by_err err;
    book_add(life_of(c, m->name.epoch), req);
    book_claim(&c->book, req);
    req->tenant = tenants_take(&c->tenants, req->routing.tenant);
    req->order = c->next_order++;
    req->arrived_ns = c->now_ns;
    req->is_again = m->resume.n > 0;
    if (c->n_live++ == 0) c->last_finish_ns = 0; /* idle time is no part of the pace */
    c->counts.n_requests++;
    by_count(BY_M_REQUESTS, 1);
    for (uint32_t i = 0; i < req->n_seqs; i++)
        start_seq(c, &req->seqs[i], resume_of(m, i));
    req->is_queued = req->n_open > 0;
    c->n_queued += req->is_queued;
    req->tenant->n_queued += req->is_queued;
    core_set_timer(c, req);
    deliver_assign(c, req);
    if (intake_check(c, req, &err) != 0)
        core_fail(c, req, err.code, err.text);
    else if (req->seqs[0].state == SEQ_WAITING)
        (void)hold_or_end(c, &req->seqs[0]);
}

/* A copy of a live request: the router lost something on the way, and says how far it got. */
static void replay(struct core *c, struct req *req, const struct msg_tokenized *m) {
    for (uint32_t i = 0; i < req->n_seqs; i++) {
        const struct msg_resume *from = resume_of(m, i);
        if (from && from->is_done) continue;
        deliver_all(c, &req->seqs[i], from ? from->n_delivered : 0);
    }
}

void intake_tokenized(struct core *c, struct core_peer *from, const struct msg_tokenized *m) {
    struct by_err err;
    struct req *req;
    switch (book_find(&c->book, &m->name, &req)) {
    case BOOK_LIVE:
        replay(c, req, m);
        return;
    case BOOK_OVER:
        by_debug("a late copy of a request that is over rid=%llu", (unsigned long long)m->name.rid);
        if (book_epitaph(&c->book, &m->name)) say_again(c, &m->name);
        return;
    case BOOK_FORGOTTEN:
        refuse(c, &m->name, BY_ECANCELLED, "this request ended long ago", 0);
        return;
    case BOOK_NEW:
        break;
    }
    if (m->name.epoch == 0) {
        core_strange(c, from, "a request without a router");
        return;
    }
    /* What was accepted before stays accepted: a replay is never refused for want of room. */
    bool is_replay = m->resume.n > 0;
    if (check_shape(m, &err) != 0) {
        refuse(c, &m->name, err.code, err.text, 0);
    } else if (c->is_draining && !is_replay) {
        refuse(c, &m->name, BY_EDRAINING, by_err_sentence(BY_EDRAINING), RETRY_LEAST_MS);
    } else if (!is_replay && book_is_taken(&c->book, &m->name, m->routing.client_id)) {
        refuse(c, &m->name, BY_EINUSE, by_err_sentence(BY_EINUSE), 0);
    } else if (!is_replay &&
               !tenants_may_queue(&c->tenants, m->routing.tenant, c->n_queued, c->opt.max_queued)) {
        refuse(c, &m->name, BY_EFULL, by_err_sentence(BY_EFULL), retry_after_ms(c));
    } else if (!is_replay && !has_room(c, m)) {
        refuse(c, &m->name, BY_EFULL,
               "the requests that wait and run take as much memory as they may", retry_after_ms(c));
    } else {
        start(c, m);
    }
}

/* ---- the rest of its life ---- */

static void bury_unknown(struct core *c, const struct msg_name *name) {
    /* A cancel may overtake the request on its way through the tokenizer worker. */
    struct life *life = book_life(&c->book, name->epoch);
    if (life) book_bury(&c->book, life, name->rid, c->now_ns + CORE_TOMB_MS * BY_NS_PER_MS, 0);
}

/* Routers name their requests by their own epoch, and speak for no others. */
static bool is_own(struct core *c, const struct core_peer *from, const struct msg_name *name) {
    if (from->epoch == name->epoch) return true;
    core_strange(c, from, "a word on another router's request");
    return false;
}

void intake_ack(struct core *c, struct core_peer *from, const struct msg_ack *m) {
    struct req *req;
    enum book_state state = book_find(&c->book, &m->name, &req);
    if (!is_own(c, from, &m->name)) return;
    if (state == BOOK_NEW && m->is_final) bury_unknown(c, &m->name);
    if (state != BOOK_LIVE) return;
    if (m->sample < req->n_seqs) {
        struct seq *s = &req->seqs[m->sample];
        uint32_t n = BY_MIN(m->n_tokens, req_n_output(s));
        if (n > s->n_acked) req->n_replays = req->n_detoks_lost = req->n_detoks_killed = 0;
        s->n_acked = BY_MAX(s->n_acked, n);
    }
    if (m->is_final) core_drop(c, req, true);
}

void intake_cancel(struct core *c, struct core_peer *from, const struct msg_cancel *m) {
    struct req *req;
    enum book_state state = book_find(&c->book, &m->name, &req);
    if (from->role == ROLE_DETOKENIZER) { /* it lost track: from the start, please */
        if (state != BOOK_LIVE) {
            struct msg no = {.kind = MSG_cancel, .cancel = {.name = m->name, .code = BY_ENOTFOUND}};
            c->sink.send(c->sink.ctx, from->id, &no); /* nothing more will come */
            return;
        }
        if (req->detok != from->id) return;
        if (!deliver_again(c, req))
            core_fail(c, req, BY_EINTERNAL, "the detokenizer cannot follow this request");
        return;
    }
    if (!is_own(c, from, &m->name)) return;
    if (state == BOOK_NEW) bury_unknown(c, &m->name);
    if (state != BOOK_LIVE) return;
    c->counts.n_cancelled++;
    by_count(BY_M_ABORTED, 1);
    core_drop(c, req, true);
}

void intake_finish(struct core *c, struct core_peer *from, const struct msg_finish *m) {
    struct req *req;
    if (book_find(&c->book, &m->name, &req) != BOOK_LIVE) {
        struct msg no = {.kind = MSG_cancel, .cancel = {.name = m->name, .code = BY_ENOTFOUND}};
        c->sink.send(c->sink.ctx, from->id, &no);
        return;
    }
    struct seq *s = m->sample < req->n_seqs ? &req->seqs[m->sample] : NULL;
    if (!s || m->n_output > req_n_output(s) || m->reason == FINISH_NONE ||
        m->reason > FINISH_ABORT) {
        core_strange(c, from, "a finish beyond what was sent");
        return;
    }
    /* The scheduler's own end is an upper bound: an earlier one, found in the text, wins. */
    if (s->finish != FINISH_NONE && m->n_output == req_n_output(s)) {
        s->finish = (enum finish)m->reason;
        return;
    }
    bool was_running = s->finish == FINISH_NONE;
    req_truncate(s, m->n_output);
    s->finish = (enum finish)m->reason;
    s->is_end_sent = true; /* it knows */
    if (was_running) core_seq_ended(c, s);
}

static void pause_seq(struct core *c, struct seq *s) {
    if (s->state == SEQ_WAITING) {
        admit_dequeue(c, s);
        seq_move(s, SEQ_PAUSED, &c->paused);
    } else if (s->state == SEQ_PREFILL || s->state == SEQ_DECODE) {
        s->paused_from = s->state;
        s->replica->n_running--;
        tenants_unrun(&c->tenants, s->req->tenant);
        seq_move(s, SEQ_PAUSED, &c->paused);
    }
}

static void unpause_seq(struct core *c, struct seq *s) {
    if (s->state == SEQ_LEAVING && s->leave_to == SEQ_PAUSED) s->leave_to = SEQ_WAITING;
    if (s->state != SEQ_PAUSED) return;
    if (!seq_has_slot(s)) {
        admit_enqueue(c, s);
        return;
    }
    struct replica *r = s->replica;
    seq_move(s, s->paused_from, s->paused_from == SEQ_PREFILL ? &r->prefill : &r->decode);
    r->n_running++;
    tenants_run(&c->tenants, s->req->tenant);
}

void intake_pause(struct core *c, struct core_peer *from, const struct msg_name *name,
                  bool is_paused) {
    struct req *req;
    if (!is_own(c, from, name)) return;
    if (book_find(&c->book, name, &req) != BOOK_LIVE || req->is_paused == is_paused) return;
    req->is_paused = is_paused;
    for (uint32_t i = 0; i < req->n_seqs; i++) {
        if (is_paused)
            pause_seq(c, &req->seqs[i]);
        else
            unpause_seq(c, &req->seqs[i]);
    }
}
