#include "detokenizer/detok.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/rand.h"
#include "tests/unit/test.h"

enum { IDS_MAX = 256 };

/* A router that keeps what it gets as the journal does, and a scheduler that keeps what it is told. */
struct world {
    struct by_tokenizer *t;
    struct detok *d;
    bool has_router;
    char text[8192];
    size_t text_n;
    uint32_t n_ids, n_output, n_frames;
    uint32_t finish;
    char matched[64];
    uint32_t n_cancels, n_finishes;
    struct msg_finish told; /* the last */
};

static bool to_router(void *ctx, uint64_t epoch, const struct msg *m) {
    struct world *w = ctx;
    assert_int_equal(m->kind, MSG_text);
    assert_int_equal(epoch, m->text.name.epoch);
    if (!w->has_router) return false;
    w->n_frames++;
    assert_true(m->text.pos <= w->n_ids);
    assert_true(m->text.offset <= w->text_n);
    size_t end = m->text.offset + m->text.text.n;
    assert_true(end < sizeof w->text);
    if (m->text.text.n) { /* what it has already must be the same */
        size_t old = BY_MIN(w->text_n - m->text.offset, m->text.text.n);
        assert_memory_equal(w->text + m->text.offset, m->text.text.p, old);
        memcpy(w->text + m->text.offset, m->text.text.p, m->text.text.n);
    }
    w->text_n = BY_MAX(w->text_n, end);
    w->n_ids = BY_MAX(w->n_ids, m->text.pos + m->text.ids.n);
    w->n_output = m->text.n_output;
    w->finish = m->text.finish;
    snprintf(w->matched, sizeof w->matched, BY_STR_FMT, BY_STR_ARG(m->text.matched_text));
    return true;
}

static void to_scheduler(void *ctx, const struct msg *m) {
    struct world *w = ctx;
    if (m->kind == MSG_cancel) w->n_cancels++;
    if (m->kind != MSG_finish) return;
    w->n_finishes++;
    w->told = m->finish;
}

static struct world new_world(void) {
    struct world w = {.has_router = true};
    struct by_buf file;
    struct by_err err;
    by_buf_init(&file, 1 << 24);
    if (by_file_read(&file, TEST_VECTORS "/tokenizers/tiny-bbpe-gpt2/tokenizer.json", &err) ||
        by_tokenizer_parse(&w.t, by_buf_str(&file), "tiny", &err))
        fail_msg("%s", err.text);
    by_buf_release(&file);
    return w;
}

static void start(struct world *w) {
    w->d = detok_new(&(struct detok_options){
        .t = w->t, .to_router = to_router, .to_scheduler = to_scheduler, .ctx = w});
}

static void end_world(struct world *w) {
    assert_true(detok_check(w->d));
    detok_free(w->d);
    by_tokenizer_close(w->t);
}

static uint32_t ids_of(struct world *w, const char *text, uint32_t *out) {
    struct by_ids ids;
    struct by_err err;
    by_ids_init(&ids, IDS_MAX);
    struct by_encode_options o = {.allow_special = true};
    assert_int_equal(by_tokenizer_encode(w->t, by_str_of(text), &o, &ids, &err), 0);
    uint32_t n = (uint32_t)ids.n;
    memcpy(out, ids.p, n * sizeof *out);
    by_ids_release(&ids);
    return n;
}

static const struct msg_name name = {.epoch = 7, .rid = 1};

static void send(struct world *w, const uint32_t *ids, uint32_t pos, uint32_t n,
                 struct msg_tokens rest) {
    rest.name = name;
    rest.pos = pos;
    rest.ids = (struct msg_u32s){ids, n};
    if (rest.is_open) rest.n_prompt = 3;
    detok_on_tokens(w->d, &rest, BY_NS_PER_S);
    assert_true(detok_check(w->d));
}

static void expect_text(const struct world *w, const char *want) {
    if (w->text_n != strlen(want) || memcmp(w->text, want, w->text_n) != 0)
        fail_msg("text is \"%.*s\", not \"%s\"", (int)w->text_n, w->text, want);
}

TEST(ids_become_text_token_by_token) {
    UNUSED_STATE;
    struct world w = new_world();
    start(&w);
    uint32_t ids[IDS_MAX], n = ids_of(&w, "Grüße aus 東京 🦙!", ids);
    for (uint32_t i = 0; i < n; i++)
        send(&w, ids, 0, 0, (struct msg_tokens){.is_open = i == 0}),
            send(&w, ids + i, i, 1, (struct msg_tokens){.finish = i + 1 == n ? FINISH_LENGTH : 0});
    expect_text(&w, "Grüße aus 東京 🦙!");
    assert_int_equal(w.finish, FINISH_LENGTH);
    assert_int_equal(w.n_output, n);
    assert_int_equal(w.n_finishes, 0);
    assert_int_equal(detok_n_open(w.d), 0);
    end_world(&w);
}

TEST(a_stop_string_cuts_and_tells_the_scheduler) {
    UNUSED_STATE;
    struct world w = new_world();
    start(&w);
    struct by_str stop[] = {BY_STR("lo, wor")};
    uint32_t ids[IDS_MAX], n = ids_of(&w, "hello, world of words", ids);
    send(&w, ids, 0, n, (struct msg_tokens){.is_open = true, .textual.stop = {stop, 1}});
    expect_text(&w, "hel");
    assert_int_equal(w.finish, FINISH_STOP_TEXT);
    assert_string_equal(w.matched, "lo, wor");
    assert_int_equal(w.n_finishes, 1);
    assert_int_equal(w.told.reason, FINISH_STOP_TEXT);
    assert_int_equal(w.told.n_output, w.n_output);
    assert_int_equal(w.n_ids, w.n_output);
    assert_true(w.n_output < n);
    uint32_t n_frames = w.n_frames; /* README, pitfall 1: these were on their way */
    send(&w, ids, n, 1, (struct msg_tokens){.finish = FINISH_LENGTH});
    assert_int_equal(w.n_frames, n_frames);
    assert_int_equal(w.n_cancels, 0);
    end_world(&w);
}

TEST(no_stop_trim_keeps_the_stop_string_and_the_stop_token) {
    UNUSED_STATE;
    struct world w = new_world();
    start(&w);
    struct by_str stop[] = {BY_STR("wor")};
    uint32_t ids[IDS_MAX], n = ids_of(&w, "hello world", ids), end = ids[n - 1];
    struct msg_textual textual = {.stop = {stop, 1}, .no_stop_trim = true};
    send(&w, ids, 0, n, (struct msg_tokens){.is_open = true, .textual = textual});
    expect_text(&w, "hello wor");
    w.text_n = w.n_ids = 0;
    textual.stop.n = 0;
    send(&w, ids, 0, n,
         (struct msg_tokens){
             .is_open = true, .textual = textual, .finish = FINISH_STOP_ID, .matched_id = end});
    expect_text(&w, "hello world");
    end_world(&w);
}

TEST(a_stop_token_leaves_no_text) {
    UNUSED_STATE;
    struct world w = new_world();
    start(&w);
    uint32_t ids[IDS_MAX], n = ids_of(&w, "hello.", ids);
    send(&w, ids, 0, n,
         (struct msg_tokens){.is_open = true, .finish = FINISH_STOP_ID, .matched_id = ids[n - 1]});
    expect_text(&w, "hello");
    assert_int_equal(w.n_output, n);
    assert_int_equal(w.finish, FINISH_STOP_ID);
    end_world(&w);
}

TEST(a_held_back_beginning_comes_out_at_the_end) {
    UNUSED_STATE;
    struct world w = new_world();
    start(&w);
    struct by_str stop[] = {BY_STR("d of the line")};
    uint32_t ids[IDS_MAX], n = ids_of(&w, "hello world", ids);
    send(&w, ids, 0, n, (struct msg_tokens){.is_open = true, .textual.stop = {stop, 1}});
    expect_text(&w, "hello worl");
    send(&w, ids, n, 0, (struct msg_tokens){.finish = FINISH_LENGTH});
    expect_text(&w, "hello world");
    end_world(&w);
}

TEST(what_came_before_is_dropped_and_a_gap_asks_for_a_replay) {
    UNUSED_STATE;
    struct world w = new_world();
    start(&w);
    uint32_t ids[IDS_MAX], n = ids_of(&w, "one two three four five", ids);
    assert_true(n > 6);
    send(&w, ids, 0, 4, (struct msg_tokens){.is_open = true});
    send(&w, ids + 1, 1, 4, (struct msg_tokens){0}); /* three of them again */
    assert_int_equal(w.n_ids, 5);
    assert_int_equal(w.n_cancels, 0);
    send(&w, ids + 6, 6, 1, (struct msg_tokens){0});
    assert_int_equal(w.n_cancels, 1);
    send(&w, ids + 7, 7, n - 7, (struct msg_tokens){0}); /* it asks once, not for each frame */
    assert_int_equal(w.n_cancels, 1);
    send(&w, ids, 0, n,
         (struct msg_tokens){.is_open = true, .n_delivered = 5, .finish = FINISH_LENGTH});
    expect_text(&w, "one two three four five");
    end_world(&w);
}

TEST(an_unknown_request_asks_for_a_replay) {
    UNUSED_STATE;
    struct world w = new_world();
    start(&w);
    uint32_t ids[IDS_MAX], n = ids_of(&w, "one two three", ids);
    send(&w, ids + 1, 1, n - 1, (struct msg_tokens){0});
    assert_int_equal(w.n_cancels, 1);
    assert_int_equal(w.n_frames, 0);
    end_world(&w);
}

TEST(a_router_that_comes_late_gets_everything) {
    UNUSED_STATE;
    struct world w = new_world();
    start(&w);
    uint32_t ids[IDS_MAX], n = ids_of(&w, "one two three", ids);
    w.has_router = false;
    send(&w, ids, 0, n, (struct msg_tokens){.is_open = true, .finish = FINISH_LENGTH});
    assert_int_equal(w.n_frames, 0);
    w.has_router = true;
    detok_router_up(w.d, 8);
    assert_int_equal(w.n_cancels, 0); /* another router */
    detok_router_up(w.d, name.epoch);
    assert_int_equal(w.n_cancels, 1);
    send(&w, ids, 0, n, (struct msg_tokens){.is_open = true, .finish = FINISH_LENGTH});
    expect_text(&w, "one two three");
    end_world(&w);
}

/* Its new link may come before the old one's end, into which an answer's only frame had gone: the router waited for ever. */
TEST(a_routers_new_session_may_have_lost_what_went_into_the_old_one) {
    UNUSED_STATE;
    struct world w = new_world();
    start(&w);
    uint32_t ids[IDS_MAX], n = ids_of(&w, "one two three", ids);
    send(&w, ids, 0, n, (struct msg_tokens){.is_open = true, .finish = FINISH_LENGTH});
    assert_int_equal(w.n_frames, 1);
    detok_router_up(w.d, name.epoch);
    assert_int_equal(w.n_cancels, 1);
    send(&w, ids, 0, n, (struct msg_tokens){.is_open = true, .finish = FINISH_LENGTH});
    assert_int_equal(w.n_frames, 2);
    end_world(&w);
}

/* A router whose connection flapped asked for the same replay each time; after sixteen the scheduler gave the request up. */
TEST(one_replay_is_asked_for_at_a_time) {
    UNUSED_STATE;
    struct world w = new_world();
    start(&w);
    uint32_t ids[IDS_MAX], n = ids_of(&w, "one two three", ids);
    w.has_router = false;
    send(&w, ids, 0, 2, (struct msg_tokens){.is_open = true});
    w.has_router = true;
    for (int i = 0; i < 20; i++) {
        detok_router_up(w.d, name.epoch);
        detok_router_down(w.d, name.epoch);
    }
    detok_router_up(w.d, name.epoch);
    assert_int_equal(w.n_cancels, 1);
    send(&w, ids + 2, 2, 1, (struct msg_tokens){0}); /* was on its way */
    assert_int_equal(w.n_cancels, 1);
    send(&w, ids, 0, 3, (struct msg_tokens){.is_open = true});
    send(&w, ids + 4, 4, 1, (struct msg_tokens){0}); /* a gap in the replay is asked about anew */
    assert_int_equal(w.n_cancels, 2);
    send(&w, ids, 0, n, (struct msg_tokens){.is_open = true, .finish = FINISH_LENGTH});
    expect_text(&w, "one two three");
    end_world(&w);
}

TEST(a_cancel_forgets_and_ended_requests_are_forgotten_in_time) {
    UNUSED_STATE;
    struct world w = new_world();
    start(&w);
    uint32_t ids[IDS_MAX], n = ids_of(&w, "one two three", ids);
    send(&w, ids, 0, 1, (struct msg_tokens){.is_open = true});
    detok_on_cancel(w.d, &name);
    assert_int_equal(detok_n_requests(w.d), 0);
    w.n_ids = w.text_n = 0;
    send(&w, ids, 0, n, (struct msg_tokens){.is_open = true, .finish = FINISH_LENGTH});
    detok_tick(w.d, BY_NS_PER_S * DETOK_ENDED_S);
    assert_int_equal(detok_n_requests(w.d), 1);
    detok_tick(w.d, BY_NS_PER_S * (DETOK_ENDED_S + 1));
    assert_int_equal(detok_n_requests(w.d), 0);
    end_world(&w);
}

/* Kill the detokenizer anywhere, replay from what the router has acknowledged: the text is the same. */
TEST(a_replay_after_a_kill_gives_the_same_text) {
    UNUSED_STATE;
    uint64_t seed = test_seed();
    static const char whole[] = "one 東京 two 🦙🦙 three: the end of it, and a little more";
    struct by_str stops[] = {BY_STR("never"), BY_STR("e more"), BY_STR("the end")};
    for (int round = 0; round < 200; round++) {
        struct world w = new_world();
        uint32_t ids[IDS_MAX], n = ids_of(&w, whole, ids), n_stops = round % 4;
        const char *want = n_stops == 3 ? "one 東京 two 🦙🦙 three: "
                           : n_stops == 2
                               ? "one 東京 two 🦙🦙 three: the end of it, and a littl"
                               : whole;
        struct msg_textual textual = {.stop = {stops, n_stops}};
        uint32_t at = 0;
        bool is_open = true;
        start(&w);
        while (w.finish == FINISH_NONE) {
            if (by_rand_next(&seed) % 8 == 0) {
                detok_free(w.d);
                start(&w);
                at = 0;
                is_open = true;
            }
            uint32_t any = 1 + (uint32_t)(by_rand_next(&seed) % 6), len = BY_MIN(any, n - at);
            if (is_open) len = BY_MIN(n, BY_MAX(len, w.n_ids));
            uint32_t finish = at + len == n ? FINISH_LENGTH : FINISH_NONE;
            send(&w, ids + at, at, len,
                 (struct msg_tokens){
                     .is_open = is_open,
                     .textual = textual,
                     .finish = finish,
                     .n_delivered = is_open ? (uint32_t)(by_rand_next(&seed) % (w.n_ids + 1)) : 0});
            at += len;
            is_open = false;
        }
        expect_text(&w, want);
        end_world(&w);
    }
}

TEST(nothing_is_leaked) {
    UNUSED_STATE;
    uint64_t before = by_mem_n_live();
    struct world w = new_world();
    start(&w);
    uint32_t ids[IDS_MAX], n = ids_of(&w, "one two three", ids);
    struct by_str stop[] = {BY_STR("xyz")};
    for (uint32_t k = 0; k < 4; k++)
        send(&w, ids, 0, n,
             (struct msg_tokens){.is_open = true, .sample = k, .textual.stop = {stop, 1}});
    assert_int_equal(detok_n_open(w.d), 4);
    end_world(&w);
    assert_int_equal(by_mem_n_live(), before);
}

TESTS(RUN(ids_become_text_token_by_token), RUN(a_stop_string_cuts_and_tells_the_scheduler),
      RUN(no_stop_trim_keeps_the_stop_string_and_the_stop_token), RUN(a_stop_token_leaves_no_text),
      RUN(a_held_back_beginning_comes_out_at_the_end),
      RUN(what_came_before_is_dropped_and_a_gap_asks_for_a_replay),
      RUN(an_unknown_request_asks_for_a_replay), RUN(a_router_that_comes_late_gets_everything),
      RUN(a_routers_new_session_may_have_lost_what_went_into_the_old_one),
      RUN(one_replay_is_asked_for_at_a_time),
      RUN(a_cancel_forgets_and_ended_requests_are_forgotten_in_time),
      RUN(a_replay_after_a_kill_gives_the_same_text), RUN(nothing_is_leaked));
