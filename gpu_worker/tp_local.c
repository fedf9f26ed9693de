/* tp_local.c - ranks on one host, in shared memory.
 *
 *     | head: world, is_ended | rank 0: seq, waiters, pid | rank 1 … |     then, a rank: two slots of SLOT_BYTES
 *
 *     call k:  copy to my slot[k & 1] ─▶ seq = k + 1 (wake who waits) ─▶ wait for every seq >= k + 1 ─▶ read all slots
 *
 * Two slots are enough: a rank that is at call k + 2 has seen all others finish call k + 1, so nobody reads slot k any more.
 * The segment is a memfd that rank 0 holds: no name, nothing to clean up, gone with the last rank however it dies. */
#include "gpu_worker/tp.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#else
#define RELAX() ((void)0)
#endif

enum {
    MAGIC = 0x42595450,
    SLOT_BYTES = 1 << 20,
    SPINS = 400, /* about 20 us; longer spinning takes the CPU that the silent rank may need */
    SLICE_NS = 50000000,
};

struct rank {
    _Alignas(64) _Atomic uint32_t seq;
    _Atomic uint32_t n_waiters;
    _Atomic int32_t pid; /* 0: has not joined yet */
};

struct head {
    uint32_t magic, world;
    _Atomic uint32_t is_ended;
    struct rank ranks[TP_RANKS_MAX];
};

struct tp {
    struct head *head;
    uint8_t *slots; /* [world][2][SLOT_BYTES] */
    size_t n_bytes;
    uint32_t rank, world, n_calls, deadline_ms;
    int fd; /* rank 0 keeps it for the others to open */
    char address[TP_ADDRESS_MAX];
};

static size_t head_bytes(void) {
    return BY_ALIGN_UP(sizeof(struct head), (size_t)4096);
}

static size_t segment_bytes(uint32_t world) {
    return head_bytes() + (size_t)world * 2 * SLOT_BYTES;
}

static int attach(struct tp *tp, int fd, struct by_err *err) {
    tp->n_bytes = segment_bytes(tp->world);
    void *p = mmap(NULL, tp->n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return by_fail(err, BY_ENOMEM, "shared memory of %zu bytes for %u ranks: %s", tp->n_bytes,
                       tp->world, strerror(errno));
    tp->head = p;
    tp->slots = (uint8_t *)p + head_bytes();
    return 0;
}

static struct tp *tp_new(uint32_t rank, uint32_t world, uint32_t deadline_ms) {
    struct tp *tp = by_alloc(sizeof *tp);
    *tp = (struct tp){.rank = rank, .world = world, .deadline_ms = deadline_ms, .fd = -1};
    return tp;
}

int tp_open(struct tp **out, uint32_t world, uint32_t deadline_ms, struct by_err *err) {
    if (world < 2 || world > TP_RANKS_MAX)
        return by_fail(err, BY_EINVAL, "a group of %u ranks; 2 to %d can be one", world,
                       (int)TP_RANKS_MAX);
    struct tp *tp = tp_new(0, world, deadline_ms);
    int rc = 0;
    tp->fd = memfd_create("banyan-tp", MFD_CLOEXEC);
    if (tp->fd < 0 || ftruncate(tp->fd, (off_t)segment_bytes(world)))
        rc = by_fail(err, BY_EIO, "memfd_create: %s", strerror(errno));
    if (!rc) rc = attach(tp, tp->fd, err);
    if (rc) {
        tp_close(tp);
        return rc;
    }
    tp->head->world = world;
    tp->head->magic = MAGIC;
    atomic_store(&tp->head->ranks[0].pid, (int32_t)getpid());
    snprintf(tp->address, sizeof tp->address, "/proc/%d/fd/%d", (int)getpid(), tp->fd);
    *out = tp;
    return 0;
}

/* Only "/proc/<pid>/fd/<n>" is ever opened, whatever the wire brought. */
static bool is_address(const char *text) {
    int pid, fd, n = 0;
    return sscanf(text, "/proc/%9d/fd/%9d%n", &pid, &fd, &n) == 2 && text[n] == '\0' && pid > 0 &&
           fd >= 0;
}

int tp_join(struct tp **out, struct by_str address, uint32_t rank, uint32_t world,
            uint32_t deadline_ms, struct by_err *err) {
    char path[TP_ADDRESS_MAX];
    struct stat st;
    snprintf(path, sizeof path, BY_STR_FMT, (int)BY_MIN(address.n, sizeof path - 1), address.p);
    if (!is_address(path) || rank < 1 || rank >= world || world > TP_RANKS_MAX)
        return by_fail(err, BY_EINVAL, "rank %u of %u cannot join a group at '%s'", rank, world,
                       path);
    struct tp *tp = tp_new(rank, world, deadline_ms);
    int rc = 0, fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        rc = by_fail(err, BY_EUNAVAILABLE, "%s, where rank 0 is: %s", path, strerror(errno));
    else if (fstat(fd, &st) || (uint64_t)st.st_size != segment_bytes(world))
        rc = by_fail(err, BY_EINVAL, "%s is no segment of %u ranks", path, world);
    if (!rc) rc = attach(tp, fd, err);
    if (fd >= 0) close(fd);
    if (!rc && (tp->head->magic != MAGIC || tp->head->world != world))
        rc = by_fail(err, BY_EINVAL, "%s is no group of %u ranks", path, world);
    if (rc) {
        tp_close(tp);
        return rc;
    }
    atomic_store(&tp->head->ranks[rank].pid, (int32_t)getpid());
    *out = tp;
    return 0;
}

static void wake(struct rank *r) {
    syscall(SYS_futex, &r->seq, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void tp_close(struct tp *tp) {
    if (!tp) return;
    if (tp->head) {
        atomic_store(&tp->head->is_ended, 1);
        for (uint32_t i = 0; i < tp->world; i++)
            wake(&tp->head->ranks[i]);
        munmap(tp->head, tp->n_bytes);
    }
    if (tp->fd >= 0) close(tp->fd);
    by_free(tp);
}

const char *tp_address(const struct tp *tp) {
    return tp->address;
}

uint32_t tp_rank(const struct tp *tp) {
    return tp->rank;
}

uint32_t tp_world(const struct tp *tp) {
    return tp->world;
}

/* ---- a call ---- */

static bool has_come(const struct rank *r, uint32_t seq) {
    return (int32_t)(atomic_load_explicit(&r->seq, memory_order_acquire) - seq) >= 0;
}

static bool is_dead(const struct rank *r) {
    int32_t pid = atomic_load(&r->pid);
    return pid && kill(pid, 0) != 0 && errno == ESRCH;
}

static int await(struct tp *tp, struct rank *r, uint32_t seq) {
    for (int i = 0; i < SPINS; i++) {
        if (has_come(r, seq)) return 0;
        RELAX();
    }
    uint64_t end = by_now_ns() + tp->deadline_ms * BY_NS_PER_MS;
    int rc = 0;
    atomic_fetch_add(&r->n_waiters, 1);
    while (!rc && !has_come(r, seq)) {
        struct timespec slice = {.tv_nsec = SLICE_NS};
        uint32_t seen = atomic_load(&r->seq);
        if ((int32_t)(seen - seq) >= 0) break;
        if (atomic_load(&tp->head->is_ended)) {
            rc = BY_EUNAVAILABLE;
            break;
        }
        syscall(SYS_futex, &r->seq, FUTEX_WAIT, seen, &slice, NULL, 0);
        if (is_dead(r) || by_now_ns() > end) rc = BY_EUNAVAILABLE;
    }
    atomic_fetch_sub(&r->n_waiters, 1);
    return rc && !has_come(r, seq) ? rc : 0;
}

static float *slot_of(const struct tp *tp, uint32_t rank, uint32_t call) {
    return (float *)(void *)(tp->slots + ((size_t)rank * 2 + (call & 1)) * SLOT_BYTES);
}

/* Shows n numbers to the others, and waits until all show theirs. *call tells slot_of. */
static int exchange(struct tp *tp, const float *x, size_t n, uint32_t *call) {
    struct rank *me = &tp->head->ranks[tp->rank];
    *call = tp->n_calls++;
    memcpy(slot_of(tp, tp->rank, *call), x, n * sizeof *x);
    atomic_store(&me->seq, *call + 1);
    if (atomic_load(&me->n_waiters)) wake(me);
    for (uint32_t i = 0; i < tp->world; i++) {
        int rc = i == tp->rank ? 0 : await(tp, &tp->head->ranks[i], *call + 1);
        if (!rc) continue;
        atomic_store(&tp->head->is_ended, 1);
        return rc;
    }
    return 0;
}

enum { PIECE = SLOT_BYTES / sizeof(float) };

int tp_sum(struct tp *tp, float *x, size_t n) {
    for (size_t at = 0; at < n; at += PIECE) {
        size_t m = BY_MIN((size_t)PIECE, n - at);
        uint32_t call;
        int rc = exchange(tp, x + at, m, &call);
        if (rc) return rc;
        memcpy(x + at, slot_of(tp, 0, call), m * sizeof *x);
        for (uint32_t r = 1; r < tp->world; r++) {
            const float *from = slot_of(tp, r, call);
            for (size_t i = 0; i < m; i++)
                x[at + i] += from[i];
        }
    }
    return 0;
}

int tp_gather(struct tp *tp, const float *x, size_t n, float *all) {
    for (size_t at = 0; at < n; at += PIECE) {
        size_t m = BY_MIN((size_t)PIECE, n - at);
        uint32_t call;
        int rc = exchange(tp, x + at, m, &call);
        if (rc) return rc;
        for (uint32_t r = 0; r < tp->world; r++)
            memcpy(all + r * n + at, slot_of(tp, r, call), m * sizeof *x);
    }
    return 0;
}
