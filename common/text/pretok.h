/* pretok.h - cuts text into the words that the model sees: tokenizer.json's "pre_tokenizer".
 *
 *     steps:  [Digits]──▶[ByteLevel]──▶ sink(word)        a word goes through all steps before the next one is cut,
 *                                                          so memory does not grow with the text
 *     behaviors of a step on its matches in "a-b--c":  removed a b c · isolated a - b - - c · merged_with_previous
 *     a- b- - c · merged_with_next a -b - -c · contiguous a - b -- c
 *
 * Always: words are in order and not empty; joined they are the text, but for what a step removes or rewrites.
 * What is done and what is refused: README's table.
 * Owner: one thread (rewriting steps keep scratch space). */
#ifndef COMMON_TEXT_PRETOK_H
#define COMMON_TEXT_PRETOK_H

#include "common/base/json.h"
#include "common/text/unicode.h"
#include "common/text/vocab.h"

enum { BY_PRETOK_STEPS_MAX = 32 };

struct by_pretok;

/* A word, borrowed for the call; a code other than 0 ends the run. */
typedef int by_pretok_sink(void *ctx, struct by_str word, struct by_err *err);

/* j: the "pre_tokenizer" value; null or missing makes one that passes the text on. u must outlive it. */
BY_MUST_USE int by_pretok_parse(struct by_pretok **out, const struct by_json *j,
                                const struct by_uni *u, struct by_err *err);
void by_pretok_free(struct by_pretok *p); /* NULL is fine */
/* A text begins, whatever its parts: what it may take starts anew (regex.h). */
void by_pretok_begin(struct by_pretok *p);
/* Is its last step ByteLevel? Then words stand for bytes, which the model's pieces spell in GPT-2's alphabet. */
bool by_pretok_is_byte_level(const struct by_pretok *p);
/* For a model that knows nothing of that: words are spelled in GPT-2's alphabet from here on, and no longer byte level. */
void by_pretok_spell(struct by_pretok *p);
/* is_first: text begins where the whole input does (Metaspace "first"). */
BY_MUST_USE int by_pretok_run(struct by_pretok *p, struct by_str text, bool is_first,
                              by_pretok_sink *sink, void *ctx, struct by_err *err);

/* Adds a last step that splits between two characters which stand side by side in no piece of v. No merge crosses such a
 * place, so a model for which the whole text is one word gives the same ids, word by word and from the cache. */
void by_pretok_split_between(struct by_pretok *p, const struct by_vocab *v);

/* What these two have added. */
void by_pretok_freeze(const struct by_pretok *p, struct by_buf *out);
void by_pretok_thaw(struct by_pretok *p, struct by_thaw *t);

#endif
