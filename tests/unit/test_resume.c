#include "router/resume.h"
#include "router/http_write.h"

#include "tests/unit/test.h"

enum { KEPT_BYTES = 4096 };

static const struct http1_header key_header = {BY_STR("idempotency-key"), BY_STR("one")};
static const struct http1_request request = {
    .path = BY_STR("/generate"), .body = BY_STR("{}"), .headers = &key_header, .n_headers = 1};

/* An event of n bytes, its end included. */
static void write_event(struct resume_answer *a, size_t n) {
    struct by_buf event;
    by_buf_init(&event, n);
    by_buf_addz(&event, "data: ");
    while (event.n + 2 < n)
        by_buf_addc(&event, 'x');
    by_buf_addz(&event, "\n\n");
    resume_stream_write(a, by_buf_str(&event));
    by_buf_release(&event);
}

/* The oldest event that one who comes from the beginning could have. */
static unsigned oldest(struct resume *r) {
    struct by_err err = {0};
    unsigned n = 0;
    assert_int_equal(resume_join(r, NULL, &request, NULL, &err), BY_ENOTFOUND);
    assert_int_equal(sscanf(err.text, "the answer's events are kept from number %u on", &n), 1);
    return n;
}

/* What is kept of an answer grew by any event whole, whatever --resume-bytes said: one of 128 MB behind others met an assert. */
TEST(an_event_larger_than_all_that_is_kept_is_not_kept) {
    UNUSED_STATE;
    static uv_loop_t loop; /* never closed: the answers' timer stays in it */
    uv_loop_init(&loop);
    struct resume *r = resume_new(&loop, 1000, KEPT_BYTES, RESUME_TOTAL_BYTES);
    struct resume_answer *a = resume_begin(r, &request, NULL);
    assert_non_null(a);
    resume_stream_begin(a, SSE_TYPE);
    for (unsigned i = 0; i < 4; i++)
        write_event(a, 100);
    write_event(a, 100 * KEPT_BYTES);
    assert_int_equal(oldest(r), 6);
    write_event(a, 100);
    write_event(a, 100 * KEPT_BYTES);
    assert_int_equal(oldest(r), 8);
    for (unsigned i = 0; i < 1000; i++)
        write_event(a, KEPT_BYTES / 2);
    assert_int_equal(oldest(r), 1007);
    resume_stream_end(a, false);
    resume_free(r);
}

TESTS(RUN(an_event_larger_than_all_that_is_kept_is_not_kept));
