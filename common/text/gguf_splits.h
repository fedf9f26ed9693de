/* gguf_splits.h - how text is split, by the name that a GGUF file has for it.
 *
 *     tokenizer.ggml.pre = "qwen35"  ─▶  the normalizer and pre_tokenizer of that family's tokenizer.json
 *
 * Always: a name stands in one row; what llama.cpp approximates is here as the family's own tokenizer.json has it.
 * Owner: no state. */
#ifndef COMMON_TEXT_GGUF_SPLITS_H
#define COMMON_TEXT_GGUF_SPLITS_H

#include "common/base/str.h"

#include <stdbool.h>

struct by_gguf_split {
    const char *names;                      /* separated by spaces */
    const char *normalizer, *pre_tokenizer; /* JSON */
    bool ignore_merges, add_bos;            /* what such a file need not say */
};

const struct by_gguf_split *by_gguf_split_find(struct by_str pre); /* NULL: not known */

#endif
