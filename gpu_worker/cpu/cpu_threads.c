#include "gpu_worker/cpu/cpu_threads.h"

#include "common/base/check.h"
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

/* Where a lane is in a run; its own. */
struct place {
    _Alignas(64) uint32_t phase; /* pieces of this one are its own to take */
    uint32_t n; /* pieces of the phase, as the lane was told; 0: it has not asked */
    bool has_piece;
};

struct cpu_team {
    struct gate start; /* goes up with each run */
    struct gate phase; /* goes up with each phase that is over */
    struct gate left;  /* goes up when the last lane leaves a run that lane 0 has ended */
    _Alignas(64) _Atomic uint64_t inside; /* IS_OPEN while lanes may come in, and how many have */
    _Alignas(64) _Atomic uint64_t next;   /* phase << 32 | its pieces that were handed out */
    _Alignas(64) _Atomic uint32_t n_done; /* its pieces that are done */
    _Atomic bool is_over;
    uint32_t n, n_spins;
    uint32_t first_phase; /* of the run */
    void (*fn)(void *ctx, uint32_t lane);
    void *ctx;
    struct place *places; /* [n] */
    pthread_t threads[];
};

#define IS_OPEN (UINT64_C(1) << 32)

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

/* The last piece of a phase ends it: whoever comes later finds nothing left of it, and waits for nothing. */
static void piece_done(struct cpu_team *t, struct place *p) {
    p->has_piece = false;
    if (atomic_fetch_add_explicit(&t->n_done, 1, memory_order_acq_rel) + 1 < p->n) return;
    atomic_store_explicit(&t->n_done, 0, memory_order_relaxed);
    atomic_store_explicit(&t->next, (uint64_t)(uint32_t)(p->phase + 1) << 32, memory_order_release);
    gate_open(&t->phase);
}

uint32_t cpu_team_next(struct cpu_team *t, uint32_t lane, uint32_t n) {
    struct place *p = &t->places[lane];
    if (p->has_piece) piece_done(t, p);
    p->n = n;
    uint64_t at = atomic_load_explicit(&t->next, memory_order_acquire);
    do {
        if (at >> 32 != p->phase || (uint32_t)at >= n) return UINT32_MAX;
    } while (!atomic_compare_exchange_weak_explicit(&t->next, &at, at + 1, memory_order_acquire,
                                                    memory_order_acquire));
    p->has_piece = true;
    return (uint32_t)at;
}

void cpu_team_meet(struct cpu_team *t, uint32_t lane) {
    struct place *p = &t->places[lane];
    by_assert(!p->has_piece);
    if (p->n == 0) return; /* nothing was shared out */
    gate_wait(&t->phase, p->phase, t->n_spins);
    p->phase++;
    p->n = 0;
}

static bool come_in(struct cpu_team *t) {
    uint64_t at = atomic_load_explicit(&t->inside, memory_order_acquire);
    do {
        if (!(at & IS_OPEN)) return false;
    } while (!atomic_compare_exchange_weak_explicit(&t->inside, &at, at + 1, memory_order_acquire,
                                                    memory_order_acquire));
    return true;
}

static void do_run(struct cpu_team *t, uint32_t lane) {
    t->places[lane] = (struct place){.phase = t->first_phase};
    t->fn(t->ctx, lane);
}

void cpu_team_run(struct cpu_team *t, void (*fn)(void *ctx, uint32_t lane), void *ctx) {
    t->fn = fn;
    t->ctx = ctx;
    t->first_phase = atomic_load_explicit(&t->phase.n, memory_order_relaxed);
    if (t->n > 1) {
        atomic_store_explicit(&t->inside, IS_OPEN, memory_order_release);
        gate_open(&t->start);
    }
    do_run(t, 0);
    if (t->n == 1) return;
    uint32_t old = atomic_load(&t->left.n);
    if (atomic_fetch_and(&t->inside, ~IS_OPEN) != IS_OPEN) gate_wait(&t->left, old, t->n_spins);
}

static void *lane_main(void *arg) {
    struct birth b = *(struct birth *)arg;
    by_free(arg);
    struct cpu_team *t = b.team;
    for (uint32_t seen = 0;;) {
        gate_wait(&t->start, seen, t->n_spins);
        seen = atomic_load(&t->start.n);
        if (atomic_load(&t->is_over)) return NULL;
        if (!come_in(t)) continue; /* it was over before this lane had a CPU */
        do_run(t, b.lane);
        if (atomic_fetch_sub(&t->inside, 1) == 1) gate_open(&t->left);
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
    struct place *places = by_try_alloc_aligned(64, n * sizeof *places);
    if (!t || !places) {
        by_free(t);
        by_free(places);
        return by_fail(err, BY_ENOMEM, "no memory for %u threads", n);
    }
    memset(t, 0, sizeof *t + n * sizeof(pthread_t));
    t->places = places;
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
    atomic_store(&t->is_over, true);
    gate_open(&t->start);
    for (uint32_t i = 1; i < t->n; i++)
        pthread_join(t->threads[i], NULL);
    by_free(t->places);
    by_free(t);
}
