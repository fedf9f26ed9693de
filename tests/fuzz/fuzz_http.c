/* Any bytes as a client's stream: all at once and byte by byte give the same requests, or are both refused (which of two
 * faults is named first may differ), and nothing is read twice. */
#include "common/base/buf.h"
#include "common/base/check.h"
#include "router/http1.h"
#include "tests/fuzz/fuzz.h"

enum { OUT_MAX = 1 << 20 };

static void tell(const struct http1_request *r, enum http1_result result, struct by_buf *out) {
    char value[64];
    if (result == HTTP1_BAD) {
        by_assert(r->bad_status >= 400 && r->bad_text);
        by_buf_addz(out, "refused");
        return;
    }
    by_buf_addf(out, "%s %u %d %d ", http1_method_name(r->method), r->n_headers, r->is_http10,
                r->keep_alive);
    by_buf_add_str(out, r->path);
    by_buf_add_str(out, r->query);
    by_buf_add_str(out, r->body);
    for (uint32_t i = 0; i < r->n_headers; i++) {
        by_buf_add_str(out, r->headers[i].name);
        by_buf_add_str(out, r->headers[i].value);
    }
    if (http1_query(r, "stream", value, sizeof value)) by_buf_addz(out, value);
}

static void feed_all(struct by_str bytes, size_t piece, struct by_buf *out) {
    struct http1_limits lim = {.body_bytes_max = 4096};
    struct http1 *h = http1_new(&lim);
    enum http1_result result = HTTP1_MORE;
    while (bytes.n && result != HTTP1_BAD) {
        size_t used = 0, n = BY_MIN(bytes.n, piece);
        result = http1_feed(h, by_str_sub(bytes, 0, n), &used);
        by_assert(used <= n && (used || result != HTTP1_MORE));
        bytes = by_str_sub(bytes, used, bytes.n);
        if (result == HTTP1_DONE || result == HTTP1_BAD) tell(http1_request(h), result, out);
        if (result == HTTP1_DONE) http1_clear(h);
    }
    http1_free(h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct by_buf whole, parts;
    by_buf_init(&whole, OUT_MAX);
    by_buf_init(&parts, OUT_MAX);
    feed_all(fuzz_bytes(data, size), SIZE_MAX, &whole);
    feed_all(fuzz_bytes(data, size), 1, &parts);
    by_assert(by_str_eq(by_buf_str(&whole), by_buf_str(&parts)));
    by_buf_release(&whole);
    by_buf_release(&parts);
    return 0;
}
