#include "router/http_write.h"

#include "router/cors.h"

#include <string.h>
#include <time.h>

static const struct {
    int status;
    const char *text;
} statuses[] = {
    {100, "Continue"},
    {200, "OK"},
    {204, "No Content"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {417, "Expectation Failed"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {499, "Client Closed Request"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {505, "HTTP Version Not Supported"},
};

const char *http_status_text(int status) {
    for (size_t i = 0; i < BY_COUNTOF(statuses); i++) {
        if (statuses[i].status == status) return statuses[i].text;
    }
    return "Unknown";
}

/* Date: Sun, 06 Nov 1994 08:49:37 GMT. A server with a clock has to say it (RFC 9110, 6.6.1). */
static void write_date(struct by_buf *out, int64_t now_s) {
    char text[48];
    time_t s = (time_t)now_s;
    struct tm t;
    if (!now_s || !gmtime_r(&s, &t)) return;
    strftime(text, sizeof text, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &t); /* of locale C */
    by_buf_addz(out, text);
}

void http_write_head(struct by_buf *out, const struct http_head *h) {
    by_buf_addf(out, "HTTP/1.1 %d %s\r\n", h->status, http_status_text(h->status));
    write_date(out, h->now_s);
    if (h->content_type) by_buf_addf(out, "Content-Type: %s\r\n", h->content_type);
    if (!h->is_stream && h->status != 204) /* 204 has no body, and says no length */
        by_buf_addf(out, "Content-Length: %zu\r\n", h->content_length);
    if (h->is_stream && !h->is_http10)
        by_buf_addz(out, "Transfer-Encoding: chunked\r\nCache-Control: no-cache\r\n");
    by_buf_addf(out, "Connection: %s\r\n", h->keep_alive ? "keep-alive" : "close");
    if (h->trace && *h->trace) by_buf_addf(out, "traceparent: %s\r\n", h->trace);
    if (h->id) request_id_write(h->id, h->path, out);
    cors_write(out, h->origins, h->origin);
    if (h->extra) by_buf_addz(out, h->extra);
    by_buf_addz(out, "\r\n");
}

void http_write_chunk(struct by_buf *out, struct by_str bytes) {
    if (!bytes.n) return; /* an empty chunk would end the body */
    by_buf_addf(out, "%zx\r\n", bytes.n);
    by_buf_add_str(out, bytes);
    by_buf_addz(out, "\r\n");
}

void http_write_last_chunk(struct by_buf *out) {
    by_buf_addz(out, "0\r\n\r\n");
}
