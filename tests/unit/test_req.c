/* A request's samples: what they keep of prompt logprobs. */
#include "scheduler/req.h"
#include "tests/unit/test.h"

static const uint32_t ids[] = {5, 6, 7, 8};
static const float logprobs[] = {-1, -2, -3};

static struct req *start(struct pool *pool, int32_t logprob_start) {
    struct msg_tokenized m = {
        .name = {1, 2},
        .ids = {ids, 4},
        .sampling = {.n = 1, .max_new_tokens = 4, .logprob_start = logprob_start}};
    return req_new(pool, &m);
}

static void push(struct pool *pool, struct req *req, uint32_t from, uint32_t n) {
    req_push_prompt(
        pool, &req->seqs[0],
        &(struct msg_prompt_logprobs){.start = from, .logprobs = {logprobs + from - 1, n}});
}

/* A worker's first entry is for position 1: the first token has nothing before it. Asked for from 0 on, all were dropped. */
TEST(logprobs_from_the_start_begin_at_the_second_token) {
    UNUSED_STATE;
    struct pool pool;
    pool_init(&pool);
    struct req *req = start(&pool, 0);
    push(&pool, req, 1, 3);
    assert_int_equal(req->seqs[0].n_prompts, 1);
    assert_int_equal(req->seqs[0].prompts[0].start, 1);
    assert_int_equal(req->seqs[0].prompts_next, 4);
    req_free(req, &pool);
    pool_release(&pool);
}

TEST(a_chunk_that_came_before_is_not_kept_twice) {
    UNUSED_STATE;
    struct pool pool;
    pool_init(&pool);
    struct req *req = start(&pool, 2);
    push(&pool, req, 1, 2);
    push(&pool, req, 1, 2);
    push(&pool, req, 2, 2);
    assert_int_equal(req->seqs[0].n_prompts, 2);
    assert_int_equal(req->seqs[0].prompts[0].start, 2);
    assert_int_equal(req->seqs[0].prompts[1].start, 3);
    assert_int_equal(req->seqs[0].prompts[1].logprobs.n, 1);
    req_free(req, &pool);
    pool_release(&pool);
}

TESTS(RUN(logprobs_from_the_start_begin_at_the_second_token),
      RUN(a_chunk_that_came_before_is_not_kept_twice));
