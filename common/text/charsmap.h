/* charsmap.h - SentencePiece's compiled character map ("Precompiled").
 *
 *     +------------+---------------------------+-------------------------------+
 *     | u32 n trie | n / 4 units of the trie   | normalized strings, each \0   |      base64 in tokenizer.json
 *     +------------+---------------------------+-------------------------------+
 *     unit: bits 0-7 label, 8 has a leaf, 9 offset is shifted by 8, 10-30 offset; a leaf's unit: 31 set, value = where
 *           its string begins. A child lies at offset ^ label (Yata's double array, as darts-clone stores it).
 *
 * Always: a lookup stays inside the array, whatever the file says; each string is valid UTF-8.
 * Owner: whoever made it; read-only. */
#ifndef COMMON_TEXT_CHARSMAP_H
#define COMMON_TEXT_CHARSMAP_H

#include "common/base/buf.h"
#include "common/base/err.h"

struct by_charsmap;

BY_MUST_USE int by_charsmap_new(struct by_charsmap **out, struct by_str bytes, struct by_err *err);
BY_MUST_USE int by_charsmap_new_base64(struct by_charsmap **out, struct by_str text,
                                       struct by_err *err);
void by_charsmap_free(struct by_charsmap *m); /* NULL is fine */
/* What the shortest prefix of s that the map knows becomes; false when it knows none. */
BY_MUST_USE bool by_charsmap_find(const struct by_charsmap *m, struct by_str s, struct by_str *to);
/* Appends text, mapped as Hugging Face does: by grapheme when that is short, else by character. */
void by_charsmap_apply(const struct by_charsmap *m, struct by_str text, struct by_buf *out);

#endif
