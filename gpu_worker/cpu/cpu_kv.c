/* The KV cache: its layout, rotation tables, and the op that writes keys and values into pages. */
#include "common/base/check.h"
#include "common/base/mem.h"
#include "gpu_worker/cpu/cpu.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

static const uint8_t kv_bytes[] = {[KV_F32] = 4, [KV_BF16] = 2, [KV_F16] = 2, [KV_INT8] = 1};

struct cpu_kv_layout cpu_kv_layout(const struct kv_shape *s) {
    by_assert(s->dtype < BY_COUNTOF(kv_bytes)); /* has_fp8_kv is false */
    struct cpu_kv_layout y = {.v_pad = BY_ALIGN_UP(s->v_dim, 16u),
                              .n_groups = s->page_size / CPU_GROUP};
    uint32_t each = kv_bytes[s->dtype], n_kinds = s->v_in_k ? 1 : 2;
    /* Values that are keys are read in whole vectors of columns. */
    uint32_t k_rows = s->v_in_k ? BY_MAX(s->k_dim, y.v_pad) : s->k_dim;
    y.v_at = BY_ALIGN_UP(k_rows * CPU_GROUP * each, (uint32_t)CPU_ALIGN);
    y.scale_at =
        y.v_at + (s->v_in_k ? 0 : BY_ALIGN_UP(y.v_pad * CPU_GROUP * each, (uint32_t)CPU_ALIGN));
    y.group_bytes = y.scale_at + (s->dtype == KV_INT8 ? n_kinds * CPU_GROUP * sizeof(float) : 0);
    y.head_bytes = y.group_bytes * y.n_groups;
    y.page_bytes = y.head_bytes * s->n_kv_heads;
    return y;
}

size_t cpu_kv_page_bytes(const struct backend *b, const struct kv_shape *s) {
    (void)b;
    return cpu_kv_layout(s).page_bytes;
}

void *cpu_kv_new(struct backend *b, const struct kv_shape *s, uint32_t n_pages) {
    by_assert(s->page_size > 0 && s->page_size % CPU_GROUP == 0);
    by_assert(!s->v_in_k || s->v_dim <= s->k_dim);
    size_t each = cpu_kv_layout(s).page_bytes;
    if (each != 0 && n_pages > SIZE_MAX / each) return NULL;
    if (!cpu_reserve_attention(cpu_of(b), s->k_dim, s->v_dim)) return NULL;
    return cpu_alloc(cpu_of(b), each * n_pages, CPU_MEM_KV);
}

void cpu_kv_free(struct backend *b, void *pool) {
    cpu_free(cpu_of(b), pool);
}

/* ---- rotation: rows are made when a position is first met, so that a long context costs memory only when used ---- */

enum { ROPE_STEP = 256 };

struct rope_table {
    struct cpu *cpu;
    uint32_t n_half, n_positions;
    float mscale;
    float *cos, *sin; /* [n_positions, n_half] */
    float *inv_freq;  /* [n_half] */
    _Atomic uint32_t n_made;
    pthread_mutex_t lock;
};

struct rope_table *cpu_rope_new(struct backend *b, const struct rope_source *src) {
    struct cpu *c = cpu_of(b);
    struct rope_table *t = by_alloc(sizeof *t);
    *t = (struct rope_table){
        .cpu = c, .n_half = src->n_rot / 2, .n_positions = src->n_positions, .mscale = src->mscale};
    pthread_mutex_init(&t->lock, NULL);
    size_t n = (size_t)t->n_half * t->n_positions * sizeof(float);
    t->cos = cpu_alloc(c, n, CPU_MEM_OTHER);
    t->sin = cpu_alloc(c, n, CPU_MEM_OTHER);
    t->inv_freq = cpu_alloc(c, t->n_half * sizeof(float), CPU_MEM_OTHER);
    if (!t->cos || !t->sin || !t->inv_freq) {
        cpu_rope_free(b, t);
        return NULL;
    }
    if (t->n_half) memcpy(t->inv_freq, src->inv_freq, t->n_half * sizeof(float));
    return t;
}

void cpu_rope_free(struct backend *b, struct rope_table *t) {
    if (!t) return;
    cpu_free(cpu_of(b), t->cos);
    cpu_free(cpu_of(b), t->sin);
    cpu_free(cpu_of(b), t->inv_freq);
    pthread_mutex_destroy(&t->lock);
    by_free(t);
}

/* The angle is an f32 product, as torch has it; its cosine is exact but for the last rounding. */
static void rope_make(struct rope_table *t, uint32_t end) {
    pthread_mutex_lock(&t->lock);
    uint32_t made = atomic_load(&t->n_made);
    end = BY_MIN(BY_ALIGN_UP(end, (uint32_t)ROPE_STEP), t->n_positions);
    for (uint32_t p = made; p < end; p++) {
        for (uint32_t i = 0; i < t->n_half; i++) {
            double angle = (float)p * t->inv_freq[i];
            t->cos[(size_t)p * t->n_half + i] = (float)cos(angle) * t->mscale;
            t->sin[(size_t)p * t->n_half + i] = (float)sin(angle) * t->mscale;
        }
    }
    if (end > made) atomic_store_explicit(&t->n_made, end, memory_order_release);
    pthread_mutex_unlock(&t->lock);
}

/* ---- writing ---- */

static float largest(const float *x, uint32_t n) {
    uint32_t top = 0; /* of bit patterns: a NaN counts as largest */
    for (uint32_t i = 0; i < n; i++)
        top = BY_MAX(top, by_f32_bits(x[i]) & 0x7fffffffu);
    return by_bits_f32(top);
}

/* n values, each `step` elements further on. */
static void put_values(enum kv_dtype t, uint8_t *at, size_t step, const float *x, uint32_t n,
                       float inverse) {
    for (uint32_t i = 0; i < n; i++) {
        switch (t) {
        case KV_F32:
            ((float *)at)[i * step] = x[i];
            break;
        case KV_BF16:
            ((uint16_t *)at)[i * step] = by_f32_to_bf16(x[i]);
            break;
        case KV_F16:
            ((uint16_t *)at)[i * step] = by_f32_to_f16(x[i]);
            break;
        default:
            ((int8_t *)at)[i * step] = (int8_t)(int32_t)rintf(x[i] * inverse);
        }
    }
}

/* 1 / scale of n values; the scale goes to *scale. */
static float put_scale(const float *x, uint32_t n, float *scale) {
    float top = largest(x, n);
    bool is_zero = top <= 0x1p-100f;
    *scale = is_zero ? 0 : top / 127;
    return is_zero ? 0 : 127 / top;
}

static void put_token(const struct op_kv_write *o, const struct cpu_kv_layout *y,
                      const struct seq_rows *s, uint32_t row) {
    const struct kv_shape *kv = &o->kv;
    uint32_t position = s->position + (row - s->first);
    uint32_t in_page = position % kv->page_size, slot = in_page % CPU_GROUP;
    const float *x = o->x + (size_t)row * o->ld;
    uint8_t *group = (uint8_t *)o->pool + s->pages[position / kv->page_size] * y->page_bytes +
                     in_page / CPU_GROUP * y->group_bytes;
    size_t each = kv_bytes[kv->dtype];
    for (uint32_t h = 0; h < kv->n_kv_heads; h++, group += y->head_bytes) {
        const float *k = x + o->k_col + h * kv->k_dim, *v = x + o->v_col + h * kv->v_dim;
        float *scales = (float *)(group + y->scale_at) + slot, inverse = 0;
        if (kv->dtype == KV_INT8) inverse = put_scale(k, kv->k_dim, scales);
        put_values(kv->dtype, group + slot * each, CPU_GROUP, k, kv->k_dim, inverse);
        if (kv->v_in_k) continue;
        if (kv->dtype == KV_INT8) inverse = put_scale(v, kv->v_dim, scales + CPU_GROUP);
        put_values(kv->dtype, group + y->v_at + (size_t)slot * y->v_pad * each, 1, v, kv->v_dim,
                   inverse);
    }
}

static void norm_heads(struct lane *l, const struct norm *n, float *x, uint32_t n_heads,
                       uint32_t dim, bool is_whole) {
    if (!n) return;
    if (is_whole) {
        l->cpu->k->norm(n, x, n_heads * dim, x, false, 1);
        return;
    }
    for (uint32_t h = 0; h < n_heads; h++)
        l->cpu->k->norm(n, x + h * dim, dim, x + h * dim, false, 1);
}

static void turn_heads(struct lane *l, const struct op_kv_write *o, float *q, float *k,
                       uint32_t p) {
    struct rope_table *t = (struct rope_table *)o->rope; /* grows behind its lock */
    by_assert(p < t->n_positions);
    if (p >= atomic_load_explicit(&t->n_made, memory_order_acquire)) rope_make(t, p + 1);
    const float *c = t->cos + (size_t)p * t->n_half, *sn = t->sin + (size_t)p * t->n_half;
    for (uint32_t h = 0; h < o->n_heads; h++)
        l->cpu->k->rotate(q + h * o->q_dim + o->q_rot_col, c, sn, 2 * t->n_half, o->is_interleaved);
    for (uint32_t h = 0; h < o->kv.n_kv_heads; h++)
        l->cpu->k->rotate(k + h * o->kv.k_dim + o->k_rot_col, c, sn, 2 * t->n_half,
                          o->is_interleaved);
}

static void write_row(struct lane *l, const struct op_kv_write *o, const struct cpu_kv_layout *y,
                      const struct seq_rows *s, uint32_t row) {
    float *x = o->x + (size_t)row * o->ld, *q = x + o->q_col, *k = x + o->k_col;
    const uint32_t p = o->positions[row];
    if (o->rope && o->norm_is_last) turn_heads(l, o, q, k, p);
    norm_heads(l, o->q_norm, q, o->n_heads, o->q_dim, o->qk_whole);
    norm_heads(l, o->k_norm, k, o->kv.n_kv_heads, o->kv.k_dim, o->qk_whole);
    if (o->rope && !o->norm_is_last) turn_heads(l, o, q, k, p);
    if (o->q_growth.every && p >= o->q_growth.every)
        l->cpu->k->scale(q, o->n_heads * o->q_dim,
                         1 + o->q_growth.beta * logf((float)(1 + p / o->q_growth.every)));
    put_token(o, y, s, row);
}

void cpu_kv_write(struct lane *l, const struct op_kv_write *o) {
    struct cpu_kv_layout y = cpu_kv_layout(&o->kv);
    struct cpu_share share = cpu_share(l, o->n);
    uint32_t s = 0;
    for (uint32_t i = cpu_share_next(&share); i != UINT32_MAX; i = cpu_share_next(&share)) {
        uint32_t row = o->first + i;
        while (row >= o->seqs[s].first + o->seqs[s].n) {
            s++;
            by_assert(s < o->n_seqs);
        }
        write_row(l, o, &y, &o->seqs[s], row);
    }
    cpu_meet(l);
}
