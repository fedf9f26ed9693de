/* rounding.h - how far products of bf16 numbers may be from the right ones: what the format can lose, and no more.
 *
 *     a factor is rounded to 8 bits:  |error| <= 2^-8 |x|, even within that: its square is (2^-8 x)^2 / 3 on the average, at most
 *     a sum: errors add up at the worst; when they are even, their squares do
 *
 * Always: a weight's own error is taken as it is, none where bf16 holds it. Sums in f32 lose 2^-23 of each term for each term.
 * Owner: the test program. */
#ifndef TESTS_CUDA_ROUNDING_H
#define TESTS_CUDA_ROUNDING_H

#include "tests/kernels/ops_world.h"

/* A number, how far off what stands for it may be, and the square of that on the average. */
struct rounded {
    double value, off, square;
};

/* A row that is normed in f32. */
void rounded_norm(const struct norm *n, const float *x, uint32_t width, struct rounded *out);
/* x · row `out` of the weight + bias (NULL: none), both rounded on their way. */
struct rounded rounded_sum(const struct sample *w, uint32_t out, const struct rounded *x,
                           const float *bias);
struct rounded rounded_act(enum act_kind act, struct rounded x);
struct rounded rounded_gate(enum act_kind act, struct rounded gate, struct rounded up);
struct rounded rounded_scale(struct rounded x, double by);

/* What was seen of many numbers. */
struct roundings {
    double squares, expected;
};
/* Fails for a number that is further off than it may be. */
void rounding_check(struct roundings *r, float got, float want, const struct rounded *may,
                    const char *what);
/* Fails if all together are. */
void roundings_check(const struct roundings *r, const char *what);

#endif
