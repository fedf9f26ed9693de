/* added.h - added tokens: found in the text before (or after) it is normalized, whatever the model would make of it.
 *
 *     "Hi <|im_end|>\n"  ─▶  plain "Hi "  ·  token <|im_end|>  ·  plain "\n"
 *
 * The rules are Hugging Face's: leftmost, longest; lstrip and rstrip take white space along; single_word wants no word
 * character beside it; tokens with `normalized` are looked for in the normalized text, in their own normalized form.
 * Always: the parts are in order and, but for white space taken twice, cover the text.
 * Owner: read-only once finished. */
#ifndef COMMON_TEXT_ADDED_H
#define COMMON_TEXT_ADDED_H

#include "common/base/err.h"
#include "common/text/unicode.h"

enum { BY_ADDED_MAX = 1 << 17, BY_ADDED_BYTES_MAX = 1024 };

struct by_added_token {
    uint32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    struct by_str content; /* as the file writes it */
    struct by_str pattern; /* what is looked for */
};

struct by_added;

struct by_added *by_added_new(const struct by_uni *u);
void by_added_free(struct by_added *a); /* NULL is fine */
/* Copies the strings. An empty content is ignored; the same content again replaces its flags. */
BY_MUST_USE int by_added_put(struct by_added *a, const struct by_added_token *token,
                             struct by_err *err);
void by_added_finish(struct by_added *a); /* builds what finds them; nothing is put afterwards */

uint32_t by_added_n(const struct by_added *a);
const struct by_added_token *by_added_at(const struct by_added *a, uint32_t i);
/* The token so written; NULL: none. */
const struct by_added_token *by_added_get(const struct by_added *a, struct by_str content);
BY_MUST_USE bool by_added_find(const struct by_added *a, struct by_str content, uint32_t *id);

struct by_added_part {
    size_t from, to;
    const struct by_added_token *token; /* NULL: plain text */
};
struct by_added_search {
    bool in_normalized; /* look for the normalized tokens, else for the others */
    bool allow_special; /* else special tokens stay text */
    /* NULL, or a byte for each of the text: not 0 where no special token may touch */
    const uint8_t *user_marks;
    size_t at, done; /* start both at 0 */
    struct by_added_part due;
};
bool by_added_is_clear(const uint8_t *marks, size_t n); /* no mark among them? */
/* The next part; false when the text is used up. */
BY_MUST_USE bool by_added_next(const struct by_added *a, struct by_str text,
                               struct by_added_search *s, struct by_added_part *part);

#endif
