/* tokenizer.h - text ↔ token ids, exactly as Hugging Face's tokenizers does it. The face of this room.
 *
 *     text ─▶ added tokens cut out ─▶ normalize ─▶ pretok ─▶ model (bpe, unigram, wordpiece) ─▶ template ─▶ ids
 *     ids ─▶ pieces ─▶ decoder ─▶ text                               (one id at a time: stream_decode.h)
 *
 *     folder: tokenizer.json, else tekken.json, tokenizer.model (SentencePiece, Llama 3), *.tiktoken; and
 *             tokenizer_config.json, special_tokens_map.json, added_tokens.json for what these do not say.
 *     GGUF: tokenizer.ggml.*
 *
 * Always: ids < by_tokenizer_n_vocab; the same text gives the same ids; time is linear in the text but for a
 * logarithm; what the files name and we do not do is refused by name when the tokenizer is opened.
 * Owner: one thread (encode keeps a cache of words and scratch space). Borrowed strings live as long as it does. */
#ifndef COMMON_TEXT_TOKENIZER_H
#define COMMON_TEXT_TOKENIZER_H

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/modelfile/model_dir.h"
#include "common/text/ids.h"

enum { BY_TEXT_BYTES_MAX = 64 << 20 }; /* longest text that encode takes */

struct by_tokenizer;

/* The model directory may be closed afterwards. */
BY_MUST_USE int by_tokenizer_open(struct by_tokenizer **out, const struct by_model_dir *dir,
                                  struct by_err *err);
/* The same by way of a cached form ($BANYAN_CACHE, else the user's cache folder), written when there is none that fits: a
 * large vocabulary is then mapped in place, which takes milliseconds, and processes share it. */
BY_MUST_USE int by_tokenizer_open_cached(struct by_tokenizer **out, const struct by_model_dir *dir,
                                         struct by_err *err);
/* The file of a folder that by_tokenizer_open would read; NULL: there is none. */
const char *by_tokenizer_file_of(const struct by_model_dir *dir);
/* From a tokenizer.json's bytes alone: tests, fuzzers. `name` begins the errors. */
BY_MUST_USE int by_tokenizer_parse(struct by_tokenizer **out, struct by_str json, const char *name,
                                   struct by_err *err);
/* Likewise, of the kind that the file's name says: "tekken.json", "tokenizer.model", "cl100k_base.tiktoken", … */
BY_MUST_USE int by_tokenizer_parse_as(struct by_tokenizer **out, struct by_str bytes,
                                      const char *file, struct by_err *err);
void by_tokenizer_close(struct by_tokenizer *t); /* NULL is fine */

struct by_encode_options {
    bool add_special_tokens; /* what the post-processor adds: <s> … */
    /* special tokens written out in the text become their ids; else they stay text */
    bool allow_special;
    /* NULL, or one byte for each byte of the text: not 0 where a user wrote it, and then no special token may touch it,
     * allow_special or not (a chat template's result; common/template). */
    const uint8_t *user_marks;
    /* ids at most: what is left of the text is cut off, not the special tokens; 0: no limit */
    uint32_t n_max;
};
/* Appends to out. BY_EFORMAT: the text is not UTF-8. BY_ELIMIT: too long, or out is full. */
BY_MUST_USE int by_tokenizer_encode(struct by_tokenizer *t, struct by_str text,
                                    const struct by_encode_options *o, struct by_ids *out,
                                    struct by_err *err);

/* Two texts with what the post-processor puts around and between them, for models that judge pairs. *pair_at: where, from
 * out->n on, the second text's token type begins; 0: both have one type. Of o, n_max cuts the second text.
 * BY_EUNSUPPORTED: the tokenizer knows no pairs. */
BY_MUST_USE int by_tokenizer_encode_pair(struct by_tokenizer *t, struct by_str first,
                                         struct by_str second, const struct by_encode_options *o,
                                         struct by_ids *out, uint32_t *pair_at, struct by_err *err);

struct by_decode_options {
    bool skip_special_tokens;
    /* do not clean up, whatever tokenizer_config.json's clean_up_tokenization_spaces says */
    bool keep_spaces;
};
/* Appends to out; out->is_full when it did not fit. Ids out of range leave no text. Always valid UTF-8. */
void by_tokenizer_decode(const struct by_tokenizer *t, const uint32_t *ids, size_t n,
                         const struct by_decode_options *o, struct by_buf *out);

uint32_t
by_tokenizer_n_vocab(const struct by_tokenizer *t); /* highest id + 1; there may be holes */
/* The piece as the file writes it ("Ġhello", "▁hello", "##lo"); empty for a hole or an id out of range. */
struct by_str by_tokenizer_piece(const struct by_tokenizer *t, uint32_t id);
/* The bytes that the id adds in the middle of a text (" hello"); for a grammar's mask. Not always UTF-8. */
struct by_str by_tokenizer_bytes(const struct by_tokenizer *t, uint32_t id);
BY_MUST_USE bool by_tokenizer_find(const struct by_tokenizer *t, struct by_str piece, uint32_t *id);
/* skip_special_tokens leaves it out */
bool by_tokenizer_is_special(const struct by_tokenizer *t, uint32_t id);
int64_t by_tokenizer_bos(const struct by_tokenizer *t); /* -1: none */
int64_t by_tokenizer_eos(const struct by_tokenizer *t); /* -1: none */
const char *
by_tokenizer_kind(const struct by_tokenizer *t); /* "BPE", "Unigram", "WordPiece", "WordLevel" */

#endif
