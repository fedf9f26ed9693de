#include "tokenizer_worker/desk.h"

#include "common/base/arena.h"
#include "common/base/mem.h"

struct held {
    struct by_list node;
    struct by_arena arena;
    struct msg_generate request;
    struct msg_text_ask ask;
    size_t n_bytes;
    bool is_held, is_ask;
    void *router;
};

void desk_init(struct desk *d, const struct desk_options *o) {
    *d = (struct desk){.o = *o};
    by_list_init(&d->held);
    by_list_init(&d->aside);
    by_list_init(&d->suspects);
}

static void drop(struct desk *d, struct held *h) {
    by_list_remove(&h->node);
    if (d->asked == h) d->asked = NULL;
    d->n_held -= h->is_held;
    d->n_bytes -= h->n_bytes;
    by_arena_release(&h->arena);
    by_free(h);
}

static void drop_all_of(struct desk *d, struct by_list *list, const void *router) {
    for (BY_LIST_EACH_SAFE(node, next, list)) {
        struct held *h = BY_CONTAINER_OF(node, struct held, node);
        if (!router || h->router == router) drop(d, h);
    }
}

void desk_release(struct desk *d) {
    drop_all_of(d, &d->held, NULL);
    drop_all_of(d, &d->aside, NULL);
    drop_all_of(d, &d->suspects, NULL);
    *d = (struct desk){0};
}

/* ---- suspects: what others were lost with ---- */

static void say_reading(struct desk *d, void *router, const struct msg_name *name, bool is_done) {
    struct msg out = {.kind = MSG_reading, .reading = {.name = *name, .is_done = is_done}};
    d->o.to_router(d->o.ctx, router, &out);
}

static void ask_next(struct desk *d) {
    struct by_list *node = by_list_first(&d->suspects);
    if (d->asked || !node) return;
    d->asked = BY_CONTAINER_OF(node, struct held, node);
    say_reading(d, d->asked->router, &d->asked->request.name, false);
}

/* ---- routers ---- */

void desk_router_up(struct desk *d, void *router) {
    by_assert(d->n_routers < LIMIT_PEERS); /* wire.c refuses more */
    d->routers[d->n_routers++] = router;
}

void desk_router_down(struct desk *d, void *router) {
    for (uint32_t i = 0; i < d->n_routers; i++) {
        if (d->routers[i] != router) continue;
        d->routers[i] = d->routers[--d->n_routers];
        break;
    }
    drop_all_of(d, &d->held, router);
    drop_all_of(d, &d->aside, router);
    drop_all_of(d, &d->suspects, router);
    ask_next(d);
}

static void refuse(struct desk *d, void *router, const struct msg_generate *m, int code,
                   struct by_str why) {
    struct msg out = {.kind = MSG_failed, .failed = {.name = m->name, .code = code, .text = why}};
    d->o.to_router(d->o.ctx, router, &out);
}

/* In memory of ours until its turn comes. */
static struct held *keep(struct desk *d, struct by_list *list, void *router, size_t n_bytes) {
    struct held *h = by_alloc(sizeof *h);
    by_arena_init(&h->arena, 0);
    h->router = router;
    h->n_bytes = n_bytes;
    h->is_held = list == &d->held;
    by_list_push(list, &h->node);
    d->n_held += h->is_held;
    d->n_bytes += n_bytes;
    return h;
}

static bool has_room(const struct desk *d, size_t n) {
    return n <= DESK_BYTES_MAX && d->n_bytes <= DESK_BYTES_MAX - n;
}

static struct by_str why_no_room(void) {
    return BY_STR("as much text waits for the tokenizer worker as may; try again");
}

static void generate(struct desk *d, void *router, const struct msg_generate *m) {
    struct msg out;
    d->o.generate(d->o.ctx, m, &out);
    if (out.kind == MSG_failed)
        d->o.to_router(d->o.ctx, router, &out);
    else
        d->o.to_scheduler(d->o.ctx, &out);
}

void desk_generate(struct desk *d, void *router, const struct msg_generate *m) {
    size_t n = m->text.n + m->chat.n + m->pair.n + m->ids.n * sizeof(uint32_t);
    bool waits = !d->has_scheduler, is_replay = m->resume.n > 0, is_suspect = m->n_lost > 0;
    if (!waits && !is_suspect && !d->asked && n < DESK_LARGE_BYTES) {
        generate(d, router, m);
    } else if (waits && d->n_held >= DESK_HELD_MAX) {
        refuse(d, router, m, BY_EUNAVAILABLE, BY_STR("the scheduler is not connected"));
    } else if (!has_room(d, n) && !is_replay) { /* what was accepted stays accepted */
        refuse(d, router, m, BY_EFULL, why_no_room());
    } else {
        struct by_list *list = waits ? &d->held : is_suspect ? &d->suspects : &d->aside;
        struct held *h = keep(d, list, router, n);
        msg_generate_copy(&h->arena, m, &h->request);
    }
    ask_next(d);
}

void desk_reading(struct desk *d, void *router, const struct msg_reading *m) {
    struct held *h = d->asked;
    if (!h || h->router != router || h->request.name.rid != m->name.rid) return;
    if (!m->is_done) {
        generate(d, router, &h->request);
        say_reading(d, router, &m->name, true);
    }
    drop(d, h);
    ask_next(d);
}

static void answer(struct desk *d, void *router, const struct msg_text_ask *m) {
    struct msg out;
    d->o.answer(d->o.ctx, m, &out);
    d->o.to_router(d->o.ctx, router, &out);
}

void desk_ask(struct desk *d, void *router, const struct msg_text_ask *m) {
    if (m->json.n < DESK_LARGE_BYTES) {
        answer(d, router, m);
    } else if (!has_room(d, m->json.n)) {
        struct msg out = {.kind = MSG_text_answer,
                          .text_answer = {.id = m->id, .code = BY_EFULL, .error = why_no_room()}};
        d->o.to_router(d->o.ctx, router, &out);
    } else {
        struct held *h = keep(d, &d->aside, router, m->json.n);
        msg_text_ask_copy(&h->arena, m, &h->ask);
        h->is_ask = true;
    }
}

bool desk_later(struct desk *d) {
    if (!desk_has_more(d)) return false;
    struct held *h = BY_CONTAINER_OF(by_list_first(&d->aside), struct held, node);
    if (h->is_ask)
        answer(d, h->router, &h->ask);
    else
        generate(d, h->router, &h->request);
    drop(d, h);
    return desk_has_more(d);
}

bool desk_has_more(const struct desk *d) {
    return !d->asked && !by_list_empty(&d->aside);
}

void desk_scheduler_up(struct desk *d) {
    d->has_scheduler = true;
    for (BY_LIST_EACH_SAFE(node, next, &d->held)) {
        struct held *h = BY_CONTAINER_OF(node, struct held, node);
        d->n_bytes -= h->n_bytes; /* its room is its own */
        h->n_bytes = 0;
        desk_generate(d, h->router, &h->request);
        drop(d, h);
    }
}

void desk_scheduler_down(struct desk *d) {
    d->has_scheduler = false;
    for (uint32_t i = d->n_routers; i > 0;
         i--) /* from the end: the call may take it off the list */
        d->o.end_router(d->o.ctx, d->routers[i - 1],
                        "the scheduler is gone; send again what it had");
}

static bool is_here(const struct desk *d, const void *router) {
    for (uint32_t i = 0; i < d->n_routers; i++) {
        if (d->routers[i] == router) return true;
    }
    return false;
}

bool desk_check(const struct desk *d) {
    uint32_t n = 0;
    size_t n_bytes = 0;
    const struct by_list *lists[] = {&d->held, &d->aside, &d->suspects};
    for (size_t i = 0; i < BY_COUNTOF(lists); i++) {
        for (BY_LIST_EACH(node, lists[i])) {
            const struct held *h = BY_CONTAINER_OF(node, struct held, node);
            if (!is_here(d, h->router)) return false;
            n += h->is_held;
            n_bytes += h->n_bytes;
        }
    }
    if ((d->asked != NULL) != !by_list_empty(&d->suspects)) return false;
    return n == d->n_held && n <= DESK_HELD_MAX && (n == 0 || !d->has_scheduler) &&
           n_bytes == d->n_bytes;
}
