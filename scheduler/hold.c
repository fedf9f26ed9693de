/* hold.c - which replica can hold a sequence, prompt, output and all, and what becomes of one that none can.
 *
 * How long a sequence may be is each replica's own. Who is too long for one waits for another: one that is here, is lost for less
 * than the grace, or is still to come. */
#include "common/base/clock.h"
#include "scheduler/core_state.h"

uint32_t hold_longest(const struct replica *r, const struct seq *s) {
    uint32_t want = req_n_wanted(s->req), n_max = BY_MIN(want, r->context_len);
    return s->n_total + (want > s->n_total) <= n_max ? n_max : 0;
}

bool hold_here(const struct core *c, const struct seq *s) {
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        if (c->replicas[i]->is_up && hold_longest(c->replicas[i], s)) return true;
    }
    return false;
}

static uint64_t all_here_ns(const struct core *c) {
    return c->started_ns + CORE_GRACE_MS * BY_NS_PER_MS;
}

/* A lost replica is waited for as long as the server is not called ready without it; when that is ready, who has nothing yet
 * is told so, and may ask elsewhere. UINT64_MAX: it is here, or nobody serves meanwhile. */
static uint64_t given_up_ns(const struct core *c, const struct replica *r) {
    if (r->is_up || !r->context_len || !c->n_replicas_up) return UINT64_MAX;
    return BY_MAX(r->lost_ns, c->served_ns) + CORE_GRACE_MS * BY_NS_PER_MS;
}

static bool may_have_begun(const struct req *req) {
    for (uint32_t i = 0; i < req->n_seqs; i++) {
        if (req_n_output(&req->seqs[i]) > 0) return true;
    }
    return req->is_again;
}

bool hold_elsewhere(const struct core *c, const struct seq *s) {
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        const struct replica *o = c->replicas[i];
        if (o == s->replica) continue;
        if (!o->context_len && c->now_ns < all_here_ns(c)) return true;
        if (!hold_longest(o, s)) continue;
        if (c->now_ns < given_up_ns(c, o) || may_have_begun(s->req)) return true;
    }
    return false;
}

bool hold_or_end(struct core *c, struct seq *s) {
    struct by_err err;
    uint32_t longest = 0;
    bool is_away = false;
    if (hold_elsewhere(c, s)) return false;
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        longest = BY_MAX(longest, c->replicas[i]->context_len);
        is_away |= hold_longest(c->replicas[i], s) > 0;
    }
    if (longest == 0) return false; /* there is no replica yet */
    if (req_n_output(s) > 0) {
        s->finish = FINISH_LENGTH;
        deliver_new(c, s);
        core_seq_ended(c, s);
        return true;
    }
    int code =
        is_away
            ? by_fail(&err, BY_EUNAVAILABLE,
                      "the input (%u tokens) fits into no replica that is here, and the one that "
                      "is away has not come back; try again",
                      s->req->n_prompt)
            : by_fail(&err, BY_ETOOLONG,
                      "the input (%u tokens) is longer than the model's context length (%u tokens)",
                      s->req->n_prompt, longest);
    core_fail(c, s->req, code, err.text);
    return true;
}

/* When time alone next changes that, behind `since`. */
static uint64_t next_change(const struct core *c, uint64_t since) {
    uint64_t due = all_here_ns(c) > since ? all_here_ns(c) : UINT64_MAX;
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        uint64_t at = given_up_ns(c, c->replicas[i]);
        if (at > since) due = BY_MIN(due, at);
    }
    return due;
}

void hold_look(struct core *c) {
    bool has_changed = c->must_look || next_change(c, c->looked_ns) <= c->now_ns;
    c->looked_ns = c->now_ns;
    c->must_look = false;
    if (!has_changed || !c->n_waiting) return;
    for (BY_LIST_EACH(it, &c->book.lives)) {
        struct life *life = BY_CONTAINER_OF(it, struct life, link);
        for (BY_LIST_EACH_SAFE(at, next, &life->reqs)) {
            struct req *req = BY_CONTAINER_OF(at, struct req, in_life);
            for (uint32_t i = 0; i < req->n_seqs; i++) {
                struct seq *s = &req->seqs[i];
                bool is_last = req_n_output(s) == 0; /* if it ends, so does its request */
                if (s->state == SEQ_WAITING && hold_or_end(c, s) && is_last) break;
            }
        }
    }
}

uint64_t hold_next_due(const struct core *c) {
    if (!c->n_waiting) return UINT64_MAX;
    uint64_t due = next_change(c, c->now_ns);
    for (uint32_t i = 0; c->n_replicas_up > 1 && i < c->opt.n_replicas; i++) {
        uint64_t late = replica_late_ns(c->replicas[i]);
        if (late > c->now_ns) due = BY_MIN(due, late);
    }
    return due;
}
