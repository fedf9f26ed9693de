/* Random vocabularies and merges: scan, heap and windows against merging naively, and words cut where no piece crosses. */
#include "common/text/bpe.h"
#include "common/base/rand.h"
#include "common/text/pretok.h"
#include "tests/unit/test.h"

enum { LETTERS = 6, MERGES = 60, WORD_MAX = 300, ROUNDS = 300 };

static uint64_t seed;
static struct by_vocab vocab;
static struct by_str left[MERGES], right[MERGES];
static unsigned n_merges;

static uint64_t roll(uint64_t below) {
    return by_rand_next(&seed) % below;
}

static struct by_str piece(uint32_t id) {
    return by_vocab_get(&vocab, id);
}

/* <0x00> … <0xFF>, six letters, then what pairs of earlier pieces make. */
static void make_vocab(void) {
    char text[512];
    struct by_err err = {0};
    by_vocab_init(&vocab);
    for (unsigned i = 0; i < 256; i++) {
        snprintf(text, sizeof text, "<0x%02X>", i);
        assert_int_equal(by_vocab_put(&vocab, i, by_str_of(text), true, &err), 0);
    }
    for (unsigned i = 0; i < LETTERS; i++) {
        snprintf(text, sizeof text, "%c", (char)('a' + i));
        assert_int_equal(by_vocab_put(&vocab, 256 + i, by_str_of(text), true, &err), 0);
    }
}

static struct by_bpe *make_bpe(void) {
    struct by_err err = {0};
    struct by_bpe_options o = {.byte_fallback = true};
    uint32_t pairs[MERGES][2], n = 256 + LETTERS, unused;
    n_merges = 0;
    make_vocab();
    for (unsigned i = 0; i < MERGES; i++) {
        uint32_t a = 256 + (uint32_t)roll(n - 256), b = 256 + (uint32_t)roll(n - 256);
        char text[512];
        snprintf(text, sizeof text, BY_STR_FMT BY_STR_FMT, BY_STR_ARG(piece(a)),
                 BY_STR_ARG(piece(b)));
        if (strlen(text) > 40 || by_vocab_find(&vocab, by_str_of(text), &unused)) continue;
        assert_int_equal(by_vocab_put(&vocab, n, by_str_of(text), true, &err), 0);
        pairs[n_merges][0] = a;
        pairs[n_merges++][1] = b;
        n++;
    }
    struct by_bpe *bpe = by_bpe_new(&vocab, &vocab, &o, n_merges);
    for (unsigned i = 0; i < n_merges; i++) {
        left[i] = piece(pairs[i][0]);
        right[i] = piece(pairs[i][1]);
        assert_int_equal(by_bpe_add_merge(bpe, left[i], right[i], &err), 0);
    }
    assert_int_equal(by_bpe_end_merges(bpe, &err), 0);
    assert_true(by_bpe_is_literal(bpe));
    return bpe;
}

/* The definition: of all pairs that stand side by side the one of lowest rank, the leftmost of equals, until there is none. */
static size_t merge_naively(const char *word, size_t n, struct by_str *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = (struct by_str){word + i, 1};
    for (;;) {
        unsigned best = n_merges;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            for (unsigned k = 0; k < best; k++) {
                if (!by_str_eq(out[i], left[k]) || !by_str_eq(out[i + 1], right[k])) continue;
                best = k;
                at = i;
            }
        }
        if (best == n_merges) return n;
        out[at].n += out[at + 1].n;
        memmove(out + at + 1, out + at + 2, (n - at - 2) * sizeof *out);
        n--;
    }
}

static int encode_part(void *ctx, struct by_str word, struct by_err *err) {
    void **both = ctx;
    (void)err;
    by_bpe_encode(both[0], word, both[1]);
    return 0;
}

static void check_word(struct by_bpe *bpe, struct by_pretok *cut, struct by_str word) {
    static struct by_str want[WORD_MAX];
    size_t n = merge_naively(word.p, word.n, want);
    struct by_ids got, parts;
    struct by_err err = {0};
    by_ids_init(&got, 4096);
    by_ids_init(&parts, 4096);
    by_bpe_set_window(bpe, 8 + roll(roll(2) ? 64 : 2 * WORD_MAX));
    by_bpe_encode(bpe, word, &got);
    assert_int_equal(got.n, n);
    for (size_t i = 0; i < n; i++)
        assert_true(by_str_eq(piece(got.p[i]), want[i]));
    void *both[] = {bpe, &parts};
    assert_int_equal(by_pretok_run(cut, word, true, encode_part, both, &err), 0);
    assert_int_equal(parts.n, n);
    assert_memory_equal(parts.p, got.p, n * sizeof *got.p);
    by_ids_release(&parts);
    by_ids_release(&got);
}

TEST(words_short_long_windowed_and_cut_equal_naive_merging) {
    UNUSED_STATE;
    seed = test_seed();
    struct by_uni *u = by_uni_new();
    for (int round = 0; round < ROUNDS; round++) {
        struct by_bpe *bpe = make_bpe();
        struct by_pretok *cut = NULL;
        struct by_err err = {0};
        assert_int_equal(by_pretok_parse(&cut, NULL, u, &err), 0);
        by_pretok_split_between(cut, &vocab);
        for (int k = 0; k < 4; k++) {
            char word[WORD_MAX];
            size_t n = 1 + roll(k ? 60 : WORD_MAX - 1);
            for (size_t i = 0; i < n; i++)
                word[i] = (char)('a' + roll(roll(2) ? 2 : LETTERS));
            check_word(bpe, cut, (struct by_str){word, n});
        }
        by_pretok_free(cut);
        by_bpe_free(bpe);
        by_vocab_release(&vocab);
    }
    by_uni_free(u);
}

TEST(a_merge_of_unknown_pieces_is_told) {
    UNUSED_STATE;
    struct by_err err = {0};
    struct by_bpe_options o = {.byte_fallback = true};
    make_vocab();
    struct by_bpe *bpe = by_bpe_new(&vocab, &vocab, &o, 1);
    assert_int_equal(by_bpe_add_merge(bpe, BY_STR("a"), BY_STR("x"), &err), 0);
    assert_int_equal(by_bpe_end_merges(bpe, &err), BY_EFORMAT);
    assert_non_null(strstr(err.text, "merge 0: 'x'"));
    assert_int_equal(by_bpe_add_merge(bpe, BY_STR("a"), BY_STR("b"), &err), 0);
    assert_int_equal(by_bpe_end_merges(bpe, &err), BY_EFORMAT);
    assert_non_null(strstr(err.text, "'ab'"));
    by_bpe_free(bpe);
    by_vocab_release(&vocab);
}

/* A frozen table that says it has no bits had one empty slot, which was sound, and every pair was looked for at key >> 64. */
TEST(a_frozen_table_without_bits_is_refused) {
    UNUSED_STATE;
    enum { ALIGN = 64, SLOT = 16, SLOTS = 1024 };
    struct by_bpe_options o = {.byte_fallback = true};
    struct by_buf good, bad;
    uint32_t bits = 10, none = 0, last = 0;
    uint64_t one = 1;
    make_vocab();
    struct by_bpe *bpe = by_bpe_new(&vocab, &vocab, &o, 0);
    by_buf_init(&good, 1 << 20);
    by_buf_init(&bad, 1 << 20);
    by_bpe_freeze(bpe, &good);
    by_bpe_free(bpe);
    struct by_thaw thaw = {.bytes = by_buf_str(&good)};
    bpe = by_bpe_thaw(&thaw, &vocab, &vocab);
    assert_non_null(bpe);
    by_bpe_free(bpe);
    uint32_t n_head = (uint32_t)good.n - ALIGN - SLOTS * SLOT;
    for (uint32_t at = 0; at + 4 <= n_head; at += 4) /* byte 10 has the id 10, and comes before */
        last = memcmp(good.p + at, &bits, 4) == 0 ? at : last;
    by_buf_add(&bad, good.p, n_head + 2 * ALIGN); /* of the slots only the first four */
    memcpy(bad.p + last, &none, sizeof none);
    memcpy(bad.p + n_head, &one, sizeof one);
    thaw = (struct by_thaw){.bytes = by_buf_str(&bad)};
    bpe = by_bpe_thaw(&thaw, &vocab, &vocab);
    assert_true(!bpe && thaw.is_bad);
    by_buf_release(&bad);
    by_buf_release(&good);
    by_vocab_release(&vocab);
}

TESTS(RUN(words_short_long_windowed_and_cut_equal_naive_merging),
      RUN(a_merge_of_unknown_pieces_is_told), RUN(a_frozen_table_without_bits_is_refused));
