/* options_meant.h - what somebody meant who wrote an option that is none: a slip of the keys, or another server's name for it.
 *
 *     --prot ─▶ the row of port            --max-model-len ─▶ "here it is --context-length"
 *
 * Always: what is far from every option is not guessed at.
 * Owner: nobody; constant. */
#ifndef COMMON_BASE_OPTIONS_MEANT_H
#define COMMON_BASE_OPTIONS_MEANT_H

#include "common/base/options_row.h"

/* One of the two, or neither: then nothing is near enough to be guessed. */
struct by_options_meant {
    const struct by_options_row *row;
    const char *says;
};
/* flag: as on the command line, --prot; among what `who` reads. */
struct by_options_meant by_options_meant(const char *flag, uint32_t who);
/* The same as the end of a sentence: " (did you mean --port?)", "; here it is --context-length" or nothing. */
void by_options_meant_text(const char *flag, uint32_t who, char *out, size_t cap);

/* BANYAN_PORT, as the environment has it. */
void by_options_env_name(const char *name, char out[FLAG_MAX]);
/* Variables that begin as ours do and set nothing, though an option's name is near: a sentence for each. Those that are near to
 * none may be anybody's. */
void by_options_strange_env(void (*tell)(const char *text));

#endif
