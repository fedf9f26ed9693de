/* emu.h - the words of CUDA for a host's C++ compiler: the same .cu text runs on the CPU, a fiber a thread.
 *
 *     g++ -x c++ -DBANYAN_CUDA_EMU -include tests/cuda/emu.h … norm.cu
 *
 *     emu_run: block after block; in a block warp after warp, lane after lane, each until its next barrier
 *
 * What it shows: wrong indexes, missing barriers between lanes and warps (emu_order turns the order round: what depends on
 * it differs), divergent barriers (told, not hung), shared memory too small (exact size, poisoned, seen by the address
 * sanitizer), grids that no device takes, sums of tensor cores cut off where theirs are. Of what is asynchronous (wgmma.cuh)
 * that it is waited for: lanes that go backward have it done at the last moment, lanes that go forward at once. What it cannot:
 * true races in device memory, speed, rounding of the device's own expf and tanhf.
 * Owner: the test program; one thread. */
#ifndef TESTS_CUDA_EMU_H
#define TESTS_CUDA_EMU_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "common/modelfile/dtype.h"
}

#define __global__
#define __device__ inline
#define __forceinline__ __attribute__((always_inline))
#define __launch_bounds__(...)
#define KERNEL_SYMBOL(kernel_, args_) \
    ((const void *)(void (*)(const void *))[](const void *p_) { \
        kernel_(*(const __typeof__(args_) *)p_); \
    })
#define SHARED(type, name) type *name = (type *)emu_shared()

struct emu_index {
    uint32_t x, y, z;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};

/* Of the thread that runs. */
extern struct emu_index threadIdx, blockIdx, blockDim, gridDim;
void *emu_shared(void);
void __syncthreads(void);
void __syncwarp(void);
/* v of lane `from`, for each lane of the warp that calls it. */
uint64_t emu_exchange(uint64_t v, uint32_t from);
uint32_t emu_lane(void);
/* Starts blocks of grid x block threads; kernel is what KERNEL_SYMBOL made. */
void emu_run(const void *kernel, const uint32_t grid[3], uint32_t block, uint32_t shared_bytes,
             const void *args);
/* From now on the last lane and warp go first. */
void emu_order(bool is_reversed);
bool emu_is_reversed(void);
/* For emu_async.cc: which block this is, of all that were ever run; lets others run, until one of them has done something that
 * may be waited for, which it tells. */
uint64_t emu_block_number(void);
uint32_t emu_thread(void);
uint32_t emu_shared_size(void);
void emu_pause(void);
void emu_event(void);
[[noreturn]] void emu_complain(const char *what);

template <class T> static inline T emu_shuffle(T v, uint32_t from) {
    static_assert(sizeof v <= 8, "a register, or two");
    uint64_t u = 0;
    memcpy(&u, &v, sizeof v);
    u = emu_exchange(u, from);
    memcpy(&v, &u, sizeof v);
    return v;
}
template <class T> static inline T __shfl_xor_sync(uint32_t, T v, int mask) {
    return emu_shuffle(v, emu_lane() ^ (uint32_t)mask);
}
template <class T> static inline T __shfl_sync(uint32_t, T v, int from) {
    return emu_shuffle(v, (uint32_t)from & 31);
}
template <class T> static inline T __shfl_up_sync(uint32_t, T v, unsigned by) {
    uint32_t lane = emu_lane();
    return emu_shuffle(v, lane < by ? lane : lane - by);
}
/* Which lanes say yes. */
uint32_t emu_ballot(bool is_yes);
static inline uint32_t __ballot_sync(uint32_t, bool is_yes) {
    return emu_ballot(is_yes);
}
static inline int __popc(uint32_t v) {
    return __builtin_popcount(v);
}
/* Four bytes of eight, each by three bits of a nibble. */
static inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t by) {
    uint64_t from = (uint64_t)y << 32 | x;
    uint32_t v = 0;
    for (uint32_t i = 0; i < 4; i++)
        v |= (uint32_t)(from >> (by >> (4 * i) & 7) * 8 & 255) << (8 * i);
    return v;
}
template <class T> static inline T atomicAdd(T *at, T v) {
    T old = *at;
    *at += v;
    return old;
}

/* mma.cuh's step: the fragments of the PTX manual, written out. */
struct emu_fragments {
    uint32_t a[32][4], b[32][2];
    uint16_t rows[32][8];
};
struct emu_fragments *emu_warp_fragments(void); /* the warp's */
/* sum + a[0] b[0] + … + a[n - 1] b[n - 1], cut off n_extra bits behind the 24 of the largest of them (emu_tensor.cc). */
float emu_tensor_sum(float sum, const float *a, const float *b, uint32_t n, uint32_t n_extra);

template <class Number>
static inline void emu_mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                           Number number) {
    struct emu_fragments *f = emu_warp_fragments();
    uint32_t lane = emu_lane();
    memcpy(f->a[lane], a, sizeof a);
    memcpy(f->b[lane], b, sizeof b);
    __syncwarp();
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t row = lane / 4 + 8 * (i / 2), col = lane % 4 * 2 + i % 2;
        float x[16], y[16];
        for (uint32_t k = 0; k < 16; k++) {
            uint32_t at = k % 8 / 2, from = 16 * (k % 2);
            x[k] = number((uint16_t)(f->a[row % 8 * 4 + at][row / 8 + 2 * (k / 8)] >> from));
            y[k] = number((uint16_t)(f->b[col * 4 + at][k / 8] >> from));
        }
        for (uint32_t k = 0; k < 16; k += 8) /* as an A100 does, which cuts off most */
            d[i] = emu_tensor_sum(d[i], x + k, y + k, 8, 1);
    }
    __syncwarp();
}
static inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emu_mma(d, a, b, by_bf16_to_f32);
}
static inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emu_mma(d, a, b, by_f16_to_f32);
}

/* Its loads of four matrices [8][8], whose rows the lanes name: each reads its own when it comes. */
static inline void emu_load_matrices(const uint16_t *row, bool is_turned, uint32_t (&m)[4]) {
    struct emu_fragments *f = emu_warp_fragments();
    uint32_t lane = emu_lane(), one = lane / 4, two = lane % 4 * 2;
    if ((uintptr_t)row % 16) emu_complain("a matrix whose rows are not aligned");
    memcpy(f->rows[lane], row, sizeof f->rows[lane]);
    __syncwarp();
    for (uint32_t i = 0; i < 4; i++) {
        const uint16_t(*rows)[8] = f->rows + 8 * i;
        uint32_t low = is_turned ? rows[two][one] : rows[one][two],
                 high = is_turned ? rows[two + 1][one] : rows[one][two + 1];
        m[i] = low | high << 16;
    }
    __syncwarp();
}
static inline void load_matrices(const uint16_t *row, uint32_t (&m)[4]) {
    emu_load_matrices(row, false, m);
}
static inline void load_matrices_turned(const uint16_t *row, uint32_t (&m)[4]) {
    emu_load_matrices(row, true, m);
}

/* And their turning in registers. */
static inline uint32_t turn_matrix(uint32_t m) {
    uint32_t lane = emu_lane(), at = lane % 4 * 8 + lane / 8, by = lane / 4 % 2 * 16,
             low = emu_shuffle(m, at) >> by & 0xffff, high = emu_shuffle(m, at + 4) >> by & 0xffff;
    return low | high << 16;
}

/* copies.cuh's and wgmma.cuh's words (emu_async.cc). Shared memory begins at an address that is 16 past a multiple of 1024. */
uint32_t shared_address(const void *p);
void copy16(uint32_t to, const void *from, uint32_t n);
void copies_commit(void);
void emu_copies_wait(uint32_t n_open);
void fence_async(void);
void barrier_init(uint32_t at, uint32_t n);
void barrier_arrive(uint32_t at);
void barrier_wait(uint32_t at, uint32_t parity);
void wgmma_fence(void);
void emu_wgmma(float (*d)[4], const uint32_t *a, uint64_t b, bool is_turned, bool adds,
               float (*number)(uint16_t));
void wgmma_commit(void);
void emu_wgmma_wait(uint32_t n_open);
template <int N> static inline void copies_wait(void) {
    emu_copies_wait(N);
}
template <int N> static inline void wgmma_wait(void) {
    emu_wgmma_wait(N);
}
template <class T, int N> static inline void wgmma_settle(T (&)[N][4]) {
}
template <int N> static inline void registers_give(void) {
}
template <int N> static inline void registers_take(void) {
}
template <bool IS_F16, bool IS_TURNED, int N>
static inline void wgmma(float (&d)[N][4], int at, const uint32_t (&a)[4], uint64_t b, bool adds) {
    emu_wgmma(d + at, a, b, IS_TURNED, adds, IS_F16 ? by_f16_to_f32 : by_bf16_to_f32);
}

void begin(void); /* a kernel that ends without it is told */
static inline void prefetch(const uint8_t *at) {
    (void)*(const volatile uint8_t *)at; /* the sanitizer sees it */
}
static inline float exp2_near(float x) {
    return exp2f(x);
}
static inline float f16_to_f32(uint16_t h) {
    return by_f16_to_f32(h);
}
static inline uint16_t f32_to_f16(float f) {
    return by_f32_to_f16(f);
}
static inline float as_f32(uint32_t u) {
    return by_bits_f32(u);
}
static inline uint32_t as_u32(float f) {
    return by_f32_bits(f);
}
/* One rounding each, whatever the compiler may contract. */
static inline float __fadd_rn(float a, float b) {
    return a + b;
}
static inline float __fsub_rn(float a, float b) {
    return a - b;
}
static inline float __fmul_rn(float a, float b) {
    return a * b;
}
static inline float __fdiv_rn(float a, float b) {
    return a / b;
}
static inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
    return (uint64_t)((unsigned __int128)a * b >> 64);
}

#endif
