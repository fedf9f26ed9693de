/* decoder.h - from a token's piece to the bytes it adds: tokenizer.json's "decoder".
 *
 *     "Ġhello" ─ByteLevel▶ " hello"     "▁hello" ─Replace ▁▶ " hello" ─Fuse, Strip▶ (first of all) "hello"
 *     "<0xF0>" ─ByteFallback▶ byte F0 of a run       "##ing" ─WordPiece▶ "ing",  "do" ─▶ " do"
 *
 * What Hugging Face runs as a chain over all tokens is worked out here once for each id, for every place but the
 * first; what depends on neighbours is left to by_decoder_state: the first token, runs of byte tokens, what is
 * stripped at the start, repeats that CTC drops, a token that depends on being the last.
 * Always: pushing ids one by one and flushing gives what Hugging Face's decode gives for all of them.
 * What is done and what is refused: README's table.
 * Owner: the decoder is read-only once made. A state belongs to one stream. */
#ifndef COMMON_TEXT_DECODER_H
#define COMMON_TEXT_DECODER_H

#include "common/base/json.h"
#include "common/base/buf.h"
#include "common/text/vocab.h"

enum { BY_DECODER_STEPS_MAX = 16 };

struct by_decoder;

/* j: the "decoder" value; null or missing joins pieces by spaces. */
BY_MUST_USE int by_decoder_parse(struct by_decoder **out, const struct by_json *j,
                                 struct by_err *err);
void by_decoder_free(struct by_decoder *d); /* NULL is fine */
/* Works out every id's bytes. pieces must outlive the decoder. Once. */
BY_MUST_USE int by_decoder_set_pieces(struct by_decoder *d, const struct by_vocab *pieces,
                                      struct by_err *err);
/* What by_decoder_set_pieces found out; pieces as there. */
void by_decoder_freeze(const struct by_decoder *d, struct by_buf *out);
void by_decoder_thaw(struct by_decoder *d, struct by_thaw *t, const struct by_vocab *pieces);
/* The bytes of an id in the middle of a text. */
struct by_str by_decoder_bytes(const struct by_decoder *d, uint32_t id);

struct by_decoder_state {
    bool has_begun;    /* a token has left something: the next one is not the first */
    uint32_t n_strip;  /* characters that may still be stripped at the start */
    uint32_t last_id;  /* CTC drops repeats */
    bool is_space_due; /* BPEDecoder: a word has ended, and another one may follow */
    bool is_held;      /* BPEDecoder: what held_id leaves depends on whether another one follows */
    uint32_t held_id;
    uint32_t n_run; /* bytes of the run of byte tokens at the end of the text */
    /* and those of it that were stripped: a run that is broken is broken with them */
    uint32_t n_gone;
};
void by_decoder_start(const struct by_decoder *d, struct by_decoder_state *s);
/* Appends the id's bytes to text. A run of byte tokens stays as raw bytes at the text's end, n_run of them, until
 * something else follows and settles it. Text is otherwise UTF-8, but at byte level, where bytes
 * make characters only together. */
void by_decoder_push(const struct by_decoder *d, struct by_decoder_state *s, uint32_t id,
                     struct by_buf *text);
/* ends a run, if there is one */
void by_decoder_settle(struct by_decoder_state *s, struct by_buf *text);
/* No token follows: appends what was kept back for that. */
void by_decoder_finish(const struct by_decoder *d, struct by_decoder_state *s, struct by_buf *text);

/* Appends bytes with each broken part as U+FFFD. */
void by_decoder_add_lossy(struct by_buf *out, struct by_str bytes);

#endif
