#include "proto/wire.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "common/base/rand.h"
#include "common/net/channel.h"
#include "common/net/loop.h"
#include "proto/greet.h"
#include "proto/limits.h"
#include "proto/wire_parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    HELLO_AGAIN_MS = 1000,                /* a hello that nobody answered is said again */
    CREDIT_STEP = LIMIT_CREDIT_BYTES / 4, /* consumed bytes are given back in such steps */
    REST_MS = 1000, /* after a session's begin or end, what the peak has left is given back */
    PUMP_MS = 5,    /* of frames at once: then the loop sees to others, and comes back */
    ARENA_BYTES_MAX = 2 * LIMIT_FRAME_BYTES, /* decoded lists of one frame */
};

/* What is consumed and not yet given back must leave room for the largest frame, or that would wait for ever. */
static_assert(LIMIT_FRAME_BYTES <= LIMIT_CREDIT_BYTES - CREDIT_STEP, "the window holds any frame");

/* A connector's one peer, from wire_open to wire_close. */
static struct peer *binder_of(const struct wire *w) {
    return BY_CONTAINER_OF(by_list_first(&w->peers), struct peer, node);
}

/* ---- sessions ---- */

void wire_wake(struct wire *w) {
    uint64_t one = 1;
    if (!w->is_pumping && write(w->wake_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        by_die("eventfd: %m");
}

void wire_end_session(struct peer *p, const char *why) {
    if (!p->is_up || p->is_ending) return;
    p->is_ending = true;
    snprintf(p->why, sizeof p->why, "%s", why);
    wire_wake(p->face.wire);
}

void wire_lose(struct peer *p, const char *why) {
    if (p->is_up && !p->is_ending) p->face.is_gone = true;
    wire_end_session(p, why);
}

/* A lost peer makes everybody hold what is under way, and a new one takes all of it at once. glibc would keep the pages of
 * each such peak: every kill in a hundred that is worse than those before it would stay in the resident memory of all. */
static void expect_rest(struct wire *w) {
    w->rest_due_ns = by_now_ns() + REST_MS * BY_NS_PER_MS;
}

static void rest(struct wire *w, uint64_t now) {
    if (!w->rest_due_ns || w->rest_due_ns > now) return;
    w->rest_due_ns = 0;
    by_mem_give_back();
}

static void start_session(struct peer *p, uint64_t session, uint64_t credit) {
    p->face.session = session;
    p->seq_in = p->seq_out = 0;
    p->credit = credit;
    p->n_consumed = 0;
    p->is_up = true;
    p->is_ending = p->face.is_gone = false;
    expect_rest(p->face.wire);
}

static void say_hello(struct wire *w, uint64_t now) {
    struct msg m = greet_hello(&w->o, ++binder_of(w)->attempt);
    int rc = wire_send_plain(w, (struct by_str){0}, &m);
    w->hello_due_ns = now + (rc ? WIRE_RETRY_MS : HELLO_AGAIN_MS) * BY_NS_PER_MS;
}

static struct peer *new_peer(struct wire *w) {
    struct peer *p = by_alloc(sizeof *p);
    p->face.wire = w;
    by_list_init(&p->queue);
    by_arena_init(&p->life, 0);
    by_list_push(&w->peers, &p->node);
    w->n_peers++;
    return p;
}

static void free_peer(struct peer *p) {
    wire_drop_queue(p);
    by_list_remove(&p->node);
    p->face.wire->n_peers--;
    by_arena_release(&p->life);
    by_free(p);
}

/* down, and for a binder the end of the peer. A connector says hello again at once if somebody is there. */
static void finish_session(struct wire *w, struct peer *p, uint64_t now) {
    p->is_up = p->is_ending = false;
    wire_drop_queue(p);
    w->o.down(w->o.ctx, &p->face, p->why);
    expect_rest(w);
    if (w->o.is_bind) {
        free_peer(p);
    } else {
        p->face.session = 0;
        w->hello_due_ns = w->is_connected ? now : 0;
    }
}

/* Tells a connector that the session it believes in does not stand. */
static void send_no_session(struct wire *w, struct by_str identity, uint32_t attempt,
                            const char *refused) {
    struct msg m = greet_welcome(&w->o, attempt);
    m.welcome.refused = by_str_of(refused);
    (void)wire_send_plain(w, identity, &m); /* if it is gone, it knows */
}

static void end_marked(struct wire *w, uint64_t now) {
    for (BY_LIST_EACH_SAFE(node, next, &w->peers)) {
        struct peer *p = BY_CONTAINER_OF(node, struct peer, node);
        if (!p->is_ending) continue;
        if (w->o.is_bind) send_no_session(w, wire_identity_of(p), p->attempt, "");
        finish_session(w, p, now);
    }
}

/* ---- binder ---- */

static struct peer *find_peer(struct wire *w, struct by_str identity) {
    for (BY_LIST_EACH(node, &w->peers)) {
        struct peer *p = BY_CONTAINER_OF(node, struct peer, node);
        if (by_str_eq(wire_identity_of(p), identity)) return p;
    }
    return NULL;
}

static int check_hello(struct wire *w, struct by_str identity, const struct msg_hello *h,
                       struct by_err *err) {
    if (identity.n > WIRE_IDENTITY_MAX) return by_fail(err, BY_ELIMIT, "its identity is too long");
    if (w->n_peers >= LIMIT_PEERS)
        return by_fail(err, BY_EFULL, "%d peers are here already", LIMIT_PEERS);
    return greet_check_hello(&w->o, h, err);
}

static void copy_text(char *to, size_t cap, struct by_str from) {
    snprintf(to, cap, "%.*s", (int)BY_MIN(from.n, cap - 1), from.p ? from.p : "");
}

static void on_hello(struct wire *w, struct by_str identity, const struct msg_hello *h,
                     uint64_t now) {
    struct by_err err = {0};
    struct peer *old = find_peer(w, identity);
    if (old) { /* it lost the session before we saw it */
        snprintf(old->why, sizeof old->why, "it said hello again");
        finish_session(w, old, now);
    }
    if (check_hello(w, identity, h, &err)) {
        by_warn_limited("refused a peer: %s role=%s instance=%.*s", err.text, role_text(h->role),
                        (int)BY_MIN(h->instance.n, (size_t)64), h->instance.p ? h->instance.p : "");
        send_no_session(w, identity, h->attempt, err.text);
        return;
    }
    struct peer *p = new_peer(w);
    memcpy(p->identity, identity.p, identity.n);
    p->identity_n = identity.n;
    p->connection = by_channel_connection(w->channel);
    p->face.role = (enum role)h->role;
    p->face.epoch = h->epoch;
    copy_text(p->face.instance, sizeof p->face.instance, h->instance);
    copy_text(p->face.endpoint, sizeof p->face.endpoint, h->endpoint);
    msg_model_copy(&p->life, &h->model, &p->face.model);
    msg_capacity_copy(&p->life, &h->capacity, &p->face.capacity);
    p->attempt = h->attempt;
    start_session(p, ++w->next_session, LIMIT_CREDIT_BYTES);
    struct msg m = greet_welcome(&w->o, h->attempt);
    m.welcome.session = p->face.session;
    m.welcome.credit = LIMIT_CREDIT_BYTES;
    if (wire_send_plain(w, identity, &m)) { /* gone again: nobody has heard of it */
        free_peer(p);
        return;
    }
    w->o.up(w->o.ctx, &p->face);
}

/* A number may be used again before we have heard that its first owner left: the oldest one is meant. */
static struct peer *find_connection(struct wire *w, int connection) {
    for (BY_LIST_EACH(node, &w->peers)) {
        struct peer *p = BY_CONTAINER_OF(node, struct peer, node);
        if (p->connection == connection && !p->is_ending) return p;
    }
    return NULL;
}

/* ---- connector ---- */

static void on_welcome(struct wire *w, const struct msg_welcome *m, uint64_t now) {
    struct by_err err = {0};
    struct peer *p = binder_of(w);
    /* of an older hello; 0: frames came without a session */
    if (m->attempt && m->attempt != p->attempt) return;
    if (p->is_up) {
        if (!m->session) wire_end_session(p, "it ended the session");
        return;
    }
    if (greet_check_welcome(&w->o, m, &err)) {
        w->hello_due_ns = 0;
        if (!w->o.refused)
            by_die("refused by the %s at %s: %s", role_text(m->role), w->endpoint, err.text);
        w->o.refused(w->o.ctx, err.text);
        return;
    }
    if (!m->session) {
        w->hello_due_ns = now;
        return;
    }
    p->face.role = (enum role)m->role;
    p->face.epoch = m->epoch;
    copy_text(p->face.instance, sizeof p->face.instance, m->instance);
    w->hello_due_ns = 0;
    start_session(p, m->session, m->credit);
    w->o.up(w->o.ctx, &p->face);
}

/* ---- receiving ---- */

static void give_credit(struct peer *p, enum msg_kind kind, size_t n) {
    if (!msg_is_data(kind)) return;
    p->n_consumed += n;
    if (p->n_consumed < CREDIT_STEP) return;
    struct msg m = {.kind = MSG_credit, .credit = {.bytes = p->n_consumed}};
    p->n_consumed = 0;
    wire_send(&p->face, &m);
}

static void on_session_frame(struct wire *w, struct peer *p, const struct msg *m, size_t n) {
    char why[80];
    if (p->is_ending) return;
    if (m->session != p->face.session) {
        by_count(BY_M_FRAMES_BAD, 1);
        return;
    }
    if (m->seq != p->seq_in + 1) {
        snprintf(why, sizeof why, "frame %llu came after %llu", (unsigned long long)m->seq,
                 (unsigned long long)p->seq_in);
        wire_end_session(p, why);
        return;
    }
    p->seq_in++;
    if (m->kind == MSG_credit) {
        p->credit = BY_MIN(p->credit + BY_MIN(m->credit.bytes, (uint64_t)LIMIT_CREDIT_BYTES),
                           (uint64_t)LIMIT_CREDIT_BYTES);
        return;
    }
    if (m->kind != MSG_heartbeat) w->o.msg(w->o.ctx, &p->face, m);
    give_credit(p, m->kind, n);
}

static void on_frame(struct wire *w, struct by_str identity, struct by_str frame, uint64_t now) {
    struct by_err err = {0};
    struct msg m;
    by_count(BY_M_FRAMES_IN, 1);
    struct peer *p = w->o.is_bind ? find_peer(w, identity) : binder_of(w);
    by_arena_clear(&w->arena);
    if (msg_decode(&m, frame, &w->arena, &err)) {
        by_count(BY_M_FRAMES_BAD, 1);
        by_warn_limited("a broken frame: %s from=%s", err.text,
                        p && p->is_up ? role_text(p->face.role) : "a stranger");
        if (p && p->is_up) wire_end_session(p, err.text);
        return;
    }
    if (m.kind == MSG_hello) {
        if (w->o.is_bind) on_hello(w, identity, &m.hello, now);
    } else if (m.kind == MSG_welcome) {
        if (!w->o.is_bind) on_welcome(w, &m.welcome, now);
    } else if (p && p->is_up) {
        on_session_frame(w, p, &m, frame.n);
    } else {
        by_count(BY_M_FRAMES_BAD, 1);
        if (w->o.is_bind) send_no_session(w, identity, 0, "");
    }
}

static void on_connected(struct wire *w, uint64_t now) {
    if (w->o.is_bind) return; /* who it is, its hello says */
    struct peer *p = binder_of(w);
    w->is_connected = true;
    wire_lose(p, "the connection was made anew");
    if (!p->is_up) w->hello_due_ns = now;
}

static void on_disconnected(struct wire *w) {
    if (w->o.is_bind) {
        struct peer *p = find_connection(w, by_channel_connection(w->channel));
        if (p) wire_lose(p, "it is gone");
        return;
    }
    w->is_connected = false;
    w->hello_due_ns = 0;
    wire_lose(binder_of(w), "the connection is gone");
}

/* False: there may be more. */
static bool take_some(struct wire *w, uint64_t now, uint64_t until_ns) {
    do {
        struct by_str identity, frame;
        enum by_channel_event event = by_channel_recv(w->channel, &identity, &frame);
        if (event == BY_CHANNEL_NOTHING) return true;
        if (event == BY_CHANNEL_FRAME) on_frame(w, identity, frame, now);
        if (event == BY_CHANNEL_CONNECTED) on_connected(w, now);
        if (event == BY_CHANNEL_DISCONNECTED) on_disconnected(w);
        end_marked(w, now);
    } while (by_now_ns() < until_ns);
    return false;
}

uint64_t wire_pump(struct wire *w, uint64_t now) {
    uint64_t count;
    by_assert(!w->is_pumping);
    if (read(w->wake_fd, &count, sizeof count) < 0 && errno != EAGAIN) by_die("eventfd: %m");
    w->is_pumping = true;
    w->retry_due_ns = 0;
    const uint64_t until_ns = by_now_ns() + PUMP_MS * BY_NS_PER_MS;
    bool is_empty;
    do {
        is_empty = take_some(w, now, until_ns);
        for (BY_LIST_EACH(node, &w->peers)) {
            struct peer *p = BY_CONTAINER_OF(node, struct peer, node);
            if (p->is_up) wire_flush(p, now);
        }
        end_marked(w, now);
        if (w->hello_due_ns && w->hello_due_ns <= now) say_hello(w, now);
    } while (is_empty && by_channel_has_input(w->channel));
    w->is_pumping = false;
    if (!is_empty) return now;
    rest(w, now);
    uint64_t due = w->hello_due_ns ? w->hello_due_ns : UINT64_MAX;
    if (w->retry_due_ns) due = BY_MIN(due, w->retry_due_ns);
    if (w->rest_due_ns) due = BY_MIN(due, w->rest_due_ns);
    return due == UINT64_MAX ? 0 : due;
}

/* ---- opening ---- */

int wire_open(struct wire **out, const struct wire_options *o, struct by_err *err) {
    by_assert(o->up && o->msg && o->down && o->epoch && o->role);
    struct wire *w = by_alloc(sizeof *w);
    w->o = *o;
    w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    snprintf(w->endpoint, sizeof w->endpoint, "%s", o->endpoint);
    snprintf(w->instance, sizeof w->instance, "%s", o->instance ? o->instance : "");
    snprintf(w->my_endpoint, sizeof w->my_endpoint, "%s", o->my_endpoint ? o->my_endpoint : "");
    w->o.endpoint = w->endpoint;
    w->o.instance = w->instance;
    w->o.my_endpoint = w->my_endpoint;
    /* Two sockets of one name would take each other's place at the binder, and the loser would never hear of it. */
    snprintf(w->identity, sizeof w->identity, "%s:%s:%llx:%x", role_text(o->role), w->instance,
             (unsigned long long)o->epoch, (unsigned)by_rand_u64());
    by_list_init(&w->peers);
    by_buf_init(&w->out, LIMIT_FRAME_BYTES);
    by_arena_init(&w->arena, ARENA_BYTES_MAX);
    struct by_channel_options co = {.endpoint = w->endpoint,
                                    .identity = o->is_bind ? NULL : w->identity,
                                    .key_file = o->key_file,
                                    .is_bind = o->is_bind,
                                    .frame_bytes_max = LIMIT_FRAME_BYTES};
    int rc = w->wake_fd < 0 ? by_fail(err, BY_EIO, "%s: no file descriptors left: %m", w->endpoint)
                            : by_channel_open(&w->channel, &co, err);
    if (rc) {
        wire_close(w);
        return rc;
    }
    if (!o->is_bind) (void)new_peer(w);
    *out = w;
    return 0;
}

void wire_close(struct wire *w) {
    if (!w) return;
    for (BY_LIST_EACH_SAFE(node, next, &w->peers))
        free_peer(BY_CONTAINER_OF(node, struct peer, node));
    if (w->loop) wire_detach(w);
    if (w->wake_fd >= 0) close(w->wake_fd);
    by_channel_close(w->channel);
    by_arena_release(&w->arena);
    by_buf_release(&w->out);
    by_free(w);
}

void wire_fds(const struct wire *w, int fds[WIRE_N_FDS]) {
    by_channel_fds(w->channel, fds);
    fds[2] = w->wake_fd;
}

struct wire_peer *wire_peer_only(struct wire *w) {
    by_assert(!w->o.is_bind);
    struct peer *p = binder_of(w);
    return p->is_up && !p->is_ending ? &p->face : NULL;
}

void wire_end(struct wire_peer *peer, const char *why) {
    wire_end_session(wire_peer_of(peer), why);
}

void wire_set_my_endpoint(struct wire *w, const char *endpoint) {
    snprintf(w->my_endpoint, sizeof w->my_endpoint, "%s", endpoint);
}

const char *wire_endpoint(const struct wire *w) {
    return by_channel_endpoint(w->channel);
}

/* ---- on a by_loop ---- */

static void on_loop(void *ctx, uint64_t now) {
    struct wire *w = ctx;
    struct by_loop *loop = w->loop;
    uint64_t due = wire_pump(w, now);
    if (w->loop) by_loop_set_timer(loop, due, on_loop, w);
}

void wire_attach(struct wire *w, struct by_loop *loop) {
    int fds[WIRE_N_FDS];
    w->loop = loop;
    wire_fds(w, fds);
    for (int i = 0; i < WIRE_N_FDS; i++)
        by_loop_add_fd(loop, fds[i], on_loop, w);
    /* once at once: what came before we looked gives no edge */
    by_loop_set_timer(loop, 1, on_loop, w);
}

void wire_detach(struct wire *w) {
    int fds[WIRE_N_FDS];
    wire_fds(w, fds);
    for (int i = 0; i < WIRE_N_FDS; i++)
        by_loop_remove_fd(w->loop, fds[i]);
    by_loop_set_timer(w->loop, 0, on_loop, w);
    w->loop = NULL;
}
