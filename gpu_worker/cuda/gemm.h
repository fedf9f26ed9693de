/* gemm.h - large products of bf16 matrices through the vendor's library.
 *
 *     y[m][n_out] = alpha * x[m][n_in] · w[n_out][n_in]^T + beta * y        bf16 times bf16, sums and y in f32
 *
 *     gemm_lt.c   cuBLASLt: an algorithm for each shape, chosen when it is first met        tests/cuda/gemm_emu.cc   loops
 *
 * Always: rows of x and w begin at multiples of 16 bytes. Work is enqueued on the port's stream; nothing is allocated on the
 * device, nothing waits. A build without the library has
 * gemm_none.c, which opens none: tiles.cu does it all.
 * Owner: cuda_backend.c, the gpu worker's main thread. Compiles as C++. */
#ifndef GPU_WORKER_CUDA_GEMM_H
#define GPU_WORKER_CUDA_GEMM_H

#include "gpu_worker/cuda/port.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gemm;

struct gemm_call {
    const uint16_t *w, *x; /* device */
    float *y;
    uint32_t w_ld, x_ld, y_ld; /* in numbers */
    uint32_t n_out, n_in, m;
    float alpha, beta;
};

size_t gemm_workspace_bytes(void);
/* workspace: so many bytes of the device, the caller's. *out may become NULL with 0: there is no library. */
BY_MUST_USE int gemm_open(struct gemm **out, struct port *p, void *workspace, struct by_err *err);
void gemm_close(struct gemm *g);
/* A command of the queue (queue_call): ctx is the gemm, args a struct gemm_call. */
int gemm_run(void *ctx, const void *args);

#ifdef __cplusplus
}
#endif
#endif
