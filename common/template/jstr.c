#include "common/template/jstr.h"

#include "common/base/utf8.h"
#include "common/template/jchar.h"

bool by_jstr_need(struct by_jrun *r, const struct by_jval *v, const char *who) {
    if (v->type == BY_J_STR) return true;
    by_jrun_fail(r, BY_EINVAL, "%s: must be str, not %s", who, by_jval_type_name(v));
    return false;
}

static bool is_among(struct by_str set, const char *p, size_t len) {
    return by_str_find(set, (struct by_str){p, len}, 0) != SIZE_MAX;
}

struct by_jval by_jstr_strip(struct by_jrun *r, struct by_jval str, const struct by_jval *chars,
                             int sides) {
    struct by_str s = by_jval_bytes(&str);
    size_t from = 0, to = s.n, len;
    by_jrun_charge(r, 1 + s.n / 64);
    if (!chars || chars->type == BY_J_ABSENT || chars->type == BY_J_NONE) {
        if (sides & 1) from = by_jchar_skip_space(s, 0);
        if (sides & 2) to = BY_MAX(from, by_jchar_drop_space(s, to));
        return by_jval_cut(str, from, to);
    }
    if (!by_jstr_need(r, chars, "strip")) return (struct by_jval){0};
    struct by_str set = by_jval_bytes(chars);
    while ((sides & 1) && from < to && !r->code) {
        by_jrun_charge_bytes(r, set.n);
        by_utf8_decode(s.p + from, to - from, &len);
        if (!is_among(set, s.p + from, len)) break;
        from += len;
    }
    while ((sides & 2) && to > from && !r->code) {
        size_t start = to - 1;
        by_jrun_charge_bytes(r, set.n);
        while (start > from && ((unsigned char)s.p[start] & 0xc0) == 0x80)
            start--;
        if (!is_among(set, s.p + start, to - start)) break;
        to = start;
    }
    return by_jval_cut(str, from, to);
}

/* An empty `old` matches before every character and at the end, as in Python. */
static struct by_jval replace_empty(struct by_jrun *r, struct by_jval str, struct by_jval new_,
                                    int64_t count) {
    struct by_jbuild *b = by_jrun_build(r);
    by_jrun_charge(r, str.n);
    size_t i = 0, len;
    for (; i < str.n && !r->code; i += len) {
        by_utf8_decode(str.s + i, str.n - i, &len);
        if (count-- > 0) by_jbuild_add(b, new_);
        by_jbuild_add(b, by_jval_cut(str, i, i + len));
    }
    if (count > 0) by_jbuild_add(b, new_);
    return by_jrun_built(r, b);
}

struct by_jval by_jstr_replace(struct by_jrun *r, struct by_jval str, struct by_jval old,
                               struct by_jval new_, int64_t count) {
    if (count < 0) count = INT64_MAX;
    if (r->code) return (struct by_jval){0};
    if (old.n == 0) return replace_empty(r, str, new_, count);
    struct by_str s = by_jval_bytes(&str), needle = by_jval_bytes(&old);
    size_t at = by_str_find(s, needle, 0), from = 0;
    by_jrun_charge(r, 1 + s.n / 64);
    if (at == SIZE_MAX || count == 0) return str;
    struct by_jbuild *b = by_jrun_build(r);
    for (; at != SIZE_MAX && count-- > 0 && !r->code; at = by_str_find(s, needle, from)) {
        by_jrun_charge(r, 1);
        by_jbuild_add(b, by_jval_cut(str, from, at));
        by_jbuild_add(b, new_);
        from = at + needle.n;
    }
    by_jbuild_add(b, by_jval_cut(str, from, s.n));
    return by_jrun_built(r, b);
}

/* ASCII alone, all upper or all lower: byte for byte, so that the marks stay where they are. */
static bool map_ascii(struct by_jrun *r, struct by_jval *str, bool is_upper) {
    unsigned char from = is_upper ? 'a' : 'A', all = 0;
    bool is_same = true;
    for (uint32_t i = 0; i < str->n; i++) {
        unsigned char c = (unsigned char)str->s[i];
        all |= c;
        is_same &= (unsigned char)(c - from) >= 26;
    }
    if (all >= 0x80) return false;
    if (is_same) return true;
    char *p = by_jrun_get(r, str->n);
    for (uint32_t i = 0; p && i < str->n; i++) {
        unsigned char c = (unsigned char)str->s[i];
        p[i] = (char)((unsigned char)(c - from) < 26 ? c ^ 0x20 : c);
    }
    if (p) str->s = p;
    return true;
}

/* What the filter title splits at: they're is one word to it, foo-bar two. */
static bool is_between_words(uint32_t cp) {
    return by_jchar_is_space(cp) || (cp < 0x80 && cp && strchr("-({[<", (int)cp));
}

struct by_jval by_jstr_case(struct by_jrun *r, struct by_jval str, enum by_jstr_case to) {
    bool is_plain = to == BY_JSTR_UPPER || to == BY_JSTR_LOWER;
    if (is_plain && map_ascii(r, &str, to == BY_JSTR_UPPER)) {
        by_jrun_charge(r, 1 + str.n / 64);
        return str;
    }
    struct by_jbuild *b = by_jrun_build(r);
    bool in_word = false, is_first = true;
    by_jrun_charge(r, 1 + str.n / 16);
    for (size_t i = 0, len; i < str.n && !r->code; i += len) {
        uint32_t cp = by_utf8_decode(str.s + i, str.n - i, &len), out[3];
        bool is_cased = by_jchar_is_upper(cp) || by_jchar_is_lower(cp);
        enum by_jchar_case how = to == BY_JSTR_UPPER ? BY_JCHAR_UPPER : BY_JCHAR_LOWER;
        if (to == BY_JSTR_TITLE && !in_word) how = BY_JCHAR_TITLE;
        if (to == BY_JSTR_WORDS && !in_word) how = BY_JCHAR_UPPER;
        if (to == BY_JSTR_CAPITALIZE && is_first) how = BY_JCHAR_TITLE;
        if (to == BY_JSTR_SWAP) how = by_jchar_is_upper(cp) ? BY_JCHAR_LOWER : BY_JCHAR_UPPER;
        size_t n = by_jchar_map(cp, how, out);
        for (size_t k = 0; k < n; k++) {
            char utf8[4];
            by_jbuild_bytes(b, utf8, by_utf8_encode(out[k], utf8),
                            str.marks ? str.marks[i] : str.is_user);
        }
        in_word = to == BY_JSTR_WORDS ? !is_between_words(cp) : is_cased;
        is_first = false;
    }
    return by_jrun_built(r, b);
}

struct by_jval by_jstr_pad(struct by_jrun *r, struct by_jval str, int64_t left, int64_t right,
                           struct by_jval fill) {
    if (left <= 0 && right <= 0) return str;
    if (left > BY_JVAL_OUTPUT_MAX || right > BY_JVAL_OUTPUT_MAX)
        return by_jrun_fail(r, BY_ELIMIT, "a text padded too wide");
    by_jrun_charge(r, (uint64_t)(BY_MAX(left, 0) + BY_MAX(right, 0)));
    struct by_jbuild *b = by_jrun_build(r);
    for (int64_t i = 0; i < left && !r->code; i++)
        by_jbuild_add(b, fill);
    by_jbuild_add(b, str);
    for (int64_t i = 0; i < right && !r->code; i++)
        by_jbuild_add(b, fill);
    return by_jrun_built(r, b);
}
