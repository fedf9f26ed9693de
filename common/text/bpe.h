/* bpe.h - byte pair encoding: a word becomes the symbols that are left when no known pair stands side by side.
 *
 *     h u g s      merges: 0 "u g" → ug   1 "h ug" → hug      lowest rank first, leftmost of equals
 *     h ug  s      ranks[i] = rank of the pair (i, i + 1)
 *     hug   s
 *
 * Short words: scan ranks for the least. Long ones: a heap of (rank, position), stale entries dropped when they come
 * up. Very long ones: window by window, each as a long one; linear, no recursion.
 * Always: the result equals merging naively (test_bpe's twin); memory is four bytes a byte of the longest word.
 * Owner: one thread (scratch space lives inside). The vocabulary must outlive it. */
#ifndef COMMON_TEXT_BPE_H
#define COMMON_TEXT_BPE_H

#include "common/text/ids.h"
#include "common/text/vocab.h"

enum { BY_MERGES_MAX = 1 << 22 };

struct by_bpe_options {
    bool is_byte_level; /* a symbol a byte, named by GPT-2's alphabet; else a symbol a character */
    bool ignore_merges; /* a word that is a token is that token, whatever the merges say */
    bool byte_fallback; /* an unknown character becomes <0xE2> <0x96> <0x81> */
    bool fuse_unk;      /* a run of unknown characters is one unknown token */
    bool has_unk;       /* else unknown characters vanish */
    uint32_t unk_id;
    struct by_str prefix; /* continuing_subword_prefix; copied */
    struct by_str suffix; /* end_of_word_suffix; likewise */
};

struct by_bpe;

/* vocab: pieces as the file names them. words: under the bytes they stand for, for ignore_merges (may be vocab). */
struct by_bpe *by_bpe_new(const struct by_vocab *vocab, const struct by_vocab *words,
                          const struct by_bpe_options *o, uint32_t n_merges);
void by_bpe_free(struct by_bpe *b); /* NULL is fine */
/* The next merge in order of rank; by_bpe_end_merges after the last. They are looked up some at a time, so an error may
 * be of an earlier one. BY_EFORMAT: left, right or both together are no tokens. */
BY_MUST_USE int by_bpe_add_merge(struct by_bpe *b, struct by_str left, struct by_str right,
                                 struct by_err *err);
BY_MUST_USE int by_bpe_end_merges(struct by_bpe *b, struct by_err *err);
/* The same when all three are known: tiktoken ranks, scores. */
void by_bpe_put_merge(struct by_bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t id);
uint32_t by_bpe_n_merges(const struct by_bpe *b);
/* Do symbols stand for characters and pieces for what they spell, so that a word may be cut where no piece crosses? */
bool by_bpe_is_literal(const struct by_bpe *b);
void by_bpe_finish(struct by_bpe *b); /* after the last merge, or once thawed: what makes it fast */
void by_bpe_shrink(struct by_bpe *b); /* no more room than its merges need */
void by_bpe_freeze(const struct by_bpe *b, struct by_buf *out);
/* NULL and t->is_bad when it is none for this vocabulary. Prefix and suffix point into t. */
struct by_bpe *by_bpe_thaw(struct by_thaw *t, const struct by_vocab *vocab,
                           const struct by_vocab *words);
/* For tests: symbols from which on a word is merged in windows, at least 8. */
void by_bpe_set_window(struct by_bpe *b, size_t window);
/* Appends the ids of one word (valid UTF-8 unless byte level). */
void by_bpe_encode(struct by_bpe *b, struct by_str word, struct by_ids *out);

#endif
