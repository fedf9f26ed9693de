/* buf.h - growing bytes with a mandatory ceiling.
 *
 *     +------------------+----------------+
 *     | n bytes, then \0 | room up to cap |      n <= max
 *     +------------------+----------------+
 *
 * Appends never fail one by one: going over `max` sets `is_full`, later appends do nothing, and the caller asks
 * once at the end (curl's toobig).
 * Always: n <= max; the bytes are followed by a NUL that is not counted.
 * Owner: the caller; init/release, or take the bytes with by_buf_take. */
#ifndef COMMON_BASE_BUF_H
#define COMMON_BASE_BUF_H

#include "common/base/str.h"

struct by_buf {
    char *p;
    size_t n;     /* bytes used */
    size_t cap;   /* bytes allocated */
    size_t max;   /* ceiling for n */
    bool is_full; /* an append did not fit */
};

void by_buf_init(struct by_buf *b, size_t max);
void by_buf_release(struct by_buf *b);
void by_buf_clear(struct by_buf *b); /* n = 0, is_full = false; memory stays */
void by_buf_add(struct by_buf *b, const void *p, size_t n);
void by_buf_add_str(struct by_buf *b, struct by_str s);
void by_buf_addz(struct by_buf *b, const char *z);
void by_buf_addc(struct by_buf *b, char c);
void by_buf_add_u64(struct by_buf *b, uint64_t v); /* decimal */
BY_PRINTF(2, 3) void by_buf_addf(struct by_buf *b, const char *fmt, ...);
/* s as a JSON string, quotes included; invalid UTF-8 becomes U+FFFD. */
void by_buf_add_json_str(struct by_buf *b, struct by_str s);
/* v as a JSON number, the shortest text that reads back as the same double; NaN and infinities become null. */
void by_buf_add_json_f64(struct by_buf *b, double v);
/* The same of a float, which takes half as many digits; for lists of them: some 50 ns each. */
void by_buf_add_json_f32(struct by_buf *b, float v);
/* Room for n more bytes, to be filled by the caller who then adds to b->n; NULL when it would pass max. */
BY_MUST_USE char *by_buf_reserve(struct by_buf *b, size_t n);
void by_buf_drop_front(struct by_buf *b, size_t n); /* forgets the first n bytes */
/* the bytes are yours (by_free); b is empty again */
BY_MUST_USE char *by_buf_take(struct by_buf *b, size_t *n);
static inline struct by_str by_buf_str(const struct by_buf *b) {
    return (struct by_str){b->p, b->n};
}

#endif
