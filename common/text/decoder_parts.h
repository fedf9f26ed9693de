/* decoder_parts.h - the steps of a decoder: between decoder.c, which runs them, and decoder_parse.c, which reads them.
 *
 *     {"type": "WordPiece", "prefix": "##"} ─decoder_parse.c─▶ struct by_decoder_step {WORDPIECE, …} ─decoder.c─▶ bytes of each id
 *
 * Always: n <= BY_DECODER_STEPS_MAX; Fuse is no step but is_fused, and so is Strip behind it: strip_start, strip_char.
 * Owner: decoder.c; nobody else includes this. */
#ifndef COMMON_TEXT_DECODER_PARTS_H
#define COMMON_TEXT_DECODER_PARTS_H

#include "common/text/decoder.h"
#include "common/text/regex.h"

enum by_decoder_kind {
    REPLACE,
    REPLACE_REGEX,
    BYTE_FALLBACK,
    BYTE_LEVEL,
    FUSE,
    STRIP,
    METASPACE,
    WORDPIECE,
    SUFFIX, /* BPEDecoder */
    CTC,
    JOIN, /* no decoder at all */
};

struct by_decoder_step {
    enum by_decoder_kind kind;
    char *text, *content; /* ours */
    size_t text_n, content_n;
    uint32_t start, stop; /* STRIP */
    bool flag;            /* METASPACE: the first token loses its marks; WORDPIECE, CTC: clean up */
    struct by_regex *regex;
};

struct by_decoder {
    struct by_decoder_step steps[BY_DECODER_STEPS_MAX];
    unsigned n;    /* steps on single tokens */
    bool is_raw;   /* ByteLevel */
    bool is_fused; /* what follows works on the whole text */
    bool is_first_special, is_last_special, is_ctc;
    uint32_t strip_start;
    uint32_t strip_char;
    const struct by_vocab *pieces;
    struct by_vocab bytes;
    uint8_t *flags;   /* [pieces->n + 1] */
    bool is_borrowed; /* thawed: flags are not ours */
};

#endif
