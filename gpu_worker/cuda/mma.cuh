/* mma.cuh - one step of the tensor cores, d[16][8] += a[16][16] · b[8][16]^T, and what brings numbers to where it wants them.
 *
 *     lane l:  a 0: row l/4,     columns 2(l%4), +1      d 0, 1: row l/4,     columns 2(l%4), +1
 *              a 1: row l/4 + 8, the same                d 2, 3: row l/4 + 8, the same
 *              a 2, 3: as 0, 1, eight columns on         b 0: row l/4, columns 2(l%4), +1     b 1: eight columns on
 *
 * Always: every lane of the warp calls it. On the emulator the same layout is written out (tests/cuda/emu.h).
 * Owner: nobody. */
#ifndef GPU_WORKER_CUDA_MMA_CUH
#define GPU_WORKER_CUDA_MMA_CUH

#include "gpu_worker/cuda/device.cuh"

#if !defined(BANYAN_CUDA_EMU)
static __device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4],
                                                const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

static __device__ __forceinline__ uint32_t pack_f16(float low, float high) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/* Four matrices [8][8] of shared memory: lane l names row l % 8 of number l / 8, 16 bytes at a multiple of 16, and gets of each
 * row l / 4, columns 2(l % 4), +1. */
static __device__ __forceinline__ void load_matrices(const uint16_t *row, uint32_t (&m)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];\n"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

/* The same, but column l / 4 and rows 2(l % 4), +1 of it. */
static __device__ __forceinline__ void load_matrices_turned(const uint16_t *row, uint32_t (&m)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];\n"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

/* A matrix that lies in registers as load_matrices brings it becomes a turned one. */
static __device__ __forceinline__ uint32_t turn_matrix(uint32_t m) {
    uint32_t turned;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(turned) : "r"(m));
    return turned;
}

/* a * b + c, twice, rounded once. */
static __device__ __forceinline__ uint32_t fma_bf16(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
#else
static __device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    return (uint32_t)f32_to_bf16(low) | (uint32_t)f32_to_bf16(high) << 16;
}

static __device__ __forceinline__ uint32_t pack_f16(float low, float high) {
    return (uint32_t)f32_to_f16(low) | (uint32_t)f32_to_f16(high) << 16;
}

static __device__ __forceinline__ uint32_t fma_bf16(uint32_t a, uint32_t b, uint32_t c) {
    float x[2], y[2], z[2];
    halves(a, true, x), halves(b, true, y), halves(c, true, z);
    return pack_bf16(fmaf(x[0], y[0], z[0]), fmaf(x[1], y[1], z[1]));
}
#endif

/* Numbers of a KV cache of type T: f16 stays, all else is bf16. */
template <int T> static __device__ __forceinline__ uint32_t pack2(float low, float high) {
    return T == KV_F16 ? pack_f16(low, high) : pack_bf16(low, high);
}

template <int T>
static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4],
                                           const uint32_t (&b)[2]) {
    if (T == KV_F16)
        mma_f16(d, a, b);
    else
        mma_bf16(d, a, b);
}

/* Two numbers as PARTS pairs whose sums they are: each pair rounds what those before it have left. Three hold 24 bits. */
template <int T, int PARTS>
static __device__ __forceinline__ void split_pair(float low, float high, uint32_t (&parts)[PARTS]) {
    for (int p = 0; p < PARTS; p++) {
        float kept[2];
        parts[p] = pack2<T>(low, high);
        halves(parts[p], T != KV_F16, kept);
        low -= kept[0], high -= kept[1];
    }
}

static __device__ __forceinline__ uint4 pack8_bf16(const float *v) {
    uint4 u;
    u.x = pack_bf16(v[0], v[1]), u.y = pack_bf16(v[2], v[3]);
    u.z = pack_bf16(v[4], v[5]), u.w = pack_bf16(v[6], v[7]);
    return u;
}

/* Sixteen rows from `at` on, sixteen columns; rows lie pitch numbers apart. */
static __device__ __forceinline__ void mma_load_a(const uint16_t *at, uint32_t pitch,
                                                  uint32_t (&a)[4]) {
    uint32_t r = threadIdx.x % 32 / 4, c = threadIdx.x % 4 * 2;
    for (uint32_t i = 0; i < 4; i++)
        a[i] = *(const uint32_t *)(at + (r + 8 * (i & 1)) * pitch + c + 8 * (i >> 1));
}

/* Eight rows. */
static __device__ __forceinline__ void mma_load_b(const uint16_t *at, uint32_t pitch,
                                                  uint32_t (&b)[2]) {
    uint32_t r = threadIdx.x % 32 / 4, c = threadIdx.x % 4 * 2;
    for (uint32_t i = 0; i < 2; i++)
        b[i] = *(const uint32_t *)(at + r * pitch + c + 8 * i);
}

/* Sixteen rows: two b, one in m[0, 1] and that of the last eight in m[2, 3]. Rows begin at multiples of 16 bytes. */
static __device__ __forceinline__ void mma_load_two_b(const uint16_t *at, uint32_t pitch,
                                                      uint32_t (&m)[4]) {
    uint32_t l = threadIdx.x % 32;
    load_matrices(at + (l % 8 + l / 16 * 8) * pitch + l / 8 % 2 * 8, m);
}

/* The same of what lies turned: sixteen rows of sixteen columns, which are b's rows. */
static __device__ __forceinline__ void mma_load_two_b_turned(const uint16_t *at, uint32_t pitch,
                                                             uint32_t (&m)[4]) {
    uint32_t l = threadIdx.x % 32;
    load_matrices_turned(at + l % 16 * pitch + l / 16 * 8, m);
}

#endif
