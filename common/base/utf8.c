#include "common/base/utf8.h"

#include <string.h>

/* Bytes a character takes by its first byte, and the range of its second: Unicode table 3-7. */
static size_t first(unsigned char c, unsigned char *lo, unsigned char *hi) {
    *lo = 0x80;
    *hi = 0xBF;
    if (c < 0x80) return 1;
    if (c < 0xC2) return 0;
    if (c < 0xE0) return 2;
    if (c == 0xE0) *lo = 0xA0;
    if (c == 0xED) *hi = 0x9F;
    if (c < 0xF0) return 3;
    if (c == 0xF0) *lo = 0x90;
    if (c == 0xF4) *hi = 0x8F;
    return c < 0xF5 ? 4 : 0;
}

/* How many bytes at p belong to one character; *whole tells if it is complete. At least 1. */
static size_t span(const char *p, size_t n, bool *whole, bool *cut) {
    unsigned char lo, hi;
    size_t want = first((unsigned char)p[0], &lo, &hi);
    *whole = want == 1;
    *cut = false;
    if (want <= 1) return 1;
    size_t i = 1;
    for (; i < want && i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c < lo || c > hi) return i;
        lo = 0x80;
        hi = 0xBF;
    }
    *whole = i == want;
    *cut = i < want;
    return i;
}

uint32_t by_utf8_decode(const char *p, size_t n, size_t *len) {
    static const unsigned char mask[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    bool whole, cut;
    *len = span(p, n, &whole, &cut);
    if (!whole) return BY_UTF8_BAD;
    uint32_t cp = (unsigned char)p[0] & mask[*len];
    for (size_t i = 1; i < *len; i++)
        cp = cp << 6 | ((unsigned char)p[i] & 0x3F);
    return cp;
}

size_t by_utf8_encode(uint32_t cp, char out[4]) {
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000)) cp = 0xFFFD;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3F));
    out[0] = (char)(lead[n] | cp);
    return n;
}

/* Bytes of ASCII from the start of p, in steps of 32 and then of 8. */
static size_t ascii_run(const char *p, size_t n) {
    const uint64_t high = UINT64_C(0x8080808080808080);
    size_t i = 0;
    for (uint64_t w[4]; n - i >= sizeof w; i += sizeof w) {
        memcpy(w, p + i, sizeof w);
        if ((w[0] | w[1] | w[2] | w[3]) & high) break;
    }
    for (uint64_t w; n - i >= sizeof w; i += sizeof w) {
        memcpy(&w, p + i, sizeof w);
        if (w & high) break;
    }
    return i;
}

bool by_utf8_valid(const char *p, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t run = (unsigned char)p[i] < 0x80 ? ascii_run(p + i, n - i) : 0;
        if (run) {
            i += run;
            continue;
        }
        if ((unsigned char)p[i] < 0x80) {
            i++;
            continue;
        }
        bool whole, cut;
        i += span(p + i, n - i, &whole, &cut);
        if (!whole) return false;
    }
    return true;
}

size_t by_utf8_clean_len(const char *p, size_t n) {
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)p[n - back];
        if (c < 0x80) return n;
        if (c < 0xC0) continue;
        bool whole, cut;
        size_t used = span(p + n - back, back, &whole, &cut);
        return cut && used == back ? n - back : n;
    }
    return n;
}

size_t by_utf8_count(const char *p, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; count++) {
        bool whole, cut;
        i += span(p + i, n - i, &whole, &cut);
    }
    return count;
}
