/* parse_reasoning.h - what a model thought, apart from what it says.
 *
 *     "<think>\nfirst …\n</think>\n\nHello"  ─▶  reasoning "first …"  ·  content "Hello"
 *
 * Pure, and asked again with more text as it comes. Always: what is given for a text is a beginning of what is given for
 * any longer one, so the difference of two calls is what a stream has to send; what may still become a marker, or blanks
 * before one, is held back until is_end.
 * Owner: nobody; the slices borrow from the text. */
#ifndef ROUTER_PARSE_REASONING_H
#define ROUTER_PARSE_REASONING_H

#include "common/base/str.h"

enum parse_reasoning {
    PARSE_REASONING_NONE,
    PARSE_REASONING_MARKED, /* there is reasoning when the text begins with <think> */
    PARSE_REASONING_ALWAYS, /* the template has opened it: it goes up to </think> */
};

/* The value of --reasoning-parser. */
enum parse_reasoning parse_reasoning_of(const char *name);
void parse_reasoning_split(enum parse_reasoning kind, struct by_str text, bool is_end,
                           struct by_str *reasoning, struct by_str *content);
/* How much of the text can go out when `marker` may follow, blanks before it included. */
size_t parse_reasoning_safe(struct by_str text, struct by_str marker);

#endif
