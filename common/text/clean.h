/* clean.h - clean_up_tokenization_spaces, as transformers does it, on text that comes in pieces.
 *
 *     " ." → "."   " ?" → "?"   " !" → "!"   " ," → ","   " ' " → "'"   " n't" → "n't"   " 'm", " 's", " 've", " 're"
 *
 * One replacement after the other over the whole text: ten stages in a row, each of which keeps back what may yet become
 * what it looks for, so at most three bytes.
 * Always: what push and finish have appended, joined, is what the ten replacements make of the whole text.
 * Owner: one stream. */
#ifndef COMMON_TEXT_CLEAN_H
#define COMMON_TEXT_CLEAN_H

#include "common/base/buf.h"

enum { BY_CLEAN_STAGES = 10 };

struct by_clean {
    uint8_t n_held[BY_CLEAN_STAGES]; /* bytes of its text that a stage has found and keeps back */
    struct by_buf between[2];        /* what one stage gives to the next */
};

void by_clean_init(struct by_clean *c);
void by_clean_release(struct by_clean *c);
/* Both append to out: what is certain; and the rest, after which c starts anew. */
void by_clean_push(struct by_clean *c, struct by_str text, struct by_buf *out);
void by_clean_finish(struct by_clean *c, struct by_buf *out);

#endif
