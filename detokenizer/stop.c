#include "detokenizer/stop.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "proto/limits.h"

struct pattern {
    struct by_str text; /* in stop.bytes */
    uint16_t *border;   /* [text.n] longest proper prefix that is a suffix of text[0..i] */
    uint32_t k;         /* this much of it is the end of what was fed */
};

struct stop {
    struct pattern *patterns;
    uint32_t n;
    char *bytes;
    struct by_buf held;
    const struct pattern *matched;
};
static_assert(LIMIT_STOP_BYTES <= UINT16_MAX, "borders are 16 bits");

static void find_borders(struct pattern *p) {
    uint32_t k = 0;
    p->border[0] = 0;
    for (uint32_t i = 1; i < p->text.n; i++) {
        while (k && p->text.p[i] != p->text.p[k])
            k = p->border[k - 1];
        if (p->text.p[i] == p->text.p[k]) k++;
        p->border[i] = (uint16_t)k;
    }
}

static void advance(struct pattern *p, char c) {
    while (p->k && p->text.p[p->k] != c)
        p->k = p->border[p->k - 1];
    if (p->text.p[p->k] == c) p->k++;
}

struct stop *stop_new(const struct by_str *strings, uint32_t n) {
    size_t n_bytes = 0;
    uint32_t n_used = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (strings[i].n == 0 || strings[i].n > LIMIT_STOP_BYTES) continue;
        n_bytes += strings[i].n;
        n_used++;
    }
    if (!n_used) return NULL;
    struct stop *s = by_alloc(sizeof *s);
    s->patterns = by_alloc_array(n_used, sizeof *s->patterns);
    s->bytes = by_alloc(n_bytes);
    by_buf_init(&s->held, SIZE_MAX / 2);
    char *at = s->bytes;
    for (uint32_t i = 0; i < n; i++) {
        if (strings[i].n == 0 || strings[i].n > LIMIT_STOP_BYTES) continue;
        struct pattern *p = &s->patterns[s->n++];
        memcpy(at, strings[i].p, strings[i].n);
        p->text = (struct by_str){at, strings[i].n};
        at += strings[i].n;
        p->border = by_alloc_array(p->text.n, sizeof *p->border);
        find_borders(p);
    }
    return s;
}

void stop_free(struct stop *s) {
    if (!s) return;
    for (uint32_t i = 0; i < s->n; i++)
        by_free(s->patterns[i].border);
    by_buf_release(&s->held);
    by_free(s->bytes);
    by_free(s->patterns);
    by_free(s);
}

/* One byte for every pattern; true when one of them is complete. */
static bool step(struct stop *s, char c) {
    for (uint32_t i = 0; i < s->n; i++) {
        struct pattern *p = &s->patterns[i];
        advance(p, c);
        bool is_whole = p->k == p->text.n;
        if (is_whole && (!s->matched || p->text.n > s->matched->text.n)) s->matched = p;
    }
    return s->matched != NULL;
}

bool stop_feed(struct stop *s, struct by_str text, bool keeps_match, struct by_buf *out) {
    by_assert(!s->matched);
    for (size_t i = 0; i < text.n; i++) {
        if (!step(s, text.p[i])) continue;
        by_buf_add(&s->held, text.p, i + 1);
        size_t n = s->held.n - (keeps_match ? 0 : s->matched->text.n);
        by_buf_add(out, s->held.p, n);
        by_buf_clear(&s->held);
        return true;
    }
    by_buf_add_str(&s->held, text);
    size_t n_hold = 0;
    for (uint32_t i = 0; i < s->n; i++)
        n_hold = BY_MAX(n_hold, (size_t)s->patterns[i].k);
    size_t n = s->held.n - n_hold;
    by_buf_add(out, s->held.p, n);
    by_buf_drop_front(&s->held, n);
    return false;
}

void stop_finish(struct stop *s, struct by_buf *out) {
    by_buf_add_str(out, by_buf_str(&s->held));
    by_buf_clear(&s->held);
}

struct by_str stop_matched(const struct stop *s) {
    return s->matched ? s->matched->text : (struct by_str){"", 0};
}

size_t stop_n_held(const struct stop *s) {
    return s->held.n;
}
