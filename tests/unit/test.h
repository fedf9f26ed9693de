/* test.h - cmocka with a name for each behaviour.
 *
 *     TEST(split_keeps_both_halves) { … }        TESTS(RUN(split_keeps_both_halves), …)
 *
 * Always: a test asserts something; random tests take their seed from SEED (environment) and print it.
 * Owner: the test program. */
#ifndef TESTS_UNIT_TEST_H
#define TESTS_UNIT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/str.h"

#define TEST(name) static void name(void **state_)
#define RUN(name) cmocka_unit_test(name)
#define TESTS(...) \
    int main(void) { \
        const struct CMUnitTest tests_[] = {__VA_ARGS__}; \
        return cmocka_run_group_tests(tests_, NULL, NULL); \
    } \
    static_assert(sizeof(void *) == 8, "")
#define UNUSED_STATE (void)state_

static inline uint64_t test_seed(void) {
    const char *text = getenv("SEED");
    uint64_t seed = 1;
    if (text && !by_str_to_u64(by_str_of(text), &seed)) fail_msg("SEED=%s is no number", text);
    print_message("seed: SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

#endif
