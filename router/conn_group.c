/* conn_group.c - the connections of one listener: how long each may take, who gives way, the end of all. */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "router/conn_parts.h"

#include <stdio.h>

enum {
    TICK_MS = 1000,
    BODY_A_SECOND = 2048, /* bytes of a body that give its client a second more to send it */
    IDLE_SECONDS = 120,   /* a kept connection without a request */
    LINGER_SECONDS = 5,   /* a refused client's time to stop sending and read why */
};

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
            conn_close(c);
            continue;
        }
        if (is_answered(c)) c->idle_ticks = 0;
        if (c->state == CONN_BUSY || ++c->idle_ticks <= patience(c)) continue;
        if (c->state == CONN_READING && !http1_is_fresh(c->http))
            conn_refuse(c, 408, "the request did not come in its time (--slow-request-timeout)");
        else
            conn_close(c);
    }
}

/* ---- memory ---- */

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
            conn_refuse(c, 429, "the server holds as many requests as it may; try again");
        } else {
            conn_close(c);
            return; /* its memory is free in the loop's next round */
        }
    }
}

/* ---- all of them ---- */

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
    by_buf_init(&c->waiting, CONN_PIPELINED_MAX + sizeof c->group->room);
    by_buf_init(&c->out, CONN_OUT_MAX);
    by_list_push(&g->conns, &c->node);
    conn_update_holding(c);
    if (g->n++ == 0) {
        uv_timer_start(&g->tick, on_tick, TICK_MS, TICK_MS);
        uv_prepare_start(&g->relief, on_relief);
    }
    if (uv_accept(listener, &c->stream) || g->n > g->o.connections_max) {
        by_warn_limited("a connection was closed at once: %u are open (--max-connections)",
                        g->n - 1);
        conn_close(c);
        return;
    }
    if (c->handle.type == UV_TCP) uv_tcp_nodelay(&c->tcp, 1);
    name_peer(c);
    conn_listen(c);
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
        if (c->state == CONN_READING && !is_owed(c)) conn_close(c);
    }
}

void conn_group_close_all(struct conn_group *g) {
    for (BY_LIST_EACH_SAFE(node, next, &g->conns))
        conn_close(BY_CONTAINER_OF(node, struct conn, node));
}
