#include "router/journal.h"

#include <math.h>

#include "tests/unit/test.h"

static struct journal_entry *put(struct journal *j, uint32_t n) {
    struct msg_generate g = {.text = BY_STR("x"), .sampling = {.n = n, .logprobs = true}};
    return journal_add(j, &g, NULL, 0);
}

static enum journal_result text(struct journal_entry *e, uint32_t pos, uint32_t n,
                                uint32_t finish) {
    static const uint32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const float logprobs[8] = {-1, -2, -3, -4, -5, -6, -7, -8};
    struct msg_text t = {.pos = pos,
                         .ids = {ids + pos, n},
                         .logprobs = {logprobs + pos, n},
                         .offset = pos,
                         .text = {"abcdefgh" + pos, n},
                         .n_prompt = 3,
                         .n_output = pos + n,
                         .finish = finish};
    return journal_take(e, &t);
}

TEST(what_came_twice_counts_once) {
    UNUSED_STATE;
    struct journal j;
    journal_init(&j, 5);
    struct journal_entry *e = put(&j, 1);
    assert_int_equal(text(e, 0, 3, 0), JOURNAL_NEWS);
    assert_int_equal(text(e, 1, 4, 0), JOURNAL_NEWS);
    assert_int_equal(text(e, 6, 1, 0), JOURNAL_GAP);
    assert_int_equal(text(e, 2, 6, FINISH_LENGTH), JOURNAL_NEWS);
    assert_int_equal(text(e, 2, 6, FINISH_LENGTH), JOURNAL_OLD);
    const struct journal_sample *s = &e->samples[0];
    assert_int_equal(s->n_ids, 8);
    assert_true(by_str_eqz(by_buf_str(&s->text), "abcdefgh"));
    for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(s->ids[i], i + 1);
        assert_true(s->logprobs[i] == -(float)(i + 1));
    }
    assert_int_equal(e->n_finished, 1);
    assert_true(journal_check(&j));
    journal_release(&j);
}

/* A replay cuts prompt logprobs at other places than the first run did; a chunk that began with known ones was dropped
 * whole, new ones and all. */
TEST(prompt_logprobs_are_put_together_from_chunks_of_any_size) {
    UNUSED_STATE;
    enum { N = 12 };
    struct journal j;
    float values[N];
    for (uint32_t i = 0; i < N; i++)
        values[i] = -(float)i;
    static const struct {
        uint32_t start, n;
    } chunks[] = {{1, 3}, {4, 2}, {1, 3}, {4, 5}, {2, 1}, {7, 5}};
    journal_init(&j, 5);
    struct journal_entry *e = put(&j, 1);
    for (uint32_t i = 0; i < BY_COUNTOF(chunks); i++) {
        struct msg_prompt_logprobs p = {.start = chunks[i].start,
                                        .logprobs = {values + chunks[i].start, chunks[i].n}};
        struct msg_text t = {.n_prompt = N, .prompts = {&p, 1}};
        assert_int_equal(journal_take(e, &t), JOURNAL_NEWS);
    }
    assert_true(isnan(e->prompt_logprobs[0]));
    for (uint32_t i = 1; i < N; i++)
        assert_true(e->prompt_logprobs[i] == values[i]);
    journal_release(&j);
}

static struct journal_entry *put_called(struct journal *j, const char *client_id) {
    struct msg_generate g = {.text = BY_STR("x"), .routing.client_id = by_str_of(client_id)};
    return journal_add(j, &g, NULL, 0);
}

TEST(an_id_is_its_first_requests_until_that_is_over) {
    UNUSED_STATE;
    struct journal j;
    journal_init(&j, 5);
    struct journal_entry *first = put_called(&j, "a"), *second = put_called(&j, "a"),
                         *other = put_called(&j, "b");
    assert_false(first->is_id_taken || other->is_id_taken || !second->is_id_taken);
    journal_remove(&j, second); /* it was not its own: it frees nothing */
    second = put_called(&j, "a");
    assert_true(second->is_id_taken);
    journal_remove(&j, second);
    journal_remove(&j, first);
    first = put_called(&j, "a");
    assert_false(first->is_id_taken);
    assert_false(put_called(&j, "")->is_id_taken || put_called(&j, "")->is_id_taken);
    journal_release(&j);
}

/* A request that started again was aborted before it had caught up: the client had two ids and paid for none. */
TEST(an_end_does_not_take_back_what_was_delivered) {
    UNUSED_STATE;
    struct journal j;
    journal_init(&j, 5);
    struct journal_entry *e = put(&j, 1);
    text(e, 0, 2, 0);
    assert_int_equal(text(e, 0, 0, FINISH_ABORT), JOURNAL_NEWS);
    assert_int_equal(e->samples[0].n_ids, 2);
    assert_int_equal(e->samples[0].n_output, 2);
    journal_release(&j);
}

/* The same, and the copy ended in the middle of a character that the client had whole: the mark for the half of it was longer
 * than that character, and its last byte went out behind it. Found by the simulation. */
TEST(the_end_of_a_copy_that_is_behind_has_no_text) {
    UNUSED_STATE;
    struct journal j;
    journal_init(&j, 5);
    struct journal_entry *e = put(&j, 1);
    text(e, 0, 2, 0);
    struct msg_text end = {
        .pos = 1, .offset = 1, .text = BY_STR("\xEF\xBF\xBD"), .finish = FINISH_ABORT};
    assert_int_equal(journal_take(e, &end), JOURNAL_NEWS);
    assert_true(by_str_eqz(by_buf_str(&e->samples[0].text), "ab"));
    journal_release(&j);
}

TEST(a_request_that_was_sent_says_what_it_has) {
    UNUSED_STATE;
    struct journal j;
    struct by_arena arena;
    struct msg_generate g;
    by_arena_init(&arena, 0);
    journal_init(&j, 5);
    struct journal_entry *e = put(&j, 2);
    journal_fill_resume(e, &arena, &g);
    assert_int_equal(g.resume.n, 0);
    assert_int_equal(g.name.epoch, 5);
    e->n_sent++;
    text(e, 0, 3, 0);
    journal_fill_resume(e, &arena, &g);
    assert_int_equal(g.resume.n, 2);
    assert_int_equal(g.resume.p[0].ids.n, 3);
    assert_int_equal(g.resume.p[0].n_delivered, 3);
    assert_int_equal(g.resume.p[1].ids.n, 0);
    by_arena_release(&arena);
    journal_release(&j);
}

TESTS(RUN(what_came_twice_counts_once),
      RUN(prompt_logprobs_are_put_together_from_chunks_of_any_size),
      RUN(an_id_is_its_first_requests_until_that_is_over),
      RUN(an_end_does_not_take_back_what_was_delivered),
      RUN(the_end_of_a_copy_that_is_behind_has_no_text),
      RUN(a_request_that_was_sent_says_what_it_has));
