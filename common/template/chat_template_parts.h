/* chat_template_parts.h - what chat_template.c found and parsed, for chat_prompt.c, which renders it.
 *
 * Always: nothing in it changes once it is parsed.
 * Owner: the tokenizer worker, one thread. */
#ifndef COMMON_TEMPLATE_CHAT_TEMPLATE_PARTS_H
#define COMMON_TEMPLATE_CHAT_TEMPLATE_PARTS_H

#include "common/base/arena.h"
#include "common/template/jast.h"

enum { SPECIAL_MAX = 64 };

struct by_chat_special { /* a variable that every run sees: bos_token … */
    struct by_str name, value;
};

/* The numbers that a program gave to the variables set for it. */
enum { VAR_MESSAGES, VAR_TOOLS, VAR_DOCUMENTS, VAR_ADDS, N_VARS };
struct by_chat_vars {
    bool is_asked[N_VARS], asks_special[SPECIAL_MAX];
    uint32_t at[N_VARS], special[SPECIAL_MAX];
};

struct by_chat_template {
    struct by_jprog prog, tool_prog;
    struct by_chat_vars vars, tool_vars;
    struct by_str source;
    bool has_tool_prog;
    struct by_arena arena; /* the special tokens */
    struct by_chat_special special[SPECIAL_MAX];
    uint32_t n_special;
};

#endif
