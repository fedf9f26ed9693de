/* unicode.h - what a character is. The one door to utf8proc.
 *
 *     flags[cp]: one byte for each of the first 0x20000 code points; the rest is asked of utf8proc each time
 *
 * Always: categories are Unicode's general ones; white space is the property White_Space (what \s means to
 * Hugging Face's regular expressions). Normalizing takes linear time, however many marks a letter carries.
 * Owner: struct by_uni is read-only once made; share it. */
#ifndef COMMON_TEXT_UNICODE_H
#define COMMON_TEXT_UNICODE_H

#include "common/base/buf.h"

enum by_uni_flag {
    BY_UNI_LETTER = 1,  /* L* */
    BY_UNI_NUMBER = 2,  /* N* */
    BY_UNI_SPACE = 4,   /* White_Space */
    BY_UNI_MARK = 8,    /* M* */
    BY_UNI_PUNCT = 16,  /* P* */
    BY_UNI_SYMBOL = 32, /* S* */
    BY_UNI_UPPER = 64,  /* Lu, Lt */
    BY_UNI_LOWER = 128, /* Ll */
};

enum { BY_UNI_TABLE = 0x20000 };

struct by_uni {
    uint8_t flags[BY_UNI_TABLE];
};

BY_MUST_USE struct by_uni *by_uni_new(void); /* about a millisecond */
void by_uni_free(struct by_uni *u);
uint8_t by_uni_flags_of(uint32_t cp); /* without the table */

static inline uint8_t by_uni_flags(const struct by_uni *u, uint32_t cp) {
    return BY_LIKELY(cp < BY_UNI_TABLE) ? u->flags[cp] : by_uni_flags_of(cp);
}

/* The character at p, which must be the start of one in valid UTF-8. */
static inline uint32_t by_uni_next(const char *p, size_t *len) {
    const unsigned char *s = (const unsigned char *)p;
    if (s[0] < 0x80) {
        *len = 1;
        return s[0];
    }
    if (s[0] < 0xE0) {
        *len = 2;
        return (uint32_t)(s[0] & 0x1F) << 6 | (s[1] & 0x3F);
    }
    if (s[0] < 0xF0) {
        *len = 3;
        return (uint32_t)(s[0] & 0x0F) << 12 | (uint32_t)(s[1] & 0x3F) << 6 | (s[2] & 0x3F);
    }
    *len = 4;
    return (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3F) << 12 |
           (uint32_t)(s[2] & 0x3F) << 6 | (s[3] & 0x3F);
}
/* The start of the character that ends before p[at], at > 0. */
static inline size_t by_uni_prev(const char *p, size_t at) {
    do {
        at--;
    } while (at > 0 && ((unsigned char)p[at] & 0xC0) == 0x80);
    return at;
}

/* As the reference's Unicode 8 tables have it (unicode_age.h): */
bool by_uni_is_mark_nonspacing(uint32_t cp); /* Mn */
bool by_uni_is_punct(uint32_t cp);           /* P*, and all of ASCII's signs */
bool by_uni_is_other(uint32_t cp);           /* Cc, Cf, Co; what is unassigned is none */
bool by_uni_is_accent(uint32_t cp);          /* M*, for StripAccents */
bool by_uni_is_word(uint32_t cp);            /* \w: Alphabetic, M, Nd, Nl, Pc and the joiners */
uint32_t by_uni_lower(uint32_t cp);          /* the one character's simple mapping */
uint32_t by_uni_upper(uint32_t cp);          /* likewise */
bool by_uni_is_digit(uint32_t cp);           /* Nd */

enum by_uni_form { BY_UNI_NFC, BY_UNI_NFD, BY_UNI_NFKC, BY_UNI_NFKD };

/* Appends `in` (valid UTF-8) in that form. */
void by_uni_normalize(enum by_uni_form form, struct by_str in, struct by_buf *out);
/* Is it so already, as far as a quick look can tell? False may mean "look closer". */
bool by_uni_is_normal_quick(enum by_uni_form form, struct by_str in);
void by_uni_lowercase(struct by_str in, struct by_buf *out); /* appends; each character by itself */
/* End of the grapheme cluster (UAX 29, extended) that starts at `at`. */
size_t by_uni_grapheme_end(struct by_str s, size_t at);

#endif
