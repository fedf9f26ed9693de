/* wordpiece.h - WordPiece (BERT): the longest piece that a word begins with, then the longest "##…" that goes on.
 *
 *     "unaffable"  ─▶  un ##aff ##able          no way through: the whole word is [UNK]
 *
 * WordLevel is the degenerate case: a word is a token or unknown.
 * Always: a word longer than max_chars characters is unknown, so time is linear in the text.
 * Owner: read-only once made. The vocabulary must outlive it. */
#ifndef COMMON_TEXT_WORDPIECE_H
#define COMMON_TEXT_WORDPIECE_H

#include "common/text/ids.h"
#include "common/text/vocab.h"

struct by_wordpiece_options {
    struct by_str prefix; /* of pieces that continue a word: "##" */
    uint32_t max_chars;
    bool has_unk;
    uint32_t unk_id;
    bool is_whole_words; /* WordLevel */
};

struct by_wordpiece;

BY_MUST_USE int by_wordpiece_new(struct by_wordpiece **out, const struct by_vocab *vocab,
                                 const struct by_wordpiece_options *o, struct by_err *err);
void by_wordpiece_free(struct by_wordpiece *w); /* NULL is fine */
/* Appends the ids of one word (valid UTF-8). BY_EFORMAT: it is unknown, and the model has no token for that. */
BY_MUST_USE int by_wordpiece_encode(const struct by_wordpiece *w, struct by_str word,
                                    struct by_ids *out, struct by_err *err);

#endif
