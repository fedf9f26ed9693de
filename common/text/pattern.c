#include "common/text/pattern.h"

#include "common/base/arena.h"
#include "common/base/map.h"
#include "common/base/mem.h"
#include "common/text/unicode.h"

enum {
    STATES_MAX = 512,       /* remembered; then all are forgotten */
    MEMORY_MAX = 512 << 10, /* bytes of them */
    CLASSES_MAX = 256,
    WORDS = BY_PATTERN_SETS_MAX / 64,
};

/* Which sets a character is in: all that the automaton sees of it. */
struct class {
    uint64_t in[WORDS];
    bool is_word, is_line_end;
};

/* What stands before the place in hand. */
enum before { BEGINNING, WORD, LINE_END, OTHER };

/* Nodes that wait for a character, in groups of equal beginnings, the earliest first. */
struct state {
    uint32_t n, n_groups;
    enum before before;
    uint32_t match;         /* group whose match has ended here, or NONE */
    struct move **moves;    /* [CLASSES_MAX] NULL: not tried yet */
    const uint16_t *nodes;  /* [n] */
    const uint16_t *groups; /* [n] of each node; never falls */
};

struct move {
    struct state *to;
    /* group of the old state whose match ends before the character, or NONE */
    uint32_t match_before;
    uint32_t n_groups;
    /* [n_groups of to] group of the old state; NONE: it begins at the new place */
    const uint16_t *from;
};

enum { NONE = BY_PATTERN_NONE };

/* A state in the making. */
struct draft {
    uint16_t *nodes, *groups, *from; /* [BY_PATTERN_NODES_MAX] */
    uint32_t n, n_groups, match;
    enum before before;
};

struct by_pattern {
    struct by_pattern_code code;
    struct class classes[CLASSES_MAX];
    uint32_t n_classes;
    int16_t ascii[128]; /* class, -1: not looked at yet */
    struct by_arena arena;
    struct by_strmap states; /* nodes, groups and the rest as bytes → struct state */
    uint32_t n_states;
    struct state *now;
    uint64_t *starts, *starts_next; /* [n_groups of now] where each began */
    uint64_t at;                    /* bytes fed */
    struct draft draft;
    uint16_t *stack;
    uint32_t *mark, epoch; /* [nodes] == epoch: in the draft */
    struct by_buf key;
};

/* ---- characters ---- */

static bool in_class(uint32_t cp, uint8_t classes) {
    uint8_t f = by_uni_flags_of(cp);
    if ((classes & BY_CLASS_DIGIT) && by_uni_is_digit(cp)) return true;
    if ((classes & BY_CLASS_SPACE) &&
        ((f & BY_UNI_SPACE) || (cp >= 0x1C && cp <= 0x1F))) /* Python's isspace */
        return true;
    /* Python's isalnum */
    return (classes & BY_CLASS_WORD) && ((f & (BY_UNI_LETTER | BY_UNI_NUMBER)) || cp == '_');
}

static bool in_ranges(const struct by_pattern_code *c, const struct by_pattern_set *s,
                      uint32_t cp) {
    for (uint32_t i = 0; i < s->n; i++) {
        const struct by_pattern_range *r = &c->ranges[s->first + i];
        if (cp >= r->low && cp <= r->high) return true;
    }
    return (s->has && in_class(cp, s->has)) ||
           ((s->has_not & BY_CLASS_WORD) && !in_class(cp, BY_CLASS_WORD)) ||
           ((s->has_not & BY_CLASS_DIGIT) && !in_class(cp, BY_CLASS_DIGIT)) ||
           ((s->has_not & BY_CLASS_SPACE) && !in_class(cp, BY_CLASS_SPACE));
}

static bool in_set(const struct by_pattern_code *c, const struct by_pattern_set *s, uint32_t cp) {
    bool is_in = in_ranges(c, s, cp);
    if (!is_in && s->ignores_case)
        is_in = in_ranges(c, s, by_uni_lower(cp)) || in_ranges(c, s, by_uni_upper(cp));
    return is_in != s->is_negated;
}

static void forget_states(struct by_pattern *p);

static uint32_t class_of(struct by_pattern *p, uint32_t cp) {
    if (cp < 128 && p->ascii[cp] >= 0) return (uint32_t)p->ascii[cp];
    struct class k = {.is_word = in_class(cp, BY_CLASS_WORD), .is_line_end = cp == '\n'};
    for (uint32_t i = 0; i < p->code.n_sets; i++)
        k.in[i / 64] |= (uint64_t)in_set(&p->code, &p->code.sets[i], cp) << i % 64;
    uint32_t id = 0;
    while (id < p->n_classes &&
           (memcmp(p->classes[id].in, k.in, sizeof k.in) != 0 ||
            p->classes[id].is_word != k.is_word || p->classes[id].is_line_end != k.is_line_end))
        id++;
    if (id == CLASSES_MAX) { /* more kinds than are kept: begin anew */
        p->n_classes = id = 0;
        memset(p->ascii, -1, sizeof p->ascii);
        forget_states(p);
    }
    if (id == p->n_classes) p->classes[p->n_classes++] = k;
    if (cp < 128) p->ascii[cp] = (int16_t)id;
    return id;
}

/* ---- building a state ---- */

static bool holds(enum by_pattern_assert kind, enum before before, const struct class *next) {
    bool is_word = before == WORD, will_be = next && next->is_word;
    switch (kind) {
    case BY_AT_START:
        return before == BEGINNING;
    case BY_AT_LINE_START:
        return before == BEGINNING || before == LINE_END;
    case BY_AT_END:
        return !next;
    case BY_AT_LINE_END:
        return !next || next->is_line_end;
    case BY_AT_WORD:
        return is_word != will_be;
    case BY_AT_NO_WORD:
        return is_word == will_be;
    }
    return false;
}

static bool looks_ahead(uint8_t kind) {
    return kind != BY_AT_START && kind != BY_AT_LINE_START;
}

/* All that is reached from `node` without a character, into the draft's last group. What looks ahead stays. */
static void follow(struct by_pattern *p, uint16_t node) {
    struct draft *d = &p->draft;
    uint32_t n_stack = 0;
    p->stack[n_stack++] = node;
    while (n_stack) {
        uint16_t at = p->stack[--n_stack];
        if (at == NONE || p->mark[at] == p->epoch) continue;
        p->mark[at] = p->epoch;
        const struct by_pattern_node *n = &p->code.nodes[at];
        if (n->op == BY_PATTERN_SPLIT) {
            p->stack[n_stack++] = n->b;
            p->stack[n_stack++] = n->a;
        } else if (n->op == BY_PATTERN_MATCH) {
            if (d->match == NONE) d->match = d->n_groups;
        } else if (n->op == BY_PATTERN_ASSERT && !looks_ahead(n->arg)) {
            if (holds(n->arg, d->before, NULL)) p->stack[n_stack++] = n->a;
        } else {
            d->nodes[d->n] = at;
            d->groups[d->n++] = (uint16_t)d->n_groups;
        }
    }
}

static void begin_draft(struct by_pattern *p, enum before before) {
    p->draft.n = p->draft.n_groups = 0;
    p->draft.match = NONE;
    p->draft.before = before;
    p->epoch++;
}

/* Ends the last group if it has a node or the match; it comes from that group of the old state. */
static void end_group(struct draft *d, uint32_t from) {
    bool is_used = (d->n && d->groups[d->n - 1] == d->n_groups) || d->match == d->n_groups;
    if (is_used) d->from[d->n_groups++] = (uint16_t)from;
}

/* A match may begin at any place: the newest group. */
static void begin_here(struct by_pattern *p) {
    follow(p, (uint16_t)p->code.start);
    end_group(&p->draft, NONE);
}

static struct state *keep_state(struct by_pattern *p) {
    struct draft *d = &p->draft;
    uint32_t head[3] = {d->n, d->match, (uint32_t)d->before};
    by_buf_clear(&p->key);
    by_buf_add(&p->key, head, sizeof head);
    by_buf_add(&p->key, d->nodes, d->n * sizeof *d->nodes);
    by_buf_add(&p->key, d->groups, d->n * sizeof *d->groups);
    uint64_t found;
    if (by_strmap_get(&p->states, by_buf_str(&p->key), &found))
        return (struct state *)(uintptr_t)found;
    struct state *s = by_arena_get(&p->arena, sizeof *s);
    struct by_str key = by_arena_copy(&p->arena, by_buf_str(&p->key));
    s->n = d->n;
    s->n_groups = d->n_groups;
    s->before = d->before;
    s->match = d->match;
    s->nodes = (const uint16_t *)(const void *)(key.p + sizeof head);
    s->groups = s->nodes + d->n;
    s->moves = by_arena_get_array(&p->arena, CLASSES_MAX, sizeof *s->moves);
    by_strmap_put(&p->states, key, (uint64_t)(uintptr_t)s);
    p->n_states++;
    return s;
}

/* Forgets all but the state in hand. */
static void forget_states(struct by_pattern *p) {
    struct draft *d = &p->draft;
    if (!p->now) return;
    d->n = p->now->n;
    d->n_groups = p->now->n_groups;
    d->match = p->now->match;
    d->before = p->now->before;
    if (d->n) memcpy(d->nodes, p->now->nodes, d->n * sizeof *d->nodes);
    if (d->n) memcpy(d->groups, p->now->groups, d->n * sizeof *d->groups);
    by_strmap_release(&p->states);
    by_strmap_init(&p->states);
    by_arena_clear(&p->arena);
    p->n_states = 0;
    p->now = keep_state(p);
}

/* What looks ahead, now that the next character (NULL: the end) is known: the group whose match ends here, or NONE. The
 * draft gets all nodes that wait for the character. */
static uint32_t look_ahead(struct by_pattern *p, const struct state *s, const struct class *next) {
    struct draft *d = &p->draft;
    begin_draft(p, s->before);
    for (uint32_t i = 0; i < s->n && d->match == NONE; i++) {
        const struct by_pattern_node *n = &p->code.nodes[s->nodes[i]];
        uint32_t from = d->n;
        d->n_groups = s->groups[i];
        if (n->op == BY_PATTERN_SET) follow(p, s->nodes[i]);
        if (n->op == BY_PATTERN_ASSERT && holds(n->arg, s->before, next)) follow(p, n->a);
        for (uint32_t k = from; k < d->n; k++) { /* assertions behind assertions */
            const struct by_pattern_node *more = &p->code.nodes[d->nodes[k]];
            if (more->op == BY_PATTERN_ASSERT && holds(more->arg, s->before, next))
                follow(p, more->a);
        }
    }
    return d->match;
}

static enum before before_of(const struct class *k) {
    return k->is_line_end ? LINE_END : k->is_word ? WORD : OTHER;
}

static bool has_assertion(const struct by_pattern *p, const struct state *s) {
    for (uint32_t i = 0; i < s->n; i++) {
        if (p->code.nodes[s->nodes[i]].op == BY_PATTERN_ASSERT) return true;
    }
    return false;
}

static struct move *make_move(struct by_pattern *p, uint32_t class) {
    const struct state *s = p->now;
    const struct class *k = &p->classes[class];
    struct draft *d = &p->draft;
    struct move m = {.match_before = NONE};
    uint32_t n = s->n;
    uint32_t *waiting = by_alloc_array(BY_PATTERN_NODES_MAX, sizeof *waiting); /* group, node */
    for (uint32_t i = 0; i < n; i++)
        waiting[i] = (uint32_t)s->groups[i] << 16 | s->nodes[i];
    if (has_assertion(p, s)) {
        m.match_before = look_ahead(p, s, k);
        n = d->n;
        for (uint32_t i = 0; i < n; i++)
            waiting[i] = (uint32_t)d->groups[i] << 16 | d->nodes[i];
    }
    begin_draft(p, before_of(k));
    for (uint32_t i = 0; i < n; i++) {
        const struct by_pattern_node *node = &p->code.nodes[waiting[i] & 0xFFFF];
        if (node->op == BY_PATTERN_SET && (k->in[node->arg / 64] >> node->arg % 64 & 1))
            follow(p, node->a);
        bool is_last = i + 1 == n || waiting[i + 1] >> 16 != waiting[i] >> 16;
        if (is_last) end_group(d, waiting[i] >> 16);
    }
    begin_here(p);
    by_free(waiting);
    m.to = keep_state(p);
    m.n_groups = d->n_groups;
    struct by_str from = by_arena_copy(
        &p->arena, (struct by_str){(const char *)d->from, d->n_groups * sizeof *d->from});
    m.from = (const uint16_t *)(const void *)from.p;
    struct move *kept = by_arena_get(&p->arena, sizeof *kept);
    *kept = m;
    return kept;
}

/* ---- the search ---- */

/* A match that is still going on after so many bytes is given up: its nodes go. */
static void drop_longest(struct by_pattern *p) {
    while (p->now->n_groups && p->at - p->starts[0] > BY_PATTERN_MATCH_MAX) {
        const struct state *s = p->now;
        struct draft *d = &p->draft;
        begin_draft(p, s->before);
        for (uint32_t i = 0; i < s->n; i++) {
            if (s->groups[i] == 0) continue;
            d->nodes[d->n] = s->nodes[i];
            d->groups[d->n++] = (uint16_t)(s->groups[i] - 1);
        }
        d->n_groups = s->n_groups - 1;
        memmove(p->starts, p->starts + 1, d->n_groups * sizeof *p->starts);
        p->epoch++; /* a match may begin here as ever, if the one that went had taken its nodes */
        for (uint32_t i = 0; i < d->n; i++)
            p->mark[d->nodes[i]] = p->epoch;
        uint32_t n_groups = d->n_groups;
        begin_here(p);
        if (d->n_groups > n_groups) p->starts[n_groups] = p->at;
        p->now = keep_state(p);
    }
}

bool by_pattern_step(struct by_pattern *p, uint32_t cp, size_t len, uint64_t *start,
                     uint64_t *end) {
    uint32_t class = class_of(p, cp);
    struct move *m = p->now->moves[class];
    if (!m) {
        if (p->n_states >= STATES_MAX || p->arena.n_bytes > MEMORY_MAX) forget_states(p);
        m = make_move(p, class);
        p->now->moves[class] = m;
    }
    if (m->match_before != NONE) {
        *start = p->starts[m->match_before];
        *end = p->at;
        return true;
    }
    p->at += len;
    for (uint32_t i = 0; i < m->n_groups; i++)
        p->starts_next[i] = m->from[i] == NONE ? p->at : p->starts[m->from[i]];
    uint64_t *other = p->starts;
    p->starts = p->starts_next;
    p->starts_next = other;
    p->now = m->to;
    if (p->now->match != NONE) {
        *start = p->starts[p->now->match];
        *end = p->at;
        return true;
    }
    if (p->now->n_groups && p->at - p->starts[0] > BY_PATTERN_MATCH_MAX) drop_longest(p);
    return false;
}

bool by_pattern_finish(struct by_pattern *p, uint64_t *start, uint64_t *end) {
    uint32_t group = look_ahead(p, p->now, NULL);
    if (group == NONE) return false;
    *start = p->starts[group];
    *end = p->at;
    return true;
}

uint64_t by_pattern_n_held(const struct by_pattern *p) {
    return p->now->n_groups ? p->at - p->starts[0] : 0;
}

int by_pattern_new(struct by_pattern **out, struct by_str text, struct by_err *err) {
    struct by_pattern *p = by_alloc(sizeof *p);
    int rc = by_pattern_parse(&p->code, text, err);
    if (rc) {
        by_free(p->code.ranges);
        by_free(p);
        return rc;
    }
    size_t n = p->code.n_nodes + 2u; /* one group more than nodes, and one for the match */
    memset(p->ascii, -1, sizeof p->ascii);
    by_arena_init(&p->arena, 0);
    by_strmap_init(&p->states);
    by_buf_init(&p->key, 16 * n + 64);
    p->draft.nodes = by_alloc_array(n, sizeof(uint16_t));
    p->draft.groups = by_alloc_array(n, sizeof(uint16_t));
    p->draft.from = by_alloc_array(n, sizeof(uint16_t));
    p->starts = by_alloc_array(n, sizeof(uint64_t));
    p->starts_next = by_alloc_array(n, sizeof(uint64_t));
    p->stack = by_alloc_array(2 * n + 2, sizeof(uint16_t));
    p->mark = by_alloc_array(n, sizeof(uint32_t));
    begin_draft(p, BEGINNING);
    begin_here(p);
    p->now = keep_state(p);
    *out = p;
    return 0;
}

void by_pattern_free(struct by_pattern *p) {
    if (!p) return;
    by_free(p->mark);
    by_free(p->stack);
    by_free(p->starts_next);
    by_free(p->starts);
    by_free(p->draft.from);
    by_free(p->draft.groups);
    by_free(p->draft.nodes);
    by_buf_release(&p->key);
    by_strmap_release(&p->states);
    by_arena_release(&p->arena);
    by_free(p->code.ranges);
    by_free(p);
}
