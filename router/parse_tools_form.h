/* parse_tools_form.h - a form of tool calls, as the walk of parse_tools.c knows it: a reader of what stands behind its mark.
 *
 *     text <mark>block …  ─ reader ─▶  CALL or TEXT, and where the block ends  ·  UNSURE: it may go on
 *
 * Always: but for UNSURE, what is said of a text is said of any longer one. CALL has pushed one call or more, the others none. Each byte
 * of a block is looked at a few times at most, however many pieces it comes in: what was reached is in the block's place.
 * Owner: parse_tools.c and the readers; nobody else includes this. */
#ifndef ROUTER_PARSE_TOOLS_FORM_H
#define ROUTER_PARSE_TOOLS_FORM_H

#include "router/parse_tools.h"

enum parse_tools_verdict { PARSE_TOOLS_CALL, PARSE_TOOLS_TEXT, PARSE_TOOLS_UNSURE };
enum { PARSE_TOOLS_NAME_MAX = 256 }; /* bytes of a name; what is longer is none */
/* Bytes read for nothing: text full of '[', or of objects without an end, ends being tried. */
enum { PARSE_TOOLS_TRIED_MAX = 4 << 20 };

/* The readers. Each has the block that begins at `at`, behind its mark. *end: behind it, or where text that is no call was read up to. */
enum parse_tools_verdict parse_tools_hermes(struct by_str s, size_t at, bool is_end, size_t *end,
                                            struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_llama3(struct by_str s, size_t at, bool is_end, size_t *end,
                                            struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_mistral(struct by_str s, size_t at, bool is_end, size_t *end,
                                             struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_deepseek(struct by_str s, size_t at, bool is_end, size_t *end,
                                              struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_pythonic(struct by_str s, size_t at, bool is_end, size_t *end,
                                              struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_gemma4(struct by_str s, size_t at, bool is_end, size_t *end,
                                            struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_functiongemma(struct by_str s, size_t at, bool is_end,
                                                   size_t *end, struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_qwen3_coder(struct by_str s, size_t at, bool is_end,
                                                 size_t *end, struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_glm45(struct by_str s, size_t at, bool is_end, size_t *end,
                                           struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_minimax_m2(struct by_str s, size_t at, bool is_end,
                                                size_t *end, struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_seed_oss(struct by_str s, size_t at, bool is_end, size_t *end,
                                              struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_deepseekv32(struct by_str s, size_t at, bool is_end,
                                                 size_t *end, struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_kimi_k2(struct by_str s, size_t at, bool is_end, size_t *end,
                                             struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_list(struct by_str s, size_t at, bool is_end, size_t *end,
                                          struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_lfm2(struct by_str s, size_t at, bool is_end, size_t *end,
                                          struct parse_tools_result *out);
enum parse_tools_verdict parse_tools_olmo3(struct by_str s, size_t at, bool is_end, size_t *end,
                                           struct parse_tools_result *out);

/* ---- what readers share ---- */

size_t parse_tools_skip_blanks(struct by_str s, size_t at);
/* How far the block that begins at `from` was read. */
struct parse_tools_block *parse_tools_block_at(struct parse_tools_result *out, size_t from);
/* The mark's place at or behind the block's; SIZE_MAX: not there yet, and not looked for again in what was seen. */
size_t parse_tools_find(struct by_str s, struct by_str mark, struct parse_tools_block *b);
/* NULL: no JSON. */
struct by_json;
struct by_json *parse_tools_json(struct by_str text);
bool parse_tools_is_name(struct by_str name); /* it has no blanks: words are none */
/* False: there are too many. Copies both. */
bool parse_tools_push(struct parse_tools_result *out, struct by_str name, struct by_str arguments);

#endif
