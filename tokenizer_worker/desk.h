/* desk.h - where requests go while routers and the scheduler come and leave.
 *
 *     generate ─▶ scheduler here: worker.h ─▶ tokenized to it, or failed back to the router
 *                 not here: held, up to DESK_HELD_MAX, until it comes or the router leaves
 *
 *     a large text: put aside, and read when nothing smaller is there (desk_later), one at a time: the small ones of
 *                   others wait for one large text at most, and never for a queue of them
 *
 *     a request that others were lost with (n_lost): its router is asked, one at a time, and it is read when the answer is
 *                   there: so the router knows of which one this process dies. All others are put aside meanwhile
 *
 *     scheduler lost ─▶ every router's session ends: what was on its way is lost, nobody here can tell what, and the
 *                       routers know; in their next session they send again what they miss
 *
 * Pure: no socket, no clock; the simulator runs it as it is (tests/sim).
 * Always: nothing is held while the scheduler is here; what is held or put aside belongs to a router that is here.
 * Owner: main.c, one thread. */
#ifndef TOKENIZER_WORKER_DESK_H
#define TOKENIZER_WORKER_DESK_H

#include "common/base/list.h"
#include "proto/msg.h"

struct held;
enum {
    DESK_HELD_MAX = 4096,               /* the router's queue limit comes before */
    DESK_LARGE_BYTES = 1024 * 1024,     /* that many take 50 ms and more */
    DESK_BYTES_MAX = 256 * 1024 * 1024, /* of texts that wait: a new one over it is refused */
};

/* A router is whatever the caller says: a pointer that stays the same for a session. Messages are borrowed. */
struct desk_options {
    /* tokenized or failed, valid until the next call */
    void (*generate)(void *ctx, const struct msg_generate *m, struct msg *out);
    void (*answer)(void *ctx, const struct msg_text_ask *m, struct msg *out); /* likewise */
    void (*to_router)(void *ctx, void *router, const struct msg *m);
    void (*to_scheduler)(void *ctx, const struct msg *m);
    void (*end_router)(void *ctx, void *router, const char *why); /* desk_router_down may follow */
    void *ctx;
};

struct desk {
    struct desk_options o;
    void *routers[LIMIT_PEERS];
    uint32_t n_routers;
    struct by_list held, aside, suspects; /* in order of arrival */
    struct held *asked;                   /* the suspect whose router has been asked */
    uint32_t n_held;
    size_t n_bytes; /* of all */
    bool has_scheduler;
};

void desk_init(struct desk *d, const struct desk_options *o);
void desk_release(struct desk *d);
void desk_router_up(struct desk *d, void *router);
void desk_router_down(struct desk *d, void *router);
void desk_scheduler_up(struct desk *d);
void desk_scheduler_down(struct desk *d);
void desk_generate(struct desk *d, void *router, const struct msg_generate *m);
/* The router's answer about a suspect. */
void desk_reading(struct desk *d, void *router, const struct msg_reading *m);
void desk_ask(struct desk *d, void *router, const struct msg_text_ask *m);
bool desk_later(struct desk *d); /* reads one large text; true: there are more */
bool desk_has_more(const struct desk *d);
bool desk_check(const struct desk *d);

#endif
