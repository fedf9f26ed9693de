/* outlet.h - where a request's answer goes: one connection, or a resumable answer that any number of them follow.
 *
 *     request ─▶ outlet ─┬─▶ conn            (conn.h: gone when the client leaves)
 *                        └─▶ resume_answer   (resume.h: gone when nobody came back for the grace)
 *
 * Always: the calls mean what conn_… of the same name means; after outlet_respond or outlet_stream_end the outlet is empty.
 * Owner: the request. */
#ifndef ROUTER_OUTLET_H
#define ROUTER_OUTLET_H

#include "router/resume.h"

struct outlet {
    struct conn *conn; /* of the client that asked; with an answer, it is one of the followers */
    struct resume_answer *answer; /* NULL: the connection alone */
};

void outlet_set_owner(struct outlet *o, void *owner, void (*gone)(void *owner),
                      void (*drained)(void *owner));
void outlet_respond(struct outlet *o, int status, const char *content_type, struct by_str body,
                    const char *extra);
void outlet_stream_begin(struct outlet *o, const char *content_type);
void outlet_stream_write(struct outlet *o, struct by_str bytes);
void outlet_stream_end(struct outlet *o, bool has_failed);
size_t outlet_n_pending(const struct outlet *o);

#endif
