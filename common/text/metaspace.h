/* metaspace.h - the settings of Metaspace, which a pre-tokenizer and a decoder both may be.
 *
 *     {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true, "add_prefix_space": true}
 *
 * Always: mark is one character; an older file's add_prefix_space: false is the scheme "never".
 * Owner: the caller; mark is borrowed from j. */
#ifndef COMMON_TEXT_METASPACE_H
#define COMMON_TEXT_METASPACE_H

#include "common/base/err.h"
#include "common/base/json.h"

enum by_metaspace_scheme { BY_PREPEND_ALWAYS, BY_PREPEND_FIRST, BY_PREPEND_NEVER };

struct by_metaspace {
    struct by_str mark;
    enum by_metaspace_scheme scheme; /* where a mark is put before a text that has none */
    bool is_split;                   /* words begin with the mark */
};

/* where: "pre_tokenizer" or "decoder", for the sentence of an error. */
BY_MUST_USE int by_metaspace_parse(struct by_metaspace *m, const struct by_json *j,
                                   const char *where, struct by_err *err);

#endif
