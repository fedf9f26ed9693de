/* server.h - connections on libuv: bytes to requests, responses to bytes, one request of a connection at a time.
 *
 *     READING ─request─▶ BUSY ─respond / stream_end─▶ READING (keep-alive)      any ─▶ CLOSING ─▶ freed
 *     READING ─not a request─▶ refused ─▶ LINGERING (reads and drops, for seconds) ─▶ CLOSING
 *
 * While BUSY the socket is still read (a few pipelined bytes wait), so that a client that leaves is seen at once.
 * Always: the handler is called once a request and answers it sooner or later by conn_respond, or conn_stream_begin …
 * conn_stream_end; after `gone` was called the connection may not be touched. Everything a client can make us hold has
 * a ceiling: head, body, pipelined bytes, connections, time without a byte.
 * Owner: the loop's thread. */
#ifndef ROUTER_SERVER_H
#define ROUTER_SERVER_H

#include "common/base/err.h"
#include "router/http1.h"
#include "router/trace_context.h"

#include <uv.h>

struct server;
struct conn;

struct server_options {
    const char *host;
    int port;
    const char *unix_path; /* instead of host and port: a socket file; NULL: none */
    bool is_private;       /* of mode 0600 */
    const char *origins;   /* whose pages may read answers (cors.h); NULL: none */
    size_t body_bytes_max;
    uint32_t connections_max;
    uint32_t stall_seconds;   /* that a client may take nothing of what waits for it; 0: for ever */
    uint32_t request_seconds; /* from its first byte to its last, besides its body's; 0: for ever */
    /* A whole request; the slices live until the answer is complete. */
    void (*handle)(void *ctx, struct conn *c, const struct http1_request *r);
    void *ctx;
};

BY_MUST_USE int server_open(struct server **out, uv_loop_t *loop, const struct server_options *o,
                            struct by_err *err);
void server_stop_listening(struct server *s);
void server_close_idle(struct server *s); /* connections without a request in hand */
void server_close_all(struct server *s);
uint32_t server_n_connections(const struct server *s);
uint32_t server_n_busy(const struct server *s);
int server_port(const struct server *s); /* as bound */

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
/* does the request in hand come from a page that may read the answer? */
bool conn_origin_may(const struct conn *c);
const char *conn_peer(const struct conn *c); /* address, for the log */

#endif
