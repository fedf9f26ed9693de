/* lt_loops.h - a cuBLASLt for tests: calls and structs are the real header's, products are loops, and the time of an algorithm is
 * the number of commands that it gives to the emulated device.
 *
 *     gemm_lt.c ─cublasLtMatmulAlgoGetHeuristic▶ 0 … n_guesses - 1      ─cublasLtMatmul▶ cost[algorithm] commands, and the product
 *
 * Always: a description that gemm_lt.c should not make fails the test.
 * Owner: the test program, which says what is offered and reads what was asked. */
#ifndef TESTS_CUDA_LT_LOOPS_H
#define TESTS_CUDA_LT_LOOPS_H

#include "gpu_worker/cuda/port.h"

enum { LT_LOOPS_N = 4 }; /* algorithms */

/* What it offers, what it was asked for. */
struct lt_loops {
    uint32_t cost[LT_LOOPS_N]; /* commands; 0: it is offered and cannot be carried out */
    uint32_t n_guesses, n_asked, n_run, last;
    uint64_t refuses; /* rows for which no algorithm serves but one that was asked for with them */
    struct port *port;
    uint8_t *scratch;
    size_t version;
};
extern struct lt_loops lt_loops;

#endif
