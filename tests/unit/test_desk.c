#include "tokenizer_worker/desk.h"

#include "tests/unit/test.h"

struct world {
    struct desk d;
    char router[3]; /* their addresses are the routers */
    uint32_t n_tokenized, n_failed, n_ended, n_answered;
    uint64_t last_rid;
    int32_t last_code;
    uint32_t n_reading;
    bool is_done;
};

static void on_generate(void *ctx, const struct msg_generate *m, struct msg *out) {
    (void)ctx;
    *out = (struct msg){.kind = m->text.n ? MSG_tokenized : MSG_failed};
    if (m->text.n)
        out->tokenized.name = m->name;
    else
        out->failed = (struct msg_failed){.name = m->name, .code = BY_EINVAL};
}
static void on_answer(void *ctx, const struct msg_text_ask *m, struct msg *out) {
    struct world *w = ctx;
    w->n_answered++;
    *out = (struct msg){.kind = MSG_text_answer, .text_answer = {.id = m->id}};
}
static void on_router(void *ctx, void *router, const struct msg *m) {
    struct world *w = ctx;
    if (m->kind == MSG_reading) {
        w->n_reading++;
        w->is_done = m->reading.is_done;
        w->last_rid = m->reading.name.rid;
        return;
    }
    if (m->kind == MSG_text_answer) {
        w->last_code = m->text_answer.code;
        return;
    }
    assert_ptr_equal(router, &w->router[m->failed.name.epoch]);
    w->n_failed++;
    w->last_code = m->failed.code;
}
static void on_scheduler(void *ctx, const struct msg *m) {
    struct world *w = ctx;
    assert_true(w->d.has_scheduler);
    w->n_tokenized++;
    w->last_rid = m->tokenized.name.rid;
}
static void on_end(void *ctx, void *router, const char *why) { /* as wire.c: down comes at once */
    struct world *w = ctx;
    assert_true(strlen(why) > 0);
    w->n_ended++;
    desk_router_down(&w->d, router);
}

static void start(struct world *w) {
    *w = (struct world){0};
    desk_init(&w->d, &(struct desk_options){.generate = on_generate,
                                            .answer = on_answer,
                                            .to_router = on_router,
                                            .to_scheduler = on_scheduler,
                                            .end_router = on_end,
                                            .ctx = w});
    for (int i = 0; i < 3; i++)
        desk_router_up(&w->d, &w->router[i]);
}
static void put(struct world *w, uint32_t router, uint64_t rid, bool is_good) {
    struct msg_generate g = {.name = {router, rid}, .text = is_good ? BY_STR("x") : BY_STR("")};
    desk_generate(&w->d, &w->router[router], &g);
    assert_true(desk_check(&w->d));
}
static void stop(struct world *w) {
    assert_true(desk_check(&w->d));
    desk_release(&w->d);
}

TEST(requests_pass_and_bad_ones_come_back) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    desk_scheduler_up(&w.d);
    put(&w, 0, 1, true);
    put(&w, 2, 2, false);
    assert_int_equal(w.n_tokenized, 1);
    assert_int_equal(w.n_failed, 1);
    stop(&w);
}

TEST(what_came_before_the_scheduler_waits_for_it) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    put(&w, 0, 1, true);
    put(&w, 1, 2, true);
    put(&w, 0, 3, true);
    desk_router_down(&w.d, &w.router[1]); /* takes its own along */
    assert_int_equal(w.n_tokenized, 0);
    desk_scheduler_up(&w.d);
    assert_int_equal(w.n_tokenized, 2);
    assert_int_equal(w.last_rid, 3);
    stop(&w);
}

TEST(too_many_are_refused_at_once) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    for (uint32_t i = 0; i <= DESK_HELD_MAX; i++)
        put(&w, 0, i, true);
    assert_int_equal(w.n_failed, 1);
    assert_int_equal(w.last_code, BY_EUNAVAILABLE);
    stop(&w);
}

TEST(a_lost_scheduler_ends_every_routers_session) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    desk_scheduler_up(&w.d);
    desk_scheduler_down(&w.d);
    assert_int_equal(w.n_ended, 3);
    assert_int_equal(w.d.n_routers, 0);
    stop(&w);
}

static char large[DESK_LARGE_BYTES];

static void put_large(struct world *w, uint32_t router, uint64_t rid, bool is_replay) {
    static const struct msg_resume had[] = {{.sample = 0}};
    struct msg_generate g = {.name = {router, rid}, .text = {large, sizeof large}};
    if (is_replay) g.resume.p = had, g.resume.n = 1;
    desk_generate(&w->d, &w->router[router], &g);
    assert_true(desk_check(&w->d));
}
static void ask(struct world *w, uint32_t router, size_t n) {
    struct msg_text_ask a = {.id = 5, .json = {large, n}};
    desk_ask(&w->d, &w->router[router], &a);
    assert_true(desk_check(&w->d));
}

/* A queue of texts of megabytes once stood before everybody's short ones. */
TEST(small_ones_pass_large_ones_by) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    desk_scheduler_up(&w.d);
    put_large(&w, 0, 1, false);
    ask(&w, 1, sizeof large);
    put_large(&w, 2, 2, false);
    put(&w, 1, 3, true);
    ask(&w, 1, 10);
    assert_int_equal(w.n_tokenized, 1);
    assert_int_equal(w.n_answered, 1);
    assert_true(desk_later(&w.d)); /* in their order, one at a time */
    assert_int_equal(w.last_rid, 1);
    assert_true(desk_later(&w.d));
    assert_int_equal(w.n_answered, 2);
    assert_false(desk_later(&w.d));
    assert_int_equal(w.last_rid, 2);
    assert_false(desk_later(&w.d));
    stop(&w);
}

TEST(too_much_large_text_is_refused_but_no_replay) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    desk_scheduler_up(&w.d);
    for (uint64_t i = 0; i < DESK_BYTES_MAX / sizeof large; i++)
        put_large(&w, i % 2, i, false);
    assert_int_equal(w.n_failed, 0);
    put_large(&w, 0, 1000, false);
    assert_int_equal(w.n_failed, 1);
    assert_int_equal(w.last_code, BY_EFULL);
    w.last_code = 0;
    ask(&w, 0, sizeof large);
    assert_int_equal(w.last_code, BY_EFULL);
    put_large(&w, 0, 1001, true);
    assert_int_equal(w.n_failed, 1);
    desk_router_down(&w.d, &w.router[0]); /* makes room */
    put_large(&w, 1, 1002, false);
    assert_int_equal(w.n_failed, 1);
    desk_scheduler_down(&w.d); /* all sessions end: nothing is left */
    assert_false(desk_has_more(&w.d));
    stop(&w);
}

static void put_suspect(struct world *w, uint32_t router, uint64_t rid) {
    struct msg_generate g = {.name = {router, rid}, .text = BY_STR("x"), .n_lost = 1};
    desk_generate(&w->d, &w->router[router], &g);
    assert_true(desk_check(&w->d));
}
static void answer(struct world *w, uint32_t router, uint64_t rid, bool is_done) {
    struct msg_reading m = {.name = {router, rid}, .is_done = is_done};
    desk_reading(&w->d, &w->router[router], &m);
    assert_true(desk_check(&w->d));
}

TEST(suspects_are_asked_for_and_read_one_at_a_time) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    put_suspect(&w, 1, 7); /* no scheduler: it is not read, and not asked for */
    assert_int_equal(w.n_reading, 0);
    desk_scheduler_up(&w.d);
    put_suspect(&w, 1, 8);
    put_suspect(&w, 2, 9);
    put_suspect(&w, 1, 10);
    assert_int_equal(w.n_reading, 1);
    assert_int_equal(w.last_rid, 7);
    answer(&w, 1, 8, false); /* it was not asked for */
    put(&w, 0, 1, true);     /* of which the process might die while 7 is accused */
    assert_int_equal(w.n_tokenized, 0);
    assert_false(desk_has_more(&w.d));
    answer(&w, 1, 7, false);
    assert_int_equal(w.n_tokenized, 1);
    assert_int_equal(w.n_reading, 3); /* 7 is read; may I read 8? */
    assert_int_equal(w.last_rid, 8);
    assert_false(w.is_done);
    answer(&w, 1, 8, true); /* not wanted */
    assert_int_equal(w.n_tokenized, 1);
    assert_int_equal(w.last_rid, 9);
    desk_router_down(&w.d, &w.router[2]); /* it will not answer */
    assert_true(desk_check(&w.d));
    assert_int_equal(w.last_rid, 10);
    answer(&w, 1, 10, false);
    assert_int_equal(w.n_tokenized, 2);
    assert_true(w.is_done);
    assert_false(desk_later(&w.d));
    assert_int_equal(w.n_tokenized, 3);
    stop(&w);
}

TESTS(RUN(requests_pass_and_bad_ones_come_back), RUN(what_came_before_the_scheduler_waits_for_it),
      RUN(too_many_are_refused_at_once), RUN(a_lost_scheduler_ends_every_routers_session),
      RUN(small_ones_pass_large_ones_by), RUN(too_much_large_text_is_refused_but_no_replay),
      RUN(suspects_are_asked_for_and_read_one_at_a_time));
