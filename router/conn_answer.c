/* conn_answer.c - one connection: answers become bytes, and the next request may come. */
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "router/conn_parts.h"
#include "router/cors.h"
#include "router/http_write.h"

enum { OUT_KEPT = 65536 /* a larger buffer is given back between two writes */ };

struct write {
    uv_write_t req;
    struct conn *conn;
    char *bytes;
};

static void on_written(uv_write_t *req, int status) {
    struct write *w = BY_CONTAINER_OF(req, struct write, req);
    struct conn *c = w->conn;
    by_free(w->bytes);
    by_free(w);
    if (c->state == CONN_CLOSING) return;
    conn_update_holding(c);
    if (status) {
        conn_close(c);
    } else if (c->owner && c->drained) {
        c->drained(c->owner);
    }
}

void conn_flush(struct conn *c) {
    if (!c->out.n || c->state == CONN_CLOSING) return;
    if (c->out.is_full) {
        by_error("an answer was over the limit and was cut off peer=%s", c->peer);
        conn_close(c);
        return;
    }
    size_t done = 0;
    c->n_put += c->out.n;
    if (!uv_stream_get_write_queue_size(&c->stream)) {
        uv_buf_t b = uv_buf_init(c->out.p, (unsigned)c->out.n);
        int n = uv_try_write(&c->stream, &b, 1);
        if (n > 0) done = (size_t)n;
        if (n < 0 && n != UV_EAGAIN) {
            conn_close(c);
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
            conn_close(c);
            return;
        }
        conn_update_holding(c);
    }
    by_buf_clear(&c->out);
    if (c->out.cap > OUT_KEPT) {
        by_buf_release(&c->out);
        by_buf_init(&c->out, CONN_OUT_MAX);
    }
}

/* The answer is complete: the next request may come, or the connection ends. */
static void finish_answer(struct conn *c) {
    c->owner = NULL;
    c->is_streaming = false;
    conn_flush(c);
    if (c->state == CONN_CLOSING) return;
    if (c->is_refused || (!c->keep_alive && conn_n_pending(c))) {
        conn_linger(c);
        return;
    }
    if (!c->keep_alive) {
        conn_close(c);
        return;
    }
    conn_move(c, CONN_READING);
    c->idle_ticks = 0;
    http1_clear(c->http);
    conn_listen_again(c);
    if (!c->waiting.n) return;
    size_t n;
    char *bytes = by_buf_take(&c->waiting, &n);
    conn_feed(c, (struct by_str){bytes, n});
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
    conn_flush(c);
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
