/* retract.c - who gives way: under memory pressure, at the end, and when a worker is lost. */
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/metrics.h"
#include "scheduler/core_state.h"

/* The slot, pages and lock go; the log stays. */
static void strip(struct core *c, struct seq *s) {
    struct replica *r = s->replica;
    if (!s->is_void) batch_file(c, s);
    pages_give(r->pages, s->pages, s->n_pages);
    radix_unlock(c->tree, s->at.node, r->index);
    s->at = (struct radix_at){0};
    replica_give_slot(r, s);
    pool_put(&c->pool, s->pages, s->pages_cap);
    s->pages = NULL;
    s->pages_cap = 0;
    s->n_pages = s->n_cached = s->n_done = s->n_sched = s->n_gone = s->n_pending = 0;
    s->n_keeps = 0;
    s->rolled_stamp = s->from_stamp = 0;
    s->is_void = false;
}

static void go(struct core *c, struct seq *s, enum seq_state to) {
    if (to == SEQ_WAITING && s->req->is_paused) to = SEQ_PAUSED;
    if (to == s->state) return;
    if (to == SEQ_WAITING) {
        admit_enqueue(c, s);
    } else if (to == SEQ_PAUSED) {
        seq_move(s, SEQ_PAUSED, &c->paused);
    } else {
        seq_move(s, SEQ_DONE, &c->done);
        s->req->n_open--;
        core_req_changed(c, s->req);
    }
}

static void stop_running(struct core *c, struct seq *s) {
    if (s->state != SEQ_PREFILL && s->state != SEQ_DECODE) return;
    s->replica->n_running--;
    tenants_unrun(&c->tenants, s->req->tenant);
}

void retract_leave(struct core *c, struct seq *s, enum seq_state to) {
    by_assert(to == SEQ_WAITING || to == SEQ_PAUSED || to == SEQ_DONE);
    if (s->state == SEQ_LEAVING) {
        if (s->leave_to != SEQ_DONE) s->leave_to = to;
        return;
    }
    if (s->state == SEQ_WAITING) admit_dequeue(c, s);
    if (!seq_has_slot(s)) {
        go(c, s, to);
        return;
    }
    stop_running(c, s);
    if (s->n_inflight > 0) {
        s->leave_to = to;
        seq_move(s, SEQ_LEAVING, &s->replica->leaving);
        return;
    }
    strip(c, s);
    go(c, s, to);
}

void retract_landed(struct core *c, struct seq *s) {
    by_assert(s->n_inflight > 0);
    s->n_inflight--;
    if (s->state != SEQ_LEAVING || s->n_inflight > 0) return;
    strip(c, s);
    go(c, s, s->leave_to);
}

/* A paused sequence that keeps its place gives way first: nobody waits for it. */
static struct seq *pick_paused(struct core *c, const struct replica *r) {
    for (BY_LIST_EACH(it, &c->paused)) {
        struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        if (s->replica == r) return s;
    }
    return NULL;
}

static struct seq *pick_running(struct core *c, struct replica *r) {
    struct seq *victim = NULL;
    struct by_list *lists[] = {&r->prefill, &r->decode};
    for (uint32_t i = 0; i < BY_COUNTOF(lists); i++) {
        for (BY_LIST_EACH(it, lists[i])) {
            struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
            if (s->req != r->solo && (!victim || policy_gives_way(c, s, victim))) victim = s;
        }
    }
    /* The last one is not retracted: what was admitted alone fits alone. */
    return r->n_running > 1 ? victim : NULL;
}

/* Who computed what the tree held already goes on with copies of its own, and its lock is on the tree's: under pressure it
 * lets go of those. They can be found again when it files more. */
static bool let_go_of_copies(struct core *c, struct replica *r) {
    bool any = false;
    for (uint32_t i = 0; i < r->n_slots; i++) {
        struct seq *s = r->slots[i];
        if (!s || s->state == SEQ_LEAVING) continue;
        uint32_t before = s->at.n_pages;
        s->at = radix_let_go(c->tree, s->at, r->index, s->pages);
        any |= s->at.n_pages < before;
    }
    return any;
}

static bool give_way(struct core *c, struct seq *victim, enum seq_state to) {
    by_debug("retracted rid=%llu sample=%u output=%u", (unsigned long long)victim->req->name.rid,
             victim->sample, req_n_output(victim));
    victim->req->n_retractions++;
    c->counts.n_retractions++;
    by_count(BY_M_RETRACTED, 1);
    retract_leave(c, victim, to);
    return !seq_has_slot(victim);
}

/* Who has a slot, and neither runs nor leaves, is paused. */
bool retract_has_paused(const struct replica *r) {
    return by_list_empty(&r->leaving) && r->n_slots - r->n_free_slots > r->n_running;
}

bool retract_paused(struct core *c, struct replica *r) {
    struct seq *victim = retract_has_paused(r) ? pick_paused(c, r) : NULL;
    return victim && give_way(c, victim, SEQ_PAUSED);
}

bool retract_one(struct core *c, struct replica *r) {
    if (let_go_of_copies(c, r)) return true;
    if (!by_list_empty(&r->leaving)) return false; /* pages are on their way */
    if (retract_has_paused(r)) return retract_paused(c, r);
    struct seq *victim = pick_running(c, r);
    if (!victim) return pin_give_way(c, r); /* it runs alone, and a pin never stops it */
    admit_ratio_bump(c, r);
    return give_way(c, victim, SEQ_WAITING);
}

/* ---- suspects (DESIGN D5) ---- */

static void count_death(struct core *c, struct req *req) {
    if (++req->n_deaths == CORE_SUSPECT_DEATHS) c->n_isolated++;
}

static void convict(struct core *c, struct req *req) {
    by_error("a request was alone in a step each time its worker failed, and is refused rid=%llu "
             "deaths=%u",
             (unsigned long long)req->name.rid, req->n_deaths);
    core_fail(c, req, BY_EPOISON, by_err_sentence(BY_EPOISON));
}

/* A step failed, and the worker lives: whoever had rows in it is a suspect. */
void retract_blame(struct core *c, const struct flight *f) {
    struct req *alone = NULL;
    uint32_t n_reqs = 0;
    for (uint32_t i = 0; i < f->n_rows; i++) {
        struct req *req = f->rows[i].seq->req;
        if (req->is_over || req->is_blamed) continue;
        req->is_blamed = true;
        n_reqs++;
        alone = req;
    }
    bool is_guilty = n_reqs == 1 && alone->n_deaths >= CORE_SUSPECT_DEATHS;
    for (uint32_t i = 0; i < f->n_rows; i++) {
        struct req *req = f->rows[i].seq->req;
        if (!req->is_blamed) continue;
        req->is_blamed = false;
        count_death(c, req);
    }
    if (is_guilty) convict(c, alone);
}

/* Whether the process died is known when it is back: then its life is another one. A session that breaks, however often,
 * proves nothing against a request. */
static void blame_later(struct replica *r) {
    uint64_t bit = UINT64_C(1) << r->index;
    r->n_blamed = 0;
    r->has_died = false;
    for (uint32_t k = 0; k < r->n_flights; k++) {
        struct flight *f = replica_flight(r, k);
        for (uint32_t i = 0; i < f->n_rows; i++) {
            struct req *req = f->rows[i].seq->req;
            if (req->is_over || (req->blamed_by & bit)) continue;
            req->blamed_by |= bit;
            r->n_blamed++;
        }
    }
}

void retract_verdict(struct core *c, struct replica *r) {
    uint64_t bit = UINT64_C(1) << r->index;
    struct req *guilty = NULL;
    for (BY_LIST_EACH(it, &c->book.lives)) {
        struct life *life = BY_CONTAINER_OF(it, struct life, link);
        for (BY_LIST_EACH(at, &life->reqs)) {
            struct req *req = BY_CONTAINER_OF(at, struct req, in_life);
            if (!(req->blamed_by & bit)) continue;
            req->blamed_by &= ~bit;
            if (!r->has_died) continue;
            if (r->n_blamed == 1 && req->n_deaths >= CORE_SUSPECT_DEATHS) guilty = req;
            count_death(c, req);
        }
    }
    r->has_died = false;
    if (guilty) convict(c, guilty);
}

static void lose_list(struct core *c, struct by_list *list) {
    while (!by_list_empty(list)) {
        struct seq *s = BY_CONTAINER_OF(by_list_first(list), struct seq, link);
        enum seq_state to = s->state == SEQ_LEAVING ? s->leave_to : SEQ_WAITING;
        stop_running(c, s);
        s->n_inflight = 0;
        s->is_void = true; /* nothing of it is filed: the pages behind are gone */
        strip(c, s);
        go(c, s, to);
    }
}

void retract_replica_lost(struct core *c, struct replica *r) {
    blame_later(r);
    r->lost_ns = c->now_ns;
    r->n_flights = 0;
    for (BY_LIST_EACH_SAFE(it, next, &c->paused)) {
        struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        if (s->replica != r) continue;
        s->n_inflight = 0;
        s->is_void = true;
        strip(c, s);
    }
    pin_replica_lost(c, r);
    lose_list(c, &r->leaving);
    lose_list(c, &r->prefill);
    lose_list(c, &r->decode);
    radix_leave(c->tree, r->index);
    replica_close(r);
    c->n_replicas_up--;
}
