/* check.h - assertions for our own mistakes, and how a process ends.
 *
 *     by_assert(n_cached <= n_done);        always on; prints the condition and the last trace lines, then aborts
 *     by_slow_assert(radix_check(t));       debug builds and fuzzers only
 *     by_die("no such port: %d", port);     the world is at fault: one line, exit status 1
 *
 * Always: bytes from outside never reach an assert; they get an error.
 * Owner: the process. by_trace keeps the last 64 lines in a ring; it costs one vsnprintf. */
#ifndef COMMON_BASE_CHECK_H
#define COMMON_BASE_CHECK_H

#include "common/base/base.h"

#define by_assert(cond) \
    do { \
        if (BY_UNLIKELY(!(cond))) by_assert_failed(#cond, __FILE__, __LINE__); \
    } while (0)

#ifdef BY_SLOW_CHECKS
#define by_slow_assert(cond) by_assert(cond)
#else
#define by_slow_assert(cond) \
    do { \
        if (0) (void)(cond); \
    } while (0)
#endif

BY_NORETURN void by_assert_failed(const char *cond, const char *file, int line);
BY_NORETURN BY_PRINTF(1, 2) void by_die(const char *fmt, ...);
BY_PRINTF(1, 2) void by_trace(const char *fmt, ...);

#endif
