/* stop.h - finds stop strings and patterns in text that comes in pieces, and holds back what may become one.
 *
 *     stop "\n\nUser:"     text "Sure." " \n" "\nUs" "ed it"
 *     released                   Sure.   " "   -      \n\nUsed it          held: no more than the longest beginning
 *
 * One Knuth-Morris-Pratt state for each string: how much of it the text's end already is. What is held is the longest
 * of these; when one is complete, the text before it is released and the rest is void. A pattern (stop_regex) is an
 * automaton that knows where its earliest match in the making began (common/text/pattern.h).
 * Always: held back is exactly what some stop string or pattern could still become; the earliest end wins, of
 * equals the longest match. Pieces of whole characters in give whole characters out.
 * Owner: one sample of detok.c. */
#ifndef DETOKENIZER_STOP_H
#define DETOKENIZER_STOP_H

#include "common/base/buf.h"

struct stop;

struct stop_wants {
    const struct by_str *strings, *regexes;
    uint32_t n_strings, n_regexes;
};
/* NULL when nothing is left to look for: empty strings are none, nor are patterns that no worker would have let through.
 * Copies both. */
struct stop *stop_new(const struct stop_wants *w);
void stop_free(struct stop *s); /* NULL is fine */
/* Appends what is certain to out. True: a stop string is complete; what was behind it is dropped, and so is the string
 * unless keeps_match. Nothing may be fed afterwards. */
bool stop_feed(struct stop *s, struct by_str text, bool keeps_match, struct by_buf *out);
/* The text has ended: appends what was held. True: that was what some pattern waited for (\Z, \b). */
bool stop_finish(struct stop *s, bool keeps_match, struct by_buf *out);
/* After stop_feed or stop_finish said true: the string, or the text of the pattern; borrowed. */
struct by_str stop_matched(const struct stop *s);
size_t stop_n_held(const struct stop *s);

#endif
