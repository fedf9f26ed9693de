/* tokenizer_parts.h - what a tokenizer is made of: between tokenizer.c and the readers of its files (from_*.c).
 *
 *     from_json.c ─┐  fills vocab, added, normalize, pretok, model, post, decoder
 *     from_gguf.c ─┼─▶ struct by_tokenizer ─ by_tokenizer_finish ─▶ ready
 *     from_spm.c  ─┘
 *
 * Always: exactly one of bpe, unigram and wordpiece is the model, once finished.
 * Owner: tokenizer.c; nobody outside common/text includes this. */
#ifndef COMMON_TEXT_TOKENIZER_PARTS_H
#define COMMON_TEXT_TOKENIZER_PARTS_H

#include "common/text/added.h"
#include "common/text/bpe.h"
#include "common/text/decoder.h"
#include "common/text/normalize.h"
#include "common/text/pretok.h"
#include "common/text/tokenizer.h"
#include "common/text/unigram.h"
#include "common/text/word_cache.h"
#include "common/text/wordpiece.h"

enum { BY_TOKENIZER_FILE_MAX = 256 << 20, BY_POST_IDS_MAX = 64 };

struct by_tokenizer {
    struct by_uni *uni;
    struct by_vocab vocab; /* the model's pieces as the file spells them; only these are found */
    struct by_vocab words; /* byte level with ignore_merges: the same by the bytes they stand for */
    struct by_added *added;
    struct by_normalize *normalize;
    struct by_pretok *pretok;
    struct by_bpe *bpe; /* the model: one of these three */
    struct by_unigram *unigram;
    struct by_wordpiece *wordpiece; /* WordLevel too */
    struct by_cached_word *cache;   /* word_cache.h */
    struct by_decoder *decoder;
    struct by_vocab
        shown; /* every id's piece as the decoder sees it: the model's and the added ones */
    uint8_t *is_special; /* [n_vocab] */
    uint32_t n_vocab;
    uint32_t before[BY_POST_IDS_MAX], behind[BY_POST_IDS_MAX]; /* add_special_tokens */
    uint32_t n_before, n_behind;
    int64_t bos, eos;
    bool clean_up; /* clean_up_tokenization_spaces */
    const char *kind;
};

struct by_tokenizer *by_tokenizer_new(void);
/* An added token under the rules of Hugging Face: it takes the model's id when it is a piece of the model, else the
 * next free one. */
BY_MUST_USE int by_tokenizer_add(struct by_tokenizer *t, const struct by_added_token *token,
                                 struct by_err *err);
/* Fills words from vocab: by the bytes that its pieces stand for. */
BY_MUST_USE int by_tokenizer_spell_words(struct by_tokenizer *t, struct by_err *err);
/* Builds what depends on all parts. */
BY_MUST_USE int by_tokenizer_finish(struct by_tokenizer *t, struct by_err *err);

/* Readers: fill t from one kind of file. */
BY_MUST_USE int by_tokenizer_from_json(struct by_tokenizer *t, struct by_str json,
                                       struct by_err *err);
BY_MUST_USE int by_tokenizer_from_gguf(struct by_tokenizer *t, const struct by_gguf *g,
                                       struct by_err *err);

#endif
