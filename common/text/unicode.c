#include "common/text/unicode.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/unicode_age.h"

#include <utf8proc.h>

static bool is_white_space(uint32_t cp) {
    return (cp >= 0x09 && cp <= 0x0D) || cp == 0x20 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}

uint8_t by_uni_flags_of(uint32_t cp) {
    uint8_t f = is_white_space(cp) ? BY_UNI_SPACE : 0;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
        return f | BY_UNI_LETTER | BY_UNI_UPPER;
    case UTF8PROC_CATEGORY_LL:
        return f | BY_UNI_LETTER | BY_UNI_LOWER;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return f | BY_UNI_LETTER;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return f | BY_UNI_MARK;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return f | BY_UNI_NUMBER;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
        return f | BY_UNI_PUNCT;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO:
        return f | BY_UNI_SYMBOL;
    default:
        return f;
    }
}

struct by_uni *by_uni_new(void) {
    struct by_uni *u = by_alloc(sizeof *u);
    for (uint32_t cp = 0; cp < BY_UNI_TABLE; cp++)
        u->flags[cp] = by_uni_flags_of(cp);
    return u;
}

void by_uni_free(struct by_uni *u) {
    by_free(u);
}

bool by_uni_is_mark_nonspacing(uint32_t cp) {
    if (cp == 0x1734) return true; /* it takes space since */
    return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_MN &&
           !(by_uni_age(cp) & BY_UNI_NEW_CATEGORY);
}

bool by_uni_is_punct(uint32_t cp) {
    uint8_t flags = by_uni_flags_of(cp);
    if (cp < 0x80) return flags & (BY_UNI_PUNCT | BY_UNI_SYMBOL);
    if (cp == 0x166D || cp == 0x111C9) return true; /* a symbol and a mark since */
    return (flags & BY_UNI_PUNCT) && !(by_uni_age(cp) & BY_UNI_NEW_CATEGORY);
}

bool by_uni_is_accent(uint32_t cp) {
    if (cp == 0x1CF2 || cp == 0x1CF3) return true; /* letters since */
    return (by_uni_flags_of(cp) & BY_UNI_MARK) && !(by_uni_age(cp) & BY_UNI_NEW_FORM);
}

bool by_uni_is_other(uint32_t cp) {
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS:
        return true;
    case UTF8PROC_CATEGORY_CF:
        return !(by_uni_age(cp) & BY_UNI_NEW_CATEGORY);
    default:
        return false;
    }
}

bool by_uni_is_word(uint32_t cp) {
    if (cp < 0x80)
        return (cp >= '0' && cp <= '9') || ((cp | 32) >= 'a' && (cp | 32) <= 'z') || cp == '_';
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
        return true;
    default:
        break;
    }
    /* Circled letters and the like are Alphabetic without being letters. */
    if ((cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) ||
        (cp >= 0x1F150 && cp <= 0x1F169) || (cp >= 0x1F170 && cp <= 0x1F189))
        return true;
    return cp == 0x200C || cp == 0x200D || (by_uni_flags_of(cp) & (BY_UNI_LETTER | BY_UNI_MARK));
}

uint32_t by_uni_lower(uint32_t cp) {
    if (cp < 0x80) return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
}

static void add_char(struct by_buf *out, uint32_t cp) {
    char c[4];
    by_buf_add(out, c, by_utf8_encode(cp, c));
}

uint32_t by_uni_upper(uint32_t cp) {
    return cp > 0x10FFFF ? cp : (uint32_t)utf8proc_toupper((utf8proc_int32_t)cp);
}

bool by_uni_is_digit(uint32_t cp) {
    return cp <= 0x10FFFF && utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND;
}

void by_uni_lowercase(struct by_str in, struct by_buf *out) {
    for (size_t i = 0, len; i < in.n; i += len) {
        uint32_t cp = by_uni_next(in.p + i, &len);
        if (cp == 0x130) /* the one letter whose small form is two characters */
            by_buf_addz(out, "i\xCC\x87");
        else
            add_char(out, by_uni_lower(cp));
    }
}

/* ---- normal forms ----
 * utf8proc_decompose sorts marks by bubbling, which is quadratic: a letter with 100,000 marks would take minutes. So
 * only single characters are decomposed by it; the sorting is ours, and the composing (linear) its again. */

enum { CCC_MAX = 256 };

static uint8_t ccc_of(uint32_t cp) {
    return (uint8_t)utf8proc_get_property((utf8proc_int32_t)cp)->combining_class;
}

/* Has it no normal form but itself, to the reference? */
static bool is_young(enum by_uni_form form, uint32_t cp) {
    bool is_compatible = form == BY_UNI_NFKC || form == BY_UNI_NFKD;
    return (is_compatible || form == BY_UNI_NFD) && (by_uni_age(cp) & BY_UNI_NEW_FORM);
}

/* May `cp` change, or change what stands before it, when text is brought to the form? */
static bool may_change(enum by_uni_form form, uint32_t cp) {
    if (cp < 0x80) return false;
    if (cp < 0xC0 && (form == BY_UNI_NFC || form == BY_UNI_NFD)) return false;
    if (cp < 0x300 && form == BY_UNI_NFC) return false;
    if (cp >= 0x4E00 && cp < 0xA000) return false;
    if (cp >= 0xAC00 && cp < 0xD7A4 && (form == BY_UNI_NFC || form == BY_UNI_NFKC)) return false;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    if (p->combining_class) return true;
    if (is_young(form, cp)) return false;
    utf8proc_int32_t out[32];
    int boundclass = 0;
    int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE;
    if (form == BY_UNI_NFKC || form == BY_UNI_NFKD) options |= UTF8PROC_COMPAT;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, out, 32,
                                                 (utf8proc_option_t)options, &boundclass);
    if (n != 1 || out[0] != (utf8proc_int32_t)cp) return true;
    if (form == BY_UNI_NFD || form == BY_UNI_NFKD) return false;
    /* Second halves of compositions that are no marks: Hangul vowels and finals, and whatever utf8proc pairs. */
    if ((cp >= 0x1161 && cp < 0x1176) || (cp >= 0x11A8 && cp < 0x11C3)) return true;
    return p->comb_index != UINT16_MAX && (p->comb_index & 0x8000);
}

bool by_uni_is_normal_quick(enum by_uni_form form, struct by_str in) {
    for (size_t i = 0, len; i < in.n; i += len) {
        uint32_t cp = by_uni_next(in.p + i, &len);
        if (may_change(form, cp)) return false;
    }
    return true;
}

struct chars {
    utf8proc_int32_t *p;
    size_t n, cap;
};

static void push_char(struct chars *c, utf8proc_int32_t cp) {
    if (c->n == c->cap) {
        c->cap = BY_MAX(c->cap * 2, (size_t)64);
        c->p = by_realloc_array(c->p, c->cap, sizeof *c->p);
    }
    c->p[c->n++] = cp;
}

/* Stable sort of marks by combining class, by counting: linear however long the run. */
static void sort_marks(utf8proc_int32_t *p, size_t n, struct chars *scratch) {
    if (n < 2) return;
    size_t starts[CCC_MAX + 1] = {0};
    bool is_sorted = true;
    for (size_t i = 0; i < n; i++) {
        starts[ccc_of((uint32_t)p[i]) + 1]++;
        if (i > 0 && ccc_of((uint32_t)p[i]) < ccc_of((uint32_t)p[i - 1])) is_sorted = false;
    }
    if (is_sorted) return;
    for (size_t i = 1; i <= CCC_MAX; i++)
        starts[i] += starts[i - 1];
    scratch->n = 0;
    for (size_t i = 0; i < n; i++)
        push_char(scratch, p[i]);
    for (size_t i = 0; i < n; i++)
        p[starts[ccc_of((uint32_t)scratch->p[i])]++] = scratch->p[i];
}

static void sort_all_marks(struct chars *c, struct chars *scratch) {
    for (size_t i = 0; i < c->n;) {
        if (ccc_of((uint32_t)c->p[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i;
        while (end < c->n && ccc_of((uint32_t)c->p[end]))
            end++;
        sort_marks(c->p + i, end - i, scratch);
        i = end;
    }
}

/* One stretch that may change, from a character that stays to before the next one that stays. */
static void normalize_stretch(enum by_uni_form form, struct by_str in, struct chars *c,
                              struct chars *scratch, struct by_buf *out) {
    int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE;
    if (form == BY_UNI_NFKC || form == BY_UNI_NFKD) options |= UTF8PROC_COMPAT;
    c->n = 0;
    for (size_t i = 0, len; i < in.n; i += len) {
        utf8proc_int32_t parts[64];
        int boundclass = 0;
        utf8proc_int32_t cp = (utf8proc_int32_t)by_uni_next(in.p + i, &len);
        if (is_young(form, (uint32_t)cp)) {
            push_char(c, cp);
            continue;
        }
        utf8proc_ssize_t n =
            utf8proc_decompose_char(cp, parts, 64, (utf8proc_option_t)options, &boundclass);
        /* the longest compatibility decomposition has 18 characters */
        by_assert(n >= 0 && n <= 64);
        for (utf8proc_ssize_t k = 0; k < n; k++)
            push_char(c, parts[k]);
    }
    sort_all_marks(c, scratch);
    if (c->n && (form == BY_UNI_NFC || form == BY_UNI_NFKC)) {
        options = UTF8PROC_COMPOSE | UTF8PROC_STABLE;
        utf8proc_ssize_t n =
            utf8proc_normalize_utf32(c->p, (utf8proc_ssize_t)c->n, (utf8proc_option_t)options);
        by_assert(n >= 0);
        c->n = (size_t)n;
    }
    for (size_t i = 0; i < c->n; i++)
        add_char(out, (uint32_t)c->p[i]);
}

void by_uni_normalize(enum by_uni_form form, struct by_str in, struct by_buf *out) {
    struct chars c = {0}, scratch = {0};
    size_t from = 0;
    while (from < in.n) {
        /* [from, quiet) stays as it is; its last character may be composed with what follows. */
        size_t at = from, last = from, len;
        while (at < in.n && !may_change(form, by_uni_next(in.p + at, &len))) {
            last = at;
            at += len;
        }
        if (at == in.n) {
            by_buf_add(out, in.p + from, in.n - from);
            break;
        }
        by_buf_add(out, in.p + from, last - from);
        size_t end = at;
        while (end < in.n && may_change(form, by_uni_next(in.p + end, &len)))
            end += len;
        normalize_stretch(form, (struct by_str){in.p + last, end - last}, &c, &scratch, out);
        from = end;
    }
    by_free(c.p);
    by_free(scratch.p);
}

size_t by_uni_grapheme_end(struct by_str s, size_t at) {
    size_t len;
    utf8proc_int32_t state = 0;
    utf8proc_int32_t before = (utf8proc_int32_t)by_uni_next(s.p + at, &len);
    for (at += len; at < s.n; at += len) {
        utf8proc_int32_t cp = (utf8proc_int32_t)by_uni_next(s.p + at, &len);
        if (utf8proc_grapheme_break_stateful(before, cp, &state)) break;
        before = cp;
    }
    return at;
}
