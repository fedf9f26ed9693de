/* kern_attention.h - one block of up to 64 keys for rows that share them, written once over the vectors of a vec_*.h.
 *
 *     scores[row][key] = sum over d of q[d] * k[d][key]         lanes are keys; one chain over d
 *     online softmax (Milakov and Gimelshein, 2018): max, p = exp(score - max), sum; older sums shrink
 *     acc[row][d] = acc * shrink + sum over keys of p * v[key][d]   lanes are columns; one chain over the keys
 *
 * Always: a row's bits depend neither on the rows beside it nor on how many there are. A key that no row sees is not
 * read; one that some rows do not see has weight 0 for them, which adds nothing; a block of which a row sees no key
 * leaves that row alone.
 * Owner: nobody; kern_*.c include it after kern_rows.h. Its slow twin: tests/kernels, in double precision. */
#ifndef GPU_WORKER_CPU_KERN_ATTENTION_H
#define GPU_WORKER_CPU_KERN_ATTENTION_H

#include "gpu_worker/cpu/cpu_kernels.h"
#include "gpu_worker/cpu/kern_math.h"

#include <math.h>

INLINE vf kv_at(const enum kv_dtype t, const uint8_t *base, size_t i) {
    switch (t) {
    case KV_F32:
        return v_load((const float *)base + i);
    case KV_BF16:
        return v_load_bf16((const uint16_t *)base + i);
    case KV_F16:
        return v_load_f16((const uint16_t *)base + i);
    default:
        return v_of_int(vi_load_i8((const int8_t *)base + i));
    }
}

/* Keys of n_groups neighbouring groups from group g on. */
INLINE void score_groups(const enum kv_dtype type, const int R, const int n_groups,
                         const struct cpu_keys *k, struct cpu_rows *r, uint32_t g) {
    const int nv = n_groups * VP;
    vf s[4 * CPU_TILE_MAX];
    UNROLL(48)
    for (int i = 0; i < R * nv; i++)
        s[i] = v_set1(0);
    const uint8_t *base[4];
    UNROLL(4)
    for (int i = 0; i < n_groups; i++)
        base[i] = k->group[g + (uint32_t)i];
    const float *q = r->q;
    for (uint32_t d = 0; d < k->k_dim; d++, q += R) {
        UNROLL(4)
        for (int v = 0; v < nv; v++) {
            vf key = kv_at(type, base[v / VP], (size_t)d * CPU_GROUP + (size_t)(v % VP * VN));
            UNROLL(12)
            for (int i = 0; i < R; i++)
                s[i * nv + v] = v_fma(v_set1(q[i]), key, s[i * nv + v]);
        }
    }
    UNROLL(4)
    for (int v = 0; v < nv; v++) {
        vf by = v_set1(1);
        if (type == KV_INT8) by = v_load((const float *)(base[v / VP] + k->scale_at) + v % VP * VN);
        UNROLL(12)
        for (int i = 0; i < R; i++) {
            vf x = s[i * nv + v];
            if (type == KV_INT8) x = x * by;
            v_store(r->scores + (uint32_t)i * CPU_KEYS + g * CPU_GROUP + (uint32_t)(v * VN), x);
        }
    }
}

/* Bit i: is key `at` + i among from … to - 1? */
INLINE uint32_t seen_bits(uint32_t at, uint32_t from, uint32_t to) {
    uint32_t bits = to > at ? (to - at < VN ? (1u << (to - at)) - 1 : 0xffffu) : 0;
    uint32_t not_yet = from > at ? (from - at < VN ? (1u << (from - at)) - 1 : 0xffffu) : 0;
    return bits & ~not_yet;
}

/* Scores of row i become weights; returns by how much older sums shrink. */
INLINE float weigh_row(struct cpu_rows *r, uint32_t i, uint32_t from, uint32_t to) {
    float *row = r->scores + i * CPU_KEYS;
    vf s[CPU_KEYS / VN], lowest = v_set1(-INFINITY), top[VP];
    for (int p = 0; p < VP; p++)
        top[p] = lowest;
    for (int v = 0; v < CPU_KEYS / VN; v++) {
        vf x = v_load(row + v * VN);
        if (r->softcap > 0) {
            vf cap = v_set1(r->softcap);
            x = cap * v_tanh(x / cap);
        }
        s[v] = v_pick(seen_bits((uint32_t)(v * VN), from, to), x, lowest);
        top[v % VP] = v_max(top[v % VP], s[v]);
    }
    float max = v16_max(top);
    if (max < r->max[i]) max = r->max[i];
    vf m = v_set1(max), sum[VP], zero = v_set1(0);
    float shrink[VN];
    v_store(shrink, v_exp(v_set1(r->max[i]) - m));
    for (int p = 0; p < VP; p++)
        sum[p] = zero;
    for (int v = 0; v < CPU_KEYS / VN; v++) {
        vf p = v_pick(seen_bits((uint32_t)(v * VN), from, to), v_exp(s[v] - m), zero);
        v_store(row + v * VN, p);
        sum[v % VP] += p;
    }
    r->max[i] = max;
    r->sum[i] = r->sum[i] * shrink[0] + v16_sum(sum);
    return shrink[0];
}

/* Columns c … c + nv * VN - 1 of a block's keys as values: [key][nv * VN], small enough for the first cache. */
INLINE void turn_keys(const enum kv_dtype type, const int nv, const struct cpu_keys *k, uint32_t c,
                      float *out) {
    for (uint32_t g = k->from / CPU_GROUP; g * CPU_GROUP < k->to; g++) {
        for (int p = 0; p < VP; p++) {
            for (int b = 0; b < nv; b++) {
                float *at = out + ((size_t)g * CPU_GROUP + (size_t)(p * VN)) * (size_t)(nv * VN);
                vf x[VN];
                UNROLL(16)
                for (int i = 0; i < VN; i++)
                    x[i] =
                        kv_at(type, k->group[g],
                              (size_t)(c + (uint32_t)(b * VN + i)) * CPU_GROUP + (size_t)(p * VN));
                v_turn(x);
                UNROLL(16)
                for (int i = 0; i < VN; i++)
                    v_store(at + i * nv * VN + b * VN, x[i]);
            }
        }
    }
}

/* nv vectors of columns from column c on; of values, or of what turn_keys has made of keys. */
INLINE void add_values(const enum kv_dtype type, const int R, const int nv,
                       const struct cpu_keys *k, struct cpu_rows *r, const float *p,
                       const float *shrink, uint32_t c, const float *turned) {
    vf acc[24];
    UNROLL(12)
    for (int i = 0; i < R; i++) {
        UNROLL(8)
        for (int v = 0; v < nv; v++)
            acc[i * nv + v] = v_set1(shrink[i]) *
                              v_load(r->acc + (uint32_t)i * k->v_pad + c + (uint32_t)(v * VN));
    }
    for (uint32_t key = k->from; key < k->to; key++) {
        const uint8_t *base =
            turned ? (const uint8_t *)turned : k->group[key / CPU_GROUP] + k->v_at;
        size_t at =
            turned ? (size_t)key * (size_t)(nv * VN) : (size_t)(key % CPU_GROUP) * k->v_pad + c;
        vf x[8];
        UNROLL(8)
        for (int v = 0; v < nv; v++)
            x[v] = kv_at(turned ? KV_F32 : type, base, at + (size_t)(v * VN));
        UNROLL(12)
        for (int i = 0; i < R; i++) {
            vf w = v_set1(p[(uint32_t)i * CPU_KEYS + key]);
            UNROLL(8)
            for (int v = 0; v < nv; v++)
                acc[i * nv + v] = v_fma(w, x[v], acc[i * nv + v]);
        }
    }
    UNROLL(12)
    for (int i = 0; i < R; i++) {
        UNROLL(8)
        for (int v = 0; v < nv; v++)
            v_store(r->acc + (uint32_t)i * k->v_pad + c + (uint32_t)(v * VN), acc[i * nv + v]);
    }
}

/* What an int8 value counts for, its token's scale, joins the key's weight: into a second set of rows. */
INLINE const float *scaled_weights(const int R, const struct cpu_keys *k, struct cpu_rows *r) {
    float *out = r->scores + R * CPU_KEYS;
    uint32_t scales = k->v_in_k ? 0 : CPU_GROUP;
    for (uint32_t g = k->from / CPU_GROUP; g * CPU_GROUP < k->to; g++) {
        for (int p = 0; p < VP; p++) {
            uint32_t at = g * CPU_GROUP + (uint32_t)(p * VN);
            vf by = v_load((const float *)(k->group[g] + k->scale_at) + scales + p * VN);
            for (int i = 0; i < R; i++)
                v_store(out + i * CPU_KEYS + at, v_load(r->scores + i * CPU_KEYS + at) * by);
        }
    }
    return out;
}

/* The rows' sums over values that are keys. */
INLINE void add_latents(const enum kv_dtype type, const int R, const int wide,
                        const struct cpu_keys *k, struct cpu_rows *r, const float *p,
                        const float *shrink) {
    float turned[CPU_KEYS * 8 * VN];
    uint32_t c = 0;
    for (; c + (uint32_t)(wide * VN) <= k->v_pad; c += (uint32_t)(wide * VN)) {
        turn_keys(type, wide, k, c, turned);
        add_values(type, R, wide, k, r, p, shrink, c, turned);
    }
    for (; c < k->v_pad; c += VN) {
        turn_keys(type, 1, k, c, turned);
        add_values(type, R, 1, k, r, p, shrink, c, turned);
    }
}

/* wide: vectors of columns that R rows can add to at once */
INLINE void attend_block(const enum kv_dtype type, const int R, const int n_groups, const int wide,
                         const struct cpu_keys *k, struct cpu_rows *r) {
    uint32_t g = k->from / CPU_GROUP, end = BY_DIV_UP(k->to, CPU_GROUP);
    for (; n_groups > 1 && g + (uint32_t)n_groups <= end; g += (uint32_t)n_groups)
        score_groups(type, R, n_groups, k, r, g);
    for (; g < end; g++)
        score_groups(type, R, 1, k, r, g);
    float shrink[CPU_TILE_MAX];
    for (uint32_t i = 0; i < (uint32_t)R; i++) {
        uint32_t from = BY_MAX(r->first[i], k->position) - k->position;
        uint32_t to = BY_MIN(BY_MAX(r->end[i], k->position) - k->position, CPU_KEYS);
        shrink[i] = 1;
        if (from < to)
            shrink[i] = weigh_row(r, i, from, to);
        else
            memset(r->scores + i * CPU_KEYS, 0, CPU_KEYS * sizeof *r->scores);
    }
    const float *p = type == KV_INT8 ? scaled_weights(R, k, r) : r->scores;
    if (k->v_in_k) {
        add_latents(type, R, wide, k, r, p, shrink);
        return;
    }
    uint32_t c = 0;
    for (; c + (uint32_t)(wide * VN) <= k->v_pad; c += (uint32_t)(wide * VN))
        add_values(type, R, wide, k, r, p, shrink, c, NULL);
    for (; c < k->v_pad; c += VN)
        add_values(type, R, 1, k, r, p, shrink, c, NULL);
}

/* ---- spans ---- */

static float exp_of(float x) {
    float out[VN];
    v_store(out, v_exp(v_set1(x)));
    return out[0];
}

static void merge_rows(struct cpu_rows *into, const struct cpu_rows *from, uint32_t i,
                       uint32_t v_pad) {
    float *a = into->acc + (size_t)i * v_pad;
    const float *b = from->acc + (size_t)i * v_pad;
    if (from->sum[i] == 0) return; /* saw nothing */
    if (into->sum[i] == 0) {
        memcpy(a, b, v_pad * sizeof *a);
        into->max[i] = from->max[i];
        into->sum[i] = from->sum[i];
        return;
    }
    float max = BY_MAX(into->max[i], from->max[i]);
    float wa = exp_of(into->max[i] - max), wb = exp_of(from->max[i] - max);
    for (uint32_t c = 0; c < v_pad; c += VN)
        v_store(a + c, v_fma(v_set1(wb), v_load(b + c), v_set1(wa) * v_load(a + c)));
    into->sum[i] = into->sum[i] * wa + from->sum[i] * wb;
    into->max[i] = max;
}

static void attend_finish_row(const struct cpu_rows *r, uint32_t i, uint32_t v_pad, uint32_t v_dim,
                              const float *sink, float *out) {
    float sum = r->sum[i], by = 1;
    if (sink) {
        float max = BY_MAX(r->max[i], *sink);
        by = exp_of(r->max[i] - max);
        sum = sum * by + exp_of(*sink - max);
    }
    vf inverse = v_set1(sum != 0 ? by / sum : 0);
    const float *acc = r->acc + (size_t)i * v_pad;
    for (uint32_t c = 0; c < v_dim; c += VN)
        v_store_n(out + c, v_load(acc + c) * inverse, v_dim - c);
}

#define ATTEND_ONE(type, R, n_groups, wide) \
    static __attribute__((noinline)) void attend_##type##_##R(const struct cpu_keys *k, \
                                                              struct cpu_rows *r) { \
        attend_block(type, R, n_groups, wide, k, r); \
    }

#endif
