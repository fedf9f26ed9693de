/* unigram.h - Unigram (SentencePiece): of all ways to cut a word into pieces, the one of the highest sum of scores.
 *
 *     best[i] = the best way to cut word[0..i]; each position is reached from every piece that ends there (Viterbi)
 *     a character that no piece is takes the unknown token at the lowest score - 10; runs of them are one token
 *
 * Always: scores are added in double precision and only a strictly better way replaces another, as Hugging Face does;
 * time is linear in the text (times the longest piece), memory in the longest word.
 * Owner: one thread (scratch space). The vocabulary must outlive it. */
#ifndef COMMON_TEXT_UNIGRAM_H
#define COMMON_TEXT_UNIGRAM_H

#include "common/text/ids.h"
#include "common/text/vocab.h"

struct by_unigram_options {
    bool has_unk;
    uint32_t unk_id;
    bool byte_fallback; /* unknown characters become <0xNN>, if all of these exist */
};

struct by_unigram;

/* scores: [vocab->n], copied. */
BY_MUST_USE int by_unigram_new(struct by_unigram **out, const struct by_vocab *vocab,
                               const double *scores, const struct by_unigram_options *o,
                               struct by_err *err);
void by_unigram_free(struct by_unigram *u); /* NULL is fine */
void by_unigram_freeze(const struct by_unigram *u, struct by_buf *out);
/* NULL and t->is_bad when it is none for this vocabulary. */
struct by_unigram *by_unigram_thaw(struct by_thaw *t, const struct by_vocab *vocab);
/* Appends the ids of one word (valid UTF-8). BY_EFORMAT: it has unknown characters, and there is no token for them. */
BY_MUST_USE int by_unigram_encode(struct by_unigram *u, struct by_str word, struct by_ids *out,
                                  struct by_err *err);

#endif
