/* conn_parts.h - one connection, to the three who work on it.
 *
 *     conn.c: from bytes to requests, and its end     conn_answer.c: from answers to bytes     conn_group.c: time, and all of them
 *
 * Always: whoever changes what a connection holds or waits for calls conn_update_holding behind it.
 * Owner: those three; nobody else includes this. */
#ifndef ROUTER_CONN_PARTS_H
#define ROUTER_CONN_PARTS_H

#include "router/conn.h"

enum {
    CONN_PIPELINED_MAX = 65536, /* bytes that may wait behind a request in hand */
    /* the largest answer (request.h), its head or its chunk's frame */
    CONN_OUT_MAX = 257 * 1024 * 1024,
};

enum conn_state { CONN_READING, CONN_BUSY, CONN_LINGERING, CONN_CLOSING };

struct conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    struct by_list node, holding; /* in its group's lists */
    struct by_list *holding_in;   /* large, quiet or neither */
    struct conn_group *group;
    enum conn_state state;
    struct http1 *http;
    struct by_buf waiting; /* bytes behind the request in hand */
    struct by_buf out;     /* being put together */
    bool is_streaming, keep_alive, is_http10;
    bool is_refused; /* in the middle of a request: more of it may come … */
    size_t n_skip;   /* … and is so little that it is read past: bytes still to come */
    bool is_deaf;    /* as many bytes wait behind the request as may: the next stay in the socket */
    bool has_ended;  /* its client says no more */
    uint32_t idle_ticks;    /* since the last request, or since the first byte of this one */
    uint32_t stalled_ticks; /* while busy: since the client last took a byte of what waits for it */
    uint64_t n_put;         /* bytes that have been sent or wait … */
    uint64_t n_taken;       /* … and those that had gone out at the last tick */
    uv_shutdown_t shutdown;
    void *owner;
    void (*gone)(void *owner);
    void (*drained)(void *owner);
    struct trace_context trace; /* of the request in hand */
    struct request_id id;       /* of that, too */
    char peer[64];
};

/* conn.c */
void conn_listen(struct conn *c); /* reads what comes, from now on */
void conn_listen_again(struct conn *c);
void conn_feed(struct conn *c, struct by_str bytes);
void conn_refuse(struct conn *c, int status, const char *text); /* the last answer */
void conn_move(struct conn *c, enum conn_state to);
/* Behind whatever may change its list. One that is refused has its time to read why. */
void conn_update_holding(struct conn *c);
void conn_close(struct conn *c);
/* Closing a socket with unread bytes resets it, and the client may lose the answer that it was sent: one that is refused, or has
 * yet to take its last answer, hears our end behind it, and what it still sends is thrown away until it ends too. */
void conn_linger(struct conn *c);

/* conn_answer.c: sends c->out, at once as far as the socket takes it, the rest when it can. */
void conn_flush(struct conn *c);

#endif
