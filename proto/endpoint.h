/* endpoint.h - where a process listens and whom it calls: sockets in the run directory, or tcp:// between hosts.
 *
 *     scheduler    ipc://RUN_DIR/scheduler.sock          or --scheduler-endpoint (the scheduler listens there, all others call it)
 *     mine         ipc://RUN_DIR/KIND-INSTANCE.sock      or --bind (tokenizer workers and detokenizers, for routers)
 *     advertised   mine                                  or --advertise: what routers are told
 *
 * Always: an endpoint fits into what hello and libzmq take; what is missing or too long is an error with the option's name.
 * Owner: the caller. */
#ifndef PROTO_ENDPOINT_H
#define PROTO_ENDPOINT_H

#include "common/base/err.h"
#include "common/base/options.h"

/* Names of sockets in the run directory; the second is of a kind and an instance. */
#define ENDPOINT_SCHEDULER_SOCKET "scheduler.sock"
#define ENDPOINT_OWN_SOCKET "%s-%s.sock"

enum { ENDPOINT_MAX = 256 };

struct endpoint {
    char scheduler[ENDPOINT_MAX];
    char mine[ENDPOINT_MAX]; /* "" for a process that only calls */
};

/* kind: "tokenizer" or "detokenizer"; NULL: this process listens for nobody. */
BY_MUST_USE int endpoint_read(struct endpoint *out, const struct by_options *o, const char *kind,
                              struct by_err *err);
/* What routers shall call, given where we listen now (a port 0 is resolved). */
const char *endpoint_advertised(const struct by_options *o, const char *bound);

#endif
