/* bench.h - what every benchmark prints: one CSV line a figure, "name,parameter,value,unit".
 *
 * Always: the fastest of some repeats for short operations (noise only adds), with the median beside it for steps.
 * Owner: nobody; there is no state. */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include "common/base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline void bench_row(const char *name, const char *parameter, double value,
                             const char *unit) {
    printf("%s,%s,%.4g,%s\n", name, parameter, value, unit);
    fflush(stdout);
}

/* What this thread has used of a processor: on a shared machine, what is its own. */
static inline uint64_t bench_cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline int bench_cmp(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The q-quantile of n values; sorts them. */
static inline double bench_quantile(double *values, size_t n, double q) {
    qsort(values, n, sizeof *values, bench_cmp);
    size_t i = (size_t)(q * (double)(n - 1) + 0.5);
    return values[i];
}

#endif
