#include "router/parse_tools.h"

#include "proto/limits.h"
#include "router/parse_tools_form.h"

/* Bytes of an open block; a longer one is not read again without something to end it. */
enum { OPEN_LONG = 256 };

static const struct {
    const char *name;
    enum parse_tools kind;
} names[] = {
    {"hermes", PARSE_TOOLS_HERMES},
    {"qwen", PARSE_TOOLS_HERMES},
    {"qwen25", PARSE_TOOLS_HERMES},
    {"llama3", PARSE_TOOLS_LLAMA3},
    {"mistral", PARSE_TOOLS_MISTRAL},
    {"deepseekv3", PARSE_TOOLS_DEEPSEEK},
    {"deepseekv31", PARSE_TOOLS_DEEPSEEK},
    {"pythonic", PARSE_TOOLS_PYTHONIC},
    {"json", PARSE_TOOLS_JSON},
    {"gemma4", PARSE_TOOLS_GEMMA4},
    {"functiongemma", PARSE_TOOLS_FUNCTIONGEMMA},
    {"qwen3_coder", PARSE_TOOLS_QWEN3_CODER},
    {"step3p5", PARSE_TOOLS_QWEN3_CODER},
    {"glm45", PARSE_TOOLS_GLM45},
    {"glm47", PARSE_TOOLS_GLM45},
    {"minimax-m2", PARSE_TOOLS_MINIMAX_M2},
    {"seed_oss", PARSE_TOOLS_SEED_OSS},
    {"deepseekv32", PARSE_TOOLS_DEEPSEEKV32},
    {"kimi_k2", PARSE_TOOLS_KIMI_K2},
    {"lfm2", PARSE_TOOLS_LFM2},
    {"olmo3", PARSE_TOOLS_OLMO3},
    {"granite", PARSE_TOOLS_GRANITE},
    {"hunyuan", PARSE_TOOLS_HUNYUAN},
};

static const struct form {
    enum parse_tools_verdict (*read)(struct by_str s, size_t at, bool is_end, size_t *end,
                                     struct parse_tools_result *out);
    struct by_str marker;
    struct by_str noise[2]; /* frames around calls, without a meaning of their own */
    bool asks_types;
} forms[PARSE_TOOLS_N] = {
    [PARSE_TOOLS_HERMES] = {parse_tools_hermes, BY_STR("<tool_call>")},
    [PARSE_TOOLS_LLAMA3] = {parse_tools_llama3, BY_STR("<|python_tag|>")},
    [PARSE_TOOLS_MISTRAL] = {parse_tools_mistral, BY_STR("[TOOL_CALLS]")},
    [PARSE_TOOLS_DEEPSEEK] = {parse_tools_deepseek, BY_STR("<｜tool▁call▁begin｜>"),
                              .noise = {BY_STR("<｜tool▁calls▁begin｜>"),
                                        BY_STR("<｜tool▁calls▁end｜>")}},
    [PARSE_TOOLS_PYTHONIC] = {parse_tools_pythonic, BY_STR("["),
                              .noise = {BY_STR("<|python_start|>"), BY_STR("<|python_end|>")}},
    [PARSE_TOOLS_JSON] = {parse_tools_llama3},
    [PARSE_TOOLS_GEMMA4] = {parse_tools_gemma4, BY_STR("<|tool_call>"),
                            .noise = {BY_STR("<tool_call|>")}},
    [PARSE_TOOLS_FUNCTIONGEMMA] = {parse_tools_functiongemma, BY_STR("<start_function_call>"),
                                   .noise = {BY_STR("<end_function_call>")}},
    [PARSE_TOOLS_QWEN3_CODER] = {parse_tools_qwen3_coder, BY_STR("<tool_call>"),
                                 .asks_types = true},
    [PARSE_TOOLS_GLM45] = {parse_tools_glm45, BY_STR("<tool_call>"), .asks_types = true},
    [PARSE_TOOLS_MINIMAX_M2] = {parse_tools_minimax_m2, BY_STR("<minimax:tool_call>"),
                                .asks_types = true},
    [PARSE_TOOLS_SEED_OSS] = {parse_tools_seed_oss, BY_STR("<seed:tool_call>"), .asks_types = true},
    [PARSE_TOOLS_DEEPSEEKV32] = {parse_tools_deepseekv32, BY_STR("<｜DSML｜function_calls>"),
                                 .asks_types = true},
    [PARSE_TOOLS_KIMI_K2] = {parse_tools_kimi_k2, BY_STR("<|tool_call_begin|>"),
                             .noise = {BY_STR("<|tool_calls_section_begin|>"),
                                       BY_STR("<|tool_calls_section_end|>")}},
    [PARSE_TOOLS_LFM2] = {parse_tools_lfm2, BY_STR("<|tool_call_start|>"),
                          .noise = {BY_STR("<|tool_call_end|>")}},
    [PARSE_TOOLS_OLMO3] = {parse_tools_olmo3, BY_STR("<function_calls>")},
    [PARSE_TOOLS_GRANITE] = {parse_tools_list, BY_STR("<|tool_call|>")},
    [PARSE_TOOLS_HUNYUAN] = {parse_tools_list, BY_STR("<tool_calls>"),
                             .noise = {BY_STR("</tool_calls>")}},
};

enum parse_tools parse_tools_of(const char *name) {
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        if (by_str_eqz(by_str_of(name), names[i].name)) return names[i].kind;
    }
    return PARSE_TOOLS_NONE;
}

bool parse_tools_asks_types(enum parse_tools kind) {
    return forms[kind].asks_types;
}

/* ---- the walk ---- */

enum { N_MARKS = 1 + BY_COUNTOF(forms[0].noise) };

/* Where the marker and each noise are next, SIZE_MAX: nowhere. Each is looked for only when no earlier one stands right here, and anew
 * only when it has been passed: one that is rare is not looked for behind every one of another. */
struct marks {
    struct by_str text[N_MARKS];
    size_t next[N_MARKS];
    bool is_known[N_MARKS];
};

static struct marks marks_of(const struct form *f) {
    struct marks m = {.text = {f->marker}};
    for (size_t i = 1; i < N_MARKS; i++)
        m.text[i] = f->noise[i - 1];
    return m;
}

/* The next of them at or after `at`, which only grows; *len: its length, *is_marker: which. */
static size_t next_mark(struct marks *m, struct by_str s, size_t at, size_t *len, bool *is_marker) {
    size_t best = 0;
    for (size_t i = 0; i < N_MARKS && (i == 0 || m->next[best] != at); i++) {
        if (!m->is_known[i] || m->next[i] < at)
            m->next[i] = m->text[i].n ? by_str_find(s, m->text[i], at) : SIZE_MAX;
        m->is_known[i] = true;
        if (m->next[i] < m->next[best]) best = i;
    }
    *len = m->text[best].n;
    *is_marker = best == 0;
    return m->next[best];
}

/* Before it no mark begins that may become whole. */
static size_t safe_len(const struct marks *m, struct by_str s, size_t from) {
    size_t n = s.n;
    for (size_t i = 0; i < N_MARKS; i++) {
        n = BY_MIN(n, s.n - by_str_overlap(by_str_sub(s, from, SIZE_MAX), m->text[i]));
    }
    return n;
}

/* Where the first n bytes of s end without the blanks at their end; not before `from`. */
static size_t without_blanks(struct by_str s, size_t from, size_t n) {
    while (n > from && strchr(" \n\t\r", s.p[n - 1]) && s.p[n - 1])
        n--;
    return n;
}

/* Text between calls, up to n: those blanks go that are right behind one. */
static void add_text(struct parse_tools_result *out, struct by_str s, size_t n) {
    struct parse_tools_place *p = &out->place;
    size_t from = p->is_behind_call ? parse_tools_skip_blanks(s, p->at) : p->at;
    if (from >= n) return;
    by_buf_add_str(&out->content, by_str_sub(s, from, n - from));
    p->is_behind_call = false;
    p->at = n;
}

/* All before `at` is settled, and a call ends there, or what has no meaning. */
static void settle(struct parse_tools_result *out, size_t at) {
    out->place.at = out->place.from = at;
    out->place.is_behind_call = out->n_calls > 0;
}

/* Behind a call: what parts it from the next, of which there may be none. */
static size_t skip_separators(struct by_str s, size_t at, bool is_behind_call) {
    at = parse_tools_skip_blanks(s, at);
    while (is_behind_call && at < s.n && s.p[at] == ';')
        at = parse_tools_skip_blanks(s, at + 1);
    return at;
}

/* Llama 3 writes calls without a marker, as the whole answer or behind another, and so do models that were told to answer
 * in JSON, who also write a list of them. Behind them; false: one is not complete. */
static bool read_unmarked(enum parse_tools kind, struct by_str s, bool is_end,
                          struct parse_tools_result *out) {
    bool is_json = kind == PARSE_TOOLS_JSON;
    size_t next = skip_separators(s, out->place.at, out->place.is_behind_call);
    if (!is_json && kind != PARSE_TOOLS_LLAMA3) return true;
    if (out->place.is_behind_call) settle(out, next);
    if (next == s.n && !is_end) return false; /* one may follow yet */
    while (next < s.n && (s.p[next] == '{' || (is_json && s.p[next] == '['))) {
        size_t end = next;
        enum parse_tools_verdict v = s.p[next] == '['
                                         ? parse_tools_mistral(s, next, is_end, &end, out)
                                         : parse_tools_llama3(s, next, is_end, &end, out);
        if (v == PARSE_TOOLS_UNSURE) return false;
        if (v == PARSE_TOOLS_TEXT) break;
        next = skip_separators(s, end, true);
        settle(out, next);
        if (next == s.n && !is_end) return false;
    }
    return true;
}

/* From the place that was reached: what is read there is read once, but for what is not complete. True: it ends in that. */
static bool walk(enum parse_tools kind, struct by_str s, bool is_end,
                 struct parse_tools_result *out) {
    struct parse_tools_place *p = &out->place;
    const struct form *f = &forms[kind];
    struct marks marks = marks_of(f);
    size_t len, end = 0, blanks_from = p->from; /* from `at` to there are blanks */
    bool is_marker;
    for (;;) {
        if (p->may_be_unmarked && !read_unmarked(kind, s, is_end, out)) return true;
        p->may_be_unmarked = false;
        blanks_from = BY_MAX(blanks_from, p->at);
        size_t mark = next_mark(&marks, s, p->from, &len, &is_marker);
        if (mark == SIZE_MAX) break;
        enum parse_tools_verdict v =
            is_marker ? f->read(s, mark + len, is_end, &end, out) : PARSE_TOOLS_CALL;
        if (v == PARSE_TOOLS_TEXT) { /* and so are the blanks before it */
            p->from = end;
            blanks_from = p->at;
            continue;
        }
        size_t n = without_blanks(s, blanks_from, mark);
        if (n > blanks_from) add_text(out, s, n);
        p->from = mark;
        if (v == PARSE_TOOLS_UNSURE) return true;
        settle(out, is_marker ? end : mark + len);
        p->may_be_unmarked = is_marker;
    }
    size_t n = is_end ? s.n : safe_len(&marks, s, p->from);
    p->from = n;
    /* a mark may begin at n, and then the blanks before it go */
    if (!is_end) n = without_blanks(s, blanks_from, n);
    if (is_end || n > blanks_from) add_text(out, s, n);
    return false;
}

/* Something that a call could end with; a long one is not read again without. */
static bool has_end(struct by_str s) {
    for (size_t i = 0; i < s.n; i++) {
        if (memchr("}])>;", s.p[i], 5)) return true;
    }
    return false;
}

void parse_tools_init(struct parse_tools_result *out, const struct parse_tools_types *types) {
    out->types = types;
    out->n_calls = out->n_tried = 0;
    out->place = (struct parse_tools_place){.may_be_unmarked = true};
    by_arena_init(&out->arena, 0);
    by_buf_init(&out->content, LIMIT_STR_BYTES);
}

void parse_tools_advance(enum parse_tools kind, struct by_str text, bool is_end,
                         struct parse_tools_result *out) {
    struct parse_tools_place *p = &out->place;
    if (kind == PARSE_TOOLS_NONE) {
        by_buf_add_str(&out->content, by_str_sub(text, p->at, SIZE_MAX));
        p->at = text.n;
        return;
    }
    struct by_str more = by_str_sub(text, p->n_seen, SIZE_MAX);
    bool is_long = p->is_open && text.n - p->from > OPEN_LONG;
    p->n_seen = text.n;
    if (is_long && !is_end && !has_end(more)) return;
    p->is_open = walk(kind, text, is_end, out);
}

void parse_tools_read(enum parse_tools kind, const struct parse_tools_types *types,
                      struct by_str text, bool is_end, struct parse_tools_result *out) {
    parse_tools_init(out, types);
    parse_tools_advance(kind, text, is_end, out);
}

void parse_tools_release(struct parse_tools_result *r) {
    by_buf_release(&r->content);
    by_arena_release(&r->arena);
    r->n_calls = 0;
}
