/* Ranks of one replica in the scheduler's core: they open together, meet at rank 0's address, agree or end together. */
#include "common/base/buf.h"
#include "common/base/log.h"
#include "scheduler/core.h"
#include "tests/unit/test.h"

enum { RANK0 = 10, RANK1 = 11 };

static struct heard {
    char address[RANK1 + 1][64]; /* by peer: what `group` told it */
    bool has_ended[RANK1 + 1];
} heard;

static void on_send(void *ctx, uint32_t peer, const struct msg *m) {
    (void)ctx;
    if (m->kind != MSG_group || peer > RANK1) return;
    snprintf(heard.address[peer], sizeof heard.address[peer], BY_STR_FMT,
             BY_STR_ARG(m->group.address));
}

static void on_end(void *ctx, uint32_t peer, const char *why) {
    (void)ctx;
    (void)why;
    if (peer <= RANK1) heard.has_ended[peer] = true;
}

static struct core *start(void) {
    struct core_options o = {.n_replicas = 1,
                             .max_running = 8,
                             .max_queued = 8,
                             .chunked_prefill_size = 64,
                             .depth = 2,
                             .conservativeness = 1};
    by_log_init(&(struct by_log_options){.process = "test", .level = BY_LOG_ERROR});
    heard = (struct heard){0};
    return core_new(&o, &(struct core_sink){.send = on_send, .end = on_end});
}

static void say_hello(struct core *c, uint32_t peer, uint32_t rank, uint32_t n_pages) {
    struct msg_hello h = {.role = ROLE_GPU_WORKER,
                          .instance = rank ? BY_STR("0.1") : BY_STR("0.0"),
                          .epoch = peer,
                          .endpoint = rank ? BY_STR("") : BY_STR("/proc/7/fd/3"),
                          .model = {.n_vocab = 100, .context_len = 64},
                          .capacity = {.page_size = 16,
                                       .n_pages = n_pages,
                                       .n_slots = 8,
                                       .step_tokens_max = 64,
                                       .rank = rank,
                                       .world = 2}};
    struct by_err err;
    assert_int_equal(core_admit(c, &h, &err), 0);
    core_on_up(c, 1000, peer, &h);
    assert_true(core_check(c));
}

/* Of step 0: no step has been sent, and one that was not sent would end the session for that. */
static void say_crc(struct core *c, uint32_t peer, uint32_t crc) {
    struct msg m = {.kind = MSG_step_done, .step_done = {.crc = crc}};
    core_on_message(c, 1000, peer, &m);
}

TEST(the_others_learn_where_rank_0_is) {
    UNUSED_STATE;
    struct core *c = start();
    say_hello(c, RANK1, 1, 32);
    assert_string_equal(heard.address[RANK1], "");
    say_hello(c, RANK0, 0, 32);
    assert_string_equal(heard.address[RANK1], "/proc/7/fd/3");
    assert_string_equal(heard.address[RANK0], "");
    core_free(c);
}

TEST(the_rank_with_fewest_pages_decides) {
    UNUSED_STATE;
    struct core *c = start();
    struct by_buf text;
    by_buf_init(&text, 1 << 16);
    say_hello(c, RANK0, 0, 48);
    say_hello(c, RANK1, 1, 20);
    core_show(c, &text);
    assert_non_null(strstr(text.p, "20"));
    assert_null(strstr(text.p, "48"));
    by_buf_release(&text);
    core_free(c);
}

TEST(ranks_that_differ_end_together) {
    UNUSED_STATE;
    struct core *c = start();
    say_hello(c, RANK0, 0, 32);
    say_hello(c, RANK1, 1, 32);
    say_crc(c, RANK1, 5);
    say_crc(c, RANK0, 5);
    assert_false(heard.has_ended[RANK0] || heard.has_ended[RANK1]);
    say_crc(c, RANK1, 6);
    assert_true(heard.has_ended[RANK0] && heard.has_ended[RANK1]);
    assert_true(core_check(c));
    core_free(c);
}

TEST(a_lost_rank_ends_the_group) {
    UNUSED_STATE;
    struct core *c = start();
    say_hello(c, RANK0, 0, 32);
    say_hello(c, RANK1, 1, 32);
    core_on_down(c, 2000, RANK1, "killed");
    assert_true(heard.has_ended[RANK0]);
    assert_true(core_check(c));
    core_free(c);
}

TESTS(RUN(the_others_learn_where_rank_0_is), RUN(the_rank_with_fewest_pages_decides),
      RUN(ranks_that_differ_end_together), RUN(a_lost_rank_ends_the_group));
