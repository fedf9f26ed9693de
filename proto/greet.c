#include "proto/greet.h"

struct msg greet_hello(const struct wire_options *o, uint32_t attempt) {
    struct msg m = {.kind = MSG_hello,
                    .hello = {.version = WIRE_VERSION,
                              .build = by_str_of(BANYAN_VERSION),
                              .role = o->role,
                              .instance = by_str_of(o->instance),
                              .epoch = o->epoch,
                              .attempt = attempt,
                              .endpoint = by_str_of(o->my_endpoint)}};
    if (o->model) m.hello.model = *o->model;
    if (o->capacity) m.hello.capacity = *o->capacity;
    return m;
}

struct msg greet_welcome(const struct wire_options *o, uint32_t attempt) {
    return (struct msg){.kind = MSG_welcome,
                        .welcome = {.version = WIRE_VERSION,
                                    .build = by_str_of(BANYAN_VERSION),
                                    .role = o->role,
                                    .instance = by_str_of(o->instance),
                                    .epoch = o->epoch,
                                    .attempt = attempt}};
}

int greet_check_hello(const struct wire_options *o, const struct msg_hello *h, struct by_err *err) {
    const struct wire_peer *room = NULL;
    if (h->version != WIRE_VERSION) {
        return by_fail(
            err, BY_EVERSION,
            "this %s (Banyan %s) speaks wire version %d, that %s (Banyan %.*s) speaks %u: "
            "run the same Banyan everywhere",
            role_text(o->role), BANYAN_VERSION, WIRE_VERSION, role_text(h->role),
            (int)BY_MIN(h->build.n, (size_t)32), h->build.p, h->version);
    }
    if (!h->epoch || h->role < ROLE_ROUTER || h->role > ROLE_TOOL) {
        return by_fail(err, BY_EINVAL, "a hello without an epoch or of the unknown role %u",
                       h->role);
    }
    if (h->instance.n >= sizeof room->instance || h->endpoint.n >= sizeof room->endpoint)
        return by_fail(err, BY_ELIMIT, "an instance name or endpoint is too long");
    return o->admit ? o->admit(o->ctx, h, err) : 0;
}

int greet_check_welcome(const struct wire_options *o, const struct msg_welcome *m,
                        struct by_err *err) {
    if (m->refused.n) return by_fail(err, BY_EFORBIDDEN, BY_STR_FMT, BY_STR_ARG(m->refused));
    if (m->version != WIRE_VERSION) {
        return by_fail(
            err, BY_EVERSION,
            "this %s (Banyan %s) speaks wire version %d, %s at %s speaks %u: run the same Banyan "
            "everywhere",
            role_text(o->role), BANYAN_VERSION, WIRE_VERSION, role_text(m->role), o->endpoint,
            m->version);
    }
    if (o->expect && m->role != (uint32_t)o->expect) {
        return by_fail(err, BY_EINVAL, "%s is a %s, not a %s", o->endpoint, role_text(m->role),
                       role_text(o->expect));
    }
    return 0;
}
