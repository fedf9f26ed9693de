/* json_pull.h - reads big JSON in one pass without building a tree: a tokenizer.json has a million values.
 *
 *     by_pull_object(p);  while (by_pull_key(p, &key)) { if (key is "vocab") …; else by_pull_skip(p, &raw); }
 *     by_pull_array(p);   while (by_pull_item(p)) { by_pull_str(p, &b, &s); … }
 *
 * Always: the first mistake stops everything: later calls return false or an empty value, and the caller asks once,
 * at the end, with by_pull_error. Small values are skipped over and given to json.h as a slice.
 * Owner: the caller; the text must outlive what is borrowed from it. */
#ifndef COMMON_TEXT_JSON_PULL_H
#define COMMON_TEXT_JSON_PULL_H

#include "common/base/buf.h"
#include "common/base/err.h"

enum { BY_PULL_DEPTH_MAX = 64 };

struct by_pull {
    struct by_str text; /* valid UTF-8 */
    size_t i;
    unsigned depth;
    bool is_fresh[BY_PULL_DEPTH_MAX + 1]; /* no member of this object or array was read yet */
    bool is_bad;
    struct by_err err;
};

void by_pull_init(struct by_pull *p, struct by_str text);
char by_pull_peek(struct by_pull *p);   /* first byte of the next value; \0 at the end */
bool by_pull_object(struct by_pull *p); /* enters */
bool by_pull_array(struct by_pull *p);
/* The next member's key, behind which its value must be read; false at the end, which is taken. Borrowed from
 * scratch or the text until scratch changes. */
bool by_pull_key(struct by_pull *p, struct by_buf *scratch, struct by_str *key);
/* is there a next value in this array? false at its end, which is taken */
bool by_pull_item(struct by_pull *p);
/* A string; its bytes lie in the text, or in scratch when it has escapes. */
bool by_pull_str(struct by_pull *p, struct by_buf *scratch, struct by_str *out);
bool by_pull_i64(struct by_pull *p, int64_t *out);
bool by_pull_f64(struct by_pull *p, double *out);
bool by_pull_skip(struct by_pull *p, struct by_str *raw); /* any value; raw may be NULL */
bool by_pull_at_end(struct by_pull *p);                   /* nothing but white space is left */
/* 0, or the first mistake's code with err filled: "byte 123: expected …". */
BY_MUST_USE int by_pull_error(const struct by_pull *p, struct by_err *err);
/* the caller's own mistake, at this place; always false */
bool by_pull_fail(struct by_pull *p, const char *what);

#endif
