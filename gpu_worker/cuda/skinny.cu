/* Products for few rows of x: a warp reads R weight rows once, 8 columns a lane, for M rows of x at a time; what it reads is
 * what a decode step takes, so a kilobyte and more is on its way to each warp: few rows of x leave registers for that. Each sum is
 * one chain a lane, then a tree over the warp, whatever R and M.
 *
 *     lane 0: columns 0 … 7, 256 … 263, …     lane 1: 8 … 15, …           x comes out of the cache, as f32
 *
 * Slow twin: cpu_linear. */
#include "gpu_worker/cuda/device.cuh"

enum { THREADS = 128, WARPS = THREADS / 32 };

/* Eight columns of x; IS_WHOLE: all are there, and aligned. */
template <bool IS_WHOLE>
static __device__ __forceinline__ void x_load(const struct product &p, const float *x, uint32_t k,
                                              float *out) {
    if (IS_WHOLE || (p.is_aligned && k + 8 <= p.n_in)) {
        float4 a = *(const float4 *)(x + k), b = *(const float4 *)(x + k + 4);
        out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
        out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    } else {
        for (uint32_t i = 0; i < 8; i++)
            out[i] = k + i < p.n_in ? x[k + i] : 0;
    }
}

/* Rows of this z, and how many. */
static __device__ __forceinline__ uint32_t my_rows(const struct product &p,
                                                   const uint32_t **slots) {
    if (!p.slots) return p.n;
    uint32_t from = p.starts[blockIdx.z];
    *slots = p.slots + from;
    return p.starts[blockIdx.z + 1] - from;
}

template <int R, int M>
static __device__ __forceinline__ void store(const struct product &p, struct epilogue e,
                                             uint32_t out, uint32_t y_row,
                                             const float (&sums)[R][M], int m) {
    for (int r = 0; r < R; r += p.is_gated ? 2 : 1) {
        if (out + r >= p.n_out) break;
        if (p.is_gated)
            finish_pair(e, y_row, (out + r) / 2, sums[r][m], sums[r + 1][m]);
        else
            finish_one(e, y_row, out + r, sums[r][m]);
    }
}

/* Eight columns, from k on, of R weight rows and M rows of x. */
template <int F, int R, int M, bool IS_WHOLE>
static __device__ __forceinline__ void
add_columns(const struct product &p, const uint8_t *const (&w)[R], const float *const (&x)[M],
            uint32_t k, float (&sums)[R][M]) {
    float v[R][8];
    for (int r = 0; r < R; r++)
        weight_load<F>(w[r], p.scale_at, k, v[r]);
    for (int m = 0; m < M; m++) {
        float a[8];
        x_load<IS_WHOLE>(p, x[m], k, a);
        for (int r = 0; r < R; r++)
            for (int i = 0; i < 8; i++)
                sums[r][m] = fmaf(v[r][i], a[i], sums[r][m]);
    }
}

template <int F, int R, int M>
static __global__ void __launch_bounds__(THREADS, 4) skinny_kernel(const struct product p) {
    /* Loads of so many rounds go out before the first is waited for: nothing in them branches. */
    constexpr int ROUNDS = M == 1 ? 8 / R : M == 2 ? 4 / R : 1;
    uint32_t lane = threadIdx.x % 32, out = (blockIdx.x * WARPS + threadIdx.x / 32) * R;
    if (!p.table &&
        out < p.n_out) /* what the warp reads first, while kernels before this one end */
        for (int r = 0; r < R; r++)
            if (128 * lane < p.row_bytes)
                prefetch(p.rows + BY_MIN(out + r, p.n_out - 1) * p.row_bytes + 128 * lane);
    begin();
    const uint32_t *slots = NULL;
    const uint32_t n = my_rows(p, &slots), n_whole = p.is_aligned ? p.n_in / 8 * 8 : 0;
    const uint8_t *rows = p.table ? p.table[blockIdx.z] : p.rows, *w[R];
    struct epilogue e = p.e;
    if (out >= p.n_out) return;
    for (int r = 0; r < R; r++)
        w[r] = rows + BY_MIN(out + r, p.n_out - 1) * p.row_bytes;
    e.col += blockIdx.z * p.y_step;
    if (p.biases) e.bias = p.biases[blockIdx.z];
    for (uint32_t m0 = blockIdx.y * M; m0 < n; m0 += gridDim.y * M) {
        const float *x[M];
        uint32_t y_row[M], k = 8 * lane;
        float sums[R][M];
        for (int m = 0; m < M; m++) {
            uint32_t i = BY_MIN(m0 + m, n - 1), row = slots ? slots[i] / p.x_div : i;
            x[m] = p.x + (size_t)row * p.x_ld + (size_t)blockIdx.z * p.x_step;
            y_row[m] = slots ? slots[i] : p.first + i;
            for (int r = 0; r < R; r++)
                sums[r][m] = 0;
        }
        for (; k + 256 * (ROUNDS - 1) < n_whole; k += 256 * ROUNDS)
            for (int i = 0; i < ROUNDS; i++)
                add_columns<F, R, M, true>(p, w, x, k + 256 * i, sums);
#pragma unroll 1
        for (; k < p.n_in; k += 256)
            add_columns<F, R, M, false>(p, w, x, k, sums);
        for (int m = 0; m < M; m++) {
            for (int r = 0; r < R; r++)
                sums[r][m] = warp_sum(sums[r][m]);
            if (lane == 0 && m0 + m < n) store<R, M>(p, e, out, y_row[m], sums, m);
        }
    }
}

template <int F, int R, int M> static void launch(struct cuda *c, const struct product &p) {
    uint32_t n_tiles = p.slots ? 1 : BY_MIN(BY_DIV_UP(p.n, (uint32_t)M), (uint32_t)CUDA_GRID_Y);
    LAUNCH(c, (skinny_kernel<F, R, M>), p,
           GRID(BY_DIV_UP(p.n_out, (uint32_t)(WARPS * R)), n_tiles, BY_MAX(p.n_weights, 1u)),
           THREADS, 0);
}

/* With slots, rows a weight gets are known on the device only: as if there were a few each. */
template <int F> static void launch_for(struct cuda *c, const struct product &p) {
    uint32_t n = p.slots ? BY_DIV_UP(p.n, BY_MAX(p.n_weights, 1u)) : p.n;
    if (n <= 1)
        launch<F, 2, 1>(c, p);
    else if (n <= 2)
        launch<F, 2, 2>(c, p);
    else if (n <= 4)
        launch<F, 4, 4>(c, p);
    else
        launch<F, 2, 8>(c, p);
}

extern "C" void product_skinny(struct cuda *c, enum cuda_format f, struct product p) {
    p.is_aligned = ((uintptr_t)p.x % 16 | p.x_ld % 4 | p.x_step % 4) == 0;
    BY_FORMATS(f, launch_for<F>(c, p));
}
