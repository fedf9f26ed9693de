#include "common/template/jlex.h"

#include "common/base/utf8.h"
#include "common/template/jchar.h"

#include <ctype.h>

enum { BRACKETS_MAX = 64 };

struct lexer {
    struct by_arena *arena;
    struct by_str src; /* newlines are \n, the last one is cut off */
    size_t at;
    uint32_t line;
    bool line_starting; /* what was taken last ended with a newline */
    struct by_jlex_tokens *out;
    struct by_err *err;
    int rc;
};

static void fail(struct lexer *lx, const char *what) {
    if (!lx->rc)
        lx->rc = by_fail(lx->err, BY_EFORMAT, "chat template, line %u: %s", lx->line, what);
}

static void push(struct lexer *lx, enum by_jtok_type type, struct by_str text, uint32_t line) {
    struct by_jlex_tokens *t = lx->out;
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 256;
        struct by_jtok *at = by_arena_get_array(lx->arena, cap, sizeof(*at));
        if (t->n) memcpy(at, t->at, t->n * sizeof(*at));
        t->at = at;
        t->cap = cap;
    }
    t->at[t->n++] = (struct by_jtok){.type = type, .line = line, .text = text};
}

static bool sees(const struct lexer *lx, const char *z) {
    size_t n = strlen(z);
    return lx->src.n - lx->at >= n && memcmp(lx->src.p + lx->at, z, n) == 0;
}

static void advance(struct lexer *lx, size_t to) {
    for (; lx->at < to; lx->at++)
        lx->line += lx->src.p[lx->at] == '\n';
    lx->line_starting = to > 0 && lx->src.p[to - 1] == '\n';
}

/* \r\n and \r become \n; one newline at the very end goes. */
static struct by_str normalise(struct by_arena *a, struct by_str s) {
    char *p = by_arena_get(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\r') {
            p[n++] = '\n';
            i += i + 1 < s.n && s.p[i + 1] == '\n';
        } else {
            p[n++] = s.p[i];
        }
    }
    if (n && p[n - 1] == '\n') n--;
    return (struct by_str){p, n};
}

/* The text before a tag: '-' takes all blanks at its end; for blocks and comments, blanks back to the line's start
 * go unless '+' says no. */
static struct by_str strip_before(const struct lexer *lx, struct by_str text, char sign,
                                  bool is_variable) {
    if (sign == '-') {
        text.n = by_jchar_drop_space(text, text.n);
        return text;
    }
    if (sign == '+' || is_variable) return text;
    size_t line_at = text.n;
    while (line_at > 0 && text.p[line_at - 1] != '\n')
        line_at--;
    if (line_at == 0 && !lx->line_starting) return text;
    if (by_jchar_skip_space(text, line_at) == text.n) text.n = line_at;
    return text;
}

/* The end of a block or comment tag at lx->at: takes "-%}" with the blanks behind, "+%}", or "%}" with one newline. */
static bool take_end(struct lexer *lx, const char *end, bool trims_newline) {
    char sign = sees(lx, "-") ? '-' : sees(lx, "+") && trims_newline ? '+' : 0;
    size_t start = lx->at;
    lx->at += sign != 0;
    bool is_end = sees(lx, end);
    lx->at = start;
    if (!is_end) return false;
    size_t to = start + (sign != 0) + 2;
    if (sign == '-')
        to = by_jchar_skip_space(lx->src, to);
    else if (!sign && trims_newline && to < lx->src.n && lx->src.p[to] == '\n')
        to++;
    advance(lx, to);
    return true;
}

static void comment(struct lexer *lx) {
    uint32_t line = lx->line;
    while (lx->at < lx->src.n) {
        if ((sees(lx, "#}") || sees(lx, "-#}") || sees(lx, "+#}")) && take_end(lx, "#}", true))
            return;
        advance(lx, lx->at + 1);
    }
    lx->line = line;
    fail(lx, "this comment has no end: #} is missing");
}

static size_t skip_blanks_from(const struct lexer *lx, size_t from) {
    return by_jchar_skip_space(lx->src, from);
}

/* Length of "<blanks>word<blanks>" at `from` when a tag end follows it, else 0. */
static size_t match_word(const struct lexer *lx, size_t from, const char *word) {
    size_t at = skip_blanks_from(lx, from), n = strlen(word);
    if (lx->src.n - at < n || memcmp(lx->src.p + at, word, n) != 0) return 0;
    at = skip_blanks_from(lx, at + n);
    struct by_str rest = {lx->src.p + at, lx->src.n - at};
    bool is_end = by_str_starts(rest, BY_STR("%}")) || by_str_starts(rest, BY_STR("-%}")) ||
                  by_str_starts(rest, BY_STR("+%}"));
    return is_end ? at - from : 0;
}

/* Behind {% raw %}: everything up to {% endraw %} is text. */
static void raw(struct lexer *lx) {
    size_t start = lx->at;
    uint32_t line = lx->line;
    bool line_starting = lx->line_starting;
    for (size_t at = start; at + 1 < lx->src.n; at++) {
        if (lx->src.p[at] != '{' || lx->src.p[at + 1] != '%') continue;
        char sign = at + 2 < lx->src.n ? lx->src.p[at + 2] : 0;
        size_t from = at + 2 + (sign == '-' || sign == '+'), n = match_word(lx, from, "endraw");
        if (n == 0) continue;
        lx->line_starting = line_starting;
        struct by_str text =
            strip_before(lx, (struct by_str){lx->src.p + start, at - start}, sign, false);
        if (text.n) push(lx, BY_JTOK_DATA, text, line);
        advance(lx, from + n);
        (void)take_end(lx, "%}", true);
        return;
    }
    fail(lx, "{% raw %} has no {% endraw %}");
}

static const char *const operators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                        "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                        ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

static size_t digits_from(const struct lexer *lx, size_t at) {
    size_t start = at;
    while (at < lx->src.n && (isdigit((unsigned char)lx->src.p[at]) ||
                              (lx->src.p[at] == '_' && at > start && at + 1 < lx->src.n &&
                               isdigit((unsigned char)lx->src.p[at + 1]))))
        at++;
    return at;
}

/* 12, 1_000, 0x1f, 0o17, 0b11, 1.5, 1e9, 1.5e-3. The text keeps no underscores. */
static void number(struct lexer *lx) {
    size_t start = lx->at, at;
    bool is_float = false;
    char base = start + 1 < lx->src.n ? (char)tolower((unsigned char)lx->src.p[start + 1]) : 0;
    if (lx->src.p[start] == '0' && (base == 'x' || base == 'o' || base == 'b')) {
        for (at = start + 2;
             at < lx->src.n && (isxdigit((unsigned char)lx->src.p[at]) || lx->src.p[at] == '_');)
            at++;
    } else {
        at = digits_from(lx, start);
        bool after_dot = start > 0 && lx->src.p[start - 1] == '.'; /* a.0.1: two subscripts */
        if (!after_dot && at + 1 < lx->src.n && lx->src.p[at] == '.' &&
            isdigit((unsigned char)lx->src.p[at + 1])) {
            is_float = true;
            at = digits_from(lx, at + 1);
        }
        if (!after_dot && at + 1 < lx->src.n && (lx->src.p[at] | 32) == 'e') {
            size_t exp = at + 1 + (lx->src.p[at + 1] == '+' || lx->src.p[at + 1] == '-');
            size_t end = digits_from(lx, exp);
            if (end > exp) {
                is_float = true;
                at = end;
            }
        }
    }
    char *p = by_arena_get(lx->arena, at - start + 1);
    size_t n = 0;
    for (size_t i = start; i < at; i++)
        if (lx->src.p[i] != '_') p[n++] = lx->src.p[i];
    push(lx, is_float ? BY_JTOK_FLOAT : BY_JTOK_INT, (struct by_str){p, n}, lx->line);
    lx->at = at;
}

/* s[0] is behind a backslash: appends what Python's unicode-escape makes of it, returns the bytes eaten; 0: bad. */
static size_t unescape(struct by_str s, char *out, size_t *n) {
    static const char letters[] = "abfnrtv\\'\"", chars[] = "\a\b\f\n\r\t\v\\'\"";
    const char *known = s.p[0] ? strchr(letters, s.p[0]) : NULL;
    size_t n_hex = s.p[0] == 'x' ? 2 : s.p[0] == 'u' ? 4 : s.p[0] == 'U' ? 8 : 0;
    uint32_t cp = 0;
    if (known) {
        out[(*n)++] = chars[known - letters];
        return 1;
    }
    if (s.p[0] == '\n') return 1; /* a line continued */
    if (n_hex) {
        if (!by_str_hex(s, 1, n_hex, &cp) || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
            return 0;
        *n += by_utf8_encode(cp, out + *n);
        return 1 + n_hex;
    }
    if (s.p[0] >= '0' && s.p[0] <= '7') {
        size_t i = 0;
        for (; i < 3 && i < s.n && s.p[i] >= '0' && s.p[i] <= '7'; i++)
            cp = cp * 8 + (uint32_t)(s.p[i] - '0');
        *n += by_utf8_encode(cp, out + *n);
        return i;
    }
    out[(*n)++] = '\\'; /* unknown ones stay as they are */
    return (size_t)-1;
}

static void string(struct lexer *lx) {
    char quote = lx->src.p[lx->at];
    size_t end = lx->at + 1;
    while (end < lx->src.n && lx->src.p[end] != quote)
        end += lx->src.p[end] == '\\' ? 2 : 1;
    if (end >= lx->src.n) {
        fail(lx, "this string has no end");
        return;
    }
    char *p = by_arena_get(lx->arena, end - lx->at + 1); /* an escape never grows */
    size_t n = 0;
    for (size_t i = lx->at + 1; i < end;) {
        if (lx->src.p[i] != '\\') {
            p[n++] = lx->src.p[i++];
            continue;
        }
        size_t eaten = unescape((struct by_str){lx->src.p + i + 1, end - i - 1}, p, &n);
        if (eaten == 0) {
            fail(lx, "a string with a bad \\x, \\u or \\U escape");
            return;
        }
        i += eaten == (size_t)-1 ? 1 : 1 + eaten;
    }
    push(lx, BY_JTOK_STRING, (struct by_str){p, n}, lx->line);
    advance(lx, end + 1);
}

static bool is_name_byte(unsigned char c, bool is_first) {
    return isalpha(c) || c == '_' || c >= 0x80 || (!is_first && isdigit(c));
}

static void name(struct lexer *lx) {
    size_t end = lx->at;
    while (end < lx->src.n && is_name_byte((unsigned char)lx->src.p[end], false))
        end++;
    push(lx, BY_JTOK_NAME, (struct by_str){lx->src.p + lx->at, end - lx->at}, lx->line);
    lx->at = end;
}

/* One operator; brackets are kept on a stack, so that }} inside a dict does not end the tag. */
static void operator_(struct lexer *lx, char stack[BRACKETS_MAX], size_t *depth) {
    for (size_t i = 0; i < BY_COUNTOF(operators); i++) {
        if (!sees(lx, operators[i])) continue;
        struct by_str op = by_str_of(operators[i]);
        char c = op.p[0];
        if (c == '(' || c == '[' || c == '{') {
            if (*depth == BRACKETS_MAX) {
                fail(lx, "more than 64 brackets are open");
                return;
            }
            stack[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (*depth == 0 || stack[--*depth] != c) {
                fail(lx, "a closing bracket that fits no opening one");
                return;
            }
        }
        push(lx, BY_JTOK_OP, op, lx->line);
        lx->at += op.n;
        return;
    }
    fail(lx, "a character that means nothing here");
}

/* Behind {{ or {%: tokens until the end of the tag. */
static void tag(struct lexer *lx, bool is_variable) {
    char stack[BRACKETS_MAX];
    size_t depth = 0;
    uint32_t line = lx->line;
    while (lx->at < lx->src.n && !lx->rc) {
        if (depth == 0) {
            uint32_t end_line = lx->line;
            bool ends = is_variable ? take_end(lx, "}}", false) : take_end(lx, "%}", true);
            if (ends) {
                push(lx, is_variable ? BY_JTOK_VAR_END : BY_JTOK_BLOCK_END, BY_STR(""), end_line);
                return;
            }
        }
        unsigned char c = (unsigned char)lx->src.p[lx->at];
        size_t blank_end = skip_blanks_from(lx, lx->at);
        if (blank_end > lx->at)
            advance(lx, blank_end);
        else if (isdigit(c))
            number(lx);
        else if (c == '"' || c == '\'')
            string(lx);
        else if (is_name_byte(c, true))
            name(lx);
        else
            operator_(lx, stack, &depth);
    }
    if (lx->rc) return;
    lx->line = line;
    fail(lx, is_variable ? "this {{ has no }}" : "this {% has no %}");
}

/* Position of the next "{{", "{%" or "{#". */
static size_t find_tag(struct by_str s, size_t from) {
    for (size_t i = from; i + 1 < s.n; i++)
        if (s.p[i] == '{' && (s.p[i + 1] == '{' || s.p[i + 1] == '%' || s.p[i + 1] == '#'))
            return i;
    return s.n;
}

int by_jlex(struct by_arena *a, struct by_str source, struct by_jlex_tokens *out,
            struct by_err *err) {
    struct lexer lx = {.arena = a,
                       .src = normalise(a, source),
                       .line = 1,
                       .line_starting = true,
                       .out = out,
                       .err = err};
    *out = (struct by_jlex_tokens){0};
    while (!lx.rc && lx.at < lx.src.n) {
        size_t start = lx.at, found = find_tag(lx.src, start);
        struct by_str text = {lx.src.p + start, found - start};
        uint32_t line = lx.line;
        if (found == lx.src.n) {
            push(&lx, BY_JTOK_DATA, text, line);
            break;
        }
        char kind = lx.src.p[found + 1], sign = found + 2 < lx.src.n ? lx.src.p[found + 2] : 0;
        if (sign != '-' && sign != '+') sign = 0;
        text = strip_before(&lx, text, sign, kind == '{');
        if (text.n) push(&lx, BY_JTOK_DATA, text, line);
        advance(&lx, found + 2 + (sign != 0));
        size_t n_raw = kind == '%' ? match_word(&lx, lx.at, "raw") : 0;
        if (kind == '#') {
            comment(&lx);
        } else if (n_raw) {
            advance(&lx, lx.at + n_raw);
            (void)take_end(&lx, "%}", false);
            raw(&lx);
        } else {
            push(&lx, kind == '{' ? BY_JTOK_VAR_BEGIN : BY_JTOK_BLOCK_BEGIN, BY_STR(""), lx.line);
            tag(&lx, kind == '{');
        }
    }
    push(&lx, BY_JTOK_EOF, BY_STR(""), lx.line);
    return lx.rc;
}
