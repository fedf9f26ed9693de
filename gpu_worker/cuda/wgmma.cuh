/* wgmma.cuh - the words of sm_90a: products of a warpgroup (128 threads) that read shared memory themselves, barriers
 * on which a phase is awaited.
 *
 *     d[64][64] += a[64][16] · b        a: registers of each warp's 16 rows, as mma.cuh's; d: 8 of mma.cuh's fragments side by side
 *                                       b: [64][16] rows of 128 bytes, or turned: [16][64]
 *     shared memory, a panel: rows of 128 bytes; 16 bytes number c of row r lie at c ^ (r % 8); panels begin at multiples of 1024
 *
 *     one side: copy16 … copies_commit, copies_wait, fence_async, barrier_arrive(full)   ─▶   the other: barrier_wait(full),
 *     wgmma_fence, wgmma …, wgmma_commit, wgmma_wait, wgmma_settle, barrier_arrive(empty)
 *
 * Always: registers that a product reads or writes are left alone from wgmma_fence to wgmma_wait. The emulator's twins are in
 * tests/cuda/emu.h; devices of any other kind have none (HAS_WGMMA).
 * Owner: nobody. */
#ifndef GPU_WORKER_CUDA_WGMMA_CUH
#define GPU_WORKER_CUDA_WGMMA_CUH

#include <stdint.h>

#if defined(BANYAN_CUDA_EMU) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_WGMMA 1
#else
#define HAS_WGMMA 0
#endif

#if HAS_WGMMA

/* Names 64 rows (turned: 16) from `at` on. Eight rows are 1024 bytes from the next eight, the only distance that these shapes
 * have; the other field is not read, and says the same. */
static __device__ __forceinline__ uint64_t wgmma_rows(uint32_t at) {
    const uint64_t eight_rows = 1024 >> 4, swizzle_128 = 1;
    return (uint64_t)((at & 0x3ffff) >> 4) | eight_rows << 16 | eight_rows << 32 |
           swizzle_128 << 62;
}

#if !defined(BANYAN_CUDA_EMU)
/* What this thread has written is seen by products, once it has told them. */
static __device__ __forceinline__ void fence_async(void) {
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

/* A phase ends with the n-th arrival. */
static __device__ __forceinline__ void barrier_init(uint32_t at, uint32_t n) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(at), "r"(n) : "memory");
}

static __device__ __forceinline__ void barrier_arrive(uint32_t at) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(at) : "memory");
}

/* Until the phase of this parity has ended; the first one has 0. */
static __device__ __forceinline__ void barrier_wait(uint32_t at, uint32_t parity) {
    uint32_t is_over;
    do {
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}\n"
                     : "=r"(is_over)
                     : "r"(at), "r"(parity)
                     : "memory");
    } while (!is_over);
}

/* A warpgroup goes on with N registers a thread: those that it gives up, another one of the block may take. */
template <int N> static __device__ __forceinline__ void registers_give(void) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(N));
}

template <int N> static __device__ __forceinline__ void registers_take(void) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(N));
}

static __device__ __forceinline__ void wgmma_fence(void) {
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}

static __device__ __forceinline__ void wgmma_commit(void) {
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}

/* All but the newest N groups are done. */
template <int N> static __device__ __forceinline__ void wgmma_wait(void) {
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
}

/* Keeps the compiler from moving what makes or uses these registers to the other side: of sums, and of what is multiplied, which a
 * product reads until it is waited for. */
template <int N> static __device__ __forceinline__ void wgmma_settle(float (&d)[N][4]) {
    for (int j = 0; j < N; j++)
        asm volatile("" : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])::"memory");
}

template <int N> static __device__ __forceinline__ void wgmma_settle(uint32_t (&a)[N][4]) {
    for (int j = 0; j < N; j++)
        asm volatile("" : "+r"(a[j][0]), "+r"(a[j][1]), "+r"(a[j][2]), "+r"(a[j][3])::"memory");
}

#define WGMMA_D4(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define WGMMA(type_, turned_) \
    asm volatile( \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n" \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." type_ "." type_ " " \
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23," \
        "%24,%25,%26,%27,%28,%29,%30,%31},{%32,%33,%34,%35},%36,p,1,1," turned_ ";\n}\n" \
        : WGMMA_D4(at), WGMMA_D4(at + 1), WGMMA_D4(at + 2), WGMMA_D4(at + 3), WGMMA_D4(at + 4), \
          WGMMA_D4(at + 5), WGMMA_D4(at + 6), WGMMA_D4(at + 7) \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)adds))

/* d[at … at + 7] = or += a · b^T; turned: a · b. */
template <bool IS_F16, bool IS_TURNED, int N>
static __device__ __forceinline__ void wgmma(float (&d)[N][4], int at, const uint32_t (&a)[4],
                                             uint64_t b, bool adds) {
    if (IS_F16 && IS_TURNED)
        WGMMA("f16", "1");
    else if (IS_F16)
        WGMMA("f16", "0");
    else if (IS_TURNED)
        WGMMA("bf16", "1");
    else
        WGMMA("bf16", "0");
}
#undef WGMMA
#undef WGMMA_D4
#endif

#endif
#endif
