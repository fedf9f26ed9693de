/* conn.h - one connection on libuv: bytes to requests, responses to bytes, one request at a time.
 *
 *     READING ─request─▶ BUSY ─respond / stream_end─▶ READING (keep-alive)      any ─▶ CLOSING ─▶ freed
 *     READING ─not a request─▶ refused ─▶ LINGERING (reads and drops, for seconds) ─▶ CLOSING
 *     READING ─refused by its head─▶ READING behind a small body, which is dropped; else LINGERING
 *     READING, BUSY ─the client says no more, before it has its answer─▶ told so ─▶ CLOSING
 *     BUSY ─respond / stream_end, the last answer─▶ LINGERING, while the client takes it
 *
 * While BUSY the socket is still read (a few pipelined bytes wait), so that a client that leaves is seen at once.
 * Always: the handler is called once a request and answers it sooner or later by conn_respond, or conn_stream_begin …
 * conn_stream_end; after `gone` was called the connection may not be touched. Everything a client can make us hold has
 * a ceiling: head, body, pipelined bytes, connections, time without a byte; and held_max all together. Above three quarters of
 * that the oldest large one gives way, an upload by 429, an answer that is not taken by its end; who is quick is done before.
 * Above all of it the same goes for small ones, and for connections that nobody uses: a great many of them are much, too.
 * Owner: the loop's thread. A connection frees itself. */
#ifndef ROUTER_CONN_H
#define ROUTER_CONN_H

#include "common/base/list.h"
#include "router/http1.h"
#include "router/request_id.h"
#include "router/trace_context.h"

#include <uv.h>

struct conn;

struct conn_options {
    const char *origins; /* whose pages may read answers (cors.h); NULL: none */
    size_t body_bytes_max;
    uint32_t connections_max;
    uint64_t held_max;        /* bytes that this process may hold (mem.h); 0: any number */
    uint32_t stall_seconds;   /* that a client may take nothing of what waits for it; 0: for ever */
    uint32_t request_seconds; /* from its first byte to its last, besides its body's; 0: for ever */
    /* A whole request; the slices live until the answer is complete. One whose body is still on its way comes before that with
     * is_whole false, to be answered when its head is enough to refuse it: was it? */
    bool (*handle)(void *ctx, struct conn *c, const struct http1_request *r, bool is_whole);
    void *ctx;
};

/* The connections of one listener. */
struct conn_group {
    struct conn_options o;
    struct by_list conns;
    /* The oldest first: those with a large body on its way or a large answer; all others that no handler is at work for. */
    struct by_list large, quiet;
    uint32_t n;
    bool is_last;        /* set: each ends with the answer to its request in hand */
    uv_timer_t tick;     /* while there are any: an idle server sleeps */
    uv_prepare_t relief; /* likewise: looks how much is held */
    char room[65536];    /* what a socket is read into */
};
void conn_group_init(struct conn_group *g, uv_loop_t *loop, const struct conn_options *o);
void conn_group_accept(struct conn_group *g, uv_stream_t *listener); /* the next one */
/* those with a request in hand, or an answer that its client has not taken whole … */
uint32_t conn_group_n_busy(const struct conn_group *g);
void conn_group_close_idle(struct conn_group *g); /* … and those with neither */
void conn_group_close_all(struct conn_group *g);

/* Whole answer. extra: header lines ended by CRLF, or NULL. */
void conn_respond(struct conn *c, int status, const char *content_type, struct by_str body,
                  const char *extra);
void conn_stream_begin(struct conn *c, const char *content_type);
void conn_stream_write(struct conn *c, struct by_str bytes);
void conn_stream_end(struct conn *c);
/* The request in hand belongs to `owner`; gone(owner) is called when the client leaves before the answer is complete,
 * drained(owner) when what waited for a slow client has gone out. */
void conn_set_owner(struct conn *c, void *owner, void (*gone)(void *owner),
                    void (*drained)(void *owner));
size_t conn_n_pending(const struct conn *c); /* bytes that the client has not taken yet */
const struct trace_context *conn_trace(const struct conn *c); /* of the request in hand */
struct request_id *conn_id(struct conn *c); /* of the request in hand, until its answer begins */
/* does the request in hand come from a page that may read the answer? */
bool conn_origin_may(const struct conn *c);

#endif
