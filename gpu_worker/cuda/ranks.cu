/* What the ranks of a group make together: sums of parts, and logits of which each rank has some columns. Through NCCL
 * (cuda_group.h), or where the build has none through the host, in the middle of a run: what was given so far is handed over
 * and waited for, then the run goes on.
 *
 *     own [n][own_ld] ─NCCL, or the host─▶ parts [world][n][own_ld] ─place─▶ all [n][all_ld]       as many rows as parts holds
 *
 * Slow twin: gather_logits of decoder.c. */
#include "gpu_worker/cuda/cuda_group.h"
#include "gpu_worker/cuda/device.cuh"

#include <string.h>

enum { THREADS = 256 };

#if defined(BANYAN_NCCL)
static bool sum_there(struct cuda *c, float *x, size_t n) {
    if (c->group) cuda_group_sum(c, x, n);
    return c->group;
}

static bool gather_there(struct cuda *c, const float *x, size_t n, float *all) {
    if (c->group) cuda_group_gather(c, x, n, all);
    return c->group;
}
#else
static bool sum_there(struct cuda *, float *, size_t) {
    return false;
}

static bool gather_there(struct cuda *, const float *, size_t, float *) {
    return false;
}
#endif

extern "C" int cuda_sum(struct lane *l, float *x, size_t n,
                        int (*on_host)(void *ctx, float *x, size_t n), void *ctx) {
    struct cuda *c = l->cuda;
    if (sum_there(c, x, n)) return 0;
    if (queue_end(c->queue)) return BY_EUNAVAILABLE;
    float *host = cuda_get(c, x, n, 0);
    if (!host) return BY_EUNAVAILABLE;
    int rc = on_host(ctx, host, n);
    if (!rc && port_to_device(c->port, x, host, n * sizeof *x)) rc = BY_EUNAVAILABLE;
    queue_begin(c->queue);
    return rc;
}

struct place_args {
    const float *parts;
    float *all;
    uint32_t own_ld, all_ld, n;
    uint32_t starts[CUDA_RANKS_MAX + 1];
};

/* A block: some columns of one rank's part of a row. */
static __global__ void __launch_bounds__(THREADS) place_kernel(const struct place_args a) {
    begin();
    uint32_t k = blockIdx.z, i = blockIdx.x * THREADS + threadIdx.x, at = a.starts[k] + i;
    if (at >= a.starts[k + 1]) return;
    a.all[(size_t)blockIdx.y * a.all_ld + at] =
        a.parts[((size_t)k * a.n + blockIdx.y) * a.own_ld + i];
}

extern "C" int cuda_gather(struct lane *l, const struct op_gather *o,
                           int (*on_host)(void *ctx, const float *x, size_t n, float *all),
                           void *ctx) {
    struct cuda *c = l->cuda;
    const size_t row_bytes = (size_t)o->world * o->own_ld * sizeof(float);
    const uint32_t each = (uint32_t)BY_MIN(c->part_bytes / row_bytes, (size_t)o->n);
    if (o->world > CUDA_RANKS_MAX || (o->n && !each)) return BY_EINTERNAL;
    for (uint32_t from = 0, n; from < o->n; from += n) {
        n = BY_MIN(each, o->n - from);
        const float *own = o->own + (size_t)from * o->own_ld;
        const size_t n_own = (size_t)n * o->own_ld;
        if (!gather_there(c, own, n_own, c->parts)) {
            if (queue_end(c->queue)) return BY_EUNAVAILABLE;
            float *host = cuda_get(c, own, n_own, o->world * n_own);
            int rc = host ? on_host(ctx, host, n_own, host + n_own) : BY_EUNAVAILABLE;
            if (!rc && port_to_device(c->port, c->parts, host + n_own, n * row_bytes))
                rc = BY_EUNAVAILABLE;
            queue_begin(c->queue);
            if (rc) return rc;
        }
        struct place_args a;
        memset(&a, 0, sizeof a);
        a.parts = c->parts, a.all = o->all + (size_t)from * o->all_ld;
        a.own_ld = o->own_ld, a.all_ld = o->all_ld, a.n = n;
        memcpy(a.starts, o->starts, (o->world + 1) * sizeof *a.starts);
        LAUNCH(c, place_kernel, a, GRID(BY_DIV_UP(o->own_ld, (uint32_t)THREADS), n, o->world),
               THREADS, 0);
    }
    return 0;
}
