/* ops_world.h - what tests of the op table share: seeded numbers, weights of every format, references in double.
 *
 *     struct world { backend under test, the same on portable C }      references use dtype.h and plain loops only
 *
 * Always: one program, run once an instruction set (its name is the first argument); a test's numbers come from its name and
 * SEED, so that they do not depend on the tests before it.
 * Owner: the test program. */
#ifndef TESTS_KERNELS_OPS_WORLD_H
#define TESTS_KERNELS_OPS_WORLD_H

#include "gpu_worker/cpu/cpu_backend.h"
#include "tests/unit/test.h"

struct world {
    struct backend *b;        /* under test, 2 lanes */
    struct backend *one;      /* the same with 1 lane */
    struct backend *portable; /* 1 lane */
    enum cpu_isa isa;
};
extern struct world world;

/* A group of tests, each with its own numbers; of one that is seeded *state is its name. */
int world_tests(const char *group, const struct CMUnitTest *tests, size_t n,
                CMFixtureFunction set_up, CMFixtureFunction tear_down);
#define WORLD_TESTS(group, tests, set_up, tear_down) \
    world_tests((group), (tests), BY_COUNTOF(tests), (set_up), (tear_down))
int world_main(int argc, char **argv, const struct CMUnitTest *tests, size_t n);

uint64_t world_random(void);
float world_float(void); /* about normal, 0 ± 1 */
void world_floats(float *out, size_t n, float size);
uint32_t world_below(uint32_t n);

/* A weight's numbers in the form of a file: rows of n_in elements of dtype, all finite. */
struct sample {
    struct weight_source src; /* ctx: this struct */
    uint8_t *bytes;
    size_t row_bytes;
    float *values; /* [n_out, n_in] what the bytes mean */
};
struct sample *sample_new(enum by_dtype t, uint32_t n_out, uint32_t n_in);
void sample_free(struct sample *m);
struct weight *sample_weight(struct backend *b, const struct sample *m); /* asserts success */

/* Backend memory filled with random f32; NaN everywhere outside is up to the caller. */
float *world_room(struct backend *b, size_t n, float fill);

/* x as the int8 path sees it: every 32 columns rounded to s * (-127 … 127), in double. */
void int8_values(const float *x, uint32_t n, double *out);
double act_of(enum act_kind act, double x);
/* A norm of random numbers of up to WORLD_NORM_MAX columns; number i of x, normed. */
enum { WORLD_NORM_MAX = 150 };
struct norm world_norm_new(enum norm_kind kind, uint32_t width, bool has_bias);
void world_norm_free(struct norm *n);
double world_norm_of(const struct norm *n, const float *x, uint32_t width, uint32_t i);
/* Output o of m · x, bias added. */
double world_product_of(const struct sample *m, const double *x, uint32_t o);

/* Runs an op on all lanes of b: world_run(b, offsetof(struct backend, linear), &op). */
void world_run(struct backend *b, size_t member, const void *op);
#define RUN_OP(b, name, op) world_run((b), offsetof(struct backend, name), (op))
/* The same by one lane that is solo, the others idle. */
void world_run_solo(struct backend *b, size_t member, const void *op);
#define RUN_OP_SOLO(b, name, op) world_run_solo((b), offsetof(struct backend, name), (op))

void assert_same_bits(const float *a, const float *b, size_t n, const char *what);
/* |got - want| <= tolerance * size, size: what the sum of magnitudes is about */
void assert_near(double got, double want, double tolerance, double size, const char *what);

#endif
