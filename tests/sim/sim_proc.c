/* sim_proc.c - what the five shells do around their cores: uplink.c and the main.c of each, without sockets. */
#include "tests/sim/sim.h"

#include "common/base/mem.h"

enum { REJOIN_MS = 10000 }; /* uplink.c's GRACE_MS */

static struct sim_proc *scheduler(struct sim *s) {
    return sim_proc(s, ROLE_SCHEDULER, 0);
}

static const char *instance_of(const struct sim_proc *p) {
    static const char *const names[] = {"0", "1", "2", "3"};
    return names[p->index];
}

/* ---- scheduler ---- */

static void core_sends(void *ctx, uint32_t peer, const struct msg *m) {
    struct sim_proc *p = ctx;
    struct sim_link *l = bus_find(p->sim, peer);
    if (l) bus_send(p->sim, l, 1, m);
}

static void core_ends(void *ctx, uint32_t peer, const char *why) {
    struct sim_proc *p = ctx;
    struct sim_link *l = bus_find(p->sim, peer);
    if (l) bus_end(p->sim, l, 1, why);
}

static void start_scheduler(struct sim *s, struct sim_proc *p) {
    struct core_sink sink = {.send = core_sends, .end = core_ends, .ctx = p};
    struct by_err err;
    char path[512];
    s->n_scheduler_lives++;
    if (s->opt.trace) {
        snprintf(path, sizeof path, "%s.%llu", s->opt.trace,
                 (unsigned long long)s->n_scheduler_lives);
        if (trace_open(&p->trace, path, &s->cfg.core, &err) != 0) sim_fail(s, "%s", err.text);
    }
    p->core = core_new(&s->cfg.core, &sink);
}

static void set_timer(struct sim *s, struct sim_proc *p, uint64_t due) {
    if (due == UINT64_MAX || (p->timer_at > s->now && p->timer_at <= due)) return;
    p->timer_at = BY_MAX(due, s->now + 1);
    bus_post(s, ITEM_TIMER, p, p->timer_at - s->now);
}

static void idle_scheduler(struct sim *s, struct sim_proc *p) {
    do
        trace_step(p->trace, s->now);
    while (core_next_step(p->core, s->now));
    check_awake(s, p->core);
    set_timer(s, p, core_next_timer(p->core));
}

/* ---- router ---- */

static void carry_sends(void *ctx, uint32_t link, const struct msg *m) {
    struct sim_proc *p = ctx;
    struct sim_link *l = link == CARRY_SCHEDULER ? bus_between(p->sim, p, scheduler(p->sim))
                                                 : bus_find(p->sim, link);
    if (l) bus_send(p->sim, l, 0, m);
}

static void carry_news(void *ctx, struct journal_entry *e, uint32_t sample) {
    struct sim_proc *p = ctx;
    client_news(p->sim, p, e, sample);
}

static void carry_failed(void *ctx, struct journal_entry *e, const struct msg_failed *f) {
    struct sim_proc *p = ctx;
    client_failed(p->sim, p, e, f);
}

static void start_router(struct sim *s, struct sim_proc *p) {
    p->router = by_alloc(sizeof *p->router);
    journal_init(&p->router->journal, p->epoch);
    struct carry_options o = {.journal = &p->router->journal,
                              .send = carry_sends,
                              .news = carry_news,
                              .failed = carry_failed,
                              .ctx = p};
    carry_init(&p->router->carry, &o);
    for (uint32_t i = 0; i < SIM_CLIENTS && !s->is_quiet; i++)
        bus_post(s, ITEM_CLIENT, p, 10 * SIM_MS + sim_below(s, s->cfg.think_ns))->arg = i;
}

static void let_go(struct sim *s, struct sim_proc *p, struct sim_link *l) {
    bool was_up = l->end[0].is_up;
    bus_close(s, l);
    if (was_up) carry_link_down(&p->router->carry, l->number, false);
}

static void close_unlisted(struct sim *s, struct sim_proc *p) { /* as in uplink.c */
    bool may_be_late = p->router->rejoin_ns > s->now;
    for (uint32_t i = 0; i < SIM_LINKS; i++) {
        struct sim_link *l = &s->link[i];
        bool is_mine = l->is_used && !l->is_closed && l->end[0].proc == p;
        bool is_kept = l->is_listed || (l->end[0].is_up && may_be_late);
        if (is_mine && !is_kept && l->end[1].proc != scheduler(s)) let_go(s, p, l);
    }
}

static void on_peers(struct sim *s, struct sim_proc *p, const struct msg_peers *m) {
    for (uint32_t i = 0; i < SIM_LINKS; i++)
        s->link[i].is_listed = s->link[i].is_listed && s->link[i].end[0].proc != p;
    for (uint32_t i = 0; i < m->peers.n; i++) {
        const struct msg_peer *peer = &m->peers.p[i];
        struct sim_proc *to =
            sim_proc(s, (enum role)peer->role, (uint32_t)(peer->instance.p[0] - '0'));
        struct sim_link *l = bus_between(s, p, to);
        if (!l) l = bus_open(s, p, to);
        l->is_listed = true;
    }
    close_unlisted(s, p);
}

static void router_message(struct sim *s, struct sim_proc *p, const struct sim_link *l,
                           const struct msg *m) {
    if (m->kind == MSG_peers)
        on_peers(s, p, &m->peers);
    else
        carry_on_message(&p->router->carry,
                         l->end[1].proc == scheduler(s) ? CARRY_SCHEDULER : l->number, m);
}

/* ---- tokenizer worker ---- */

static void desk_generates(void *ctx, const struct msg_generate *m, struct msg *out) {
    struct sim_proc *p = ctx;
    p->is_dying |= m->sampling.seed >> 56 == SIM_UNREADABLE;
    worker_generate(p->sim->shared->tokenizer_worker, m, out);
}

static void desk_to_router(void *ctx, void *router, const struct msg *m) {
    struct sim_proc *p = ctx;
    if (!p->is_dying) bus_send(p->sim, router, 1, m);
}

static void desk_to_scheduler(void *ctx, const struct msg *m) {
    struct sim_proc *p = ctx;
    struct sim_link *l = bus_between(p->sim, p, scheduler(p->sim));
    if (l && !p->is_dying) bus_send(p->sim, l, 0, m);
}

static void desk_ends_router(void *ctx, void *router, const char *why) {
    struct sim_proc *p = ctx;
    bus_end(p->sim, router, 1, why);
}

static void start_tokenizer(struct sim_proc *p) {
    struct desk_options o = {.generate = desk_generates,
                             .to_router = desk_to_router,
                             .to_scheduler = desk_to_scheduler,
                             .end_router = desk_ends_router,
                             .ctx = p};
    desk_init(&p->desk, &o);
}

/* ---- detokenizer ---- */

static struct sim_link *router_link(struct sim_proc *detok, uint64_t epoch) {
    struct sim *s = detok->sim;
    for (uint32_t i = 0; i < SIM_LINKS; i++) {
        struct sim_link *l = &s->link[i];
        if (l->is_used && l->end[1].proc == detok && l->end[1].is_up && l->end[0].life == epoch)
            return l;
    }
    return NULL;
}

static bool is_unwritable(const struct sim_link *l, const struct msg *m) {
    const struct sim_router *r = l->end[0].proc->router;
    const struct journal_entry *e =
        r && m->kind == MSG_text ? journal_find(&r->journal, m->text.name) : NULL;
    return e && r->client[e->index].special == SIM_UNWRITABLE;
}

static bool detok_to_router(void *ctx, uint64_t epoch, const struct msg *m) {
    struct sim_proc *p = ctx;
    struct sim_link *l = router_link(p, epoch);
    if (l) p->is_dying |= is_unwritable(l, m);
    if (l && !p->is_dying) bus_send(p->sim, l, 1, m);
    return l != NULL;
}

static void detok_to_scheduler(void *ctx, const struct msg *m) {
    desk_to_scheduler(ctx, m);
}

static void start_detok(struct sim *s, struct sim_proc *p) {
    struct detok_options o = {.t = s->shared->tokenizer,
                              .to_router = detok_to_router,
                              .to_scheduler = detok_to_scheduler,
                              .ctx = p};
    p->detok = detok_new(&o);
}

/* ---- lives ---- */

void proc_start(struct sim *s, struct sim_proc *p) {
    by_assert(!p->epoch);
    p->epoch = ++s->epochs * 1000 + p->index; /* routers' rids are equal, their epochs never */
    p->timer_at = 0;
    if (p->role == ROLE_SCHEDULER) start_scheduler(s, p);
    if (p->role == ROLE_ROUTER) start_router(s, p);
    if (p->role == ROLE_TOKENIZER_WORKER) start_tokenizer(p);
    if (p->role == ROLE_DETOKENIZER) start_detok(s, p);
    if (p->role == ROLE_GPU_WORKER) gpu_born(s, p->worker);
    if (p->role != ROLE_SCHEDULER) bus_open(s, p, scheduler(s));
}

static void core_gone(struct sim_proc *p) {
    trace_close(p->trace);
    core_free(p->core);
    p->trace = NULL;
    p->core = NULL;
}

void proc_die(struct sim *s, struct sim_proc *p) {
    if (!p->epoch) return;
    p->epoch = 0;
    p->is_dying = false;
    bus_proc_died(s, p);
    if (p->role == ROLE_SCHEDULER) core_gone(p);
    if (p->role == ROLE_TOKENIZER_WORKER) desk_release(&p->desk);
    detok_free(p->detok);
    p->detok = NULL;
    if (!p->router) return;
    carry_release(&p->router->carry);
    journal_release(&p->router->journal);
    by_free(p->router);
    p->router = NULL;
}

/* ---- sessions ---- */

void proc_hello(struct sim *s, const struct sim_link *l, struct msg_hello *out) {
    const struct sim_proc *p = l->end[0].proc;
    *out = (struct msg_hello){.role = p->role,
                              .instance = by_str_of(instance_of(p)),
                              .epoch = p->epoch,
                              .endpoint = BY_STR("ipc://sim")};
    if (p->role != ROLE_GPU_WORKER) return;
    out->model = (struct msg_model){.n_vocab = worker_n_vocab(s->shared->tokenizer_worker),
                                    .context_len = p->worker->context_len,
                                    .is_encoder = s->cfg.is_encoder,
                                    .n_embed = SIM_EMBED,
                                    .pools_all = s->cfg.pools_all};
    out->capacity = (struct msg_capacity){.page_size = s->cfg.page_size,
                                          .n_pages = p->worker->n_pages,
                                          .n_slots = s->cfg.n_slots,
                                          .step_tokens_max = s->cfg.step_tokens,
                                          .rank = p->worker->rank,
                                          .world = s->cfg.world,
                                          .replica = p->worker->replica,
                                          .no_prefix_reuse = s->cfg.is_encoder,
                                          .n_states = s->cfg.n_states};
}

int proc_admit(struct sim *s, struct sim_link *l, const struct msg_hello *h, struct by_err *err) {
    (void)s;
    struct sim_proc *p = l->end[1].proc;
    return p->role == ROLE_SCHEDULER ? core_admit(p->core, h, err) : 0;
}

void proc_up(struct sim *s, struct sim_link *l, uint32_t side, const struct msg_hello *h) {
    struct sim_proc *p = l->end[side].proc;
    bool is_scheduler = l->end[!side].proc->role == ROLE_SCHEDULER;
    switch (p->role) {
    case ROLE_SCHEDULER:
        trace_up(p->trace, s->now, l->number, h);
        core_on_up(p->core, s->now, l->number, h);
        break;
    case ROLE_ROUTER:
        if (is_scheduler) {
            p->router->rejoin_ns = s->now + REJOIN_MS * SIM_MS;
            carry_scheduler_up(&p->router->carry);
        } else {
            carry_link_up(&p->router->carry, l->number, l->end[1].proc->role);
        }
        break;
    case ROLE_TOKENIZER_WORKER:
        if (is_scheduler)
            desk_scheduler_up(&p->desk);
        else
            desk_router_up(&p->desk, l);
        break;
    case ROLE_DETOKENIZER:
        if (is_scheduler)
            detok_reset(p->detok);
        else
            detok_router_up(p->detok, l->end[0].life);
        break;
    default:
        gpu_reset(s, p->worker);
    }
}

void proc_down(struct sim *s, struct sim_link *l, uint32_t side, const char *why, bool is_gone) {
    struct sim_proc *p = l->end[side].proc;
    bool is_scheduler = l->end[!side].proc->role == ROLE_SCHEDULER;
    switch (p->role) {
    case ROLE_SCHEDULER:
        trace_down(p->trace, s->now, l->number, why);
        core_on_down(p->core, s->now, l->number, why);
        break;
    case ROLE_ROUTER:
        if (is_scheduler) {
            p->router->rejoin_ns = 0;
            carry_scheduler_down(&p->router->carry);
        } else {
            carry_link_down(&p->router->carry, l->number, is_gone);
        }
        break;
    case ROLE_TOKENIZER_WORKER:
        if (is_scheduler)
            desk_scheduler_down(&p->desk);
        else
            desk_router_down(&p->desk, l);
        break;
    case ROLE_DETOKENIZER:
        if (is_scheduler)
            detok_reset(p->detok);
        else if (!router_link(p, l->end[0].life))
            detok_router_down(p->detok, l->end[0].life);
        break;
    default:
        gpu_reset(s, p->worker);
    }
}

void proc_message(struct sim *s, struct sim_link *l, uint32_t side, const struct msg *m) {
    struct sim_proc *p = l->end[side].proc;
    if (p->role == ROLE_SCHEDULER) {
        s->n_aborts += m->kind == MSG_ask && by_str_eqz(m->ask.what, "abort");
        trace_message(p->trace, s->now, l->number, m);
        core_on_message(p->core, s->now, l->number, m);
    } else if (p->role == ROLE_ROUTER) {
        router_message(s, p, l, m);
    } else if (p->role == ROLE_TOKENIZER_WORKER) {
        if (m->kind == MSG_generate) desk_generate(&p->desk, l, &m->generate);
        if (m->kind == MSG_reading) desk_reading(&p->desk, l, &m->reading);
    } else if (p->role == ROLE_GPU_WORKER) {
        if (m->kind == MSG_step) gpu_take(s, p, l, &m->step);
    } else if (side == 1) {
        if (m->kind == MSG_cancel) detok_on_router_cancel(p->detok, &m->cancel);
    } else if (m->kind == MSG_tokens) {
        detok_on_tokens(p->detok, &m->tokens, s->now);
    } else if (m->kind == MSG_cancel) {
        detok_on_cancel(p->detok, &m->cancel.name);
    } else if (m->kind == MSG_reading) {
        detok_on_reading(p->detok, &m->reading);
    }
}

/* ---- the rest ---- */

void proc_handle(struct sim *s, struct sim_item *it) {
    struct sim_proc *p = it->proc;
    if (it->kind == ITEM_CLIENT) client_act(s, p, it->arg);
    if (it->kind == ITEM_WORK) gpu_work(s, p, bus_between(s, p, scheduler(s)));
    if (it->kind == ITEM_TIMER && p->role == ROLE_DETOKENIZER) detok_tick(p->detok, s->now);
    if (it->kind == ITEM_TIMER && p->router && p->router->rejoin_ns &&
        p->router->rejoin_ns <= s->now) {
        p->router->rejoin_ns = 0;
        close_unlisted(s, p);
    }
}

void proc_idle(struct sim *s, struct sim_proc *p) {
    bus_finish_ending(s, p);
    if (p->role == ROLE_SCHEDULER) idle_scheduler(s, p);
    if (p->router && p->router->rejoin_ns) set_timer(s, p, p->router->rejoin_ns);
    while (p->role == ROLE_TOKENIZER_WORKER && p->epoch && !p->is_dying && desk_later(&p->desk)) {
    }
    bus_finish_ending(s, p);
    if (p->is_dying) {
        fault_kill(s, p, 5 * SIM_MS + sim_below(s, 100 * SIM_MS));
        return;
    }
    if (p->role == ROLE_DETOKENIZER && detok_n_requests(p->detok)) set_timer(s, p, s->now + SIM_S);
}
