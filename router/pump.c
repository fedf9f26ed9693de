#include "router/pump.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mem.h"

enum { N_HANDLES = WIRE_N_FDS + 1 };

struct pump {
    struct wire *wire;
    void (*after)(void *ctx);
    void *ctx;
    uv_poll_t polls[WIRE_N_FDS];
    uv_timer_t timer;
    int n_closing;
};

static void run(struct pump *p);

static void on_timer(uv_timer_t *t) {
    run(t->data);
}

static void on_readable(uv_poll_t *h, int status, int events) {
    (void)status; /* an error shows when the wire reads */
    (void)events;
    run(h->data);
}

static void run(struct pump *p) {
    uint64_t now = by_now_ns();
    uint64_t due = wire_pump(p->wire, now);
    p->after(p->ctx);
    uv_timer_stop(&p->timer);
    if (!due) return;
    uv_timer_start(&p->timer, on_timer,
                   due > now ? (due - now + BY_NS_PER_MS - 1) / BY_NS_PER_MS : 0, 0);
}

struct pump *pump_new(uv_loop_t *loop, struct wire *w, void (*after)(void *ctx), void *ctx) {
    struct pump *p = by_alloc(sizeof *p);
    int fds[WIRE_N_FDS];
    p->wire = w;
    p->after = after;
    p->ctx = ctx;
    wire_fds(w, fds);
    for (int i = 0; i < WIRE_N_FDS; i++) {
        int rc = uv_poll_init(loop, &p->polls[i], fds[i]);
        by_assert(rc == 0);
        p->polls[i].data = p;
        uv_poll_start(&p->polls[i], UV_READABLE, on_readable);
    }
    uv_timer_init(loop, &p->timer);
    p->timer.data = p;
    uv_timer_start(&p->timer, on_timer, 0, 0); /* what came before we looked gives no edge */
    return p;
}

/* The fds may only go when libuv no longer watches them. */
static void on_closed(uv_handle_t *h) {
    struct pump *p = h->data;
    if (++p->n_closing < N_HANDLES) return;
    wire_close(p->wire);
    by_free(p);
}

void pump_close(struct pump *p) {
    if (!p) return;
    for (int i = 0; i < WIRE_N_FDS; i++) {
        uv_poll_stop(&p->polls[i]);
        uv_close((uv_handle_t *)&p->polls[i], on_closed);
    }
    uv_timer_stop(&p->timer);
    uv_close((uv_handle_t *)&p->timer, on_closed);
}
