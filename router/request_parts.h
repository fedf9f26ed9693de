/* request_parts.h - between request.c, which brings a request to its start, and request_answer.c, which answers it.
 *
 *     request_new … request_start ─outlet_set_owner(on_gone, on_drained)─▶ request_answer.c: news, the end, an abort
 *
 * Always: on_gone ends the request; on_drained may.
 * Owner: request.c; nobody else includes this. */
#ifndef ROUTER_REQUEST_PARTS_H
#define ROUTER_REQUEST_PARTS_H

#include "router/request.h"

/* request.c: in the dialect's form and words. */
void request_answer_error(struct request *q, int code, const char *text, uint32_t retry_after_ms);

/* request_answer.c: the client has left; it has read what waited. owner: the request. */
void request_on_gone(void *owner);
void request_on_drained(void *owner);

#endif
