#include "detokenizer/stop.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/base/utf8.h"
#include "common/text/pattern.h"
#include "proto/limits.h"

struct string {
    struct by_str text; /* in stop.bytes */
    uint16_t *border;   /* [text.n] longest proper prefix that is a suffix of text[0..i] */
    uint32_t k;         /* this much of it is the end of what was fed */
};

struct regex {
    struct by_pattern *automaton;
    struct by_str text; /* ours */
};

struct stop {
    struct string *strings;
    uint32_t n;
    char *bytes;
    struct regex *regexes;
    uint32_t n_regexes;
    struct by_buf held;
    uint64_t n_fed;
    struct by_str matched;
    bool is_matched;
};
static_assert(LIMIT_STOP_BYTES <= UINT16_MAX, "borders are 16 bits");

static void find_borders(struct string *p) {
    uint32_t k = 0;
    p->border[0] = 0;
    for (uint32_t i = 1; i < p->text.n; i++) {
        while (k && p->text.p[i] != p->text.p[k])
            k = p->border[k - 1];
        if (p->text.p[i] == p->text.p[k]) k++;
        p->border[i] = (uint16_t)k;
    }
}

static void advance(struct string *p, char c) {
    while (p->k && p->text.p[p->k] != c)
        p->k = p->border[p->k - 1];
    if (p->text.p[p->k] == c) p->k++;
}

static bool is_usable(struct by_str s) {
    return s.n && s.n <= LIMIT_STOP_BYTES;
}

static void add_strings(struct stop *s, const struct stop_wants *w) {
    size_t n_bytes = 0;
    for (uint32_t i = 0; i < w->n_strings; i++)
        n_bytes += is_usable(w->strings[i]) ? w->strings[i].n : 0;
    if (!n_bytes) return;
    s->strings = by_alloc_array(w->n_strings, sizeof *s->strings);
    s->bytes = by_alloc(n_bytes);
    char *at = s->bytes;
    for (uint32_t i = 0; i < w->n_strings; i++) {
        if (!is_usable(w->strings[i])) continue;
        struct string *p = &s->strings[s->n++];
        memcpy(at, w->strings[i].p, w->strings[i].n);
        p->text = (struct by_str){at, w->strings[i].n};
        at += p->text.n;
        p->border = by_alloc_array(p->text.n, sizeof *p->border);
        find_borders(p);
    }
}

static void add_regexes(struct stop *s, const struct stop_wants *w) {
    if (!w->n_regexes) return;
    s->regexes = by_alloc_array(w->n_regexes, sizeof *s->regexes);
    for (uint32_t i = 0; i < w->n_regexes; i++) {
        struct regex *r = &s->regexes[s->n_regexes];
        if (by_pattern_new(&r->automaton, w->regexes[i], NULL)) continue;
        r->text = (struct by_str){by_strndup(w->regexes[i].p, w->regexes[i].n), w->regexes[i].n};
        s->n_regexes++;
    }
}

struct stop *stop_new(const struct stop_wants *w) {
    if (!w->n_strings && !w->n_regexes) return NULL;
    struct stop *s = by_alloc(sizeof *s);
    by_buf_init(&s->held, SIZE_MAX / 2);
    add_strings(s, w);
    add_regexes(s, w);
    if (s->n || s->n_regexes) return s;
    stop_free(s);
    return NULL;
}

void stop_free(struct stop *s) {
    if (!s) return;
    for (uint32_t i = 0; i < s->n_regexes; i++) {
        by_pattern_free(s->regexes[i].automaton);
        by_free((void *)(uintptr_t)s->regexes[i].text.p);
    }
    for (uint32_t i = 0; i < s->n; i++)
        by_free(s->strings[i].border);
    by_buf_release(&s->held);
    by_free(s->regexes);
    by_free(s->bytes);
    by_free(s->strings);
    by_free(s);
}

/* ---- the search ---- */

/* The best match so far, in bytes of the whole text. */
struct found {
    uint64_t start, end;
};

static void offer(struct stop *s, struct found *f, uint64_t start, uint64_t end,
                  struct by_str matched) {
    bool is_better = !s->is_matched || end < f->end || (end == f->end && start < f->start);
    if (!is_better) return;
    *f = (struct found){start, end};
    s->matched = matched;
    s->is_matched = true;
}

/* One character for every string and pattern; true when one of them is complete. */
static bool step(struct stop *s, struct by_str c, uint32_t cp, struct found *f) {
    for (uint32_t i = 0; i < s->n; i++) {
        struct string *p = &s->strings[i];
        for (size_t k = 0; k < c.n; k++) {
            if (p->k == p->text.n) break; /* complete within the character */
            advance(p, c.p[k]);
            if (p->k == p->text.n)
                offer(s, f, s->n_fed + k + 1 - p->text.n, s->n_fed + k + 1, p->text);
        }
    }
    for (uint32_t i = 0; i < s->n_regexes; i++) {
        uint64_t start, end;
        if (by_pattern_step(s->regexes[i].automaton, cp, c.n, &start, &end))
            offer(s, f, start, end, s->regexes[i].text);
    }
    s->n_fed += c.n;
    return s->is_matched;
}

/* s->held ends at n_fed; what is before the cut goes out. */
static void cut(struct stop *s, uint64_t at, struct by_buf *out) {
    uint64_t base = s->n_fed - s->held.n;
    by_buf_add(out, s->held.p, (size_t)(at - base));
    by_buf_clear(&s->held);
}

bool stop_feed(struct stop *s, struct by_str text, bool keeps_match, struct by_buf *out) {
    struct found f = {0};
    by_assert(!s->is_matched);
    for (size_t i = 0, len; i < text.n; i += len) {
        uint32_t cp = by_utf8_decode(text.p + i, text.n - i, &len);
        if (!step(s, by_str_sub(text, i, len), cp, &f)) continue;
        by_buf_add(&s->held, text.p, i + len);
        cut(s, keeps_match ? f.end : f.start, out);
        return true;
    }
    by_buf_add_str(&s->held, text);
    uint64_t n_hold = 0;
    for (uint32_t i = 0; i < s->n; i++)
        n_hold = BY_MAX(n_hold, (uint64_t)s->strings[i].k);
    for (uint32_t i = 0; i < s->n_regexes; i++)
        n_hold = BY_MAX(n_hold, by_pattern_n_held(s->regexes[i].automaton));
    size_t n = s->held.n - (size_t)n_hold;
    by_buf_add(out, s->held.p, n);
    by_buf_drop_front(&s->held, n);
    return false;
}

bool stop_finish(struct stop *s, bool keeps_match, struct by_buf *out) {
    struct found f = {.start = s->n_fed, .end = s->n_fed};
    for (uint32_t i = 0; i < s->n_regexes; i++) {
        uint64_t start, end;
        if (by_pattern_finish(s->regexes[i].automaton, &start, &end))
            offer(s, &f, start, end, s->regexes[i].text);
    }
    cut(s, keeps_match ? f.end : f.start, out);
    return s->is_matched;
}

struct by_str stop_matched(const struct stop *s) {
    return s->is_matched ? s->matched : (struct by_str){"", 0};
}

size_t stop_n_held(const struct stop *s) {
    return s->held.n;
}
