/* http1.h - one HTTP/1.x request out of bytes as they come. The one door to http-parser, with a stricter gate before it.
 *
 *     bytes ─▶ gate: lines end in CRLF, no NUL, no folding ─▶ http-parser ─▶ struct http1_request
 *
 *     http1_feed ─▶ HTTP1_MORE … HTTP1_HEAD (once, when a body follows) … HTTP1_MORE … HTTP1_DONE
 *                                            any time: HTTP1_BAD (status and sentence in http1_request)
 *
 * The gate cuts the input into lines (head, chunk sizes, trailers) and data (bodies), so that what http-parser forgives
 * (bare LF, folded headers, odd Transfer-Encoding lists) is refused, and no byte behind a request is ever consumed.
 *
 * Always: n_bytes of head, headers, URL, body and chunk framing stay under the limits; the same bytes give the same
 * request, whatever pieces they come in. Slices of the request are borrowed until http1_clear.
 * Owner: the connection, one thread. */
#ifndef ROUTER_HTTP1_H
#define ROUTER_HTTP1_H

#include "common/base/str.h"

enum http1_result { HTTP1_MORE, HTTP1_HEAD, HTTP1_DONE, HTTP1_BAD };

enum http1_method {
    HTTP1_GET,
    HTTP1_HEAD_METHOD,
    HTTP1_POST,
    HTTP1_PUT,
    HTTP1_DELETE,
    HTTP1_OPTIONS,
    HTTP1_OTHER,
    HTTP1_N_METHODS
};

enum { HTTP1_N_HEADERS_MAX = 100, HTTP1_URL_BYTES_MAX = 8192, HTTP1_HEAD_BYTES_MAX = 32768 };

struct http1_limits {
    size_t body_bytes_max;
};

struct http1_header {
    struct by_str name, value; /* value without the blanks around it */
};

struct http1_request {
    enum http1_method method;
    /* percent-decoded, without empty, "." and ".." segments: routes and keys see only this */
    struct by_str path;
    struct by_str query; /* as sent, without the '?' */
    bool is_http10;
    bool keep_alive;      /* may another request follow on this connection? */
    bool wants_continue;  /* Expect: 100-continue */
    size_t body_expected; /* Content-Length; 0 when chunked or none */
    struct by_str body;
    const struct http1_header *headers;
    uint32_t n_headers;
    int bad_status;       /* with HTTP1_BAD: what to answer */
    const char *bad_text; /* one sentence; static */
    bool is_tls;          /* and they were no HTTP at all, but the beginning of TLS */
};

struct http1;

struct http1 *http1_new(const struct http1_limits *lim);
void http1_free(struct http1 *h);
void http1_clear(struct http1 *h); /* ready for the next request; large buffers are given back */
/* Takes a piece of the stream; *used says how much of it belonged to this request. Feed the rest after http1_clear.
 * Feeding after HTTP1_DONE or HTTP1_BAD uses nothing and says the same again. */
enum http1_result http1_feed(struct http1 *h, struct by_str bytes, size_t *used);
/* No byte of a request has come yet; empty lines before it, as some send behind a body, are none of it. */
bool http1_is_fresh(const struct http1 *h);
size_t http1_n_body(const struct http1 *h); /* bytes of its body that have come */
/* The body is not needed any more: of a whole request that has been read, or one that is not taken. */
void http1_drop_body(struct http1 *h);
const struct http1_request *http1_request(const struct http1 *h);

/* Header by name (any case); false when it is not there. */
bool http1_header(const struct http1_request *r, const char *name, struct by_str *value);
/* Query parameter, percent-decoded into out (a NUL follows), which is empty when it does not fit or its escapes are broken;
 * false when it is not there. */
bool http1_query(const struct http1_request *r, const char *key, char *out, size_t cap);
/* Does a browser ask, for a page or a link in one? It asks whatever a page of any site tells it to, also of this machine. */
bool http1_is_of_page(const struct http1_request *r);
const char *http1_method_name(enum http1_method m);

#endif
