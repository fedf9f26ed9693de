/* The table of backend.h for a CUDA device: one lane, whose ops add commands to the queue. */
#include "common/base/file.h"
#include "common/base/mem.h"
#include "gpu_worker/cuda/cuda.h"
#include "gpu_worker/cuda/cuda_group.h"
#include "gpu_worker/cuda/cuda_module.h"
#include "gpu_worker/cuda/proven.h"

#include <stdio.h>

static void *backend_alloc(struct backend *b, size_t bytes) {
    return cuda_alloc(cuda_of(b), bytes, CUDA_MEM_OTHER);
}

#if defined(BANYAN_NCCL)
#define WITH_NCCL(member, fn) .member = fn,
static void *backend_alloc_sums(struct backend *b, size_t bytes) {
    struct cuda *c = cuda_of(b);
    void *p = c->proven & PROVEN_WINDOWS && !c->sums ? cuda_group_alloc(c, bytes) : NULL;
    return p ? p : backend_alloc(b, bytes);
}

static bool free_sums(struct cuda *c, const void *p) {
    bool is_ours = p && p == c->sums;
    if (is_ours) cuda_group_free(c);
    return is_ours;
}
#else
#define WITH_NCCL(member, fn)
static bool free_sums(struct cuda *c, const void *p) {
    (void)c;
    (void)p;
    return false;
}
#endif

static void backend_free(struct backend *b, void *p) {
    if (!free_sums(cuda_of(b), p)) cuda_free(cuda_of(b), p);
}

static const float *backend_put(struct backend *b, const float *host, size_t n) {
    struct cuda *c = cuda_of(b);
    if (n > SIZE_MAX / sizeof *host) return NULL;
    float *p = cuda_alloc(c, n * sizeof *host, CUDA_MEM_OTHER);
    if (p && port_load(c->port, p, host, n * sizeof *host)) return NULL;
    return p;
}

static void backend_memory(const struct backend *b, struct backend_memory *out) {
    const struct cuda *c = (const struct cuda *)b;
    *out = (struct backend_memory){.weights = c->n_bytes[CUDA_MEM_WEIGHTS],
                                   .kv = c->n_bytes[CUDA_MEM_KV],
                                   .other = c->n_bytes[CUDA_MEM_OTHER]};
}

static uint64_t backend_free_bytes(struct backend *b) {
    return port_free_bytes(cuda_of(b)->port);
}

/* ---- pools and rotations ---- */

static size_t kv_page_bytes(const struct backend *b, const struct kv_shape *s) {
    (void)b;
    return cuda_kv_of(s).page_bytes;
}

static void *kv_new(struct backend *b, const struct kv_shape *s, uint32_t n_pages) {
    size_t each = cuda_kv_of(s).page_bytes;
    if (n_pages > SIZE_MAX / each || !cuda_reserve(cuda_of(b), 8)) return NULL;
    return cuda_alloc(cuda_of(b), each * n_pages, CUDA_MEM_KV);
}

static void rope_free(struct backend *b, struct rope_table *t) {
    if (!t) return;
    cuda_free(cuda_of(b), t->cos);
    cuda_free(cuda_of(b), t->sin);
    by_free(t);
}

static struct rope_table *rope_new(struct backend *b, const struct rope_source *src) {
    struct cuda *c = cuda_of(b);
    struct rope_table *t = by_alloc(sizeof *t);
    *t = (struct rope_table){.n_half = src->n_rot / 2, .n_positions = src->n_positions};
    size_t n = (size_t)t->n_half * t->n_positions * sizeof(float);
    t->cos = cuda_alloc(c, n, CUDA_MEM_OTHER);
    t->sin = cuda_alloc(c, n, CUDA_MEM_OTHER);
    bool is_good = t->cos && t->sin;
    if (is_good && n) {
        queue_begin(c->queue);
        cuda_rope_fill(c, t, queue_stage(c->queue, src->inv_freq, t->n_half * sizeof(float)),
                       src->mscale);
        is_good = queue_end(c->queue) == 0;
    }
    if (is_good) return t;
    rope_free(b, t);
    return NULL;
}

/* ---- running ---- */

static void backend_run(struct backend *b, void (*fn)(struct lane *l, void *ctx), void *ctx) {
    struct cuda *c = cuda_of(b);
    if (!c->is_held) queue_begin(c->queue);
    c->lane.n_taken = 0;
    fn(&c->lane, ctx);
    /* A failure is kept, and found by the wait that follows. */
    if (!c->is_held && queue_end(c->queue)) return;
}

static void backend_hold(struct backend *b) {
    struct cuda *c = cuda_of(b);
    queue_begin(c->queue);
    c->is_held = true;
}

static uint64_t backend_go(struct backend *b, void *to, const void *from, size_t n) {
    struct cuda *c = cuda_of(b);
    c->is_held = false;
    queue_fetch(c->queue, to, from, n);
    int rc = queue_end(c->queue); /* a failure is kept, and found by reached */
    (void)rc;
    return queue_counted(c->queue).n_runs;
}

static int backend_reached(struct backend *b, uint64_t point, struct by_err *err) {
    struct cuda *c = cuda_of(b);
    int rc = queue_reached(c->queue, point, c->options.deadline_ms);
    return rc >= 0 ? rc : by_fail(err, BY_EUNAVAILABLE, "%s: %s", c->name, port_error(c->port));
}

static void *backend_host_new(struct backend *b, size_t n) {
    return port_pinned(cuda_of(b)->port, n);
}

static void backend_host_free(struct backend *b, void *p) {
    if (p) port_pinned_free(cuda_of(b)->port, p);
}

static int backend_wait(struct backend *b, struct by_err *err) {
    struct cuda *c = cuda_of(b);
    if (queue_wait(c->queue, c->options.deadline_ms) == 0) return 0;
    return by_fail(err, BY_EUNAVAILABLE, "%s: %s", c->name, port_error(c->port));
}

static float *backend_get(struct backend *b, const float *p, size_t n) {
    return cuda_get(cuda_of(b), p, n, 0);
}

static uint32_t lane_id(const struct lane *l) {
    (void)l;
    return 0;
}

static void lane_solo(struct lane *l, bool on) {
    (void)l;
    (void)on;
}

static uint32_t lane_next(struct lane *l, uint32_t n) {
    uint32_t i = l->n_taken++;
    return i < n ? i : UINT32_MAX;
}

static void lane_barrier(struct lane *l) {
    l->n_taken = 0;
}

static int open_gemm(struct cuda *c, struct by_err *err) {
    size_t bytes = gemm_workspace_bytes();
    void *room = bytes ? cuda_alloc(c, bytes, CUDA_MEM_OTHER) : NULL;
    if (bytes && !room)
        return by_fail(err, BY_ENOMEM, "%s: no memory for %zu bytes of workspace", c->name, bytes);
    char *folder = by_path_cache(), *path = by_path_join(folder, "cublaslt-choices");
    const struct gemm_place at = {
        .port = c->port, .workspace = room, .device = c->device.name, .choices = path};
    int rc = gemm_open(&c->gemm, &at, err);
    by_free(path);
    by_free(folder);
    return rc;
}

static void backend_close(struct backend *b) {
    if (!b) return;
    struct cuda *c = cuda_of(b);
    if (!c->port) {
        by_free(c);
        return;
    }
    if (c->queue && queue_wait(c->queue, c->options.deadline_ms) == 0) cuda_free_all(c);
    queue_free(c->queue);
    gemm_close(c->gemm);
    if (c->host) port_pinned_free(c->port, c->host);
    port_close(c->port);
    by_free(c);
}

static const struct backend table = {
    .n_lanes = 1,
    .is_device = true,
    .keeps_packed = true,
    .has_fp8_kv = true,
    .alloc = backend_alloc,
    .free = backend_free,
    .put = backend_put,
    .get = backend_get,
    .wait = backend_wait,
    .hold = backend_hold,
    .go = backend_go,
    .reached = backend_reached,
    .host_new = backend_host_new,
    .host_free = backend_host_free,
    .free_bytes = backend_free_bytes,
    .weight_new = cuda_weight_new,
    .weight_free = cuda_weight_free,
    .rope_new = rope_new,
    .rope_free = rope_free,
    .kv_page_bytes = kv_page_bytes,
    .kv_new = kv_new,
    .kv_free = backend_free,
    .run = backend_run,
    .lane_id = lane_id,
    .lane_solo = lane_solo,
    .lane_next = lane_next,
    .barrier = lane_barrier,
    .embed = cuda_embed,
    .linear = cuda_linear,
    .linear_heads = cuda_linear_heads,
    .norm = cuda_norm,
    .kv_write = cuda_kv_write,
    .attention = cuda_attention,
    .route = cuda_route,
    .experts = cuda_experts,
    .gate = cuda_gate,
    .conv = cuda_conv,
    .delta = cuda_delta,
    .ssm = cuda_ssm,
    .copy = cuda_copy,
    .sample = cuda_sample,
    .sum = cuda_sum,
    .gather = cuda_gather,
    WITH_NCCL(group_new, cuda_group_new) WITH_NCCL(group_join, cuda_group_join)
        WITH_NCCL(group_leave, cuda_group_leave) WITH_NCCL(alloc_sums, backend_alloc_sums)
            .memory = backend_memory,
    .close = backend_close,
};

static int backend_open(struct backend **out, const struct cuda_options *o, struct by_err *err) {
    struct cuda *c = by_alloc(sizeof *c);
    c->b = table;
    c->options = *o;
    c->lane.cuda = c;
    c->part_bytes = CUDA_PART_BYTES;
    int rc = port_open(&c->port, o->device, &c->device, err);
    if (!rc) {
        c->queue = queue_new(c->port, !o->no_graphs);
        c->proven = proven_ways(c->device.name);
        if (c->proven & PROVEN_OVERLAP) port_overlap(c->port);
        snprintf(c->name, sizeof c->name, "cuda:%u %s, sm_%u%u%s", o->device, c->device.name,
                 c->device.major, c->device.minor, o->is_deterministic ? ", deterministic" : "");
        c->b.name = c->name;
        rc = open_gemm(c, err);
    }
    if (!rc) {
        *out = &c->b;
        return 0;
    }
    backend_close(&c->b);
    return rc;
}

__attribute__((visibility("default"))) const struct cuda_module *banyan_cuda_module(void) {
    static const struct cuda_module module = {.abi = CUDA_MODULE_ABI,
                                              .backend_bytes = sizeof(struct backend),
                                              .build = BANYAN_CUDA_BUILD,
                                              .open = backend_open};
    return &module;
}
