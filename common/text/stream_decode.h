/* stream_decode.h - token ids one at a time → whole characters as soon as they are certain.
 *
 *     ids:   [🦙 first half] [🦙 second half] [" hi"]
 *     out:   ""              "🦙"             " hi"            finish: what is held comes out, broken bytes as U+FFFD
 *
 * Always: what was released, joined, is what by_tokenizer_decode gives for the same ids (the one exception: README,
 * pitfall 3); each release is valid UTF-8; O(1) a token; state bounded by the longest piece. Kept back are a character's
 * bytes, three more where spaces are cleaned up, and a BPEDecoder's token with its suffix in the middle.
 * Owner: one thread; init/release. The tokenizer must outlive it, and is only read. */
#ifndef COMMON_TEXT_STREAM_DECODE_H
#define COMMON_TEXT_STREAM_DECODE_H

#include "common/text/clean.h"
#include "common/text/decoder.h"
#include "common/text/tokenizer.h"

struct by_stream_decode {
    const struct by_tokenizer *t;
    struct by_decode_options o;
    struct by_decoder_state state;
    struct by_buf held; /* bytes not released yet */
    bool is_cleaned;    /* clean_up_tokenization_spaces */
    struct by_clean clean;
    struct by_buf plain; /* text on its way through clean */
};

void by_stream_decode_init(struct by_stream_decode *s, const struct by_tokenizer *t,
                           const struct by_decode_options *o);
void by_stream_decode_release(struct by_stream_decode *s);
/* appends */
void by_stream_decode_push(struct by_stream_decode *s, uint32_t id, struct by_buf *out);
/* appends; s starts anew */
void by_stream_decode_finish(struct by_stream_decode *s, struct by_buf *out);

#endif
