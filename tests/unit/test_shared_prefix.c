/* Which decoding sequences stand side by side, and what they are said to share. */
#include "gpu_worker/models/shared_prefix.h"

#include "tests/unit/test.h"

enum { PAGE = 16, SEQS_MAX = 40, PAGES = 6 };

/* Tokens in pages that both have, by looking at every pair: the twin. */
static uint32_t common_of(const struct seq_rows *a, const struct seq_rows *b) {
    uint32_t n = BY_MIN(a->position, b->position) / PAGE, i = 0;
    while (i < n && a->pages[i] == b->pages[i])
        i++;
    return i * PAGE;
}

static void check(const struct seq_rows *seqs, uint32_t n_seqs, uint32_t n_decoding) {
    uint32_t order[SEQS_MAX], common[SEQS_MAX];
    bool seen[SEQS_MAX] = {0};
    assert_int_equal(shared_prefix_find(seqs, n_seqs, PAGE, order, common), n_decoding);
    for (uint32_t i = 0; i < n_decoding; i++) {
        uint32_t most = 0, best = 0;
        assert_true(order[i] < n_seqs && seqs[order[i]].n == 1);
        assert_false(seen[order[i]]);
        seen[order[i]] = true;
        assert_int_equal(common[i], i ? common_of(&seqs[order[i - 1]], &seqs[order[i]]) : 0);
        for (uint32_t k = 0; k < n_decoding; k++) {
            if (k != i) most = BY_MAX(most, common_of(&seqs[order[i]], &seqs[order[k]]));
        }
        if (i) best = common[i];
        if (i + 1 < n_decoding)
            best = BY_MAX(best, common_of(&seqs[order[i]], &seqs[order[i + 1]]));
        assert_int_equal(best, most); /* nobody shares more with it than a neighbour */
    }
}

TEST(a_sequence_stands_beside_who_shares_most) {
    UNUSED_STATE;
    static uint32_t pages[SEQS_MAX][PAGES];
    struct seq_rows seqs[SEQS_MAX];
    uint64_t x = 7;
    for (int round = 0; round < 500; round++) {
        uint32_t n_seqs = 1 + (uint32_t)round % SEQS_MAX, n_decoding = 0;
        for (uint32_t s = 0; s < n_seqs; s++) {
            for (uint32_t i = 0; i < PAGES; i++) {
                x = x * 6364136223846793005u + 1442695040888963407u;
                pages[s][i] = (uint32_t)(x >> 33) % 3 + 10 * i;
            }
            seqs[s] = (struct seq_rows){.first = s,
                                        .n = (x >> 40) % 5 ? 1 : 2,
                                        .position = (uint32_t)(x >> 45) % (PAGES * PAGE),
                                        .pages = pages[s]};
            n_decoding += seqs[s].n == 1;
        }
        check(seqs, n_seqs, n_decoding);
    }
}

TEST(the_page_being_written_is_not_shared) {
    UNUSED_STATE;
    static const uint32_t pages[] = {5, 6};
    const struct seq_rows seqs[] = {{.n = 1, .position = 31, .pages = pages},
                                    {.n = 1, .position = 30, .pages = pages}};
    uint32_t order[2], common[2];
    assert_int_equal(shared_prefix_find(seqs, 2, PAGE, order, common), 2);
    assert_int_equal(common[0], 0);
    assert_int_equal(common[1], 16);
}

TESTS(RUN(a_sequence_stands_beside_who_shares_most), RUN(the_page_being_written_is_not_shared));
