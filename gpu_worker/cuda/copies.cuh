/* copies.cuh - copies into shared memory that need no registers and go on beside what a thread does.
 *
 *     copy16, copy16 … copies_commit      a group; … copies_wait<N>: all but the newest N groups of this thread are there
 *
 * Always: addresses in shared memory are 32 bits; both ends are multiples of 16. Others see a copy once its thread has waited and
 * all have met (__syncthreads). The emulator's twins are in tests/cuda/emu.h.
 * Owner: nobody. */
#ifndef GPU_WORKER_CUDA_COPIES_CUH
#define GPU_WORKER_CUDA_COPIES_CUH

#include <stdint.h>

#if !defined(BANYAN_CUDA_EMU)
static __device__ __forceinline__ uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* n: 16, or 0 for zeros. */
static __device__ __forceinline__ void copy16(uint32_t to, const void *from, uint32_t n) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(n)
                 : "memory");
}

static __device__ __forceinline__ void copies_commit(void) {
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

template <int N> static __device__ __forceinline__ void copies_wait(void) {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
}
#endif

#endif
