#include "common/text/json_pull.h"

#include "common/base/utf8.h"

enum { NUMBER_BYTES_MAX = 64 };

void by_pull_init(struct by_pull *p, struct by_str text) {
    *p = (struct by_pull){.text = text};
    if (!by_utf8_valid(text.p, text.n)) by_pull_fail(p, "the file is not UTF-8");
}

bool by_pull_fail(struct by_pull *p, const char *what) {
    if (p->is_bad) return false;
    p->is_bad = true;
    by_fail(&p->err, BY_EFORMAT, "byte %zu: %s", p->i, what);
    return false;
}

int by_pull_error(const struct by_pull *p, struct by_err *err) {
    if (!p->is_bad) return 0;
    if (err) *err = p->err;
    return p->err.code;
}

static void skip_space(struct by_pull *p) {
    while (p->i < p->text.n) {
        char c = p->text.p[p->i];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
        p->i++;
    }
}

char by_pull_peek(struct by_pull *p) {
    skip_space(p);
    return !p->is_bad && p->i < p->text.n ? p->text.p[p->i] : '\0';
}

bool by_pull_at_end(struct by_pull *p) {
    return by_pull_peek(p) == '\0' && p->i == p->text.n;
}

static bool enter(struct by_pull *p, char c, const char *what) {
    if (by_pull_peek(p) != c) return by_pull_fail(p, what);
    if (p->depth == BY_PULL_DEPTH_MAX) return by_pull_fail(p, "nested too deeply");
    p->i++;
    p->is_fresh[++p->depth] = true;
    return true;
}

bool by_pull_object(struct by_pull *p) {
    return enter(p, '{', "expected an object");
}

bool by_pull_array(struct by_pull *p) {
    return enter(p, '[', "expected an array");
}

/* Is there another member? Takes the comma before it, or the closing bracket. */
static bool next(struct by_pull *p, char close) {
    char c = by_pull_peek(p);
    if (p->is_bad) return false;
    if (c == close) {
        p->i++;
        p->depth--;
        return false;
    }
    if (!p->is_fresh[p->depth]) {
        if (c != ',') return by_pull_fail(p, "expected a comma or the end");
        p->i++;
    }
    p->is_fresh[p->depth] = false;
    return true;
}

bool by_pull_item(struct by_pull *p) {
    return next(p, ']');
}

bool by_pull_key(struct by_pull *p, struct by_buf *scratch, struct by_str *key) {
    if (!next(p, '}') || !by_pull_str(p, scratch, key)) return false;
    if (by_pull_peek(p) != ':') return by_pull_fail(p, "expected a colon");
    p->i++;
    return true;
}

/* p->i is behind "\u"; one character, of two halves when it is past U+FFFF. */
static bool unicode_escape(struct by_pull *p, struct by_buf *out) {
    uint32_t cp, low;
    if (!by_str_hex(p->text, p->i, 4, &cp)) return by_pull_fail(p, "expected four hex digits");
    p->i += 4;
    if (cp >= 0xD800 && cp < 0xE000) {
        bool is_pair = cp < 0xDC00 && by_str_starts(by_str_sub(p->text, p->i, 2), BY_STR("\\u")) &&
                       by_str_hex(p->text, p->i + 2, 4, &low);
        if (!is_pair || low < 0xDC00 || low >= 0xE000)
            return by_pull_fail(p, "half of a surrogate pair");
        cp = 0x10000 + (cp - 0xD800) * 0x400 + (low - 0xDC00);
        p->i += 6;
    }
    char c[4];
    by_buf_add(out, c, by_utf8_encode(cp, c));
    return true;
}

/* The rest of a string whose part before the first backslash lies from `from` to p->i. */
static bool escaped_str(struct by_pull *p, size_t from, struct by_buf *scratch,
                        struct by_str *out) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    by_buf_clear(scratch);
    by_buf_add(scratch, p->text.p + from, p->i - from);
    while (p->i < p->text.n) {
        char c = p->text.p[p->i++];
        if (c == '"') {
            if (scratch->is_full) return by_pull_fail(p, "a string too long");
            *out = by_buf_str(scratch);
            if (!out->p) out->p = "";
            return true;
        }
        if ((unsigned char)c < 0x20) return by_pull_fail(p, "a control character in a string");
        if (c != '\\') {
            by_buf_addc(scratch, c);
            continue;
        }
        c = p->i < p->text.n ? p->text.p[p->i++] : '\0';
        const char *at = c ? strchr(names, c) : NULL;
        if (at)
            by_buf_addc(scratch, values[at - names]);
        else if (c != 'u')
            return by_pull_fail(p, "an unknown escape");
        else if (!unicode_escape(p, scratch))
            return false;
    }
    return by_pull_fail(p, "a string without its end");
}

bool by_pull_str(struct by_pull *p, struct by_buf *scratch, struct by_str *out) {
    if (by_pull_peek(p) != '"') return by_pull_fail(p, "expected a string");
    size_t from = ++p->i;
    while (p->i < p->text.n) {
        unsigned char c = (unsigned char)p->text.p[p->i];
        if (c == '"') {
            *out = (struct by_str){p->text.p + from, p->i - from};
            p->i++;
            return true;
        }
        if (c == '\\') return escaped_str(p, from, scratch, out);
        if (c < 0x20) return by_pull_fail(p, "a control character in a string");
        p->i++;
    }
    return by_pull_fail(p, "a string without its end");
}

static struct by_str number(struct by_pull *p) {
    by_pull_peek(p);
    size_t from = p->i;
    while (p->i < p->text.n && p->text.p[p->i] && strchr("+-.0123456789eE", p->text.p[p->i]))
        p->i++;
    return (struct by_str){p->text.p + from, p->is_bad ? 0 : p->i - from};
}

bool by_pull_i64(struct by_pull *p, int64_t *out) {
    struct by_str s = number(p);
    return (s.n && by_str_to_i64(s, out)) || by_pull_fail(p, "expected a whole number");
}

bool by_pull_f64(struct by_pull *p, double *out) {
    struct by_str s = number(p);
    return (s.n && s.n <= NUMBER_BYTES_MAX && by_str_to_f64(s, out)) ||
           by_pull_fail(p, "expected a number");
}

/* A string's end, nothing kept. */
static bool skip_str(struct by_pull *p) {
    for (p->i++; p->i < p->text.n; p->i++) {
        if (p->text.p[p->i] == '\\')
            p->i++;
        else if (p->text.p[p->i] == '"') {
            p->i++;
            return true;
        }
    }
    p->i = p->text.n;
    return by_pull_fail(p, "a string without its end");
}

/* Brackets are counted, not checked: what is skipped either does not matter or is parsed by json.h. */
bool by_pull_skip(struct by_pull *p, struct by_str *raw) {
    char c = by_pull_peek(p);
    if (!c || c == ',' || c == '}' || c == ']' || c == ':')
        return by_pull_fail(p, "expected a value");
    size_t from = p->i;
    uint64_t depth = 0;
    while (p->i < p->text.n) {
        c = p->text.p[p->i];
        if (c == '"') {
            if (!skip_str(p)) return false;
        } else if (c == '{' || c == '[') {
            depth++;
            p->i++;
        } else if (c == '}' || c == ']') {
            if (!depth) break;
            depth--;
            p->i++;
        } else {
            if (depth == 0 && (c == ',' || c == ' ' || c == '\n' || c == '\r' || c == '\t')) break;
            p->i++;
            continue;
        }
        if (depth == 0) break;
    }
    if (depth) return by_pull_fail(p, "the text ends inside a value");
    if (raw) *raw = (struct by_str){p->text.p + from, p->i - from};
    return !p->is_bad;
}
