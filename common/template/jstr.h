/* jstr.h - what is made of a text: the methods of str, and those of them that are filters too.
 *
 *     jstr.c            "name" | title, "name".title()      what methods and filters share
 *     jstr_methods.c    "a,b".split(",")                    all methods, by name
 *
 * Always: characters are counted, never bytes; what a user wrote keeps its mark in what is made of it.
 * Owner: the run; the table is constant. */
#ifndef COMMON_TEMPLATE_JSTR_H
#define COMMON_TEMPLATE_JSTR_H

#include "common/template/jmethod.h"

extern const struct by_jmethod by_jstr_methods[]; /* jstr_methods.c; the last has no name */

/* Is it a str? Else the run fails in the name of who. */
bool by_jstr_need(struct by_jrun *r, const struct by_jval *v, const char *who);
struct by_jval by_jstr_strip(struct by_jrun *r, struct by_jval str, const struct by_jval *chars,
                             int sides); /* 1 left, 2 right */
struct by_jval by_jstr_replace(struct by_jrun *r, struct by_jval str, struct by_jval old,
                               struct by_jval new_, int64_t count);
/* TITLE is str.title, WORDS the filter title. */
enum by_jstr_case {
    BY_JSTR_UPPER,
    BY_JSTR_LOWER,
    BY_JSTR_TITLE,
    BY_JSTR_WORDS,
    BY_JSTR_CAPITALIZE,
    BY_JSTR_SWAP
};
struct by_jval by_jstr_case(struct by_jrun *r, struct by_jval str, enum by_jstr_case to);
struct by_jval by_jstr_pad(struct by_jrun *r, struct by_jval str, int64_t left, int64_t right,
                           struct by_jval fill);

#endif
