#include "router/carry.h"

#include "tests/unit/test.h"

enum { EPOCH = 9, SENT_MAX = 64 };

struct sent {
    uint32_t link;
    enum msg_kind kind;
    uint64_t rid;
    uint32_t n_resume, n_delivered, n_lost;
    bool is_done;
};
struct world {
    struct journal j;
    struct carry c;
    struct sent sent[SENT_MAX];
    uint32_t n_sent, n_news, n_failed;
    int32_t last_code;
    uint64_t last_rid;
};

static void on_send(void *ctx, uint32_t link, const struct msg *m) {
    struct world *w = ctx;
    assert_true(w->n_sent < SENT_MAX);
    struct sent *s = &w->sent[w->n_sent++];
    *s = (struct sent){.link = link, .kind = m->kind};
    if (m->kind == MSG_generate) {
        s->rid = m->generate.name.rid;
        s->n_resume = m->generate.resume.n;
        s->n_lost = m->generate.n_lost;
        if (s->n_resume) s->n_delivered = m->generate.resume.p[0].n_delivered;
    }
    if (m->kind == MSG_cancel) s->rid = m->cancel.name.rid;
    if (m->kind == MSG_reading) s->is_done = m->reading.is_done;
}
static void on_news(void *ctx, struct journal_entry *e, uint32_t sample) {
    (void)e;
    (void)sample;
    ((struct world *)ctx)->n_news++;
}
static void on_failed(void *ctx, struct journal_entry *e, const struct msg_failed *f) {
    struct world *w = ctx;
    w->n_failed++;
    w->last_code = f->code;
    w->last_rid = e->rid;
    journal_remove(&w->j, e);
}

static void start(struct world *w) {
    *w = (struct world){0};
    journal_init(&w->j, EPOCH);
    carry_init(
        &w->c,
        &(struct carry_options){
            .journal = &w->j, .send = on_send, .news = on_news, .failed = on_failed, .ctx = w});
}
static void stop(struct world *w) {
    assert_true(carry_check(&w->c));
    carry_release(&w->c);
    journal_release(&w->j);
}
static struct journal_entry *put(struct world *w) {
    struct msg_generate g = {.text = BY_STR("x"), .sampling = {.n = 1}};
    struct journal_entry *e = journal_add(&w->j, &g, NULL, 0);
    carry_submit(&w->c, e);
    return e;
}
static void text(struct world *w, uint64_t rid, uint32_t pos, uint32_t n, uint32_t finish) {
    static const uint32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct msg m = {.kind = MSG_text,
                    .text = {.name = {EPOCH, rid},
                             .pos = pos,
                             .ids = {ids, n},
                             .offset = pos,
                             .text = {"abcdefgh", n},
                             .n_prompt = 1,
                             .finish = finish}};
    carry_on_message(&w->c, 5, &m);
    assert_true(carry_check(&w->c));
}
static const struct sent *last(const struct world *w) {
    return &w->sent[w->n_sent - 1];
}

TEST(a_request_waits_for_a_tokenizer_worker) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    put(&w);
    carry_link_up(&w.c, 4, ROLE_DETOKENIZER);
    assert_int_equal(w.n_sent, 0);
    carry_link_up(&w.c, 5, ROLE_TOKENIZER_WORKER);
    assert_int_equal(w.n_sent, 1);
    assert_int_equal(last(&w)->link, 5);
    /* it is a new request, and may be refused for want of room */
    assert_int_equal(last(&w)->n_resume, 0);
    stop(&w);
}

TEST(what_a_lost_worker_had_goes_to_another) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    carry_link_up(&w.c, 5, ROLE_TOKENIZER_WORKER);
    carry_link_up(&w.c, 6, ROLE_TOKENIZER_WORKER);
    put(&w);
    put(&w);
    assert_int_not_equal(w.sent[0].link, w.sent[1].link); /* the least busy one */
    text(&w, 1, 0, 1, 0);                                 /* the scheduler has the first */
    carry_link_down(&w.c, w.sent[1].link, true);
    assert_int_equal(w.n_sent, 3);
    assert_int_equal(last(&w)->rid, 2);
    assert_int_equal(last(&w)->link, w.sent[0].link);
    assert_int_equal(last(&w)->n_resume, 1); /* it may have been accepted: not to be refused now */
    stop(&w);
}

/* A gap was answered by one copy; when the worker that took it died, nobody asked again, because the request had text. */
TEST(a_replay_that_is_lost_with_its_worker_is_sent_again) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    carry_link_up(&w.c, 5, ROLE_TOKENIZER_WORKER);
    put(&w);
    text(&w, 1, 0, 2, 0);
    text(&w, 1, 4, 1, 0); /* a gap */
    assert_int_equal(w.n_sent, 2);
    assert_int_equal(last(&w)->n_delivered, 2);
    text(&w, 1, 5, 1, 0); /* asked for already */
    assert_int_equal(w.n_sent, 2);
    carry_link_down(&w.c, 5, true);
    assert_int_equal(w.n_sent, 2);
    carry_link_up(&w.c, 6, ROLE_TOKENIZER_WORKER);
    assert_int_equal(w.n_sent, 3);
    text(&w, 1, 0, 8, FINISH_LENGTH);
    assert_int_equal(w.n_news, 2);
    stop(&w);
}

/* Text of the life before came after the copy was sent; that copy was lost, and was not sent again: news had come. */
TEST(text_is_no_proof_that_a_copy_arrived) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    carry_link_up(&w.c, 5, ROLE_TOKENIZER_WORKER);
    put(&w);
    text(&w, 1, 0, 2, 0);
    carry_scheduler_up(&w.c);       /* a new one: a copy goes out */
    text(&w, 1, 2, 1, 0);           /* was on its way from the old one */
    carry_link_down(&w.c, 5, true); /* and the copy is lost */
    carry_link_up(&w.c, 6, ROLE_TOKENIZER_WORKER);
    assert_int_equal(w.n_sent, 3);
    assert_int_equal(last(&w)->n_delivered, 3);
    stop(&w);
}

TEST(a_new_scheduler_gets_all_that_is_owed) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    carry_link_up(&w.c, 5, ROLE_TOKENIZER_WORKER);
    put(&w);
    put(&w);
    put(&w);
    text(&w, 1, 0, 3, 0);
    text(&w, 2, 0, 3, FINISH_LENGTH); /* ended: nothing is owed */
    carry_scheduler_up(&w.c);
    assert_int_equal(w.n_sent, 5);
    assert_int_equal(w.sent[3].rid, 1); /* in the order they came */
    assert_int_equal(w.sent[4].rid, 3);
    stop(&w);
}

/* One whose only frame carried its end was not cancelled: the scheduler kept its log for ever. */
TEST(text_for_nobody_is_cancelled_even_when_it_is_the_end) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    carry_scheduler_up(&w.c);
    text(&w, 77, 0, 3, FINISH_LENGTH);
    assert_int_equal(w.n_sent, 1);
    assert_int_equal(last(&w)->kind, MSG_cancel);
    assert_int_equal(last(&w)->rid, 77);
    stop(&w);
}

/* The scheduler had a new session with the router while its welcome was on the way: requests ran to their end, the final
 * acks went nowhere, and the scheduler kept their logs. */
TEST(ends_between_two_sessions_are_told_in_the_next) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    carry_link_up(&w.c, 5, ROLE_TOKENIZER_WORKER);
    struct journal_entry *a = put(&w), *b = put(&w);
    text(&w, 1, 0, 3, FINISH_LENGTH);
    carry_ack(&w.c, a, 0, true);
    journal_remove(&w.j, a);
    carry_cancel(&w.c, b);
    journal_remove(&w.j, b);
    text(&w, 9, 0, 1, 0);
    assert_int_equal(w.n_sent, 2);
    carry_scheduler_up(&w.c);
    assert_int_equal(w.n_sent, 5);
    assert_int_equal(w.sent[2].kind, MSG_ack);
    assert_int_equal(w.sent[3].kind, MSG_cancel);
    assert_int_equal(w.sent[3].rid, 2);
    assert_int_equal(w.sent[4].rid, 9);
    carry_scheduler_down(&w.c);
    carry_scheduler_up(&w.c);
    assert_int_equal(w.n_sent, 5); /* once */
    stop(&w);
}

/* The scheduler that knew of the slow reader is gone; the one that took over sent on, and the router took it all. */
TEST(a_new_scheduler_learns_who_reads_slowly) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    carry_link_up(&w.c, 5, ROLE_TOKENIZER_WORKER);
    carry_scheduler_up(&w.c);
    struct journal_entry *e = put(&w);
    carry_pause(&w.c, e, true);
    assert_int_equal(last(&w)->kind, MSG_pause);
    carry_scheduler_down(&w.c);
    carry_scheduler_up(&w.c);
    text(&w, 1, 0, 1, 0);
    assert_int_equal(last(&w)->kind, MSG_pause);
    carry_pause(&w.c, e, false);
    text(&w, 1, 1, 1, 0);
    assert_int_equal(last(&w)->kind, MSG_unpause);
    stop(&w);
}

TEST(an_error_ends_it) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    carry_link_up(&w.c, 5, ROLE_TOKENIZER_WORKER);
    put(&w);
    struct msg m = {.kind = MSG_failed, .failed = {.name = {EPOCH, 1}, .code = BY_EFULL}};
    carry_on_message(&w.c, 5, &m);
    carry_on_message(&w.c, 5, &m);
    assert_int_equal(w.n_failed, 1);
    stop(&w);
}

/* The first copy was refused for want of room, the second accepted before that was known; its client had been told the
 * error, and it stayed with the scheduler. */
TEST(an_error_of_one_copy_cancels_the_others) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    carry_scheduler_up(&w.c);
    carry_link_up(&w.c, 5, ROLE_TOKENIZER_WORKER);
    carry_link_up(&w.c, 6, ROLE_TOKENIZER_WORKER);
    put(&w);
    carry_link_down(&w.c, w.sent[0].link, true);
    assert_int_equal(w.n_sent, 2);
    struct msg m = {.kind = MSG_failed, .failed = {.name = {EPOCH, 1}, .code = BY_EFULL}};
    carry_on_message(&w.c, 5, &m);
    assert_int_equal(w.n_failed, 1);
    assert_int_equal(last(&w)->kind, MSG_cancel);
    stop(&w);
}

static void reading(struct world *w, uint32_t link, uint64_t rid, bool is_done) {
    struct msg m = {.kind = MSG_reading, .reading = {.name = {EPOCH, rid}, .is_done = is_done}};
    carry_on_message(&w->c, link, &m);
    assert_true(carry_check(&w->c));
    if (is_done) return;
    assert_int_equal(last(w)->kind, MSG_reading); /* the answer */
    assert_int_equal(last(w)->link, link);
}

/* A request that killed who read it killed the next one too, for as long as its client waited. */
TEST(what_kills_whoever_reads_it_is_refused) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    carry_scheduler_up(&w.c);
    carry_link_up(&w.c, 1, ROLE_TOKENIZER_WORKER);
    put(&w);
    text(&w, 1, 0, 1, 0); /* read long ago */
    put(&w);              /* before it, it, behind it */
    put(&w);
    put(&w);
    for (uint32_t i = 1; i <= 1 + CARRY_KILLED_MAX; i++) {
        assert_int_equal(w.n_failed, 0);
        w.n_sent = 0;
        carry_link_down(&w.c, i, true);
        assert_int_equal(w.n_failed, i > CARRY_KILLED_MAX);
        carry_link_up(&w.c, i + 1, ROLE_TOKENIZER_WORKER);
        assert_int_equal(w.sent[0].n_lost, 0);
        if (i > CARRY_KILLED_MAX) break;
        assert_int_equal(w.sent[2].rid, 3);
        assert_int_equal(w.sent[2].n_lost, i);
        if (i == 1) reading(&w, i + 1, 2, false);
        if (i == 1) reading(&w, i + 1, 2, true);
        assert_int_equal(w.sent[1].n_lost, i == 1); /* whoever dies now, it is not its fault */
        reading(&w, i + 1, 3, false);
    }
    assert_int_equal(w.last_code, BY_EPOISON);
    assert_int_equal(w.last_rid, 3);
    assert_int_equal(w.n_failed, 1);
    assert_int_equal(w.sent[w.n_sent - 1].rid, 4);
    assert_int_equal(w.sent[w.n_sent - 1].n_lost, 0); /* cleared: it stood behind the guilty one */
    stop(&w);
}

TEST(who_was_not_being_read_is_never_refused) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    put(&w);
    put(&w);
    for (uint32_t i = 1; i <= 20; i++) {
        w.n_sent = 0;
        carry_link_up(&w.c, i, ROLE_TOKENIZER_WORKER);
        assert_int_equal(w.n_sent, 2);
        if (i > 1) reading(&w, i, 1, false);
        if (i > 1) reading(&w, i, 1, true);
        carry_link_down(&w.c, i, true);
    }
    assert_int_equal(w.n_failed, 0);
    stop(&w);
}

/* A worker that lost the scheduler ends its sessions, and lives: four of them were taken for four deaths (seeds 240727 and
 * 114566 of the simulation). */
TEST(a_session_that_ends_is_no_death) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    put(&w);
    for (uint32_t i = 1; i <= 2 + CARRY_KILLED_MAX; i++) {
        w.n_sent = 0;
        carry_link_up(&w.c, i, ROLE_TOKENIZER_WORKER);
        assert_int_equal(w.n_sent, 1);
        assert_int_equal(w.sent[0].n_lost, 0);
        reading(&w, i, 1, false);
        carry_link_down(&w.c, i, false);
    }
    assert_int_equal(w.n_failed, 0);
    stop(&w);
}

TEST(what_was_sent_elsewhere_is_not_read_twice) {
    UNUSED_STATE;
    struct world w;
    start(&w);
    carry_link_up(&w.c, 1, ROLE_TOKENIZER_WORKER);
    put(&w);
    reading(&w, 1, 1, false);
    assert_false(last(&w)->is_done);
    reading(&w, 2, 1, false); /* has an old copy */
    assert_true(last(&w)->is_done);
    reading(&w, 1, 77, false); /* its client is gone */
    assert_true(last(&w)->is_done);
    stop(&w);
}

TESTS(RUN(a_request_waits_for_a_tokenizer_worker), RUN(what_a_lost_worker_had_goes_to_another),
      RUN(a_replay_that_is_lost_with_its_worker_is_sent_again),
      RUN(text_is_no_proof_that_a_copy_arrived), RUN(a_new_scheduler_gets_all_that_is_owed),
      RUN(text_for_nobody_is_cancelled_even_when_it_is_the_end),
      RUN(ends_between_two_sessions_are_told_in_the_next),
      RUN(a_new_scheduler_learns_who_reads_slowly), RUN(an_error_ends_it),
      RUN(an_error_of_one_copy_cancels_the_others), RUN(what_kills_whoever_reads_it_is_refused),
      RUN(who_was_not_being_read_is_never_refused), RUN(a_session_that_ends_is_no_death),
      RUN(what_was_sent_elsewhere_is_not_read_twice));
