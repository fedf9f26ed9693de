#include "router/parse_python.h"

#include "common/base/utf8.h"
#include "proto/limits.h"

struct reader {
    struct by_str s;
    size_t at;
    struct by_buf *out;
    bool is_short; /* the text ended where more was needed */
    bool is_bad;
};

static bool read_value(struct reader *r, unsigned depth);

/* The next character; \0 at the end, which makes it short. */
static char peek(struct reader *r) {
    if (r->at < r->s.n) return r->s.p[r->at];
    r->is_short = true;
    return '\0';
}

static void skip_blanks(struct reader *r) {
    while (r->at < r->s.n && strchr(" \t\r\n", r->s.p[r->at]))
        r->at++;
}

static bool fail(struct reader *r) {
    r->is_bad = !r->is_short;
    return false;
}

static bool is_name_start(char c) {
    return ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_';
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Letters, digits, _ and, in a function's name, dots and hyphens. */
static struct by_str read_name(struct reader *r, bool is_function) {
    size_t from = r->at;
    if (!is_name_start(peek(r))) return (struct by_str){0};
    while (r->at < r->s.n && (is_name_start(r->s.p[r->at]) || is_digit(r->s.p[r->at]) ||
                              (is_function && (r->s.p[r->at] == '.' || r->s.p[r->at] == '-'))))
        r->at++;
    peek(r); /* a name at the end of the text may go on */
    return by_str_sub(r->s, from, r->at - from);
}

/* ---- texts ---- */

static uint32_t read_hex(struct reader *r, unsigned n) {
    uint32_t value = 0, digit;
    for (unsigned i = 0; i < n; i++, r->at++) {
        (void)peek(r); /* at the end of the text more may come */
        if (!by_str_hex(r->s, r->at, 1, &digit)) {
            fail(r);
            return 0;
        }
        value = value << 4 | digit;
    }
    return value;
}

static void add_char(struct by_buf *text, uint32_t cp) {
    char c[4];
    bool is_char = cp <= 0x10FFFF && (cp < 0xD800 || cp > 0xDFFF);
    by_buf_add(text, c, by_utf8_encode(is_char ? cp : 0xFFFD, c));
}

static void read_escape(struct reader *r, struct by_buf *text) {
    static const char from[] = "ntrabfv0\\'\"", to[] = "\n\t\r\a\b\f\v\0\\'\"";
    char c = peek(r);
    const char *found = c ? strchr(from, c) : NULL;
    if (r->is_short) return;
    r->at++;
    if (found) {
        by_buf_addc(text, to[found - from]);
    } else if (c == 'x' || c == 'u' || c == 'U') {
        uint32_t cp = read_hex(r, c == 'x' ? 2 : c == 'u' ? 4 : 8);
        struct by_str rest = by_str_sub(r->s, r->at, 2);
        if (cp >= 0xD800 && cp < 0xDC00 && by_str_eqz(rest, "\\u")) { /* as JSON writes it */
            r->at += 2;
            uint32_t low = read_hex(r, 4);
            cp = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00)
                                               : 0xFFFD;
        }
        if (!r->is_short && !r->is_bad) add_char(text, cp);
    } else if (c != '\n') { /* an unknown one stays as it is */
        by_buf_addc(text, '\\');
        by_buf_addc(text, c);
    }
}

static bool read_text(struct reader *r) {
    struct by_buf text;
    char quote = peek(r);
    bool is_long = by_str_sub(r->s, r->at, 3).n == 3 && r->s.p[r->at + 1] == quote &&
                   r->s.p[r->at + 2] == quote;
    /* "" at the end of the text may become """ */
    if (by_str_sub(r->s, r->at, 3).n == 2 && r->s.p[r->at + 1] == quote) r->is_short = true;
    by_buf_init(&text, LIMIT_STR_BYTES);
    r->at += is_long ? 3 : 1;
    for (;;) {
        char c = peek(r);
        if (r->is_short || r->is_bad) break;
        struct by_str rest = by_str_sub(r->s, r->at, 3);
        bool is_end =
            c == quote && (!is_long || (rest.n == 3 && rest.p[1] == quote && rest.p[2] == quote));
        if (is_long && c == quote && rest.n < 3) r->is_short = true;
        if (is_end || r->is_short) break;
        r->at++;
        if (c == '\\')
            read_escape(r, &text);
        else if (c == '\n' && !is_long)
            r->is_bad = true;
        else
            by_buf_addc(&text, c);
    }
    bool is_whole = !r->is_short && !r->is_bad;
    if (is_whole) r->at += is_long ? 3 : 1;
    if (is_whole) by_buf_add_json_str(r->out, (struct by_str){text.p ? text.p : "", text.n});
    by_buf_release(&text);
    return is_whole;
}

/* ---- numbers and words ---- */

/* Python's "1_000", ".5", "5.", "+1" as JSON writes them. */
static bool read_number(struct reader *r) {
    size_t n_digits = 0, n_whole = 0;
    bool has_dot = false, has_exponent = false;
    char number[64];
    size_t n = 0, from = r->at;
    char sign = peek(r);
    if (sign == '-' || sign == '+') r->at++;
    if (sign == '-') number[n++] = '-';
    for (;;) {
        char c = peek(r);
        if (n + 4 > sizeof number) return fail(r);
        if (is_digit(c)) {
            bool is_zero_first = !has_dot && !has_exponent && n_whole == 1 && number[n - 1] == '0';
            if (is_zero_first) return fail(r); /* 007 */
            number[n++] = c;
            n_digits++;
            n_whole += !has_dot && !has_exponent;
        } else if (c == '.' && !has_dot && !has_exponent) {
            if (!n_whole) number[n++] = '0';
            number[n++] = '.';
            has_dot = true;
            n_digits = n_whole ? n_digits : 0;
            char next = r->at + 1 < r->s.n ? r->s.p[r->at + 1] : '\0';
            if (r->at + 1 >= r->s.n) r->is_short = true;
            if (!is_digit(next)) number[n++] = '0';
            if (!is_digit(next) && !n_whole) return fail(r);
        } else if ((c | 32) == 'e' && !has_exponent && n_digits) {
            number[n++] = 'e';
            has_exponent = true;
            r->at++;
            if (peek(r) == '-' || peek(r) == '+') number[n++] = r->s.p[r->at++];
            if (!is_digit(peek(r))) return fail(r);
            continue;
        } else if (!(c == '_' && r->at > from && is_digit(r->s.p[r->at - 1]))) {
            break;
        }
        r->at++;
    }
    if (r->is_short || !n_digits || is_name_start(peek(r))) return fail(r);
    by_buf_add(r->out, number, n);
    return true;
}

static bool read_word(struct reader *r) {
    static const char *const words[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"},
                                           {"true", "true"}, {"false", "false"}, {"null", "null"}};
    struct by_str word = read_name(r, false);
    for (size_t i = 0; i < BY_COUNTOF(words) && !r->is_short; i++) {
        if (!by_str_eqz(word, words[i][0])) continue;
        by_buf_addz(r->out, words[i][1]);
        return true;
    }
    return fail(r);
}

/* ---- lists and dicts ---- */

/* Items up to `close`, with commas between; a dict's have keys. */
static bool read_items(struct reader *r, char close, bool is_dict, unsigned depth) {
    by_buf_addc(r->out, is_dict ? '{' : '[');
    r->at++;
    for (bool is_first = true;; is_first = false) {
        skip_blanks(r);
        if (peek(r) == close) break;
        if (r->is_short) return false;
        if (!is_first) by_buf_addz(r->out, ", ");
        if (is_dict) {
            char quote = peek(r);
            if (quote != '"' && quote != '\'') return fail(r);
            if (!read_text(r)) return false;
            skip_blanks(r);
            if (peek(r) != ':') return fail(r);
            r->at++;
            skip_blanks(r);
            by_buf_addz(r->out, ": ");
        }
        if (!read_value(r, depth + 1)) return false;
        skip_blanks(r);
        if (peek(r) == ',')
            r->at++;
        else if (peek(r) != close)
            return fail(r);
    }
    r->at++;
    by_buf_addc(r->out, is_dict ? '}' : ']');
    return true;
}

static bool read_value(struct reader *r, unsigned depth) {
    char c = peek(r);
    if (depth >= LIMIT_JSON_DEPTH || r->is_short) return fail(r);
    if (c == '"' || c == '\'') return read_text(r);
    if (c == '[') return read_items(r, ']', false, depth);
    if (c == '(') return read_items(r, ')', false, depth);
    if (c == '{') return read_items(r, '}', true, depth);
    if (is_digit(c) || c == '-' || c == '+' || c == '.') return read_number(r);
    return read_word(r);
}

static bool read_call(struct reader *r, struct by_str *name) {
    *name = read_name(r, true);
    if (!name->n || peek(r) != '(') return fail(r);
    r->at++;
    by_buf_addc(r->out, '{');
    for (bool is_first = true;; is_first = false) {
        skip_blanks(r);
        if (peek(r) == ')') break;
        struct by_str key = read_name(r, false);
        skip_blanks(r);
        if (!key.n || peek(r) != '=') return fail(r);
        r->at++;
        skip_blanks(r);
        if (!is_first) by_buf_addz(r->out, ", ");
        by_buf_add_json_str(r->out, key);
        by_buf_addz(r->out, ": ");
        if (!read_value(r, 1)) return false;
        skip_blanks(r);
        if (peek(r) == ',')
            r->at++;
        else if (peek(r) != ')')
            return fail(r);
    }
    r->at++;
    by_buf_addc(r->out, '}');
    return true;
}

enum parse_python parse_python_call(struct by_str s, size_t *at, struct by_str *name,
                                    struct by_buf *arguments) {
    struct reader r = {.s = s, .at = *at, .out = arguments};
    bool is_call = read_call(&r, name) && !r.is_short && !r.is_bad && !arguments->is_full;
    *at = r.at;
    return is_call                   ? PARSE_PYTHON_CALL
           : r.is_short && !r.is_bad ? PARSE_PYTHON_UNSURE
                                     : PARSE_PYTHON_NONE;
}
