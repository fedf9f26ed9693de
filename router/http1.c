#include "router/http1.h"

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/mem.h"
#include "router/url.h"

#include <http_parser.h>
#include <stdio.h>

enum {
    CHUNK_LINE_MAX = 256,        /* a chunk's size and its extensions */
    FRAMING_FREE = 16384,        /* chunk framing and trailers beside the body: this much, and */
    FRAMING_PER_BODY = 2,        /* this many bytes for each byte of body */
    KEEP_BODY_BYTES = 64 * 1024, /* a larger buffer is given back between two requests */
    TLS_HANDSHAKE = 0x16,        /* its first byte */
};

/* What the gate expects next. */
enum phase { PHASE_HEAD, PHASE_CHUNK_SIZE, PHASE_CHUNK_END, PHASE_TRAILER, PHASE_OVER };

struct span { /* into head; slices would move while it grows */
    uint32_t at, n;
};
struct header_span {
    struct span name, value;
};

struct http1 {
    struct http_parser parser;
    struct http1_limits lim;
    struct http1_request req;
    enum http1_result result;
    enum phase phase;
    uint64_t data_left; /* body bytes that come before the next line */
    size_t line_n;      /* bytes of the current line so far */
    size_t n_framing;   /* chunk lines and trailers */
    bool last_was_cr;
    bool any_line;     /* the request line is complete */
    bool in_extension; /* of a chunk's size line */
    bool in_value;     /* http-parser's last callback was a header's value */
    bool head_is_over, chunk_is_open, message_is_over;
    char bad_body_size[80]; /* what is said of a body that is too large */
    struct by_buf head;     /* URL, header names and values, copied one after the other */
    struct by_buf body;
    struct span url;
    uint32_t n_headers;
    struct header_span spans[HTTP1_N_HEADERS_MAX];
    struct http1_header headers[HTTP1_N_HEADERS_MAX];
};

static const char bad_version[] = "only HTTP/1.0 and HTTP/1.1 are spoken here";
static const char bad_head_size[] = "the request's head is larger than 32768 bytes";
static const char bad_length_twice[] = "Content-Length twice, or beside Transfer-Encoding";

/* Always false, so that a check is one line: if (…) return refuse(h, 400, "…"); h->result says it to the caller. */
static bool refuse(struct http1 *h, int status, const char *text) {
    h->req.bad_status = status;
    h->req.bad_text = text;
    h->req.keep_alive = false;
    h->phase = PHASE_OVER;
    h->result = HTTP1_BAD;
    return false;
}

static bool refuse_body_size(struct http1 *h) {
    snprintf(h->bad_body_size, sizeof h->bad_body_size,
             "the request body is larger than %zu bytes (--max-body-bytes)",
             (size_t)h->lim.body_bytes_max);
    return refuse(h, 413, h->bad_body_size);
}

/* ---- http-parser's callbacks: they copy; the gate checks afterwards ---- */

static struct http1 *self(struct http_parser *p) {
    return BY_CONTAINER_OF(p, struct http1, parser);
}

static void extend(struct http1 *h, struct span *s, const char *at, size_t n) {
    if (!s->n) s->at = (uint32_t)h->head.n;
    by_buf_add(&h->head, at, n);
    s->n += (uint32_t)n;
}

static int on_url(struct http_parser *p, const char *at, size_t n) {
    extend(self(p), &self(p)->url, at, n);
    return 0;
}

static int on_header_field(struct http_parser *p, const char *at, size_t n) {
    struct http1 *h = self(p);
    if (h->head_is_over) return 0; /* trailers are read past */
    if (h->in_value || h->n_headers == 0) {
        if (h->n_headers == HTTP1_N_HEADERS_MAX) {
            refuse(h, 431, "more than 100 headers");
            return 1;
        }
        h->spans[h->n_headers++] = (struct header_span){0};
        h->in_value = false;
    }
    extend(h, &h->spans[h->n_headers - 1].name, at, n);
    return 0;
}

static int on_header_value(struct http_parser *p, const char *at, size_t n) {
    struct http1 *h = self(p);
    if (h->head_is_over) return 0;
    h->in_value = true;
    extend(h, &h->spans[h->n_headers - 1].value, at, n);
    return 0;
}

static int on_headers_complete(struct http_parser *p) {
    self(p)->head_is_over = true;
    p->upgrade = 0; /* an offered upgrade (h2c, websocket) is declined by answering in HTTP/1.1 */
    return 0;
}

static int on_chunk_header(struct http_parser *p) {
    self(p)->chunk_is_open = true;
    return 0;
}

static int on_body(struct http_parser *p, const char *at, size_t n) {
    struct http1 *h = self(p);
    by_buf_add(&h->body, at, n);
    if (!h->body.is_full) return 0;
    refuse_body_size(h);
    return 1;
}

static int on_message_complete(struct http_parser *p) {
    self(p)->message_is_over = true;
    return 0;
}

static const struct http_parser_settings callbacks = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_chunk_header = on_chunk_header,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

static bool parse(struct http1 *h, const char *p, size_t n) {
    size_t used = http_parser_execute(&h->parser, &callbacks, p, n);
    if (h->result == HTTP1_BAD) return false; /* a callback said why */
    enum http_errno e = HTTP_PARSER_ERRNO(&h->parser);
    if (e == HPE_OK && used == n) return true;
    switch (e) {
    case HPE_INVALID_METHOD:
        return refuse(h, 405, "the HTTP method is not known");
    case HPE_INVALID_VERSION:
        return refuse(h, 505, bad_version);
    case HPE_HEADER_OVERFLOW:
        return refuse(h, 431, bad_head_size);
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        return refuse(h, 400, bad_length_twice);
    case HPE_INVALID_CONTENT_LENGTH:
        return refuse(h, 400, "Content-Length is not a number");
    case HPE_INVALID_CHUNK_SIZE:
        return refuse(h, 400, "a chunk size is not a hexadecimal number");
    default:
        return refuse(h, 400, "the request is not valid HTTP/1.1");
    }
}

/* ---- the head, once it is whole ---- */

static struct by_str slice(const struct http1 *h, struct span s) {
    return (struct by_str){s.n ? h->head.p + s.at : "", s.n};
}

static bool is_made_of(struct by_str s, const char *others) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!alnum && (c == 0 || !strchr(others, c))) return false;
    }
    return true;
}

/* RFC 9110 token: what a header's name is made of. */
static bool is_token(struct by_str s) {
    return s.n > 0 && is_made_of(s, "!#$%&'*+-.^_`|~");
}

/* RFC 3986, 3.2.2, and a port: what a host is made of; none at all is allowed. */
static bool is_host(struct by_str s) {
    return is_made_of(s, "-._~!$&'()*+,;=%:[]");
}

static bool take_url(struct http1 *h) {
    struct by_str url = slice(h, h->url);
    for (size_t i = 0; i < url.n; i++) {
        unsigned char c = (unsigned char)url.p[i];
        /* '#': a fragment stays with the client, and who stands before us may take it for a part of the path */
        if (c <= 0x20 || c >= 0x7f || c == '#')
            return refuse(h, 400, "a character in the URL is not allowed");
    }
    struct http_parser_url u;
    http_parser_url_init(&u);
    if (by_str_eqz(url, "*")) { /* OPTIONS *: no path, and none of its bytes may be written over */
        h->req.path = url;
        return true;
    }
    if (url.n > HTTP1_URL_BYTES_MAX || http_parser_parse_url(url.p, url.n, 0, &u))
        return refuse(h, 400, "the URL is not valid");
    if (u.field_set & (1 << UF_QUERY)) {
        h->req.query =
            (struct by_str){url.p + u.field_data[UF_QUERY].off, u.field_data[UF_QUERY].len};
    }
    if (!(u.field_set & (1 << UF_PATH))) {
        h->req.path = BY_STR("/");
        return true;
    }
    char *p = h->head.p + h->url.at + u.field_data[UF_PATH].off;
    if (*p != '/') return refuse(h, 400, "the path does not begin with a slash");
    size_t n = url_unescape((struct by_str){p, u.field_data[UF_PATH].len}, p, false);
    if (n == SIZE_MAX) return refuse(h, 400, "the URL holds a broken % escape");
    h->req.path = (struct by_str){p, url_remove_dots(p, n)};
    return true;
}

static enum http1_method method_of(unsigned m) {
    switch (m) {
    case HTTP_GET:
        return HTTP1_GET;
    case HTTP_HEAD:
        return HTTP1_HEAD_METHOD;
    case HTTP_POST:
        return HTTP1_POST;
    case HTTP_PUT:
        return HTTP1_PUT;
    case HTTP_DELETE:
        return HTTP1_DELETE;
    case HTTP_OPTIONS:
        return HTTP1_OPTIONS;
    default:
        return HTTP1_OTHER;
    }
}

/* What decides where a request ends must be said once and plainly: two readers must never disagree (smuggling). */
static bool check_framing(struct http1 *h) {
    uint32_t n_host = 0, n_length = 0, n_coding = 0;
    for (uint32_t i = 0; i < h->n_headers; i++) {
        struct by_str name = h->headers[i].name, value = h->headers[i].value;
        if (!is_token(name)) return refuse(h, 400, "a header's name is not valid");
        if (by_str_ieqz(name, "host")) {
            n_host++;
            if (!is_host(value)) return refuse(h, 400, "the Host header is not valid");
        }
        n_length += by_str_ieqz(name, "content-length");
        if (by_str_ieqz(name, "transfer-encoding")) {
            n_coding++;
            if (!by_str_ieqz(value, "chunked")) {
                return refuse(h, 501, "the only Transfer-Encoding spoken here is chunked");
            }
        }
        if (by_str_ieqz(name, "content-encoding") && !by_str_ieqz(value, "identity")) {
            return refuse(h, 415,
                          "request bodies with a Content-Encoding are not read; send it plain");
        }
        if (by_str_ieqz(name, "expect")) {
            if (!by_str_ieqz(value, "100-continue")) return refuse(h, 417, "unknown Expect");
            h->req.wants_continue = !h->req.is_http10;
        }
    }
    if (n_host > 1 || (n_host == 0 && !h->req.is_http10)) {
        return refuse(h, 400, "exactly one Host header is needed");
    }
    if (n_coding > 1 || n_length > 1 || (n_coding && n_length)) {
        return refuse(h, 400, bad_length_twice);
    }
    if (n_coding && h->req.is_http10) return refuse(h, 400, "HTTP/1.0 has no Transfer-Encoding");
    return true;
}

static void message_is_whole(struct http1 *h) {
    h->phase = PHASE_OVER;
    h->result = HTTP1_DONE;
}

static bool take_head(struct http1 *h) {
    struct http1_request *r = &h->req;
    for (uint32_t i = 0; i < h->n_headers; i++) {
        h->headers[i].name = slice(h, h->spans[i].name);
        h->headers[i].value = by_str_trim(slice(h, h->spans[i].value));
    }
    r->headers = h->headers;
    r->n_headers = h->n_headers;
    r->method = method_of(h->parser.method);
    r->is_http10 = h->parser.http_minor == 0;
    if (h->parser.method == HTTP_CONNECT) return refuse(h, 405, "this is no proxy");
    if (!check_framing(h) || !take_url(h)) return false;
    r->keep_alive = http_should_keep_alive(&h->parser) != 0;
    if (h->message_is_over) {
        message_is_whole(h);
        return true;
    }
    h->result = HTTP1_HEAD;
    if (h->parser.flags & F_CHUNKED) {
        h->phase = PHASE_CHUNK_SIZE;
        return true;
    }
    h->data_left = r->body_expected = h->parser.content_length;
    return h->data_left <= h->lim.body_bytes_max || refuse_body_size(h);
}

/* ---- the gate ---- */

/* METHOD URL HTTP/1.1: one blank each, where http-parser takes any number. */
static bool take_request_line(struct http1 *h, size_t line_n) {
    h->any_line = true;
    if (h->parser.http_major != 1 || h->parser.http_minor > 1) return refuse(h, 505, bad_version);
    size_t n = strlen(http_method_str((enum http_method)h->parser.method)) + h->url.n +
               strlen("  HTTP/1.1\r\n");
    return line_n == n || refuse(h, 400, "a blank too many in the request line");
}

/* A line of the head, a chunk's size or a trailer is over: where are we now? */
static bool line_is_over(struct http1 *h) {
    size_t line_n = h->line_n;
    bool was_empty = line_n == 2;
    h->line_n = 0;
    switch (h->phase) {
    case PHASE_HEAD:
        if (!h->any_line && !was_empty && !take_request_line(h, line_n)) return false;
        return !h->head_is_over || take_head(h);
    case PHASE_CHUNK_SIZE:
        by_assert(h->chunk_is_open);
        h->chunk_is_open = false;
        h->data_left = h->parser.content_length;
        h->phase = h->data_left ? PHASE_CHUNK_END : PHASE_TRAILER;
        return h->data_left <= h->lim.body_bytes_max - h->body.n || refuse_body_size(h);
    case PHASE_CHUNK_END:
        if (!was_empty) return refuse(h, 400, "a chunk is longer than it says");
        h->phase = PHASE_CHUNK_SIZE;
        return true;
    case PHASE_TRAILER:
    case PHASE_OVER:
        if (h->message_is_over) message_is_whole(h);
        return true;
    }
    return true;
}

static bool check_line_sizes(struct http1 *h) {
    if (h->phase == PHASE_HEAD) {
        if (h->url.n > HTTP1_URL_BYTES_MAX)
            return refuse(h, 414, "the URL is longer than 8192 bytes");
        if (h->n_framing > HTTP1_HEAD_BYTES_MAX) {
            return refuse(h, h->any_line ? 431 : 414, bad_head_size);
        }
        return true;
    }
    if (h->line_n > CHUNK_LINE_MAX && h->phase != PHASE_TRAILER) {
        return refuse(h, 400, "a chunk's size line is too long");
    }
    if (h->n_framing > HTTP1_HEAD_BYTES_MAX + FRAMING_FREE + FRAMING_PER_BODY * h->body.n) {
        return refuse(h, 400,
                      "the body comes in too many tiny chunks, or the trailers are too large");
    }
    return true;
}

/* The bytes of s up to and including its first line end, or all; 0 when one of them may not stand in a line. */
static size_t scan_line(struct http1 *h, struct by_str s, bool *is_end) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool starts_line = h->line_n + i == 0;
        if ((c == '\n') != h->last_was_cr) return refuse(h, 400, "lines must end in CR LF"), 0;
        if (c == '\n') {
            h->last_was_cr = false;
            *is_end = true;
            return i + 1;
        }
        h->last_was_cr = c == '\r';
        if (c == TLS_HANDSHAKE && starts_line && !h->any_line) {
            h->req.is_tls = true;
            return refuse(h, 400, "this port speaks plain HTTP, and that was TLS: use http://"), 0;
        }
        h->in_extension =
            h->phase == PHASE_CHUNK_SIZE && (c == ';' || (h->in_extension && !starts_line));
        if (h->phase == PHASE_CHUNK_SIZE && !h->in_extension && (c == ' ' || c == '\t'))
            return refuse(h, 400, "a chunk size is not a hexadecimal number"), 0;
        if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7f) {
            return refuse(h, 400, "a control character in the head of the request"), 0;
        }
        if (starts_line && (c == ' ' || c == '\t')) {
            return refuse(h, 400, "folded header lines are not read"), 0;
        }
    }
    return s.n;
}

/* How many bytes of s were taken. */
static size_t feed_line(struct http1 *h, struct by_str s) {
    bool is_end = false;
    size_t used = scan_line(h, s, &is_end);
    h->line_n += used;
    h->n_framing += used;
    if (used && parse(h, s.p, used) && check_line_sizes(h) && is_end) (void)line_is_over(h);
    return used;
}

static size_t feed_data(struct http1 *h, struct by_str s) {
    size_t used = h->data_left < s.n ? (size_t)h->data_left : s.n;
    h->data_left -= used;
    if (!parse(h, s.p, used) || h->data_left || h->phase != PHASE_HEAD) return used;
    by_assert(h->message_is_over); /* all of Content-Length has come */
    message_is_whole(h);
    return used;
}

enum http1_result http1_feed(struct http1 *h, struct by_str bytes, size_t *used) {
    *used = 0;
    if (h->result == HTTP1_HEAD) h->result = HTTP1_MORE; /* that is said once */
    while (h->result == HTTP1_MORE && *used < bytes.n) {
        struct by_str rest = by_str_sub(bytes, *used, SIZE_MAX);
        *used += h->data_left ? feed_data(h, rest) : feed_line(h, rest);
    }
    if (h->result == HTTP1_DONE) h->req.body = by_buf_str(&h->body);
    return h->result;
}

/* ---- life ---- */

struct http1 *http1_new(const struct http1_limits *lim) {
    struct http1 *h = by_alloc(sizeof *h);
    h->lim = *lim;
    by_buf_init(&h->head, HTTP1_HEAD_BYTES_MAX);
    by_buf_init(&h->body, lim->body_bytes_max);
    http1_clear(h);
    return h;
}

void http1_free(struct http1 *h) {
    if (!h) return;
    by_buf_release(&h->body);
    by_buf_release(&h->head);
    by_free(h);
}

void http1_clear(struct http1 *h) {
    by_buf_clear(&h->head);
    by_buf_clear(&h->body);
    if (h->body.cap > KEEP_BODY_BYTES) http1_drop_body(h);
    http_parser_init(&h->parser, HTTP_REQUEST);
    h->req = (struct http1_request){.path = BY_STR("/"), .query = BY_STR(""), .body = BY_STR("")};
    h->result = HTTP1_MORE;
    h->phase = PHASE_HEAD;
    h->data_left = h->line_n = h->n_framing = 0;
    h->last_was_cr = h->any_line = h->in_value = false;
    h->head_is_over = h->chunk_is_open = h->message_is_over = false;
    h->url = (struct span){0};
    h->n_headers = 0;
}

bool http1_is_fresh(const struct http1 *h) {
    return !h->any_line && h->line_n == 0;
}

void http1_drop_body(struct http1 *h) {
    by_buf_release(&h->body);
    by_buf_init(&h->body, h->lim.body_bytes_max);
    h->req.body = BY_STR("");
}

size_t http1_n_body(const struct http1 *h) {
    return h->body.n;
}

const struct http1_request *http1_request(const struct http1 *h) {
    return &h->req;
}

bool http1_header(const struct http1_request *r, const char *name, struct by_str *value) {
    for (uint32_t i = 0; i < r->n_headers; i++) {
        if (!by_str_ieqz(r->headers[i].name, name)) continue;
        *value = r->headers[i].value;
        return true;
    }
    return false;
}

bool http1_query(const struct http1_request *r, const char *key, char *out, size_t cap) {
    struct by_str rest = r->query, pair, name;
    while (rest.n > 0) {
        by_str_split(&rest, '&', &pair);
        by_str_split(&pair, '=', &name);
        if (!by_str_eqz(name, key)) continue;
        size_t n = pair.n < cap ? url_unescape(pair, out, true) : SIZE_MAX;
        out[n == SIZE_MAX ? 0 : n] = '\0';
        return true;
    }
    return false;
}

const char *http1_method_name(enum http1_method m) {
    static const char *const names[HTTP1_N_METHODS] = {"GET",    "HEAD",    "POST", "PUT",
                                                       "DELETE", "OPTIONS", "other"};
    return names[m];
}

bool http1_is_of_page(const struct http1_request *req) {
    struct by_str v;
    if (http1_header(req, "origin", &v)) return true;
    return http1_header(req, "sec-fetch-site", &v) &&
           !by_str_eqz(v, "none"); /* none: typed by hand */
}
