/* trace_context.h - W3C Trace Context: whose request this is a part of.
 *
 *     in    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
 *     out   traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-<a new one>-01         in the answer's head and in the request log
 *
 * Always: what is not exactly in that form is as if it had not come; nothing of it is repeated to anybody.
 * Owner: the connection, for one request. */
#ifndef ROUTER_TRACE_CONTEXT_H
#define ROUTER_TRACE_CONTEXT_H

#include "common/base/str.h"

struct trace_context {
    char text[56]; /* "": none came */
};

/* Our place in the trace that `header` tells of. */
void trace_context_follow(struct by_str header, struct trace_context *out);

#endif
