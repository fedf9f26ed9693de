#include "common/text/base64.h"

void by_base64_encode(struct by_str bytes, struct by_buf *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes.n; i += 3) {
        uint32_t bits = 0;
        size_t n = BY_MIN(bytes.n - i, (size_t)3);
        for (size_t k = 0; k < 3; k++)
            bits = bits << 8 | (k < n ? (uint8_t)bytes.p[i + k] : 0);
        char four[4];
        for (size_t k = 0; k < 4; k++)
            four[k] = k <= n ? digits[bits >> (18 - 6 * k) & 63] : '=';
        by_buf_add(out, four, sizeof four);
    }
}

static int value_of(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool by_base64_decode(struct by_str text, struct by_buf *out) {
    while (text.n && text.p[text.n - 1] == '=')
        text.n--;
    uint32_t bits = 0, n_bits = 0;
    for (size_t i = 0; i < text.n; i++) {
        int v = value_of(text.p[i]);
        if (v < 0) return false;
        bits = bits << 6 | (uint32_t)v;
        n_bits += 6;
        if (n_bits < 8) continue;
        n_bits -= 8;
        by_buf_addc(out, (char)(bits >> n_bits));
    }
    return true;
}
