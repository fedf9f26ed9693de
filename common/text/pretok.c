#include "common/text/pretok.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/alphabet.h"
#include "common/text/pretok_parts.h"

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
    enum by_pretok_behavior behavior;
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

static int split_regex(struct splitter *s, struct by_pretok_step *step) {
    size_t done = 0, at = 0, start, end;
    size_t last_end = SIZE_MAX;
    by_regex_next_part(step->regex);
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

static int split_literal(struct splitter *s, const struct by_pretok_step *step) {
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

static int split_chars(struct splitter *s, const struct by_pretok_step *step) {
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
    struct by_pretok_step *step = &r->p->steps[at];
    struct by_str mark = {step->text, step->text_n};
    struct by_buf *b = &step->scratch;
    by_buf_clear(b);
    bool has_mark = text.p[0] == ' ' || by_str_starts(text, mark);
    if (!has_mark &&
        (step->scheme == BY_PREPEND_ALWAYS || (step->scheme == BY_PREPEND_FIRST && is_first)))
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

static int run_spell(const struct run *r, unsigned at, struct by_str text, bool is_first) {
    struct by_buf *b = &r->p->steps[at].scratch;
    by_buf_clear(b);
    for (size_t i = 0; i < text.n; i++) {
        char c[4];
        by_buf_add(b, c, by_utf8_encode(by_alphabet_char((uint8_t)text.p[i]), c));
    }
    if (b->is_full) return by_fail(r->err, BY_ELIMIT, "the text is too long");
    return pass_on(r, at, by_buf_str(b), is_first);
}

/* `at` is the depth of the recursion, below BY_PRETOK_STEPS_MAX. */
static int run_step(const struct run *r, unsigned at, struct by_str text, bool is_first) {
    struct by_pretok_step *step = &r->p->steps[at];
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
    case SPELL:
        return run_spell(r, at, text, is_first);
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

void by_pretok_release_step(struct by_pretok_step *s) {
    by_regex_free(s->regex);
    by_free(s->text);
    if (!s->is_borrowed) by_free(s->pairs);
    by_buf_release(&s->scratch);
}

void by_pretok_free(struct by_pretok *p) {
    if (!p) return;
    for (unsigned i = 0; i < p->n; i++)
        by_pretok_release_step(&p->steps[i]);
    by_free(p);
}

bool by_pretok_is_byte_level(const struct by_pretok *p) {
    return p->is_byte_level;
}

void by_pretok_spell(struct by_pretok *p) {
    /* there is always room for this and the next one */
    struct by_pretok_step *s = &p->steps[p->n++];
    *s = (struct by_pretok_step){.kind = SPELL};
    by_buf_init(&s->scratch, SIZE_MAX / 2);
    p->is_byte_level = false;
    p->is_spelled = true;
}

void by_pretok_split_between(struct by_pretok *p, const struct by_vocab *v) {
    struct by_pretok_step *s = &p->steps[p->n++];
    *s = (struct by_pretok_step){.kind = PAIRS};
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
    uint8_t is_spelled = p->is_spelled;
    by_freeze(out, &is_spelled, 1, 1);
    const struct by_pretok_step *last = p->n ? &p->steps[p->n - 1] : NULL;
    bool has_pairs = last && last->kind == PAIRS;
    by_freeze(out, has_pairs ? last->pairs : NULL, has_pairs ? PAIR_WORDS : 0, sizeof *last->pairs);
}

void by_pretok_thaw(struct by_pretok *p, struct by_thaw *t) {
    size_t n;
    uint8_t is_spelled = 0;
    by_thaw_one(t, &is_spelled, 1);
    const void *pairs = by_thaw(t, sizeof(uint64_t), &n);
    if (is_spelled && p->is_byte_level) by_pretok_spell(p);
    if (!n) return;
    if (n != PAIR_WORDS) {
        t->is_bad = true;
        return;
    }
    /* only read */
    p->steps[p->n++] = (struct by_pretok_step){
        .kind = PAIRS, .pairs = (void *)(uintptr_t)pairs, .is_borrowed = true};
}
