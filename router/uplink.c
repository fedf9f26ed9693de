#include "router/uplink.h"

#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/proc.h"
#include "proto/wire.h"
#include "router/carry.h"
#include "router/pump.h"

#include <stdio.h>
#include <string.h>

enum {
    GRACE_MS = 10000, /* as the scheduler's */
    RETRY_MS = 1000,  /* a link that could not be opened: there was no file descriptor for it */
    ASKED_BYTES_MAX =
        256 * 1024 * 1024, /* of questions to tokenizer workers; a quarter is kept for … */
    ASKED_LARGE = 65536,   /* … those that are no larger */
};

/* A process that peers named: a tokenizer worker or a detokenizer. */
struct link {
    struct by_list node;
    struct uplink *uplink;
    uint32_t id; /* never 0, never reused */
    enum role role;
    char instance[64], endpoint[256];
    struct pump *pump;      /* NULL: it could not be opened yet */
    struct wire_peer *peer; /* while a session stands */
    bool is_listed;
};

struct question {
    struct by_list node;
    uint64_t id;
    uint32_t link; /* 0: the scheduler */
    size_t n_bytes;
    uplink_answer *answer;
    void *ctx; /* NULL: forgotten */
};

struct uplink {
    struct uplink_options o;
    struct carry carry;
    struct uplink_state state;
    struct by_arena state_arena;
    struct pump *scheduler_pump;
    struct wire_peer *scheduler; /* while a session stands */
    bool scheduler_says_ready;
    uv_timer_t grace; /* runs while something is missing that was there */
    /* runs after a session began: others may not have found that scheduler yet */
    uv_timer_t rejoin;
    uv_timer_t retry; /* runs while a link could not be opened */
    struct by_list links, questions;
    uint32_t next_link;
    uint64_t next_question;
    size_t n_asked_bytes; /* of all questions */
};

/* ---- readiness ---- */

static void set_ready(struct uplink *u, bool is_ready) {
    if (u->state.is_ready == is_ready) return;
    u->state.is_ready = is_ready;
    u->o.ready_changed(u->o.ctx, is_ready);
}

/* It did not come back. Streams wait on, as long as their clients do; what nobody has begun may be served elsewhere. */
static void on_grace_over(uv_timer_t *t) {
    struct uplink *u = t->data;
    set_ready(u, false);
    struct msg m = {.kind = MSG_failed,
                    .failed = {.code = BY_EUNAVAILABLE, .text = by_str_of(u->state.why_not)}};
    for (bool again = true; again;) { /* a failure changes the journal: look again from the start */
        size_t at = 0;
        uint64_t rid;
        void *p;
        again = false;
        while (!again && by_map_next(&u->o.journal->entries, &at, &rid, &p)) {
            const struct journal_entry *e = p;
            if (!e->is_unsent || e->has_text) continue;
            m.failed.name = e->request.name;
            carry_on_message(&u->carry, CARRY_SCHEDULER, &m);
            again = true;
        }
    }
}

/* A process that died is back in a moment; requests are taken, and wait, meanwhile. */
static void update_ready(struct uplink *u) {
    struct uplink_state *s = &u->state;
    const char *why = !u->scheduler              ? "the scheduler is not connected"
                      : !u->scheduler_says_ready ? NULL
                      : !carry_has(&u->carry, ROLE_TOKENIZER_WORKER)
                          ? "no tokenizer worker is connected"
                      : !carry_has(&u->carry, ROLE_DETOKENIZER) ? "no detokenizer is connected"
                                                                : "";
    bool is_complete = why && !why[0];
    if (why) snprintf(s->why_not, sizeof s->why_not, "%s", why);
    if (is_complete) {
        uv_timer_stop(&u->grace);
        set_ready(u, true);
    } else if (s->is_ready && !uv_is_active((uv_handle_t *)&u->grace)) {
        uv_timer_start(&u->grace, on_grace_over, GRACE_MS, 0);
    }
}

/* ---- requests ---- */

static struct link *link_by_id(const struct uplink *u, uint32_t id) {
    for (BY_LIST_EACH(node, &u->links)) {
        struct link *l = BY_CONTAINER_OF(node, struct link, node);
        if (l->id == id) return l;
    }
    return NULL;
}

static void carry_sends(void *ctx, uint32_t id, const struct msg *m) {
    struct uplink *u = ctx;
    struct link *l = id == CARRY_SCHEDULER ? NULL : link_by_id(u, id);
    struct wire_peer *to = l ? l->peer : u->scheduler;
    if (to) wire_send(to, m);
}

static void carry_news(void *ctx, struct journal_entry *e, uint32_t sample) {
    struct uplink *u = ctx;
    u->o.news(u->o.ctx, e, sample);
}

static void carry_failed(void *ctx, struct journal_entry *e, const struct msg_failed *f) {
    struct uplink *u = ctx;
    u->o.failed(u->o.ctx, e, f);
}

void uplink_submit(struct uplink *u, struct journal_entry *e) {
    carry_submit(&u->carry, e);
}

void uplink_cancel(struct uplink *u, struct journal_entry *e) {
    carry_cancel(&u->carry, e);
}

void uplink_ack(struct uplink *u, struct journal_entry *e, uint32_t sample, bool is_final) {
    carry_ack(&u->carry, e, sample, is_final);
}

void uplink_pause(struct uplink *u, struct journal_entry *e, bool is_paused) {
    carry_pause(&u->carry, e, is_paused);
}

/* ---- questions ---- */

static void on_answer(struct uplink *u, uint64_t id, int code, struct by_str json) {
    for (BY_LIST_EACH_SAFE(node, next, &u->questions)) {
        struct question *q = BY_CONTAINER_OF(node, struct question, node);
        if (q->id != id) continue;
        by_list_remove(&q->node);
        u->n_asked_bytes -= q->n_bytes;
        if (q->ctx) q->answer(q->ctx, code, json);
        by_free(q);
        return;
    }
}

/* Questions that a lost process will not answer. */
static void fail_questions(struct uplink *u, uint32_t link) {
    for (bool again = true; again;) { /* an answer may ask anew: start over after each */
        again = false;
        for (BY_LIST_EACH(node, &u->questions)) {
            struct question *q = BY_CONTAINER_OF(node, struct question, node);
            if (q->link != link) continue;
            on_answer(u, q->id, BY_EUNAVAILABLE,
                      BY_STR("{\"error\":\"the process that was asked is gone; try again\"}"));
            again = true;
            break;
        }
    }
}

/* ---- links ---- */

static void link_on_up(void *ctx, struct wire_peer *peer) {
    struct link *l = ctx;
    l->peer = peer;
    by_debug("connected role=%s instance=%s", role_text(l->role), l->instance);
    carry_link_up(&l->uplink->carry, l->id, l->role);
    update_ready(l->uplink);
}

static void link_on_msg(void *ctx, struct wire_peer *peer, const struct msg *m) {
    struct link *l = ctx;
    (void)peer;
    if (m->kind == MSG_text_answer) {
        struct by_str json = m->text_answer.code ? m->text_answer.error : m->text_answer.json;
        on_answer(l->uplink, m->text_answer.id, m->text_answer.code, json);
    } else {
        carry_on_message(&l->uplink->carry, l->id, m);
    }
}

static void link_on_down(void *ctx, struct wire_peer *peer, const char *why) {
    struct link *l = ctx;
    l->peer = NULL;
    by_info("lost a process: %s role=%s instance=%s", why, role_text(l->role), l->instance);
    carry_link_down(&l->uplink->carry, l->id, peer->is_gone);
    fail_questions(l->uplink, l->id);
    update_ready(l->uplink);
}

static void close_link(struct link *l) {
    l->peer = NULL;
    carry_link_down(&l->uplink->carry, l->id, false);
    fail_questions(l->uplink, l->id);
    by_list_remove(&l->node);
    pump_close(l->pump);
    by_free(l); /* its wire calls no handler any more: pump_close stops the pumping at once */
}

static void on_retry(uv_timer_t *t);

static void open_link(struct link *l) {
    struct uplink *u = l->uplink;
    struct by_err err = {0};
    struct wire *w = NULL;
    struct wire_options o = {.endpoint = l->endpoint,
                             .key_file = u->o.key_file,
                             .role = ROLE_ROUTER,
                             .instance = u->o.instance,
                             .epoch = u->o.epoch,
                             .expect = l->role,
                             .up = link_on_up,
                             .msg = link_on_msg,
                             .down = link_on_down,
                             .ctx = l};
    if (wire_open(&w, &o, &err)) {
        by_warn_limited("cannot connect to a process, and tries again: %s", err.text);
        uv_timer_start(&u->retry, on_retry, RETRY_MS, 0);
        return;
    }
    l->pump = pump_new(u->o.loop, w, u->o.settled, u->o.ctx);
}

static void on_retry(uv_timer_t *t) {
    struct uplink *u = t->data;
    for (BY_LIST_EACH(node, &u->links)) {
        struct link *l = BY_CONTAINER_OF(node, struct link, node);
        if (!l->pump) open_link(l);
    }
}

static void add_link(struct uplink *u, const struct msg_peer *p) {
    struct link *l = by_alloc(sizeof *l);
    l->uplink = u;
    l->id = ++u->next_link;
    l->role = (enum role)p->role;
    l->is_listed = true;
    snprintf(l->instance, sizeof l->instance, "%.*s", (int)BY_MIN(p->instance.n, (size_t)63),
             p->instance.p);
    snprintf(l->endpoint, sizeof l->endpoint, "%.*s", (int)BY_MIN(p->endpoint.n, (size_t)255),
             p->endpoint.p);
    by_list_push(&u->links, &l->node);
    open_link(l);
}

/* One link an endpoint, whichever life of the process is behind it: the link finds the new one by itself. */
static struct link *find_link(struct uplink *u, const struct msg_peer *p) {
    for (BY_LIST_EACH(node, &u->links)) {
        struct link *l = BY_CONTAINER_OF(node, struct link, node);
        if ((uint32_t)l->role == p->role && by_str_eqz(p->endpoint, l->endpoint)) return l;
    }
    return NULL;
}

/* A new scheduler lists who has come so far, and with one of each kind it is ready. A link that is made anew loses what was on
 * its way, so those that stand are left to processes which may have to find it yet; who has died ends them anyway. */
static void close_unlisted(struct uplink *u) {
    bool may_be_late = uv_is_active((uv_handle_t *)&u->rejoin);
    for (BY_LIST_EACH_SAFE(node, next, &u->links)) {
        struct link *l = BY_CONTAINER_OF(node, struct link, node);
        if (!l->is_listed && !(l->peer && may_be_late)) close_link(l);
    }
}

static void on_rejoin_over(uv_timer_t *t) {
    close_unlisted(t->data);
}

static void on_peers(struct uplink *u, const struct msg_peers *m) {
    struct uplink_state *s = &u->state;
    const struct msg_sampling_defaults last = s->model.sampling_defaults;
    by_arena_clear(&u->state_arena);
    msg_model_copy(&u->state_arena, &m->model, &s->model);
    if (!m->model.n_vocab) s->model.sampling_defaults = last; /* the worker has yet to come back */
    msg_capacity_copy(&u->state_arena, &m->capacity, &s->capacity);
    s->kv_tokens = m->kv_tokens;
    s->n_replicas = m->n_replicas;
    /* It has waited already for whoever was lost. A new one that waits for all to come says no from its start. */
    bool is_over = u->scheduler_says_ready && !m->is_ready;
    u->scheduler_says_ready = m->is_ready;
    if (!m->is_ready)
        snprintf(s->why_not, sizeof s->why_not, "%.*s",
                 (int)BY_MIN(m->not_ready_why.n, (size_t)255), m->not_ready_why.p);
    for (BY_LIST_EACH(node, &u->links))
        BY_CONTAINER_OF(node, struct link, node)->is_listed = false;
    for (uint32_t i = 0; i < m->peers.n; i++) {
        const struct msg_peer *p = &m->peers.p[i];
        if (p->role != ROLE_TOKENIZER_WORKER && p->role != ROLE_DETOKENIZER) continue;
        struct link *l = find_link(u, p);
        if (l)
            l->is_listed = true;
        else
            add_link(u, p);
    }
    close_unlisted(u);
    update_ready(u);
    if (is_over) on_grace_over(&u->grace);
}

/* ---- the scheduler ---- */

static void scheduler_on_up(void *ctx, struct wire_peer *peer) {
    struct uplink *u = ctx;
    u->scheduler = peer;
    uv_timer_start(&u->rejoin, on_rejoin_over, GRACE_MS, 0);
    carry_scheduler_up(&u->carry);
    update_ready(u);
}

static void scheduler_on_msg(void *ctx, struct wire_peer *peer, const struct msg *m) {
    struct uplink *u = ctx;
    (void)peer;
    if (m->kind == MSG_peers)
        on_peers(u, &m->peers);
    else if (m->kind == MSG_answer)
        on_answer(u, m->answer.id, m->answer.code, m->answer.json);
    else
        carry_on_message(&u->carry, CARRY_SCHEDULER, m);
}

static void scheduler_on_down(void *ctx, struct wire_peer *peer, const char *why) {
    struct uplink *u = ctx;
    (void)peer;
    by_log(by_proc_loss_level(), "lost the scheduler: %s", why);
    u->scheduler = NULL;
    uv_timer_stop(&u->rejoin); /* the last list may have been of those who had come so far */
    carry_scheduler_down(&u->carry);
    u->scheduler_says_ready = false;
    fail_questions(u, 0);
    update_ready(u);
}

int uplink_open(struct uplink **out, const struct uplink_options *o, struct by_err *err) {
    struct wire *w = NULL;
    struct uplink *u = by_alloc(sizeof *u);
    u->o = *o;
    struct carry_options co = {.journal = o->journal,
                               .send = carry_sends,
                               .news = carry_news,
                               .failed = carry_failed,
                               .ctx = u};
    carry_init(&u->carry, &co);
    by_list_init(&u->links);
    by_list_init(&u->questions);
    by_arena_init(&u->state_arena, 0);
    snprintf(u->state.why_not, sizeof u->state.why_not, "the scheduler is not connected");
    struct wire_options wo = {.endpoint = o->scheduler_endpoint,
                              .key_file = o->key_file,
                              .role = ROLE_ROUTER,
                              .instance = o->instance,
                              .epoch = o->epoch,
                              .expect = ROLE_SCHEDULER,
                              .up = scheduler_on_up,
                              .msg = scheduler_on_msg,
                              .down = scheduler_on_down,
                              .ctx = u};
    int rc = wire_open(&w, &wo, err);
    if (rc) {
        by_free(u);
        return rc;
    }
    u->scheduler_pump = pump_new(o->loop, w, o->settled, o->ctx);
    uv_timer_init(o->loop, &u->grace);
    uv_timer_init(o->loop, &u->rejoin);
    uv_timer_init(o->loop, &u->retry);
    u->grace.data = u->rejoin.data = u->retry.data = u;
    *out = u;
    return 0;
}

const struct uplink_state *uplink_state(const struct uplink *u) {
    return &u->state;
}

/* ---- asking ---- */

static uint64_t add_question(struct uplink *u, uint32_t link, size_t n_bytes, uplink_answer *answer,
                             void *ctx) {
    struct question *q = by_alloc(sizeof *q);
    q->id = ++u->next_question;
    q->link = link;
    u->n_asked_bytes += q->n_bytes = n_bytes;
    q->answer = answer;
    q->ctx = ctx;
    by_list_push(&u->questions, &q->node);
    return q->id;
}

void uplink_ask_scheduler(struct uplink *u, const char *what, struct by_str json,
                          uplink_answer *answer, void *ctx) {
    if (!u->scheduler) {
        answer(ctx, BY_EUNAVAILABLE, BY_STR("{\"error\":\"the scheduler is not connected\"}"));
        return;
    }
    struct msg m = {.kind = MSG_ask,
                    .ask = {.id = add_question(u, 0, json.n, answer, ctx),
                            .what = by_str_of(what),
                            .json = json}};
    wire_send(u->scheduler, &m);
}

void uplink_ask_tokenizer(struct uplink *u, const char *what, struct by_str json,
                          uplink_answer *answer, void *ctx) {
    struct link *l = link_by_id(u, carry_tokenizer(&u->carry));
    if (!l) {
        answer(ctx, BY_EUNAVAILABLE, BY_STR("no tokenizer worker is connected"));
        return;
    }
    size_t max = json.n > ASKED_LARGE ? ASKED_BYTES_MAX / 4 * 3 : ASKED_BYTES_MAX;
    if (u->n_asked_bytes &&
        u->n_asked_bytes + json.n > max) { /* they need no credit, and would fill its queue */
        answer(ctx, BY_EFULL,
               BY_STR("as much text waits for the tokenizer worker as may; try again"));
        return;
    }
    struct msg m = {.kind = MSG_text_ask,
                    .text_ask = {.id = add_question(u, l->id, json.n, answer, ctx),
                                 .what = by_str_of(what),
                                 .json = json}};
    wire_send(l->peer, &m);
}

void uplink_forget(struct uplink *u, void *ctx) {
    for (BY_LIST_EACH(node, &u->questions)) {
        struct question *q = BY_CONTAINER_OF(node, struct question, node);
        if (q->ctx == ctx) q->ctx = NULL;
    }
}
