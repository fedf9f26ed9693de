/* conn.c - one connection: bytes become requests, a client that leaves is seen, the end. */
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "router/conn_parts.h"

enum {
    BODY_LARGE = 65536, /* what is no larger gives way to nobody */
    ANSWER_LARGE = 262144,
};

static bool is_large_upload(const struct conn *c) {
    return c->state == CONN_READING && http1_n_body(c->http) > BODY_LARGE;
}

static struct by_list *list_of(const struct conn *c) {
    if (c->state == CONN_CLOSING || (c->state == CONN_LINGERING && !conn_n_pending(c))) return NULL;
    if (is_large_upload(c) || conn_n_pending(c) > ANSWER_LARGE) return &c->group->large;
    return c->state != CONN_BUSY || conn_n_pending(c) ? &c->group->quiet : NULL;
}

void conn_update_holding(struct conn *c) {
    struct by_list *list = list_of(c);
    if (list == c->holding_in) return;
    if (c->holding_in) by_list_remove(&c->holding);
    if (list) by_list_push(list, &c->holding);
    c->holding_in = list;
}

void conn_move(struct conn *c, enum conn_state to) {
    by_gauge_add(BY_M_HTTP_ACTIVE, (to == CONN_BUSY) - (c->state == CONN_BUSY));
    c->state = to;
    conn_update_holding(c);
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

void conn_close(struct conn *c) {
    if (c->state == CONN_CLOSING) return;
    conn_move(c, CONN_CLOSING);
    tell_gone(c);
    uv_close(&c->handle, on_closed);
}

static void on_shut_down(uv_shutdown_t *req, int status) {
    struct conn *c = req->data;
    if (status || c->has_ended) conn_close(c);
}

void conn_linger(struct conn *c) {
    conn_move(c, CONN_LINGERING);
    http1_drop_body(c->http);
    conn_listen_again(c);
    c->idle_ticks = 0;
    c->shutdown.data = c;
    if (uv_shutdown(&c->shutdown, &c->stream, on_shut_down)) conn_close(c);
}

/* ---- reading ---- */

void conn_refuse(struct conn *c, int status, const char *text) {
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
    conn_move(c, CONN_BUSY);
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
    conn_move(c, CONN_BUSY);
    if (!c->group->o.handle(c->group->o.ctx, c, r, is_whole)) {
        c->is_refused = false;
        c->n_skip = 0;
        conn_move(c, CONN_READING);
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
    conn_flush(c);
    return true;
}

/* It talks on and on while we answer: that it leaves is not seen then. */
static void keep_waiting(struct conn *c, struct by_str bytes) {
    by_buf_add_str(&c->waiting, bytes);
    by_assert(!c->waiting.is_full); /* one read more than CONN_PIPELINED_MAX fits */
    if (c->waiting.n < CONN_PIPELINED_MAX) return;
    c->is_deaf = true;
    uv_read_stop(&c->stream);
}

void conn_feed(struct conn *c, struct by_str bytes) {
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
            conn_refuse(c, r->bad_status ? r->bad_status : 400,
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

/* The client says no more. Whether it still reads is known only to who writes, and most have left: so while it waits for its
 * answer it counts as gone, but hears of that in case it is there. */
static void on_end(struct conn *c) {
    c->has_ended = true;
    if (c->state == CONN_BUSY) {
        tell_gone(c);
        if (c->is_streaming)
            conn_close(c);
        else
            conn_refuse(c, 499,
                        "the client ended its side of the connection while its request ran, which "
                        "counts as leaving: keep it open until the answer has come");
    } else if (c->state == CONN_READING && !http1_is_fresh(c->http)) {
        conn_refuse(c, 400, "the connection ended in the middle of the request");
    } else if (!conn_n_pending(c)) {
        conn_close(c);
    } else if (c->state == CONN_READING) {
        conn_linger(c);
    }
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b) {
    struct conn *c = stream->data;
    if (n == 0 || c->state == CONN_CLOSING) return;
    if (n < 0) {
        if (n == UV_EOF)
            on_end(c);
        else
            conn_close(c);
        return;
    }
    if (c->state == CONN_LINGERING) return;
    if (http1_is_fresh(c->http)) c->idle_ticks = 0;
    conn_feed(c, (struct by_str){b->base, (size_t)n});
    conn_update_holding(c);
}

void conn_listen(struct conn *c) {
    uv_read_start(&c->stream, on_room, on_read);
}

void conn_listen_again(struct conn *c) {
    if (!c->is_deaf) return;
    c->is_deaf = false;
    conn_listen(c);
}
