#include "common/net/loop.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/proc.h"

#include <errno.h>
#include <poll.h>

enum {
    SOURCES_MAX = 1024
}; /* fds or timers of one process: wires, peers' wires, one or two timers each */

struct source {
    int fd;
    by_loop_fn *fn; /* NULL: removed during the round */
    void *ctx;
};

struct timer {
    uint64_t due_ns; /* 0: off */
    by_loop_fn *fn;
    void *ctx;
};

struct by_loop {
    struct source sources[SOURCES_MAX];
    struct pollfd fds[SOURCES_MAX + 1]; /* the last one of a round: the stop signal */
    struct timer timers[SOURCES_MAX];
    int n_sources, n_timers;
    by_loop_fn *idle;
    void *idle_ctx;
    bool is_stopped;
    uint64_t alive_due_ns; /* when systemd wants to hear of us; 0: never */
};

struct by_loop *by_loop_new(void) {
    return by_alloc(sizeof(struct by_loop));
}

void by_loop_free(struct by_loop *l) {
    by_free(l);
}

void by_loop_add_fd(struct by_loop *l, int fd, by_loop_fn *fn, void *ctx) {
    by_assert(l->n_sources < SOURCES_MAX);
    l->sources[l->n_sources++] = (struct source){.fd = fd, .fn = fn, .ctx = ctx};
}

void by_loop_remove_fd(struct by_loop *l, int fd) {
    for (int i = 0; i < l->n_sources; i++) {
        if (l->sources[i].fd == fd) l->sources[i].fn = NULL;
    }
}

void by_loop_set_timer(struct by_loop *l, uint64_t due_ns, by_loop_fn *fn, void *ctx) {
    struct timer *free_one = NULL;
    for (int i = 0; i < l->n_timers; i++) {
        struct timer *t = &l->timers[i];
        if (t->fn == fn && t->ctx == ctx) {
            t->due_ns = due_ns;
            return;
        }
        if (!t->due_ns) free_one = t;
    }
    if (!due_ns) return;
    if (!free_one) {
        by_assert(l->n_timers < SOURCES_MAX);
        free_one = &l->timers[l->n_timers++];
    }
    *free_one = (struct timer){.due_ns = due_ns, .fn = fn, .ctx = ctx};
}

void by_loop_set_idle(struct by_loop *l, by_loop_fn *fn, void *ctx) {
    l->idle = fn;
    l->idle_ctx = ctx;
}

void by_loop_stop(struct by_loop *l) {
    l->is_stopped = true;
}

static void drop_removed(struct by_loop *l) {
    int n = 0;
    for (int i = 0; i < l->n_sources; i++) {
        if (l->sources[i].fn) l->sources[n++] = l->sources[i];
    }
    l->n_sources = n;
}

static int wait_ms(const struct by_loop *l, uint64_t now) {
    uint64_t due = UINT64_MAX;
    for (int i = 0; i < l->n_timers; i++) {
        if (l->timers[i].due_ns) due = BY_MIN(due, l->timers[i].due_ns);
    }
    if (l->alive_due_ns) due = BY_MIN(due, l->alive_due_ns);
    if (due == UINT64_MAX) return -1;
    if (due <= now) return 0;
    return (int)BY_MIN((due - now + BY_NS_PER_MS - 1) / BY_NS_PER_MS, UINT64_C(3600000));
}

/* Timers that a callback sets anew wait for the next round, so that none can starve the fds. */
static void run_timers(struct by_loop *l, uint64_t now) {
    int n = l->n_timers;
    for (int i = 0; i < n; i++) {
        struct timer t = l->timers[i];
        if (!t.due_ns || t.due_ns > now) continue;
        l->timers[i].due_ns = 0;
        t.fn(t.ctx, now);
    }
}

static void run_sources(struct by_loop *l, int n, uint64_t now) {
    for (int i = 0; i < n; i++) {
        struct source s = l->sources[i];
        if (l->fds[i].revents && s.fn) s.fn(s.ctx, now);
    }
}

/* A loop that does not come round is what systemd's watchdog is to find. */
static void say_alive(struct by_loop *l, uint64_t now) {
    if (!l->alive_due_ns || l->alive_due_ns > now) return;
    by_notify("WATCHDOG=1");
    l->alive_due_ns = now + by_proc_watchdog_ns();
}

void by_loop_run(struct by_loop *l) {
    l->is_stopped = false;
    l->alive_due_ns = by_proc_watchdog_ns() ? by_now_ns() : 0;
    while (!l->is_stopped && !by_proc_should_stop()) {
        drop_removed(l);
        int n = l->n_sources;
        for (int i = 0; i < n; i++)
            l->fds[i] = (struct pollfd){.fd = l->sources[i].fd, .events = POLLIN};
        l->fds[n] = (struct pollfd){.fd = by_proc_stop_fd(), .events = POLLIN};
        if (poll(l->fds, (nfds_t)n + 1, wait_ms(l, by_now_ns())) < 0) {
            if (errno != EINTR) by_die("poll failed: %m");
            continue;
        }
        uint64_t now = by_now_ns();
        run_sources(l, n, now);
        run_timers(l, now);
        say_alive(l, now);
        if (l->idle && !l->is_stopped) l->idle(l->idle_ctx, now);
    }
}
