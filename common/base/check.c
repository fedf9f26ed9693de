#include "common/base/check.h"

#include "common/base/log.h"
#include "common/base/proc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { TRACE_LINES = 64, TRACE_LINE_MAX = 160 };

static char ring[TRACE_LINES][TRACE_LINE_MAX];
static unsigned ring_at;

void by_trace(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(ring[ring_at++ % TRACE_LINES], TRACE_LINE_MAX, fmt, ap);
    va_end(ap);
}

void by_assert_failed(const char *cond, const char *file, int line) {
    by_error("assertion failed: %s (%s:%d); this is a bug in Banyan", cond, file, line);
    unsigned n = BY_MIN(ring_at, TRACE_LINES);
    for (unsigned i = ring_at - n; i != ring_at; i++)
        by_error("trace: %s", ring[i % TRACE_LINES]);
    abort();
}

void by_die(const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    by_proc_last_words(text);
    exit(1);
}
