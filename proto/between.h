/* between.h - the two wires of a process that stands between routers and the scheduler: a tokenizer worker, a detokenizer.
 *
 *     router ──hello──▶ to_routers          to_scheduler ──hello, with the endpoint of to_routers──▶ scheduler ──peers──▶ router
 *
 * Always: nobody but a router is let in; the scheduler hears where the first wire is bound before any router can.
 * Owner: the process's shell, one thread. */
#ifndef PROTO_BETWEEN_H
#define PROTO_BETWEEN_H

#include "common/base/options.h"
#include "proto/wire.h"

struct between {
    enum role role; /* who I am */
    struct wire *to_routers, *to_scheduler;
};

/* As wire_options has them; ctx is the struct between. */
struct between_handlers {
    void (*up)(void *ctx, struct wire_peer *peer);
    void (*msg)(void *ctx, struct wire_peer *peer, const struct msg *m);
    void (*down)(void *ctx, struct wire_peer *peer, const char *why);
};

struct between_options {
    enum role role;
    const char *kind; /* of endpoint_read */
    struct between_handlers routers, scheduler;
    struct by_loop *loop; /* that pumps both */
};

/* Both or none. *out stays where it is while the wires live. */
BY_MUST_USE int between_open(struct between *out, const struct between_options *b,
                             const struct by_options *o, struct by_err *err);
void between_close(struct between *b); /* no handler is called */
/* To nobody while no scheduler is there: who comes up is told what it is owed. */
void between_tell_scheduler(const struct between *b, const struct msg *m);

#endif
