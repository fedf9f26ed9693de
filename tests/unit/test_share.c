/* Shares of all ranks are the whole; groups stay whole where they can. */
#include "gpu_worker/models/share.h"
#include "tests/unit/test.h"

static struct by_err err;

static struct by_model_info model(uint32_t n_heads, uint32_t n_kv, uint32_t ffn) {
    struct by_model_info m;
    by_model_info_init(&m);
    m.n_heads = n_heads;
    m.n_kv_heads = m.full_kv_heads = n_kv;
    m.ffn = ffn;
    return m;
}

TEST(nine_and_three_heads_on_two_ranks) {
    UNUSED_STATE;
    struct by_model_info m = model(9, 3, 1536);
    struct share a, b;
    assert_int_equal(share_make(&a, &m, false, 0, 2, &err), 0);
    assert_int_equal(share_make(&b, &m, false, 1, 2, &err), 0);
    assert_int_equal(a.kv.n, 1);
    assert_int_equal(a.q.n, 3);
    assert_int_equal(b.kv.first, 1);
    assert_int_equal(b.kv.n, 2);
    assert_int_equal(b.q.first, 3);
    assert_int_equal(b.q.n, 6);
    assert_int_equal(a.ffn.n, 768);
    assert_int_equal(b.ffn.first, 768);
}

TEST(all_shares_are_the_whole) {
    UNUSED_STATE;
    static const uint32_t shapes[][3] = {{9, 3, 1536}, {4, 1, 128}, {4, 2, 160}, {32, 8, 14336},
                                         {8, 8, 96},   {12, 3, 33}, {7, 1, 64}};
    for (size_t i = 0; i < BY_COUNTOF(shapes); i++) {
        struct by_model_info m = model(shapes[i][0], shapes[i][1], shapes[i][2]);
        for (uint32_t world = 1; world <= BY_MIN(m.n_heads, 4u); world++) {
            uint32_t q = 0, ffn = 0, group = m.n_heads / m.n_kv_heads;
            for (uint32_t r = 0; r < world; r++) {
                struct share s;
                assert_int_equal(share_make(&s, &m, false, r, world, &err), 0);
                assert_int_equal(s.q.first, q);
                assert_int_equal(s.ffn.first, ffn);
                for (uint32_t h = s.q.first; h < s.q.first + s.q.n; h++)
                    assert_in_range(h / group, s.kv.first, s.kv.first + s.kv.n - 1);
                /* every key-value head serves as many queries */
                assert_int_equal(s.q.n % s.kv.n, 0);
                q += s.q.n;
                ffn += s.ffn.n;
            }
            assert_int_equal(q, m.n_heads);
            assert_int_equal(ffn, m.ffn);
        }
    }
}

TEST(more_ranks_than_heads_are_refused_with_the_numbers) {
    UNUSED_STATE;
    struct by_model_info m = model(4, 2, 128);
    struct share s;
    assert_int_equal(share_make(&s, &m, false, 0, 5, &err), BY_EINVAL);
    assert_non_null(strstr(err.text, "4 attention heads"));
    m.ffn = 2;
    assert_int_equal(share_make(&s, &m, false, 0, 3, &err), BY_EINVAL);
    assert_non_null(strstr(err.text, "2 columns"));
}

/* Gemma 4: layers without a window have other key-value heads, and queries are parted once for both. */
TEST(both_kinds_of_layers_give_a_rank_the_same_queries) {
    UNUSED_STATE;
    struct by_model_info m = model(32, 16, 128);
    struct share s;
    m.full_kv_heads = 4;
    m.shared_ffn = 256;
    assert_int_equal(share_make(&s, &m, false, 3, 8, &err), 0);
    assert_int_equal(s.q.first, 12);
    assert_int_equal(s.q.n, 4);
    assert_int_equal(s.kv.first, 6);
    assert_int_equal(s.kv.n, 2);
    assert_int_equal(s.full_kv.first, 1);
    assert_int_equal(s.full_kv.n, 1);
    share_apply(&s, &m);
    assert_int_equal(m.full_kv_heads, 1);
    assert_int_equal(m.shared_ffn, 32);
    m = model(8, 4, 128);
    m.full_kv_heads = 1;
    assert_int_equal(share_make(&s, &m, false, 1, 3, &err), BY_EINVAL);
    assert_non_null(strstr(err.text, "part them differently"));
}

TEST(heads_that_are_normed_together_stay_together) {
    UNUSED_STATE;
    struct by_model_info m = model(4, 4, 128);
    struct share s;
    assert_int_equal(share_make(&s, &m, true, 1, 2, &err), 0);
    assert_true(s.is_attention_whole);
    share_apply(&s, &m);
    assert_int_equal(m.n_heads, 4);
    assert_int_equal(m.ffn, 64);
}

TEST(logits_are_shared_in_sixteens) {
    UNUSED_STATE;
    static const uint32_t vocabs[] = {49152, 640, 50257, 33, 20};
    for (size_t i = 0; i < BY_COUNTOF(vocabs); i++) {
        struct by_model_info m = model(8, 8, 96);
        m.vocab = vocabs[i];
        for (uint32_t world = 1; world <= 4; world++) {
            uint32_t at = 0;
            for (uint32_t r = 0; r < world; r++) {
                struct share s;
                assert_int_equal(share_make(&s, &m, false, r, world, &err), 0);
                if (s.vocab.n == m.vocab) { /* too few: each rank has all */
                    assert_true(world == 1 || m.vocab < 16 * world);
                    at = m.vocab;
                    continue;
                }
                assert_int_equal(s.vocab.first, at);
                assert_int_equal(s.vocab.first % 16, 0);
                assert_in_range(s.vocab.n, 1, share_logits_max(&s, m.vocab));
                at += s.vocab.n;
            }
            assert_int_equal(at, m.vocab);
        }
    }
}

TESTS(RUN(logits_are_shared_in_sixteens), RUN(nine_and_three_heads_on_two_ranks),
      RUN(all_shares_are_the_whole), RUN(more_ranks_than_heads_are_refused_with_the_numbers),
      RUN(both_kinds_of_layers_give_a_rank_the_same_queries),
      RUN(heads_that_are_normed_together_stay_together));
