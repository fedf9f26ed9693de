/* The forms that write calls as Python does: in a list, or one after the other between two marks. */
#include "proto/limits.h"
#include "router/parse_python.h"
#include "router/parse_tools_form.h"

enum { LONG = 256 }; /* bytes of a block; a shorter one is read again whenever it grows */
enum {
    OUTSIDE,
    DONE,
    IN_LONG = 0x80
}; /* a block's state, else the quote that a text ends with; three of it with IN_LONG */

/* Reads on to what may be the block's end: a ']' that none opened, or a '<' outside of texts. A block without goes on if it is one. */
static bool has_end(struct by_str s, struct parse_tools_block *b) {
    while (b->at < s.n && b->state != DONE) {
        char c = s.p[b->at];
        bool is_quote = c == '"' || c == '\'', is_long = b->state & IN_LONG;
        size_t step = 1;
        if (is_quote && (!b->state || (is_long && c == (b->state & ~IN_LONG)))) {
            if (s.n - b->at < 3) return false;
            bool is_triple = s.p[b->at + 1] == c && s.p[b->at + 2] == c;
            step = is_triple ? 3 : 1;
            if (!b->state)
                b->state = (uint8_t)(is_triple ? (c | IN_LONG) : c);
            else if (is_triple)
                b->state = OUTSIDE;
        } else if (b->state && c == '\\') {
            step = 2;
        } else if (b->state) {
            b->state = c == b->state ? OUTSIDE : b->state;
        } else if (c == '[') {
            b->depth++;
        } else if (c == '<' || (c == ']' && !b->depth--)) {
            b->state = DONE;
        }
        if (s.n - b->at < step) return false;
        b->at += step;
    }
    return b->state == DONE;
}

/* Is it worth while to read the block again? When it may have an end, or has twice the bytes. */
static bool may_be_settled(struct by_str s, size_t at, bool is_end,
                           struct parse_tools_result *out) {
    struct parse_tools_block *b = parse_tools_block_at(out, at);
    size_t n = s.n - at;
    if (n > LONG && !has_end(s, b) && !is_end && n / 2 < b->n_read) return false;
    b->n_read = n;
    return true;
}

/* All calls up to `close`, a comma or blanks between them; or nothing. */
static enum parse_tools_verdict read_calls(struct by_str s, size_t *at, struct by_str close,
                                           bool has_commas, struct parse_tools_result *out) {
    size_t i = *at;
    for (;;) {
        struct by_buf args;
        struct by_str name;
        i = parse_tools_skip_blanks(s, i);
        by_buf_init(&args, LIMIT_STR_BYTES);
        enum parse_python read = parse_python_call(s, &i, &name, &args);
        bool is_call = read == PARSE_PYTHON_CALL && parse_tools_push(out, name, by_buf_str(&args));
        by_buf_release(&args);
        *at = i = is_call ? parse_tools_skip_blanks(s, i) : i;
        if (read == PARSE_PYTHON_UNSURE) return PARSE_TOOLS_UNSURE;
        if (!is_call) return PARSE_TOOLS_TEXT;
        struct by_str rest = by_str_sub(s, i, close.n);
        if (by_str_eq(rest, close)) break;
        if (by_str_starts(close, rest)) return PARSE_TOOLS_UNSURE;
        if (has_commas && s.p[i] != ',') return PARSE_TOOLS_TEXT;
        i += has_commas;
    }
    *at = i + close.n;
    return PARSE_TOOLS_CALL;
}

static enum parse_tools_verdict read_block(struct by_str s, size_t at, bool is_end, size_t *end,
                                           struct parse_tools_result *out, struct by_str close) {
    size_t i = at, n_before = out->n_calls;
    *end = at; /* what is none may hold another '[' */
    if (out->n_tried > PARSE_TOOLS_TRIED_MAX) return PARSE_TOOLS_TEXT;
    if (!may_be_settled(s, at, is_end, out)) return PARSE_TOOLS_UNSURE;
    enum parse_tools_verdict v = read_calls(s, &i, close, close.n == 1, out);
    if (v == PARSE_TOOLS_CALL) {
        *end = i;
        return v;
    }
    out->n_calls = n_before;
    if (v == PARSE_TOOLS_UNSURE && !is_end) return v;
    out->n_tried += i - at;
    return PARSE_TOOLS_TEXT;
}

/* [get(city="Paris"), f()] */
enum parse_tools_verdict parse_tools_pythonic(struct by_str s, size_t at, bool is_end, size_t *end,
                                              struct parse_tools_result *out) {
    return read_block(s, at, is_end, end, out, BY_STR("]"));
}

/* The same behind a mark of its own. */
enum parse_tools_verdict parse_tools_lfm2(struct by_str s, size_t at, bool is_end, size_t *end,
                                          struct parse_tools_result *out) {
    at = parse_tools_skip_blanks(s, at);
    *end = at;
    if (at == s.n) return is_end ? PARSE_TOOLS_TEXT : PARSE_TOOLS_UNSURE;
    if (s.p[at] != '[') return PARSE_TOOLS_TEXT;
    return read_block(s, at + 1, is_end, end, out, BY_STR("]"));
}

/* One a line. */
enum parse_tools_verdict parse_tools_olmo3(struct by_str s, size_t at, bool is_end, size_t *end,
                                           struct parse_tools_result *out) {
    return read_block(s, at, is_end, end, out, BY_STR("</function_calls>"));
}
