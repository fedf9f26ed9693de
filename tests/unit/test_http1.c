#include "router/http1.h"

#include "tests/unit/test.h"

#define POST "POST /generate HTTP/1.1\r\nHost: x\r\n"

/* What nginx, Go and hyper take, and few clients send. */
static const struct {
    const char *sent;
    enum http1_method method;
    const char *path, *query, *body;
    bool keep_alive, wants_continue;
} good[] = {
    {"GET http://x:30000/v1/models?a=b HTTP/1.1\r\nHost: x\r\n\r\n", HTTP1_GET, "/v1/models", "a=b",
     "", true, false},
    {"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", HTTP1_GET, "/", "", "", true, false},
    {"GET http://x?a HTTP/1.1\r\nHost: x\r\n\r\n", HTTP1_GET, "/", "a", "", true, false},
    {"GET /health?a HTTP/1.1\r\nHost: [::1%25lo]:80\r\n\r\n", HTTP1_GET, "/health", "a", "", true,
     false},
    {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", HTTP1_OPTIONS, "*", "", "", true, false},
    {"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", HTTP1_GET, "/", "", "", true, false},
    {"GET / HTTP/1.0\r\n\r\n", HTTP1_GET, "/", "", "", false, false},
    {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", HTTP1_GET, "/", "", "", true, false},
    {"GET / HTTP/1.1\r\nHost:\r\nConnection: foo, Close\r\n\r\n", HTTP1_GET, "/", "", "", false,
     false},
    /* an upgrade that is offered and declined */
    {POST "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
          "Content-Length: 2\r\n\r\n{}",
     HTTP1_POST, "/generate", "", "{}", true, false},
    {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", HTTP1_GET,
     "/", "", "", true, false},
    {POST "Transfer-Encoding: Chunked\r\nTrailer: X\r\n\r\n"
          "1;a=b;c=\"d\"\r\n{\r\n01\r\n}\r\n000\r\n"
          "Content-Length: 5\r\nTransfer-Encoding: gzip\r\nX: y\r\n\r\n",
     HTTP1_POST, "/generate", "", "{}", true, false},
    {POST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", HTTP1_POST, "/generate", "", "", true,
     false},
    {POST "Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n{}", HTTP1_POST, "/generate", "", "{}",
     true, true},
    {"POST /generate HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", HTTP1_POST,
     "/generate", "", "{}", false, false},
    {POST "Content-Length: 000002\r\nContent-Encoding: identity\r\nX: \xC3\xA9\r\nY:\r\n\r\n{}",
     HTTP1_POST, "/generate", "", "{}", true, false},
    {POST "\r\n", HTTP1_POST, "/generate", "", "", true, false},
};

static struct http1 *fresh(void) {
    const struct http1_limits lim = {.body_bytes_max = 1024};
    return http1_new(&lim);
}

/* Feeds sent in pieces of `piece` bytes; what the last one came to. */
static enum http1_result feed(struct http1 *h, const char *sent, size_t piece) {
    struct by_str rest = by_str_of(sent);
    enum http1_result result = HTTP1_MORE;
    while (rest.n && result != HTTP1_DONE && result != HTTP1_BAD) {
        size_t used;
        result = http1_feed(h, by_str_sub(rest, 0, piece), &used);
        rest = by_str_sub(rest, used, rest.n);
    }
    assert_int_equal(rest.n, 0);
    return result;
}

TEST(what_is_rare_and_right_is_read_in_pieces_of_any_size) {
    UNUSED_STATE;
    struct http1 *h = fresh();
    for (size_t i = 0; i < BY_COUNTOF(good); i++) {
        for (size_t piece = 1; piece <= 500; piece += piece < 5 ? 1 : 99) {
            http1_clear(h);
            assert_int_equal(feed(h, good[i].sent, piece), HTTP1_DONE);
            const struct http1_request *r = http1_request(h);
            assert_int_equal(r->method, good[i].method);
            assert_true(by_str_eqz(r->path, good[i].path));
            assert_true(by_str_eqz(r->query, good[i].query));
            assert_true(by_str_eqz(r->body, good[i].body));
            assert_int_equal(r->keep_alive, good[i].keep_alive);
            assert_int_equal(r->wants_continue, good[i].wants_continue);
        }
    }
    http1_free(h);
}

/* Behind a body some send an empty line: on a kept connection it began the next request, which then was refused as too slow. */
TEST(an_empty_line_begins_no_request) {
    UNUSED_STATE;
    struct http1 *h = fresh();
    assert_true(http1_is_fresh(h));
    assert_int_equal(feed(h, "\r\n\r\n", 1), HTTP1_MORE);
    assert_true(http1_is_fresh(h));
    assert_int_equal(feed(h, "G", 1), HTTP1_MORE);
    assert_false(http1_is_fresh(h));
    assert_int_equal(feed(h, "ET / HTTP/1.1\r\n", 1), HTTP1_MORE);
    assert_false(http1_is_fresh(h));
    http1_free(h);
}

TEST(tls_is_known_by_its_first_byte_and_nowhere_else) {
    UNUSED_STATE;
    struct http1 *h = fresh();
    size_t used;
    assert_int_equal(http1_feed(h, BY_STR("\x16\x03\x01"), &used), HTTP1_BAD);
    assert_true(http1_request(h)->is_tls);
    assert_non_null(strstr(http1_request(h)->bad_text, "plain HTTP"));
    http1_clear(h);
    assert_int_equal(http1_feed(h, BY_STR("GET / HTTP/1.1\r\n\x16"), &used), HTTP1_BAD);
    assert_false(http1_request(h)->is_tls);
    http1_free(h);
}

TESTS(RUN(what_is_rare_and_right_is_read_in_pieces_of_any_size),
      RUN(an_empty_line_begins_no_request), RUN(tls_is_known_by_its_first_byte_and_nowhere_else));
