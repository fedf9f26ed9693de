#include "router/parse_tools.h"

#include "common/base/json.h"
#include "proto/limits.h"
#include "router/parse_python.h"
#include "router/parse_reasoning.h"

/* ---- JSON text, in place: offsets are needed, since arguments are given as the model wrote them ---- */

static size_t skip_blanks(struct by_str s, size_t at) {
    while (at < s.n && (s.p[at] == ' ' || s.p[at] == '\n' || s.p[at] == '\t' || s.p[at] == '\r'))
        at++;
    return at;
}

/* The end of the string that begins at `at`; SIZE_MAX: not there yet. */
static size_t string_end(struct by_str s, size_t at) {
    for (at++; at < s.n; at++) {
        if (s.p[at] == '\\')
            at++;
        else if (s.p[at] == '"')
            return at + 1;
    }
    return SIZE_MAX;
}

/* The end of the object, list or string at `at`: brackets counted, nothing checked. SIZE_MAX: not there yet. */
static size_t value_end(struct by_str s, size_t at) {
    size_t depth = 0;
    while (at < s.n) {
        char c = s.p[at];
        if (c == '"') {
            at = string_end(s, at);
            if (at == SIZE_MAX || !depth) return at;
            continue;
        }
        depth += c == '{' || c == '[';
        at++;
        if ((c == '}' || c == ']') && (depth == 0 || --depth == 0)) return at;
    }
    return SIZE_MAX;
}

/* The text of a member's value; obj has been parsed, so it is well formed. */
static struct by_str member(struct by_str obj, const char *key) {
    size_t at = skip_blanks(obj, 1);
    while (at < obj.n && obj.p[at] == '"') {
        size_t key_end = string_end(obj, at);
        struct by_str found = by_str_sub(obj, at + 1, key_end - at - 2);
        at = skip_blanks(obj, skip_blanks(obj, key_end) + 1); /* the colon */
        size_t end = at;
        if (strchr("{[\"", obj.p[at]) != NULL) {
            end = value_end(obj, at);
        } else {
            while (!strchr(",} \n\t\r", obj.p[end]))
                end++;
        }
        if (by_str_eqz(found, key)) return by_str_sub(obj, at, end - at);
        at = skip_blanks(obj, end);
        if (at < obj.n && obj.p[at] == ',') at = skip_blanks(obj, at + 1);
    }
    return (struct by_str){0};
}

static struct by_json *parse(struct by_str text) {
    const struct by_json_limits lim = {.bytes_max = LIMIT_STR_BYTES, .depth_max = LIMIT_JSON_DEPTH};
    struct by_json *j = NULL;
    struct by_err err = {0};
    return by_json_parse(&j, text, &lim, &err) ? NULL : j;
}

static void push(struct parse_tools_result *out, struct by_str name, struct by_str arguments) {
    /* copies: the text may move before the next call of a stream */
    out->calls[out->n_calls++] = (struct parse_tools_call){by_arena_copy(&out->arena, name),
                                                           by_arena_copy(&out->arena, arguments)};
}

/* Arguments within a string, as some models give them, without it; where it holds no JSON they are that string. */
static struct by_str unwrapped(const struct by_json *args, struct by_str text) {
    if (by_json_type(args) != BY_JSON_STRING) return text;
    struct by_str inner = by_str_trim(by_json_str(args));
    if (!inner.n) return BY_STR("{}");
    struct by_json *j = parse(inner);
    by_json_free(j);
    return j ? inner : text;
}

/* {"name": …, "arguments" or "parameters": {…}}. False: it is no call. */
static bool push_object(struct parse_tools_result *out, struct by_str obj) {
    struct by_json *j = obj.n && *obj.p == '{' ? parse(obj) : NULL;
    const struct by_json *name = by_json_get(j, "name"), *args = by_json_get(j, "arguments");
    const char *key = args ? "arguments" : "parameters";
    if (!args) args = by_json_get(j, key);
    bool is_call = name && by_json_type(name) == BY_JSON_STRING && out->n_calls < PARSE_TOOLS_MAX;
    if (is_call && args && by_json_type(args) != BY_JSON_NULL)
        push(out, by_json_str(name), unwrapped(args, member(obj, key)));
    else if (is_call)
        push(out, by_json_str(name), BY_STR("{}"));
    by_json_free(j);
    return is_call;
}

/* A name and its arguments, checked. */
static bool push_named(struct parse_tools_result *out, struct by_str name, struct by_str args) {
    struct by_json *j = args.n && *args.p == '{' ? parse(args) : NULL;
    bool is_call = j && name.n && out->n_calls < PARSE_TOOLS_MAX;
    /* words are no name */
    for (size_t i = 0; i < name.n; i++)
        is_call = is_call && skip_blanks(name, i) == i;
    if (is_call) push(out, name, args);
    by_json_free(j);
    return is_call;
}

/* ---- the forms: what begins at `at`, behind its marker ---- */

enum verdict { CALL, TEXT, UNSURE };
enum { OPEN_LONG = 256 };
/* Bytes read for nothing: text full of '[', or of objects without an end, ends being tried. */
enum { TRIED_MAX = 4 << 20 };

static enum verdict read_hermes(struct by_str s, size_t at, bool is_end, size_t *end,
                                struct parse_tools_result *out) {
    const struct by_str close = BY_STR("</tool_call>");
    size_t from = skip_blanks(s, at);
    /* A string of an argument may hold the closing tag: the object goes before it. */
    size_t object = from;
    if (from < s.n && s.p[from] == '{')
        object = out->n_tried > TRIED_MAX ? SIZE_MAX : value_end(s, from);
    size_t stop = by_str_find(s, close, object == SIZE_MAX ? at : object);
    if (!is_end && (stop == SIZE_MAX || object == SIZE_MAX)) return UNSURE;
    if (object == SIZE_MAX) out->n_tried += s.n - from;
    *end = stop == SIZE_MAX ? s.n : stop + close.n;
    struct by_str body = by_str_trim(by_str_sub(s, at, BY_MIN(stop, s.n) - at));
    return push_object(out, body) ? CALL : TEXT;
}

static enum verdict read_llama3(struct by_str s, size_t at, bool is_end, size_t *end,
                                struct parse_tools_result *out) {
    at = skip_blanks(s, at);
    if (at == s.n && !is_end) return UNSURE;
    size_t stop = at < s.n && s.p[at] == '{' ? value_end(s, at) : at;
    if (stop == SIZE_MAX && !is_end) return UNSURE;
    *end = BY_MIN(stop, s.n);
    if (stop == SIZE_MAX || !push_object(out, by_str_sub(s, at, stop - at))) return TEXT;
    return CALL;
}

static enum verdict read_mistral(struct by_str s, size_t at, bool is_end, size_t *end,
                                 struct parse_tools_result *out) {
    const struct by_str sep = BY_STR("[ARGS]");
    size_t from = skip_blanks(s, at), n_before = out->n_calls;
    bool is_list = from < s.n && s.p[from] == '[';
    size_t open = is_list ? from : by_str_find(s, BY_STR("{"), from);
    size_t stop = open == SIZE_MAX || from == s.n ? SIZE_MAX : value_end(s, open);
    if (stop == SIZE_MAX && !is_end) return UNSURE;
    *end = BY_MIN(stop, s.n);
    if (stop == SIZE_MAX) return TEXT;
    if (!is_list) {
        struct by_str name = by_str_sub(s, from, open - from);
        if (by_str_ends(name, sep)) name = by_str_sub(name, 0, name.n - sep.n);
        return push_named(out, by_str_trim(name), by_str_sub(s, open, stop - open)) ? CALL : TEXT;
    }
    for (size_t i = skip_blanks(s, open + 1); i < stop && s.p[i] == '{';) {
        size_t object = value_end(s, i);
        if (object > stop || !push_object(out, by_str_sub(s, i, object - i))) break;
        i = skip_blanks(s, object);
        if (i < stop && s.p[i] == ']') return CALL;
        if (i < stop && s.p[i] == ',') i = skip_blanks(s, i + 1);
    }
    out->n_calls = n_before; /* all of a list or nothing */
    return TEXT;
}

static enum verdict read_deepseek(struct by_str s, size_t at, bool is_end, size_t *end,
                                  struct parse_tools_result *out) {
    const struct by_str close = BY_STR("<｜tool▁call▁end｜>"), sep = BY_STR("<｜tool▁sep｜>");
    size_t stop = by_str_find(s, close, at);
    if (stop == SIZE_MAX && !is_end) return UNSURE;
    *end = stop == SIZE_MAX ? s.n : stop + close.n;
    struct by_str body = by_str_sub(s, at, BY_MIN(stop, s.n) - at);
    size_t middle = by_str_find(body, sep, 0);
    if (middle == SIZE_MAX) return TEXT;
    struct by_str name = by_str_trim(by_str_sub(body, 0, middle));
    struct by_str args = by_str_trim(by_str_sub(body, middle + sep.n, SIZE_MAX));
    if (args.n && *args.p != '{') { /* V3: function<sep>name, then the arguments in a fence */
        size_t open = by_str_find(args, BY_STR("{"), 0);
        if (open == SIZE_MAX || !by_str_split(&args, '\n', &name)) return TEXT;
        name = by_str_trim(name);
        open = by_str_find(args, BY_STR("{"), 0);
        size_t last = open == SIZE_MAX ? SIZE_MAX : value_end(args, open);
        if (last == SIZE_MAX) return TEXT;
        args = by_str_sub(args, open, last - open);
    }
    return push_named(out, name, args) ? CALL : TEXT;
}

/* [get(city="Paris"), f()], the whole list or nothing. */
static enum verdict read_pythonic(struct by_str s, size_t at, bool is_end, size_t *end,
                                  struct parse_tools_result *out) {
    size_t i = at, n_before = out->n_calls;
    bool is_done = false, is_open = false;
    *end = at; /* what is none may hold another '[' */
    if (out->n_tried > TRIED_MAX) return TEXT;
    while (!is_done && !is_open) {
        struct by_buf args;
        struct by_str name;
        i = skip_blanks(s, i);
        by_buf_init(&args, LIMIT_STR_BYTES);
        enum parse_python read = parse_python_call(s, &i, &name, &args);
        bool is_call = read == PARSE_PYTHON_CALL && out->n_calls < PARSE_TOOLS_MAX;
        if (is_call) push(out, name, by_buf_str(&args));
        by_buf_release(&args);
        i = is_call ? skip_blanks(s, i) : i;
        is_open = read == PARSE_PYTHON_UNSURE || (is_call && i >= s.n);
        if (!is_call || is_open) break;
        is_done = s.p[i] == ']';
        if (!is_done && s.p[i] != ',') break;
        i++;
    }
    if (is_done) {
        *end = i;
        return CALL;
    }
    out->n_calls = n_before;
    if (is_open && !is_end) return UNSURE;
    out->n_tried += i - at;
    return TEXT;
}

static const struct form {
    const char *name;
    enum parse_tools kind;
    enum verdict (*read)(struct by_str s, size_t at, bool is_end, size_t *end,
                         struct parse_tools_result *out); /* one block; *end: behind it */
    struct by_str marker;
    struct by_str noise[2]; /* frames around calls, without a meaning of their own */
} forms[] = {
    {"hermes", PARSE_TOOLS_HERMES, read_hermes, BY_STR("<tool_call>"), {{0}}},
    {"qwen", PARSE_TOOLS_HERMES, read_hermes, BY_STR("<tool_call>"), {{0}}},
    {"qwen25", PARSE_TOOLS_HERMES, read_hermes, BY_STR("<tool_call>"), {{0}}},
    {"llama3", PARSE_TOOLS_LLAMA3, read_llama3, BY_STR("<|python_tag|>"), {{0}}},
    {"mistral", PARSE_TOOLS_MISTRAL, read_mistral, BY_STR("[TOOL_CALLS]"), {{0}}},
    {"deepseekv3",
     PARSE_TOOLS_DEEPSEEK,
     read_deepseek,
     BY_STR("<｜tool▁call▁begin｜>"),
     {BY_STR("<｜tool▁calls▁begin｜>"), BY_STR("<｜tool▁calls▁end｜>")}},
    {"deepseekv31",
     PARSE_TOOLS_DEEPSEEK,
     read_deepseek,
     BY_STR("<｜tool▁call▁begin｜>"),
     {BY_STR("<｜tool▁calls▁begin｜>"), BY_STR("<｜tool▁calls▁end｜>")}},
    {"pythonic",
     PARSE_TOOLS_PYTHONIC,
     read_pythonic,
     BY_STR("["),
     {BY_STR("<|python_start|>"), BY_STR("<|python_end|>")}},
    {"json", PARSE_TOOLS_JSON, read_llama3, {0}, {{0}}},
};

static const struct form *form_of(enum parse_tools kind) {
    for (size_t i = 0; i < BY_COUNTOF(forms); i++) {
        if (forms[i].kind == kind) return &forms[i];
    }
    return NULL;
}

enum parse_tools parse_tools_of(const char *name) {
    for (size_t i = 0; i < BY_COUNTOF(forms); i++) {
        if (by_str_eqz(by_str_of(name), forms[i].name)) return forms[i].kind;
    }
    return PARSE_TOOLS_NONE;
}

/* ---- the walk ---- */

/* Where the marker and each noise are next, SIZE_MAX: nowhere. Each is looked for anew only when it has been passed: one that is rare
 * is not looked for behind every one of another. */
struct marks {
    struct by_str text[1 + BY_COUNTOF(forms[0].noise)];
    size_t next[1 + BY_COUNTOF(forms[0].noise)];
};

static void look_for(struct marks *m, size_t i, struct by_str s, size_t at) {
    m->next[i] = m->text[i].n ? by_str_find(s, m->text[i], at) : SIZE_MAX;
}

static struct marks find_marks(const struct form *f, struct by_str s, size_t at) {
    struct marks m = {.text = {f->marker}};
    for (size_t i = 0; i < BY_COUNTOF(m.next); i++) {
        if (i) m.text[i] = f->noise[i - 1];
        look_for(&m, i, s, at);
    }
    return m;
}

/* The next of them at or after `at`, which only grows; *len: its length, *is_marker: which. */
static size_t next_mark(struct marks *m, struct by_str s, size_t at, size_t *len, bool *is_marker) {
    size_t best = 0;
    for (size_t i = 0; i < BY_COUNTOF(m->next); i++) {
        if (m->next[i] < at) look_for(m, i, s, at);
        if (m->next[i] < m->next[best]) best = i;
    }
    *len = m->text[best].n;
    *is_marker = best == 0;
    return m->next[best];
}

static size_t safe_len(const struct form *f, struct by_str s) {
    size_t n = s.n;
    if (f->marker.n) n = parse_reasoning_safe(s, f->marker);
    for (size_t i = 0; i < BY_COUNTOF(f->noise) && f->noise[i].n; i++)
        n = BY_MIN(n, parse_reasoning_safe(s, f->noise[i]));
    return n;
}

/* Where the first n bytes of s end without the blanks at their end; not before `from`. */
static size_t without_blanks(struct by_str s, size_t from, size_t n) {
    while (n > from && skip_blanks(by_str_sub(s, 0, n), n - 1) == n)
        n--;
    return n;
}

/* Text between calls: blanks before a call go, and so do those right behind one. */
static void add_text(struct parse_tools_result *out, struct by_str s, bool is_before_mark) {
    size_t n = s.n, from = out->place.is_behind_call ? skip_blanks(s, 0) : 0;
    if (is_before_mark) n = without_blanks(s, from, n);
    if (from >= n) return;
    by_buf_add_str(&out->content, by_str_sub(s, from, n - from));
    out->place.is_behind_call = false;
}

/* All before `at` is settled. */
static void settle(struct parse_tools_result *out, size_t at) {
    out->place.at = out->place.from = at;
    out->place.n_content = out->content.n;
    out->place.is_behind_call = out->n_calls > 0;
}

/* Behind a call: what parts it from the next, of which there may be none. */
static size_t skip_separators(struct by_str s, size_t at, bool is_behind_call) {
    at = skip_blanks(s, at);
    while (is_behind_call && at < s.n && s.p[at] == ';')
        at = skip_blanks(s, at + 1);
    return at;
}

/* Llama 3 writes calls without a marker, as the whole answer or behind another, and so do models that were told to answer
 * in JSON, who also write a list of them. Behind them; false: one is not complete. */
static bool read_unmarked(const struct form *f, struct by_str s, bool is_end,
                          struct parse_tools_result *out) {
    bool is_json = f->kind == PARSE_TOOLS_JSON;
    size_t next = skip_separators(s, out->place.at, out->place.is_behind_call);
    if (!is_json && f->kind != PARSE_TOOLS_LLAMA3) return true;
    if (next == s.n && !is_end) return false; /* one may follow yet */
    if (out->place.is_behind_call) settle(out, next);
    while (next < s.n && (s.p[next] == '{' || (is_json && s.p[next] == '['))) {
        size_t end = next;
        enum verdict v = s.p[next] == '[' ? read_mistral(s, next, is_end, &end, out)
                                          : read_llama3(s, next, is_end, &end, out);
        if (v == UNSURE) return false;
        if (v == TEXT) break;
        next = skip_separators(s, end, true);
        settle(out, next);
        if (next == s.n && !is_end) return false;
    }
    return true;
}

/* From the place that was reached: what is read there is read once, but for what is not complete. True: it ends in that. */
static bool walk(const struct form *f, struct by_str s, bool is_end,
                 struct parse_tools_result *out) {
    struct parse_tools_place *p = &out->place;
    struct marks marks = find_marks(f, s, p->from);
    size_t len, end = 0;
    bool is_marker;
    for (;;) {
        if (p->may_be_unmarked && !read_unmarked(f, s, is_end, out)) return true;
        p->may_be_unmarked = false;
        size_t mark = next_mark(&marks, s, p->from, &len, &is_marker);
        if (mark == SIZE_MAX) break;
        enum verdict v = is_marker ? f->read(s, mark + len, is_end, &end, out) : CALL;
        if (v == TEXT) { /* and so are the blanks before it */
            p->from = end;
            continue;
        }
        struct parse_tools_place before = *p;
        add_text(out, by_str_sub(s, p->at, mark - p->at), true);
        if (v == UNSURE) {
            *p = before;
            p->from = mark;
            return true;
        }
        settle(out, is_marker ? end : mark + len);
        p->may_be_unmarked = is_marker;
    }
    size_t n = is_end ? s.n : p->from + safe_len(f, by_str_sub(s, p->from, SIZE_MAX));
    if (!is_end) n = without_blanks(s, p->at, n); /* a mark may begin at `from` */
    bool was_behind = p->is_behind_call;
    add_text(out, by_str_sub(s, p->at, n - p->at), false);
    was_behind = was_behind && p->is_behind_call;
    settle(out, n);
    p->is_behind_call = was_behind;
    return false;
}

/* Something that a call could end with; a long one is not read again without. */
static bool has_end(struct by_str s) {
    for (size_t i = 0; i < s.n; i++) {
        if (memchr("}])>;", s.p[i], 5)) return true;
    }
    return false;
}

void parse_tools_init(struct parse_tools_result *out) {
    out->n_calls = out->n_tried = 0;
    out->place = (struct parse_tools_place){.may_be_unmarked = true};
    by_arena_init(&out->arena, 0);
    by_buf_init(&out->content, LIMIT_STR_BYTES);
}

void parse_tools_advance(enum parse_tools kind, struct by_str text, bool is_end,
                         struct parse_tools_result *out) {
    const struct form *f = form_of(kind);
    struct parse_tools_place *p = &out->place;
    if (!f) {
        by_buf_add_str(&out->content, by_str_sub(text, p->at, SIZE_MAX));
        p->at = text.n;
        return;
    }
    struct by_str more = by_str_sub(text, p->n_seen, SIZE_MAX);
    bool is_long = p->is_open && text.n - p->from > OPEN_LONG;
    p->n_seen = text.n;
    if (is_long && !is_end && !has_end(more)) return;
    out->content.n = p->n_content; /* what came out before an open mark comes again */
    p->is_open = walk(f, text, is_end, out);
}

void parse_tools_read(enum parse_tools kind, struct by_str text, bool is_end,
                      struct parse_tools_result *out) {
    parse_tools_init(out);
    parse_tools_advance(kind, text, is_end, out);
}

void parse_tools_release(struct parse_tools_result *r) {
    by_buf_release(&r->content);
    by_arena_release(&r->arena);
    r->n_calls = 0;
}
