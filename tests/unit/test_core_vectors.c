/* Requests that want a vector in place of tokens. */
#include "tests/unit/core_world.h"

TEST(a_vector_comes_with_the_end_and_no_token) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 20; rid++)
        w_embed(&w, rid, 0, rid * 9);
    w_submit(&w, 21, 0, 30, 10);
    w_run(&w);
    for (uint32_t rid = 1; rid <= 20; rid++)
        w_assert_vector(&w, rid);
    w_assert_whole(&w, 21);
    for (uint32_t rid = 1; rid <= 21; rid++)
        w_router_says(&w, MSG_ack, rid, 0, 0, true);
    assert_true(core_is_idle(w.core));
    world_stop(&w);
}

/* All but the last position may come from the tree, and the tree learns from it. */
TEST(vectors_and_texts_share_prefixes) {
    UNUSED_STATE;
    struct world w = {.page_size = 4};
    world_start(&w);
    w_submit(&w, 1, 32, 0, 4);
    w_run(&w);
    w_embed(&w, 2, 32, 0);
    w_run(&w);
    w_embed(&w, 3, 32, 9);
    w_run(&w);
    w_submit(&w, 4, 32, 0, 4);
    w_run(&w);
    assert_int_equal(w.req[2].sample[0].n_cached, 28);
    assert_int_equal(w.req[3].sample[0].n_cached, 32);
    w_assert_vector(&w, 2);
    w_assert_vector(&w, 3);
    w_assert_whole(&w, 4);
    world_stop(&w);
}

TEST(a_mean_takes_nothing_from_the_cache) {
    UNUSED_STATE;
    struct world w = {.pools_all = true};
    world_start(&w);
    w_submit(&w, 1, 32, 0, 4);
    w_run(&w);
    w_embed(&w, 2, 32, 0);
    w_embed(&w, 3, 32, 0);
    w_run(&w);
    for (uint32_t rid = 2; rid <= 3; rid++) {
        assert_int_equal(w.req[rid].sample[0].n_cached, 0);
        w_assert_vector(&w, rid);
    }
    w_submit(&w, 4, 32, 0, 4); /* texts do as before */
    w_run(&w);
    assert_int_equal(w.req[4].sample[0].n_cached, 28);
    world_stop(&w);
}

/* However small the chunks are: an encoder's prompt goes into one step, beside others while rows last. */
TEST(an_encoder_s_prompt_is_never_cut) {
    UNUSED_STATE;
    struct world w = {.is_encoder = true, .step_tokens = 100, .opt = {.chunked_prefill_size = 8}};
    world_start(&w);
    for (uint32_t rid = 1; rid <= 40; rid++)
        w_embed(&w, rid, 0, 1 + (rid * 37) % 100);
    w_embed(&w, 41, 0, 100);
    w_run(&w);
    for (uint32_t rid = 1; rid <= 41; rid++) {
        assert_int_equal(w.req[rid].sample[0].n_cached, 0);
        w_assert_vector(&w, rid);
    }
    assert_true(w.n_rows == 41 && w.n_steps < 41); /* a row each, several a step */
    world_stop(&w);
}

TEST(what_the_model_does_not_make_is_refused) {
    UNUSED_STATE;
    struct world w = {.is_encoder = true, .step_tokens = 64};
    world_start(&w);
    w_submit(&w, 1, 0, 10, 4);
    struct w_req *scores = w_prepare(&w, 2, 0, 10, 0);
    scores->sampling.vector = VECTOR_SCORES;
    w_tokenized(&w, 2, NULL, 0);
    w_embed(&w, 3, 0, 65);
    struct w_req *odd = w_prepare(&w, 4, 0, 10, 0);
    odd->sampling.vector = 99;
    w_tokenized(&w, 4, NULL, 0);
    odd = w_prepare(&w, 5, 0, 10, 3); /* a vector and tokens */
    odd->sampling.vector = VECTOR_EMBEDDING;
    w_tokenized(&w, 5, NULL, 0);
    odd = w_prepare(&w, 6, 0, 10, 0);
    odd->sampling.vector = VECTOR_EMBEDDING;
    odd->sampling.pair_at = 10;
    w_tokenized(&w, 6, NULL, 0);
    w_run(&w);
    static const int codes[] = {0,         BY_EUNSUPPORTED, BY_EUNSUPPORTED, BY_ETOOLONG,
                                BY_EINVAL, BY_EINVAL,       BY_EINVAL};
    for (uint32_t rid = 1; rid <= 6; rid++) {
        assert_true(w.req[rid].is_failed);
        assert_int_equal(w.req[rid].code, codes[rid]);
    }
    world_stop(&w);
}

TEST(a_worker_that_brings_no_vector_fails_the_request_only) {
    UNUSED_STATE;
    struct world w = {.makes_no_vectors = true};
    world_start(&w);
    w_embed(&w, 1, 0, 20);
    w_submit(&w, 2, 0, 20, 5);
    w_run(&w);
    assert_true(w.req[1].is_failed);
    assert_int_equal(w.req[1].code, BY_EINTERNAL);
    w_assert_whole(&w, 2);
    world_stop(&w);
}

/* Killed with the prompt half computed, or with its end in flight: it is computed again. */
TEST(a_lost_worker_is_only_a_pause_for_vectors_too) {
    UNUSED_STATE;
    for (uint32_t n_steps = 1; n_steps <= 4; n_steps++) {
        struct world w = {.opt = {.chunked_prefill_size = 16}};
        world_start(&w);
        w_embed(&w, 1, 0, 60);
        for (uint32_t i = 0; i < n_steps; i++) {
            w_step(&w);
            if (i + 1 < n_steps) w_work(&w, 0, 0);
        }
        w_worker_kill(&w, 0);
        w_worker_up(&w, 0);
        w_run(&w);
        w_assert_vector(&w, 1);
        world_stop(&w);
    }
}

TEST(a_failed_step_is_computed_again_for_vectors_too) {
    UNUSED_STATE;
    struct world w = {.is_encoder = true, .step_tokens = 64};
    world_start(&w);
    w_embed(&w, 1, 0, 60);
    w_step(&w);
    assert_true(w_work(&w, 0, BY_EIO));
    w_run(&w);
    w_assert_vector(&w, 1);
    world_stop(&w);
}

/* The vector is kept until the router has it. */
TEST(a_new_detokenizer_gets_the_vector_again) {
    UNUSED_STATE;
    struct world w = {0};
    world_start(&w);
    struct w_req *q = w_embed(&w, 1, 0, 20);
    w_run(&w);
    w_assert_vector(&w, 1);
    q->sample[0].n_vector = 0;
    w_detok_kill(&w);
    w_detok_up(&w);
    w_run(&w);
    w_assert_vector(&w, 1);
    q->sample[0].n_vector = 0;
    w_tokenized(&w, 1, NULL, 0); /* a copy of the live request */
    w_assert_vector(&w, 1);
    world_stop(&w);
}

TEST(an_encoder_that_cannot_take_its_longest_prompt_is_refused) {
    UNUSED_STATE;
    struct world w = {.is_encoder = true, .step_tokens = 64};
    world_start(&w);
    struct msg_hello h = {.role = ROLE_GPU_WORKER,
                          .instance = BY_STR("0"),
                          .epoch = 5,
                          .model = {.n_vocab = W_VOCAB, .context_len = 65, .is_encoder = true},
                          .capacity = {.page_size = w.page_size,
                                       .n_pages = w.n_pages,
                                       .n_slots = w.n_slots,
                                       .step_tokens_max = 64,
                                       .world = 1,
                                       .no_prefix_reuse = true}};
    struct by_err err = {0};
    assert_int_equal(core_admit(w.core, &h, &err), BY_EINVAL);
    h.model.context_len = 64;
    assert_int_equal(core_admit(w.core, &h, &err), 0);
    h.capacity.no_prefix_reuse = false;
    assert_int_equal(core_admit(w.core, &h, &err), BY_EINVAL);
    world_stop(&w);
}

TESTS(RUN(a_vector_comes_with_the_end_and_no_token), RUN(vectors_and_texts_share_prefixes),
      RUN(a_mean_takes_nothing_from_the_cache), RUN(an_encoder_s_prompt_is_never_cut),
      RUN(what_the_model_does_not_make_is_refused),
      RUN(a_worker_that_brings_no_vector_fails_the_request_only),
      RUN(a_lost_worker_is_only_a_pause_for_vectors_too),
      RUN(a_failed_step_is_computed_again_for_vectors_too),
      RUN(a_new_detokenizer_gets_the_vector_again),
      RUN(an_encoder_that_cannot_take_its_longest_prompt_is_refused));
