#include "proto/between.h"

#include "common/base/proc.h"
#include "proto/endpoint.h"

static int admit_router(void *ctx, const struct msg_hello *hello, struct by_err *err) {
    const struct between *b = ctx;
    if (hello->role == ROLE_ROUTER) return 0;
    return by_fail(err, BY_EINVAL, "a %s talks to routers, not to a %s", role_text(b->role),
                   role_text(hello->role));
}

int between_open(struct between *out, const struct between_options *b, const struct by_options *o,
                 struct by_err *err) {
    struct endpoint at;
    *out = (struct between){.role = b->role};
    int rc = endpoint_read(&at, o, b->kind, err);
    if (rc) return rc;
    struct wire_options w = {.endpoint = at.mine,
                             .key_file = o->curve_key_file,
                             .is_bind = true,
                             .role = b->role,
                             .instance = o->instance,
                             .epoch = by_proc_epoch(),
                             .admit = admit_router,
                             .up = b->routers.up,
                             .msg = b->routers.msg,
                             .down = b->routers.down,
                             .ctx = out};
    rc = wire_open(&out->to_routers, &w, err);
    if (rc) return rc;
    w.my_endpoint = endpoint_advertised(o, wire_endpoint(out->to_routers));
    w.endpoint = at.scheduler;
    w.is_bind = false;
    w.expect = ROLE_SCHEDULER;
    w.admit = NULL;
    w.up = b->scheduler.up;
    w.msg = b->scheduler.msg;
    w.down = b->scheduler.down;
    rc = wire_open(&out->to_scheduler, &w, err);
    if (rc) {
        between_close(out);
        return rc;
    }
    wire_attach(out->to_routers, b->loop);
    wire_attach(out->to_scheduler, b->loop);
    return 0;
}

void between_close(struct between *b) {
    wire_close(b->to_scheduler);
    wire_close(b->to_routers);
    *b = (struct between){0};
}

void between_tell_scheduler(const struct between *b, const struct msg *m) {
    struct wire_peer *scheduler = wire_peer_only(b->to_scheduler);
    if (scheduler) wire_send(scheduler, m);
}
