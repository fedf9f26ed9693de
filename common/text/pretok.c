#include "common/text/pretok.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/regex.h"
#include "common/text/scan.h"

enum kind {
    SCAN,      /* a hand-written scanner: every piece is a word */
    REGEX,     /* split at matches of a regular expression */
    LITERAL,   /* split at a string */
    CHARS,     /* split at characters of a kind */
    RUNS,      /* Whitespace: words are runs of \w and runs of neither \w nor \s */
    METASPACE, /* ' ' becomes ▁, one may be put before */
    PREFIX,    /* ByteLevel's add_prefix_space */
    FIXED,     /* FixedLength */
    PAIRS,     /* by_pretok_split_between */
};
enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
enum scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };
typedef bool is_char_fn(const struct by_uni *u, uint32_t cp, uint32_t arg);

struct step {
    enum kind kind;
    enum behavior behavior;
    bool is_inverted;
    by_scan_fn *scan;
    struct by_regex *regex;
    is_char_fn *is_char;
    uint32_t arg; /* of is_char; FixedLength's length */
    char *text;   /* the literal, Metaspace's replacement; ours */
    size_t text_n;
    enum scheme scheme;
    uint64_t *pairs;       /* [1 << PAIR_BITS] bits; ours */
    bool is_borrowed;      /* thawed: pairs are not */
    struct by_buf scratch; /* the rewritten text */
};

enum {
    PAIR_BITS = 21
}; /* 256 KiB: some 200,000 pairs of a large vocabulary leave nine of ten bits clear */

struct by_pretok {
    const struct by_uni *u;
    struct step steps[BY_PRETOK_STEPS_MAX];
    unsigned n;
    bool is_byte_level;
};

/* One run: what a step needs to hand words to the next one. */
struct run {
    struct by_pretok *p;
    by_pretok_sink *sink;
    void *ctx;
    struct by_err *err;
};

static int run_step(const struct run *r, unsigned at, struct by_str text, bool is_first);

static inline int pass_on(const struct run *r, unsigned at, struct by_str word, bool is_first) {
    if (!word.n) return 0;
    if (at + 1 == r->p->n) return r->sink(r->ctx, word, r->err);
    return run_step(r, at + 1, word, is_first);
}

/* ---- matches to words ---- */

struct splitter {
    const struct run *r;
    unsigned at;
    struct by_str text;
    bool is_first;
    enum behavior behavior;
    size_t from, to; /* the word that may still grow */
    bool has_word, was_match;
};

static int flush(struct splitter *s) {
    if (!s->has_word) return 0;
    s->has_word = false;
    return pass_on(s->r, s->at, by_str_sub(s->text, s->from, s->to - s->from),
                   s->is_first && s->from == 0);
}

static int add_range(struct splitter *s, size_t from, size_t to, bool is_match) {
    bool is_joined = false;
    is_match ^= s->r->p->steps[s->at].is_inverted;
    switch (s->behavior) {
    case REMOVED:
        if (is_match) return flush(s);
        break;
    case ISOLATED:
        break;
    case MERGED_WITH_PREVIOUS:
        is_joined = is_match && !s->was_match;
        break;
    case MERGED_WITH_NEXT:
        is_joined = !is_match && s->was_match;
        break;
    case CONTIGUOUS:
        is_joined = is_match == s->was_match;
        break;
    }
    s->was_match = is_match;
    if (is_joined && s->has_word) {
        s->to = to;
        return 0;
    }
    int rc = flush(s);
    s->from = from;
    s->to = to;
    s->has_word = true;
    return rc;
}

static int split_regex(struct splitter *s, struct step *step) {
    size_t done = 0, at = 0, start, end;
    size_t last_end = SIZE_MAX;
    by_regex_more(step->regex, s->text.n);
    while (at <= s->text.n) {
        int rc = by_regex_find(step->regex, s->text, at, &start, &end, s->r->err);
        if (rc < 0) return rc;
        if (rc == 0) break;
        size_t len = 1;
        if (end < s->text.n) by_uni_next(s->text.p + end, &len);
        at = end == start ? end + len : end;
        if (end == start && end == last_end) continue;
        last_end = end;
        if (start > done) {
            rc = add_range(s, done, start, false);
            if (rc) return rc;
        }
        rc = add_range(s, start, end, true);
        if (rc) return rc;
        done = end;
    }
    return done < s->text.n ? add_range(s, done, s->text.n, false) : 0;
}

static int split_literal(struct splitter *s, const struct step *step) {
    struct by_str what = {step->text, step->text_n};
    size_t done = 0;
    while (what.n) {
        size_t at = by_str_find(s->text, what, done);
        if (at == SIZE_MAX) break;
        int rc = at > done ? add_range(s, done, at, false) : 0;
        if (!rc) rc = add_range(s, at, at + what.n, true);
        if (rc) return rc;
        done = at + what.n;
    }
    return done < s->text.n ? add_range(s, done, s->text.n, false) : 0;
}

static int split_chars(struct splitter *s, const struct step *step) {
    size_t done = 0;
    for (size_t i = 0, len; i < s->text.n; i += len) {
        uint32_t cp = by_uni_next(s->text.p + i, &len);
        if (!step->is_char(s->r->p->u, cp, step->arg)) continue;
        int rc = i > done ? add_range(s, done, i, false) : 0;
        if (!rc) rc = add_range(s, i, i + len, true);
        if (rc) return rc;
        done = i + len;
    }
    return done < s->text.n ? add_range(s, done, s->text.n, false) : 0;
}

/* ---- steps that need no splitter ---- */

static int run_scan(const struct run *r, unsigned at, struct by_str text, bool is_first) {
    by_scan_fn *scan = r->p->steps[at].scan;
    bool is_last = at + 1 == r->p->n;
    for (size_t i = 0, n; i < text.n; i += n) {
        n = scan(r->p->u, text.p + i, text.n - i);
        struct by_str word = {text.p + i, n};
        int rc =
            is_last ? r->sink(r->ctx, word, r->err) : run_step(r, at + 1, word, is_first && i == 0);
        if (rc) return rc;
    }
    return 0;
}

static int run_runs(const struct run *r, unsigned at, struct by_str text, bool is_first) {
    const struct by_uni *u = r->p->u;
    size_t from = 0, len;
    int kind = 0; /* of the run: 0 space, 1 word, 2 neither */
    for (size_t i = 0; i < text.n; i += len) {
        uint32_t cp = by_uni_next(text.p + i, &len);
        int k = by_uni_is_word(cp) ? 1 : by_uni_flags(u, cp) & BY_UNI_SPACE ? 0 : 2;
        if (k == kind) continue;
        int rc = kind ? pass_on(r, at, by_str_sub(text, from, i - from), is_first && !from) : 0;
        if (rc) return rc;
        kind = k;
        from = i;
    }
    return kind ? pass_on(r, at, by_str_sub(text, from, text.n - from), is_first && !from) : 0;
}

static int run_fixed(const struct run *r, unsigned at, struct by_str text, bool is_first) {
    uint32_t max = r->p->steps[at].arg, n = 0;
    size_t from = 0;
    for (size_t i = 0, len; i < text.n;) {
        by_uni_next(text.p + i, &len);
        i += len;
        if (++n < max && i < text.n) continue;
        int rc = pass_on(r, at, by_str_sub(text, from, i - from), is_first && from == 0);
        if (rc) return rc;
        from = i;
        n = 0;
    }
    return 0;
}

/* Pairs that share a bit with one that a piece has are not split, which costs time and nothing else. */
static inline uint32_t pair_bit(uint32_t a, uint32_t b) {
    return (uint32_t)(((uint64_t)a << 32 | b) * UINT64_C(0x9E3779B97F4A7C15) >> (64 - PAIR_BITS));
}

static int run_pairs(const struct run *r, unsigned at, struct by_str text, bool is_first) {
    const uint64_t *pairs = r->p->steps[at].pairs;
    size_t from = 0, len;
    uint32_t before = by_uni_next(text.p, &len);
    for (size_t i = len; i < text.n; i += len) {
        uint32_t cp = by_uni_next(text.p + i, &len), bit = pair_bit(before, cp);
        before = cp;
        if (pairs[bit / 64] >> bit % 64 & 1) continue;
        int rc = pass_on(r, at, by_str_sub(text, from, i - from), is_first && from == 0);
        if (rc) return rc;
        from = i;
    }
    return pass_on(r, at, by_str_sub(text, from, text.n - from), is_first && from == 0);
}

/* Metaspace: spaces become the replacement, one is put before as the scheme says, and words begin with it. */
static int run_metaspace(const struct run *r, unsigned at, struct by_str text, bool is_first) {
    struct step *step = &r->p->steps[at];
    struct by_str mark = {step->text, step->text_n};
    struct by_buf *b = &step->scratch;
    by_buf_clear(b);
    bool has_mark = text.p[0] == ' ' || by_str_starts(text, mark);
    if (!has_mark &&
        (step->scheme == PREPEND_ALWAYS || (step->scheme == PREPEND_FIRST && is_first)))
        by_buf_add_str(b, mark);
    for (size_t i = 0; i < text.n;) {
        const char *space = memchr(text.p + i, ' ', text.n - i);
        size_t end = space ? (size_t)(space - text.p) : text.n;
        by_buf_add(b, text.p + i, end - i);
        if (space) by_buf_add_str(b, mark);
        i = end + (space ? 1 : 0);
    }
    if (b->is_full) return by_fail(r->err, BY_ELIMIT, "the text is too long");
    struct by_str whole = by_buf_str(b);
    if (!step->arg) return pass_on(r, at, whole, is_first);
    struct splitter s = {
        .r = r, .at = at, .text = whole, .is_first = is_first, .behavior = MERGED_WITH_NEXT};
    int rc = split_literal(&s, step);
    return rc ? rc : flush(&s);
}

static int run_prefix(const struct run *r, unsigned at, struct by_str text, bool is_first) {
    if (text.p[0] == ' ') return pass_on(r, at, text, is_first);
    struct by_buf *b = &r->p->steps[at].scratch;
    by_buf_clear(b);
    by_buf_addc(b, ' ');
    by_buf_add_str(b, text);
    if (b->is_full) return by_fail(r->err, BY_ELIMIT, "the text is too long");
    return pass_on(r, at, by_buf_str(b), is_first);
}

/* `at` is the depth of the recursion, below BY_PRETOK_STEPS_MAX. */
static int run_step(const struct run *r, unsigned at, struct by_str text, bool is_first) {
    struct step *step = &r->p->steps[at];
    struct splitter s = {
        .r = r, .at = at, .text = text, .is_first = is_first, .behavior = step->behavior};
    int rc = 0;
    switch (step->kind) {
    case SCAN:
        return run_scan(r, at, text, is_first);
    case RUNS:
        return run_runs(r, at, text, is_first);
    case FIXED:
        return run_fixed(r, at, text, is_first);
    case PAIRS:
        return run_pairs(r, at, text, is_first);
    case METASPACE:
        return run_metaspace(r, at, text, is_first);
    case PREFIX:
        return run_prefix(r, at, text, is_first);
    case REGEX:
        rc = split_regex(&s, step);
        break;
    case LITERAL:
        rc = split_literal(&s, step);
        break;
    case CHARS:
        rc = split_chars(&s, step);
        break;
    }
    return rc ? rc : flush(&s);
}

void by_pretok_begin(struct by_pretok *p) {
    for (unsigned i = 0; i < p->n; i++) {
        if (p->steps[i].kind == REGEX) by_regex_begin(p->steps[i].regex);
    }
}

int by_pretok_run(struct by_pretok *p, struct by_str text, bool is_first, by_pretok_sink *sink,
                  void *ctx, struct by_err *err) {
    if (!text.n) return 0;
    if (!p->n) return sink(ctx, text, err);
    struct run r = {.p = p, .sink = sink, .ctx = ctx, .err = err};
    return run_step(&r, 0, text, is_first);
}

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

static struct step *add_step(struct by_pretok *p, enum kind kind, struct by_err *err) {
    if (p->n == BY_PRETOK_STEPS_MAX) {
        by_fail(err, BY_ELIMIT, "pre_tokenizer has more than %d steps", BY_PRETOK_STEPS_MAX);
        return NULL;
    }
    struct step *s = &p->steps[p->n++];
    *s = (struct step){.kind = kind, .behavior = ISOLATED};
    by_buf_init(&s->scratch, SIZE_MAX / 2);
    return s;
}

static void set_text(struct step *s, struct by_str text) {
    s->text = by_strndup(text.p, text.n);
    s->text_n = text.n;
}

static int parse_behavior(struct step *s, const struct by_json *j, const char *deflt,
                          struct by_err *err) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    struct by_str name = by_str_of(deflt);
    int rc = by_json_get_str(j, "pre_tokenizer", "behavior", &name, err);
    if (rc) return rc;
    for (unsigned i = 0; i < BY_COUNTOF(names); i++) {
        if (!by_str_eqz(name, names[i])) continue;
        s->behavior = (enum behavior)i;
        return 0;
    }
    return by_fail(err, BY_EUNSUPPORTED, "pre_tokenizer: behavior '" BY_STR_FMT "' is not known",
                   BY_STR_ARG(name));
}

static int add_chars(struct by_pretok *p, is_char_fn *is_char, enum behavior behavior,
                     struct by_err *err) {
    struct step *s = add_step(p, CHARS, err);
    if (!s) return BY_ELIMIT;
    s->is_char = is_char;
    s->behavior = behavior;
    return 0;
}

static int parse_split(struct by_pretok *p, const struct by_json *j, struct by_err *err) {
    struct step *s = add_step(p, LITERAL, err);
    if (!s) return BY_ELIMIT;
    int rc = parse_behavior(s, j, "Isolated", err);
    if (!rc) rc = by_json_get_bool(j, "pre_tokenizer", "invert", &s->is_inverted, err);
    if (rc) return rc;
    const struct by_json *pattern = by_json_get(j, "pattern");
    struct by_str text = {0};
    const struct by_json *regex = by_json_get(pattern, "Regex");
    if (!regex) {
        rc = by_json_get_str(pattern, "pre_tokenizer.pattern", "String", &text, err);
        if (!rc) set_text(s, text);
        return rc;
    }
    text = by_json_str(regex);
    const struct by_scan *scan = by_scan_find(text);
    if (scan && (s->behavior == ISOLATED || (s->behavior == REMOVED && s->is_inverted))) {
        s->kind = SCAN;
        s->scan = scan->fn;
        return 0;
    }
    s->kind = REGEX;
    return by_regex_new(&s->regex, text, err);
}

static int parse_byte_level(struct by_pretok *p, const struct by_json *j, struct by_err *err) {
    bool add_prefix_space = true, use_regex = true;
    int rc = by_json_get_bool(j, "pre_tokenizer", "add_prefix_space", &add_prefix_space, err);
    if (!rc) rc = by_json_get_bool(j, "pre_tokenizer", "use_regex", &use_regex, err);
    if (rc) return rc;
    p->is_byte_level = true;
    if (add_prefix_space && !add_step(p, PREFIX, err)) return BY_ELIMIT;
    if (!use_regex) return 0;
    struct step *before = p->n ? &p->steps[p->n - 1] : NULL;
    if (before && before->kind == CHARS && before->is_char == is_number &&
        before->behavior == ISOLATED) { /* the two in one pass */
        before->kind = SCAN;
        before->scan = by_scan_digits_gpt2;
        return 0;
    }
    struct step *s = add_step(p, SCAN, err);
    if (!s) return BY_ELIMIT;
    s->scan = by_scan_gpt2;
    return 0;
}

static int parse_metaspace(struct by_pretok *p, const struct by_json *j, struct by_err *err) {
    struct step *s = add_step(p, METASPACE, err);
    if (!s) return BY_ELIMIT;
    struct by_str mark = BY_STR("\xE2\x96\x81"), scheme = BY_STR("always");
    bool is_split = true, add_prefix_space = true;
    int rc = by_json_get_str(j, "pre_tokenizer", "replacement", &mark, err);
    if (!rc) rc = by_json_get_str(j, "pre_tokenizer", "prepend_scheme", &scheme, err);
    if (!rc) rc = by_json_get_bool(j, "pre_tokenizer", "split", &is_split, err);
    if (!rc) rc = by_json_get_bool(j, "pre_tokenizer", "add_prefix_space", &add_prefix_space, err);
    if (rc) return rc;
    if (!mark.n) return by_fail(err, BY_EFORMAT, "pre_tokenizer: Metaspace's replacement is empty");
    if (by_str_eqz(scheme, "always"))
        s->scheme = PREPEND_ALWAYS;
    else if (by_str_eqz(scheme, "first"))
        s->scheme = PREPEND_FIRST;
    else if (by_str_eqz(scheme, "never"))
        s->scheme = PREPEND_NEVER;
    else
        return by_fail(err, BY_EUNSUPPORTED, "pre_tokenizer: prepend_scheme '" BY_STR_FMT "'",
                       BY_STR_ARG(scheme));
    if (!add_prefix_space) s->scheme = PREPEND_NEVER;
    s->arg = is_split;
    set_text(s, mark);
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
    struct step *s = add_step(p, FIXED, err);
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
    if (p->is_byte_level)
        return by_fail(err, BY_EUNSUPPORTED,
                       "pre_tokenizer '" BY_STR_FMT "' after ByteLevel is not supported",
                       BY_STR_ARG(type));
    if (by_str_eqz(type, "Sequence")) return parse_sequence(p, j, depth, err);
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

void by_pretok_free(struct by_pretok *p) {
    if (!p) return;
    for (unsigned i = 0; i < p->n; i++) {
        by_regex_free(p->steps[i].regex);
        by_free(p->steps[i].text);
        if (!p->steps[i].is_borrowed) by_free(p->steps[i].pairs);
        by_buf_release(&p->steps[i].scratch);
    }
    by_free(p);
}

bool by_pretok_is_byte_level(const struct by_pretok *p) {
    return p->is_byte_level;
}

void by_pretok_split_between(struct by_pretok *p, const struct by_vocab *v) {
    if (p->n == BY_PRETOK_STEPS_MAX) return;
    struct step *s = &p->steps[p->n++];
    *s = (struct step){.kind = PAIRS};
    s->pairs = by_alloc_array((size_t)1 << (PAIR_BITS - 6), sizeof *s->pairs);
    for (uint32_t id = 0; id < v->n; id++) {
        struct by_str piece = by_vocab_get(v, id);
        size_t len;
        if (!piece.n) continue;
        uint32_t before = by_utf8_decode(piece.p, piece.n, &len);
        for (size_t i = len; i < piece.n; i += len) {
            uint32_t cp = by_utf8_decode(piece.p + i, piece.n - i, &len),
                     bit = pair_bit(before, cp);
            s->pairs[bit / 64] |= UINT64_C(1) << bit % 64;
            before = cp;
        }
    }
}

enum { PAIR_WORDS = 1 << (PAIR_BITS - 6) };

void by_pretok_freeze(const struct by_pretok *p, struct by_buf *out) {
    const struct step *last = p->n ? &p->steps[p->n - 1] : NULL;
    bool has_pairs = last && last->kind == PAIRS;
    by_freeze(out, has_pairs ? last->pairs : NULL, has_pairs ? PAIR_WORDS : 0, sizeof *last->pairs);
}

void by_pretok_thaw(struct by_pretok *p, struct by_thaw *t) {
    size_t n;
    const void *pairs = by_thaw(t, sizeof(uint64_t), &n);
    if (!n) return;
    if (n != PAIR_WORDS || p->n == BY_PRETOK_STEPS_MAX) {
        t->is_bad = true;
        return;
    }
    /* only read */
    p->steps[p->n++] =
        (struct step){.kind = PAIRS, .pairs = (void *)(uintptr_t)pairs, .is_borrowed = true};
}
