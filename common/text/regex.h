/* regex.h - regular expressions of tokenizer.json, through pcre2 (the one door to it).
 *
 * They are written for Oniguruma (Ruby's syntax, Unicode); what it means differently is translated or refused:
 *     \s \S \w \W \h   as lists of properties      [a&&[^b]]   as a look-ahead      [a[b]]   flattened
 *     \uHHHH           as \x{HHHH}                 ^ $         at every line
 *     x{n}+ x{n}?      as (?:x{n})+ and (?:x{n})?
 *     \b \B            as looks at \w on both sides (?m)       as (?s)         [[:punct:]]   as properties
 * Always: the searches of a text are limited in steps together, a step being one try of one item of the pattern or one
 * character that was looked at; so no pattern costs more than some multiple of what it has seen of the text, exponential and
 * square ones included.
 * A limit that is hit is an error, never a wrong answer.
 * Owner: one thread. Subjects must be valid UTF-8. */
#ifndef COMMON_TEXT_REGEX_H
#define COMMON_TEXT_REGEX_H

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/str.h"

enum { BY_REGEX_BYTES_MAX = 1 << 16 };

struct by_regex;

BY_MUST_USE int by_regex_new(struct by_regex **out, struct by_str pattern, struct by_err *err);
void by_regex_free(struct by_regex *r); /* NULL is fine */
/* A text begins: what the one before has used up is forgotten. */
void by_regex_begin(struct by_regex *r);
/* Another part of the text is going to be searched: its bytes count on top. */
void by_regex_next_part(struct by_regex *r);
uint64_t by_regex_steps(const struct by_regex *r); /* of this text so far, for tests */
/* The first match at or after `from`: 1 and [*start, *end), 0 when there is none, or a negative code. */
BY_MUST_USE int by_regex_find(struct by_regex *r, struct by_str s, size_t from, size_t *start,
                              size_t *end, struct by_err *err);
/* Adds text to *out, with `with` in the place of each match; text is another part of the text under way. */
BY_MUST_USE int by_regex_replace(struct by_regex *r, struct by_str text, struct by_str with,
                                 struct by_buf *out, struct by_err *err);

#endif
