#include "common/template/jchar.h"

#include "common/base/utf8.h"

#include <ctype.h>
#include <locale.h>
#include <wchar.h>
#include <wctype.h>

static locale_t utf8_locale; /* set once by by_jchar_init, never changed after */

void by_jchar_init(void) {
    if (!utf8_locale) utf8_locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    if (!utf8_locale) utf8_locale = newlocale(LC_CTYPE_MASK, "C", (locale_t)0);
}

bool by_jchar_is_space(uint32_t cp) {
    if (cp < 0x80) return (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x20);
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

bool by_jchar_is_print(uint32_t cp) {
    if (cp < 0x7f) return cp >= 0x20;
    if (cp <= 0xa0 || cp == 0xad || by_jchar_is_space(cp)) return false;
    bool is_format = (cp >= 0x600 && cp <= 0x605) || cp == 0x61c || cp == 0x6dd || cp == 0x70f ||
                     cp == 0x180e || (cp >= 0x200b && cp <= 0x200f) ||
                     (cp >= 0x202a && cp <= 0x202e) || (cp >= 0x2060 && cp <= 0x206f) ||
                     cp == 0xfeff || (cp >= 0xfff9 && cp <= 0xfffb) ||
                     (cp >= 0xe0000 && cp <= 0xe007f);
    bool is_private = (cp >= 0xe000 && cp <= 0xf8ff) || cp >= 0xf0000;
    return !is_format && !is_private && iswprint_l((wint_t)cp, utf8_locale);
}

bool by_jchar_is_alpha(uint32_t cp) {
    if (cp < 0x80) return isalpha((int)cp);
    return iswalpha_l((wint_t)cp, utf8_locale) && !by_jchar_is_digit(cp);
}

bool by_jchar_is_digit(uint32_t cp) {
    if (cp < 0x80) return isdigit((int)cp);
    /* first digits of the scripts whose ten digits stand in a row */
    static const uint32_t zeros[] = {0x660,  0x6f0,  0x7c0,  0x966,  0x9e6,  0xa66,  0xae6,  0xb66,
                                     0xbe6,  0xc66,  0xce6,  0xd66,  0xde6,  0xe50,  0xed0,  0xf20,
                                     0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
                                     0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0,
                                     0xa9f0, 0xaa50, 0xabf0, 0xff10};
    for (size_t i = 0; i < BY_COUNTOF(zeros); i++)
        if (cp >= zeros[i] && cp < zeros[i] + 10) return true;
    return false;
}

bool by_jchar_is_alnum(uint32_t cp) {
    return by_jchar_is_alpha(cp) || by_jchar_is_digit(cp);
}

bool by_jchar_is_line_end(uint32_t cp) {
    return (cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

bool by_jchar_is_upper(uint32_t cp) {
    return cp < 0x80 ? isupper((int)cp) : iswupper_l((wint_t)cp, utf8_locale);
}

bool by_jchar_is_lower(uint32_t cp) {
    return cp < 0x80 ? islower((int)cp) : iswlower_l((wint_t)cp, utf8_locale);
}

/* Unicode's SpecialCasing: the characters whose upper or title form is longer than one (unconditional rows that
 * occur in running text; the Greek iota-subscript rows are left to the simple mapping). */
static const struct special {
    uint32_t cp, upper[3], title[3];
} specials[] = {
    {0xdf, {'S', 'S'}, {'S', 's'}},
    {0x149, {0x2bc, 'N'}, {0x2bc, 'N'}},
    {0x1f0, {'J', 0x30c}, {'J', 0x30c}},
    {0x390, {0x399, 0x308, 0x301}, {0x399, 0x308, 0x301}},
    {0x3b0, {0x3a5, 0x308, 0x301}, {0x3a5, 0x308, 0x301}},
    {0x587, {0x535, 0x552}, {0x535, 0x582}},
    {0x1e96, {'H', 0x331}, {'H', 0x331}},
    {0x1e97, {'T', 0x308}, {'T', 0x308}},
    {0x1e98, {'W', 0x30a}, {'W', 0x30a}},
    {0x1e99, {'Y', 0x30a}, {'Y', 0x30a}},
    {0x1e9a, {'A', 0x2be}, {'A', 0x2be}},
    {0xfb00, {'F', 'F'}, {'F', 'f'}},
    {0xfb01, {'F', 'I'}, {'F', 'i'}},
    {0xfb02, {'F', 'L'}, {'F', 'l'}},
    {0xfb03, {'F', 'F', 'I'}, {'F', 'f', 'i'}},
    {0xfb04, {'F', 'F', 'L'}, {'F', 'f', 'l'}},
    {0xfb05, {'S', 'T'}, {'S', 't'}},
    {0xfb06, {'S', 'T'}, {'S', 't'}},
};

size_t by_jchar_map(uint32_t cp, enum by_jchar_case to, uint32_t out[3]) {
    if (cp < 0x80) {
        out[0] = (uint32_t)(to == BY_JCHAR_LOWER ? tolower((int)cp) : toupper((int)cp));
        return 1;
    }
    if (to == BY_JCHAR_LOWER) {
        if (cp == 0x130) { /* I with a dot keeps the dot */
            out[0] = 'i';
            out[1] = 0x307;
            return 2;
        }
        out[0] = (uint32_t)towlower_l((wint_t)cp, utf8_locale);
        return 1;
    }
    for (size_t i = 0; i < BY_COUNTOF(specials); i++) {
        if (specials[i].cp != cp) continue;
        const uint32_t *from = to == BY_JCHAR_UPPER ? specials[i].upper : specials[i].title;
        size_t n = 0;
        while (n < 3 && from[n]) {
            out[n] = from[n];
            n++;
        }
        return n;
    }
    /* the only ones with a title form */
    bool is_digraph = (cp >= 0x1c4 && cp <= 0x1cc) || (cp >= 0x1f1 && cp <= 0x1f3);
    if (to == BY_JCHAR_TITLE && is_digraph)
        out[0] = cp >= 0x1f1 ? 0x1f2 : 0x1c5 + (cp - 0x1c4) / 3 * 3;
    else
        out[0] = (uint32_t)towupper_l((wint_t)cp, utf8_locale);
    return 1;
}

size_t by_jchar_count(struct by_str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        /* valid UTF-8: every byte that is no continuation starts one */
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

size_t by_jchar_offset(struct by_str s, size_t at) {
    size_t i = 0;
    for (; i < s.n; i++) {
        if (((unsigned char)s.p[i] & 0xc0) == 0x80) continue;
        if (at-- == 0) return i;
    }
    return s.n;
}

size_t by_jchar_skip_space(struct by_str s, size_t from) {
    while (from < s.n) {
        size_t len;
        if (!by_jchar_is_space(by_utf8_decode(s.p + from, s.n - from, &len))) break;
        from += len;
    }
    return from;
}

size_t by_jchar_drop_space(struct by_str s, size_t to) {
    while (to > 0) {
        size_t start = to - 1, len;
        while (start > 0 && to - start < 4 && ((unsigned char)s.p[start] & 0xc0) == 0x80)
            start--;
        if (!by_jchar_is_space(by_utf8_decode(s.p + start, to - start, &len)) || len != to - start)
            break;
        to = start;
    }
    return to;
}
