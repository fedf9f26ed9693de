/* The forms whose arguments are JSON. It is read in place: offsets are needed, since arguments are given as the model wrote them. */
#include "common/base/json.h"
#include "router/parse_tools_form.h"

enum { OUTSIDE, IN_STRING, DONE }; /* a block's state */

/* The end of the object, list or string that the block begins with: brackets counted, nothing checked. SIZE_MAX: not there yet. */
static size_t block_end(struct by_str s, struct parse_tools_block *b) {
    for (; b->at < s.n && b->state != DONE; b->at++) {
        char c = s.p[b->at];
        bool is_closed = false;
        if (b->state == IN_STRING && c == '\\') {
            if (b->at + 1 == s.n) break; /* what is escaped comes yet */
            b->at++;
        } else if (b->state == IN_STRING && c == '"') {
            b->state = OUTSIDE;
            is_closed = !b->depth;
        } else if (b->state == IN_STRING) {
            continue;
        } else if (c == '"') {
            b->state = IN_STRING;
        } else if (c == '}' || c == ']') {
            is_closed = b->depth == 0 || --b->depth == 0;
        } else {
            b->depth += c == '{' || c == '[';
        }
        if (is_closed) b->state = DONE;
    }
    return b->state == DONE ? b->at : SIZE_MAX;
}

static size_t value_end(struct by_str s, size_t at) {
    struct parse_tools_block b = {.from = at, .at = at};
    return block_end(s, &b);
}

/* The text of a member's value; obj has been parsed, so it is well formed. */
static struct by_str member(struct by_str obj, const char *key) {
    size_t at = parse_tools_skip_blanks(obj, 1);
    while (at < obj.n && obj.p[at] == '"') {
        size_t key_end = value_end(obj, at);
        struct by_str found = by_str_sub(obj, at + 1, key_end - at - 2);
        at = parse_tools_skip_blanks(obj, key_end) + 1; /* the colon */
        at = parse_tools_skip_blanks(obj, at);
        size_t end = at;
        if (strchr("{[\"", obj.p[at]) != NULL) {
            end = value_end(obj, at);
        } else {
            while (!strchr(",} \n\t\r", obj.p[end]))
                end++;
        }
        if (by_str_eqz(found, key)) return by_str_sub(obj, at, end - at);
        at = parse_tools_skip_blanks(obj, end);
        if (at < obj.n && obj.p[at] == ',') at = parse_tools_skip_blanks(obj, at + 1);
    }
    return (struct by_str){0};
}

/* Arguments within a string, as some models give them, without it; where it holds no JSON they are that string. */
static struct by_str unwrapped(const struct by_json *args, struct by_str text) {
    if (by_json_type(args) != BY_JSON_STRING) return text;
    struct by_str inner = by_str_trim(by_json_str(args));
    if (!inner.n) return BY_STR("{}");
    struct by_json *j = parse_tools_json(inner);
    by_json_free(j);
    return j ? inner : text;
}

/* {"name": …, "arguments" or "parameters": {…}}. False: it is no call. */
static bool push_object(struct parse_tools_result *out, struct by_str obj) {
    struct by_json *j = obj.n && *obj.p == '{' ? parse_tools_json(obj) : NULL;
    const struct by_json *name = by_json_get(j, "name"), *args = by_json_get(j, "arguments");
    const char *key = args ? "arguments" : "parameters";
    struct by_str text = BY_STR("{}");
    if (!args) args = by_json_get(j, key);
    bool is_call = name && by_json_type(name) == BY_JSON_STRING;
    if (is_call && args && by_json_type(args) != BY_JSON_NULL)
        text = unwrapped(args, member(obj, key));
    is_call = is_call && parse_tools_push(out, by_json_str(name), text);
    by_json_free(j);
    return is_call;
}

/* A name and its arguments, checked. */
static bool push_named(struct parse_tools_result *out, struct by_str name, struct by_str args) {
    struct by_json *j = args.n && *args.p == '{' ? parse_tools_json(args) : NULL;
    bool is_call = j && parse_tools_is_name(name) && parse_tools_push(out, name, args);
    by_json_free(j);
    return is_call;
}

enum parse_tools_verdict parse_tools_hermes(struct by_str s, size_t at, bool is_end, size_t *end,
                                            struct parse_tools_result *out) {
    const struct by_str close = BY_STR("</tool_call>");
    size_t from = parse_tools_skip_blanks(s, at);
    struct parse_tools_block *b = parse_tools_block_at(out, from);
    /* A string of an argument may hold the closing tag: the object goes before it. */
    bool is_whole = from == s.n || s.p[from] != '{' ||
                    (out->n_tried <= PARSE_TOOLS_TRIED_MAX && block_end(s, b) != SIZE_MAX);
    if (!is_end && !is_whole) return PARSE_TOOLS_UNSURE;
    size_t stop = is_whole ? parse_tools_find(s, close, b) : by_str_find(s, close, from);
    if (!is_end && stop == SIZE_MAX) return PARSE_TOOLS_UNSURE;
    if (!is_whole) out->n_tried += s.n - from;
    *end = stop == SIZE_MAX ? s.n : stop + close.n;
    struct by_str body = by_str_trim(by_str_sub(s, at, BY_MIN(stop, s.n) - at));
    return push_object(out, body) ? PARSE_TOOLS_CALL : PARSE_TOOLS_TEXT;
}

enum parse_tools_verdict parse_tools_llama3(struct by_str s, size_t at, bool is_end, size_t *end,
                                            struct parse_tools_result *out) {
    at = parse_tools_skip_blanks(s, at);
    if (at == s.n && !is_end) return PARSE_TOOLS_UNSURE;
    size_t stop = at;
    if (at < s.n && s.p[at] == '{') stop = block_end(s, parse_tools_block_at(out, at));
    if (stop == SIZE_MAX && !is_end) return PARSE_TOOLS_UNSURE;
    *end = BY_MIN(stop, s.n);
    if (stop == SIZE_MAX || !push_object(out, by_str_sub(s, at, stop - at)))
        return PARSE_TOOLS_TEXT;
    return PARSE_TOOLS_CALL;
}

/* All of a list or nothing. */
static bool push_list(struct parse_tools_result *out, struct by_str list) {
    size_t n_before = out->n_calls;
    for (size_t i = parse_tools_skip_blanks(list, 1); i < list.n && list.p[i] == '{';) {
        size_t object = value_end(list, i);
        if (object > list.n || !push_object(out, by_str_sub(list, i, object - i))) break;
        i = parse_tools_skip_blanks(list, object);
        if (i < list.n && list.p[i] == ']') return true;
        if (i < list.n && list.p[i] == ',') i = parse_tools_skip_blanks(list, i + 1);
    }
    out->n_calls = n_before;
    return false;
}

enum parse_tools_verdict parse_tools_mistral(struct by_str s, size_t at, bool is_end, size_t *end,
                                             struct parse_tools_result *out) {
    const struct by_str sep = BY_STR("[ARGS]");
    size_t from = parse_tools_skip_blanks(s, at), open = from;
    bool is_list = from < s.n && s.p[from] == '[';
    if (!is_list)
        open = by_str_find(by_str_sub(s, 0, from + PARSE_TOOLS_NAME_MAX), BY_STR("{"), from);
    *end = from;
    if (open == SIZE_MAX)
        return is_end || s.n - from >= PARSE_TOOLS_NAME_MAX ? PARSE_TOOLS_TEXT : PARSE_TOOLS_UNSURE;
    size_t stop = open == s.n ? SIZE_MAX : block_end(s, parse_tools_block_at(out, open));
    if (stop == SIZE_MAX && !is_end) return PARSE_TOOLS_UNSURE;
    *end = BY_MIN(stop, s.n);
    if (stop == SIZE_MAX) return PARSE_TOOLS_TEXT;
    struct by_str value = by_str_sub(s, open, stop - open);
    if (is_list) return push_list(out, value) ? PARSE_TOOLS_CALL : PARSE_TOOLS_TEXT;
    struct by_str name = by_str_sub(s, from, open - from);
    if (by_str_ends(name, sep)) name = by_str_sub(name, 0, name.n - sep.n);
    return push_named(out, by_str_trim(name), value) ? PARSE_TOOLS_CALL : PARSE_TOOLS_TEXT;
}

enum parse_tools_verdict parse_tools_deepseek(struct by_str s, size_t at, bool is_end, size_t *end,
                                              struct parse_tools_result *out) {
    const struct by_str close = BY_STR("<｜tool▁call▁end｜>"), sep = BY_STR("<｜tool▁sep｜>");
    size_t stop = parse_tools_find(s, close, parse_tools_block_at(out, at));
    if (stop == SIZE_MAX && !is_end) return PARSE_TOOLS_UNSURE;
    *end = stop == SIZE_MAX ? s.n : stop + close.n;
    struct by_str body = by_str_sub(s, at, BY_MIN(stop, s.n) - at);
    size_t middle = by_str_find(body, sep, 0);
    if (middle == SIZE_MAX) return PARSE_TOOLS_TEXT;
    struct by_str name = by_str_trim(by_str_sub(body, 0, middle));
    struct by_str args = by_str_trim(by_str_sub(body, middle + sep.n, SIZE_MAX));
    if (args.n && *args.p != '{') { /* V3: function<sep>name, then the arguments in a fence */
        size_t open = by_str_find(args, BY_STR("{"), 0);
        if (open == SIZE_MAX || !by_str_split(&args, '\n', &name)) return PARSE_TOOLS_TEXT;
        name = by_str_trim(name);
        open = by_str_find(args, BY_STR("{"), 0);
        size_t last = open == SIZE_MAX ? SIZE_MAX : value_end(args, open);
        if (last == SIZE_MAX) return PARSE_TOOLS_TEXT;
        args = by_str_sub(args, open, last - open);
    }
    return push_named(out, name, args) ? PARSE_TOOLS_CALL : PARSE_TOOLS_TEXT;
}

/* functions.name:0 */
static struct by_str kimi_name(struct by_str id) {
    const struct by_str space = BY_STR("functions.");
    if (by_str_starts(id, space)) id = by_str_sub(id, space.n, SIZE_MAX);
    size_t n = id.n;
    while (n && id.p[n - 1] >= '0' && id.p[n - 1] <= '9')
        n--;
    return n && n < id.n && id.p[n - 1] == ':' ? by_str_sub(id, 0, n - 1) : id;
}

enum parse_tools_verdict parse_tools_kimi_k2(struct by_str s, size_t at, bool is_end, size_t *end,
                                             struct parse_tools_result *out) {
    const struct by_str close = BY_STR("<|tool_call_end|>"),
                        sep = BY_STR("<|tool_call_argument_begin|>");
    size_t stop = parse_tools_find(s, close, parse_tools_block_at(out, at));
    if (stop == SIZE_MAX && !is_end) return PARSE_TOOLS_UNSURE;
    *end = stop == SIZE_MAX ? s.n : stop + close.n;
    struct by_str body = by_str_sub(s, at, BY_MIN(stop, s.n) - at);
    size_t middle = by_str_find(body, sep, 0);
    if (middle == SIZE_MAX) return PARSE_TOOLS_TEXT;
    struct by_str name = kimi_name(by_str_trim(by_str_sub(body, 0, middle)));
    struct by_str args = by_str_trim(by_str_sub(body, middle + sep.n, SIZE_MAX));
    return push_named(out, name, args) ? PARSE_TOOLS_CALL : PARSE_TOOLS_TEXT;
}

/* A list of objects, or one alone. */
enum parse_tools_verdict parse_tools_list(struct by_str s, size_t at, bool is_end, size_t *end,
                                          struct parse_tools_result *out) {
    size_t from = parse_tools_skip_blanks(s, at);
    *end = from;
    if (from == s.n) return is_end ? PARSE_TOOLS_TEXT : PARSE_TOOLS_UNSURE;
    if (s.p[from] == '[') return parse_tools_mistral(s, from, is_end, end, out);
    return parse_tools_llama3(s, from, is_end, end, out);
}
