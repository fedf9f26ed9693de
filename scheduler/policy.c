#include "scheduler/policy.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "scheduler/core_state.h"

enum { AGED_MS = 10000 };

static const char *const names[] = {
    [POLICY_FCFS] = "fcfs",
    [POLICY_FAIR] = "fair",
    [POLICY_PRIORITY] = "priority",
    [POLICY_LPM] = "lpm",
    [POLICY_DFS_WEIGHT] = "dfs-weight",
    [POLICY_LOF] = "lof",
    [POLICY_SHORTEST_PREFILL] = "shortest-prefill-first",
};

bool policy_parse(const char *name, enum policy_kind *out) {
    for (uint32_t i = 0; i < BY_COUNTOF(names); i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *out = (enum policy_kind)i;
        return true;
    }
    return false;
}

const char *policy_name(enum policy_kind kind) {
    return names[kind];
}

static bool came_before(const struct seq *a, const struct seq *b) {
    return a->req != b->req ? a->req->order < b->req->order : a->sample < b->sample;
}

static bool priority_before(const struct by_heap_node *x, const struct by_heap_node *y) {
    const struct seq *a = BY_CONTAINER_OF(x, struct seq, in_priority);
    const struct seq *b = BY_CONTAINER_OF(y, struct seq, in_priority);
    int32_t pa = a->req->routing.priority, pb = b->req->routing.priority;
    return pa != pb ? pa > pb : came_before(a, b);
}

void policy_init(struct policy *p, enum policy_kind kind) {
    p->kind = kind;
    by_heap_init(&p->by_priority, priority_before);
}

void policy_release(struct policy *p) {
    by_heap_release(&p->by_priority);
}

void policy_push(struct core *c, struct seq *s) {
    struct tenant *t = s->req->tenant;
    struct by_list *at = t->waiting.prev;
    /* A newcomer goes last; one that comes back is older than nearly all and looks from the front. */
    if (at != &t->waiting && came_before(s, BY_CONTAINER_OF(at, struct seq, in_tenant))) {
        at = &t->waiting;
        while (came_before(BY_CONTAINER_OF(at->next, struct seq, in_tenant), s))
            at = at->next;
    }
    by_list_insert_after(at, &s->in_tenant);
    tenants_wait(&c->tenants, t);
    if (c->policy.kind == POLICY_PRIORITY) by_heap_push(&c->policy.by_priority, &s->in_priority);
}

void policy_pull(struct core *c, struct seq *s) {
    struct policy *p = &c->policy;
    if (p->at == &s->in_tenant) p->at = s->in_tenant.next;
    by_list_remove(&s->in_tenant);
    tenants_unwait(&c->tenants, s->req->tenant);
    if (s->in_priority.index != BY_HEAP_OUT) by_heap_remove(&p->by_priority, &s->in_priority);
    if (p->at == &s->link) p->at = s->link.next;
    for (uint32_t i = 0; p->in_round && i < p->n_picks; i++) {
        if (p->pick[i].seq == s) p->pick[i].seq = NULL;
    }
}

/* ---- windows ---- */

static uint64_t key_of(const struct core *c, const struct replica *r, struct seq *s) {
    if (c->now_ns - s->req->arrived_ns > AGED_MS * BY_NS_PER_MS) return 0;
    if (c->policy.kind == POLICY_DFS_WEIGHT) return 1;
    if (c->policy.kind == POLICY_LOF) return 1 + (uint64_t)UINT32_MAX - (s->n_max - s->n_total);
    uint32_t n_hit = admit_n_cached(c, r, s);
    if (c->policy.kind == POLICY_LPM) return 1 + (uint64_t)UINT32_MAX - n_hit;
    return 1 + (uint64_t)(s->n_total - n_hit);
}

static bool pick_before(const struct core *c, const struct policy_pick *a,
                        const struct policy_pick *b) {
    if (c->policy.kind == POLICY_DFS_WEIGHT && a->key && b->key && a->node != b->node)
        return radix_weighs_before(a->node, b->node);
    return a->key != b->key ? a->key < b->key : came_before(a->seq, b->seq);
}

static void fill_window(struct core *c, struct replica *r) {
    struct policy *p = &c->policy;
    for (BY_LIST_EACH(it, &c->waiting)) {
        if (p->n_picks == POLICY_WINDOW) break;
        struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        struct radix_node *node = NULL;
        if (!hold_longest(r, s)) continue;
        if (p->kind == POLICY_DFS_WEIGHT) {
            (void)admit_n_cached(c, r, s); /* marks it */
            node = radix_find(c->tree, s->req->routing.extra_key, &s->mark, r->index);
            radix_weigh(node, p->round);
        }
        p->pick[p->n_picks++] =
            (struct policy_pick){.seq = s, .node = node, .key = key_of(c, r, s)};
    }
    for (uint32_t i = 1; i < p->n_picks; i++) { /* few and nearly sorted: insertion */
        struct policy_pick pick = p->pick[i];
        uint32_t k = i;
        for (; k > 0 && pick_before(c, &pick, &p->pick[k - 1]); k--)
            p->pick[k] = p->pick[k - 1];
        p->pick[k] = pick;
    }
}

/* ---- a round ---- */

void policy_begin(struct core *c, struct replica *r) {
    struct policy *p = &c->policy;
    by_assert(!p->in_round);
    p->in_round = true;
    p->round++;
    p->replica = r;
    p->n_asked = p->n_picks = p->i_pick = p->n_aside = 0;
    p->at = c->waiting.next;
    p->of = NULL;
    if (p->kind >= POLICY_LPM) fill_window(c, r);
}

/* From where the last call ended, if that was of the same tenant. */
static struct seq *next_of(struct policy *p, struct tenant *t) {
    enum { LOOKED_AT = 8 }; /* of one tenant: the others wait for a prefix that is being computed */
    if (p->of != t) {
        p->of = t;
        p->at = t->waiting.next;
        p->n_looked = 0;
    }
    while (p->at != &t->waiting && p->n_looked < LOOKED_AT) {
        struct seq *s = BY_CONTAINER_OF(p->at, struct seq, in_tenant);
        p->at = p->at->next;
        if (!hold_longest(p->replica, s)) continue;
        p->n_looked++;
        if (s->asked_round == p->round) continue;
        s->asked_round = p->round;
        return s;
    }
    return NULL;
}

static struct seq *next_fair(struct core *c) {
    struct policy *p = &c->policy;
    for (;;) {
        struct by_heap_node *first = by_heap_first(&c->tenants.heap);
        if (!first) break;
        struct tenant *t = BY_CONTAINER_OF(first, struct tenant, in_heap);
        struct seq *s = next_of(p, t);
        if (s) return s;
        if (p->n_aside == POLICY_ASKED_MAX) return NULL;
        by_heap_remove(&c->tenants.heap, first);
        p->aside[p->n_aside++] = t;
    }
    return NULL;
}

static struct seq *next_by_priority(struct policy *p) {
    while (p->n_picks < POLICY_WINDOW) {
        struct by_heap_node *first = by_heap_pop(&p->by_priority);
        if (!first) break;
        struct seq *s = BY_CONTAINER_OF(first, struct seq, in_priority);
        p->pick[p->n_picks++].seq = s;
        if (hold_longest(p->replica, s)) return s;
    }
    return NULL;
}

static struct seq *next_by_arrival(struct core *c) {
    struct policy *p = &c->policy;
    while (p->at != &c->waiting) {
        struct seq *s = BY_CONTAINER_OF(p->at, struct seq, link);
        p->at = p->at->next;
        if (hold_longest(p->replica, s)) return s;
    }
    return NULL;
}

static struct seq *next_in_window(struct policy *p) {
    while (p->i_pick < p->n_picks) {
        struct seq *s = p->pick[p->i_pick++].seq;
        if (s) return s;
    }
    return NULL;
}

struct seq *policy_next(struct core *c) {
    struct policy *p = &c->policy;
    by_assert(p->in_round);
    if (p->n_asked++ == POLICY_ASKED_MAX) return NULL;
    if (p->kind == POLICY_FAIR) return next_fair(c);
    if (p->kind == POLICY_PRIORITY) return next_by_priority(p);
    if (p->kind >= POLICY_LPM) return next_in_window(p);
    return next_by_arrival(c);
}

void policy_end(struct core *c) {
    struct policy *p = &c->policy;
    for (uint32_t i = 0; i < p->n_aside; i++) {
        struct tenant *t = p->aside[i];
        if (t->n_waiting && t->in_heap.index == BY_HEAP_OUT)
            by_heap_push(&c->tenants.heap, &t->in_heap);
    }
    for (uint32_t i = 0; p->kind == POLICY_PRIORITY && i < p->n_picks; i++) {
        struct seq *s = p->pick[i].seq;
        if (s && s->in_priority.index == BY_HEAP_OUT)
            by_heap_push(&p->by_priority, &s->in_priority);
    }
    p->in_round = false;
    p->at = NULL;
    p->n_picks = p->n_aside = 0;
}

/* ---- who goes before whom ---- */

static struct seq *first_waiting(struct core *c) {
    struct by_heap_node *first = NULL;
    if (c->policy.kind == POLICY_FAIR) {
        first = by_heap_first(&c->tenants.heap);
        if (!first) return NULL;
        struct tenant *t = BY_CONTAINER_OF(first, struct tenant, in_heap);
        return BY_CONTAINER_OF(by_list_first(&t->waiting), struct seq, in_tenant);
    }
    first = by_heap_first(&c->policy.by_priority);
    return first ? BY_CONTAINER_OF(first, struct seq, in_priority) : NULL;
}

/* Does the prompt of a go on before that of b? Strictly, by rank alone. */
static bool outranks(const struct core *c, const struct seq *a, const struct seq *b) {
    if (c->policy.kind == POLICY_PRIORITY) return a->urgency > b->urgency;
    if (c->policy.kind != POLICY_FAIR || a->req->tenant == b->req->tenant) return false;
    return tenant_before(a->req->tenant, b->req->tenant);
}

bool policy_is_ahead(struct core *c, struct replica *r) {
    struct seq *s = first_waiting(c);
    if (!s || by_list_empty(&r->prefill)) return false;
    for (BY_LIST_EACH(it, &r->prefill)) {
        if (!outranks(c, s, BY_CONTAINER_OF(it, struct seq, link))) return false;
    }
    return true;
}

struct seq *policy_next_prefill(struct core *c, struct replica *r, uint64_t round) {
    struct seq *best = NULL;
    for (BY_LIST_EACH(it, &r->prefill)) {
        struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        if (s->asked_round == round) continue;
        if (!best || outranks(c, s, best)) best = s;
    }
    if (best) best->asked_round = round;
    return best;
}

bool policy_gives_way(const struct core *c, const struct seq *a, const struct seq *b) {
    const struct tenant *ta = a->req->tenant, *tb = b->req->tenant;
    int32_t pa = a->req->routing.priority, pb = b->req->routing.priority;
    if (c->policy.kind == POLICY_PRIORITY && pa != pb) return pa < pb;
    if (c->policy.kind == POLICY_FAIR && ta != tb && ta->counter != tb->counter)
        return ta->counter > tb->counter;
    return came_before(b, a);
}

struct seq *policy_victim(struct core *c, struct replica *r, const struct seq *s) {
    struct seq *victim = NULL;
    struct by_list *lists[] = {&r->prefill, &r->decode};
    for (uint32_t i = 0; i < BY_COUNTOF(lists); i++) {
        for (BY_LIST_EACH(it, lists[i])) {
            struct seq *o = BY_CONTAINER_OF(it, struct seq, link);
            if (!victim || policy_gives_way(c, o, victim)) victim = o;
        }
    }
    if (!victim || victim->req == s->req) return NULL;
    if (c->policy.kind == POLICY_PRIORITY) {
        int64_t gap = (int64_t)s->req->routing.priority - victim->req->routing.priority;
        return gap > c->opt.preemption_gap ? victim : NULL;
    }
    if (c->policy.kind != POLICY_FAIR || victim->req->tenant == s->req->tenant) return NULL;
    double behind = victim->req->tenant->counter - s->req->tenant->counter;
    return behind > c->opt.chunked_prefill_size ? victim : NULL;
}
