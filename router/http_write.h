/* http_write.h - response heads and chunks, as bytes.
 *
 *     HTTP/1.1 200 OK CRLF  headers CRLF  CRLF  body                2a CRLF … CRLF … 0 CRLF CRLF
 *
 * Always: of what a client says a head has ids that were checked (request_id.h, trace_context.h) and an origin that is in our list:
 * nothing of it can end a head.
 * Owner: nobody; writes into the caller's buffer. */
#ifndef ROUTER_HTTP_WRITE_H
#define ROUTER_HTTP_WRITE_H

#include "router/request_id.h"

const char *
http_status_text(int status); /* "Not Found"; "Unknown" for one that is not in the table */

struct http_head {
    int status;
    int64_t now_s;            /* since 1970; 0: no date is told */
    const char *content_type; /* NULL: none */
    bool is_stream;           /* chunked body of unknown length (HTTP/1.0: until close) */
    size_t content_length;    /* when not a stream */
    bool keep_alive;
    bool is_http10;
    const char *trace;           /* value of traceparent; NULL or "": none */
    const struct request_id *id; /* NULL: none */
    struct by_str path;          /* that was asked for: where the id's name depends on it */
    const char *origins;         /* --allowed-origins; NULL: none */
    struct by_str origin;        /* where the page lies that asks */
    const char *extra;           /* further header lines, each ended by CRLF; NULL: none */
};
void http_write_head(struct by_buf *out, const struct http_head *h);
/* One chunk of a chunked body; http_write_last_chunk ends it. */
void http_write_chunk(struct by_buf *out, struct by_str bytes);
void http_write_last_chunk(struct by_buf *out);

/* A stream of events: says UTF-8, as OpenAI does: without it requests and others read text/… as Latin-1. */
#define SSE_TYPE "text/event-stream; charset=utf-8"

#endif
