#include "router/parse_reasoning.h"

static const struct by_str open = BY_STR("<think>"), close = BY_STR("</think>");

enum parse_reasoning parse_reasoning_of(const char *name) {
    struct by_str s = by_str_of(name);
    if (by_str_eqz(s, "qwen3") || by_str_eqz(s, "deepseek-v3") || by_str_eqz(s, "glm45") ||
        by_str_eqz(s, "smollm3"))
        return PARSE_REASONING_MARKED;
    if (by_str_eqz(s, "deepseek-r1") || by_str_eqz(s, "qwen3-thinking") || by_str_eqz(s, "step3") ||
        by_str_eqz(s, "nemotron"))
        return PARSE_REASONING_ALWAYS;
    return PARSE_REASONING_NONE;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static struct by_str skip_blanks(struct by_str s) {
    while (s.n && is_blank(*s.p))
        s = by_str_sub(s, 1, SIZE_MAX);
    return s;
}

static size_t without_blanks(struct by_str s, size_t n) {
    while (n && is_blank(s.p[n - 1]))
        n--;
    return n;
}

size_t parse_reasoning_safe(struct by_str text, struct by_str marker) {
    size_t held = BY_MIN(text.n, marker.n - 1);
    while (held && memcmp(text.p + text.n - held, marker.p, held) != 0)
        held--;
    return without_blanks(text, text.n - held);
}

void parse_reasoning_split(enum parse_reasoning kind, struct by_str text, bool is_end,
                           struct by_str *reasoning, struct by_str *content) {
    struct by_str rest = skip_blanks(text);
    *reasoning = (struct by_str){0};
    *content = (struct by_str){0};
    bool is_open = by_str_starts(rest, open), may_open = by_str_starts(open, rest);
    if (kind == PARSE_REASONING_NONE || (kind == PARSE_REASONING_MARKED && !is_open)) {
        if (kind == PARSE_REASONING_NONE || is_end || !may_open) *content = text;
        return;
    }
    if (!is_open && may_open && !is_end) return;
    if (is_open) rest = skip_blanks(by_str_sub(rest, open.n, SIZE_MAX));
    size_t at = by_str_find(rest, close, 0);
    if (at == SIZE_MAX) {
        *reasoning = by_str_sub(
            rest, 0, is_end ? without_blanks(rest, rest.n) : parse_reasoning_safe(rest, close));
        return;
    }
    *reasoning = by_str_sub(rest, 0, without_blanks(rest, at));
    *content = skip_blanks(by_str_sub(rest, at + close.n, SIZE_MAX));
}
