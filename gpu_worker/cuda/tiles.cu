/* Products for prompts: tiles of 64 rows of x and 64 weight rows (with slots: of one expert's rows, by blockIdx.z), bf16 times
 * bf16 with f32 sums on the tensor cores. Weights are unpacked on their way into shared memory, whatever their format; the next
 * tile is on its way while one is multiplied.
 *
 *     prepared x, bf16 ─16 bytes─▶ a [64][32]        weight rows ─weight_load─▶ b [64][32]        4 warps: 32 x 32 each
 *
 * Both are rounded to bf16 (the CPU backend rounds activations to int8), sums follow the columns. Slow twin: cpu_linear. */
#include "gpu_worker/cuda/device.cuh"
#include "gpu_worker/cuda/mma.cuh"

#include <string.h>

enum {
    THREADS = 128,
    ROWS = 64, /* of x, and of the weight */
    COLS = 32,
    PITCH = COLS + 8,                  /* no two of a fragment's loads meet in a bank */
    UNITS = ROWS * COLS / 8 / THREADS, /* 16-byte units a thread brings of each */
};

/* What this thread brings of the tiles from column k0 on; nothing behind the last row and column. */
static __device__ __forceinline__ uint4 x_fetch(const struct product &p, uint32_t row, uint32_t k) {
    float v[8];
    if (!p.x_is_f32) return *(const uint4 *)((const uint16_t *)p.x + (size_t)row * p.x_ld + k);
    for (uint32_t i = 0; i < 8; i++)
        v[i] = k + i < p.n_in ? p.x[(size_t)row * p.x_ld + k + i] : 0;
    return pack8_bf16(v);
}

/* What a block multiplies: a weight, and which rows of x by it. */
struct part {
    const uint8_t *rows;
    const uint32_t *slots; /* NULL: row m of x is m */
    uint32_t n;
};

template <int F>
static __device__ __forceinline__ void fetch(const struct product &p, const struct part &part,
                                             uint32_t m0, uint32_t n0, uint32_t k0,
                                             uint4 (&a)[UNITS], uint4 (&b)[UNITS]) {
    for (int u = 0; u < UNITS; u++) {
        uint32_t unit = u * THREADS + threadIdx.x, r = unit / (COLS / 8),
                 k = k0 + unit % (COLS / 8) * 8;
        uint4 zero = {0, 0, 0, 0};
        a[u] = b[u] = zero;
        if (k >= p.k_pad) continue;
        if (m0 + r < part.n)
            a[u] = x_fetch(p, part.slots ? part.slots[m0 + r] / p.x_div : m0 + r, k);
        if (n0 + r < p.n_out) {
            float v[8];
            weight_load<F>(part.rows + (n0 + r) * p.row_bytes, p.scale_at, k, v);
            b[u] = pack8_bf16(v);
        }
    }
}

static __device__ __forceinline__ void put(uint16_t *tile, const uint4 (&v)[UNITS]) {
    for (int u = 0; u < UNITS; u++) {
        uint32_t unit = u * THREADS + threadIdx.x;
        *(uint4 *)(tile + unit / (COLS / 8) * PITCH + unit % (COLS / 8) * 8) = v[u];
    }
}

/* A warp's 32 x 32 over one pair of tiles. */
static __device__ __forceinline__ void multiply(const uint16_t *a, const uint16_t *b, uint32_t wm,
                                                uint32_t wn, float (&sums)[2][4][4]) {
    for (uint32_t k = 0; k < COLS; k += 16) {
        uint32_t x[2][4], w[4][2];
        for (uint32_t i = 0; i < 2; i++)
            mma_load_a(a + (wm + 16 * i) * PITCH + k, PITCH, x[i]);
        for (uint32_t j = 0; j < 4; j++)
            mma_load_b(b + (wn + 8 * j) * PITCH + k, PITCH, w[j]);
        for (uint32_t i = 0; i < 2; i++)
            for (uint32_t j = 0; j < 4; j++)
                mma_bf16(sums[i][j], x[i], w[j]);
    }
}

/* A thread's pairs of columns are pairs of weight rows: gate and up, where there is a gate. */
static __device__ __forceinline__ void store(const struct product &p, const struct epilogue &e,
                                             const struct part &part, uint32_t m, uint32_t out,
                                             float v0, float v1) {
    if (m >= part.n || out >= p.n_out) return;
    uint32_t row = part.slots ? part.slots[m] : p.first + m;
    if (p.is_gated) {
        finish_pair(e, row, out / 2, v0, v1);
        return;
    }
    finish_one(e, row, out, v0);
    if (out + 1 < p.n_out) finish_one(e, row, out + 1, v1);
}

template <int F>
static __device__ __forceinline__ void tile(const struct product &p, const struct epilogue &e,
                                            const struct part &part, uint32_t m0, uint32_t n0,
                                            uint16_t *tiles) {
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t wm = warp / 2 * 32, wn = warp % 2 * 32, turn = 0;
    float sums[2][4][4] = {};
    uint4 a[UNITS], b[UNITS];
    fetch<F>(p, part, m0, n0, 0, a, b);
    for (uint32_t k0 = 0; k0 < p.k_pad; k0 += COLS, turn ^= 1) {
        uint16_t *at = tiles + turn * 2 * ROWS * PITCH;
        put(at, a);
        put(at + ROWS * PITCH, b);
        __syncthreads();
        if (k0 + COLS < p.k_pad) fetch<F>(p, part, m0, n0, k0 + COLS, a, b);
        multiply(at, at + ROWS * PITCH, wm, wn, sums);
    }
    for (uint32_t i = 0; i < 2; i++)
        for (uint32_t j = 0; j < 4; j++)
            for (uint32_t h = 0; h < 2; h++)
                store(p, e, part, m0 + wm + 16 * i + 8 * h + lane / 4,
                      n0 + wn + 8 * j + lane % 4 * 2, sums[i][j][2 * h], sums[i][j][2 * h + 1]);
}

template <int F>
static __global__ void __launch_bounds__(THREADS) tile_kernel(const struct product p) {
    SHARED(uint16_t, tiles); /* [2][a, b][ROWS][PITCH] */
    begin();
    struct part part = {p.rows, NULL, p.n};
    struct epilogue e = p.e;
    if (p.slots) {
        part.rows = p.table[blockIdx.z];
        part.slots = p.slots + p.starts[blockIdx.z];
        part.n = p.starts[blockIdx.z + 1] - p.starts[blockIdx.z];
        if (p.biases) e.bias = p.biases[blockIdx.z];
    }
    for (uint32_t m0 = blockIdx.y * ROWS; m0 < part.n; m0 += gridDim.y * ROWS) {
        tile<F>(p, e, part, m0, blockIdx.x * ROWS, tiles);
        __syncthreads(); /* the last tiles are read before the next rows come */
    }
}

/* p.x: prepared rows in bf16, x_ld of them columns, zero behind the last; or x_is_f32. With slots, how many rows each weight
 * gets only the device knows: as many blocks as twice their share needs, which go on where it is more. */
extern "C" void product_tiles(struct cuda *c, enum cuda_format f, struct product p) {
    uint32_t n = p.slots ? BY_DIV_UP(2 * p.n, p.n_weights) : p.n;
    BY_FORMATS(f, LAUNCH(c, tile_kernel<F>, p,
                         GRID(BY_DIV_UP(p.n_out, (uint32_t)ROWS), BY_DIV_UP(n, (uint32_t)ROWS),
                              p.slots ? p.n_weights : 1),
                         THREADS, 4 * ROWS * PITCH * sizeof(uint16_t)));
}
