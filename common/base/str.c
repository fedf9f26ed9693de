#include "common/base/str.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

bool by_str_eq(struct by_str a, struct by_str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool by_str_eqz(struct by_str a, const char *z) {
    return by_str_eq(a, by_str_of(z));
}

bool by_str_ieqz(struct by_str a, const char *z) {
    return strlen(z) == a.n && (a.n == 0 || strncasecmp(a.p, z, a.n) == 0);
}

int by_str_cmp(struct by_str a, struct by_str b) {
    size_t n = BY_MIN(a.n, b.n);
    int d = n ? memcmp(a.p, b.p, n) : 0;
    if (d) return d;
    return (a.n > b.n) - (a.n < b.n);
}

bool by_str_starts(struct by_str s, struct by_str prefix) {
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool by_str_ends(struct by_str s, struct by_str suffix) {
    return s.n >= suffix.n && by_str_eq(by_str_sub(s, s.n - suffix.n, suffix.n), suffix);
}

struct by_str by_str_sub(struct by_str s, size_t from, size_t n) {
    if (from > s.n) from = s.n;
    return (struct by_str){s.p ? s.p + from : NULL, BY_MIN(n, s.n - from)};
}

static bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct by_str by_str_trim(struct by_str s) {
    while (s.n && is_blank(s.p[0]))
        s = by_str_sub(s, 1, s.n);
    while (s.n && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

size_t by_str_find(struct by_str s, struct by_str needle, size_t from) {
    if (from > s.n || needle.n > s.n - from) return SIZE_MAX;
    if (needle.n == 0) return from;
    const char *at = memmem(s.p + from, s.n - from, needle.p, needle.n);
    return at ? (size_t)(at - s.p) : SIZE_MAX;
}

size_t by_str_overlap(struct by_str s, struct by_str mark) {
    size_t n = mark.n ? BY_MIN(s.n, mark.n - 1) : 0;
    while (n && memcmp(s.p + s.n - n, mark.p, n) != 0)
        n--;
    return n;
}

bool by_str_split(struct by_str *rest, char sep, struct by_str *head) {
    const char *at = rest->n ? memchr(rest->p, sep, rest->n) : NULL;
    size_t n = at ? (size_t)(at - rest->p) : rest->n;
    *head = by_str_sub(*rest, 0, n);
    *rest = by_str_sub(*rest, at ? n + 1 : n, rest->n);
    return at != NULL;
}

bool by_str_to_u64(struct by_str s, uint64_t *out) {
    if (s.n == 0 || s.n > 20) return false;
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') return false;
        if (__builtin_mul_overflow(v, 10u, &v)) return false;
        if (__builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v)) return false;
    }
    *out = v;
    return true;
}

bool by_str_to_i64(struct by_str s, int64_t *out) {
    bool is_negative = s.n && s.p[0] == '-';
    uint64_t v;
    if (!by_str_to_u64(is_negative ? by_str_sub(s, 1, s.n) : s, &v)) return false;
    if (v > (uint64_t)INT64_MAX + is_negative) return false;
    *out = (int64_t)(is_negative ? 0 - v : v);
    return true;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool by_str_hex(struct by_str s, size_t at, size_t n, uint32_t *out) {
    uint32_t v = 0;
    if (at > s.n || s.n - at < n || n > 8) return false;
    for (size_t i = at; i < at + n; i++) {
        int digit = hex_digit(s.p[i]);
        if (digit < 0) return false;
        v = v << 4 | (uint32_t)digit;
    }
    *out = v;
    return true;
}

static locale_t c_locale(void) {
    static locale_t c;
    if (!c) c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return c;
}

bool by_str_to_f64(struct by_str s, double *out) {
    char text[128];
    if (s.n == 0 || s.n >= sizeof text) return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!strchr("0123456789+-.eE", s.p[i]) || s.p[i] == '\0') return false;
    }
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    char *end;
    double v = strtod_l(text, &end, c_locale());
    if (end != text + s.n || !isfinite(v)) return false;
    *out = v;
    return true;
}

bool by_str_to_bool(struct by_str s, bool *out) {
    static const char *const yes[] = {"true", "1", "yes", "on"};
    static const char *const no[] = {"false", "0", "no", "off"};
    for (size_t i = 0; i < BY_COUNTOF(yes); i++) {
        *out = by_str_ieqz(s, yes[i]);
        if (*out || by_str_ieqz(s, no[i])) return true;
    }
    return false;
}

uint64_t by_str_hash(struct by_str s) {
    return XXH3_64bits(s.p ? s.p : "", s.n);
}

unsigned by_str_distance(const char *a, const char *b) {
    enum { B_MAX = 64 };
    unsigned line[B_MAX + 1];
    size_t n = BY_MIN(strlen(b), (size_t)B_MAX);
    for (size_t j = 0; j <= n; j++)
        line[j] = (unsigned)j;
    for (size_t i = 0; a[i]; i++) {
        unsigned diagonal = line[0];
        line[0] = (unsigned)i + 1;
        for (size_t j = 0; j < n; j++) {
            unsigned best = BY_MIN(BY_MIN(line[j], line[j + 1]) + 1, diagonal + (a[i] != b[j]));
            diagonal = line[j + 1];
            line[j + 1] = best;
        }
    }
    return line[n];
}
