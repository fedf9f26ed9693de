/* The table of backend.h for a CPU, its memory and its lanes. */
#include "common/base/mem.h"
#include "gpu_worker/cpu/cpu.h"
#include "gpu_worker/cpu/cpu_features.h"
#include "gpu_worker/cpu/cpu_numa.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum {
    HUGE_BYTES = 2 << 20,
    SLAB_BYTES = 16 << 20,
    SLOTS_MIN = 1 << 16, /* floats */
};

/* ---- memory: huge pages, which kernels that stream through weights need (SPEED.md) ---- */

/* Lies 64 bytes before what alloc gives. */
struct head {
    size_t bytes; /* of all, this included */
    struct slab *slab;
    enum cpu_purpose what;
};
static_assert(sizeof(struct head) <= CPU_ALIGN, "fits before the memory");

/* A mapping, whole huge pages. Small allocations share one, big ones have their own; it goes when the last is freed. */
struct slab {
    void *base;
    size_t mapped;
    uint8_t *at; /* where the next allocation goes */
    size_t left;
    uint32_t n_live;
};

static struct slab *slab_new(const struct cpu *c, size_t bytes) {
    if (bytes > SIZE_MAX - 2 * (size_t)HUGE_BYTES) return NULL;
    struct slab s = {.left = BY_ALIGN_UP(bytes, (size_t)HUGE_BYTES)};
    s.mapped = s.left + HUGE_BYTES;
    s.base = mmap(NULL, s.mapped, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s.base == MAP_FAILED) return NULL;
    s.at = (uint8_t *)BY_ALIGN_UP((uintptr_t)s.base, (uintptr_t)HUGE_BYTES);
    madvise(s.at, s.left, MADV_HUGEPAGE);
    if (c->nodes & (c->nodes - 1)) cpu_numa_spread(s.at, s.left, c->nodes); /* more than one */
    return by_memdup(&s, sizeof s);
}

static void slab_free(struct slab *s) {
    if (!s) return;
    munmap(s->base, s->mapped);
    by_free(s);
}

/* The slab that has room for so many bytes. One with nothing in it any more starts anew elsewhere. */
static struct slab *slab_for(struct cpu *c, size_t bytes, enum cpu_purpose what) {
    if (bytes >= SLAB_BYTES / 4) return slab_new(c, bytes);
    struct slab *s = c->slabs[what];
    if (s && s->left >= bytes) return s;
    if (s && s->n_live == 0) slab_free(s);
    c->slabs[what] = slab_new(c, SLAB_BYTES);
    return c->slabs[what];
}

void *cpu_alloc(struct cpu *c, size_t bytes, enum cpu_purpose what) {
    if (bytes > SIZE_MAX / 2) return NULL;
    struct head h = {.bytes = BY_ALIGN_UP(bytes, (size_t)CPU_ALIGN) + CPU_ALIGN, .what = what};
    h.slab = slab_for(c, h.bytes, what);
    if (!h.slab) return NULL;
    uint8_t *p = h.slab->at;
    h.slab->at += h.bytes;
    h.slab->left -= h.bytes;
    h.slab->n_live++;
    memcpy(p, &h, sizeof h);
    c->n_bytes[what] += h.bytes;
    return p + CPU_ALIGN;
}

void cpu_free(struct cpu *c, void *p) {
    if (!p) return;
    struct head h;
    memcpy(&h, (uint8_t *)p - CPU_ALIGN, sizeof h);
    c->n_bytes[h.what] -= h.bytes;
    h.slab->n_live--;
    if (h.slab->n_live == 0 && h.slab != c->slabs[h.what]) slab_free(h.slab);
}

static void *backend_alloc(struct backend *b, size_t bytes) {
    return cpu_alloc(cpu_of(b), bytes, CPU_MEM_OTHER);
}

static void backend_free(struct backend *b, void *p) {
    cpu_free(cpu_of(b), p);
}

static const float *backend_put(struct backend *b, const float *host, size_t n) {
    if (n > SIZE_MAX / sizeof *host) return NULL;
    float *p = cpu_alloc(cpu_of(b), n * sizeof *host, CPU_MEM_OTHER);
    if (p && n) memcpy(p, host, n * sizeof *host);
    return p;
}

static void backend_memory(const struct backend *b, struct backend_memory *out) {
    const struct cpu *c = (const struct cpu *)b;
    *out = (struct backend_memory){.weights = c->n_bytes[CPU_MEM_WEIGHTS],
                                   .kv = c->n_bytes[CPU_MEM_KV],
                                   .other = c->n_bytes[CPU_MEM_OTHER]};
}

/* ---- scratch ---- */

/* In place of *p, which nobody reads any more. */
static bool renew(struct cpu *c, void *p, size_t bytes) {
    void *old, *room = cpu_alloc(c, bytes, CPU_MEM_OTHER);
    if (!room) return false;
    memcpy(&old, p, sizeof old);
    cpu_free(c, old);
    memcpy(p, &room, sizeof room);
    return true;
}

bool cpu_reserve_row(struct cpu *c, uint32_t n_in, size_t act_bytes) {
    uint32_t row = BY_MAX(c->row_cap, n_in);
    act_bytes *= 2; /* every row may be a fine one */
    size_t solo = BY_MIN(act_bytes * CPU_SOLO_ROWS, (size_t)CPU_SOLO_BYTES);
    size_t act = BY_MAX(c->act_cap, BY_MAX(solo, act_bytes * CPU_TILE_MAX));
    size_t shared = c->b.n_lanes > 1 ? BY_MAX(c->shared_cap, act_bytes * CPU_BLOCK_ROWS) : 0;
    bool has_all = shared <= c->shared_cap || renew(c, &c->shared, shared);
    for (uint32_t i = 0; i < c->b.n_lanes && has_all; i++) {
        struct lane *l = &c->lanes[i];
        if (row > c->row_cap) has_all = renew(c, &l->row, row * sizeof(float));
        if (has_all && act > c->act_cap) has_all = renew(c, &l->act, act);
    }
    if (!has_all) return false;
    c->row_cap = row;
    c->act_cap = act;
    c->shared_cap = shared;
    return true;
}

bool cpu_reserve_attention(struct cpu *c, uint32_t k_dim, uint32_t v_dim) {
    uint32_t k = BY_MAX(c->k_cap, k_dim), v = BY_MAX(c->v_cap, BY_ALIGN_UP(v_dim, 16u));
    if (k > INT32_MAX / 64 || v > INT32_MAX / 64) return false;
    for (uint32_t i = 0; i < c->b.n_lanes; i++) {
        struct lane *l = &c->lanes[i];
        if (k > c->k_cap && !renew(c, &l->query, (size_t)k * CPU_TILE_MAX * sizeof(float)))
            return false;
        if (v == c->v_cap) continue;
        if (!renew(c, &l->acc, (size_t)v * CPU_TILE_MAX * sizeof(float))) return false;
        if (!renew(c, &l->span_acc, (size_t)v * CPU_TILE_MAX * sizeof(float))) return false;
    }
    /* a slot at most; tiles have one each, and as many spans */
    size_t each = (size_t)CPU_TILE_MAX * (v + 2);
    size_t slots = BY_MAX((size_t)SLOTS_MIN, 2 * CPU_FEW_TILES * c->b.n_lanes * each);
    if (c->b.n_lanes > 1 && slots > c->slots_cap) {
        if (!renew(c, &c->slots, slots * sizeof(float))) return false;
        c->slots_cap = slots;
    }
    c->k_cap = k;
    c->v_cap = v;
    return true;
}

static bool lanes_new(struct cpu *c) {
    c->lanes = cpu_alloc(c, c->b.n_lanes * sizeof *c->lanes, CPU_MEM_OTHER);
    for (uint32_t i = 0; c->lanes && i < c->b.n_lanes; i++) {
        struct lane *l = &c->lanes[i];
        l->cpu = c;
        l->id = i;
        l->sums = cpu_alloc(c, CPU_TILE_MAX * 2 * CPU_STRIP * sizeof(float), CPU_MEM_OTHER);
        l->fine = cpu_alloc(c, CPU_BLOCK_ROWS * 2 * CPU_STRIP * sizeof(float), CPU_MEM_OTHER);
        l->scores = cpu_alloc(c, 2 * CPU_TILE_MAX * CPU_KEYS * sizeof(float), CPU_MEM_OTHER);
        if (!l->sums || !l->fine || !l->scores) return false;
    }
    return c->lanes;
}

static void lanes_free(struct cpu *c) {
    for (uint32_t i = 0; c->lanes && i < c->b.n_lanes; i++) {
        struct lane *l = &c->lanes[i];
        void *all[] = {l->row, l->act, l->sums, l->fine, l->query, l->acc, l->span_acc, l->scores};
        for (size_t k = 0; k < BY_COUNTOF(all); k++)
            cpu_free(c, all[k]);
    }
    cpu_free(c, c->lanes);
    cpu_free(c, c->shared);
    cpu_free(c, c->slots);
}

/* ---- lanes ---- */

struct run {
    struct cpu *cpu;
    void (*fn)(struct lane *l, void *ctx);
    void *ctx;
};

static void run_lane(void *ctx, uint32_t id) {
    struct run *r = ctx;
    r->fn(&r->cpu->lanes[id], r->ctx);
}

static void backend_run(struct backend *b, void (*fn)(struct lane *l, void *ctx), void *ctx) {
    struct run r = {cpu_of(b), fn, ctx};
    cpu_team_run(r.cpu->team, run_lane, &r);
}

static uint32_t lane_id(const struct lane *l) {
    return l->id;
}

static void lane_solo(struct lane *l, bool on) {
    l->is_solo = on;
}

static uint32_t lane_next(struct lane *l, uint32_t n) {
    return cpu_team_next(l->cpu->team, l->id, n);
}

static void lane_barrier(struct lane *l) {
    cpu_team_meet(l->cpu->team, l->id);
}

/* ---- the table ---- */

static const struct backend table = {
    .alloc = backend_alloc,
    .free = backend_free,
    .put = backend_put,
    .weight_new = cpu_weight_new,
    .weight_free = cpu_weight_free,
    .rope_new = cpu_rope_new,
    .rope_free = cpu_rope_free,
    .kv_page_bytes = cpu_kv_page_bytes,
    .kv_new = cpu_kv_new,
    .kv_free = cpu_kv_free,
    .run = backend_run,
    .lane_id = lane_id,
    .lane_solo = lane_solo,
    .lane_next = lane_next,
    .barrier = lane_barrier,
    .embed = cpu_embed,
    .linear = cpu_linear,
    .linear_heads = cpu_linear_heads,
    .norm = cpu_norm,
    .kv_write = cpu_kv_write,
    .attention = cpu_attention,
    .route = cpu_route,
    .experts = cpu_experts,
    .gate = cpu_gate,
    .conv = cpu_conv,
    .delta = cpu_delta,
    .ssm = cpu_ssm,
    .copy = cpu_copy,
    .memory = backend_memory,
};

static void cpu_close(struct backend *b) {
    if (!b) return;
    struct cpu *c = cpu_of(b);
    cpu_team_free(c->team);
    lanes_free(c);
    for (size_t i = 0; i < BY_COUNTOF(c->slabs); i++)
        slab_free(c->slabs[i]);
    by_free(c);
}

#if defined(__x86_64__)
static const struct cpu_kernels *kernels_of(enum cpu_isa isa) {
    return isa == CPU_ISA_AVX512 ? &cpu_kernels_avx512
           : isa == CPU_ISA_AVX2 ? &cpu_kernels_avx2
                                 : &cpu_kernels_portable;
}

static void add_bf16(struct cpu *c) {
    c->linear[CPU_BF16X2] = cpu_linear_avx512_bf16;
    c->fill[CPU_ACT_BF16] = cpu_fill_avx512_bf16;
}
#else
static const struct cpu_kernels *kernels_of(enum cpu_isa isa) {
    (void)isa;
    return &cpu_kernels_portable;
}

static void add_bf16(struct cpu *c) {
    (void)c;
}
#endif

static void choose_kernels(struct cpu *c, enum cpu_isa isa) {
    const struct cpu_options *o = &c->options;
    c->k = kernels_of(isa);
    memcpy(c->linear, c->k->linear, sizeof c->linear);
    memcpy(c->fill, c->k->fill, sizeof c->fill);
    bool is_exact = o->exact_activations || o->exact_bf16;
    bool has_bf16 = isa == CPU_ISA_AVX512 && cpu_features_has_bf16() && !is_exact;
    if (has_bf16) add_bf16(c);
    snprintf(c->name, sizeof c->name, "cpu %s%s, %u thread%s", c->k->name, has_bf16 ? "-bf16" : "",
             c->b.n_lanes, c->b.n_lanes == 1 ? "" : "s");
    c->b.name = c->name;
}

int cpu_backend_new(struct backend **out, const struct cpu_options *o, struct by_err *err) {
    struct cpu *c = by_alloc(sizeof *c);
    c->b = table;
    c->b.close = cpu_close;
    c->options = *o;
    c->nodes = cpu_numa_nodes();
    c->b.n_lanes = o->n_threads ? o->n_threads : cpu_features_n_cores();
    choose_kernels(c, BY_MIN(o->isa, cpu_isa_best()));
    int rc = cpu_team_new(&c->team, c->b.n_lanes, err);
    if (rc == 0 && !lanes_new(c))
        rc = by_fail(err, BY_ENOMEM, "no memory for %u threads", c->b.n_lanes);
    if (rc) {
        cpu_close(&c->b);
        return rc;
    }
    *out = &c->b;
    return 0;
}
