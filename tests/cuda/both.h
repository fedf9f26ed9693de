/* both.h - one op on two backends: portable C with exact activations, which is right, and the CUDA one under test.
 *
 *     pair: the same numbers in the memory of both          BOTH(op, &on_cpu, &on_gpu) ─▶ pair_check
 *
 * Always: the backends are those of the group of tests that runs (both_set_up … both_tear_down).
 * Owner: the test program. */
#ifndef TESTS_CUDA_BOTH_H
#define TESTS_CUDA_BOTH_H

#include "gpu_worker/cuda/cuda.h"
#include "tests/kernels/ops_world.h"

extern struct backend *cpu, *gpu;

/* Fixtures of a group; the other way round the lanes and warps of each block: a missing barrier shows in one of the two. From
 * the reversed one on there is no library for products, until the program ends or BANYAN_EMU_GEMM is unset. */
int both_set_up(void **state);
int both_set_up_reversed(void **state);
int both_tear_down(void **state);

struct pair {
    float *cpu, *gpu;
    size_t n;
};
struct pair pair_new(size_t n, float size);
struct pair pair_of(const float *x, size_t n);
void pair_free(struct pair *p);
/* The largest difference as a share of what the right numbers are about. */
void pair_check(const struct pair *p, double tolerance, const char *what);

/* Runs the op on both: X is the name of a local pair of ops. */
#define BOTH(op, on_cpu, on_gpu) \
    do { \
        RUN_OP(cpu, op, on_cpu); \
        RUN_OP(gpu, op, on_gpu); \
    } while (0)

struct both_norms {
    struct norm cpu, gpu;
    struct pair w, b;
};
struct both_norms norms_new(enum norm_kind kind, uint32_t n);
void norms_free(struct both_norms *s);

struct both_weights {
    struct sample *sample;
    struct weight *cpu, *gpu;
    float *bias;
};
struct both_weights weights_new(enum by_dtype t, uint32_t n_out, uint32_t n_in, bool is_gated,
                                bool has_bias);
void weights_free(struct both_weights *w);

#endif
