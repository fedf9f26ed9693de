#include "common/text/added.h"

#include "common/base/arena.h"
#include "common/base/check.h"
#include "common/base/map.h"
#include "common/base/mem.h"

/* A trie by first child and next sibling; the first byte is looked up in a table. */
struct node {
    uint8_t byte;
    uint32_t child, sibling; /* 0: none */
    uint32_t token;          /* index + 1; 0: none ends here */
};

struct trie {
    struct node *nodes; /* [0] is unused */
    uint32_t n, cap;
    uint32_t first[256]; /* node of each first byte */
};

struct by_added {
    const struct by_uni *u;
    struct by_added_token *tokens;
    uint32_t n, cap;
    struct by_strmap by_content; /* → index */
    struct by_arena strings;
    struct trie tries[2]; /* [normalized] */
};

struct by_added *by_added_new(const struct by_uni *u) {
    struct by_added *a = by_alloc(sizeof *a);
    a->u = u;
    by_strmap_init(&a->by_content);
    by_arena_init(&a->strings, 0);
    return a;
}

void by_added_free(struct by_added *a) {
    if (!a) return;
    by_free(a->tries[1].nodes);
    by_free(a->tries[0].nodes);
    by_arena_release(&a->strings);
    by_strmap_release(&a->by_content);
    by_free(a->tokens);
    by_free(a);
}

int by_added_put(struct by_added *a, const struct by_added_token *token, struct by_err *err) {
    if (!token->content.n) return 0;
    if (token->content.n > BY_ADDED_BYTES_MAX || token->pattern.n > BY_ADDED_BYTES_MAX)
        return by_fail(err, BY_ELIMIT, "added token %u of %zu bytes: at most %d", token->id,
                       token->content.n, BY_ADDED_BYTES_MAX);
    uint64_t at;
    if (!by_strmap_get(&a->by_content, token->content, &at)) {
        if (a->n == BY_ADDED_MAX)
            return by_fail(err, BY_ELIMIT, "more than %d added tokens", BY_ADDED_MAX);
        if (a->n == a->cap) {
            a->cap = BY_MAX(a->cap * 2, 64u);
            a->tokens = by_realloc_array(a->tokens, a->cap, sizeof *a->tokens);
        }
        at = a->n++;
    }
    struct by_added_token *t = &a->tokens[at];
    *t = *token;
    t->content = by_arena_copy(&a->strings, token->content);
    t->pattern = by_arena_copy(&a->strings, token->pattern);
    by_strmap_put(&a->by_content, t->content, at);
    return 0;
}

static uint32_t new_node(struct trie *t, uint8_t byte) {
    if (t->n + 2 > t->cap) {
        t->cap = BY_MAX(t->cap * 2, 256u);
        t->nodes = by_realloc_array(t->nodes, t->cap, sizeof *t->nodes);
    }
    if (t->n == 0) t->nodes[t->n++] = (struct node){0};
    t->nodes[t->n] = (struct node){.byte = byte};
    return t->n++;
}

static uint32_t child_of(struct trie *t, uint32_t parent, uint8_t byte) {
    uint32_t at = t->nodes[parent].child;
    while (at && t->nodes[at].byte != byte)
        at = t->nodes[at].sibling;
    if (at) return at;
    at = new_node(t, byte);
    t->nodes[at].sibling = t->nodes[parent].child;
    t->nodes[parent].child = at;
    return at;
}

void by_added_finish(struct by_added *a) {
    for (uint32_t i = 0; i < a->n; i++) {
        struct trie *t = &a->tries[a->tokens[i].normalized];
        struct by_str s = a->tokens[i].pattern;
        if (!s.n) continue;
        uint8_t c = (uint8_t)s.p[0];
        if (!t->first[c]) t->first[c] = new_node(t, c);
        uint32_t at = t->first[c];
        for (size_t k = 1; k < s.n; k++)
            at = child_of(t, at, (uint8_t)s.p[k]);
        uint32_t *token = &t->nodes[at].token; /* of equal ones the first special, else the first */
        if (!*token || (a->tokens[i].special && !a->tokens[*token - 1].special)) *token = i + 1;
    }
}

uint32_t by_added_n(const struct by_added *a) {
    return a->n;
}

const struct by_added_token *by_added_at(const struct by_added *a, uint32_t i) {
    by_assert(i < a->n);
    return &a->tokens[i];
}

const struct by_added_token *by_added_get(const struct by_added *a, struct by_str content) {
    uint64_t at;
    return by_strmap_get(&a->by_content, content, &at) ? &a->tokens[at] : NULL;
}

bool by_added_find(const struct by_added *a, struct by_str content, uint32_t *id) {
    const struct by_added_token *t = by_added_get(a, content);
    if (t) *id = t->id;
    return t != NULL;
}

/* The leftmost match at or behind `at`, the longest there; its token's index + 1, 0 when there is none. */
static uint32_t find(const struct trie *t, struct by_str text, size_t *at, size_t *end) {
    for (size_t i = *at; i < text.n; i++) {
        uint32_t node = t->first[(uint8_t)text.p[i]], found = 0;
        for (size_t k = i; node;) {
            k++;
            if (t->nodes[node].token) {
                found = t->nodes[node].token;
                *end = k;
            }
            if (k == text.n) break;
            node = t->nodes[node].child;
            while (node && t->nodes[node].byte != (uint8_t)text.p[k])
                node = t->nodes[node].sibling;
        }
        if (found) {
            *at = i;
            return found;
        }
    }
    return 0;
}

static bool is_alone(struct by_str text, size_t from, size_t to) {
    size_t len;
    if (from > 0 && by_uni_is_word(by_uni_next(text.p + by_uni_prev(text.p, from), &len)))
        return false;
    return to == text.n || !by_uni_is_word(by_uni_next(text.p + to, &len));
}

/* Back over white space, not beyond `done`. */
static size_t space_before(const struct by_uni *u, struct by_str text, size_t at, size_t done) {
    size_t len;
    while (at > done) {
        size_t prev = by_uni_prev(text.p, at);
        if (!(by_uni_flags(u, by_uni_next(text.p + prev, &len)) & BY_UNI_SPACE)) break;
        at = prev;
    }
    return at;
}

static size_t space_behind(const struct by_uni *u, struct by_str text, size_t at) {
    size_t len;
    while (at < text.n && (by_uni_flags(u, by_uni_next(text.p + at, &len)) & BY_UNI_SPACE))
        at += len;
    return at;
}

bool by_added_is_clear(const uint8_t *marks, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (marks[i]) return false;
    }
    return true;
}

static bool is_allowed(const struct by_added_search *s, size_t start, size_t end) {
    return s->allow_special &&
           (!s->user_marks || by_added_is_clear(s->user_marks + start, end - start));
}

bool by_added_next(const struct by_added *a, struct by_str text, struct by_added_search *s,
                   struct by_added_part *part) {
    if (s->due.token) {
        *part = s->due;
        s->due.token = NULL;
        return true;
    }
    size_t start = s->at, end = 0;
    for (;;) {
        uint32_t found = find(&a->tries[s->in_normalized], text, &start, &end);
        if (found == 0) break;
        const struct by_added_token *t = &a->tokens[found - 1];
        s->at = end;
        if ((t->special && !is_allowed(s, start, end)) ||
            (t->single_word && !is_alone(text, start, end))) {
            start = end;
            continue;
        }
        if (t->lstrip) start = BY_MAX(space_before(a->u, text, start, s->done), s->done);
        if (t->rstrip) end = space_behind(a->u, text, end);
        if (start >= end) { /* the token before has taken all of it as its own white space */
            start = s->at;
            continue;
        }
        size_t done = s->done;
        s->done = end; /* white space behind it that the token before had taken is text again */
        *part = (struct by_added_part){.from = start, .to = end, .token = t};
        if (done < start) {
            s->due = *part;
            *part = (struct by_added_part){.from = done, .to = start};
        }
        return true;
    }
    s->at = text.n;
    if (s->done >= text.n) return false;
    *part = (struct by_added_part){.from = s->done, .to = text.n};
    s->done = text.n;
    return true;
}
