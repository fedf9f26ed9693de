/* How many pages a worker takes, and what it says when a context does not fit. */
#include "gpu_worker/kv.h"

#include "common/base/proc.h"
#include "tests/unit/test.h"

enum { PAGE_BYTES = 16 * 1000 }; /* 1,000 bytes a token */

static struct backend host; /* its memory is the machine's */

static struct by_options options(int64_t context_length, int64_t max_total_tokens) {
    return (struct by_options){.page_size = 16,
                               .context_length = context_length,
                               .max_total_tokens = max_total_tokens,
                               .mem_fraction_static = 0.5};
}

static uint64_t free_bytes_of_device(struct backend *b) {
    (void)b;
    return 1000 * PAGE_BYTES;
}

TEST(pages_hold_the_tokens_that_were_asked_for) {
    UNUSED_STATE;
    struct by_options o = options(0, 1000);
    struct by_err err = {0};
    struct kv_plan p = {.page_bytes = PAGE_BYTES, .context_len = 512};
    assert_int_equal(kv_plan(&p, &o, &host, &err), 0);
    assert_int_equal(p.n_pages, 63);
    assert_int_equal(p.context_len, 512);
}

TEST(a_context_that_was_asked_for_and_does_not_fit_is_refused_with_what_fits) {
    UNUSED_STATE;
    struct by_options o = options(8192, 4096);
    struct by_err err = {0};
    struct kv_plan p = {.page_bytes = PAGE_BYTES, .context_len = 8192};
    assert_int_equal(kv_plan(&p, &o, &host, &err), BY_ENOMEM);
    if (!strstr(err.text, "8192") || !strstr(err.text, "--max-total-tokens") ||
        !strstr(err.text, "--context-length 4096 at most"))
        fail_msg("%s", err.text);
}

/* It was taken, for memory is given as it is written: the worker was killed when the cache had filled. */
TEST(more_tokens_than_the_machine_has_memory_for_are_refused_with_what_fits) {
    UNUSED_STATE;
    struct by_options o = options(0, INT64_C(1) << 30);
    struct by_err err = {0};
    struct kv_plan p = {.page_bytes = (size_t)(by_proc_memory_max() / 1000), .context_len = 512};
    assert_int_equal(kv_plan(&p, &o, &host, &err), BY_ENOMEM);
    if (!strstr(err.text, "--max-total-tokens: a KV cache of 1073741824 tokens") ||
        !strstr(err.text, " tokens fit into what is free"))
        fail_msg("%s", err.text);
    struct backend device = {.is_device = true, .free_bytes = free_bytes_of_device};
    o.max_total_tokens = 16001;
    p.page_bytes = PAGE_BYTES;
    assert_int_equal(kv_plan(&p, &o, &device, &err), BY_ENOMEM);
    o.max_total_tokens = 16000;
    assert_int_equal(kv_plan(&p, &o, &device, &err), 0);
    assert_int_equal(p.n_pages, 1000);
}

/* Pages so large that memory holds a few of them only. */
TEST(a_context_that_memory_does_not_allow_is_refused_with_what_fits) {
    UNUSED_STATE;
    struct by_options o = options(1 << 20, 0);
    struct by_err err = {0};
    struct kv_plan p = {.page_bytes = (size_t)(kv_free_memory() / 64), .context_len = 1 << 20};
    assert_int_equal(kv_plan(&p, &o, &host, &err), BY_ENOMEM);
    if (!strstr(err.text, "1048576") || !strstr(err.text, "--mem-fraction-static") ||
        !strstr(err.text, "at most"))
        fail_msg("%s", err.text);
}

TEST(a_device_gives_nine_tenths_where_a_host_gives_half) {
    UNUSED_STATE;
    struct by_options o = options(0, 0);
    struct backend device = {.is_device = true, .free_bytes = free_bytes_of_device};
    struct by_err err = {0};
    struct kv_plan p = {.page_bytes = PAGE_BYTES, .context_len = 512};
    o.mem_fraction_static = 0;
    assert_int_equal(kv_plan(&p, &o, &device, &err), 0);
    assert_int_equal(p.n_pages, 900);
    device.is_device = false;
    assert_int_equal(kv_plan(&p, &o, &device, &err), 0);
    assert_int_equal(p.n_pages, 500);
    o.mem_fraction_static = 0.25;
    device.is_device = true;
    assert_int_equal(kv_plan(&p, &o, &device, &err), 0);
    assert_int_equal(p.n_pages, 250);
}

TEST(a_context_that_the_model_could_do_is_cut_to_what_fits) {
    UNUSED_STATE;
    struct by_options o = options(0, 4096);
    struct by_err err = {0};
    struct kv_plan p = {.page_bytes = PAGE_BYTES, .context_len = 8192};
    assert_int_equal(kv_plan(&p, &o, &host, &err), 0);
    assert_int_equal(p.n_pages, 256);
    assert_int_equal(p.context_len, 4096);
}

/* 800 pages' bytes, half of them for states of 100: there are 4 then, of the rest 2 to keep, and what is left is pages. */
TEST(states_take_no_more_than_half_and_sequences_are_fewer_then) {
    UNUSED_STATE;
    struct by_options o = options(0, 0);
    struct backend device = {.is_device = true, .free_bytes = free_bytes_of_device};
    struct by_err err = {0};
    struct kv_plan p = {.page_bytes = PAGE_BYTES,
                        .state_bytes = 100 * PAGE_BYTES,
                        .n_slots = 256,
                        .context_len = 512};
    o.mem_fraction_static = 0.8;
    assert_int_equal(kv_plan(&p, &o, &device, &err), 0);
    assert_int_equal(p.n_slots, 4);
    assert_int_equal(p.n_kept, 2);
    assert_int_equal(p.n_pages, 200);
    p.state_bytes = 500 * PAGE_BYTES;
    assert_int_equal(kv_plan(&p, &o, &device, &err), BY_ENOMEM);
    if (!strstr(err.text, "the states of one sequence take 8.0 MB")) fail_msg("%s", err.text);
}

TESTS(RUN(pages_hold_the_tokens_that_were_asked_for),
      RUN(a_context_that_was_asked_for_and_does_not_fit_is_refused_with_what_fits),
      RUN(a_context_that_memory_does_not_allow_is_refused_with_what_fits),
      RUN(more_tokens_than_the_machine_has_memory_for_are_refused_with_what_fits),
      RUN(a_device_gives_nine_tenths_where_a_host_gives_half),
      RUN(a_context_that_the_model_could_do_is_cut_to_what_fits),
      RUN(states_take_no_more_than_half_and_sequences_are_fewer_then));
