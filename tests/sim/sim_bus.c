/* sim_bus.c - links between processes, sessions on them as proto/wire.c keeps them, and frames on their way.
 *
 * As with wire.c: frames of a session arrive in order or the session ends (a gap); what is left of an older session is
 * dropped; a binder that ends a session tells its connector, which says hello again; a connector's next life is another
 * peer. What wire.c has from zmq and this has from the seed: when frames arrive, and when a lost peer is noticed. */
#include "tests/sim/sim.h"

#include "common/base/mem.h"

enum { HELLO_AGAIN_MS = 1000, SILENCE_S = 5 };

/* ---- items ---- */

static struct sim_item *item_new(struct sim *s) {
    struct by_list *first = by_list_first(&s->unused);
    struct sim_item *it;
    if (first) {
        by_list_remove(first);
        it = BY_CONTAINER_OF(first, struct sim_item, link);
        by_buf_clear(&it->frame);
    } else {
        it = by_alloc(sizeof *it);
        it->node.index = BY_HEAP_OUT;
        by_buf_init(&it->frame, LIMIT_FRAME_BYTES);
    }
    it->l = NULL;
    it->number = it->side = it->arg = 0;
    it->session = it->seq = 0;
    return it;
}

struct sim_item *bus_post(struct sim *s, enum sim_kind kind, struct sim_proc *p,
                          uint64_t delay_ns) {
    struct sim_item *it = item_new(s);
    it->kind = kind;
    it->at = s->now + delay_ns;
    it->order = s->order++;
    it->proc = p;
    it->life = p ? p->epoch : 0;
    by_heap_push(&s->items, &it->node);
    return it;
}

/* Something for one end of a link, in the session that stands there now. */
static struct sim_item *post_end(struct sim *s, enum sim_kind kind, struct sim_link *l,
                                 uint32_t side, uint64_t delay_ns) {
    struct sim_end *e = &l->end[side];
    struct sim_item *it = bus_post(s, kind, e->proc, delay_ns);
    it->l = l;
    it->number = l->number;
    it->side = side;
    it->session = e->session;
    return it;
}

/* ---- links ---- */

struct sim_link *bus_find(struct sim *s, uint32_t number) {
    struct sim_link *l = &s->link[number % SIM_LINKS];
    return l->is_used && l->number == number ? l : NULL;
}

struct sim_link *bus_between(struct sim *s, const struct sim_proc *from,
                             const struct sim_proc *to) {
    for (uint32_t i = 0; i < SIM_LINKS; i++) {
        struct sim_link *l = &s->link[i];
        if (l->is_used && !l->is_closed && l->end[0].proc == from && l->end[1].proc == to) return l;
    }
    return NULL;
}

static void post_connect(struct sim *s, struct sim_link *l, uint64_t ns) {
    post_end(s, ITEM_CONNECT, l, 0, ns)->arg = l->attempt; /* void once a later hello went out */
}

struct sim_link *bus_open(struct sim *s, struct sim_proc *from, struct sim_proc *to) {
    struct sim_link *l = NULL;
    for (uint32_t i = 0; i < SIM_LINKS && !l; i++) {
        if (!s->link[i].is_used) l = &s->link[i];
    }
    if (!l) sim_fail(s, "no link is left");
    uint32_t number = ++s->n_links_ever * SIM_LINKS + (uint32_t)(l - s->link);
    *l = (struct sim_link){.is_used = true, .number = number};
    l->end[0] = (struct sim_end){.proc = from, .life = from->epoch};
    l->end[1].proc = to;
    post_connect(s, l, sim_below(s, 2 * SIM_MS));
    return l;
}

static uint64_t notice_ns(struct sim *s) { /* a closed socket is seen at once, or nearly */
    return sim_one_in(s, 8) ? sim_below(s, 300 * SIM_MS) : sim_below(s, SIM_MS);
}

static void free_if_done(struct sim_link *l) {
    if (l->is_closed && !l->end[1].is_up) l->is_used = false;
}

/* The binder learns later; until then the link is a ghost. */
void bus_close(struct sim *s, struct sim_link *l) {
    l->is_closed = true;
    l->end[0].is_up = l->end[0].is_ending = false;
    if (l->end[1].is_up) post_end(s, ITEM_DOWN, l, 1, notice_ns(s));
    free_if_done(l);
}

static uint64_t delay_ns(struct sim *s, const struct sim_end *from, const struct sim_end *to) {
    uint64_t ns = 1000 + sim_below(s, s->cfg.delay_ns);
    if (!s->is_quiet && s->cfg.fault_every && sim_one_in(s, 200)) ns += sim_below(s, 3 * SIM_S);
    for (uint32_t i = 0; i < 2;
         i++) { /* a short partition holds frames up; a long one ends in silence */
        const struct sim_proc *p = i ? from->proc : to->proc;
        uint64_t until = s->partition_until[p - s->proc];
        if (until > s->now) ns += until - s->now;
    }
    return ns;
}

static struct sim_item *post_frame(struct sim *s, struct sim_link *l, uint32_t side, uint64_t seq) {
    struct sim_end *e = &l->end[side];
    uint64_t at = s->now + delay_ns(s, e, &l->end[!side]);
    e->arrives = BY_MAX(at, e->arrives + 1);
    struct sim_item *it = post_end(s, ITEM_FRAME, l, !side, e->arrives - s->now);
    it->session = e->session;
    it->seq = seq;
    return it;
}

/* ---- what can happen to a frame ---- */

static bool may_lose(struct sim *s, struct sim_link *l, uint32_t side) {
    if (s->is_quiet || !s->cfg.fault_every || !sim_one_in(s, 60 * s->cfg.fault_every)) return false;
    s->n_faults++;
    /* Its receiver sees the gap with the next frame, or the heartbeats do. */
    uint64_t at = s->now + sim_below(s, SILENCE_S * SIM_S);
    at = BY_MAX(at, l->end[side].arrives + 1); /* not before the welcome that went before it */
    struct sim_item *it = post_end(s, ITEM_DOWN, l, !side, at - s->now);
    it->session = l->end[side].session;
    it->arg = true;
    return true;
}

/* The same frame once more, at once or much later: a copy that a tokenizer worker delivers late, an ack said twice. Only
 * of kinds that somebody may say twice; what is counted or changes back and forth within a session is not among them. */
static void maybe_copy(struct sim *s, struct sim_link *l, uint32_t side, const struct msg *m) {
    static const enum msg_kind kinds[] = {MSG_generate, MSG_tokenized, MSG_text,  MSG_failed,
                                          MSG_ack,      MSG_cancel,    MSG_finish};
    bool may_be_copied = false;
    if (s->is_quiet || !s->cfg.fault_every) return;
    for (uint32_t i = 0; i < BY_COUNTOF(kinds); i++)
        may_be_copied |= m->kind == kinds[i];
    /* To a detokenizer it is said by the one who drops the request, before the next copy of that begins. */
    if (m->kind == MSG_cancel && l->end[!side].proc->role == ROLE_DETOKENIZER) return;
    if (!may_be_copied) return;
    bool is_likely = m->kind == MSG_tokenized || m->kind == MSG_ack || m->kind == MSG_cancel;
    if (!sim_one_in(s, (is_likely ? 3 : 30) * s->cfg.fault_every)) return;
    uint64_t ns = sim_one_in(s, 2) ? sim_below(s, 10 * SIM_MS) : sim_below(s, 20 * SIM_S);
    struct sim_item *it = post_end(s, ITEM_COPY, l, side, ns);
    by_buf_add_str(&it->frame, by_buf_str(&s->frame));
    s->n_faults++;
}

/* With --verbose: the run as it happens. */
static void tell(const struct sim *s, const char *what, const struct sim_link *l, uint32_t side,
                 const struct msg *m) {
    if (!s->opt.is_verbose) return;
    struct by_buf b;
    by_buf_init(&b, 1 << 20);
    if (m) msg_print(m, &b);
    fprintf(stderr, "%12.6f %s %s %u %s %s %u: %s\n", (double)s->now / 1e9, what,
            role_text(l->end[side].proc->role), l->end[side].proc->index, m ? "from" : "with",
            role_text(l->end[!side].proc->role), l->end[!side].proc->index, b.p ? b.p : "");
    by_buf_release(&b);
}

static void put_frame(struct sim *s, struct sim_link *l, uint32_t side, struct by_str bytes) {
    struct sim_end *e = &l->end[side];
    uint64_t seq = ++e->seq_out;
    if (may_lose(s, l, side)) return;
    by_buf_add_str(&post_frame(s, l, side, seq)->frame, bytes);
}

void bus_send(struct sim *s, struct sim_link *l, uint32_t side, const struct msg *m) {
    struct sim_end *e = &l->end[side];
    if (!e->is_up || e->is_ending) return;
    by_buf_clear(&s->frame);
    msg_encode(m, &s->frame);
    if (s->frame.is_full) sim_fail(s, "a %s frame is over the limit", msg_kind_name(m->kind));
    maybe_copy(s, l, side, m);
    put_frame(s, l, side, by_buf_str(&s->frame));
}

/* ---- sessions ---- */

void bus_end(struct sim *s, struct sim_link *l, uint32_t side, const char *why) {
    struct sim_end *e = &l->end[side];
    if (!e->is_up || e->is_ending) return;
    e->is_ending = true;
    s->n_ending++;
    snprintf(e->why, sizeof e->why, "%s", why);
}

/* The binder's session is over: its connector hears of it after all that was sent before, a welcome included. */
static void tell_connector(struct sim *s, struct sim_link *l, bool is_gone) {
    const struct sim_end *binder = &l->end[1];
    if (l->is_closed) return;
    uint64_t at = s->now + notice_ns(s);
    at = BY_MAX(at, binder->arrives + 1);
    struct sim_item *it = post_end(s, ITEM_DOWN, l, 0, at - s->now);
    it->session = binder->session;
    it->arg = !is_gone;
}

/* The session is over at this end: the shell hears of it; a connector says hello again, a binder tells its connector. */
static void finish(struct sim *s, struct sim_link *l, uint32_t side, const char *why,
                   bool is_gone) {
    struct sim_end *e = &l->end[side];
    e->is_up = e->is_ending = false;
    if (side == 1) tell_connector(s, l, is_gone);
    tell(s, why, l, side, NULL);
    proc_down(s, l, side, why, is_gone);
    if (side == 0 && !l->is_closed && l->is_used) post_connect(s, l, notice_ns(s));
    free_if_done(l);
}

void bus_finish_ending(struct sim *s, struct sim_proc *p) {
    if (!s->n_ending) return;
    s->n_ending = 0;
    for (uint32_t i = 0; i < SIM_LINKS; i++) {
        struct sim_link *l = &s->link[i];
        for (uint32_t side = 0; side < 2; side++) {
            struct sim_end *e = &l->end[side];
            if (l->is_used && e->proc == p && e->is_ending) finish(s, l, side, e->why, false);
        }
    }
}

void bus_cut(struct sim *s, struct sim_link *l) {
    for (uint32_t side = 0; side < 2; side++) {
        if (l->end[side].is_up) post_end(s, ITEM_DOWN, l, side, notice_ns(s));
    }
}

void bus_proc_died(struct sim *s, struct sim_proc *p) {
    for (uint32_t i = 0; i < SIM_LINKS; i++) {
        struct sim_link *l = &s->link[i];
        if (!l->is_used) continue;
        if (l->end[0].proc == p && !l->is_closed) bus_close(s, l);
        if (!l->is_used || l->end[1].proc != p || !l->end[1].is_up) continue;
        l->end[1].is_up = l->end[1].is_ending = false;
        tell_connector(s, l, true);
        free_if_done(l);
    }
}

/* The others notice the silence of a stopped process by its heartbeats, after five seconds. */
void bus_proc_stopped(struct sim *s, struct sim_proc *p, uint64_t ns) {
    if (ns < SILENCE_S * SIM_S) return;
    for (uint32_t i = 0; i < SIM_LINKS; i++) {
        struct sim_link *l = &s->link[i];
        for (uint32_t side = 0; side < 2; side++) {
            if (!l->is_used || l->end[side].proc != p) continue;
            if (l->end[!side].is_up) /* its welcome may be on the way to one that stands still */
                post_end(s, ITEM_DOWN, l, !side, SILENCE_S * SIM_S + sim_below(s, SIM_S));
            if (l->end[side].is_up) /* seen when it wakes */
                post_end(s, ITEM_DOWN, l, side, SILENCE_S * SIM_S + SIM_S);
        }
    }
}

/* ---- handshake ---- */

static void connect_to(struct sim *s, struct sim_link *l) {
    if (l->is_closed || l->end[0].is_up) return;
    struct msg m = {.kind = MSG_hello};
    proc_hello(s, l, &m.hello);
    m.hello.attempt = ++l->attempt;
    by_buf_clear(&s->frame);
    msg_encode(&m, &s->frame);
    if (l->end[1].proc->epoch)
        by_buf_add_str(&post_frame(s, l, 0, 0)->frame, by_buf_str(&s->frame));
    post_connect(s, l, HELLO_AGAIN_MS * SIM_MS + sim_below(s, 50 * SIM_MS));
}

static void on_hello(struct sim *s, struct sim_link *l, const struct msg_hello *h) {
    struct by_err err = {0};
    struct sim_end *e = &l->end[1];
    if (l->is_closed) return;
    for (uint32_t i = 0; i < SIM_LINKS;
         i++) { /* to wire.c the same life is the same peer, whatever socket it uses */
        struct sim_link *o = &s->link[i];
        bool is_same = o->is_used && o->end[0].proc == l->end[0].proc &&
                       o->end[0].life == l->end[0].life && o->end[1].proc == e->proc;
        if (is_same && o->end[1].is_up) finish(s, o, 1, "it said hello again", false);
    }
    if (proc_admit(s, l, h, &err) != 0) return; /* it tries again */
    *e = (struct sim_end){.proc = e->proc,
                          .life = e->proc->epoch,
                          .is_up = true,
                          .session = ++s->sessions,
                          .arrives = e->arrives};
    struct msg m = {.kind = MSG_welcome, .welcome = {.attempt = h->attempt, .session = e->session}};
    by_buf_clear(&s->frame);
    msg_encode(&m, &s->frame);
    by_buf_add_str(&post_frame(s, l, 1, 0)->frame, by_buf_str(&s->frame));
    tell(s, "up", l, 1, NULL);
    proc_up(s, l, 1, h);
}

static void on_welcome(struct sim *s, struct sim_link *l, const struct msg_welcome *w) {
    struct sim_end *e = &l->end[0];
    if (e->is_up || w->attempt != l->attempt) return;
    e->is_up = true;
    e->is_ending = false;
    e->session = w->session;
    e->seq_out = e->seq_in = 0;
    tell(s, "up", l, 0, NULL);
    proc_up(s, l, 0, NULL);
}

/* ---- arriving ---- */

static void on_frame(struct sim *s, struct sim_link *l, const struct sim_item *it) {
    struct sim_end *e = &l->end[it->side];
    struct by_err err;
    struct msg m;
    by_arena_clear(&s->arena);
    if (msg_decode(&m, by_buf_str(&it->frame), &s->arena, &err) != 0)
        sim_fail(s, "a frame does not decode: %s", err.text);
    if (m.kind == MSG_hello) {
        on_hello(s, l, &m.hello);
    } else if (m.kind == MSG_welcome) {
        on_welcome(s, l, &m.welcome);
    } else if (!e->is_up || e->is_ending || it->session != e->session) {
        tell(s, "stale at", l, it->side, &m);
        s->n_dropped_frames++;
    } else if (it->seq != e->seq_in + 1) {
        bus_end(s, l, it->side, "a gap");
    } else {
        e->seq_in++;
        tell(s, "at", l, it->side, &m);
        proc_message(s, l, it->side, &m);
    }
}

void bus_handle(struct sim *s, struct sim_item *it) {
    struct sim_link *l = it->l;
    if (!l->is_used || l->number != it->number || (l->is_closed && it->side == 0)) return;
    struct sim_end *e = &l->end[it->side];
    bool is_same = e->is_up && e->session == it->session;
    if (it->kind == ITEM_FRAME)
        on_frame(s, l, it);
    else if (it->kind == ITEM_CONNECT && it->arg == l->attempt)
        connect_to(s, l);
    else if (it->kind == ITEM_COPY && is_same && !e->is_ending)
        put_frame(s, l, it->side, by_buf_str(&it->frame));
    else if (it->kind == ITEM_DOWN && is_same)
        finish(s, l, it->side, it->arg ? "it ended the session" : "the connection is gone",
               !it->arg);
}
