/* normalize.h - rewrites text before it is cut: tokenizer.json's "normalizer".
 *
 *     "Ｈello  World" ─NFKC▶ "Hello  World" ─Lowercase▶ "hello  world" ─Replace {2,}▶ "hello world"
 *
 * Always: valid UTF-8 in, valid UTF-8 out; linear time. The result is the input itself when nothing changes.
 * What is done and what is refused: README's table.
 * Owner: one thread (the results lie in scratch space, until the next call). */
#ifndef COMMON_TEXT_NORMALIZE_H
#define COMMON_TEXT_NORMALIZE_H

#include "common/base/json.h"
#include "common/text/unicode.h"

enum { BY_NORMALIZE_STEPS_MAX = 32 };

struct by_normalize;

/* j: the "normalizer" value; null or missing makes one that changes nothing. u must outlive it. */
BY_MUST_USE int by_normalize_parse(struct by_normalize **out, const struct by_json *j,
                                   const struct by_uni *u, struct by_err *err);
void by_normalize_free(struct by_normalize *z); /* NULL is fine */
/* A text begins, whatever its parts: what it may take starts anew (regex.h). */
void by_normalize_begin(struct by_normalize *z);
/* *out is `text` or borrowed until the next call. BY_ELIMIT when it grows past `max`. */
BY_MUST_USE int by_normalize_run(struct by_normalize *z, struct by_str text, size_t max,
                                 struct by_str *out, struct by_err *err);

#endif
