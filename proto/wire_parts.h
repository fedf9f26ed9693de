/* wire_parts.h - a wire and its peers: between wire.c, which keeps sessions, and wire_out.c, which sends in them.
 *
 *     wire_send ─▶ credit, and nothing before it? ─yes▶ socket          queue: [ f g h |> waits for credit or the socket
 *                                                 ─no─▶ queue
 *
 * Always: frames of a session go out in the order they were sent in, but for credit; a session that is_ending sends none.
 * Owner: wire.c; nobody else includes this. */
#ifndef PROTO_WIRE_PARTS_H
#define PROTO_WIRE_PARTS_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/list.h"
#include "proto/wire.h"

enum {
    WIRE_IDENTITY_MAX = 200,
    WIRE_RETRY_MS = 5, /* a socket that took nothing is tried again */
};

struct peer {
    struct wire_peer face; /* first: a wire_peer is a peer */
    struct by_list node;   /* binder: in wire.peers */
    char identity[WIRE_IDENTITY_MAX];
    size_t identity_n;
    int connection; /* binder: by_channel_connection of its hello */
    bool is_up;
    bool is_ending; /* down is due at the next pump */
    char why[BY_ERR_TEXT_MAX];
    uint32_t attempt; /* of the hello that made the session */
    uint64_t seq_in, seq_out;
    uint64_t credit;     /* bytes of data frames that may still go out */
    uint64_t n_consumed; /* bytes of data frames taken in and not yet given back */
    struct by_list queue;
    size_t queue_bytes;
    struct by_arena life; /* model and capacity of hello */
};

struct wire {
    struct wire_options o; /* its texts are those of the next line */
    char endpoint[256], my_endpoint[256], instance[64], identity[WIRE_IDENTITY_MAX];
    struct by_channel *channel;
    struct by_list peers; /* of peer.node; a connector has exactly one */
    size_t n_peers;
    uint64_t next_session;
    bool is_connected; /* connector: somebody is there */
    uint64_t hello_due_ns;
    uint64_t retry_due_ns;
    uint64_t rest_due_ns; /* by_mem_give_back */
    bool is_pumping;
    int wake_fd; /* eventfd: there is something to do */
    struct by_buf out;
    struct by_arena arena; /* decoded lists of the frame in hand */
    struct by_loop *loop;
};

static inline struct peer *wire_peer_of(struct wire_peer *face) {
    return BY_CONTAINER_OF(face, struct peer, face);
}

static inline struct by_str wire_identity_of(const struct peer *p) {
    return (struct by_str){p->identity, p->identity_n};
}

/* wire.c */
void wire_wake(struct wire *w); /* there is something to do: the loop comes back */
/* Marks: down is called from the pump. lose: its connection went with it. */
void wire_end_session(struct peer *p, const char *why);
void wire_lose(struct peer *p, const char *why);

/* wire_out.c; wire_send too */
void wire_flush(struct peer *p, uint64_t now);
void wire_drop_queue(struct peer *p);
/* hello and welcome stand outside of sessions: seq 0. */
int wire_send_plain(struct wire *w, struct by_str identity, const struct msg *m);

#endif
