/* request_id.h - what a request is called in its answer's head, for whoever looks for it in a log.
 *
 *     in    X-Request-Id: 7f3c…   the client's own word, or a proxy's  ─▶  out  X-Request-Id: 7f3c…   and in the request log
 *     in    nothing               ─▶  out  the id that stands in the answer's body and, as rid, in the request log
 *
 * Anthropic's clients look for it as Request-Id. What is answered without becoming a request (a path that is none, a page of
 * facts) has no id but its client's.
 * Always: 1 to 64 printable bytes without blanks; what is not is as if it had not come, so that nothing of it ends a head.
 * Owner: the connection, for one request. */
#ifndef ROUTER_REQUEST_ID_H
#define ROUTER_REQUEST_ID_H

#include "common/base/buf.h"
#include "common/base/str.h"

enum { REQUEST_ID_MAX = 64 };

struct request_id {
    char text[REQUEST_ID_MAX + 1]; /* "": none */
    bool is_theirs;
};

void request_id_take(struct by_str header, struct request_id *out); /* as it comes */
void request_id_name(struct request_id *id, const char *ours);      /* unless it is theirs */
/* The header line of an answer to `path`; nothing without an id. */
void request_id_write(const struct request_id *id, struct by_str path, struct by_buf *out);

#endif
