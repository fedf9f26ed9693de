/* A decoder layer in one call: what the Llama family does between two additions to the residual, by the native engine's ops. */
#include "gpu_worker/cpu/cpu.h"
#include "gpu_worker/cpu/slot_attention.h"
#include "gpu_worker/kernels/linear.h"

#include <string.h>

enum { DIM_MAX = 1024 }; /* as slot_attention.c */

/* One call: the layer, and f32 rows for what goes through it. */
struct pass {
    const struct banyan_layer *l;
    struct backend *backend;
    struct banyan_attention attention; /* of q, k, v in qkv */
    struct norm attention_norm, mlp_norm, q_norm, k_norm;
    float *x;    /* [n_rows, width], the residual: in, and out */
    float *qkv;  /* [n_rows, n_qkv] */
    float *seen; /* [n_rows, n_q_heads * v_dim] */
    float *up;   /* [n_rows, up's n_out] */
    uint32_t n_rows, n_tasks;
    bool is_short; /* cos and sin are bf16 */
};

static struct norm norm_of(const struct banyan_norm *n) {
    return (struct norm){.kind = NORM_RMS, .eps = n->eps, .w = n->w};
}

/* x[i], x[i + n_rot / 2] by the two angles, as rows.c does it. */
static void turn_head(float *x, const float *cos, const float *sin, int n_rot) {
    int half = n_rot / 2;
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] + -b * sin[i];
        x[i + half] = b * cos[i + half] + a * sin[i + half];
    }
}

/* A row of cos or sin as f32. */
static const float *angles(const struct pass *p, const void *from, uint32_t row, float *room) {
    size_t n = (size_t)p->l->n_rot;
    if (!p->is_short) return (const float *)from + row * n;
    linear_widen((const uint16_t *)from + row * n, room, n);
    return room;
}

/* Norm and rotation of the heads of a row's q and k; then k and v go into their slot. */
static void finish_row(struct lane *lane, const struct pass *p, uint32_t row) {
    float cos_room[DIM_MAX], sin_room[DIM_MAX];
    const struct banyan_attention *a = &p->attention;
    int n_rot = p->l->n_rot, n_heads = a->n_q_heads + a->n_kv_heads;
    const float *cos = NULL, *sin = NULL;
    float *x = p->qkv + (size_t)row * (size_t)a->q_row_stride;
    if (n_rot) {
        cos = angles(p, p->l->cos, row, cos_room);
        sin = angles(p, p->l->sin, row, sin_room);
    }
    for (int h = 0; h < n_heads; h++, x += a->k_dim) {
        const struct norm *norm = h < a->n_q_heads ? &p->q_norm : &p->k_norm;
        if (norm->w) lane->cpu->k->norm(norm, x, (uint32_t)a->k_dim, x, false, 1);
        if (n_rot) turn_head(x, cos, sin, n_rot);
    }
    slot_attention_write(a, (int)row);
}

static uint32_t next_task(void *ctx) {
    return cpu_share_next(ctx);
}

static void multiply(struct lane *lane, struct backend *b, const struct banyan_linear *w,
                     const float *x, const struct norm *norm, float *y, uint32_t n_rows,
                     bool is_add) {
    struct op_linear op = linear_op(w, x, y, n_rows);
    op.norm = norm;
    op.is_add = is_add;
    b->linear(lane, &op);
}

static void run_lane(struct lane *lane, void *ctx) {
    const struct pass *p = ctx;
    const struct banyan_layer *l = p->l;
    multiply(lane, p->backend, l->qkv, p->x, &p->attention_norm, p->qkv, p->n_rows, false);
    struct cpu_share rows = cpu_share(lane, p->n_rows);
    for (uint32_t r = cpu_share_next(&rows); r != UINT32_MAX; r = cpu_share_next(&rows))
        finish_row(lane, p, r);
    cpu_meet(lane);
    struct cpu_share tasks = cpu_share(lane, p->n_tasks);
    slot_attention_tasks(&p->attention, p->n_tasks, next_task, &tasks);
    cpu_meet(lane);
    multiply(lane, p->backend, l->o, p->seen, NULL, p->x, p->n_rows, true);
    multiply(lane, p->backend, l->up, p->x, &p->mlp_norm, p->up, p->n_rows, false);
    multiply(lane, p->backend, l->down, p->up, NULL, p->x, p->n_rows, true);
}

static bool is_sane(const struct banyan_layer *l, uint32_t n_rows) {
    const struct banyan_attention *a = &l->attention;
    const struct banyan_linear *each[] = {l->qkv, l->o, l->up, l->down};
    const struct banyan_norm *norms[] = {&l->q_norm, &l->k_norm};
    uint32_t width = l->qkv->n_in;
    for (int i = 0; i < 4; i++)
        if (each[i]->team != l->qkv->team || each[i]->dtype != l->qkv->dtype) return false;
    if (l->o->n_out != width || l->up->n_in != width || l->down->n_out != width ||
        l->up->n_out != l->down->n_in)
        return false;
    if (l->attention_norm.width != width || l->mlp_norm.width != width) return false;
    if (a->n_q_heads < 1 || a->n_kv_heads < 1 || a->k_dim < 1 || a->k_dim > DIM_MAX ||
        a->v_dim < 1 || a->v_dim > DIM_MAX)
        return false;
    for (int i = 0; i < 2; i++)
        if (norms[i]->w && norms[i]->width != (uint32_t)a->k_dim) return false;
    if (l->n_rot < 0 || l->n_rot > a->k_dim || l->n_rot % 2) return false;
    uint64_t n_qk = (uint64_t)(a->n_q_heads + a->n_kv_heads) * (uint64_t)a->k_dim;
    if (l->qkv->n_out != n_qk + (uint64_t)a->n_kv_heads * (uint64_t)a->v_dim) return false;
    if (l->o->n_in != (uint64_t)a->n_q_heads * (uint64_t)a->v_dim) return false;
    return a->rows->n_seqs > 0 && a->rows->q_start[a->rows->n_seqs] == (int32_t)n_rows;
}

/* The attention over columns of qkv. */
static void point_at(struct pass *p) {
    struct banyan_attention *a = &p->attention;
    int32_t n_q = a->n_q_heads * a->k_dim, n_k = a->n_kv_heads * a->k_dim;
    *a = p->l->attention;
    a->q = p->qkv;
    a->k = p->qkv + n_q;
    a->v = p->qkv + n_q + n_k;
    a->out = p->seen;
    a->q_row_stride = a->k_row_stride = a->v_row_stride = p->l->qkv->n_out;
    a->q_head_stride = a->k_head_stride = a->k_dim;
    a->v_head_stride = a->v_dim;
    a->dtype = BANYAN_F32;
}

int banyan_layer_run(const struct banyan_layer *l, const void *x, void *y, uint32_t n_rows) {
    struct banyan_team *t = l->qkv->team;
    if (!n_rows) return 0;
    if (!is_sane(l, n_rows)) return -1;
    struct pass p = {.l = l, .backend = t->backend, .n_rows = n_rows};
    p.is_short = l->qkv->dtype == BANYAN_BF16;
    size_t n_x = (size_t)n_rows * l->qkv->n_in;
    size_t qkv_at = p.is_short ? BY_ALIGN_UP(n_x, (size_t)16) : 0;
    size_t seen_at = qkv_at + BY_ALIGN_UP((size_t)n_rows * l->qkv->n_out, (size_t)16);
    size_t up_at = seen_at + BY_ALIGN_UP((size_t)n_rows * l->o->n_in, (size_t)16);
    if (!linear_make_room(t, up_at + (size_t)n_rows * l->up->n_out)) return -1;
    p.x = p.is_short ? t->room : y;
    p.qkv = t->room + qkv_at;
    p.seen = t->room + seen_at;
    p.up = t->room + up_at;
    p.attention = l->attention;
    point_at(&p);
    int64_t n_tasks = slot_attention_count(&p.attention);
    if (n_tasks < 0) return -1;
    p.n_tasks = (uint32_t)n_tasks;
    p.attention_norm = norm_of(&l->attention_norm);
    p.mlp_norm = norm_of(&l->mlp_norm);
    p.q_norm = norm_of(&l->q_norm);
    p.k_norm = norm_of(&l->k_norm);
    if (p.is_short)
        linear_widen(x, p.x, n_x);
    else
        memcpy(p.x, x, n_x * sizeof *p.x);
    t->backend->run(t->backend, run_lane, &p);
    if (p.is_short) linear_narrow(p.x, y, n_x);
    return 0;
}
