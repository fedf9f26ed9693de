/* jlex.h - template text into tokens, with Jinja's whitespace rules already applied.
 *
 *     "Hi {{- name }}\n"  ->  DATA "Hi" · VAR_BEGIN · NAME name · VAR_END · DATA "\n"
 *
 * The rules are those transformers sets: trim_blocks (one newline behind %} and #} goes), lstrip_blocks (blanks
 * between the start of a line and {% or {# go), no trailing newline kept, and - or + at a tag overrides.
 * Always: the list ends with EOF; brackets inside a tag are balanced; strings are decoded; every token has its line.
 * Owner: the program's arena, where all token text lies. */
#ifndef COMMON_TEMPLATE_JLEX_H
#define COMMON_TEMPLATE_JLEX_H

#include "common/base/arena.h"
#include "common/base/err.h"

enum by_jtok_type {
    BY_JTOK_EOF,
    BY_JTOK_DATA,
    BY_JTOK_VAR_BEGIN,
    BY_JTOK_VAR_END,
    BY_JTOK_BLOCK_BEGIN,
    BY_JTOK_BLOCK_END,
    BY_JTOK_NAME,
    BY_JTOK_STRING,
    BY_JTOK_INT,
    BY_JTOK_FLOAT,
    BY_JTOK_OP, /* text is the operator: "+" "//" "==" … */
};

struct by_jtok {
    enum by_jtok_type type;
    uint32_t line;
    struct by_str text;
};
struct by_jlex_tokens {
    struct by_jtok *at;
    size_t n, cap;
};

/* source must be valid UTF-8. Errors name the line. */
BY_MUST_USE int by_jlex(struct by_arena *a, struct by_str source, struct by_jlex_tokens *out,
                        struct by_err *err);

#endif
