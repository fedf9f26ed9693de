#include "gpu_worker/cpu/cpu_threads.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SPIN_NS = 25000,
    LANES_MAX = 1024,
    CALIBRATION = 256, /* pauses timed to learn how long one takes: 3 to 45 ns by CPU */
};

/* A number that some wait to see change. */
struct gate {
    _Alignas(64) _Atomic uint32_t n;
    _Atomic uint32_t n_asleep;
};

struct cpu_team {
    struct gate start;                     /* goes up with each run */
    struct gate met;                       /* goes up with each barrier */
    _Alignas(64) _Atomic uint32_t n_there; /* lanes at the barrier */
    _Alignas(64) _Atomic uint32_t next;
    uint32_t n, n_spins;
    void (*fn)(void *ctx, uint32_t lane); /* NULL: end */
    void *ctx;
    pthread_t threads[];
};

struct birth {
    struct cpu_team *team;
    uint32_t lane;
};

#if defined(__x86_64__)
static inline void pause_a_little(void) {
    __builtin_ia32_pause();
}
#else
static inline void pause_a_little(void) {
    atomic_signal_fence(memory_order_seq_cst);
}
#endif

static void gate_wait(struct gate *g, uint32_t old, uint32_t n_spins) {
    for (uint32_t i = 0; i < n_spins; i++) {
        if (atomic_load_explicit(&g->n, memory_order_acquire) != old) return;
        pause_a_little();
    }
    atomic_fetch_add(&g->n_asleep, 1);
    while (atomic_load(&g->n) == old)
        syscall(SYS_futex, &g->n, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&g->n_asleep, 1);
}

/* A sleeper counts itself before it looks at n for the last time, we look for sleepers after changing n: one of the two
 * sees the other. */
static void gate_open(struct gate *g) {
    atomic_fetch_add(&g->n, 1);
    if (atomic_load(&g->n_asleep))
        syscall(SYS_futex, &g->n, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

void cpu_team_barrier(struct cpu_team *t) {
    if (t->n == 1) {
        atomic_store_explicit(&t->next, 0, memory_order_relaxed);
        return;
    }
    uint32_t old = atomic_load(&t->met.n);
    if (atomic_fetch_add(&t->n_there, 1) + 1 < t->n) {
        gate_wait(&t->met, old, t->n_spins);
        return;
    }
    atomic_store(&t->n_there, 0);
    atomic_store(&t->next, 0);
    gate_open(&t->met);
}

uint32_t cpu_team_next(struct cpu_team *t) {
    return atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed);
}

void cpu_team_run(struct cpu_team *t, void (*fn)(void *ctx, uint32_t lane), void *ctx) {
    t->fn = fn;
    t->ctx = ctx;
    if (t->n > 1) gate_open(&t->start);
    fn(ctx, 0);
    cpu_team_barrier(t);
}

static void *lane_main(void *arg) {
    struct birth b = *(struct birth *)arg;
    by_free(arg);
    struct cpu_team *t = b.team;
    for (uint32_t seen = 0;; seen++) {
        gate_wait(&t->start, seen, t->n_spins);
        if (!t->fn) return NULL;
        t->fn(t->ctx, b.lane);
        cpu_team_barrier(t);
    }
}

static uint32_t spins_of(uint64_t ns) {
    uint64_t from = by_now_ns();
    for (int i = 0; i < CALIBRATION; i++)
        pause_a_little();
    uint64_t took = BY_MAX(by_now_ns() - from, 1);
    uint64_t n = ns * CALIBRATION / took;
    return (uint32_t)BY_MIN(BY_MAX(n, 50), 20000);
}

/* Signals belong to the caller's thread. */
static int start_lane(struct cpu_team *t, uint32_t lane) {
    struct birth *b = by_alloc(sizeof *b);
    *b = (struct birth){t, lane};
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&t->threads[lane], NULL, lane_main, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        by_free(b);
        return rc;
    }
    pthread_setname_np(t->threads[lane], "banyan-lane");
    return 0;
}

int cpu_team_new(struct cpu_team **out, uint32_t n, struct by_err *err) {
    if (n < 1 || n > LANES_MAX)
        return by_fail(err, BY_EINVAL, "%u threads: 1 to %d are possible", n, LANES_MAX);
    struct cpu_team *t = by_try_alloc_aligned(64, sizeof *t + n * sizeof(pthread_t));
    if (!t) return by_fail(err, BY_ENOMEM, "no memory for %u threads", n);
    memset(t, 0, sizeof *t + n * sizeof(pthread_t));
    t->n_spins = spins_of(SPIN_NS);
    for (t->n = 1; t->n < n; t->n++) {
        int rc = start_lane(t, t->n);
        if (rc == 0) continue;
        cpu_team_free(t);
        return by_fail(err, BY_EIO, "thread %u of %u cannot be started: %s (see --threads)",
                       t->n + 1, n, strerror(rc));
    }
    *out = t;
    return 0;
}

void cpu_team_free(struct cpu_team *t) {
    if (!t) return;
    t->fn = NULL;
    gate_open(&t->start);
    for (uint32_t i = 1; i < t->n; i++)
        pthread_join(t->threads[i], NULL);
    by_free(t);
}
