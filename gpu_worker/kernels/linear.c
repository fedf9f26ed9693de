/* The CPU backend's packed products for callers that have tensors instead of rows of f32. */
#include "common/base/mem.h"
#include "gpu_worker/cpu/cpu_backend.h"
#include "gpu_worker/kernels/kernels.h"

#include <string.h>

struct banyan_team {
    struct backend *backend;
    float *room; /* [room_cap]: rows of x, then of y, of bf16 callers as f32 */
    size_t room_cap;
};

struct banyan_linear {
    struct banyan_team *team;
    struct weight *weight;
    uint32_t n_out, n_in;
    int32_t dtype;
};

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

static void give_row(const void *ctx, uint32_t out, void *bytes) {
    const struct banyan_matrix *m = ctx;
    size_t size = m->dtype == BANYAN_F32 ? 4 : 2;
    const char *from = (const char *)m->w + (int64_t)out * m->out_stride * (int64_t)size;
    if (m->in_stride == 1) {
        memcpy(bytes, from, m->n_in * size);
        return;
    }
    for (uint32_t k = 0; k < m->n_in; k++)
        memcpy((char *)bytes + k * size, from + k * m->in_stride * (int64_t)size, size);
}

struct banyan_linear *banyan_linear_new(struct banyan_team *t, const struct banyan_matrix *m) {
    struct by_err err;
    struct weight_source src = {.n_out = m->n_out,
                                .n_in = m->n_in,
                                .dtype = m->dtype == BANYAN_F32 ? BY_DTYPE_F32 : BY_DTYPE_BF16,
                                .row = give_row,
                                .ctx = m,
                                .bias = m->bias};
    struct weight *weight;
    if (m->dtype != BANYAN_F32 && m->dtype != BANYAN_BF16) return NULL;
    if (t->backend->weight_new(t->backend, &weight, &src, &err)) return NULL;
    struct banyan_linear *l = by_alloc(sizeof *l);
    *l = (struct banyan_linear){t, weight, m->n_out, m->n_in, m->dtype};
    return l;
}

void banyan_linear_free(struct banyan_linear *l) {
    if (!l) return;
    l->team->backend->weight_free(l->team->backend, l->weight);
    by_free(l);
}

/* ---- a call ---- */

struct product {
    struct backend *backend;
    struct op_linear op;
};

static void multiply(struct lane *lane, void *ctx) {
    struct product *p = ctx;
    p->backend->linear(lane, &p->op);
}

static void widen(const uint16_t *from, float *to, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(to + i, &bits, sizeof bits);
    }
}

static void narrow(const float *from, uint16_t *to, size_t n) {
    for (size_t i = 0; i < n; i++)
        to[i] = by_f32_to_bf16(from[i]);
}

static bool make_room(struct banyan_team *t, size_t n) {
    if (n <= t->room_cap) return true;
    by_free(t->room);
    t->room = by_try_alloc_aligned(64, n * sizeof *t->room);
    t->room_cap = t->room ? n : 0;
    return t->room != NULL;
}

int banyan_linear_run(struct banyan_linear *l, const void *x, void *y, uint32_t n_rows) {
    size_t n_x = (size_t)n_rows * l->n_in, n_y = (size_t)n_rows * l->n_out;
    size_t y_at = BY_ALIGN_UP(n_x, (size_t)16);
    bool is_short = l->dtype == BANYAN_BF16;
    if (!n_rows) return 0;
    if (is_short && !make_room(l->team, y_at + n_y)) return -1;
    float *room = l->team->room;
    struct product p = {.backend = l->team->backend,
                        .op = {.w = l->weight,
                               .x = is_short ? room : x,
                               .x_ld = l->n_in,
                               .y = is_short ? room + y_at : y,
                               .y_ld = l->n_out,
                               .scale = 1,
                               .n = n_rows}};
    if (is_short) widen(x, room, n_x);
    p.backend->run(p.backend, multiply, &p);
    if (is_short) narrow(room + y_at, y, n_y);
    return 0;
}
