/* The CPU backend's packed products for callers that have tensors instead of rows of f32. */
#include "gpu_worker/kernels/linear.h"

#include "common/base/mem.h"
#include "gpu_worker/cpu/cpu_backend.h"

#include <string.h>

static_assert(BANYAN_SILU == (int)ACT_SILU && BANYAN_GELU == (int)ACT_GELU &&
                  BANYAN_GELU_TANH == (int)ACT_GELU_TANH && BANYAN_RELU == (int)ACT_RELU &&
                  BANYAN_RELU2 == (int)ACT_RELU2 && BANYAN_QUICK_GELU == (int)ACT_QUICK_GELU,
              "the same numbers on both sides");

/* Loops over numbers without an order: built for each instruction set, the same bits. */
#define FOR_EACH_ISA __attribute__((target_clones("avx512f", "avx2", "default")))

struct banyan_team *banyan_team_new(uint32_t n_threads) {
    struct banyan_team *t = by_alloc(sizeof *t);
    struct by_err err;
    struct cpu_options o = {.n_threads = n_threads, .isa = cpu_isa_best()};
    *t = (struct banyan_team){0};
    if (!cpu_backend_new(&t->backend, &o, &err)) return t;
    by_free(t);
    return NULL;
}

void banyan_team_free(struct banyan_team *t) {
    if (!t) return;
    t->backend->close(t->backend);
    by_free(t->room);
    by_free(t);
}

/* The parts of one weight. */
struct parts {
    const struct banyan_matrix *m;
    uint32_t n;
};

static void give_row(const void *ctx, uint32_t out, void *bytes) {
    const struct parts *parts = ctx;
    const struct banyan_matrix *m = parts->m;
    while (out >= m->n_out)
        out -= m++->n_out;
    size_t size = m->dtype == BANYAN_F32 ? 4 : 2;
    const char *from = (const char *)m->w + (int64_t)out * m->out_stride * (int64_t)size;
    if (m->in_stride == 1) {
        memcpy(bytes, from, m->n_in * size);
        return;
    }
    for (uint32_t k = 0; k < m->n_in; k++)
        memcpy((char *)bytes + k * size, from + k * m->in_stride * (int64_t)size, size);
}

/* The sum of their n_out; 0 when they are not parts of one weight. */
static uint32_t n_out_of(const struct parts *parts, bool is_gated) {
    const struct banyan_matrix *m = parts->m;
    uint64_t n_out = 0;
    if (!parts->n || (is_gated && (parts->n != 2 || m[0].n_out != m[1].n_out))) return 0;
    if (m->dtype != BANYAN_F32 && m->dtype != BANYAN_BF16) return 0;
    for (uint32_t i = 0; i < parts->n; i++) {
        if (m[i].n_in != m->n_in || m[i].dtype != m->dtype) return 0;
        n_out += m[i].n_out;
    }
    return n_out > UINT32_MAX ? 0 : (uint32_t)n_out;
}

struct banyan_linear *banyan_linear_new(struct banyan_team *t, const struct banyan_matrix *m,
                                        uint32_t n, const float *bias, int32_t act) {
    struct by_err err;
    struct parts parts = {m, n};
    bool is_gated = act != BANYAN_NO_ACT;
    uint32_t n_out = n_out_of(&parts, is_gated);
    struct weight *weight;
    if (!n_out || act < 0 || act > BANYAN_QUICK_GELU) return NULL;
    struct weight_source src = {.n_out = n_out,
                                .n_in = m->n_in,
                                .dtype = m->dtype == BANYAN_F32 ? BY_DTYPE_F32 : BY_DTYPE_BF16,
                                .row = give_row,
                                .ctx = &parts,
                                .bias = bias,
                                .is_gated = is_gated};
    if (t->backend->weight_new(t->backend, &weight, &src, &err)) return NULL;
    struct banyan_linear *l = by_alloc(sizeof *l);
    *l = (struct banyan_linear){t,       weight,   is_gated ? n_out / 2 : n_out,
                                m->n_in, m->dtype, (enum act_kind)act};
    return l;
}

void banyan_linear_free(struct banyan_linear *l) {
    if (!l) return;
    l->team->backend->weight_free(l->team->backend, l->weight);
    by_free(l);
}

/* ---- a call ---- */

/* One product, or two one after the other. */
struct product {
    struct backend *backend;
    struct op_linear op[2];
    int n;
};

static void multiply(struct lane *lane, void *ctx) {
    struct product *p = ctx;
    for (int i = 0; i < p->n; i++)
        p->backend->linear(lane, &p->op[i]);
}

FOR_EACH_ISA void linear_widen(const uint16_t *from, float *to, size_t n) {
    for (size_t i = 0; i < n; i++)
        to[i] = by_bf16_to_f32(from[i]);
}

FOR_EACH_ISA void linear_narrow(const float *from, uint16_t *to, size_t n) {
    for (size_t i = 0; i < n; i++)
        to[i] = by_f32_to_bf16(from[i]);
}

bool linear_make_room(struct banyan_team *t, size_t n) {
    if (n <= t->room_cap) return true;
    by_free(t->room);
    t->room = by_try_alloc_aligned(64, n * sizeof *t->room);
    t->room_cap = t->room ? n : 0;
    return t->room != NULL;
}

struct op_linear linear_op(const struct banyan_linear *l, const float *x, float *y,
                           uint32_t n_rows) {
    return (struct op_linear){.w = l->weight,
                              .x = x,
                              .x_ld = l->n_in,
                              .act = l->act,
                              .y = y,
                              .y_ld = l->n_out,
                              .scale = 1,
                              .n = n_rows};
}

/* first, and then second of what came out; second may be NULL. */
static int run(struct banyan_linear *first, struct banyan_linear *second, const void *x, void *y,
               uint32_t n_rows) {
    struct banyan_team *t = first->team;
    const struct banyan_linear *last = second ? second : first;
    size_t n_x = (size_t)n_rows * first->n_in, n_between = (size_t)n_rows * first->n_out;
    size_t n_y = (size_t)n_rows * last->n_out;
    size_t between_at = BY_ALIGN_UP(n_x, (size_t)16);
    size_t y_at = between_at + (second ? BY_ALIGN_UP(n_between, (size_t)16) : 0);
    bool is_short = first->dtype == BANYAN_BF16;
    if (!n_rows) return 0;
    if ((is_short || second) && !linear_make_room(t, y_at + n_y)) return -1;
    const float *from = is_short ? t->room : x;
    float *to = is_short ? t->room + y_at : y;
    float *between = second ? t->room + between_at : to;
    struct product p = {.backend = t->backend, .n = second ? 2 : 1};
    p.op[0] = linear_op(first, from, between, n_rows);
    if (second) p.op[1] = linear_op(second, between, to, n_rows);
    if (is_short) linear_widen(x, t->room, n_x);
    p.backend->run(p.backend, multiply, &p);
    if (is_short) linear_narrow(to, y, n_y);
    return 0;
}

int banyan_linear_run(struct banyan_linear *l, const void *x, void *y, uint32_t n_rows) {
    return run(l, NULL, x, y, n_rows);
}

int banyan_mlp_run(struct banyan_linear *up, struct banyan_linear *down, const void *x, void *y,
                   uint32_t n_rows) {
    if (up->n_out != down->n_in || up->dtype != down->dtype || up->team != down->team) return -1;
    return run(up, down, x, y, n_rows);
}
