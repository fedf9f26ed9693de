/* core_show.c - draws the core, and checks that what "always" holds does. */
#include "common/base/mem.h"
#include "scheduler/core_state.h"

static bool check_list(const struct core *c, const struct by_list *list, enum seq_state state,
                       uint32_t *n) {
    for (BY_LIST_EACH(it, list)) {
        const struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        if (s->state != state || !seq_check(s, c->page_size)) return false;
        ++*n;
    }
    return true;
}

/* A page is free, or its refs are those of the sequences that list it and of the tree. */
static bool check_pages(const struct core *c, const struct replica *r) {
    uint32_t n = pages_n(r->pages);
    uint32_t *refs = by_alloc_array(n, sizeof *refs);
    uint64_t n_refs = 0, n_listed = 0;
    bool ok = true;
    for (uint32_t i = 0; i < r->n_slots; i++) {
        const struct seq *s = r->slots[i];
        for (uint32_t k = 0; s && k < s->n_pages; k++, n_listed++)
            refs[s->pages[k]]++;
    }
    for (uint32_t i = 0; i < n && ok; i++) {
        n_refs += pages_refs(r->pages, i);
        ok = pages_refs(r->pages, i) >= refs[i] && pages_refs(r->pages, i) <= refs[i] + 1;
    }
    by_free(refs);
    return ok && n_refs == n_listed + radix_n_held(c->tree, r->index);
}

/* Each sequence with a slot holds one lock, and each pin one where it matched. */
static bool check_locks(const struct core *c, const struct replica *r) {
    uint32_t n_locks = r->n_slots - r->n_free_slots, n_pinned = 0;
    for (BY_LIST_EACH(it, &c->pins)) {
        const struct radix_at *at = &BY_CONTAINER_OF(it, struct pin, link)->at[r->index];
        n_locks += at->node != NULL;
        n_pinned += at->n_pages;
    }
    return n_locks == radix_n_locks(c->tree, r->index) && n_pinned == r->n_pinned;
}

struct tally { /* of all requests and tenants, to compare with the counters */
    uint32_t n_live, n_queued, n_isolated, n_assigned, n_running;
};

static void add_reqs(const struct by_list *list, struct tally *sum) {
    for (BY_LIST_EACH(it, list)) {
        const struct req *req = BY_CONTAINER_OF(it, struct req, in_life);
        sum->n_live++;
        sum->n_queued += req->is_queued;
        sum->n_isolated += req->n_deaths >= CORE_SUSPECT_DEATHS;
        sum->n_assigned += req->detok != 0;
    }
}

static bool check_counts(const struct core *c) {
    struct tally reqs = {0}, other = {0};
    add_reqs(&c->over, &reqs);
    for (BY_LIST_EACH(it, &c->book.lives))
        add_reqs(&BY_CONTAINER_OF(it, struct life, link)->reqs, &reqs);
    for (BY_LIST_EACH(it, &c->peers))
        other.n_assigned += BY_CONTAINER_OF(it, struct core_peer, link)->n_reqs;
    for (BY_LIST_EACH(it, &c->tenants.busy)) {
        const struct tenant *t = BY_CONTAINER_OF(it, struct tenant, link);
        other.n_live += t->n_reqs;
        other.n_queued += t->n_queued;
        other.n_running += t->n_running;
    }
    for (uint32_t i = 0; i < c->opt.n_replicas; i++)
        reqs.n_running += c->replicas[i]->n_running;
    return reqs.n_live == c->n_live && other.n_live == c->n_live && reqs.n_queued == c->n_queued &&
           other.n_queued == c->n_queued && reqs.n_isolated == c->n_isolated &&
           reqs.n_running == other.n_running && reqs.n_assigned == other.n_assigned;
}

bool core_check(const struct core *c) {
    uint32_t n_waiting = 0, n_other = 0, n_up = 0, n_probing = 0;
    if (!check_list(c, &c->waiting, SEQ_WAITING, &n_waiting) || n_waiting != c->n_waiting)
        return false;
    if (!check_list(c, &c->paused, SEQ_PAUSED, &n_other)) return false;
    if (!check_list(c, &c->done, SEQ_DONE, &n_other)) return false;
    if (!tenants_check(&c->tenants) || !check_counts(c)) return false;
    if (!book_check(&c->book) || !by_heap_check(&c->timers)) return false;
    if (c->tree && !radix_check(c->tree)) return false;
    for (BY_LIST_EACH(it, &c->peers)) {
        const struct core_peer *p = BY_CONTAINER_OF(it, struct core_peer, link);
        n_probing += p->probe != NULL;
        if (p->probe && p->probe->detok != p->id) return false;
    }
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        const struct replica *r = c->replicas[i];
        n_up += r->is_up;
        if (!replica_check(r)) return false;
        if (!check_list(c, &r->prefill, SEQ_PREFILL, &n_other)) return false;
        if (!check_list(c, &r->decode, SEQ_DECODE, &n_other)) return false;
        if (!check_list(c, &r->leaving, SEQ_LEAVING, &n_other)) return false;
        if (r->is_up && (!check_pages(c, r) || !check_locks(c, r))) return false;
    }
    return n_up == c->n_replicas_up && n_probing == c->n_probing;
}

void core_show(const struct core *c, struct by_buf *out) {
    enum { SHOWN_MAX = 16 };
    by_buf_addf(out, "live=%u waiting=%u isolated=%u replicas=%u/%u\n", c->n_live, c->n_waiting,
                c->n_isolated, c->n_replicas_up, c->opt.n_replicas);
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        const struct replica *r = c->replicas[i];
        if (!r->is_up) continue;
        by_buf_addf(out, "replica %u: step=%llu in_flight=%u running=%u pages free=%u/%u\n", i,
                    (unsigned long long)r->step, r->n_flights, r->n_running, pages_n_free(r->pages),
                    pages_n(r->pages));
        for (uint32_t k = 0; k < r->n_slots; k++) {
            const struct seq *s = r->slots[k];
            if (!s) continue;
            by_buf_addf(out,
                        "  slot %u: rid=%llu/%u %s cached=%u done=%u sched=%u total=%u max=%u\n", k,
                        (unsigned long long)s->req->name.rid, s->sample, seq_state_name(s->state),
                        s->n_cached, s->n_done, s->n_sched, s->n_total, s->n_max);
        }
    }
    uint32_t n = 0;
    for (BY_LIST_EACH(it, &c->waiting)) {
        const struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        if (n++ == SHOWN_MAX) break;
        by_buf_addf(out, "waiting: rid=%llu/%u total=%u max=%u deaths=%u retractions=%u\n",
                    (unsigned long long)s->req->name.rid, s->sample, s->n_total, s->n_max,
                    s->req->n_deaths, s->req->n_retractions);
    }
    for (BY_LIST_EACH(it, &c->paused)) {
        const struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        by_buf_addf(out, "paused: router=%llu rid=%llu/%u total=%u\n",
                    (unsigned long long)s->req->name.epoch, (unsigned long long)s->req->name.rid,
                    s->sample, s->n_total);
    }
    n = 0;
    for (BY_LIST_EACH(it, &c->done)) {
        const struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        if (n++ == SHOWN_MAX) break;
        by_buf_addf(out, "done: router=%llu rid=%llu/%u output=%u acked=%u%s\n",
                    (unsigned long long)s->req->name.epoch, (unsigned long long)s->req->name.rid,
                    s->sample, req_n_output(s), s->n_acked,
                    s->is_end_sent ? "" : " (its end was not sent)");
    }
    if (c->tree) radix_show(c->tree, out);
}
