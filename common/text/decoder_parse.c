/* decoder_parse.c - the "decoder" of a tokenizer.json as steps. */
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/decoder_parts.h"
#include "common/text/metaspace.h"

static struct by_decoder_step *add_step(struct by_decoder *d, enum by_decoder_kind kind,
                                        struct by_err *err) {
    if (d->n == BY_DECODER_STEPS_MAX) {
        by_fail(err, BY_ELIMIT, "decoder has more than %d steps", BY_DECODER_STEPS_MAX);
        return NULL;
    }
    struct by_decoder_step *s = &d->steps[d->n++];
    *s = (struct by_decoder_step){.kind = kind};
    return s;
}

static void keep(char **p, size_t *n, struct by_str s) {
    by_free(*p);
    *p = by_strndup(s.p ? s.p : "", s.n);
    *n = s.n;
}

static int parse_replace(struct by_decoder_step *s, const struct by_json *j, struct by_err *err) {
    struct by_str content = {0}, text = {0};
    int rc = by_json_get_str(j, "decoder", "content", &content, err);
    if (rc) return rc;
    keep(&s->content, &s->content_n, content);
    const struct by_json *pattern = by_json_get(j, "pattern");
    const struct by_json *regex = by_json_get(pattern, "Regex");
    if (regex) {
        s->kind = REPLACE_REGEX;
        return by_regex_new(&s->regex, by_json_str(regex), err);
    }
    rc = by_json_get_str(pattern, "decoder.pattern", "String", &text, err);
    if (rc) return rc;
    if (!text.n) { /* matches everywhere, once, as the regular expression does */
        s->kind = REPLACE_REGEX;
        return by_regex_new(&s->regex, text, err);
    }
    keep(&s->text, &s->text_n, text);
    return 0;
}

static int parse_strip(struct by_decoder *d, const struct by_json *j, struct by_err *err) {
    struct by_str content = {0};
    int64_t start = 0, stop = 0;
    int rc = by_json_get_str(j, "decoder", "content", &content, err);
    if (!rc) rc = by_json_get_i64(j, "decoder", "start", 0, 1024, &start, err);
    if (!rc) rc = by_json_get_i64(j, "decoder", "stop", 0, 1024, &stop, err);
    if (rc) return rc;
    size_t len = 0;
    uint32_t cp = content.n ? by_utf8_decode(content.p, content.n, &len) : BY_UTF8_BAD;
    if (cp == BY_UTF8_BAD || len != content.n)
        return by_fail(err, BY_EFORMAT, "decoder: Strip's content is not one character");
    if (d->is_fused) { /* it works on the text's start, not on tokens */
        if (stop || d->strip_start)
            return by_fail(err, BY_EUNSUPPORTED, "decoder: Strip at the text's end, after Fuse");
        d->strip_start = (uint32_t)start;
        d->strip_char = cp;
        return 0;
    }
    struct by_decoder_step *s = add_step(d, STRIP, err);
    if (!s) return BY_ELIMIT;
    keep(&s->text, &s->text_n, content);
    s->start = (uint32_t)start;
    s->stop = (uint32_t)stop;
    return 0;
}

static int parse_metaspace(struct by_decoder *d, struct by_decoder_step *s, const struct by_json *j,
                           struct by_err *err) {
    struct by_metaspace m;
    int rc = by_metaspace_parse(&m, j, "decoder", err);
    if (rc) return rc;
    keep(&s->text, &s->text_n, m.mark);
    s->flag = m.scheme != BY_PREPEND_NEVER;
    d->is_first_special |= s->flag;
    return 0;
}

static int parse_wordpiece(struct by_decoder *d, struct by_decoder_step *s, const struct by_json *j,
                           struct by_err *err) {
    struct by_str prefix = BY_STR("##");
    s->flag = true;
    d->is_first_special = true;
    int rc = by_json_get_str(j, "decoder", "prefix", &prefix, err);
    if (!rc) rc = by_json_get_bool(j, "decoder", "cleanup", &s->flag, err);
    keep(&s->text, &s->text_n, prefix);
    return rc;
}

static int parse_ctc(struct by_decoder *d, struct by_decoder_step *s, const struct by_json *j,
                     struct by_err *err) {
    struct by_str pad = BY_STR("<pad>"), word = BY_STR("|");
    s->flag = true;
    d->is_ctc = true;
    int rc = by_json_get_str(j, "decoder", "pad_token", &pad, err);
    if (!rc) rc = by_json_get_str(j, "decoder", "word_delimiter_token", &word, err);
    if (!rc) rc = by_json_get_bool(j, "decoder", "cleanup", &s->flag, err);
    keep(&s->text, &s->text_n, pad);
    keep(&s->content, &s->content_n, word);
    return rc;
}

static int parse_one(struct by_decoder *d, const struct by_json *j, unsigned depth,
                     struct by_err *err) {
    static const struct {
        const char *name;
        enum by_decoder_kind kind;
    } kinds[] = {
        {"Replace", REPLACE},
        {"ByteFallback", BYTE_FALLBACK},
        {"ByteLevel", BYTE_LEVEL},
        {"Fuse", FUSE},
        {"Strip", STRIP},
        {"Metaspace", METASPACE},
        {"WordPiece", WORDPIECE},
        {"BPEDecoder", SUFFIX},
        {"CTC", CTC},
    };
    struct by_str type = {0}, suffix = BY_STR("</w>");
    const struct by_json *list = NULL;
    int rc = by_json_get_str(j, "decoder", "type", &type, err);
    if (rc) return rc;
    if (depth > 8) return by_fail(err, BY_ELIMIT, "decoder: nested too deeply");
    if (by_str_eqz(type, "Sequence")) {
        rc = by_json_get_array(j, "decoder", "decoders", &list, err);
        for (const struct by_json *it = by_json_first(list); it && !rc; it = by_json_next(it))
            rc = parse_one(d, it, depth + 1, err);
        return rc;
    }
    size_t k = 0;
    while (k < BY_COUNTOF(kinds) && !by_str_eqz(type, kinds[k].name))
        k++;
    if (k == BY_COUNTOF(kinds))
        return by_fail(err, BY_EUNSUPPORTED, "decoder '" BY_STR_FMT "' is not supported",
                       BY_STR_ARG(type));
    enum by_decoder_kind kind = kinds[k].kind;
    bool is_late = d->is_fused || (d->n && d->steps[d->n - 1].kind == BYTE_FALLBACK);
    if (is_late && kind != FUSE && !(kind == STRIP && d->is_fused))
        return by_fail(err, BY_EUNSUPPORTED,
                       "decoder '" BY_STR_FMT "' after Fuse, ByteFallback or ByteLevel",
                       BY_STR_ARG(type));
    if ((kind == CTC && d->n) || (d->is_ctc && !d->is_fused && kind != FUSE))
        return by_fail(err, BY_EUNSUPPORTED, "decoder: CTC behind or before '" BY_STR_FMT "'",
                       BY_STR_ARG(type));
    if (kind == STRIP) return parse_strip(d, j, err);
    d->is_fused |= kind == FUSE || kind == BYTE_LEVEL;
    if (kind == FUSE) return 0;
    struct by_decoder_step *s = add_step(d, kind, err);
    if (!s) return BY_ELIMIT;
    switch (kind) {
    case REPLACE:
        return parse_replace(s, j, err);
    case METASPACE:
        return parse_metaspace(d, s, j, err);
    case WORDPIECE:
        return parse_wordpiece(d, s, j, err);
    case CTC:
        return parse_ctc(d, s, j, err);
    case SUFFIX:
        rc = by_json_get_str(j, "decoder", "suffix", &suffix, err);
        keep(&s->text, &s->text_n, suffix);
        d->is_last_special = true;
        return rc;
    case BYTE_LEVEL:
        d->is_raw = true;
        return 0;
    default:
        return 0;
    }
}

int by_decoder_parse(struct by_decoder **out, const struct by_json *j, struct by_err *err) {
    struct by_decoder *d = by_alloc(sizeof *d);
    int rc = 0;
    if (j && by_json_type(j) != BY_JSON_NULL)
        rc = parse_one(d, j, 0, err);
    else
        (void)!add_step(d, JOIN, err);
    if (rc) {
        by_decoder_free(d);
        return rc;
    }
    *out = d;
    return 0;
}
