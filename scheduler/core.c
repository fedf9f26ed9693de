#include "scheduler/core.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "scheduler/core_state.h"

static bool due_before(const struct by_heap_node *a, const struct by_heap_node *b) {
    const struct req *x = BY_CONTAINER_OF(a, struct req, timer);
    const struct req *y = BY_CONTAINER_OF(b, struct req, timer);
    return x->due_ns != y->due_ns ? x->due_ns < y->due_ns : x->order < y->order;
}

struct core *core_new(const struct core_options *o, const struct core_sink *sink) {
    by_assert(o->n_replicas >= 1 && o->n_replicas <= RADIX_REPLICAS_MAX);
    by_assert(o->depth >= 1 && o->depth <= REPLICA_DEPTH_MAX);
    by_assert(o->chunked_prefill_size >= 1 && o->max_running >= 1);
    struct core *c = by_alloc(sizeof *c);
    c->opt = *o;
    c->sink = *sink;
    pool_init(&c->pool);
    for (uint32_t i = 0; i < o->n_replicas; i++)
        c->replicas[i] = replica_new(i);
    by_list_init(&c->peers);
    by_map_init(&c->peer_by_id);
    by_arena_init(&c->model_arena, 0);
    book_init(&c->book);
    by_list_init(&c->waiting);
    by_list_init(&c->paused);
    by_list_init(&c->done);
    by_list_init(&c->detokless);
    by_list_init(&c->over);
    by_list_init(&c->pins);
    by_heap_init(&c->timers, due_before);
    tenants_init(&c->tenants);
    policy_init(&c->policy, o->policy);
    c->new_token_ratio = BY_MIN(0.7 * o->conservativeness, 1.0);
    return c;
}

void core_free(struct core *c) {
    if (!c) return;
    while (!by_list_empty(&c->peers)) /* as if all left: routers take their requests along */
        core_on_down(c, c->now_ns,
                     BY_CONTAINER_OF(by_list_first(&c->peers), struct core_peer, link)->id, "");
    for (BY_LIST_EACH_SAFE(it, next, &c->book.lives)) {
        struct life *life = BY_CONTAINER_OF(it, struct life, link);
        while (!by_list_empty(&life->reqs))
            core_drop(c, BY_CONTAINER_OF(by_list_first(&life->reqs), struct req, in_life), false);
    }
    while (!by_list_empty(&c->pins))
        pin_remove(c, BY_CONTAINER_OF(by_list_first(&c->pins), struct pin, link)->id);
    by_assert(c->n_live == 0);
    for (uint32_t i = 0; i < c->opt.n_replicas; i++)
        replica_free(c->replicas[i]);
    radix_free(c->tree);
    book_release(&c->book);
    tenants_release(&c->tenants);
    policy_release(&c->policy);
    by_heap_release(&c->timers);
    by_map_release(&c->peer_by_id);
    by_arena_release(&c->model_arena);
    pool_release(&c->pool);
    by_free(c);
}

/* ---- small services for the other files ---- */

void core_strange(struct core *c, const struct core_peer *peer, const char *what) {
    c->counts.n_strange_frames++;
    by_count(BY_M_FRAMES_BAD, 1);
    by_warn_limited("dropped %s from=%s:%s", what, role_text(peer->role), peer->instance);
}

void core_send_router(struct core *c, uint64_t epoch, const struct msg *m) {
    struct life *life = book_life(&c->book, epoch);
    if (life && life->peer) c->sink.send(c->sink.ctx, life->peer, m);
}

bool core_holds_too_much(const struct core *c, size_t more) {
    enum { LARGE = 16384 }; /* a quarter is kept for what is no larger */
    uint64_t max = more > LARGE ? c->opt.held_max / 4 * 3 : c->opt.held_max;
    /* Blocks that are kept for the next user are there to be used. */
    return max && by_mem_n_bytes() - c->pool.n_kept + more > max;
}

void core_clear_suspect(struct core *c, struct req *req) {
    req->blamed_by = 0;
    if (req->n_deaths == 0) return;
    if (req->n_deaths >= CORE_SUSPECT_DEATHS) c->n_isolated--;
    req->n_deaths = 0;
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        if (c->replicas[i]->solo == req) c->replicas[i]->solo = NULL;
    }
}

void core_unqueue(struct core *c, struct req *req) {
    c->n_queued -= req->is_queued;
    req->tenant->n_queued -= req->is_queued;
    req->is_queued = false;
}

void core_req_changed(struct core *c, struct req *req) {
    if (!req->is_over || req->n_open > 0) return;
    core_clear_suspect(c, req);
    if (req->timer.index != BY_HEAP_OUT) by_heap_remove(&c->timers, &req->timer);
    for (uint32_t i = 0; i < req->n_seqs; i++)
        by_list_remove(&req->seqs[i].link);
    by_list_remove(&req->in_life);
    core_unqueue(c, req);
    tenants_give(&c->tenants, req->tenant);
    c->n_live--;
    req_free(req, &c->pool);
}

/* Has the detokenizer got the end of each sample? Then it has let go already. */
static bool is_told_all(const struct req *req) {
    for (uint32_t i = 0; i < req->n_seqs; i++) {
        if (!req->seqs[i].is_end_sent) return false;
    }
    return true;
}

static void drop(struct core *c, struct req *req, bool is_known, int code) {
    by_assert(!req->is_over);
    struct life *life = req->life;
    uint32_t detok = req->detok;
    book_unclaim(&c->book, req);
    book_forget(req);
    if (is_known)
        book_bury(&c->book, life, req->name.rid, c->now_ns + CORE_TOMB_MS * BY_NS_PER_MS, code);
    deliver_unassign(c, req);
    by_list_push(&c->over, &req->in_life);
    req->is_over = true;
    if (core_peer(c, detok) && !is_told_all(req)) {
        struct msg m = {.kind = MSG_cancel, .cancel = {.name = req->name, .code = BY_ECANCELLED}};
        c->sink.send(c->sink.ctx, detok, &m);
    }
    uint32_t n_seqs = req->n_seqs;
    req->n_open++; /* hold it: the last sequence to go frees it */
    for (uint32_t i = 0; i < n_seqs; i++) {
        if (req->seqs[i].state != SEQ_DONE) retract_leave(c, &req->seqs[i], SEQ_DONE);
    }
    req->n_open--;
    core_req_changed(c, req);
}

void core_drop(struct core *c, struct req *req, bool is_known) {
    drop(c, req, is_known, 0);
}

void core_fail(struct core *c, struct req *req, int code, const char *text) {
    if (req->is_over) return;
    struct msg m = {.kind = MSG_failed,
                    .failed = {.name = req->name, .code = code, .text = by_str_of(text)}};
    core_send_router(c, req->name.epoch, &m);
    by_count(BY_M_ABORTED, 1);
    drop(c, req, true, code);
}

void core_seq_ended(struct core *c, struct seq *s) {
    enum { WEIGHT = 16 }; /* of the past in the moving average */
    if (c->last_finish_ns)
        c->finish_ns += ((double)(c->now_ns - c->last_finish_ns) - c->finish_ns) / WEIGHT;
    c->last_finish_ns = c->now_ns;
    retract_leave(c, s, SEQ_DONE);
}

/* ---- deadlines ---- */

static uint64_t least_limit(uint64_t a_ms, uint64_t b_ms) { /* 0 means none */
    return a_ms == 0 ? b_ms : b_ms == 0 ? a_ms : BY_MIN(a_ms, b_ms);
}

void core_set_timer(struct core *c, struct req *req) {
    uint64_t queue = least_limit(c->opt.queue_timeout_ms, req->routing.queue_timeout_ms);
    uint64_t run = least_limit(c->opt.run_timeout_ms, req->routing.run_timeout_ms);
    uint64_t limit = req->is_admitted ? run : least_limit(queue, run);
    if (req->timer.index != BY_HEAP_OUT) by_heap_remove(&c->timers, &req->timer);
    req->due_ns = limit ? req->arrived_ns + limit * BY_NS_PER_MS : 0;
    if (req->due_ns) by_heap_push(&c->timers, &req->timer);
}

static void run_timers(struct core *c) {
    for (;;) {
        struct by_heap_node *first = by_heap_first(&c->timers);
        if (!first) break;
        struct req *req = BY_CONTAINER_OF(first, struct req, timer);
        if (req->due_ns > c->now_ns) break;
        by_heap_remove(&c->timers, first);
        bool is_running = req->is_admitted;
        if (req->n_open > 0 && !req->is_over)
            core_fail(c, req, BY_ETIMEOUT,
                      is_running ? "the request ran longer than its time limit"
                                 : "the request waited longer than its time limit");
    }
    for (BY_LIST_EACH_SAFE(it, next, &c->book.lives)) {
        struct life *life = BY_CONTAINER_OF(it, struct life, link);
        if (life->peer || !life->orphan_due_ns || life->orphan_due_ns > c->now_ns) continue;
        while (!by_list_empty(&life->reqs))
            core_drop(c, BY_CONTAINER_OF(by_list_first(&life->reqs), struct req, in_life), false);
        book_life_end(&c->book, life);
    }
    book_expire(&c->book, c->now_ns);
    pin_expire(c, c->now_ns);
    peers_expire(c);
    hold_look(c);
}

uint64_t core_next_timer(const struct core *c) {
    uint64_t due = UINT64_MAX;
    struct by_heap_node *first = by_heap_first(&c->timers);
    if (first) due = BY_CONTAINER_OF(first, struct req, timer)->due_ns;
    for (BY_LIST_EACH(it, &c->book.lives)) {
        const struct life *life = BY_CONTAINER_OF(it, struct life, link);
        if (!life->peer && life->orphan_due_ns) due = BY_MIN(due, life->orphan_due_ns);
    }
    due = BY_MIN(due, hold_next_due(c));
    due = BY_MIN(due, pin_next_due(c));
    due = BY_MIN(due, peers_next_due(c));
    return due; /* tombstones can wait for the next call */
}

/* Time as the shell tells it; it never goes back. */
void core_see_time(struct core *c, uint64_t now_ns) {
    if (!c->started_ns) c->started_ns = now_ns;
    c->now_ns = BY_MAX(c->now_ns, now_ns);
}

/* ---- frames ---- */

/* The rows of proto/README: who may say what. */
static bool may_say(enum role role, enum msg_kind kind) {
    switch (kind) {
    case MSG_tokenized:
        return role == ROLE_TOKENIZER_WORKER;
    case MSG_step_done:
    case MSG_updated:
        return role == ROLE_GPU_WORKER;
    case MSG_finish:
    case MSG_reading:
        return role == ROLE_DETOKENIZER;
    case MSG_cancel:
        return role == ROLE_DETOKENIZER || role == ROLE_ROUTER;
    case MSG_ack:
    case MSG_pause:
    case MSG_unpause:
        return role == ROLE_ROUTER;
    case MSG_ask:
        return true;
    default:
        return false;
    }
}

void core_on_message(struct core *c, uint64_t now_ns, uint32_t peer, const struct msg *m) {
    core_see_time(c, now_ns);
    struct core_peer *p = core_peer(c, peer);
    if (!p) return; /* its session was ended a moment ago */
    if (!may_say(p->role, m->kind) || (p->is_stale && m->kind != MSG_updated)) {
        core_strange(c, p, msg_kind_name(m->kind));
        return;
    }
    switch (m->kind) {
    case MSG_tokenized:
        intake_tokenized(c, p, &m->tokenized);
        break;
    case MSG_step_done:
        batch_done(c, c->replicas[p->replica], p, &m->step_done);
        break;
    case MSG_updated:
        update_answered(c, p, &m->updated);
        break;
    case MSG_finish:
        intake_finish(c, p, &m->finish);
        break;
    case MSG_reading:
        deliver_read(c, p, &m->reading);
        break;
    case MSG_cancel:
        intake_cancel(c, p, &m->cancel);
        break;
    case MSG_ack:
        intake_ack(c, p, &m->ack);
        break;
    case MSG_pause:
        intake_pause(c, p, &m->pause.name, true);
        break;
    case MSG_unpause:
        intake_pause(c, p, &m->unpause.name, false);
        break;
    default:
        dump_ask(c, p, &m->ask);
        break;
    }
}

bool core_next_step(struct core *c, uint64_t now_ns) {
    core_see_time(c, now_ns);
    run_timers(c);
    bool is_sent = false;
    for (uint32_t i = 0; i < c->opt.n_replicas && c->update.state == UPDATE_NONE; i++)
        is_sent |= batch_build(c, c->replicas[i]);
    if (c->peers_changed) peers_tell(c);
    return is_sent;
}

bool core_is_idle(const struct core *c) {
    return c->n_live == 0;
}

void core_drain(struct core *c) {
    c->is_draining = true;
    c->peers_changed = true;
}
