#include "common/text/alphabet.h"

#include "common/base/utf8.h"

/* Printable Latin-1 stands for itself; the 68 others follow from U+0100 on. */
static bool is_plain(uint32_t c) {
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}

uint32_t by_alphabet_char(uint8_t byte) {
    if (is_plain(byte)) return byte;
    uint32_t n = 0;
    for (uint32_t b = 0; b < byte; b++)
        n += !is_plain(b);
    return 0x100 + n;
}

int by_alphabet_byte(uint32_t cp) {
    if (is_plain(cp)) return (int)cp;
    if (cp < 0x100) return -1;
    if (cp <= 0x120) return (int)(cp - 0x100);        /* 00 … 20 */
    if (cp <= 0x142) return (int)(cp - 0x121 + 0x7F); /* 7F … A0 */
    return cp == 0x143 ? 0xAD : -1;
}

size_t by_alphabet_spell(struct by_str piece, char *out, bool *is_spelled) {
    size_t n = 0;
    for (size_t i = 0, len; i < piece.n; i += len) {
        int byte = by_alphabet_byte(by_utf8_decode(piece.p + i, piece.n - i, &len));
        if (byte < 0) {
            *is_spelled = false;
            if (piece.n) memcpy(out, piece.p, piece.n);
            return piece.n;
        }
        out[n++] = (char)byte;
    }
    *is_spelled = true;
    return n;
}
