/* wire.h - messages over a channel, as sessions: hello, welcome, session and seq on every frame, credit, replay hints.
 *
 *     connector: LOST ─connected─▶ HELLO ─welcome─▶ UP ─disconnect / gap / refused─▶ LOST        binder: one state a peer
 *
 * A process opens one wire for each endpoint it binds or connects to. Handlers:
 *     up    a session stands; nothing of an older one counts any more: send what you owe
 *     msg   one message; borrowed for the call (strings and arrays point into the frame or the wire's arena)
 *     down  the session ended; what was queued is dropped. Always paired with an up.
 * Always: msg is only called between up and down of its peer; messages arrive in the order sent, none twice, none
 * missing (a gap ends the session). Handlers may send, and may end sessions, on any wire.
 * Owner: one thread, the caller of wire_pump. */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include "common/base/err.h"
#include "proto/msg.h"

enum { WIRE_VERSION = 1, WIRE_N_FDS = 3 };

struct wire;

struct wire_peer { /* read-only for users, but for `user` */
    struct wire *wire;
    enum role role;
    char instance[64];
    uint64_t epoch; /* the peer's life */
    uint64_t session;
    /* in `down`: its connection went, perhaps the process too; else the session alone ended */
    bool is_gone;
    char endpoint[256];           /* where it binds for routers; from hello */
    struct msg_model model;       /* gpu workers; owned by the peer */
    struct msg_capacity capacity; /* gpu workers; owned by the peer */
    void *user;                   /* the process's own state for this peer */
};

struct wire_options {
    const char *endpoint; /* ipc://… or tcp://… */
    const char *key_file; /* of tcp:// only: --curve-key-file */
    bool is_bind;
    enum role role; /* who I am */
    const char *instance;
    uint64_t epoch; /* by_proc_epoch() */
    /* connector: the binder's role; a wrong one is refused in words. Binder: 0 */
    enum role expect;
    const char *my_endpoint; /* put into hello; NULL: empty */
    /* put into hello; NULL: empty. Borrowed while the wire lives */
    const struct msg_model *model;
    const struct msg_capacity *capacity; /* likewise */
    /* Binder: may refuse a hello (fill err, return a code). NULL: all are welcome. */
    int (*admit)(void *ctx, const struct msg_hello *hello, struct by_err *err);
    void (*up)(void *ctx, struct wire_peer *peer);
    void (*msg)(void *ctx, struct wire_peer *peer, const struct msg *m);
    void (*down)(void *ctx, struct wire_peer *peer, const char *why);
    /* Connector: the binder refused us, in words (wrong version …). NULL: log it and end the process. */
    void (*refused)(void *ctx, const char *why);
    void *ctx;
};

BY_MUST_USE int wire_open(struct wire **out, const struct wire_options *o, struct by_err *err);
void wire_close(struct wire *w); /* no handler is called */
/* readable: call wire_pump (edge-triggered: it drains) */
void wire_fds(const struct wire *w, int fds[WIRE_N_FDS]);
/* Takes what came (of very much, the first part), sends what is queued, says hello when due. Returns when it wants to be
 * called next (ns); 0: only when an fd is readable. Not from within a handler. */
uint64_t wire_pump(struct wire *w, uint64_t now);
/* Encodes and sends or queues m; stamps session and seq. m is borrowed. A send to a peer that is down is dropped.
 * Going over the queue's ceiling ends the session (down is called from the next pump). */
void wire_send(struct wire_peer *peer, const struct msg *m);
struct wire_peer *wire_peer_only(struct wire *w); /* connector: the binder while UP, else NULL */
/* ends the session; a connector says hello again */
void wire_end(struct wire_peer *peer, const char *why);
const char *wire_endpoint(const struct wire *w);
void wire_set_my_endpoint(struct wire *w, const char *endpoint); /* what the next hello says */

struct by_loop;
void wire_attach(struct wire *w, struct by_loop *loop); /* pump on fds and timers of this loop */
/* wire_close does it too; not from within a handler */
void wire_detach(struct wire *w);

#endif
