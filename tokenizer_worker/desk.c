#include "tokenizer_worker/desk.h"

#include "common/base/arena.h"
#include "common/base/mem.h"

struct held {
    struct by_list node;
    struct by_arena arena;
    struct msg_generate request;
    void *router;
};

void desk_init(struct desk *d, const struct desk_options *o) {
    *d = (struct desk){.o = *o};
    by_list_init(&d->held);
}

static void drop(struct desk *d, struct held *h) {
    by_list_remove(&h->node);
    d->n_held--;
    by_arena_release(&h->arena);
    by_free(h);
}

void desk_release(struct desk *d) {
    for (BY_LIST_EACH_SAFE(node, next, &d->held))
        drop(d, BY_CONTAINER_OF(node, struct held, node));
    *d = (struct desk){0};
}

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
    for (BY_LIST_EACH_SAFE(node, next, &d->held)) {
        struct held *h = BY_CONTAINER_OF(node, struct held, node);
        if (h->router == router) drop(d, h);
    }
}

static void refuse(struct desk *d, void *router, const struct msg_generate *m) {
    struct msg out = {.kind = MSG_failed,
                      .failed = {.name = m->name,
                                 .code = BY_EUNAVAILABLE,
                                 .text = BY_STR("the scheduler is not connected")}};
    d->o.to_router(d->o.ctx, router, &out);
}

static void hold(struct desk *d, void *router, const struct msg_generate *m) {
    struct held *h = by_alloc(sizeof *h);
    by_arena_init(&h->arena, 0);
    msg_generate_copy(&h->arena, m, &h->request);
    h->router = router;
    by_list_push(&d->held, &h->node);
    d->n_held++;
}

void desk_generate(struct desk *d, void *router, const struct msg_generate *m) {
    struct msg out;
    if (!d->has_scheduler) {
        if (d->n_held < DESK_HELD_MAX)
            hold(d, router, m);
        else
            refuse(d, router, m);
        return;
    }
    d->o.generate(d->o.ctx, m, &out);
    if (out.kind == MSG_failed)
        d->o.to_router(d->o.ctx, router, &out);
    else
        d->o.to_scheduler(d->o.ctx, &out);
}

void desk_scheduler_up(struct desk *d) {
    d->has_scheduler = true;
    for (BY_LIST_EACH_SAFE(node, next, &d->held)) {
        struct held *h = BY_CONTAINER_OF(node, struct held, node);
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

bool desk_check(const struct desk *d) {
    uint32_t n = 0;
    for (BY_LIST_EACH(node, &d->held)) {
        const struct held *h = BY_CONTAINER_OF(node, struct held, node);
        bool is_here = false;
        for (uint32_t i = 0; i < d->n_routers; i++)
            is_here |= d->routers[i] == h->router;
        if (!is_here) return false;
        n++;
    }
    return n == d->n_held && n <= DESK_HELD_MAX && (n == 0 || !d->has_scheduler);
}
