/* stop.h - finds stop strings in text that comes in pieces, and holds back what may become one.
 *
 *     stop "\n\nUser:"     text "Sure." " \n" "\nUs" "ed it"
 *     released                   Sure.   " "   -      \n\nUsed it          held: no more than the longest beginning
 *
 * One Knuth-Morris-Pratt state for each string: how much of it the text's end already is. What is held is the longest
 * of these; when one is complete, the text before it is released and the rest is void.
 * Always: held back is exactly what some stop string could still begin with; the earliest end wins, of equals the
 * longest string. Pieces of whole characters in give whole characters out.
 * Owner: one sample of detok.c. */
#ifndef DETOKENIZER_STOP_H
#define DETOKENIZER_STOP_H

#include "common/base/buf.h"

struct stop;

/* NULL when no string is left to look for (empty ones are none). Copies the strings. */
struct stop *stop_new(const struct by_str *strings, uint32_t n);
void stop_free(struct stop *s); /* NULL is fine */
/* Appends what is certain to out. True: a stop string is complete; what was behind it is dropped, and so is the string
 * unless keeps_match. Nothing may be fed afterwards. */
bool stop_feed(struct stop *s, struct by_str text, bool keeps_match, struct by_buf *out);
void stop_finish(struct stop *s,
                 struct by_buf *out);             /* appends what was held: the text has ended */
struct by_str stop_matched(const struct stop *s); /* after stop_feed said true; borrowed */
size_t stop_n_held(const struct stop *s);

#endif
