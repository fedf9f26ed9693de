#include "router/url.h"

#include <string.h>

size_t url_unescape(struct by_str s, char *out, bool plus_is_blank) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '+' && plus_is_blank) c = ' ';
        if (c == '%') {
            uint32_t byte;
            if (!by_str_hex(s, i + 1, 2, &byte) || !byte) return SIZE_MAX;
            c = (char)byte;
            i += 2;
        }
        out[n++] = c;
    }
    return n;
}

size_t url_remove_dots(char *p, size_t n) {
    size_t out = 0;
    for (size_t i = 0; i < n;) {
        while (i < n && p[i] == '/')
            i++;
        size_t end = i;
        while (end < n && p[end] != '/')
            end++;
        struct by_str seg = {p + i, end - i};
        if (by_str_eqz(seg, "..")) {
            while (out > 0 && p[out - 1] != '/')
                out--;
            if (out > 0) out--;
        } else if (seg.n > 0 && !by_str_eqz(seg, ".")) {
            p[out++] = '/';
            memmove(p + out, seg.p, seg.n);
            out += seg.n;
        }
        i = end;
    }
    if (out == 0) p[out++] = '/';
    return out;
}
