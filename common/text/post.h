/* post.h - what the post-processor of a tokenizer.json puts around one text, and around and between two.
 *
 *     [CLS] first [SEP] second [SEP]         pair_at: where the ids of the second text's type begin
 *       0     0     0     1      1
 *
 * The processors are run once, when the file is read, on a text that nobody knows: what remains is ids before and behind it.
 * A processor that says nothing of pairs, or says it so that the texts' order or types are none of the above, leaves
 * is_known false: a pair is then refused.
 * Always: where both texts are of one type (RoBERTa), pair_at is 0.
 * Owner: the tokenizer. */
#ifndef COMMON_TEXT_POST_H
#define COMMON_TEXT_POST_H

#include "common/base/err.h"
#include "common/base/json.h"

enum { BY_POST_IDS_MAX = 64, BY_PAIR_IDS_MAX = 16 };

struct by_post_frame {
    uint32_t before[BY_POST_IDS_MAX], behind[BY_POST_IDS_MAX];
    uint32_t n_before, n_behind;
};

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

/* post: tokenizer.json's post_processor, or NULL. Of one text an error, of two is_known, says what is not done. */
BY_MUST_USE int by_post_read(struct by_post_frame *one, struct by_pair *two,
                             const struct by_json *post, struct by_err *err);

#endif
