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

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct by_scan table[] = {
    {"gpt2", by_scan_gpt2,
     "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
    {"llama3", scan_llama3, CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}" TAIL},
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
