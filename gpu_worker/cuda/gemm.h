/* gemm.h - large products of bf16 or FP8 (E4M3) matrices through the vendor's library.
 *
 *     y[m][n_out] = alpha * x[m][n_in] · w[n_out][n_in]^T + beta * y        two of a kind, sums and y in f32
 *
 *     load:  gemm_tune ─ for each class of rows: the library's best guesses, timed ─▶ one algorithm, for good, and into a file
 *     step:  gemm_run ─▶ that of (class of m, n_out, n_in); a shape that was not tuned: the library's first guess
 *
 *     gemm_lt.c   cuBLASLt            gemm_none.c   a build without it opens none, tiles.cu does it all
 *     tests/cuda/gemm_emu.cc   loops            tests/cuda/test_cuda_gemm.c   gemm_lt.c over a library of its own
 *
 * Always: rows of x and w begin at multiples of 16 bytes. Work is enqueued on the port's stream; nothing is allocated on the
 * device, and only gemm_tune waits. What was chosen stays: equal calls of one process give equal bits.
 * Owner: cuda_backend.c, the gpu worker's main thread. Compiles as C++. */
#ifndef GPU_WORKER_CUDA_GEMM_H
#define GPU_WORKER_CUDA_GEMM_H

#include "gpu_worker/cuda/port.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gemm;

enum gemm_kind {
    GEMM_BF16,
    GEMM_F8,        /* as they are, n_out and n_in multiples of 16; sm_89 on */
    GEMM_F8_BLOCKS, /* times a scale of each row's 128 columns; n_in a multiple of 128, m of 4; sm_90 */
};
enum { GEMM_F8_BLOCK = 128 };

struct gemm_call {
    const void *w, *x; /* device */
    float *y;
    const float *w_scales, *x_scales; /* of blocks: [n_in / 128][n_out], [n_in / 128][m] */
    enum gemm_kind kind;
    uint32_t w_ld, x_ld, y_ld; /* in numbers */
    uint32_t n_out, n_in, m;
    float alpha, beta;
};

/* Rows that share an algorithm: powers of two from 16 on, and from 64 on the middle between two; the largest of m's class. */
static inline uint32_t gemm_class_of(uint32_t m) {
    uint32_t c = 16;
    while (c < m)
        c *= 2;
    return c >= 128 && m <= c / 4 * 3 ? c / 4 * 3 : c;
}

size_t gemm_workspace_bytes(void);
struct gemm_place {
    struct port *port;
    void *workspace;     /* so many bytes of the device, the caller's */
    const char *device;  /* its name: choices are of one kind of device */
    const char *choices; /* a file of them, gemm_choices.h; NULL: none */
};
/* *out may become NULL with 0: there is no library. */
BY_MUST_USE int gemm_open(struct gemm **out, const struct gemm_place *at, struct by_err *err);
void gemm_close(struct gemm *g);
/* Chooses for the call and its class of rows, unless that was done. w and x hold real numbers, y is scratch; what lies in the
 * n_cold bytes at cold is cleared before each run, so that it starts from memory and not from a cache. At load. */
BY_MUST_USE int gemm_tune(struct gemm *g, const struct gemm_call *c, void *cold, size_t n_cold);
/* Has the library a way for it? Enqueues nothing. */
bool gemm_serves(struct gemm *g, const struct gemm_call *c);
/* A command of the queue (queue_call): ctx is the gemm, args a struct gemm_call. */
int gemm_run(void *ctx, const void *args);

#ifdef __cplusplus
}
#endif
#endif
