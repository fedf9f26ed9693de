#include "scheduler/states.h"

#include "common/base/check.h"
#include "common/base/list.h"
#include "common/base/mem.h"

struct state {
    struct states_run *run; /* NULL: not filed */
    struct state *next;     /* nearer to the run's beginning */
    uint32_t end;
    bool is_free, is_chat, is_used;
    uint64_t stamp;
    struct by_list link; /* in by_use[is_chat] while filed */
};

struct states {
    uint32_t n, n_free, n_filed, n_chat;
    uint32_t *stack;          /* [n_free] the next one to hand out last */
    struct by_list by_use[2]; /* the one that was not used for longest first; [1]: of chats */
    uint64_t stamp;
    struct state state[]; /* [n] */
};

/* More would leave a new chat's first states no time to be used. */
enum { CHAT_SHARE = 4 };

struct states *states_new(uint32_t n) {
    struct states *st = by_alloc(sizeof *st + n * sizeof *st->state);
    st->n = st->n_free = n;
    st->stack = by_alloc_array(n, sizeof *st->stack);
    by_list_init(&st->by_use[0]);
    by_list_init(&st->by_use[1]);
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

static void order(struct states *st, struct state *s, bool is_chat) {
    s->is_chat = is_chat;
    st->n_chat += is_chat;
    by_list_push(&st->by_use[is_chat], &s->link);
}

static void unorder(struct states *st, struct state *s) {
    st->n_chat -= s->is_chat;
    s->is_chat = false;
    by_list_remove(&s->link);
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
    unorder(st, s);
    st->n_filed--;
}

uint32_t states_take(struct states *st) {
    if (st->n_free > 0) {
        uint32_t number = st->stack[--st->n_free];
        st->state[number].is_free = false;
        return number;
    }
    struct by_list *oldest = by_list_first(&st->by_use[0]);
    if (!oldest) oldest = by_list_first(&st->by_use[1]);
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

uint64_t states_use(struct states *st, uint32_t number) {
    struct state *s = state_at(st, number);
    by_assert(s->run);
    bool is_chat = s->is_chat, is_used = s->is_used;
    unorder(st, s);
    order(st, s, is_chat);
    s->is_used = true;
    s->stamp = ++st->stamp;
    return is_used ? 0 : s->stamp;
}

void states_pass_on(struct states *st, uint32_t number) {
    struct state *s = state_at(st, number);
    by_assert(s->run);
    unorder(st, s);
    by_list_insert_after(&st->by_use[0], &s->link);
}

/* The chats' oldest are as all others from now on, the most recently used of them. */
static void keep_the_share(struct states *st) {
    while (st->n_chat > st->n / CHAT_SHARE) {
        struct state *s = BY_CONTAINER_OF(by_list_first(&st->by_use[1]), struct state, link);
        unorder(st, s);
        order(st, s, false);
    }
}

void states_file(struct states *st, uint32_t number, struct states_run *run, uint32_t end,
                 bool is_chat) {
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
    s->is_used = false;
    s->stamp = ++st->stamp;
    order(st, s, is_chat);
    st->n_filed++;
    keep_the_share(st);
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
    uint32_t n_free = 0, n_filed = 0, n_used[2] = {0};
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
    for (uint32_t chat = 0; chat < 2; chat++) {
        for (BY_LIST_EACH(it, &st->by_use[chat])) {
            if (BY_CONTAINER_OF(it, struct state, link)->is_chat != (chat == 1)) return false;
            n_used[chat]++;
        }
    }
    return n_free == st->n_free && n_filed == st->n_filed && n_used[0] + n_used[1] == n_filed &&
           n_used[1] == st->n_chat && st->n_chat <= st->n / CHAT_SHARE;
}

bool states_run_check(const struct states_run *run, uint32_t n_pages, uint32_t *n) {
    uint32_t end = n_pages + 1;
    for (const struct state *s = run->first; s; s = s->next, ++*n) {
        if (s->run != run || s->end == 0 || s->end >= end) return false;
        end = s->end;
    }
    return true;
}
