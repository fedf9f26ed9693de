/* parse_tools.h - tool calls out of a model's text, in the form its family was taught.
 *
 *     "I look.\n<tool_call>{"name": "get", "arguments": {"x": 1}}</tool_call>"  ─▶  content "I look."  ·  get({"x": 1})
 *
 * Pure, and asked again with more text as it comes. Always: what is given for a text is a beginning of what is given for
 * any longer one, so the difference of two calls is what a stream has to send: a call when it is complete, text when it
 * can no longer become one. What looks like a call and is none stays content. Arguments are the model's own bytes,
 * but for those that are no JSON and become it.
 * Owner: the caller; parse_tools_read fills, parse_tools_release frees. Calls lie in the arena. */
#ifndef ROUTER_PARSE_TOOLS_H
#define ROUTER_PARSE_TOOLS_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "router/parse_tools_types.h"

enum { PARSE_TOOLS_MAX = 128 }; /* calls of one answer; later ones stay text */

enum parse_tools {
    PARSE_TOOLS_NONE,
    PARSE_TOOLS_HERMES,   /* <tool_call>{"name", "arguments"}</tool_call> …: Hermes, Qwen */
    PARSE_TOOLS_LLAMA3,   /* {"name", "parameters"}; …, <|python_tag|> may stand before it */
    PARSE_TOOLS_MISTRAL,  /* [TOOL_CALLS] [{"name", "arguments"}, …], or [TOOL_CALLS]name{…} */
    PARSE_TOOLS_DEEPSEEK, /* <｜tool▁call▁begin｜>… of V3, R1 and V3.1 */
    PARSE_TOOLS_PYTHONIC, /* [name(key=value), …] as Python: Llama 3.2, Llama 4 */
    PARSE_TOOLS_JSON, /* the answer is {"name", "arguments"} or a list of these, without a marker */
    PARSE_TOOLS_GEMMA4, /* <|tool_call>call:name{key:<|"|>text<|"|>}<tool_call|> */
    PARSE_TOOLS_FUNCTIONGEMMA, /* <start_function_call>call:name{key:<escape>text<escape>}<end_function_call> */
    PARSE_TOOLS_QWEN3_CODER, /* <tool_call><function=name><parameter=key>value</parameter></function></tool_call> */
    PARSE_TOOLS_GLM45, /* <tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call> */
    PARSE_TOOLS_MINIMAX_M2,  /* <minimax:tool_call><invoke name="…"><parameter name="…">… */
    PARSE_TOOLS_SEED_OSS,    /* as Qwen 3 Coder, within <seed:tool_call> */
    PARSE_TOOLS_DEEPSEEKV32, /* <｜DSML｜function_calls><｜DSML｜invoke name="…"><｜DSML｜parameter name="…" string="true">… */
    PARSE_TOOLS_KIMI_K2, /* <|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{…}<|tool_call_end|> */
    PARSE_TOOLS_LFM2,    /* <|tool_call_start|>[name(key=value)]<|tool_call_end|> */
    PARSE_TOOLS_OLMO3,   /* <function_calls>name(key=value), one a line, </function_calls> */
    PARSE_TOOLS_GRANITE, /* <|tool_call|>[{"name", "arguments"}, …] */
    PARSE_TOOLS_HUNYUAN, /* <tool_calls>[{"name", "arguments"}, …]</tool_calls> */
    PARSE_TOOLS_N,
};

struct parse_tools_call {
    struct by_str name, arguments; /* arguments: JSON text */
};

/* How far an open block was read; its reader's own. */
struct parse_tools_block {
    size_t from;    /* where it begins */
    size_t at;      /* it is read on here */
    size_t n_read;  /* its bytes when all of it was last read */
    uint32_t depth; /* brackets that are open */
    uint8_t state;
};

/* How far a text was read; parse_tools.c's own. */
struct parse_tools_place {
    size_t at;     /* text before it is settled: content or calls */
    size_t from;   /* no mark begins before it; between the two are blanks */
    size_t n_seen; /* bytes of the text */
    bool is_behind_call, may_be_unmarked;
    bool is_open; /* at `from`: a mark, or what needs none, that was not whole */
    struct parse_tools_block block;
};

struct parse_tools_result {
    struct by_buf content;
    struct parse_tools_call calls[PARSE_TOOLS_MAX];
    size_t n_calls;
    size_t n_tried; /* bytes that looked like calls and were none */
    struct by_arena arena;
    const struct parse_tools_types *types; /* borrowed */
    struct parse_tools_place place;
};

/* The value of --tool-call-parser. */
enum parse_tools parse_tools_of(const char *name);
/* Do its arguments not say themselves what they are? */
bool parse_tools_asks_types(enum parse_tools kind);
/* types: NULL is fine. */
void parse_tools_read(enum parse_tools kind, const struct parse_tools_types *types,
                      struct by_str text, bool is_end, struct parse_tools_result *out);
/* The same in steps: the text so far, which begins with the one before; is_end only once. Reads on where it was. */
void parse_tools_init(struct parse_tools_result *out, const struct parse_tools_types *types);
void parse_tools_advance(enum parse_tools kind, struct by_str text, bool is_end,
                         struct parse_tools_result *out);
void parse_tools_release(struct parse_tools_result *r);

#endif
