#include "router/trace_context.h"

#include "common/base/rand.h"

#include <stdio.h>

enum { VERSION_AT = 0, TRACE_AT = 3, SPAN_AT = 36, FLAGS_AT = 53, N_ALL = 55 };

/* n lower-case hexadecimal digits, of which one is not 0 unless zero will do. */
static bool is_hex(const char *p, size_t n, bool may_be_zero) {
    bool any = may_be_zero;
    for (size_t i = 0; i < n; i++) {
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f'))) return false;
        any |= p[i] != '0';
    }
    return any;
}

static bool is_valid(struct by_str h) {
    if (h.n < N_ALL || !is_hex(h.p + VERSION_AT, 2, true)) return false;
    bool is_first_version = h.p[0] == '0' && h.p[1] == '0';
    if (h.p[0] == 'f' && h.p[1] == 'f') return false;
    /* later ones may be longer */
    if (h.n > N_ALL && (is_first_version || h.p[N_ALL] != '-')) return false;
    return h.p[TRACE_AT - 1] == '-' && h.p[SPAN_AT - 1] == '-' && h.p[FLAGS_AT - 1] == '-' &&
           is_hex(h.p + TRACE_AT, 32, false) && is_hex(h.p + SPAN_AT, 16, false) &&
           is_hex(h.p + FLAGS_AT, 2, true);
}

void trace_context_follow(struct by_str header, struct trace_context *out) {
    *out = (struct trace_context){0};
    if (!is_valid(header)) return;
    snprintf(out->text, sizeof out->text, "00-%.32s-%016llx-%.2s", header.p + TRACE_AT,
             (unsigned long long)(by_rand_u64() | 1), header.p + FLAGS_AT);
}
