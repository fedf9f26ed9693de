/* pieces.h - the bytes of the tokens that a text frame names, for who shows log probabilities as text.
 *
 *     ids [7 9] tops [[7 4] [9 2]] prompt ids [1 7]  ─▶  piece_ids [7 9 4 2 1]  piece_lens [3 1 …]  piece_bytes "the," …
 *
 * Always: an id stands there once a frame. A piece is what the id adds in the middle of a text, so it need not be UTF-8.
 * Owner: the detokenizer's thread; what pieces_fill points the frame at lives until the next call. */
#ifndef DETOKENIZER_PIECES_H
#define DETOKENIZER_PIECES_H

#include "common/base/map.h"
#include "common/text/ids.h"
#include "common/text/tokenizer.h"
#include "proto/msg.h"

struct pieces {
    const struct by_tokenizer *t;
    struct by_map seen; /* id → anything */
    struct by_ids ids, lens;
    struct by_buf bytes;
};

void pieces_init(struct pieces *p, const struct by_tokenizer *t);
void pieces_release(struct pieces *p);
void pieces_fill(struct pieces *p, struct msg_text *t);

#endif
