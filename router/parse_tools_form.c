#include "router/parse_tools_form.h"

#include "common/base/json.h"
#include "proto/limits.h"

size_t parse_tools_skip_blanks(struct by_str s, size_t at) {
    while (at < s.n && (s.p[at] == ' ' || s.p[at] == '\n' || s.p[at] == '\t' || s.p[at] == '\r'))
        at++;
    return at;
}

struct parse_tools_block *parse_tools_block_at(struct parse_tools_result *out, size_t from) {
    struct parse_tools_block *b = &out->place.block;
    if (b->from != from || b->at < from) *b = (struct parse_tools_block){.from = from, .at = from};
    return b;
}

size_t parse_tools_find(struct by_str s, struct by_str mark, struct parse_tools_block *b) {
    size_t found = by_str_find(s, mark, b->at);
    if (found == SIZE_MAX && s.n >= mark.n) b->at = BY_MAX(b->at, s.n - mark.n + 1);
    return found;
}

struct by_json *parse_tools_json(struct by_str text) {
    const struct by_json_limits lim = {.bytes_max = LIMIT_STR_BYTES, .depth_max = LIMIT_JSON_DEPTH};
    struct by_json *j = NULL;
    struct by_err err = {0};
    return by_json_parse(&j, text, &lim, &err) ? NULL : j;
}

bool parse_tools_is_name(struct by_str name) {
    for (size_t i = 0; i < name.n; i++) {
        if (parse_tools_skip_blanks(name, i) != i) return false;
    }
    return name.n > 0;
}

bool parse_tools_push(struct parse_tools_result *out, struct by_str name, struct by_str arguments) {
    if (out->n_calls == PARSE_TOOLS_MAX) return false;
    /* copies: the text may move before the next call of a stream */
    out->calls[out->n_calls++] = (struct parse_tools_call){by_arena_copy(&out->arena, name),
                                                           by_arena_copy(&out->arena, arguments)};
    return true;
}
