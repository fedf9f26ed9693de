#include "common/text/scan.h"

#include <string.h>

/* The flags of the character at i, i < n. */
static inline uint8_t flags_at(const struct by_uni *u, const char *p, size_t i, size_t *len) {
    uint32_t cp = by_uni_next(p + i, len);
    return by_uni_flags(u, cp);
}

/* End of the run of characters with any (none) of the flags that begins at i. */
static inline size_t run_of(const struct by_uni *u, const char *p, size_t n, size_t i,
                            uint8_t any) {
    size_t len;
    while (i < n && (flags_at(u, p, i, &len) & any))
        i += len;
    return i;
}
static inline size_t run_without(const struct by_uni *u, const char *p, size_t n, size_t i,
                                 uint8_t none) {
    size_t len;
    while (i < n && !(flags_at(u, p, i, &len) & none))
        i += len;
    return i;
}

enum { WORDISH = BY_UNI_LETTER | BY_UNI_NUMBER, VISIBLE = WORDISH | BY_UNI_SPACE };

/* \s+(?!\S)|\s+ at white space: the run, but for its last character when something follows. `stops`: a character with
 * one of these flags counts as the end of the text. */
static size_t spaces(const struct by_uni *u, const char *p, size_t n, uint8_t stops) {
    size_t i = 0, last = 0, len;
    while (i < n && (flags_at(u, p, i, &len) & BY_UNI_SPACE)) {
        last = i;
        i += len;
    }
    if (i == n || last == 0) return i;
    if (stops && (flags_at(u, p, i, &len) & stops)) return i;
    return last;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ at white space. */
static size_t spaces_or_lines(const struct by_uni *u, const char *p, size_t n) {
    size_t i = 0, last = 0, line_end = 0, len;
    while (i < n && (flags_at(u, p, i, &len) & BY_UNI_SPACE)) {
        last = i;
        i += len;
        if (p[last] == '\n' || p[last] == '\r') line_end = i;
    }
    if (line_end) return line_end;
    return i == n || last == 0 ? i : last;
}

/* 's 't 're 've 'm 'll 'd behind an apostrophe at p: its length, 0 when there is none. */
static size_t contraction(const char *p, size_t n) {
    if (n < 2) return 0;
    switch (p[1]) {
    case 's':
    case 't':
    case 'm':
    case 'd':
        return 2;
    case 'r':
    case 'v':
        return n > 2 && p[2] == 'e' ? 3 : 0;
    case 'l':
        return n > 2 && p[2] == 'l' ? 3 : 0;
    default:
        return 0;
    }
}

/* The same under (?i), where the long s is an s. */
static size_t contraction_any_case(const char *p, size_t n) {
    if (n < 2) return 0;
    char c[3] = {'\'', (char)(p[1] | 32), n > 2 ? (char)(p[2] | 32) : '\0'};
    if ((unsigned char)p[1] < 0x80) return contraction(c, BY_MIN(n, (size_t)3));
    return n > 2 && memcmp(p + 1, "\xC5\xBF", 2) == 0 ? 3 : 0;
}

static inline bool is_line_end(char c) {
    return c == '\n' || c == '\r';
}

/* GPT-2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
size_t by_scan_gpt2(const struct by_uni *u, const char *p, size_t n) {
    size_t len, i = 0;
    if (p[0] == '\'') {
        size_t c = contraction(p, n);
        if (c) return c;
    }
    if (p[0] == ' ' && n > 1) i = 1;
    uint8_t f = flags_at(u, p, i, &len);
    if (f & BY_UNI_LETTER) return run_of(u, p, n, i + len, BY_UNI_LETTER);
    if (f & BY_UNI_NUMBER) return run_of(u, p, n, i + len, BY_UNI_NUMBER);
    if (!(f & BY_UNI_SPACE)) return run_without(u, p, n, i + len, VISIBLE);
    return spaces(u, p, n, 0);
}

size_t by_scan_digits_gpt2(const struct by_uni *u, const char *p, size_t n) {
    size_t len, i = 0;
    if (p[0] == '\'') {
        size_t c = contraction(p, n);
        if (c) return c;
    }
    uint8_t f = flags_at(u, p, 0, &len);
    if (f & BY_UNI_NUMBER) return len;
    if (p[0] == ' ' && n > 1) {
        i = 1;
        f = flags_at(u, p, 1, &len);
        if (f & BY_UNI_NUMBER) return 1;
    }
    if (f & BY_UNI_LETTER) return run_of(u, p, n, i + len, BY_UNI_LETTER);
    if (!(f & BY_UNI_SPACE)) return run_without(u, p, n, i + len, VISIBLE);
    return spaces(u, p, n, BY_UNI_NUMBER);
}

/* What cl100k and its children share: an optional sign before letters, numbers in groups, lines by themselves. */
static size_t scan_cl100k(const struct by_uni *u, const char *p, size_t n, unsigned digits_max) {
    size_t len, next;
    if (p[0] == '\'') {
        size_t c = contraction_any_case(p, n);
        if (c) return c;
    }
    uint8_t f = flags_at(u, p, 0, &len);
    if (f & BY_UNI_LETTER) return run_of(u, p, n, len, BY_UNI_LETTER);
    if (f & BY_UNI_NUMBER) {
        size_t i = len;
        for (unsigned k = 1; k < digits_max && i < n; k++) {
            if (!(flags_at(u, p, i, &len) & BY_UNI_NUMBER)) break;
            i += len;
        }
        return i;
    }
    if (len < n && !is_line_end(p[0])) {
        uint8_t g = flags_at(u, p, len, &next);
        if (g & BY_UNI_LETTER) return run_of(u, p, n, len + next, BY_UNI_LETTER);
        if (p[0] == ' ' && !(g & VISIBLE)) f = g;
    }
    if (f & BY_UNI_SPACE) return spaces_or_lines(u, p, n);
    size_t i = run_without(u, p, n, len, VISIBLE);
    while (i < n && is_line_end(p[i]))
        i++;
    return i;
}

static size_t scan_llama3(const struct by_uni *u, const char *p, size_t n) {
    return scan_cl100k(u, p, n, 3);
}

static size_t scan_qwen2(const struct by_uni *u, const char *p, size_t n) {
    return scan_cl100k(u, p, n, 1);
}

/* ---- GPT-4o and its kin: a word also ends where a small letter is followed by a large one ---- */

/* U*L+|U+L* at j; U: large letters, L: small ones, and both: letters without case and marks. 0: neither is there.
 * *is_second: only the second alternative. */
static size_t cased_word(const struct by_uni *u, const char *p, size_t n, size_t j,
                         bool *is_second) {
    enum { OF_WORD = BY_UNI_LETTER | BY_UNI_MARK };
    size_t i = j, len, caseless_end = 0;
    uint8_t f = 0;
    *is_second = false;
    for (; i < n; i += len) {
        f = flags_at(u, p, i, &len);
        if (!(f & OF_WORD) || (f & BY_UNI_LOWER)) break;
        if (!(f & BY_UNI_UPPER)) caseless_end = i + len;
    }
    if (i < n && (f & BY_UNI_LOWER)) { /* U* has ended there, L+ goes on */
        for (; i < n; i += len) {
            f = flags_at(u, p, i, &len);
            if (!(f & OF_WORD) || (f & BY_UNI_UPPER)) break;
        }
        return i;
    }
    if (caseless_end) return caseless_end; /* U* gives back all behind the last that may be L */
    *is_second = i > j;
    return i > j ? i : 0;
}

/* [^\r\n\p{L}\p{N}]? before either; 0: no word at p. */
static size_t cased_word_or_sign(const struct by_uni *u, const char *p, size_t n, uint8_t f,
                                 size_t len) {
    bool is_second;
    if (f & BY_UNI_LETTER) return cased_word(u, p, n, 0, &is_second);
    if (is_line_end(p[0])) return 0;
    size_t end = len < n ? cased_word(u, p, n, len, &is_second) : 0;
    if (!(f & BY_UNI_MARK)) return end;
    return end && !is_second ? end : len; /* the mark by itself is the first alternative */
}

static size_t scan_cased(const struct by_uni *u, const char *p, size_t n, unsigned digits_max,
                         bool has_contractions) {
    size_t len, next, i = 0;
    uint8_t f = flags_at(u, p, 0, &len);
    if (f & BY_UNI_NUMBER) {
        for (unsigned k = 0; k < digits_max && i < n; k++, i += len) {
            if (!(flags_at(u, p, i, &len) & BY_UNI_NUMBER)) break;
        }
        return i;
    }
    size_t end = cased_word_or_sign(u, p, n, f, len);
    if (end && has_contractions && end < n && p[end] == '\'')
        end += contraction_any_case(p + end, n - end);
    if (end) return end;
    if (f & BY_UNI_SPACE) {
        if (p[0] != ' ' || len == n || (flags_at(u, p, len, &next) & VISIBLE))
            return spaces_or_lines(u, p, n);
        len += next;
    }
    i = run_without(u, p, n, len, VISIBLE);
    while (i < n && (is_line_end(p[i]) || p[i] == '/'))
        i++;
    return i;
}

static size_t scan_o200k(const struct by_uni *u, const char *p, size_t n) {
    return scan_cased(u, p, n, 3, true);
}

static size_t scan_tekken(const struct by_uni *u, const char *p, size_t n) {
    return scan_cased(u, p, n, 1, false);
}

/* ---- DeepSeek-V3: numbers, then Chinese and kana, then a third pattern on what is left between them ---- */

static bool is_kana_or_han(uint32_t cp) {
    return (cp >= 0x4E00 && cp <= 0x9FA5) || (cp >= 0x3040 && cp <= 0x30FF);
}

/* What the third pattern sees at i: flags, or STOP where its text ends. */
enum { STOP = 0xFF };
static uint8_t third_at(const struct by_uni *u, const char *p, size_t n, size_t i, size_t *len) {
    if (i >= n) return STOP;
    uint32_t cp = by_uni_next(p + i, len);
    uint8_t f = by_uni_flags(u, cp);
    return (f & BY_UNI_NUMBER) || is_kana_or_han(cp) ? STOP : f;
}

enum { LETTERS = BY_UNI_LETTER | BY_UNI_MARK, SIGNS = BY_UNI_PUNCT | BY_UNI_SYMBOL };

static size_t third_run(const struct by_uni *u, const char *p, size_t n, size_t i, uint8_t any) {
    size_t len;
    for (uint8_t f; (f = third_at(u, p, n, i, &len)) != STOP && (f & any);)
        i += len;
    return i;
}

static size_t third_spaces(const struct by_uni *u, const char *p, size_t n) {
    size_t i = 0, last = 0, line_end = 0, len;
    uint8_t f;
    for (; (f = third_at(u, p, n, i, &len)) != STOP && (f & BY_UNI_SPACE); i += len) {
        last = i;
        if (is_line_end(p[i])) line_end = i + len;
    }
    if (line_end) return line_end;
    return f == STOP || last == 0 ? i : last;
}

/* Characters that no alternative begins with, as one piece: up to the last of them if that goes before letters. */
static size_t third_gap(const struct by_uni *u, const char *p, size_t n) {
    size_t i = 0, last = 0, len;
    uint8_t f;
    for (; (f = third_at(u, p, n, i, &len)) != STOP; i += len) {
        if (f & (LETTERS | SIGNS | BY_UNI_SPACE)) break;
        last = i;
    }
    return f != STOP && (f & LETTERS) ? last : i;
}

static size_t scan_third(const struct by_uni *u, const char *p, size_t n) {
    size_t len, next;
    uint8_t f = third_at(u, p, n, 0, &len), g = third_at(u, p, n, len, &next);
    if (f & LETTERS) return third_run(u, p, n, len, LETTERS);
    if (f & SIGNS) {
        size_t i = len;
        while ((unsigned char)p[0] < 0x80 && i < n && (p[i] | 32) >= 'a' && (p[i] | 32) <= 'z')
            i++;
        if (i > len) return i;
        i = third_run(u, p, n, len, SIGNS);
        while (i < n && is_line_end(p[i]))
            i++;
        return i;
    }
    if (g != STOP && (g & LETTERS) && !is_line_end(p[0]))
        return third_run(u, p, n, len + next, LETTERS);
    if (p[0] == ' ' && g != STOP && (g & SIGNS)) {
        size_t i = third_run(u, p, n, len + next, SIGNS);
        while (i < n && is_line_end(p[i]))
            i++;
        return i;
    }
    return f & BY_UNI_SPACE ? third_spaces(u, p, n) : third_gap(u, p, n);
}

size_t by_scan_deepseek_v3(const struct by_uni *u, const char *p, size_t n) {
    size_t len, i = 0;
    uint32_t cp = by_uni_next(p, &len);
    if (is_kana_or_han(cp)) {
        while (i < n && is_kana_or_han(by_uni_next(p + i, &len)))
            i += len;
        return i;
    }
    if (!(by_uni_flags(u, cp) & BY_UNI_NUMBER)) return scan_third(u, p, n);
    for (unsigned k = 0; k < 3 && i < n; k++, i += len) {
        if (!(flags_at(u, p, i, &len) & BY_UNI_NUMBER)) break;
    }
    return i;
}

const char *const by_scan_deepseek_v3_steps[3] = {
    "\\p{N}{1,3}", "[\xE4\xB8\x80-\xE9\xBE\xA5\xE3\x81\x80-\xE3\x82\x9F\xE3\x82\xA0-\xE3\x83\xBF]+",
    "[!\"#$%&'()*+,\\-./"
    ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"};

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SIGN "[^\\r\\n\\p{L}\\p{N}]?"
#define LARGE "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define SMALL "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define CASED_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct by_scan table[] = {
    {"gpt2", by_scan_gpt2,
     "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
    {"llama3", scan_llama3, CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" TAIL},
    {"o200k", scan_o200k,
     SIGN "[" LARGE "]*[" SMALL "]+" CONTRACTIONS "?|" SIGN "[" LARGE "]+[" SMALL "]*" CONTRACTIONS
          "?|\\p{N}{1,3}" CASED_TAIL},
    {"tekken", scan_tekken,
     SIGN "[" LARGE "]*[" SMALL "]+|" SIGN "[" LARGE "]+[" SMALL "]*|\\p{N}" CASED_TAIL},
    {"qwen2", scan_qwen2, CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" TAIL},
};

const struct by_scan *by_scan_find(struct by_str pattern) {
    for (size_t i = 0; i < BY_COUNTOF(table); i++) {
        if (by_str_eqz(pattern, table[i].pattern)) return &table[i];
    }
    return NULL;
}

const struct by_scan *by_scan_at(size_t i) {
    return i < BY_COUNTOF(table) ? &table[i] : NULL;
}
