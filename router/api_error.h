/* api_error.h - an error as a client is told it: status, body, when to try again, each dialect in its own form.
 *
 *     {"error": {"message": "top_p: …", "type": "invalid_request_error", "param": "top_p", "code": 400}}      OpenAI's
 *
 * The parameter is what stands before the first colon of the text, if that is a name.
 * Always: the status is the code's in errors.def; 429 and 503 say when to try again.
 * Owner: nobody; the connection or request that is answered is the caller's. */
#ifndef ROUTER_API_ERROR_H
#define ROUTER_API_ERROR_H

#include "common/base/buf.h"
#include "router/outlet.h"

/* Appends the body of an error. */
typedef void api_error_writer(struct by_buf *out, int code, const char *text);
api_error_writer api_error_write;       /* OpenAI's */
api_error_writer api_error_write_event; /* the same as the last event of a stream, and its end */

/* Answers by it. write: NULL is OpenAI's. retry_after_ms: 0 is a second, if the status has one to try again after. */
void api_error_send(struct outlet *to, api_error_writer *write, int code, const char *text,
                    uint32_t retry_after_ms);
void api_error(struct conn *c, int code, const char *text); /* OpenAI's, on the connection itself */

/* text, the field it begins with by the dialect's own name; in `room`, if it has one. names: {ours, theirs}, …, {NULL}; NULL:
 * all are called as here. */
const char *api_error_in_words(const char *const (*names)[2], const char *text,
                               struct by_buf *room);
/* What another process said went wrong, as a sentence: it comes bare or as {"error": …}. Yours to free. */
BY_MUST_USE char *api_error_text(int code, struct by_str said);

#endif
