/* tokenizer_parts.h - what a tokenizer is made of: between tokenizer.c and the readers of its files (from_*.c).
 *
 *     from_json.c ────┐  fills vocab, added, normalize, pretok, model, post, decoder
 *     from_spm.c ─────┤
 *     from_tiktoken.c ┼─▶ struct by_tokenizer ─ by_tokenizer_finish ─▶ ready
 *     from_gguf.c ────┘
 *
 * Always: exactly one of bpe, unigram and wordpiece is the model, once finished.
 * Owner: tokenizer.c; nobody outside common/text includes this. */
#ifndef COMMON_TEXT_TOKENIZER_PARTS_H
#define COMMON_TEXT_TOKENIZER_PARTS_H

#include "common/base/file.h"
#include "common/text/added.h"
#include "common/text/bpe.h"
#include "common/text/decoder.h"
#include "common/text/normalize.h"
#include "common/text/post.h"
#include "common/text/pretok.h"
#include "common/text/tokenizer.h"
#include "common/text/unigram.h"
#include "common/text/word_cache.h"
#include "common/text/wordpiece.h"

enum { BY_TOKENIZER_FILE_MAX = 256 << 20 };

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
    /* every id's piece as the decoder sees it: the model's and the added ones */
    struct by_vocab shown;
    uint8_t *is_special; /* [n_vocab] */
    uint32_t n_vocab;
    struct by_post_frame frame; /* add_special_tokens */
    struct by_pair pair;
    int64_t bos, eos;
    bool clean_up; /* clean_up_tokenization_spaces */
    const char *kind;
    char *parts[3]; /* normalizer, pre-tokenizer, decoder as JSON: what the cache keeps of them */
    struct by_mapped mapped; /* the cache's file, if the arrays lie there */
};

struct by_tokenizer *by_tokenizer_new(void);
/* An added token under the rules of Hugging Face: it takes the model's id when it is a piece of the model, else the
 * next free one. */
BY_MUST_USE int by_tokenizer_add(struct by_tokenizer *t, const struct by_added_token *token,
                                 struct by_err *err);
/* Fills words from vocab: by the bytes that its pieces stand for. */
BY_MUST_USE int by_tokenizer_spell_words(struct by_tokenizer *t, struct by_err *err);
/* Are spaces before punctuation taken out of what is decoded? Not with BPE, whatever the file says: as transformers 5, since
 * there it would take spaces that the model wrote. */
bool by_tokenizer_cleans(const struct by_tokenizer *t, const struct by_decode_options *o);
/* Builds what depends on all parts. */
BY_MUST_USE int by_tokenizer_finish(struct by_tokenizer *t, struct by_err *err);

/* Normalizer, pre-tokenizer and decoder, each written as tokenizer.json writes it. */
BY_MUST_USE int by_tokenizer_set_parts(struct by_tokenizer *t, const char *normalizer,
                                       const char *pre_tokenizer, const char *decoder,
                                       struct by_err *err);
/* The same from slices; an empty one is null. */
BY_MUST_USE int by_tokenizer_parse_parts(struct by_tokenizer *t, struct by_str normalizer,
                                         struct by_str pre_tokenizer, struct by_str decoder,
                                         struct by_err *err);
void by_tokenizer_frame(struct by_tokenizer *t, int64_t before, int64_t behind); /* ids; -1: none */

/* How pieces with scores are used: what transformers makes of a SentencePiece model (from_scores.c). */
enum by_spm_style {
    BY_SPM_LLAMA,     /* each part of the text gets a space in front; the text is one word */
    BY_SPM_LLAMA_NEW, /* only the text's beginning gets one */
    BY_SPM_GEMMA,     /* none does */
    BY_SPM_T5,        /* words, as Metaspace cuts them */
};
struct by_spm {
    enum by_spm_style style;
    bool is_unigram, byte_fallback;
    bool add_dummy_prefix, remove_extra_whitespaces;
    bool is_first_only;     /* "legacy": false */
    struct by_str charsmap; /* its bytes; empty: none */
    int64_t unk_id;         /* -1: none */
    double *scores;         /* [vocab.n] */
};
/* t->vocab is filled; sets the parts and the model. */
BY_MUST_USE int by_tokenizer_from_scores(struct by_tokenizer *t, const struct by_spm *s,
                                         struct by_err *err);
/* t->vocab is filled with pieces in GPT-2's alphabet, whose ids are their ranks. */
BY_MUST_USE int by_tokenizer_from_ranks(struct by_tokenizer *t, struct by_err *err);

/* tokenizer_config.json and the like, for files that do not say all by themselves. NULL members: not there. */
struct by_text_config {
    const struct by_json *tokenizer; /* tokenizer_config.json */
    const struct by_json *added;     /* added_tokens.json */
};

/* The tokens that these list: added_tokens_decoder, added_tokens.json. */
BY_MUST_USE int by_tokenizer_add_config(struct by_tokenizer *t, const struct by_text_config *c,
                                        struct by_err *err);

/* Readers: fill t from one kind of file. */
BY_MUST_USE int by_tokenizer_from_spm(struct by_tokenizer *t, struct by_str bytes,
                                      const struct by_text_config *c, struct by_err *err);
/* file: its name says which pattern and special tokens are meant. */
BY_MUST_USE int by_tokenizer_from_tiktoken(struct by_tokenizer *t, struct by_str bytes,
                                           const char *file, const struct by_text_config *c,
                                           struct by_err *err);
bool by_tokenizer_is_tiktoken(struct by_str bytes); /* "IQ== 0" … and no protobuf? */
BY_MUST_USE int by_tokenizer_from_tekken(struct by_tokenizer *t, struct by_str json,
                                         struct by_err *err);
BY_MUST_USE int by_tokenizer_from_json(struct by_tokenizer *t, struct by_str json,
                                       struct by_err *err);
BY_MUST_USE int by_tokenizer_from_gguf(struct by_tokenizer *t, const struct by_gguf *g,
                                       struct by_err *err);

#endif
