/* sim_check.c - what must hold after every item, and when all has settled. */
#include "tests/sim/sim.h"

#include "scheduler/core_state.h"

enum { STARVED_S = 120 };

static struct core *core_of(struct sim *s) {
    return sim_proc(s, ROLE_SCHEDULER, 0)->core;
}

/* Fairness: the counters of tenants that wait are never further apart than U = max(prompt weight x longest prompt,
 * output weight x tokens that all batches hold); Sheng et al., lemma 4.3. */
static void check_fair(struct sim *s, const struct core *c) {
    enum { OUTPUT_WEIGHT = 2 };
    double bound =
        (double)OUTPUT_WEIGHT * s->cfg.n_pages * s->cfg.page_size * s->cfg.core.n_replicas;
    double least = 1e300, most = -1e300;
    /* Who waits for the larger replica sees others go on at the smaller one, and no bound holds. */
    if (c->policy.kind != POLICY_FAIR || s->cfg.is_uneven) return;
    for (BY_LIST_EACH(it, &c->tenants.busy)) {
        const struct tenant *t = BY_CONTAINER_OF(it, struct tenant, link);
        if (t->n_waiting == 0) continue;
        least = BY_MIN(least, t->counter);
        most = BY_MAX(most, t->counter);
    }
    bound = BY_MAX(bound, (double)SIM_PROMPT_MAX);
    if (most - least > bound)
        sim_fail(s, "tenants that wait are %.0f apart; the bound is %.0f", most - least, bound);
}

/* ---- nobody starves ---- */

/* What is still owed, for the person who reads the failure. */
static void show(struct sim *s) {
    struct by_buf b;
    by_buf_init(&b, 1 << 20);
    core_show(core_of(s), &b);
    for (uint32_t i = 0; i < SIM_ROUTERS; i++) {
        const struct sim_proc *p = sim_proc(s, ROLE_ROUTER, i);
        for (BY_LIST_EACH(it, &p->router->journal.in_order)) {
            const struct journal_entry *e = BY_CONTAINER_OF(it, struct journal_entry, in_order);
            by_buf_addf(&b, "router %u owes %llu/%llu: %u of %u samples, %u ids, link %u%s%s\n", i,
                        (unsigned long long)p->epoch, (unsigned long long)e->rid, e->n_finished,
                        e->n_samples, e->samples[0].n_ids, e->tokenizer,
                        e->is_unsent ? ", unsent" : "", e->is_asked_again ? ", asked again" : "");
        }
    }
    for (uint32_t i = 0; i < s->cfg.n_detoks; i++)
        by_buf_addf(&b, "detokenizer %u: %zu open\n", i,
                    detok_n_open(sim_proc(s, ROLE_DETOKENIZER, i)->detok));
    for (uint32_t i = 0; i < SIM_LINKS; i++) {
        const struct sim_link *l = &s->link[i];
        if (!l->is_used) continue;
        by_buf_addf(&b, "link %u: %s %u -> %s %u, session %llu%s / %llu%s%s\n", l->number,
                    role_text(l->end[0].proc->role), l->end[0].proc->index,
                    role_text(l->end[1].proc->role), l->end[1].proc->index,
                    (unsigned long long)l->end[0].session, l->end[0].is_up ? "" : " (down)",
                    (unsigned long long)l->end[1].session, l->end[1].is_up ? "" : " (down)",
                    l->is_closed ? ", closed" : "");
    }
    fputs(b.p ? b.p : "", sim_out());
    by_buf_release(&b);
}

static void check_starved(struct sim *s) {
    if (!fault_is_calm(s)) {
        s->calm_since = UINT64_MAX;
        return;
    }
    if (s->calm_since == UINT64_MAX) s->calm_since = s->now;
    /* Under `priority` the low ones wait as long as there are high ones: that is what was asked for. */
    if (s->cfg.core.policy == POLICY_PRIORITY && !s->is_quiet) return;
    for (uint32_t i = 0; i < SIM_ROUTERS; i++) {
        struct sim_proc *p = sim_proc(s, ROLE_ROUTER, i);
        for (uint32_t k = 0; k < SIM_CLIENTS; k++) {
            const struct sim_client *c = &p->router->client[k];
            if (!c->entry || c->is_paused) continue;
            uint64_t from = BY_MAX(s->calm_since, c->news_ns);
            if (s->now <= from + STARVED_S * SIM_S) continue;
            show(s);
            sim_fail(s, "request %llu/%llu has waited for %d s in fair weather",
                     (unsigned long long)p->epoch, (unsigned long long)c->entry->rid, STARVED_S);
        }
    }
}

/* A replica with nothing on its way has nothing to compute: nobody would wake the scheduler for what it left. */
void check_awake(struct sim *s, const struct core *c) {
    for (uint32_t i = 0; i < c->opt.n_replicas && c->update.state == UPDATE_NONE; i++) {
        const struct replica *r = c->replicas[i];
        const struct by_list *lists[] = {&r->prefill, &r->decode};
        if (!r->is_up || r->n_flights > 0) continue;
        for (uint32_t k = 0; k < BY_COUNTOF(lists); k++) {
            for (BY_LIST_EACH(it, lists[k])) {
                const struct seq *q = BY_CONTAINER_OF(it, struct seq, link);
                if (q->state == SEQ_DECODE && q->n_total + q->n_pending >= q->n_max) continue;
                if (r->solo && q->req != r->solo) continue;
                show(s);
                sim_fail(s, "replica %u stands still, and request %llu/%llu could go on", i,
                         (unsigned long long)q->req->name.epoch,
                         (unsigned long long)q->req->name.rid);
            }
        }
    }
}

/* ---- after each item ---- */

static void look_if_blind(struct sim *s, const struct core *c) {
    bool is_late = c->now_ns >= c->started_ns + CORE_GRACE_MS * SIM_MS;
    s->is_blind |= s->cfg.is_uneven && is_late && !c->replicas[0]->context_len;
}

void check_after(struct sim *s, struct sim_proc *p) {
    bool ok = true;
    if (!p->epoch) return; /* it died of the item */
    switch (p->role) {
    case ROLE_SCHEDULER:
        ok = core_check(p->core);
        check_fair(s, p->core);
        look_if_blind(s, p->core);
        gpu_poison(s);
        break;
    case ROLE_ROUTER:
        ok = carry_check(&p->router->carry) && journal_check(&p->router->journal);
        break;
    case ROLE_TOKENIZER_WORKER:
        ok = desk_check(&p->desk);
        break;
    case ROLE_DETOKENIZER:
        ok = detok_check(p->detok);
        break;
    default:
        break;
    }
    if (!ok) sim_fail(s, "the %s does not hold together", role_text(p->role));
    if ((s->n_items & 63) == 0) check_starved(s);
}

/* ---- when all has settled ---- */

bool check_is_settled(struct sim *s) {
    if (!core_is_idle(core_of(s))) return false;
    for (uint32_t i = 0; i < SIM_ROUTERS; i++) {
        if (!by_list_empty(&sim_proc(s, ROLE_ROUTER, i)->router->journal.in_order)) return false;
    }
    for (uint32_t i = 0; i < s->cfg.n_detoks; i++) {
        if (detok_n_open(sim_proc(s, ROLE_DETOKENIZER, i)->detok)) return false;
    }
    return true;
}

void check_settled(struct sim *s) {
    const struct core *c = core_of(s);
    if (!check_is_settled(s)) {
        show(s);
        sim_fail(s, "something is still owed");
    }
    for (uint32_t i = 0; i < SIM_DETOKS; i++) {
        if (i < s->cfg.n_detoks && sim_proc(s, ROLE_DETOKENIZER, i)->detok == NULL)
            sim_fail(s, "a detokenizer is not there");
    }
    if (!by_list_empty(&c->tenants.busy)) sim_fail(s, "a tenant is busy with nothing");
    for (uint32_t i = 0; i < s->cfg.core.n_replicas; i++) {
        const struct replica *r = c->replicas[i];
        if (!r->is_up) sim_fail(s, "replica %u is not there", i);
        uint32_t n_kept = radix_n_held(c->tree, i);
        if (pages_n_free(r->pages) + n_kept != pages_n(r->pages))
            sim_fail(s, "replica %u: %u pages are free and %u in the tree, of %u", i,
                     pages_n_free(r->pages), n_kept, pages_n(r->pages));
        if (!c->n_pins && radix_n_evictable(c->tree, i) != n_kept)
            sim_fail(s, "replica %u: pages of the tree are locked by nobody", i);
    }
}
