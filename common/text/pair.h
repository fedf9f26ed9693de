/* pair.h - two texts as one list of ids: what the post-processor puts before, between and behind them.
 *
 *     [CLS] first [SEP] second [SEP]         pair_at: where the ids of the second text's type begin
 *       0     0     0     1      1
 *
 * Read from the same post_processor as the template of one text. A processor that says nothing of pairs, or several that
 * do, leaves is_known false: a pair is then refused.
 * Always: where the template gives both texts one type (RoBERTa), pair_at is 0.
 * Owner: the tokenizer. */
#ifndef COMMON_TEXT_PAIR_H
#define COMMON_TEXT_PAIR_H

#include "common/base/err.h"
#include "common/base/json.h"

enum { BY_PAIR_IDS_MAX = 16 };

struct by_pair_part {
    uint32_t ids[BY_PAIR_IDS_MAX];
    uint32_t n;
};
struct by_pair {
    bool is_known;
    bool has_types; /* the second text is of type 1 */
    struct by_pair_part before, between, behind;
    uint32_t n_first; /* of `between`: still of the first text's type */
};

/* post: tokenizer.json's post_processor, or NULL. */
BY_MUST_USE int by_pair_read(struct by_pair *out, const struct by_json *post, struct by_err *err);

#endif
