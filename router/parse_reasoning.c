#include "router/parse_reasoning.h"

enum {
    BLANKS_MAX = 256
}; /* around a mark; more are text, or a loop of them would be looked at for each new one */

static const struct {
    const char *name;
    enum parse_reasoning kind;
} names[] = {
    {"qwen3", PARSE_REASONING_MARKED},       {"glm45", PARSE_REASONING_MARKED},
    {"smollm3", PARSE_REASONING_MARKED},     {"kimi_k2", PARSE_REASONING_MARKED},
    {"hunyuan", PARSE_REASONING_HUNYUAN},    {"deepseek-v3", PARSE_REASONING_ASKED},
    {"deepseek-r1", PARSE_REASONING_ALWAYS}, {"qwen3-thinking", PARSE_REASONING_ALWAYS},
    {"glm47", PARSE_REASONING_ALWAYS},       {"minimax", PARSE_REASONING_ALWAYS},
    {"nemotron", PARSE_REASONING_ALWAYS},    {"olmo3", PARSE_REASONING_ALWAYS},
    {"step3", PARSE_REASONING_ALWAYS},       {"ernie45", PARSE_REASONING_ERNIE},
    {"granite", PARSE_REASONING_GRANITE},    {"gemma4", PARSE_REASONING_GEMMA4},
    {"seed_oss", PARSE_REASONING_SEED},      {"mistral", PARSE_REASONING_MISTRAL},
};

static const struct marks {
    struct by_str open, close;
    struct by_str label;               /* behind `open`, if it is there */
    struct by_str answer, answer_ends; /* around the content, if they are there */
    bool is_opened, is_special;
} kinds[PARSE_REASONING_N] = {
    [PARSE_REASONING_MARKED] = {BY_STR("<think>"), BY_STR("</think>")},
    [PARSE_REASONING_ALWAYS] = {BY_STR("<think>"), BY_STR("</think>"), .is_opened = true},
    [PARSE_REASONING_ASKED] = {BY_STR("<think>"), BY_STR("</think>")},
    [PARSE_REASONING_GEMMA4] = {BY_STR("<|channel>"), BY_STR("<channel|>"),
                                .label = BY_STR("thought"), .is_special = true},
    [PARSE_REASONING_SEED] = {BY_STR("<seed:think>"), BY_STR("</seed:think>"), .is_special = true},
    [PARSE_REASONING_MISTRAL] = {BY_STR("[THINK]"), BY_STR("[/THINK]"), .is_special = true},
    [PARSE_REASONING_HUNYUAN] = {BY_STR("<think>"), BY_STR("</think>"),
                                 .answer = BY_STR("<answer>"), .answer_ends = BY_STR("</answer>")},
    [PARSE_REASONING_GRANITE] = {BY_STR("<think>"), BY_STR("</think>"),
                                 .answer = BY_STR("<response>"),
                                 .answer_ends = BY_STR("</response>")},
    [PARSE_REASONING_ERNIE] = {BY_STR("<think>"), BY_STR("</think>"),
                               .answer = BY_STR("<response>"), .answer_ends = BY_STR("</response>"),
                               .is_opened = true},
};

enum parse_reasoning parse_reasoning_of(const char *name) {
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        if (by_str_eqz(by_str_of(name), names[i].name)) return names[i].kind;
    }
    return PARSE_REASONING_NONE;
}

enum parse_reasoning parse_reasoning_when(enum parse_reasoning kind, int thinks) {
    if (kind == PARSE_REASONING_ALWAYS && thinks == 0) return PARSE_REASONING_MARKED;
    if (kind == PARSE_REASONING_ERNIE && thinks == 0) return PARSE_REASONING_GRANITE;
    if (kind == PARSE_REASONING_ASKED && thinks == 1) return PARSE_REASONING_ALWAYS;
    return kind;
}

bool parse_reasoning_is_special(enum parse_reasoning kind) {
    return kinds[kind].is_special;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static struct by_str skip_blanks(struct by_str s) {
    size_t n = 0;
    while (n < BY_MIN(s.n, (size_t)BLANKS_MAX) && is_blank(s.p[n]))
        n++;
    return by_str_sub(s, n, SIZE_MAX);
}

static size_t without_blanks(struct by_str s, size_t n) {
    size_t least = n > BLANKS_MAX ? n - BLANKS_MAX : 0;
    while (n > least && is_blank(s.p[n - 1]))
        n--;
    return n;
}

/* How much of the text can go out when `mark` may follow, blanks before it included. */
static size_t safe_len(struct by_str text, struct by_str mark) {
    return without_blanks(text, text.n - by_str_overlap(text, mark));
}

/* Up to the mark, without the blanks before it; false: it is not there, or not yet. */
static bool cut(struct by_str *s, struct by_str mark, bool is_end, size_t *from) {
    size_t at = by_str_find(*s, mark, *from);
    *from = at != SIZE_MAX ? at : BY_MAX(*from, s->n - BY_MIN(s->n, mark.n - 1));
    if (at != SIZE_MAX)
        s->n = without_blanks(*s, at);
    else
        s->n = is_end ? without_blanks(*s, s->n) : safe_len(*s, mark);
    return at != SIZE_MAX;
}

/* Without the mark that it begins with, and blanks around that. False: it may yet become one. */
static bool drop_mark(struct by_str *s, struct by_str mark, bool is_end) {
    struct by_str rest = skip_blanks(*s);
    if (!mark.n) return true;
    if (!is_end && rest.n < mark.n && by_str_starts(mark, rest)) return false;
    if (by_str_starts(rest, mark)) *s = skip_blanks(by_str_sub(rest, mark.n, SIZE_MAX));
    return true;
}

void parse_reasoning_split(enum parse_reasoning kind, struct by_str text, bool is_end,
                           struct parse_reasoning_parts *p) {
    const struct marks *m = &kinds[kind];
    struct by_str rest = skip_blanks(text), content;
    p->reasoning = p->content = (struct by_str){0};
    if (kind == PARSE_REASONING_NONE) {
        p->content = text;
        return;
    }
    bool is_open = by_str_starts(rest, m->open), may_open = by_str_starts(m->open, rest);
    if (!is_open && may_open && !is_end) return;
    if (!is_open && !m->is_opened) {
        content = text;
    } else {
        if (is_open) rest = skip_blanks(by_str_sub(rest, m->open.n, SIZE_MAX));
        if (!drop_mark(&rest, m->label, is_end)) return;
        struct by_str behind = rest;
        bool has_end = cut(&rest, m->close, is_end, &p->end_from);
        p->reasoning = rest;
        if (!has_end) return;
        content = skip_blanks(by_str_sub(behind, p->end_from + m->close.n, SIZE_MAX));
    }
    if (m->answer.n) {
        size_t n = content.n;
        if (!drop_mark(&content, m->answer, is_end)) return;
        if (content.n < n) (void)cut(&content, m->answer_ends, is_end, &p->answer_from);
    }
    p->content = content;
}
