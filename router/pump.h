/* pump.h - a wire on a libuv loop: its fds and its next due time.
 *
 * Always: every edge of the fds leads to a wire_pump; the timer is off when the wire wants none, so an idle router sleeps.
 * Owner: the loop's thread; pump_close frees the pump later, when libuv has let go of it. */
#ifndef ROUTER_PUMP_H
#define ROUTER_PUMP_H

#include "proto/wire.h"

#include <uv.h>

struct pump;
/* after(ctx): called when a pumping has taken what came. */
struct pump *pump_new(uv_loop_t *loop, struct wire *w, void (*after)(void *ctx), void *ctx);
void pump_close(struct pump *p); /* closes the wire too; not from within one of its handlers */

#endif
