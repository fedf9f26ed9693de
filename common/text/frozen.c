#include "common/text/frozen.h"

enum { ALIGN = 64 };

static void pad(struct by_buf *out) {
    static const char zeros[ALIGN] = {0};
    by_buf_add(out, zeros, (ALIGN - out->n % ALIGN) % ALIGN);
}

void by_freeze(struct by_buf *out, const void *p, size_t n, size_t each) {
    uint64_t count = n;
    by_buf_add(out, &count, sizeof count);
    pad(out);
    if (n) by_buf_add(out, p, n * each);
    pad(out);
}

static size_t aligned(size_t at) {
    return (at + ALIGN - 1) / ALIGN * ALIGN;
}

const void *by_thaw(struct by_thaw *t, size_t each, size_t *n) {
    static const uint64_t nothing[ALIGN / 8] = {0};
    uint64_t count = 0;
    *n = 0;
    if (!t->is_bad && t->at <= t->bytes.n && t->bytes.n - t->at >= ALIGN)
        memcpy(&count, t->bytes.p + t->at, sizeof count);
    else
        t->is_bad = true;
    size_t from = t->at + ALIGN;
    if (t->is_bad || count > (t->bytes.n - from) / each) {
        t->is_bad = true;
        return nothing;
    }
    t->at = aligned(from + (size_t)count * each);
    *n = (size_t)count;
    return t->bytes.p + from;
}

const void *by_thaw_n(struct by_thaw *t, size_t each, size_t n) {
    size_t found;
    const void *p = by_thaw(t, each, &found);
    if (found != n) t->is_bad = true;
    return p;
}

struct by_str by_thaw_str(struct by_thaw *t) {
    size_t n;
    const char *p = by_thaw(t, 1, &n);
    return (struct by_str){p, n};
}

void by_thaw_one(struct by_thaw *t, void *out, size_t size) {
    const void *p = by_thaw_n(t, size, 1);
    if (t->is_bad)
        memset(out, 0, size);
    else
        memcpy(out, p, size);
}
