#include "common/text/normalize.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/alphabet.h"
#include "common/text/charsmap.h"
#include "common/text/regex.h"

enum kind {
    FORM,
    LOWERCASE,
    STRIP,
    STRIP_ACCENTS,
    REPLACE,
    REPLACE_REGEX,
    PREPEND,
    NMT,
    CHARSMAP,
    BERT_CLEAN,
    BERT_CHINESE,
    BERT_ACCENTS, /* after NFD: marks that take no space go */
    BYTE_LEVEL,
};

struct step {
    enum kind kind;
    enum by_uni_form form;
    bool strip_left, strip_right;
    char *text, *content; /* ours */
    size_t text_n, content_n;
    struct by_regex *regex;
    struct by_charsmap *map;
};

struct by_normalize {
    const struct by_uni *u;
    struct step steps[BY_NORMALIZE_STEPS_MAX];
    unsigned n;
    struct by_buf scratch[2];
};

static void add_char(struct by_buf *out, uint32_t cp) {
    char c[4];
    by_buf_add(out, c, by_utf8_encode(cp, c));
}

/* ---- the steps: text → out (empty before) ---- */

static bool is_nmt_removed(uint32_t c) {
    return (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
           c == 0x8F || c == 0x9F;
}

static bool is_nmt_space(uint32_t c) {
    return c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
           (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xFEFF || c == 0xFFFD;
}

static bool is_chinese(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* One character at a time: what becomes of cp. */
static void map_char(const struct by_normalize *z, enum kind kind, uint32_t cp,
                     struct by_buf *out) {
    uint8_t flags = by_uni_flags(z->u, cp);
    switch (kind) {
    case STRIP_ACCENTS:
        if (!by_uni_is_accent(cp)) add_char(out, cp);
        return;
    case BERT_ACCENTS:
        if (!by_uni_is_mark_nonspacing(cp)) add_char(out, cp);
        return;
    case NMT:
        if (!is_nmt_removed(cp)) add_char(out, is_nmt_space(cp) ? ' ' : cp);
        return;
    case BERT_CLEAN:
        if (cp == 0 || cp == 0xFFFD) return;
        if (flags & BY_UNI_SPACE) /* U+0085 is one, but is removed as a control character */
            cp = cp == 0x85 || cp == 0xB || cp == 0xC ? 0 : ' ';
        else if (!flags && by_uni_is_other(cp))
            cp = 0;
        if (cp) add_char(out, cp);
        return;
    case BERT_CHINESE:
        if (is_chinese(cp)) by_buf_addc(out, ' ');
        add_char(out, cp);
        if (is_chinese(cp)) by_buf_addc(out, ' ');
        return;
    default:
        return;
    }
}

static void map_bytes(struct by_str text, struct by_buf *out) {
    for (size_t i = 0; i < text.n; i++)
        add_char(out, by_alphabet_char((uint8_t)text.p[i]));
}

static struct by_str strip(const struct by_normalize *z, const struct step *s, struct by_str text) {
    size_t from = 0, to = text.n, len;
    while (s->strip_left && from < to &&
           (by_uni_flags(z->u, by_uni_next(text.p + from, &len)) & BY_UNI_SPACE))
        from += len;
    while (s->strip_right && to > from) {
        size_t last = by_uni_prev(text.p, to);
        if (!(by_uni_flags(z->u, by_uni_next(text.p + last, &len)) & BY_UNI_SPACE)) break;
        to = last;
    }
    return by_str_sub(text, from, to - from);
}

static void replace(const struct step *s, struct by_str text, struct by_buf *out) {
    struct by_str what = {s->text, s->text_n}, with = {s->content, s->content_n};
    size_t done = 0;
    while (what.n) {
        size_t at = by_str_find(text, what, done);
        if (at == SIZE_MAX) break;
        by_buf_add(out, text.p + done, at - done);
        by_buf_add_str(out, with);
        done = at + what.n;
    }
    by_buf_add(out, text.p + done, text.n - done);
}

static bool is_ascii(struct by_str s) {
    unsigned char all = 0;
    for (size_t i = 0; i < s.n; i++)
        all |= (unsigned char)s.p[i];
    return all < 0x80;
}

/* *text is replaced by what the step makes of it, which may lie in b. */
static int run_one(const struct by_normalize *z, const struct step *s, struct by_str *text,
                   struct by_buf *b, struct by_err *err) {
    switch (s->kind) {
    case FORM:
        if (is_ascii(*text) || by_uni_is_normal_quick(s->form, *text)) return 0;
        by_uni_normalize(s->form, *text, b);
        break;
    case LOWERCASE:
        by_uni_lowercase(*text, b);
        break;
    case STRIP:
        *text = strip(z, s, *text);
        return 0;
    case REPLACE:
        replace(s, *text, b);
        break;
    case REPLACE_REGEX: {
        int rc =
            by_regex_replace(s->regex, *text, (struct by_str){s->content, s->content_n}, b, err);
        if (rc) return rc;
        break;
    }
    case PREPEND:
        if (!text->n) return 0;
        by_buf_add(b, s->text, s->text_n);
        by_buf_add_str(b, *text);
        break;
    case CHARSMAP:
        by_charsmap_apply(s->map, *text, b);
        break;
    case BYTE_LEVEL:
        map_bytes(*text, b);
        break;
    case STRIP_ACCENTS:
    case BERT_ACCENTS:
    case NMT:
    case BERT_CLEAN:
    case BERT_CHINESE:
        for (size_t i = 0, len; i < text->n; i += len)
            map_char(z, s->kind, by_uni_next(text->p + i, &len), b);
        break;
    }
    *text = by_buf_str(b);
    return 0;
}

void by_normalize_begin(struct by_normalize *z) {
    for (unsigned i = 0; i < z->n; i++) {
        if (z->steps[i].kind == REPLACE_REGEX) by_regex_begin(z->steps[i].regex);
    }
}

int by_normalize_run(struct by_normalize *z, struct by_str text, size_t max, struct by_str *out,
                     struct by_err *err) {
    unsigned k = 0; /* the scratch buffer that text does not lie in */
    for (unsigned i = 0; i < z->n; i++) {
        struct by_buf *b = &z->scratch[k];
        by_buf_clear(b);
        b->max = max;
        int rc = run_one(z, &z->steps[i], &text, b, err);
        if (rc) return rc;
        if (b->is_full)
            return by_fail(err, BY_ELIMIT, "the normalized text is longer than %zu bytes", max);
        if (!text.p) text.p = "";
        if (b->n) k ^= 1;
    }
    *out = text;
    return 0;
}

/* ---- from JSON ---- */

static struct step *add_step(struct by_normalize *z, enum kind kind, struct by_err *err) {
    if (z->n == BY_NORMALIZE_STEPS_MAX) {
        by_fail(err, BY_ELIMIT, "normalizer has more than %d steps", BY_NORMALIZE_STEPS_MAX);
        return NULL;
    }
    struct step *s = &z->steps[z->n++];
    *s = (struct step){.kind = kind};
    return s;
}

static int add_plain(struct by_normalize *z, enum kind kind, struct by_err *err) {
    return add_step(z, kind, err) ? 0 : BY_ELIMIT;
}

static int add_form(struct by_normalize *z, enum by_uni_form form, struct by_err *err) {
    struct step *s = add_step(z, FORM, err);
    if (!s) return BY_ELIMIT;
    s->form = form;
    return 0;
}

static int parse_strip(struct by_normalize *z, const struct by_json *j, struct by_err *err) {
    struct step *s = add_step(z, STRIP, err);
    if (!s) return BY_ELIMIT;
    s->strip_left = s->strip_right = true;
    int rc = by_json_get_bool(j, "normalizer", "strip_left", &s->strip_left, err);
    return rc ? rc : by_json_get_bool(j, "normalizer", "strip_right", &s->strip_right, err);
}

static int parse_replace(struct by_normalize *z, const struct by_json *j, struct by_err *err) {
    struct by_str content = {0}, text = {0};
    struct step *s = add_step(z, REPLACE, err);
    if (!s) return BY_ELIMIT;
    int rc = by_json_get_str(j, "normalizer", "content", &content, err);
    if (rc) return rc;
    s->content = by_strndup(content.p ? content.p : "", content.n);
    s->content_n = content.n;
    const struct by_json *pattern = by_json_get(j, "pattern");
    const struct by_json *regex = by_json_get(pattern, "Regex");
    if (regex) {
        s->kind = REPLACE_REGEX;
        return by_regex_new(&s->regex, by_json_str(regex), err);
    }
    rc = by_json_get_str(pattern, "normalizer.pattern", "String", &text, err);
    if (rc) return rc;
    if (!text.n) { /* matches everywhere, once, as the regular expression does */
        s->kind = REPLACE_REGEX;
        return by_regex_new(&s->regex, text, err);
    }
    s->text = by_strndup(text.p ? text.p : "", text.n);
    s->text_n = text.n;
    return 0;
}

static int parse_prepend(struct by_normalize *z, const struct by_json *j, struct by_err *err) {
    struct by_str text = {0};
    struct step *s = add_step(z, PREPEND, err);
    if (!s) return BY_ELIMIT;
    int rc = by_json_get_str(j, "normalizer", "prepend", &text, err);
    if (rc) return rc;
    s->text = by_strndup(text.p ? text.p : "", text.n);
    s->text_n = text.n;
    return 0;
}

static int parse_charsmap(struct by_normalize *z, const struct by_json *j, struct by_err *err) {
    struct by_str text = {0};
    struct step *s = add_step(z, CHARSMAP, err);
    if (!s) return BY_ELIMIT;
    int rc = by_json_get_str(j, "normalizer", "precompiled_charsmap", &text, err);
    return rc ? rc : by_charsmap_new_base64(&s->map, text, err);
}

static int parse_bert(struct by_normalize *z, const struct by_json *j, struct by_err *err) {
    bool clean = true, chinese = true, lower = true;
    int rc = by_json_get_bool(j, "normalizer", "clean_text", &clean, err);
    if (!rc) rc = by_json_get_bool(j, "normalizer", "handle_chinese_chars", &chinese, err);
    if (!rc) rc = by_json_get_bool(j, "normalizer", "lowercase", &lower, err);
    bool accents = lower; /* null means: as lowercase says */
    if (!rc) rc = by_json_get_bool(j, "normalizer", "strip_accents", &accents, err);
    if (!rc && clean) rc = add_plain(z, BERT_CLEAN, err);
    if (!rc && chinese) rc = add_plain(z, BERT_CHINESE, err);
    if (!rc && accents) rc = add_form(z, BY_UNI_NFD, err);
    if (!rc && accents) rc = add_plain(z, BERT_ACCENTS, err);
    if (!rc && lower) rc = add_plain(z, LOWERCASE, err);
    return rc;
}

static int parse_one(struct by_normalize *z, const struct by_json *j, unsigned depth,
                     struct by_err *err) {
    struct by_str type = {0};
    const struct by_json *list = NULL;
    int rc = by_json_get_str(j, "normalizer", "type", &type, err);
    if (rc) return rc;
    if (depth > 8) return by_fail(err, BY_ELIMIT, "normalizer: nested too deeply");
    if (by_str_eqz(type, "Sequence")) {
        rc = by_json_get_array(j, "normalizer", "normalizers", &list, err);
        for (const struct by_json *it = by_json_first(list); it && !rc; it = by_json_next(it))
            rc = parse_one(z, it, depth + 1, err);
        return rc;
    }
    if (by_str_eqz(type, "NFC")) return add_form(z, BY_UNI_NFC, err);
    if (by_str_eqz(type, "NFD")) return add_form(z, BY_UNI_NFD, err);
    if (by_str_eqz(type, "NFKC")) return add_form(z, BY_UNI_NFKC, err);
    if (by_str_eqz(type, "NFKD")) return add_form(z, BY_UNI_NFKD, err);
    if (by_str_eqz(type, "Lowercase")) return add_plain(z, LOWERCASE, err);
    if (by_str_eqz(type, "StripAccents")) return add_plain(z, STRIP_ACCENTS, err);
    if (by_str_eqz(type, "Nmt")) return add_plain(z, NMT, err);
    if (by_str_eqz(type, "ByteLevel")) return add_plain(z, BYTE_LEVEL, err);
    if (by_str_eqz(type, "Strip")) return parse_strip(z, j, err);
    if (by_str_eqz(type, "Replace")) return parse_replace(z, j, err);
    if (by_str_eqz(type, "Prepend")) return parse_prepend(z, j, err);
    if (by_str_eqz(type, "Precompiled")) return parse_charsmap(z, j, err);
    if (by_str_eqz(type, "BertNormalizer")) return parse_bert(z, j, err);
    return by_fail(err, BY_EUNSUPPORTED, "normalizer '" BY_STR_FMT "' is not supported",
                   BY_STR_ARG(type));
}

int by_normalize_parse(struct by_normalize **out, const struct by_json *j, const struct by_uni *u,
                       struct by_err *err) {
    struct by_normalize *z = by_alloc(sizeof *z);
    z->u = u;
    by_buf_init(&z->scratch[0], SIZE_MAX / 2);
    by_buf_init(&z->scratch[1], SIZE_MAX / 2);
    int rc = 0;
    if (j && by_json_type(j) != BY_JSON_NULL) rc = parse_one(z, j, 0, err);
    if (rc) {
        by_normalize_free(z);
        return rc;
    }
    *out = z;
    return 0;
}

void by_normalize_free(struct by_normalize *z) {
    if (!z) return;
    for (unsigned i = 0; i < z->n; i++) {
        by_charsmap_free(z->steps[i].map);
        by_regex_free(z->steps[i].regex);
        by_free(z->steps[i].content);
        by_free(z->steps[i].text);
    }
    by_buf_release(&z->scratch[0]);
    by_buf_release(&z->scratch[1]);
    by_free(z);
}
