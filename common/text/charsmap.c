#include "common/text/charsmap.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/base64.h"
#include "common/text/unicode.h"

enum {
    BYTES_MAX = 64 << 20,
    GRAPHEME_MAX = 6, /* bytes from which Hugging Face no longer looks up a grapheme as a whole */
};

struct by_charsmap {
    uint32_t *units;
    size_t n_units;
    char *strings;
    size_t n_strings;
};

int by_charsmap_new(struct by_charsmap **out, struct by_str bytes, struct by_err *err) {
    uint32_t n_trie;
    if (bytes.n < sizeof n_trie || bytes.n > BYTES_MAX)
        return by_fail(err, BY_EFORMAT, "character map of %zu bytes", bytes.n);
    memcpy(&n_trie, bytes.p, sizeof n_trie);
    if (n_trie % 4 || n_trie < 4 || n_trie > bytes.n - sizeof n_trie)
        return by_fail(err, BY_EFORMAT, "character map: a trie of %u bytes in %zu", n_trie,
                       bytes.n);
    struct by_str strings = by_str_sub(bytes, sizeof n_trie + n_trie, bytes.n);
    if (!by_utf8_valid(strings.p, strings.n))
        return by_fail(err, BY_EFORMAT, "character map: its strings are not UTF-8");
    struct by_charsmap *m = by_alloc(sizeof *m);
    m->units = by_memdup(bytes.p + sizeof n_trie, n_trie);
    m->n_units = n_trie / 4;
    m->strings = by_strndup(strings.p, strings.n);
    m->n_strings = strings.n;
    *out = m;
    return 0;
}

int by_charsmap_new_base64(struct by_charsmap **out, struct by_str text, struct by_err *err) {
    struct by_buf bytes;
    if (text.n > BYTES_MAX) return by_fail(err, BY_ELIMIT, "character map of %zu bytes", text.n);
    by_buf_init(&bytes, BYTES_MAX);
    int rc = by_base64_decode(text, &bytes) ? by_charsmap_new(out, by_buf_str(&bytes), err)
                                            : by_fail(err, BY_EFORMAT, "character map: bad base64");
    by_buf_release(&bytes);
    return rc;
}

void by_charsmap_free(struct by_charsmap *m) {
    if (!m) return;
    by_free(m->strings);
    by_free(m->units);
    by_free(m);
}

static uint32_t offset_of(uint32_t unit) {
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

bool by_charsmap_find(const struct by_charsmap *m, struct by_str s, struct by_str *to) {
    uint32_t at = offset_of(m->units[0]);
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        at ^= c;
        if (c == 0 || at >= m->n_units) return false;
        uint32_t unit = m->units[at];
        if ((unit & (1u << 31 | 0xFF)) != c) return false;
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1)) continue;
        if (at >= m->n_units) return false;
        size_t value = m->units[at] & 0x7FFFFFFF;
        if (value >= m->n_strings) return false;
        size_t end = value;
        while (end < m->n_strings && m->strings[end])
            end++;
        *to = (struct by_str){m->strings + value, end - value};
        return by_utf8_valid(to->p, to->n); /* a hostile value may point into a character */
    }
    return false;
}

void by_charsmap_apply(const struct by_charsmap *m, struct by_str text, struct by_buf *out) {
    struct by_str to;
    for (size_t i = 0, end; i < text.n; i = end) {
        end = by_uni_grapheme_end(text, i);
        if (end - i < GRAPHEME_MAX && by_charsmap_find(m, by_str_sub(text, i, end - i), &to)) {
            by_buf_add_str(out, to);
            continue;
        }
        for (size_t k = i, len; k < end; k += len) {
            by_uni_next(text.p + k, &len);
            struct by_str c = by_str_sub(text, k, len);
            by_buf_add_str(out, by_charsmap_find(m, c, &to) ? to : c);
        }
    }
}
