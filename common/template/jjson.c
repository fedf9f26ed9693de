#include "common/template/jjson.h"

#include "common/base/utf8.h"

#include <math.h>
#include <stdlib.h>

struct reader {
    struct by_jrun *r;
    struct by_str text;
    size_t at;
    const char *wrong; /* what is not JSON here; NULL while all is well */
};

static struct by_jval bad(struct reader *rd, const char *wrong) {
    if (!rd->wrong) rd->wrong = wrong;
    return (struct by_jval){0};
}

static void skip_blanks(struct reader *rd) {
    for (; rd->at < rd->text.n; rd->at++) {
        char c = rd->text.p[rd->at];
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r') break;
    }
}

static int peek(const struct reader *rd) {
    return rd->at < rd->text.n ? (unsigned char)rd->text.p[rd->at] : -1;
}

static bool take(struct reader *rd, char c) {
    if (peek(rd) != (unsigned char)c) return false;
    rd->at++;
    return true;
}

static bool read_hex4(struct reader *rd, uint32_t *out) {
    if (!by_str_hex(rd->text, rd->at, 4, out)) return false;
    rd->at += 4;
    return true;
}

/* Behind the backslash: writes the character's bytes, returns how many; 0: not an escape. */
static size_t read_escape(struct reader *rd, char out[4]) {
    static const char letters[] = "\"\\/bfnrt", chars[] = "\"\\/\b\f\n\r\t";
    int c = peek(rd);
    const char *known = c > 0 ? strchr(letters, c) : NULL;
    if (known) {
        rd->at++;
        out[0] = chars[known - letters];
        return 1;
    }
    uint32_t hi, lo;
    if (!take(rd, 'u') || !read_hex4(rd, &hi)) return 0;
    if (hi >= 0xdc00 && hi <= 0xdfff) return 0;
    if (hi < 0xd800 || hi > 0xdbff) return by_utf8_encode(hi, out);
    if (!take(rd, '\\') || !take(rd, 'u') || !read_hex4(rd, &lo) || lo < 0xdc00 || lo > 0xdfff)
        return 0;
    return by_utf8_encode(0x10000 + ((hi - 0xd800) << 10) + (lo - 0xdc00), out);
}

/* Goes on to the first byte that does not stand for itself in a string: a quote, a backslash, what is below 0x20. */
static void skip_plain(struct reader *rd) {
    /* one register on every machine of today */
    typedef uint8_t bytes __attribute__((vector_size(16)));
    typedef uint64_t words __attribute__((vector_size(16)));
    const char *p = rd->text.p;
    size_t at = rd->at, n = rd->text.n;
    for (bytes b; n - at >= sizeof b; at += sizeof b) {
        memcpy(&b, p + at, sizeof b);
        words stops = (words)((b < 0x20) | (b == '"') | (b == '\\'));
        if (stops[0] | stops[1]) break;
    }
    while (at < n && (unsigned char)p[at] >= 0x20 && p[at] != '"' && p[at] != '\\')
        at++;
    rd->at = at;
}

static struct by_jval read_escaped(struct reader *rd, size_t start) {
    struct by_jbuild *b = by_jrun_build(rd->r);
    rd->at = start;
    while (peek(rd) != '"' && !rd->wrong) {
        size_t from = rd->at;
        skip_plain(rd);
        by_jbuild_bytes(b, rd->text.p + from, rd->at - from, true);
        if (peek(rd) == '"') break;
        char c[4];
        size_t n = take(rd, '\\') ? read_escape(rd, c) : 0;
        if (n == 0)
            bad(rd, "a string with a bad escape, a lone surrogate, a control character or no end");
        by_jbuild_bytes(b, c, n, true);
    }
    rd->at++;
    return by_jrun_built(rd->r, b);
}

static struct by_jval read_string(struct reader *rd) {
    size_t start = ++rd->at;
    skip_plain(rd);
    if (peek(rd) != '"') return read_escaped(rd, start);
    struct by_str s = {rd->text.p + start, rd->at - start};
    rd->at++;
    return by_jval_str(s, true);
}

static size_t read_digits(struct reader *rd) {
    size_t n = 0;
    while (peek(rd) >= '0' && peek(rd) <= '9') {
        rd->at++;
        n++;
    }
    return n;
}

static struct by_jval read_number(struct reader *rd) {
    size_t start = rd->at;
    bool is_float = false, ok;
    take(rd, '-');
    size_t first = rd->at, n_int = read_digits(rd);
    ok = n_int == 1 || (n_int > 1 && rd->text.p[first] != '0');
    if (ok && take(rd, '.')) {
        is_float = true;
        ok = read_digits(rd) > 0;
    }
    if (ok && (peek(rd) == 'e' || peek(rd) == 'E')) {
        rd->at++;
        is_float = true;
        if (!take(rd, '-')) take(rd, '+');
        ok = read_digits(rd) > 0;
    }
    struct by_str s = {rd->text.p + start, rd->at - start};
    /* 4300: where Python's int() stops too */
    if (!ok || s.n > 4300) return bad(rd, "a bad number");
    int64_t i;
    if (!is_float && by_str_to_i64(s, &i)) return by_jval_int(i);
    if (!is_float) {
        struct by_jval v = by_jval_str(s, true);
        v.type = BY_J_BIG;
        return v;
    }
    struct by_str z = by_arena_copy(&rd->r->arena, s);
    double f = strtod(z.p, NULL);
    return isfinite(f) ? by_jval_float(f) : bad(rd, "a number too large");
}

static struct by_jval read_word(struct reader *rd) {
    static const struct {
        const char *word;
        struct by_jval val;
    } words[] = {{"true", {.type = BY_J_BOOL, .b = true}},
                 {"false", {.type = BY_J_BOOL}},
                 {"null", {.type = BY_J_NONE}}};
    for (size_t i = 0; i < BY_COUNTOF(words); i++) {
        size_t n = strlen(words[i].word);
        if (rd->text.n - rd->at < n || memcmp(rd->text.p + rd->at, words[i].word, n) != 0) continue;
        rd->at += n;
        return words[i].val;
    }
    return bad(rd, "no JSON value");
}

static struct by_jval read_value(struct reader *rd, uint32_t depth);

static struct by_jval read_array(struct reader *rd, uint32_t depth) {
    struct by_jval v = by_jval_list(rd->r, BY_J_LIST, 0);
    rd->at++;
    skip_blanks(rd);
    if (take(rd, ']')) return v;
    while (!rd->wrong && !rd->r->code) {
        struct by_jval item = read_value(rd, depth);
        if (rd->r->code) break;
        by_jval_push(rd->r, v.list, item);
        skip_blanks(rd);
        if (take(rd, ']')) return v;
        if (!take(rd, ',')) bad(rd, "an array without , or ]");
    }
    return v;
}

static struct by_jval read_object(struct reader *rd, uint32_t depth) {
    struct by_jval v = by_jval_dict(rd->r, BY_J_DICT);
    rd->at++;
    skip_blanks(rd);
    if (take(rd, '}')) return v;
    while (!rd->wrong && !rd->r->code) {
        skip_blanks(rd);
        if (peek(rd) != '"') return bad(rd, "an object whose key is no string");
        struct by_jval key = read_string(rd);
        skip_blanks(rd);
        if (!take(rd, ':')) return bad(rd, "an object without :");
        struct by_jval val = read_value(rd, depth);
        if (rd->wrong || rd->r->code || !by_jval_put(rd->r, v.dict, key, val)) break;
        skip_blanks(rd);
        if (take(rd, '}')) return v;
        if (!take(rd, ',')) bad(rd, "an object without , or }");
    }
    return v;
}

static struct by_jval read_value(struct reader *rd, uint32_t depth) {
    skip_blanks(rd);
    if (depth >= BY_JVAL_DEPTH_MAX) return bad(rd, "a value nested too deep");
    if (rd->r->code) return (struct by_jval){0};
    switch (peek(rd)) {
    case '{':
        return read_object(rd, depth + 1);
    case '[':
        return read_array(rd, depth + 1);
    case '"':
        return read_string(rd);
    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':
        return read_number(rd);
    default:
        return read_word(rd);
    }
}

int by_jjson_read(struct by_jrun *r, struct by_str text, struct by_jval *out, struct by_err *err) {
    struct reader rd = {.r = r, .text = text};
    if (text.n >= UINT32_MAX)
        return by_fail(err, BY_ELIMIT, "JSON of %zu bytes is too large", text.n);
    if (!by_utf8_valid(text.p, text.n))
        return by_fail(err, BY_EFORMAT, "the JSON is not valid UTF-8");
    *out = read_value(&rd, 0);
    skip_blanks(&rd);
    if (r->code) return r->code;
    if (!rd.wrong && rd.at < text.n) rd.wrong = "something behind the value";
    if (rd.wrong)
        return by_fail(err, BY_EFORMAT, "not JSON: %s at byte %zu", rd.wrong,
                       BY_MIN(rd.at, text.n));
    return 0;
}
