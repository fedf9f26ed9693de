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
    PARSE_REASONING_MARKED,  /* there is reasoning when the text begins with <think> */
    PARSE_REASONING_ALWAYS,  /* the template has opened it: it goes up to </think> */
    PARSE_REASONING_ASKED,   /* the template opens it where the request asks for that */
    PARSE_REASONING_GEMMA4,  /* <|channel>thought … <channel|> */
    PARSE_REASONING_SEED,    /* <seed:think> … </seed:think> */
    PARSE_REASONING_MISTRAL, /* [THINK] … [/THINK] */
    PARSE_REASONING_HUNYUAN, /* <think> … </think><answer> … </answer> */
    PARSE_REASONING_GRANITE, /* <think> … </think><response> … </response> */
    PARSE_REASONING_ERNIE,   /* the same, and the template has opened it */
    PARSE_REASONING_N,
};

/* Zeroed at first, then given again with longer texts: what was seen is not searched again. */
struct parse_reasoning_parts {
    struct by_str reasoning, content;
    size_t end_from, answer_from; /* no mark of these begins before it */
};

/* The value of --reasoning-parser. */
enum parse_reasoning parse_reasoning_of(const char *name);
/* The same for a request that says whether it wants to think: 1, or not: 0; -1: it says nothing. */
enum parse_reasoning parse_reasoning_when(enum parse_reasoning kind, int thinks);
/* Its marks are special tokens, which leave no text if that is not asked for. */
bool parse_reasoning_is_special(enum parse_reasoning kind);
void parse_reasoning_split(enum parse_reasoning kind, struct by_str text, bool is_end,
                           struct parse_reasoning_parts *p);

#endif
