#include "router/conn.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "router/cors.h"
#include "router/http_write.h"

#include <stdio.h>
#include <string.h>

enum {
    PIPELINED_MAX = 65536, /* bytes that may wait behind a request in hand */
    BODY_LARGE = 65536,    /* what is no larger gives way to nobody */
    ANSWER_LARGE = 262144,
    OUT_KEPT = 65536,            /* a larger buffer is given back between two writes */
    OUT_MAX = 257 * 1024 * 1024, /* the largest answer (request.h), its head or its chunk's frame */
    TICK_MS = 1000,
    BODY_A_SECOND = 2048, /* bytes of a body that give its client a second more to send it */
    IDLE_SECONDS = 120,   /* a kept connection without a request */
    LINGER_SECONDS = 5,   /* a refused client's time to stop sending and read why */
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

struct write {
    uv_write_t req;
    struct conn *conn;
    char *bytes;
};

static void feed(struct conn *c, struct by_str bytes);
static void listen_again(struct conn *c);
static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b);

static bool is_large_upload(const struct conn *c) {
    return c->state == CONN_READING && http1_n_body(c->http) > BODY_LARGE;
}

static struct by_list *list_of(const struct conn *c) {
    if (c->state == CONN_CLOSING || (c->state == CONN_LINGERING && !conn_n_pending(c))) return NULL;
    if (is_large_upload(c) || conn_n_pending(c) > ANSWER_LARGE) return &c->group->large;
    return c->state != CONN_BUSY || conn_n_pending(c) ? &c->group->quiet : NULL;
}

/* Behind whatever may change its list. One that is refused has its time to read why. */
static void update_holding(struct conn *c) {
    struct by_list *list = list_of(c);
    if (list == c->holding_in) return;
    if (c->holding_in) by_list_remove(&c->holding);
    if (list) by_list_push(list, &c->holding);
    c->holding_in = list;
}

static void move(struct conn *c, enum conn_state to) {
    by_gauge_add(BY_M_HTTP_ACTIVE, (to == CONN_BUSY) - (c->state == CONN_BUSY));
    c->state = to;
    update_holding(c);
}

/* ---- closing ---- */

static void on_closed(uv_handle_t *h) {
    struct conn *c = h->data;
    by_list_remove(&c->node);
    if (--c->group->n == 0) {
        uv_timer_stop(&c->group->tick);
        uv_prepare_stop(&c->group->relief);
    }
    http1_free(c->http);
    by_buf_release(&c->waiting);
    by_buf_release(&c->out);
    by_free(c);
}

static void tell_gone(struct conn *c) {
    void *owner = c->owner;
    c->owner = NULL;
    if (owner) c->gone(owner);
}

static void close_conn(struct conn *c) {
    if (c->state == CONN_CLOSING) return;
    move(c, CONN_CLOSING);
    update_holding(c);
    tell_gone(c);
    uv_close(&c->handle, on_closed);
}

static void on_shut_down(uv_shutdown_t *req, int status) {
    struct conn *c = req->data;
    if (status || c->has_ended) close_conn(c);
}

/* Closing a socket with unread bytes resets it, and the client may lose the answer that it was sent: one that is refused, or has
 * yet to take its last answer, hears our end behind it, and what it still sends is thrown away until it ends too. */
static void linger(struct conn *c) {
    move(c, CONN_LINGERING);
    http1_drop_body(c->http);
    update_holding(c);
    listen_again(c);
    c->idle_ticks = 0;
    c->shutdown.data = c;
    if (uv_shutdown(&c->shutdown, &c->stream, on_shut_down)) close_conn(c);
}

/* ---- writing ---- */

static void on_written(uv_write_t *req, int status) {
    struct write *w = BY_CONTAINER_OF(req, struct write, req);
    struct conn *c = w->conn;
    by_free(w->bytes);
    by_free(w);
    if (c->state == CONN_CLOSING) return;
    update_holding(c);
    if (status) {
        close_conn(c);
    } else if (c->owner && c->drained) {
        c->drained(c->owner);
    }
}

/* Sends c->out: at once as far as the socket takes it, the rest when it can. */
static void flush(struct conn *c) {
    if (!c->out.n || c->state == CONN_CLOSING) return;
    if (c->out.is_full) {
        by_error("an answer was over the limit and was cut off peer=%s", c->peer);
        close_conn(c);
        return;
    }
    size_t done = 0;
    c->n_put += c->out.n;
    if (!uv_stream_get_write_queue_size(&c->stream)) {
        uv_buf_t b = uv_buf_init(c->out.p, (unsigned)c->out.n);
        int n = uv_try_write(&c->stream, &b, 1);
        if (n > 0) done = (size_t)n;
        if (n < 0 && n != UV_EAGAIN) {
            close_conn(c);
            return;
        }
    }
    if (done < c->out.n) {
        size_t n;
        struct write *w = by_alloc(sizeof *w);
        w->conn = c;
        w->bytes = by_buf_take(&c->out, &n);
        uv_buf_t b = uv_buf_init(w->bytes + done, (unsigned)(n - done));
        int rc = uv_write(&w->req, &c->stream, &b, 1, on_written);
        if (rc) {
            by_free(w->bytes);
            by_free(w);
            close_conn(c);
            return;
        }
        update_holding(c);
    }
    by_buf_clear(&c->out);
    if (c->out.cap > OUT_KEPT) {
        by_buf_release(&c->out);
        by_buf_init(&c->out, OUT_MAX);
    }
}

/* The answer is complete: the next request may come, or the connection ends. */
static void finish_answer(struct conn *c) {
    c->owner = NULL;
    c->is_streaming = false;
    flush(c);
    if (c->state == CONN_CLOSING) return;
    if (c->is_refused || (!c->keep_alive && conn_n_pending(c))) {
        linger(c);
        return;
    }
    if (!c->keep_alive) {
        close_conn(c);
        return;
    }
    move(c, CONN_READING);
    c->idle_ticks = 0;
    http1_clear(c->http);
    listen_again(c);
    if (!c->waiting.n) return;
    size_t n;
    char *bytes = by_buf_take(&c->waiting, &n);
    feed(c, (struct by_str){bytes, n});
    by_free(bytes);
}

/* Where the page lies that made a browser ask; empty when nobody says. */
static struct by_str origin_of(const struct conn *c) {
    struct by_str origin = {0};
    (void)http1_header(http1_request(c->http), "origin", &origin);
    return origin;
}

bool conn_origin_may(const struct conn *c) {
    return cors_allows(c->group->o.origins, origin_of(c));
}

/* What any answer's head says of the connection and the request in hand. */
static void write_head(struct conn *c, struct http_head h) {
    if (c->group->is_last || (h.is_stream && c->is_http10)) c->keep_alive = false;
    h.now_s = (int64_t)(by_wall_ns() / BY_NS_PER_S);
    h.keep_alive = c->keep_alive;
    h.is_http10 = c->is_http10;
    h.trace = c->trace.text;
    h.id = &c->id;
    h.path = http1_request(c->http)->path;
    h.origins = c->group->o.origins;
    h.origin = origin_of(c);
    http_write_head(&c->out, &h);
}

void conn_respond(struct conn *c, int status, const char *content_type, struct by_str body,
                  const char *extra) {
    if (c->state == CONN_CLOSING) return;
    by_assert(c->state == CONN_BUSY && !c->is_streaming);
    /* of 499 no request is at fault: its client has left */
    if (status >= 400 && status != 499)
        by_count(status >= 500 ? BY_M_HTTP_FAILED : BY_M_HTTP_REFUSED, 1);
    write_head(c, (struct http_head){.status = status,
                                     .content_type = content_type,
                                     .content_length = body.n,
                                     .extra = extra});
    if (http1_request(c->http)->method != HTTP1_HEAD_METHOD) by_buf_add_str(&c->out, body);
    finish_answer(c);
}

void conn_stream_begin(struct conn *c, const char *content_type) {
    if (c->state == CONN_CLOSING) return;
    by_assert(c->state == CONN_BUSY && !c->is_streaming);
    c->is_streaming = true;
    write_head(c, (struct http_head){.status = 200,
                                     .content_type = content_type,
                                     .is_stream = true,
                                     .extra = "X-Accel-Buffering: no\r\n"});
}

void conn_stream_write(struct conn *c, struct by_str bytes) {
    if (c->state == CONN_CLOSING) return;
    by_assert(c->is_streaming);
    if (c->is_http10)
        by_buf_add_str(&c->out, bytes);
    else
        http_write_chunk(&c->out, bytes);
    flush(c);
}

void conn_stream_end(struct conn *c) {
    if (c->state == CONN_CLOSING) return;
    by_assert(c->is_streaming);
    if (!c->is_http10) http_write_last_chunk(&c->out);
    finish_answer(c);
}

void conn_set_owner(struct conn *c, void *owner, void (*gone)(void *owner),
                    void (*drained)(void *owner)) {
    c->owner = owner;
    c->gone = gone;
    c->drained = drained;
}

size_t conn_n_pending(const struct conn *c) {
    return uv_stream_get_write_queue_size(&c->stream);
}

const struct trace_context *conn_trace(const struct conn *c) {
    return &c->trace;
}

struct request_id *conn_id(struct conn *c) {
    return &c->id;
}

/* ---- reading ---- */

static void refuse(struct conn *c, int status, const char *text) {
    struct by_buf body;
    by_buf_init(&body, 4096);
    c->trace = (struct trace_context){0};
    c->id = (struct request_id){0};
    by_buf_addz(&body, "{\"error\":{\"message\":");
    by_buf_add_json_str(&body, by_str_of(text));
    by_buf_addf(&body, ",\"type\":\"%s\",\"param\":null,\"code\":%d}}",
                status == 429 ? "rate_limit_error" : "invalid_request_error", status);
    c->keep_alive = false;
    c->is_refused = !c->has_ended;
    move(c, CONN_BUSY);
    conn_respond(c, status, "application/json", by_buf_str(&body),
                 status == 405   ? "Allow: GET, HEAD, POST, PUT, DELETE\r\n"
                 : status == 429 ? "Retry-After: 1\r\nretry-after-ms: 1000\r\n"
                                 : NULL);
    by_buf_release(&body);
}

/* is_whole: with its body. */
static bool handle_request(struct conn *c, bool is_whole) {
    const struct http1_request *r = http1_request(c->http);
    bool is_small = r->body_expected && r->body_expected <= BODY_LARGE && !r->wants_continue;
    c->keep_alive = r->keep_alive && (is_whole || is_small);
    c->is_refused = !is_whole && !c->keep_alive;
    c->n_skip = is_whole ? 0 : r->body_expected;
    c->is_http10 = r->is_http10;
    struct by_str trace = {0}, id = {0};
    (void)http1_header(r, "traceparent", &trace);
    (void)http1_header(r, "x-request-id", &id);
    trace_context_follow(trace, &c->trace);
    request_id_take(id, &c->id);
    move(c, CONN_BUSY);
    if (!c->group->o.handle(c->group->o.ctx, c, r, is_whole)) {
        c->is_refused = false;
        c->n_skip = 0;
        move(c, CONN_READING);
        return false;
    }
    by_count(BY_M_HTTP_REQUESTS, 1);
    if (is_whole && c->state == CONN_BUSY)
        http1_drop_body(c->http); /* who answers later has read it */
    return true;
}

/* A head has come, and of its body n bytes at most. False: it was refused already, the body will not be read. */
static bool ask_for_body(struct conn *c, size_t n) {
    const struct http1_request *r = http1_request(c->http);
    if (r->body_expected && n >= r->body_expected) return true; /* it is here */
    if (handle_request(c, false)) return false;
    if (r->wants_continue) by_buf_addz(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
    flush(c);
    return true;
}

/* It talks on and on while we answer: that it leaves is not seen then. */
static void keep_waiting(struct conn *c, struct by_str bytes) {
    by_buf_add_str(&c->waiting, bytes);
    by_assert(!c->waiting.is_full); /* one read more than PIPELINED_MAX fits */
    if (c->waiting.n < PIPELINED_MAX) return;
    c->is_deaf = true;
    uv_read_stop(&c->stream);
}

static void feed(struct conn *c, struct by_str bytes) {
    while (bytes.n && c->state != CONN_CLOSING && c->state != CONN_LINGERING) {
        size_t used = BY_MIN(c->n_skip, bytes.n);
        if (used) {
            c->n_skip -= used;
            bytes = by_str_sub(bytes, used, bytes.n);
            continue;
        }
        if (c->state == CONN_BUSY) {
            keep_waiting(c, bytes);
            return;
        }
        enum http1_result result = http1_feed(c->http, bytes, &used);
        bytes = by_str_sub(bytes, used, bytes.n);
        if (result == HTTP1_HEAD && !ask_for_body(c, bytes.n)) continue;
        if (result == HTTP1_BAD) {
            const struct http1_request *r = http1_request(c->http);
            if (r->is_tls) /* its library shows a person no word of the answer */
                by_warn_limited("a client spoke TLS, and this port speaks plain HTTP: its URL "
                                "begins with http://, or TLS ends before us (deploy/conf) peer=%s",
                                c->peer);
            refuse(c, r->bad_status ? r->bad_status : 400,
                   r->bad_text ? r->bad_text : "not an HTTP request");
            return;
        }
        if (result == HTTP1_DONE)
            (void)handle_request(c, true);
        else if (result == HTTP1_MORE && !used && bytes.n)
            return;
    }
}

static void on_room(uv_handle_t *h, size_t hint, uv_buf_t *b) {
    (void)hint;
    struct conn *c = h->data;
    *b = uv_buf_init(c->group->room, sizeof c->group->room);
}

static void listen_again(struct conn *c) {
    if (!c->is_deaf) return;
    c->is_deaf = false;
    uv_read_start(&c->stream, on_room, on_read);
}

/* The client says no more. Whether it still reads is known only to who writes, and most have left: so while it waits for its
 * answer it counts as gone, but hears of that in case it is there. */
static void on_end(struct conn *c) {
    c->has_ended = true;
    if (c->state == CONN_BUSY) {
        tell_gone(c);
        if (c->is_streaming)
            close_conn(c);
        else
            refuse(c, 499,
                   "the client ended its side of the connection while its request ran, which "
                   "counts as leaving: keep it open until the answer has come");
    } else if (c->state == CONN_READING && !http1_is_fresh(c->http)) {
        refuse(c, 400, "the connection ended in the middle of the request");
    } else if (!conn_n_pending(c)) {
        close_conn(c);
    } else if (c->state == CONN_READING) {
        linger(c);
    }
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b) {
    struct conn *c = stream->data;
    if (n == 0 || c->state == CONN_CLOSING) return;
    if (n < 0) {
        if (n == UV_EOF)
            on_end(c);
        else
            close_conn(c);
        return;
    }
    if (c->state == CONN_LINGERING) return;
    if (http1_is_fresh(c->http)) c->idle_ticks = 0;
    feed(c, (struct by_str){b->base, (size_t)n});
    update_holding(c);
}

/* ---- time ---- */

/* Its request is paused by now, and holds pages that others could have. */
static bool is_stalled(struct conn *c) {
    uint64_t n_taken = c->n_put - conn_n_pending(c);
    bool stands = conn_n_pending(c) && n_taken == c->n_taken;
    c->n_taken = n_taken;
    c->stalled_ticks = stands ? c->stalled_ticks + 1 : 0;
    return c->group->o.stall_seconds && c->stalled_ticks > c->group->o.stall_seconds;
}

/* An answer is on its way to the client, and no next request: that takes as long as it takes. */
static bool is_answered(const struct conn *c) {
    return conn_n_pending(c) && (c->state == CONN_LINGERING || http1_is_fresh(c->http));
}

/* A body that flows may take longer than a head; one that drips may not. */
static uint64_t patience(const struct conn *c) {
    if (c->state == CONN_LINGERING) return LINGER_SECONDS;
    if (http1_is_fresh(c->http)) return IDLE_SECONDS;
    if (!c->group->o.request_seconds) return UINT64_MAX;
    return c->group->o.request_seconds + http1_n_body(c->http) / BODY_A_SECOND;
}

/* Once a second, while there are connections: a request that does not get finished, a client that takes nothing, a kept
 * connection that nobody uses. */
static void on_tick(uv_timer_t *t) {
    struct conn_group *g = t->data;
    for (BY_LIST_EACH_SAFE(node, next, &g->conns)) {
        struct conn *c = BY_CONTAINER_OF(node, struct conn, node);
        if (c->state == CONN_CLOSING) continue;
        if (is_stalled(c)) {
            by_warn_limited("a client took nothing for %u s and was cut off peer=%s "
                            "(--slow-client-timeout)",
                            c->stalled_ticks, c->peer);
            close_conn(c);
            continue;
        }
        if (is_answered(c)) c->idle_ticks = 0;
        if (c->state == CONN_BUSY || ++c->idle_ticks <= patience(c)) continue;
        if (c->state == CONN_READING && !http1_is_fresh(c->http))
            refuse(c, 408, "the request did not come in its time (--slow-request-timeout)");
        else
            close_conn(c);
    }
}

/* ---- all of them ---- */

static bool holds_more_than(const struct conn_group *g, uint64_t quarters) {
    return g->o.held_max && by_mem_n_bytes() > g->o.held_max / 4 * quarters;
}

/* Behind the loop's callbacks, where a connection may end without surprise. */
static void on_relief(uv_prepare_t *h) {
    struct conn_group *g = h->data;
    while (holds_more_than(g, 3)) {
        struct by_list *node = by_list_first(&g->large);
        if (!node && holds_more_than(g, 4)) node = by_list_first(&g->quiet);
        if (!node) return;
        struct conn *c = BY_CONTAINER_OF(node, struct conn, holding);
        by_count(BY_M_GAVE_WAY, 1);
        by_warn_limited("a client gave way: --max-held-bytes are held peer=%s", c->peer);
        if (c->state == CONN_READING && !http1_is_fresh(c->http)) {
            refuse(c, 429, "the server holds as many requests as it may; try again");
        } else {
            close_conn(c);
            return; /* its memory is free in the loop's next round */
        }
    }
}

static void name_peer(struct conn *c) {
    struct sockaddr_storage a;
    int n = sizeof a;
    snprintf(c->peer, sizeof c->peer, "local");
    if (c->handle.type != UV_TCP || uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&a, &n)) return;
    if (uv_ip_name((const struct sockaddr *)&a, c->peer, sizeof c->peer))
        snprintf(c->peer, sizeof c->peer, "?");
}

void conn_group_accept(struct conn_group *g, uv_stream_t *listener) {
    struct conn *c = by_alloc(sizeof *c);
    if (listener->type == UV_TCP)
        uv_tcp_init(listener->loop, &c->tcp);
    else
        uv_pipe_init(listener->loop, &c->pipe, 0);
    c->handle.data = c;
    c->group = g;
    c->state = CONN_READING;
    c->keep_alive = true;
    struct http1_limits lim = {.body_bytes_max = g->o.body_bytes_max};
    c->http = http1_new(&lim);
    by_buf_init(&c->waiting, PIPELINED_MAX + sizeof c->group->room);
    by_buf_init(&c->out, OUT_MAX);
    by_list_push(&g->conns, &c->node);
    update_holding(c);
    if (g->n++ == 0) {
        uv_timer_start(&g->tick, on_tick, TICK_MS, TICK_MS);
        uv_prepare_start(&g->relief, on_relief);
    }
    if (uv_accept(listener, &c->stream) || g->n > g->o.connections_max) {
        by_warn_limited("a connection was closed at once: %u are open (--max-connections)",
                        g->n - 1);
        close_conn(c);
        return;
    }
    if (c->handle.type == UV_TCP) uv_tcp_nodelay(&c->tcp, 1);
    name_peer(c);
    uv_read_start(&c->stream, on_room, on_read);
}

void conn_group_init(struct conn_group *g, uv_loop_t *loop, const struct conn_options *o) {
    *g = (struct conn_group){.o = *o};
    by_list_init(&g->conns);
    by_list_init(&g->large);
    by_list_init(&g->quiet);
    uv_timer_init(loop, &g->tick);
    uv_prepare_init(loop, &g->relief);
    g->tick.data = g->relief.data = g;
}

/* Of its answer the client has not taken all: closed, it would lose the rest. */
static bool is_owed(const struct conn *c) {
    return c->state == CONN_BUSY || (c->state != CONN_CLOSING && conn_n_pending(c));
}

uint32_t conn_group_n_busy(const struct conn_group *g) {
    uint32_t n = 0;
    for (BY_LIST_EACH(node, &g->conns))
        n += is_owed(BY_CONTAINER_OF(node, struct conn, node));
    return n;
}

void conn_group_close_idle(struct conn_group *g) {
    for (BY_LIST_EACH_SAFE(node, next, &g->conns)) {
        struct conn *c = BY_CONTAINER_OF(node, struct conn, node);
        if (c->state == CONN_READING && !is_owed(c)) close_conn(c);
    }
}

void conn_group_close_all(struct conn_group *g) {
    for (BY_LIST_EACH_SAFE(node, next, &g->conns))
        close_conn(BY_CONTAINER_OF(node, struct conn, node));
}
