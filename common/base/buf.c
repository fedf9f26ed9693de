#include "common/base/buf.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { FIRST_CAP = 64 };

void by_buf_init(struct by_buf *b, size_t max) {
    *b = (struct by_buf){.max = max};
}

void by_buf_release(struct by_buf *b) {
    by_free(b->p);
    *b = (struct by_buf){.max = b->max};
}

void by_buf_clear(struct by_buf *b) {
    b->n = 0;
    b->is_full = false;
    if (b->p) b->p[0] = '\0';
}

char *by_buf_reserve(struct by_buf *b, size_t n) {
    if (b->is_full || n > b->max - b->n) {
        b->is_full = true;
        return NULL;
    }
    size_t need = b->n + n + 1; /* the NUL */
    if (need > b->cap) {
        size_t cap = BY_MAX(b->cap * 2, (size_t)FIRST_CAP);
        cap = BY_MAX(cap, need);
        b->p = by_realloc(b->p, cap);
        b->cap = cap;
    }
    b->p[b->n + n] = '\0';
    return b->p + b->n;
}

void by_buf_add(struct by_buf *b, const void *p, size_t n) {
    char *to = by_buf_reserve(b, n);
    if (!to) return;
    if (n) memcpy(to, p, n);
    b->n += n;
}

void by_buf_add_str(struct by_buf *b, struct by_str s) {
    by_buf_add(b, s.p, s.n);
}

void by_buf_addz(struct by_buf *b, const char *z) {
    by_buf_add(b, z, strlen(z));
}

void by_buf_addc(struct by_buf *b, char c) {
    by_buf_add(b, &c, 1);
}

void by_buf_add_u64(struct by_buf *b, uint64_t v) {
    char digits[20];
    size_t n = sizeof digits;
    do {
        digits[--n] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    by_buf_add(b, digits + n, sizeof digits - n);
}

void by_buf_addf(struct by_buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *to = n < 0 ? NULL : by_buf_reserve(b, (size_t)n);
    if (!to) return;
    va_start(ap, fmt);
    vsnprintf(to, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->n += (size_t)n;
}

static void add_json_char(struct by_buf *b, unsigned char c) {
    static const char short_of[0x20] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    if (c == '"' || c == '\\') {
        by_buf_addc(b, '\\');
        by_buf_addc(b, (char)c);
    } else if (c < 0x20 && short_of[c]) {
        by_buf_addc(b, '\\');
        by_buf_addc(b, short_of[c]);
    } else {
        char code[] = "\\u00xx";
        code[4] = "0123456789abcdef"[c >> 4];
        code[5] = "0123456789abcdef"[c & 15];
        by_buf_add(b, code, 6);
    }
}

void by_buf_add_json_str(struct by_buf *b, struct by_str s) {
    by_buf_addc(b, '"');
    size_t i = 0;
    while (i < s.n) {
        size_t run = i;
        while (run < s.n) { /* plain ASCII goes in one copy */
            unsigned char c = (unsigned char)s.p[run];
            if (c < 0x20 || c > 0x7f || c == '"' || c == '\\') break;
            run++;
        }
        by_buf_add(b, s.p + i, run - i);
        i = run;
        if (i == s.n) break;
        if ((unsigned char)s.p[i] < 0x80) {
            add_json_char(b, (unsigned char)s.p[i++]);
            continue;
        }
        size_t len;
        bool is_bad = by_utf8_decode(s.p + i, s.n - i, &len) == BY_UTF8_BAD;
        by_buf_add_str(b, is_bad ? BY_STR("\xEF\xBF\xBD") : by_str_sub(s, i, len));
        i += len;
    }
    by_buf_addc(b, '"');
}

void by_buf_add_json_f64(struct by_buf *b, double v) {
    char text[40];
    if (!isfinite(v)) {
        by_buf_addz(b, "null");
        return;
    }
    if (v == floor(v) && fabs(v) < 9007199254740992.0) {
        by_buf_addf(b, "%.0f", v == 0 ? 0.0 : v);
        return;
    }
    for (int digits = DBL_DIG; digits <= 17; digits++) { /* what fewer say, these say as well */
        snprintf(text, sizeof text, "%.*g", digits, v);
        double back;
        if (by_str_to_f64(by_str_of(text), &back) && back == v) break;
    }
    by_buf_addz(b, text);
}

static void add_far_f32(struct by_buf *b, float v) {
    char text[40];
    for (int digits = FLT_DIG; digits <= FLT_DECIMAL_DIG; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v) break;
    }
    by_buf_addz(b, text);
}

/* n / 10^n_behind */
static void add_decimal(struct by_buf *b, uint64_t n, int n_behind) {
    char text[24];
    size_t at = sizeof text;
    for (int i = 0; n || i <= n_behind; i++) {
        if (i && i == n_behind) text[--at] = '.';
        text[--at] = (char)('0' + n % 10);
        n /= 10;
    }
    by_buf_add(b, text + at, sizeof text - at);
}

/* 9 digits always read back as the same float (FLT_DECIMAL_DIG), and a double holds that many, times a power of ten, without
 * a loss: so the fewest that do are found by products and quotients. */
void by_buf_add_json_f32(struct by_buf *b, float v) {
    static const double tens[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6, 1e7,
                                  1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14};
    double a = fabs((double)v);
    if (!isfinite(a)) {
        by_buf_addz(b, "null");
        return;
    }
    if (a != 0 && (a < 1e-5 || a >= 1e8)) {
        add_far_f32(b, v);
        return;
    }
    int n_behind = FLT_DECIMAL_DIG;
    for (int i = 0; a >= tens[i]; i++)
        n_behind--;
    for (double x = a * 10; x < 1 && a != 0; x *= 10)
        n_behind++;
    while (n_behind > 0 && (float)(round(a * tens[n_behind - 1]) / tens[n_behind - 1]) == (float)a)
        n_behind--;
    if (v < 0) by_buf_addc(b, '-');
    add_decimal(b, (uint64_t)round(a * tens[n_behind]), n_behind);
}

void by_buf_drop_front(struct by_buf *b, size_t n) {
    if (n > b->n) n = b->n;
    if (n == 0) return;
    memmove(b->p, b->p + n, b->n - n + 1);
    b->n -= n;
}

char *by_buf_take(struct by_buf *b, size_t *n) {
    char *p = by_buf_reserve(b, 0) ? b->p : NULL;
    if (!p) p = b->p ? b->p : by_strdup("");
    if (n) *n = b->n;
    *b = (struct by_buf){.max = b->max};
    return p;
}
