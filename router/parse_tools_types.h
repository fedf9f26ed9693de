/* parse_tools_types.h - of which types the arguments of tools may be, for families that write a number as they write a text.
 *
 *     tools: get(n: integer, s: string)     <parameter=n>5</parameter>  ─▶  "n": 5      <parameter=s>5</parameter>  ─▶  "s": "5"
 *
 * Always: sorted by function and key; what is not of there, or is said in a way that is not looked into, is of unknown type: then what
 * reads as JSON is that. TYPES_MAX arguments are known.
 * Owner: the request; rows lie in its arena. */
#ifndef ROUTER_PARSE_TOOLS_TYPES_H
#define ROUTER_PARSE_TOOLS_TYPES_H

#include "common/base/arena.h"
#include "common/base/buf.h"

enum { PARSE_TOOLS_TYPES_MAX = 4096 };

struct by_json;
struct parse_tools_type {
    struct by_str function, key;
    unsigned types; /* bits of enum by_json_type; 0: unknown */
};
struct parse_tools_types {
    struct parse_tools_type *rows;
    size_t n;
};

/* tools: as OpenAI lists them. Names are copied. */
void parse_tools_types_read(struct parse_tools_types *t, const struct by_json *tools,
                            struct by_arena *arena);
unsigned parse_tools_types_of(const struct parse_tools_types *t, struct by_str function,
                              struct by_str key);
/* A value that was written without quotes, as JSON. */
void parse_tools_types_add(struct by_buf *out, struct by_str text, unsigned types);

#endif
