/* kern_states.h - what layers with a state do row after row: the convolution over time, the gated delta rule, Mamba-2.
 *
 *     convolution   a vector of columns through all rows, its last inputs in registers
 *     delta rule    strips of 16 columns of S through a tile of rows: [k_dim][16] of them stay in the first cache
 *
 *         a row:  u = s * (v - d * m)      S[i] = fma(k[i], u, d * S[i])      out += q[i] * S[i]      next m += k'[i] * S[i]
 *
 * A pass over S serves two rows: it updates S for the one and reads it for the next one's m (k': the next row's keys). Mamba-2 has
 * no m: its pass updates S for both.
 * Always: a column of S sees nothing of another. Sums over i: even and odd i apart, then the two; so how many rows come at once,
 * and how many strips, changes no bit.
 * Owner: nobody; kern_*.c include it after a vec_*.h. */
#ifndef GPU_WORKER_CPU_KERN_STATES_H
#define GPU_WORKER_CPU_KERN_STATES_H

#include "common/modelfile/model_info.h"
#include "gpu_worker/cpu/kern_rows.h"

static void gate_row(float *x, const float *gate, uint32_t n) {
    for (uint32_t c = 0; c < n; c += VN)
        v_store_n(x + c, v_load_n(x + c, n - c) * v_sigmoid(v_load_n(gate + c, n - c)), n - c);
}

/* ---- the convolution ---- */

/* At most VN columns, from c on, of n left. */
INLINE void conv_columns(const struct cpu_conv *o, uint32_t c, uint32_t n, uint32_t size) {
    const vf bias = o->bias ? v_load_n(o->bias + c, n) : v_set1(0);
    vf last[BY_CONV_MAX], w[BY_CONV_MAX];
    for (uint32_t j = 0; j < size; j++)
        w[j] = v_load_n(o->w + (size_t)j * o->width + c, n);
    for (uint32_t j = 0; j + 1 < size; j++)
        last[j] = o->is_new ? v_set1(0) : v_load_n(o->window + (size_t)j * o->width + c, n);
    for (uint32_t r = 0; r < o->n_rows; r++) {
        const float *x = o->x + (size_t)r * o->ld + c;
        last[size - 1] = v_load_n(x, n);
        if (o->in_gate_col) last[size - 1] *= v_load_n(x + o->in_gate_col, n);
        vf sum = v_fma(w[0], last[0], bias);
        for (uint32_t j = 1; j < size; j++)
            sum = v_fma(w[j], last[j], sum);
        sum = v_act(o->act, sum);
        if (o->out_gate_col) sum *= v_load_n(x + o->out_gate_col, n);
        v_store_n(o->out + (size_t)r * o->out_ld + c, sum, n);
        for (uint32_t j = 0; j + 1 < size; j++)
            last[j] = last[j + 1];
    }
    for (uint32_t j = 0; j + 1 < size; j++)
        v_store_n(o->window + (size_t)j * o->width + c, last[j], n);
}

static void conv_part(const struct cpu_conv *o, uint32_t from, uint32_t to) {
    for (uint32_t c = from; c < to; c += VN) {
        if (o->size == 4) /* those of the models there are: in registers */
            conv_columns(o, c, to - c, 4);
        else if (o->size == 3)
            conv_columns(o, c, to - c, 3);
        else
            conv_columns(o, c, to - c, o->size);
    }
}

/* ---- the delta rule ---- */

enum { DELTA_ROWS = 16 }; /* of a tile: their q and k take as much room as a strip */

/* q, k of length 1, decays and strengths of a tile's rows. */
struct delta_tile {
    uint32_t n;
    float decay[DELTA_ROWS], strength[DELTA_ROWS];
    float q[DELTA_ROWS * BY_HEAD_DIM_MAX], k[DELTA_ROWS * BY_HEAD_DIM_MAX]; /* [n][k_dim] */
};

static float first_of(vf v) {
    float all[VN];
    v_store(all, v);
    return all[0];
}

static void length_one(const float *x, uint32_t n, float scale, float *y) {
    vf by = v_set1(scale / sqrtf(row_squares(x, n, 0) + 1e-6f));
    for (uint32_t c = 0; c < n; c += VN)
        v_store_n(y + c, v_load_n(x + c, n - c) * by, n - c);
}

static void delta_prepare(const struct cpu_delta *o, uint32_t first, struct delta_tile *t) {
    for (uint32_t r = 0; r < t->n; r++) {
        const float *x = o->x + (size_t)(first + r) * o->ld;
        length_one(x + o->q_col, o->k_dim, 1 / sqrtf((float)o->k_dim), t->q + r * o->k_dim);
        length_one(x + o->k_col, o->k_dim, 1, t->k + r * o->k_dim);
        vf rate = v_softplus(v_set1(x[o->a_col] + o->dt));
        t->decay[r] = first_of(v_exp(v_set1(o->decay) * rate));
        t->strength[r] = first_of(v_sigmoid(v_set1(x[o->b_col])));
    }
}

/* S at row i, strip by strip. */
#define DELTA_AT(s, strip, i, p) \
    ((s) + ((size_t)(strip)*o->k_dim + (i)) * DELTA_STRIP + (size_t)(p)*VN)

/* sums += k[i] * S[i] */
INLINE void delta_read(const struct cpu_delta *o, const float *s, uint32_t i, float k, int n_strips,
                       vf sums[][VP]) {
    for (int a = 0; a < n_strips; a++) {
        for (int p = 0; p < VP; p++)
            sums[a][p] = v_fma(v_set1(k), v_load(DELTA_AT(s, a, i, p)), sums[a][p]);
    }
}

/* S[i] updated; out += q[i] * S[i], next += k2[i] * S[i]. */
INLINE void delta_update(const struct cpu_delta *o, float *s, uint32_t i, const float by[4],
                         int n_strips, vf u[][VP], vf out[][VP], vf next[][VP]) {
    const vf k = v_set1(by[0]), decay = v_set1(by[1]), q = v_set1(by[2]), k2 = v_set1(by[3]);
    for (int a = 0; a < n_strips; a++) {
        for (int p = 0; p < VP; p++) {
            vf x = v_fma(k, u[a][p], decay * v_load(DELTA_AT(s, a, i, p)));
            v_store(DELTA_AT(s, a, i, p), x);
            out[a][p] = v_fma(q, x, out[a][p]);
            next[a][p] = v_fma(k2, x, next[a][p]);
        }
    }
}

/* Strips of S from column v_at on, through the tile's rows. */
INLINE void delta_strips(const struct cpu_delta *o, const struct delta_tile *t, uint32_t first,
                         uint32_t v_at, int n_strips) {
    enum { MOST = 2 };
    float *s = o->state + (size_t)v_at * o->k_dim;
    const uint32_t k_dim = o->k_dim, even = k_dim & ~1u;
    vf m[2][MOST][VP], out[2][MOST][VP], u[MOST][VP];
    const vf zero = v_set1(0);
    for (int a = 0; a < n_strips; a++) {
        for (int p = 0; p < VP; p++)
            m[0][a][p] = m[1][a][p] = zero;
    }
    for (uint32_t i = 0; i < even; i += 2) {
        delta_read(o, s, i, t->k[i], n_strips, m[0]);
        delta_read(o, s, i + 1, t->k[i + 1], n_strips, m[1]);
    }
    if (even < k_dim) delta_read(o, s, even, t->k[even], n_strips, m[0]);
    for (uint32_t r = 0; r < t->n; r++) {
        const float *q = t->q + r * k_dim, *k = t->k + r * k_dim,
                    *k2 = r + 1 < t->n ? k + k_dim : k;
        const float *v = o->x + (size_t)(first + r) * o->ld + o->v_col + v_at;
        float *y = o->out + (size_t)(first + r) * o->out_ld + v_at;
        const vf d = v_set1(t->decay[r]), strength = v_set1(t->strength[r]);
        for (int a = 0; a < n_strips; a++) {
            for (int p = 0; p < VP; p++) {
                uint32_t c = (uint32_t)(a * DELTA_STRIP + p * VN), n = left(o->v_dim - v_at, c, 0);
                u[a][p] = strength * (v_load_n(v + c, n) - d * (m[0][a][p] + m[1][a][p]));
                m[0][a][p] = m[1][a][p] = out[0][a][p] = out[1][a][p] = zero;
            }
        }
        for (uint32_t i = 0; i < even; i += 2) {
            const float first_by[] = {k[i], t->decay[r], q[i], k2[i]},
                        second_by[] = {k[i + 1], t->decay[r], q[i + 1], k2[i + 1]};
            delta_update(o, s, i, first_by, n_strips, u, out[0], m[0]);
            delta_update(o, s, i + 1, second_by, n_strips, u, out[1], m[1]);
        }
        if (even < k_dim) {
            const float by[] = {k[even], t->decay[r], q[even], k2[even]};
            delta_update(o, s, even, by, n_strips, u, out[0], m[0]);
        }
        for (int a = 0; a < n_strips; a++) {
            for (int p = 0; p < VP; p++) {
                uint32_t c = (uint32_t)(a * DELTA_STRIP + p * VN), n = left(o->v_dim - v_at, c, 0);
                v_store_n(y + c, out[0][a][p] + out[1][a][p], n);
            }
        }
    }
}

/* norm(y) * silu(z) */
static void delta_finish(const struct cpu_delta *o, uint32_t r) {
    float *y = o->out + (size_t)r * o->out_ld;
    const float *z = o->x + (size_t)r * o->ld + o->z_col;
    norm_row(o->norm, y, o->v_dim, y, false, 1);
    for (uint32_t c = 0; c < o->v_dim; c += VN) {
        uint32_t n = o->v_dim - c;
        v_store_n(y + c, v_load_n(y + c, n) * v_act(ACT_SILU, v_load_n(z + c, n)), n);
    }
}

static void delta_rows(const struct cpu_delta *o) {
    struct delta_tile t;
    for (uint32_t first = 0; first < o->n_rows; first += DELTA_ROWS) {
        t.n = o->n_rows - first < DELTA_ROWS ? o->n_rows - first : DELTA_ROWS;
        delta_prepare(o, first, &t);
        uint32_t at = 0;
        for (; KERN_DELTA == 2 && at + DELTA_STRIP < o->v_dim; at += 2 * DELTA_STRIP)
            delta_strips(o, &t, first, at, 2);
        for (; at < o->v_dim; at += DELTA_STRIP)
            delta_strips(o, &t, first, at, 1);
        for (uint32_t r = 0; r < t.n; r++)
            delta_finish(o, first + r);
    }
}

/* ---- Mamba-2 ---- */

/* S[i] updated for two rows (of one: for by[0] alone); out += q[i] * S[i] of each. by: k, decay, q. */
INLINE void ssm_update(const struct cpu_ssm *o, float *s, uint32_t i, const float by[2][3],
                       int n_rows, int n_strips, vf u[2][2][VP], vf out[2][2][VP]) {
    for (int a = 0; a < n_strips; a++) {
        for (int p = 0; p < VP; p++) {
            vf x = v_load(DELTA_AT(s, a, i, p));
            for (int r = 0; r < n_rows; r++) {
                x = v_fma(v_set1(by[r][0]), u[r][a][p], v_set1(by[r][1]) * x);
                out[r][a][p] = v_fma(v_set1(by[r][2]), x, out[r][a][p]);
            }
            v_store(DELTA_AT(s, a, i, p), x);
        }
    }
}

/* Strips of S from column v_at on, through one row or two; steps and decays of these. */
INLINE void ssm_strips(const struct cpu_ssm *o, uint32_t row, uint32_t v_at, int n_rows,
                       int n_strips, const float *step, const float *decay) {
    float *s = o->state + (size_t)v_at * o->k_dim;
    const float *x = o->x + (size_t)row * o->ld;
    const vf zero = v_set1(0);
    vf u[2][2][VP], even[2][2][VP], odd[2][2][VP];
    for (int r = 0; r < n_rows; r++) {
        for (int a = 0; a < n_strips; a++) {
            for (int p = 0; p < VP; p++) {
                uint32_t c = (uint32_t)(a * DELTA_STRIP + p * VN), n = left(o->v_dim - v_at, c, 0);
                const float *v = x + (size_t)r * o->ld + o->x_col + v_at;
                u[r][a][p] = v_set1(step[r]) * v_load_n(v + c, n);
                even[r][a][p] = odd[r][a][p] = zero;
            }
        }
    }
    const float *next = x + (n_rows - 1) * o->ld;
    for (uint32_t i = 0; i < o->k_dim; i += 2) {
        const float *k = x + o->k_col + i, *q = x + o->q_col + i, *k2 = next + o->k_col + i,
                    *q2 = next + o->q_col + i;
        const float by[2][3] = {{k[0], decay[0], q[0]}, {k2[0], decay[1], q2[0]}};
        ssm_update(o, s, i, by, n_rows, n_strips, u, even);
        if (i + 1 == o->k_dim) break;
        const float by_odd[2][3] = {{k[1], decay[0], q[1]}, {k2[1], decay[1], q2[1]}};
        ssm_update(o, s, i + 1, by_odd, n_rows, n_strips, u, odd);
    }
    for (int r = 0; r < n_rows; r++) {
        const float *of = x + (size_t)r * o->ld;
        float *y = o->out + (size_t)(row + (uint32_t)r) * o->out_ld + v_at;
        for (int a = 0; a < n_strips; a++) {
            for (int p = 0; p < VP; p++) {
                uint32_t c = (uint32_t)(a * DELTA_STRIP + p * VN), n = left(o->v_dim - v_at, c, 0);
                vf sum = v_fma(v_set1(o->skip), v_load_n(of + o->x_col + v_at + c, n),
                               even[r][a][p] + odd[r][a][p]);
                v_store_n(y + c, sum * v_act(ACT_SILU, v_load_n(of + o->z_col + v_at + c, n)), n);
            }
        }
    }
}

/* Strip after strip through a tile's rows, two at a time. */
INLINE void ssm_tile(const struct cpu_ssm *o, uint32_t first, uint32_t n, uint32_t v_at,
                     int n_strips, const float *step, const float *decay) {
    uint32_t r = 0;
    for (; r + 2 <= n; r += 2)
        ssm_strips(o, first + r, v_at, 2, n_strips, step + r, decay + r);
    if (r < n) ssm_strips(o, first + r, v_at, 1, n_strips, step + r, decay + r);
}

static void ssm_rows(const struct cpu_ssm *o) {
    float step[DELTA_ROWS + 1] = {0}, decay[DELTA_ROWS + 1] = {0};
    for (uint32_t first = 0; first < o->n_rows; first += DELTA_ROWS) {
        const uint32_t n = o->n_rows - first < DELTA_ROWS ? o->n_rows - first : DELTA_ROWS;
        for (uint32_t r = 0; r < n; r++) {
            const float t = o->x[(size_t)(first + r) * o->ld + o->t_col] + o->dt;
            const vf limited =
                v_min(v_set1(o->step_max), v_max(v_set1(o->step_min), v_softplus(v_set1(t))));
            step[r] = first_of(limited);
            decay[r] = first_of(v_exp(v_set1(o->decay) * limited));
        }
        uint32_t at = 0;
        for (; KERN_DELTA == 2 && at + DELTA_STRIP < o->v_dim; at += 2 * DELTA_STRIP)
            ssm_tile(o, first, n, at, 2, step, decay);
        for (; at < o->v_dim; at += DELTA_STRIP)
            ssm_tile(o, first, n, at, 1, step, decay);
    }
}

#endif
