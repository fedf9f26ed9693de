#include "gpu_worker/cuda/cuda_group.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <nccl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    ENQUEUE_MS = 10000,
    POLL_NS = 200000,
    ABORT_SECONDS = 10,
    /* so long without sleeping: each sum of a prompt waits for a thread that enqueues it */
    SPIN_NS = 2000000,
    ID_WORDS = (NCCL_UNIQUE_ID_BYTES + 2) / 3 * 4,
    UUID_WORDS = 32,
};

struct cuda_group {
    ncclComm_t comm;
#if NCCL_VERSION_CODE >= 22700
    /* NULL: none. A thread of NCCL's writes it, after the call that asks for it */
    ncclWindow_t window;
#endif
};

/* Of NCCL 2.27 and later: a library at run time that has them not leaves them NULL. */
#if NCCL_VERSION_CODE >= 22700
#pragma weak ncclMemAlloc
#pragma weak ncclMemFree
#pragma weak ncclCommWindowRegister
#pragma weak ncclCommWindowDeregister
static bool has_windows(void) {
    return ncclMemAlloc && ncclMemFree && ncclCommWindowRegister && ncclCommWindowDeregister;
}

static ncclResult_t register_window(struct cuda_group *g, void *p, size_t n) {
    return ncclCommWindowRegister(g->comm, p, n, &g->window, NCCL_WIN_COLL_SYMMETRIC);
}

static bool has_window(const struct cuda_group *g) {
    return g->window;
}

static void end_window(struct cuda_group *g) {
    if (g->window) (void)ncclCommWindowDeregister(g->comm, g->window);
    g->window = NULL;
}
#else
static bool has_windows(void) {
    return false;
}

static bool has_window(const struct cuda_group *g) {
    (void)g;
    return false;
}

static ncclResult_t register_window(struct cuda_group *g, void *p, size_t n) {
    (void)g;
    (void)p;
    (void)n;
    return ncclInvalidUsage;
}

static void end_window(struct cuda_group *g) {
    (void)g;
}
#endif

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";

static void encode(const ncclUniqueId *id, char *out) {
    const uint8_t *p = (const uint8_t *)id;
    for (uint32_t i = 0; i < NCCL_UNIQUE_ID_BYTES; i += 3) {
        uint32_t v = 0;
        for (uint32_t k = 0; k < 3; k++)
            v = v << 8 | (i + k < NCCL_UNIQUE_ID_BYTES ? p[i + k] : 0);
        for (int k = 3; k >= 0; k--)
            *out++ = letters[v >> (6 * k) & 63];
    }
    *out = '\0';
}

/* The text came over the wire. */
static bool decode(const char *text, ncclUniqueId *id) {
    uint8_t *p = (uint8_t *)id;
    if (strlen(text) != ID_WORDS) return false;
    for (uint32_t i = 0; i < ID_WORDS; i += 4) {
        uint32_t v = 0;
        for (uint32_t k = 0; k < 4; k++) {
            const char *at = strchr(letters, text[i + k]);
            if (!at) return false;
            v = v << 6 | (uint32_t)(at - letters);
        }
        for (uint32_t k = 0; k < 3 && i / 4 * 3 + k < NCCL_UNIQUE_ID_BYTES; k++)
            p[i / 4 * 3 + k] = (uint8_t)(v >> (8 * (2 - k)));
    }
    return true;
}

/* In hexadecimal. */
static void device_name(const struct cuda *c, char out[UUID_WORDS + 1]) {
    for (size_t i = 0; i < sizeof c->device.uuid; i++)
        snprintf(out + 2 * i, 3, "%02x", c->device.uuid[i]);
}

static int fail(struct by_err *err, ncclResult_t r, const char *what) {
    const char *more = ncclGetLastError(NULL);
    bool says_more = more && *more;
    return by_fail(err, BY_EUNAVAILABLE, "NCCL: %s: %s%s%.200s (NCCL_DEBUG=WARN says more)", what,
                   ncclGetErrorString(r), says_more ? ": " : "", says_more ? more : "");
}

/* Before NCCL's first call; what the operator has set stays. No service of its own beside ours, and no exchange of buffers while a
 * graph is recorded: another rank may not record at that time. Ranks of one device are of one mind only if each seems to be a
 * host of its own: NCCL asks no more then. */
static void set_library(const struct cuda *c) {
    char host[32];
    setenv("NCCL_RAS_ENABLE", "0", 0);
    setenv("NCCL_GRAPH_REGISTER", "0", 0);
    if (!c->options.shares_device) return;
    snprintf(host, sizeof host, "banyan-%ld", (long)getpid());
    setenv("NCCL_HOSTID", host, 0);
    setenv("NCCL_SOCKET_IFNAME", "lo", 0);
    setenv("NCCL_NET", "Socket", 0);
}

int cuda_group_new(struct backend *b, char *address, size_t cap, struct by_err *err) {
    ncclUniqueId id;
    char text[ID_WORDS + 1], uuid[UUID_WORDS + 1];
    int version = 0;
    set_library(cuda_of(b));
    device_name(cuda_of(b), uuid);
    ncclResult_t r = ncclGetVersion(&version);
    if (r == ncclSuccess) r = ncclGetUniqueId(&id);
    if (r != ncclSuccess) return fail(err, r, "making a group's id");
    encode(&id, text);
    int n = snprintf(address, cap, "nccl:%d:%s:%s", version, uuid, text);
    if (n < 0 || (size_t)n >= cap)
        return by_fail(err, BY_EINTERNAL, "a group's id has %d letters", n);
    return 0;
}

/* Until the communicator has an answer: never a call that may hang for a rank that does not come. */
static ncclResult_t settle(ncclComm_t comm, uint32_t deadline_ms) {
    uint64_t from = by_now_ns(), waited = 0;
    ncclResult_t state = ncclInProgress;
    while (state == ncclInProgress && waited < (uint64_t)deadline_ms * 1000000) {
        ncclResult_t r = ncclCommGetAsyncError(comm, &state);
        if (r != ncclSuccess) return r;
        if (state == ncclInProgress && waited > SPIN_NS)
            nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        else if (state == ncclInProgress)
            sched_yield();
        waited = by_now_ns() - from;
    }
    return state;
}

/* Can this rank join the group of that address? Told before anything waits. */
static int check_group(const struct cuda *c, const char *address, uint32_t rank, uint32_t world,
                       ncclUniqueId *id, struct by_err *err) {
    char own[UUID_WORDS + 1], first[UUID_WORDS + 1];
    int theirs = 0, ours = 0, at = 0;
    bool is_read = sscanf(address, "nccl:%d:%32[0-9a-f]:%n", &theirs, first, &at) == 2 && at > 0 &&
                   decode(address + at, id);
    if (!is_read)
        return by_fail(err, BY_EFORMAT, "rank %u of %u: the group's address is none of NCCL's",
                       rank, world);
    ncclResult_t r = ncclGetVersion(&ours);
    if (r != ncclSuccess) return fail(err, r, "its version");
    if (ours != theirs)
        return by_fail(err, BY_EUNAVAILABLE,
                       "rank %u has NCCL %d, rank 0 has %d: install one version on all hosts", rank,
                       ours, theirs);
    device_name(c, own);
    if (rank && strcmp(own, first) == 0 && !c->options.shares_device)
        return by_fail(err, BY_EINVAL,
                       "rank %u has the device of rank 0 (%s): give each rank one of its own "
                       "(--device, CUDA_VISIBLE_DEVICES), or a smaller --tp-size",
                       rank, c->device.name);
    return 0;
}

/* ---- memory that ranks read of each other ---- */

void *cuda_group_alloc(struct cuda *c, size_t bytes) {
    void *p = NULL;
    if (c->options.shares_device || !bytes || !has_windows()) return NULL;
    ncclResult_t r = ncclMemAlloc(&p, bytes);
    if (r == ncclSuccess && port_zero(c->port, p, bytes) == 0) {
        c->sums = p;
        c->sums_bytes = bytes;
        c->n_bytes[CUDA_MEM_OTHER] += bytes;
        return p;
    }
    if (r == ncclSuccess) ncclMemFree(p);
    by_info("NCCL has no memory that ranks could share (%s): sums take its plain way",
            ncclGetErrorString(r));
    return NULL;
}

void cuda_group_free(struct cuda *c) {
    bool is_idle = queue_wait(c->queue, c->options.deadline_ms) == 0;
    /* graphs hold sums in the window; what comes to lie at its address must not meet them */
    queue_forget(c->queue);
    if (is_idle && c->group) end_window(c->group); /* else it ended with its communicator */
    if (is_idle) ncclMemFree(c->sums);
    c->n_bytes[CUDA_MEM_OTHER] -= c->sums_bytes;
    c->sums = NULL;
    c->sums_bytes = 0;
}

/* The group's first call, which shows too that it can make one: do all ranks have as much memory to share? */
static ncclResult_t compare(struct cuda *c, struct cuda_group *g, bool *are_equal) {
    const int64_t mine[2] = {(int64_t)c->sums_bytes, -(int64_t)c->sums_bytes};
    int64_t least[2];
    const float *host = NULL;
    void *there = cuda_alloc(c, sizeof mine, CUDA_MEM_OTHER);
    ncclResult_t r = ncclUnhandledCudaError;
    if (there && !port_load(c->port, there, mine, sizeof mine))
        r = ncclAllReduce(there, there, 2, ncclInt64, ncclMin, g->comm, port_stream(c->port));
    if (r == ncclInProgress) r = settle(g->comm, ENQUEUE_MS);
    if (r == ncclSuccess) host = cuda_get(c, there, sizeof mine / (sizeof(float)), 0);
    if (host) memcpy(least, host, sizeof least);
    *are_equal = host && least[0] == -least[1];
    cuda_free(c, there);
    return r == ncclSuccess && !host ? ncclUnhandledCudaError : r;
}

/* All ranks register, or none: one that did it alone would wait for the others. */
static ncclResult_t share_sums(struct cuda *c, struct cuda_group *g) {
    bool are_equal = false;
    ncclResult_t r = compare(c, g, &are_equal);
    if (r != ncclSuccess || !are_equal || !c->sums) return r;
    r = register_window(g, c->sums, c->sums_bytes);
    return r == ncclInProgress ? settle(g->comm, c->options.deadline_ms) : r;
}

/* Frees what a device may hold that waits for a rank which is gone. Where that takes too long the system ends the process, and a new
 * one comes (DESIGN D5). */
static void end_comm(ncclComm_t comm) {
    alarm(ABORT_SECONDS);
    ncclCommAbort(comm);
    alarm(0);
}

int cuda_group_join(struct backend *b, const char *address, uint32_t rank, uint32_t world,
                    struct by_err *err) {
    struct cuda *c = cuda_of(b);
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    set_library(c);
    int rc = check_group(c, address, rank, world, &id, err);
    if (rc) return rc;
    struct cuda_group *g = by_alloc(sizeof *g);
    config.blocking = 0;
    ncclResult_t r = ncclCommInitRankConfig(&g->comm, (int)world, id, (int)rank, &config);
    if (r == ncclSuccess || r == ncclInProgress) r = settle(g->comm, c->options.deadline_ms);
    bool has_met = r == ncclSuccess;
    if (has_met) r = share_sums(c, g);
    if (r == ncclSuccess) {
        c->group = g;
        if (rank == 0 && has_window(g))
            by_info("NCCL: small sums of %u ranks in memory that all can read", world);
        return 0;
    }
    rc = r == ncclInProgress
             ? by_fail(err, BY_EUNAVAILABLE, "rank %u of %u: not all ranks have joined within %g s",
                       rank, world, c->options.deadline_ms / 1e3)
             : fail(err, r, has_met ? "the group's first sum" : "joining the group");
    if (g->comm) end_comm(g->comm);
    by_free(g);
    return rc;
}

void cuda_group_leave(struct backend *b) {
    struct cuda *c = cuda_of(b);
    if (!c->group) return;
    queue_forget(c->queue); /* graphs hold its sums: they go first, or its end hangs */
    /* Peers may be gone: nothing waits for them, and windows end with the communicator. */
    end_comm(c->group->comm);
    by_free(c->group);
    c->group = NULL;
}

struct call {
    const float *from;
    float *to;
    size_t n;
};

/* Once the library has handed its work to the stream. */
static int settled(struct cuda *c, ncclResult_t r, const char *what) {
    if (r == ncclInProgress) r = settle(c->group->comm, ENQUEUE_MS);
    if (r == ncclSuccess) return 0;
    return port_fail(c->port, "NCCL: a %s over the ranks: %s", what, ncclGetErrorString(r));
}

static int enqueue_sum(void *ctx, const void *args) {
    struct cuda *c = ctx;
    struct call s;
    memcpy(&s, args, sizeof s);
    return settled(c,
                   ncclAllReduce(s.from, s.to, s.n, ncclFloat32, ncclSum, c->group->comm,
                                 port_stream(c->port)),
                   "sum");
}

static int enqueue_gather(void *ctx, const void *args) {
    struct cuda *c = ctx;
    struct call s;
    memcpy(&s, args, sizeof s);
    return settled(
        c, ncclAllGather(s.from, s.to, s.n, ncclFloat32, c->group->comm, port_stream(c->port)),
        "gather");
}

void cuda_group_sum(struct cuda *c, float *x, size_t n) {
    struct call s = {x, x, n};
    queue_meet(c->queue, enqueue_sum, c, &s, sizeof s);
}

void cuda_group_gather(struct cuda *c, const float *x, size_t n, float *all) {
    struct call s = {x, all, n};
    queue_meet(c->queue, enqueue_gather, c, &s, sizeof s);
}
