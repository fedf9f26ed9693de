/* Ops with a state a slot: the convolution over time, the gated delta rule, Mamba-2, copies of states. A thread has a column (of the
 * convolution, of a head's state) and goes through its sequence's rows in order, as the CPU does: in the same order of sums,
 * even and odd rows of the state apart.
 * A head's state lies in registers while its rows are gone through, where its k_dim is the usual 128.
 * Slow twins: cpu_conv, cpu_delta, cpu_ssm, cpu_copy. */
#include "gpu_worker/cuda/device.cuh"

#include "common/modelfile/model_info.h"

#include <string.h>

enum { CONV_THREADS = 128, DELTA_THREADS_MAX = 1024, COPY_THREADS = 256, COPY_FLOATS = 4096 };

/* ---- the convolution ---- */

struct conv_args {
    const float *x, *w, *bias;
    float *windows, *out;
    uint32_t ld, out_ld, width, size, in_gate_col, out_gate_col;
    enum act_kind act;
    const struct seq_rows *seqs;
};

/* SIZE 0: any */
template <int SIZE>
static __global__ void __launch_bounds__(CONV_THREADS) conv_kernel(const struct conv_args a) {
    begin();
    const uint32_t c = blockIdx.x * CONV_THREADS + threadIdx.x, size = SIZE ? SIZE : a.size;
    if (c >= a.width) return;
    const struct seq_rows s = a.seqs[blockIdx.y];
    float w[SIZE ? SIZE : BY_CONV_MAX], last[SIZE ? SIZE : BY_CONV_MAX];
    float *window = a.windows + (size_t)s.slot * (size - 1) * a.width + c;
    const float *x = a.x + (size_t)s.first * a.ld + c, bias = a.bias ? a.bias[c] : 0;
    float *out = a.out + (size_t)s.first * a.out_ld + c;
    for (uint32_t j = 0; j < size; j++)
        w[j] = a.w[(size_t)j * a.width + c];
    for (uint32_t j = 0; j + 1 < size; j++)
        last[j] = s.position ? window[(size_t)j * a.width] : 0;
    for (uint32_t r = 0; r < s.n; r++, x += a.ld, out += a.out_ld) {
        last[size - 1] = a.in_gate_col ? *x * x[a.in_gate_col] : *x;
        float sum = fmaf(w[0], last[0], bias);
        for (uint32_t j = 1; j < size; j++)
            sum = fmaf(w[j], last[j], sum);
        sum = activate(a.act, sum);
        *out = a.out_gate_col ? sum * x[a.out_gate_col] : sum;
        for (uint32_t j = 0; j + 1 < size; j++)
            last[j] = last[j + 1];
    }
    for (uint32_t j = 0; j + 1 < size; j++)
        window[(size_t)j * a.width] = last[j];
}

/* The step's sequences as kernels see them; a pointer among them stays the host's. */
static const struct seq_rows *stage(struct lane *l, const struct seq_rows *seqs, uint32_t n) {
    return (const struct seq_rows *)queue_stage(l->cuda->queue, seqs, n * sizeof *seqs);
}

extern "C" void cuda_conv(struct lane *l, const struct op_conv *o) {
    struct conv_args a;
    memset(&a, 0, sizeof a);
    a.x = o->x, a.windows = o->windows, a.ld = o->ld, a.width = o->width, a.size = o->size;
    a.in_gate_col = o->in_gate_col, a.out_gate_col = o->out_gate_col;
    a.act = o->act, a.w = o->w, a.bias = o->bias, a.out = o->out, a.out_ld = o->out_ld;
    a.seqs = stage(l, o->seqs, o->n_seqs);
    const uint32_t n = BY_DIV_UP(o->width, (uint32_t)CONV_THREADS);
    if (o->size == 4)
        LAUNCH(l->cuda, conv_kernel<4>, a, GRID(n, o->n_seqs, 1), CONV_THREADS, 0);
    else if (o->size == 3)
        LAUNCH(l->cuda, conv_kernel<3>, a, GRID(n, o->n_seqs, 1), CONV_THREADS, 0);
    else
        LAUNCH(l->cuda, conv_kernel<0>, a, GRID(n, o->n_seqs, 1), CONV_THREADS, 0);
}

/* ---- the delta rule ---- */

struct delta_args {
    const float *x, *decay, *dt, *norm;
    float *states, *out;
    uint32_t ld, k_col, v_col, z_col, b_col, a_col, n_k_heads, n_v_heads, k_dim, v_dim, out_ld;
    float eps;
    bool is_tiled;
    uint64_t each; /* numbers of a head's state */
    const struct seq_rows *seqs;
};

/* n numbers of length 1 times scale, into shared memory. */
static __device__ __forceinline__ void length_one(const float *x, uint32_t n, float scale, float *y,
                                                  float *room) {
    float sum = 0;
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
        sum += x[i] * x[i];
    float by = scale / sqrtf(block_sum(sum, room) + 1e-6f);
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
        y[i] = x[i] * by;
}

/* One column of a head's state S [k_dim rows]. K: the k_dim whose column is in registers, half of it in each of two threads side by
 * side: the even rows, the odd ones. 0: any, it stays in memory, and a thread has both halves. Sums of the even rows and of the odd
 * ones are added last. */
template <int K> struct column {
    enum { STEP = K ? 2 : 1 };
    float *at, state[K ? K / 2 : 1];
    uint32_t half, n_any; /* n_any: rows where K is 0 */
    bool is_in; /* else beside the columns, and goes along: unrolled, they stay in registers */

    __device__ __forceinline__ column(float *s, uint32_t k_dim, uint32_t j, uint32_t v_dim) {
        at = s + (size_t)(j / DELTA_STRIP) * k_dim * DELTA_STRIP + j % DELTA_STRIP;
        half = threadIdx.x % STEP;
        is_in = j < v_dim;
        n_any = is_in ? k_dim : 0;
    }

    __device__ __forceinline__ uint32_t n() const {
        return K ? K / 2 : n_any;
    }
    __device__ __forceinline__ float *row(uint32_t i) {
        return K ? &state[K ? i : 0] : at + (size_t)i * DELTA_STRIP;
    }
    /* goes_on: from what lies in memory, else from zeroes */
    __device__ __forceinline__ void take(bool goes_on) {
#pragma unroll
        for (uint32_t i = 0; i < n(); i++) {
            float *p = at + (size_t)(STEP * i + half) * DELTA_STRIP;
            *row(i) = goes_on && is_in ? *p : 0;
        }
    }
    __device__ __forceinline__ void give() {
#pragma unroll
        for (uint32_t i = 0; K && i < n(); i++)
            if (is_in) at[(size_t)(STEP * i + half) * DELTA_STRIP] = state[K ? i : 0];
    }
    __device__ __forceinline__ float all_of(float *sums) {
        if (K) sums[1] = __shfl_xor_sync(0xffffffffu, sums[0], 1);
        return sums[0] + sums[1];
    }
    /* k^T S */
    __device__ __forceinline__ float dot(const float *k) {
        float sums[2] = {0, 0};
#pragma unroll
        for (uint32_t i = 0; i < n(); i++)
            sums[K ? 0 : i % 2] = fmaf(k[STEP * i + half], *row(i), sums[K ? 0 : i % 2]);
        return all_of(sums);
    }
    /* S = d * S + k u^T; q^T S */
    __device__ __forceinline__ float update(const float *k, const float *q, float u, float d) {
        float sums[2] = {0, 0};
#pragma unroll
        for (uint32_t i = 0; i < n(); i++) {
            float *p = row(i);
            *p = fmaf(k[STEP * i + half], u, d * *p);
            sums[K ? 0 : i % 2] = fmaf(q[STEP * i + half], *p, sums[K ? 0 : i % 2]);
        }
        return all_of(sums);
    }
};

template <int K>
static __global__ void __launch_bounds__(K ? 512 : DELTA_THREADS_MAX)
    delta_kernel(const struct delta_args a) {
    SHARED(float, room); /* 33, q, k */
    begin();
    const uint32_t h = blockIdx.x, j = threadIdx.x / column<K>::STEP;
    const uint32_t k_dim = K ? K : a.k_dim;
    const uint32_t kh = a.is_tiled ? h % a.n_k_heads : h / (a.n_v_heads / a.n_k_heads);
    const struct seq_rows s = a.seqs[blockIdx.y];
    float *q = room + 33, *k = q + k_dim;
    column<K> own(a.states + ((size_t)s.slot * a.n_v_heads + h) * a.each, k_dim, j, a.v_dim);
    own.take(s.position > 0);
    for (uint32_t r = 0; r < s.n; r++) {
        const float *x = a.x + (size_t)(s.first + r) * a.ld;
        __syncthreads(); /* q and k of the row before are read */
        length_one(x + kh * k_dim, k_dim, 1.0f / sqrtf((float)k_dim), q, room);
        length_one(x + a.k_col + kh * k_dim, k_dim, 1.0f, k, room);
        __syncthreads();
        const float d = expf(a.decay[h] * softplus(x[a.a_col + h] + a.dt[h]));
        const float v = own.is_in ? x[a.v_col + h * a.v_dim + j] : 0;
        const float u = sigmoid(x[a.b_col + h]) * (v - d * own.dot(k));
        const float sum = own.update(k, q, u, d);
        const float y = own.is_in ? sum : 0;
        const float squares = block_sum(own.half ? 0 : y * y, room);
        const float factor = 1.0f / sqrtf(squares / (float)a.v_dim + a.eps);
        if (own.is_in && !own.half)
            a.out[(size_t)(s.first + r) * a.out_ld + h * a.v_dim + j] =
                y * factor * a.norm[j] * activate(ACT_SILU, x[a.z_col + h * a.v_dim + j]);
    }
    own.give();
}

extern "C" void cuda_delta(struct lane *l, const struct op_delta *o) {
    struct delta_args a;
    const bool is_usual = o->k_dim == 128 && o->v_dim <= 256;
    const uint32_t threads = BY_ALIGN_UP(o->v_dim * (is_usual ? 2 : 1), 32u);
    const size_t room = (33 + 2 * (size_t)o->k_dim) * sizeof(float);
    memset(&a, 0, sizeof a);
    a.x = o->x, a.decay = o->decay, a.dt = o->dt, a.norm = o->norm->w, a.eps = o->norm->eps;
    a.states = o->states, a.out = o->out, a.ld = o->ld, a.out_ld = o->out_ld;
    a.k_col = o->k_col, a.v_col = o->v_col, a.z_col = o->z_col, a.b_col = o->b_col;
    a.a_col = o->a_col, a.n_k_heads = o->n_k_heads, a.n_v_heads = o->n_v_heads;
    a.k_dim = o->k_dim, a.v_dim = o->v_dim, a.is_tiled = o->is_tiled;
    a.each = backend_delta_floats(o->k_dim, o->v_dim);
    a.seqs = stage(l, o->seqs, o->n_seqs);
    if (is_usual)
        LAUNCH(l->cuda, delta_kernel<128>, a, GRID(o->n_v_heads, o->n_seqs, 1), threads, room);
    else
        LAUNCH(l->cuda, delta_kernel<0>, a, GRID(o->n_v_heads, o->n_seqs, 1), threads, room);
}

/* ---- Mamba-2 ---- */

struct ssm_args {
    const float *x, *decay, *dt, *skip;
    float *states, *out;
    uint32_t ld, k_col, q_col, z_col, t_col, n_groups, n_heads, k_dim, v_dim, out_ld;
    float step_min, step_max;
    uint64_t each; /* numbers of a head's state */
    const struct seq_rows *seqs;
};

template <int K>
static __global__ void __launch_bounds__(K ? 512 : DELTA_THREADS_MAX)
    ssm_kernel(const struct ssm_args a) {
    SHARED(float, q); /* then k */
    begin();
    const uint32_t h = blockIdx.x, j = threadIdx.x / column<K>::STEP;
    const uint32_t k_dim = K ? K : a.k_dim, group = h / (a.n_heads / a.n_groups);
    const struct seq_rows s = a.seqs[blockIdx.y];
    float *k = q + k_dim;
    column<K> own(a.states + ((size_t)s.slot * a.n_heads + h) * a.each, k_dim, j, a.v_dim);
    own.take(s.position > 0);
    for (uint32_t r = 0; r < s.n; r++) {
        const float *x = a.x + (size_t)(s.first + r) * a.ld;
        __syncthreads(); /* q and k of the row before are read */
        for (uint32_t i = threadIdx.x; i < k_dim; i += blockDim.x) {
            q[i] = x[a.q_col + group * k_dim + i];
            k[i] = x[a.k_col + group * k_dim + i];
        }
        __syncthreads();
        const float t = fminf(a.step_max, fmaxf(a.step_min, softplus(x[a.t_col + h] + a.dt[h])));
        const float d = expf(a.decay[h] * t), v = own.is_in ? x[h * a.v_dim + j] : 0, u = t * v;
        const float sum = own.update(k, q, u, d);
        if (own.is_in && !own.half)
            a.out[(size_t)(s.first + r) * a.out_ld + h * a.v_dim + j] =
                fmaf(a.skip[h], v, sum) * activate(ACT_SILU, x[a.z_col + h * a.v_dim + j]);
    }
    own.give();
}

extern "C" void cuda_ssm(struct lane *l, const struct op_ssm *o) {
    struct ssm_args a;
    const bool is_usual = o->k_dim == 128 && o->v_dim <= 256;
    const uint32_t threads = BY_ALIGN_UP(o->v_dim * (is_usual ? 2 : 1), 32u);
    const size_t room = 2 * (size_t)o->k_dim * sizeof(float);
    memset(&a, 0, sizeof a);
    a.x = o->x, a.decay = o->decay, a.dt = o->dt, a.skip = o->skip;
    a.states = o->states, a.out = o->out, a.ld = o->ld, a.out_ld = o->out_ld;
    a.k_col = o->k_col, a.q_col = o->q_col, a.z_col = o->z_col, a.t_col = o->t_col;
    a.n_groups = o->n_groups, a.n_heads = o->n_heads, a.k_dim = o->k_dim, a.v_dim = o->v_dim;
    a.step_min = o->step_min, a.step_max = o->step_max;
    a.each = backend_delta_floats(o->k_dim, o->v_dim);
    a.seqs = stage(l, o->seqs, o->n_seqs);
    if (is_usual)
        LAUNCH(l->cuda, ssm_kernel<128>, a, GRID(o->n_heads, o->n_seqs, 1), threads, room);
    else
        LAUNCH(l->cuda, ssm_kernel<0>, a, GRID(o->n_heads, o->n_seqs, 1), threads, room);
}

/* ---- copies ---- */

struct copy_args {
    float *p;
    uint64_t ld;
    const struct state_copy *pairs;
};

static __global__ void __launch_bounds__(COPY_THREADS) copy_kernel(const struct copy_args a) {
    begin();
    const struct state_copy c = a.pairs[blockIdx.y];
    const uint64_t from = (uint64_t)blockIdx.x * COPY_FLOATS;
    for (uint64_t i = from + threadIdx.x; i < BY_MIN(from + COPY_FLOATS, a.ld); i += COPY_THREADS)
        a.p[c.to * a.ld + i] = a.p[c.from * a.ld + i];
}

extern "C" void cuda_copy(struct lane *l, const struct op_copy *o) {
    struct copy_args a;
    if (!o->n || !o->ld) return;
    memset(&a, 0, sizeof a);
    a.p = o->p, a.ld = o->ld;
    a.pairs =
        (const struct state_copy *)queue_stage(l->cuda->queue, o->pairs, o->n * sizeof *o->pairs);
    LAUNCH(l->cuda, copy_kernel, a, GRID(BY_DIV_UP(o->ld, (size_t)COPY_FLOATS), o->n, 1),
           COPY_THREADS, 0);
}
