/* pretok_parse.c - the "pre_tokenizer" of a tokenizer.json as steps. */
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/pretok_parts.h"

/* ---- kinds of characters ---- */

static bool is_number(const struct by_uni *u, uint32_t cp, uint32_t arg) {
    (void)arg;
    return by_uni_flags(u, cp) & BY_UNI_NUMBER;
}

static bool is_space(const struct by_uni *u, uint32_t cp, uint32_t arg) {
    (void)arg;
    return by_uni_flags(u, cp) & BY_UNI_SPACE;
}

static bool is_punct(const struct by_uni *u, uint32_t cp, uint32_t arg) {
    (void)arg;
    if (!(by_uni_flags(u, cp) & (BY_UNI_PUNCT | BY_UNI_SYMBOL | BY_UNI_MARK))) return false;
    return by_uni_is_punct(cp);
}

static bool is_same(const struct by_uni *u, uint32_t cp, uint32_t arg) {
    (void)u;
    return cp == arg;
}

/* ---- from JSON ---- */

static struct by_pretok_step *add_step(struct by_pretok *p, enum by_pretok_kind kind,
                                       struct by_err *err) {
    if (p->n == BY_PRETOK_STEPS_MAX) {
        by_fail(err, BY_ELIMIT, "pre_tokenizer has more than %d steps", BY_PRETOK_STEPS_MAX);
        return NULL;
    }
    struct by_pretok_step *s = &p->steps[p->n++];
    *s = (struct by_pretok_step){.kind = kind, .behavior = ISOLATED};
    by_buf_init(&s->scratch, SIZE_MAX / 2);
    return s;
}

static void set_text(struct by_pretok_step *s, struct by_str text) {
    s->text = by_strndup(text.p, text.n);
    s->text_n = text.n;
}

static int parse_behavior(struct by_pretok_step *s, const struct by_json *j, const char *deflt,
                          struct by_err *err) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    struct by_str name = by_str_of(deflt);
    int rc = by_json_get_str(j, "pre_tokenizer", "behavior", &name, err);
    if (rc) return rc;
    for (unsigned i = 0; i < BY_COUNTOF(names); i++) {
        if (!by_str_eqz(name, names[i])) continue;
        s->behavior = (enum by_pretok_behavior)i;
        return 0;
    }
    return by_fail(err, BY_EUNSUPPORTED, "pre_tokenizer: behavior '" BY_STR_FMT "' is not known",
                   BY_STR_ARG(name));
}

static int add_chars(struct by_pretok *p, by_pretok_char_fn *is_char,
                     enum by_pretok_behavior behavior, struct by_err *err) {
    struct by_pretok_step *s = add_step(p, CHARS, err);
    if (!s) return BY_ELIMIT;
    s->is_char = is_char;
    s->behavior = behavior;
    return 0;
}

/* DeepSeek-V3's three Splits, when the last of them has just been read: one scanner. */
static void join_deepseek(struct by_pretok *p) {
    enum { N = BY_COUNTOF(by_scan_deepseek_v3_steps) };
    if (p->n < N) return;
    struct by_pretok_step *first = &p->steps[p->n - N];
    for (unsigned i = 0; i < N; i++) {
        if (first[i].kind != REGEX || first[i].behavior != ISOLATED || first[i].is_inverted ||
            !by_str_eqz((struct by_str){first[i].text, first[i].text_n},
                        by_scan_deepseek_v3_steps[i]))
            return;
    }
    for (unsigned i = 0; i < N; i++)
        by_pretok_release_step(&first[i]);
    p->n -= N - 1;
    *first =
        (struct by_pretok_step){.kind = SCAN, .behavior = ISOLATED, .scan = by_scan_deepseek_v3};
    by_buf_init(&first->scratch, SIZE_MAX / 2);
}

static int parse_split(struct by_pretok *p, const struct by_json *j, struct by_err *err) {
    struct by_pretok_step *s = add_step(p, LITERAL, err);
    if (!s) return BY_ELIMIT;
    int rc = parse_behavior(s, j, "Isolated", err);
    if (!rc) rc = by_json_get_bool(j, "pre_tokenizer", "invert", &s->is_inverted, err);
    if (rc) return rc;
    const struct by_json *pattern = by_json_get(j, "pattern");
    struct by_str text = {0};
    const struct by_json *regex = by_json_get(pattern, "Regex");
    if (!regex) {
        rc = by_json_get_str(pattern, "pre_tokenizer.pattern", "String", &text, err);
        if (rc) return rc;
        set_text(s, text);
        if (text.n) return 0; /* nothing matches everywhere, as the regular expression does */
    } else {
        text = by_json_str(regex);
    }
    const struct by_scan *scan = by_scan_find(text);
    if (scan && (s->behavior == ISOLATED || (s->behavior == REMOVED && s->is_inverted))) {
        s->kind = SCAN;
        s->scan = scan->fn;
        return 0;
    }
    s->kind = REGEX;
    if (regex) set_text(s, text);
    rc = by_regex_new(&s->regex, text, err);
    if (!rc) join_deepseek(p);
    return rc;
}

static int parse_byte_level(struct by_pretok *p, const struct by_json *j, struct by_err *err) {
    bool add_prefix_space = true, use_regex = true;
    int rc = by_json_get_bool(j, "pre_tokenizer", "add_prefix_space", &add_prefix_space, err);
    if (!rc) rc = by_json_get_bool(j, "pre_tokenizer", "use_regex", &use_regex, err);
    if (rc) return rc;
    p->is_byte_level = true;
    if (add_prefix_space && !add_step(p, PREFIX, err)) return BY_ELIMIT;
    if (!use_regex) return 0;
    struct by_pretok_step *before = p->n ? &p->steps[p->n - 1] : NULL;
    if (before && before->kind == CHARS && before->is_char == is_number &&
        before->behavior == ISOLATED) { /* the two in one pass */
        before->kind = SCAN;
        before->scan = by_scan_digits_gpt2;
        return 0;
    }
    struct by_pretok_step *s = add_step(p, SCAN, err);
    if (!s) return BY_ELIMIT;
    s->scan = by_scan_gpt2;
    return 0;
}

static int parse_metaspace(struct by_pretok *p, const struct by_json *j, struct by_err *err) {
    struct by_metaspace m;
    int rc = by_metaspace_parse(&m, j, "pre_tokenizer", err);
    if (rc) return rc;
    struct by_pretok_step *s = add_step(p, METASPACE, err);
    if (!s) return BY_ELIMIT;
    s->scheme = m.scheme;
    s->arg = m.is_split;
    set_text(s, m.mark);
    return 0;
}

static int parse_one(struct by_pretok *p, const struct by_json *j, unsigned depth,
                     struct by_err *err);

static int parse_sequence(struct by_pretok *p, const struct by_json *j, unsigned depth,
                          struct by_err *err) {
    const struct by_json *list = NULL;
    int rc = by_json_get_array(j, "pre_tokenizer", "pretokenizers", &list, err);
    for (const struct by_json *it = by_json_first(list); it && !rc; it = by_json_next(it))
        rc = parse_one(p, it, depth + 1, err);
    return rc;
}

static int parse_digits(struct by_pretok *p, const struct by_json *j, struct by_err *err) {
    bool is_individual = false;
    int rc = by_json_get_bool(j, "pre_tokenizer", "individual_digits", &is_individual, err);
    return rc ? rc : add_chars(p, is_number, is_individual ? ISOLATED : CONTIGUOUS, err);
}

static int parse_delimiter(struct by_pretok *p, const struct by_json *j, struct by_err *err) {
    struct by_str c = {0};
    int rc = by_json_get_str(j, "pre_tokenizer", "delimiter", &c, err);
    if (!rc) rc = add_chars(p, is_same, REMOVED, err);
    size_t len = 0;
    if (!rc) p->steps[p->n - 1].arg = c.n ? by_uni_next(c.p, &len) : BY_UTF8_BAD;
    if (!rc && len != c.n)
        return by_fail(err, BY_EFORMAT, "pre_tokenizer: delimiter is not one character");
    return rc;
}

static int parse_fixed(struct by_pretok *p, const struct by_json *j, struct by_err *err) {
    int64_t length = 5;
    int rc = by_json_get_i64(j, "pre_tokenizer", "length", 1, INT32_MAX, &length, err);
    if (rc) return rc;
    struct by_pretok_step *s = add_step(p, FIXED, err);
    if (!s) return BY_ELIMIT;
    s->arg = (uint32_t)length;
    return 0;
}

static int parse_punctuation(struct by_pretok *p, const struct by_json *j, struct by_err *err) {
    int rc = add_chars(p, is_punct, ISOLATED, err);
    return rc ? rc : parse_behavior(&p->steps[p->n - 1], j, "Isolated", err);
}

static int parse_one(struct by_pretok *p, const struct by_json *j, unsigned depth,
                     struct by_err *err) {
    struct by_str type = {0};
    int rc = by_json_get_str(j, "pre_tokenizer", "type", &type, err);
    if (rc) return rc;
    if (depth > 8) return by_fail(err, BY_ELIMIT, "pre_tokenizer: nested too deeply");
    if (by_str_eqz(type, "Sequence")) return parse_sequence(p, j, depth, err);
    if (p->is_byte_level) { /* what comes behind it sees its letters */
        if (!add_step(p, SPELL, err)) return BY_ELIMIT;
        p->is_byte_level = false;
    }
    if (by_str_eqz(type, "ByteLevel")) return parse_byte_level(p, j, err);
    if (by_str_eqz(type, "Split")) return parse_split(p, j, err);
    if (by_str_eqz(type, "Metaspace")) return parse_metaspace(p, j, err);
    if (by_str_eqz(type, "Digits")) return parse_digits(p, j, err);
    if (by_str_eqz(type, "Punctuation")) return parse_punctuation(p, j, err);
    if (by_str_eqz(type, "WhitespaceSplit")) return add_chars(p, is_space, REMOVED, err);
    if (by_str_eqz(type, "Whitespace")) return add_step(p, RUNS, err) ? 0 : BY_ELIMIT;
    if (by_str_eqz(type, "CharDelimiterSplit")) return parse_delimiter(p, j, err);
    if (by_str_eqz(type, "FixedLength")) return parse_fixed(p, j, err);
    if (by_str_eqz(type, "BertPreTokenizer")) {
        rc = add_chars(p, is_space, REMOVED, err);
        return rc ? rc : add_chars(p, is_punct, ISOLATED, err);
    }
    return by_fail(err, BY_EUNSUPPORTED, "pre_tokenizer '" BY_STR_FMT "' is not supported",
                   BY_STR_ARG(type));
}

int by_pretok_parse(struct by_pretok **out, const struct by_json *j, const struct by_uni *u,
                    struct by_err *err) {
    struct by_pretok *p = by_alloc(sizeof *p);
    p->u = u;
    int rc = 0;
    if (j && by_json_type(j) != BY_JSON_NULL) rc = parse_one(p, j, 0, err);
    if (rc) {
        by_pretok_free(p);
        return rc;
    }
    *out = p;
    return 0;
}
