/* The forms of Gemma: call:name{key:<|"|>text<|"|>,n:1,list:[true]}. Keys are bare; texts stand between two of a mark, and nothing in
 * them is escaped. */
#include "common/base/json.h"
#include "proto/limits.h"
#include "router/parse_tools_form.h"

enum { OUTSIDE, IN_TEXT, DONE }; /* a block's state */

struct reader {
    struct by_str s, quote;
    size_t at;
    struct by_buf *out;
};

static bool read_value(struct reader *r, unsigned depth);

static bool is_at(struct by_str s, size_t at, struct by_str mark) {
    return by_str_eq(by_str_sub(s, at, mark.n), mark);
}

/* The text ends within what may be the mark. */
static bool may_be_at(struct by_str s, size_t at, struct by_str mark) {
    return s.n - at < mark.n && by_str_starts(mark, by_str_sub(s, at, mark.n));
}

/* The end of the object that the block begins with. SIZE_MAX: not there yet. */
static size_t block_end(struct by_str s, struct by_str quote, struct parse_tools_block *b) {
    while (b->at < s.n && b->state != DONE) {
        if (b->state == IN_TEXT) {
            size_t found = parse_tools_find(s, quote, b);
            if (found == SIZE_MAX) break;
            b->at = found + quote.n;
            b->state = OUTSIDE;
        } else if (is_at(s, b->at, quote)) {
            b->at += quote.n;
            b->state = IN_TEXT;
        } else if (may_be_at(s, b->at, quote)) {
            break;
        } else {
            char c = s.p[b->at++];
            b->depth += c == '{' || c == '[';
            if ((c == '}' || c == ']') && --b->depth == 0) b->state = DONE;
        }
    }
    return b->state == DONE ? b->at : SIZE_MAX;
}

static void skip_blanks(struct reader *r) {
    r->at = parse_tools_skip_blanks(r->s, r->at);
}

/* Between two quotes. */
static bool read_text(struct reader *r) {
    size_t from = r->at + r->quote.n, end = by_str_find(r->s, r->quote, from);
    if (end == SIZE_MAX) return false;
    by_buf_add_json_str(r->out, by_str_sub(r->s, from, end - from));
    r->at = end + r->quote.n;
    return true;
}

/* What stands before one of `ends`, without blanks around it. */
static bool read_bare(struct reader *r, const char *ends, struct by_str *bare) {
    size_t from = r->at;
    while (r->at < r->s.n && !memchr(ends, r->s.p[r->at], strlen(ends))) {
        if (is_at(r->s, r->at, r->quote)) return false;
        r->at++;
    }
    *bare = by_str_trim(by_str_sub(r->s, from, r->at - from));
    return r->at < r->s.n;
}

static bool read_key(struct reader *r) {
    struct by_str key;
    if (is_at(r->s, r->at, r->quote)) {
        if (!read_text(r)) return false;
        skip_blanks(r);
    } else {
        if (!read_bare(r, ":,{}[]", &key) || !key.n) return false;
        if (key.n > 1 && *key.p == '"' && key.p[key.n - 1] == '"')
            key = by_str_sub(key, 1, key.n - 2);
        by_buf_add_json_str(r->out, key);
    }
    return r->at < r->s.n && r->s.p[r->at++] == ':';
}

/* A number, true, false, null, or words; None is how the template writes null. */
static bool read_word(struct reader *r) {
    struct by_str word;
    if (!read_bare(r, ",}]", &word)) return false;
    struct by_json *j = word.n && !strchr("{[", *word.p) ? parse_tools_json(word) : NULL;
    if (by_str_eqz(word, "None"))
        by_buf_addz(r->out, "null");
    else if (j)
        by_buf_add_str(r->out, word);
    else
        by_buf_add_json_str(r->out, word);
    by_json_free(j);
    return true;
}

static bool read_items(struct reader *r, char close, unsigned depth) {
    by_buf_addc(r->out, r->s.p[r->at++]);
    for (bool is_first = true;; is_first = false) {
        skip_blanks(r);
        if (r->at < r->s.n && r->s.p[r->at] == close) break;
        if (!is_first) by_buf_addz(r->out, ", ");
        if (close == '}') {
            if (!read_key(r)) return false;
            by_buf_addz(r->out, ": ");
        }
        if (!read_value(r, depth + 1)) return false;
        skip_blanks(r);
        if (r->at == r->s.n) return false;
        if (r->s.p[r->at] == ',')
            r->at++;
        else if (r->s.p[r->at] != close)
            return false;
    }
    r->at++;
    by_buf_addc(r->out, close);
    return true;
}

static bool read_value(struct reader *r, unsigned depth) {
    skip_blanks(r);
    if (depth >= LIMIT_JSON_DEPTH || r->at == r->s.n) return false;
    if (is_at(r->s, r->at, r->quote)) return read_text(r);
    if (r->s.p[r->at] == '{') return read_items(r, '}', depth);
    if (r->s.p[r->at] == '[') return read_items(r, ']', depth);
    return read_word(r);
}

static bool push(struct parse_tools_result *out, struct by_str name, struct by_str object,
                 struct by_str quote) {
    struct by_buf args;
    struct reader r = {.s = object, .quote = quote, .out = &args};
    by_buf_init(&args, LIMIT_STR_BYTES);
    bool is_call = parse_tools_is_name(name) && read_value(&r, 0) && r.at == object.n &&
                   !args.is_full && parse_tools_push(out, name, by_buf_str(&args));
    by_buf_release(&args);
    return is_call;
}

static enum parse_tools_verdict read_block(struct by_str s, size_t at, bool is_end, size_t *end,
                                           struct parse_tools_result *out, struct by_str quote,
                                           struct by_str close) {
    const struct by_str head = BY_STR("call:");
    size_t from = parse_tools_skip_blanks(s, at), name = from + head.n;
    *end = from;
    if (!is_end && may_be_at(s, from, head)) return PARSE_TOOLS_UNSURE;
    if (!is_at(s, from, head)) return PARSE_TOOLS_TEXT;
    *end = name;
    size_t open = by_str_find(by_str_sub(s, 0, name + PARSE_TOOLS_NAME_MAX), BY_STR("{"), name);
    if (open == SIZE_MAX)
        return is_end || s.n - name >= PARSE_TOOLS_NAME_MAX ? PARSE_TOOLS_TEXT : PARSE_TOOLS_UNSURE;
    size_t stop = block_end(s, quote, parse_tools_block_at(out, open));
    if (stop == SIZE_MAX && !is_end) return PARSE_TOOLS_UNSURE;
    *end = BY_MIN(stop, s.n);
    if (stop == SIZE_MAX) return PARSE_TOOLS_TEXT;
    size_t behind = parse_tools_skip_blanks(s, stop);
    if (!is_end && may_be_at(s, behind, close)) return PARSE_TOOLS_UNSURE;
    if (is_at(s, behind, close)) *end = behind + close.n;
    struct by_str object = by_str_sub(s, open, stop - open);
    return push(out, by_str_trim(by_str_sub(s, name, open - name)), object, quote)
               ? PARSE_TOOLS_CALL
               : PARSE_TOOLS_TEXT;
}

enum parse_tools_verdict parse_tools_gemma4(struct by_str s, size_t at, bool is_end, size_t *end,
                                            struct parse_tools_result *out) {
    return read_block(s, at, is_end, end, out, BY_STR("<|\"|>"), BY_STR("<tool_call|>"));
}

enum parse_tools_verdict parse_tools_functiongemma(struct by_str s, size_t at, bool is_end,
                                                   size_t *end, struct parse_tools_result *out) {
    return read_block(s, at, is_end, end, out, BY_STR("<escape>"), BY_STR("<end_function_call>"));
}
