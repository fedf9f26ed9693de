/* builtin.h - chat templates by model family, for models that come without one and for --chat-template NAME.
 *
 *     name      as --chat-template takes it
 *     markers   pieces that must all be in the vocabulary for the family to be taken for granted; none: by name only
 *
 * Written from the formats that the models' makers document. Always: each parses, takes system, user and assistant turns with
 * texts or lists of text parts, and add_generation_prompt; the first row whose markers are all there is the model's.
 * Owner: nobody; constant. deploy/docs/chat_templates.md is made from this table. */
#ifndef COMMON_TEMPLATE_BUILTIN_H
#define COMMON_TEMPLATE_BUILTIN_H

#include "common/base/str.h"

struct by_builtin_template {
    const char *name, *models; /* models: for people */
    const char *markers[3];
    const char *source;
};

const struct by_builtin_template *by_builtin_template_at(size_t i); /* NULL at the end */
const struct by_builtin_template *by_builtin_template_named(struct by_str name); /* NULL: none */
/* For a vocabulary; NULL: none is known to fit. */
const struct by_builtin_template *
by_builtin_template_for(bool (*has_piece)(void *ctx, struct by_str piece), void *ctx);

#endif
