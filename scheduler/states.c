#include "scheduler/states.h"

#include "common/base/check.h"
#include "common/base/list.h"
#include "common/base/mem.h"

struct state {
    struct states_run *run; /* NULL: not filed */
    struct state *next;     /* nearer to the run's beginning */
    uint32_t end;
    bool is_free;
    uint64_t stamp;
    struct by_list link; /* in by_use while filed */
};

struct states {
    uint32_t n, n_free, n_filed;
    uint32_t *stack;       /* [n_free] the next one to hand out last */
    struct by_list by_use; /* the one that was not used for longest first */
    uint64_t stamp;
    struct state state[]; /* [n] */
};

struct states *states_new(uint32_t n) {
    struct states *st = by_alloc(sizeof *st + n * sizeof *st->state);
    st->n = st->n_free = n;
    st->stack = by_alloc_array(n, sizeof *st->stack);
    by_list_init(&st->by_use);
    for (uint32_t i = 0; i < n; i++) {
        st->stack[i] = n - 1 - i;
        st->state[i].is_free = true;
    }
    return st;
}

void states_free(struct states *st) {
    if (!st) return;
    by_free(st->stack);
    by_free(st);
}

static struct state *state_at(struct states *st, uint32_t number) {
    by_assert(number < st->n);
    return &st->state[number];
}

static uint32_t number_of(const struct states *st, const struct state *s) {
    return (uint32_t)(s - st->state);
}

/* Out of its run and of the order of use; the number is its caller's. */
static void unfile(struct states *st, struct state *s) {
    struct state **at = &s->run->first;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    s->run = NULL;
    s->next = NULL;
    s->stamp = 0;
    by_list_remove(&s->link);
    st->n_filed--;
}

uint32_t states_take(struct states *st) {
    if (st->n_free > 0) {
        uint32_t number = st->stack[--st->n_free];
        st->state[number].is_free = false;
        return number;
    }
    struct by_list *oldest = by_list_first(&st->by_use);
    if (!oldest) return STATES_NONE;
    struct state *s = BY_CONTAINER_OF(oldest, struct state, link);
    unfile(st, s);
    return number_of(st, s);
}

void states_give(struct states *st, uint32_t number) {
    struct state *s = state_at(st, number);
    by_assert(!s->is_free);
    by_assert(!s->run);
    s->is_free = true;
    st->stack[st->n_free++] = number;
}

void states_drop(struct states *st, uint32_t number) {
    unfile(st, state_at(st, number));
    states_give(st, number);
}

void states_use(struct states *st, uint32_t number) {
    struct state *s = state_at(st, number);
    by_assert(s->run);
    s->stamp = ++st->stamp;
    by_list_remove(&s->link);
    by_list_push(&st->by_use, &s->link);
}

void states_file(struct states *st, uint32_t number, struct states_run *run, uint32_t end) {
    struct state *s = state_at(st, number), **at = &run->first;
    by_assert(!s->is_free);
    by_assert(!s->run);
    while (*at && (*at)->end > end)
        at = &(*at)->next;
    if (*at && (*at)->end == end) {
        states_use(st, number_of(st, *at));
        states_give(st, number);
        return;
    }
    s->run = run;
    s->end = end;
    s->next = *at;
    *at = s;
    s->stamp = ++st->stamp;
    by_list_push(&st->by_use, &s->link);
    st->n_filed++;
}

uint64_t states_stamp(const struct states *st, uint32_t number) {
    return number < st->n ? st->state[number].stamp : 0;
}

static const struct state *last_within(const struct states_run *run, uint32_t n_pages) {
    const struct state *s = run->first;
    while (s && s->end > n_pages)
        s = s->next;
    return s;
}

uint32_t states_end(const struct states_run *run, uint32_t n_pages) {
    const struct state *s = last_within(run, n_pages);
    return s ? s->end : 0;
}

uint32_t states_behind(const struct states *st, const struct states_run *run, uint32_t end) {
    const struct state *s = last_within(run, end);
    return s && s->end == end ? number_of(st, s) : (uint32_t)STATES_NONE;
}

void states_cut(struct states *st, struct states_run *run, uint32_t n_pages) {
    while (run->first && run->first->end > n_pages)
        states_drop(st, number_of(st, run->first));
}

void states_split(struct states_run *low, struct states_run *up, uint32_t k) {
    struct state **at = &low->first;
    by_assert(!up->first);
    for (; *at && (*at)->end > k; at = &(*at)->next)
        (*at)->end -= k;
    up->first = *at;
    *at = NULL;
    for (struct state *s = up->first; s; s = s->next)
        s->run = up;
}

uint32_t states_n(const struct states *st) {
    return st->n;
}

uint32_t states_n_filed(const struct states *st) {
    return st->n_filed;
}

uint32_t states_n_taken(const struct states *st) {
    return st->n - st->n_free - st->n_filed;
}

bool states_check(const struct states *st) {
    uint32_t n_free = 0, n_filed = 0, n_used = 0;
    uint64_t stamp = 0;
    for (uint32_t i = 0; i < st->n; i++) {
        const struct state *s = &st->state[i];
        n_free += s->is_free;
        n_filed += s->run != NULL;
        if ((s->is_free && s->run) || by_list_linked(&s->link) != (s->run != NULL)) return false;
        if ((s->stamp != 0) != (s->run != NULL)) return false;
    }
    for (uint32_t i = 0; i < st->n_free && i < st->n; i++) {
        if (st->stack[i] >= st->n || !st->state[st->stack[i]].is_free) return false;
    }
    for (BY_LIST_EACH(it, &st->by_use)) {
        const struct state *s = BY_CONTAINER_OF(it, struct state, link);
        if (s->stamp <= stamp) return false;
        stamp = s->stamp;
        n_used++;
    }
    return n_free == st->n_free && n_filed == st->n_filed && n_used == n_filed;
}

bool states_run_check(const struct states_run *run, uint32_t n_pages, uint32_t *n) {
    uint32_t end = n_pages + 1;
    for (const struct state *s = run->first; s; s = s->next, ++*n) {
        if (s->run != run || s->end == 0 || s->end >= end) return false;
        end = s->end;
    }
    return true;
}
