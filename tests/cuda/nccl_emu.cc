/* NCCL on the emulator: ranks are processes of one host and meet in shared memory (tp_local.c), for tp_nccl.c as it is. A group's
 * id is the path of a memfd, into which rank 0 writes where the group is; until then the others are told to ask again.
 *
 *     enqueue ─▶ the stream's turn ─▶ tp_sum, tp_gather: waits for the other ranks' turns; a rank that is gone: never ends
 *
 * What one rank records all must record: of graphs and calls by themselves nothing comes, as if a rank were gone.
 * Windows: every rank must have registered as many bytes, and sums in them must begin equally far from their start. */
#include "common/base/err.h"
#include "common/base/str.h"
#include "tests/cuda/port_emu.h"

extern "C" {
#include "gpu_worker/tp.h"
}

#include <fcntl.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

enum { DEADLINE_MS = 30000 };

struct ncclComm {
    struct tp *tp;
    int rank, world, fd; /* of the id */
    const char *window;
    size_t window_bytes;
};

static int own_fd = -1; /* of the last id that was made here */

static void try_join(struct ncclComm *c) {
    char at[TP_ADDRESS_MAX] = "";
    struct by_err err;
    ssize_t n = pread(c->fd, at, sizeof at - 1, 0);
    if (n <= 0 ||
        tp_join(&c->tp, by_str_of(at), (uint32_t)c->rank, (uint32_t)c->world, DEADLINE_MS, &err))
        c->tp = NULL;
}

/* Do all ranks call in one way? */
static bool is_of_one_mind(struct ncclComm *c, bool is_recorded) {
    float own = is_recorded;
    std::vector<float> all((size_t)c->world);
    if (tp_gather(c->tp, &own, 1, all.data())) return false;
    for (float other : all)
        if (other != own) return false;
    return true;
}

static bool sum(struct ncclComm *c, const float *from, float *to, size_t n) {
    if (c->window && (const char *)to >= c->window &&
        (const char *)to < c->window + c->window_bytes) {
        float at = (float)((const char *)to - c->window);
        std::vector<float> all((size_t)c->world);
        if (tp_gather(c->tp, &at, 1, all.data())) return false;
        for (float other : all)
            if (other != at) return false;
    }
    if (from != to) memcpy(to, from, n * sizeof *to);
    return tp_sum(c->tp, to, n) == 0;
}

static bool least(struct ncclComm *c, const int64_t *from, int64_t *to, size_t n) {
    std::vector<int64_t> all((size_t)c->world * n);
    if (tp_gather(c->tp, (const float *)from, 2 * n, (float *)all.data())) return false;
    for (size_t i = 0; i < n; i++) {
        to[i] = all[i];
        for (size_t k = 1; k < (size_t)c->world; k++)
            if (all[k * n + i] < to[i]) to[i] = all[k * n + i];
    }
    return true;
}

extern "C" {
ncclResult_t ncclGetVersion(int *version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    memset(id, 0, sizeof *id);
    if (own_fd >= 0) close(own_fd);
    own_fd = memfd_create("emulated NCCL", MFD_CLOEXEC);
    snprintf(id->internal, sizeof id->internal, "/proc/%d/fd/%d", (int)getpid(), own_fd);
    return own_fd < 0 ? ncclSystemError : ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int world, ncclUniqueId id, int rank,
                                    ncclConfig_t *) {
    struct by_err err;
    struct ncclComm *c =
        new ncclComm{NULL, rank, world, open(id.internal, O_RDWR | O_CLOEXEC), NULL, 0};
    *out = c;
    if (c->fd < 0) return ncclSystemError;
    if (rank) return ncclInProgress;
    if (tp_open(&c->tp, (uint32_t)world, DEADLINE_MS, &err)) return ncclSystemError;
    const char *at = tp_address(c->tp);
    return pwrite(c->fd, at, strlen(at), 0) > 0 ? ncclSuccess : ncclSystemError;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state) {
    if (!c->tp) try_join(c);
    *state = c->tp ? ncclSuccess : ncclInProgress;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t c) {
    tp_close(c->tp);
    if (c->fd >= 0) close(c->fd);
    delete c;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t r) {
    return r == ncclSystemError ? "system error" : "another error";
}

const char *ncclGetLastError(ncclComm_t) {
    return "";
}

ncclResult_t ncclMemAlloc(void **p, size_t n) {
    *p = aligned_alloc(4096, (n + 4095) / 4096 * 4096);
    if (*p) memset(*p, 0xff, n);
    return *p ? ncclSuccess : ncclSystemError;
}

ncclResult_t ncclMemFree(void *p) {
    free(p);
    return ncclSuccess;
}

ncclResult_t ncclCommWindowRegister(ncclComm_t c, void *p, size_t n, ncclWindow_t *out, int) {
    float bytes = (float)n;
    std::vector<float> all((size_t)c->world);
    *out = NULL;
    if (tp_gather(c->tp, &bytes, 1, all.data())) return ncclSystemError;
    for (float other : all)
        if (other != bytes) return ncclInvalidArgument;
    c->window = (const char *)p, c->window_bytes = n;
    *out = (ncclWindow_t)c;
    return ncclSuccess;
}

ncclResult_t ncclCommWindowDeregister(ncclComm_t c, ncclWindow_t) {
    c->window = nullptr;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t t, ncclRedOp_t op,
                           ncclComm_t c, cudaStream_t stream) {
    bool is_recorded = emu_is_recording(stream);
    if (t == ncclInt64 && op == ncclMin)
        emu_later(stream, [=] { return least(c, (const int64_t *)from, (int64_t *)to, n); });
    else if (t == ncclFloat32 && op == ncclSum)
        emu_later(stream, [=] {
            return is_of_one_mind(c, is_recorded) && sum(c, (const float *)from, (float *)to, n);
        });
    else
        return ncclInvalidArgument;
    return ncclSuccess;
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t n, ncclDataType_t t, ncclComm_t c,
                           cudaStream_t stream) {
    if (t != ncclFloat32) return ncclInvalidArgument;
    bool is_recorded = emu_is_recording(stream);
    emu_later(stream, [=] {
        return is_of_one_mind(c, is_recorded) &&
               tp_gather(c->tp, (const float *)from, n, (float *)to) == 0;
    });
    return ncclSuccess;
}
}
