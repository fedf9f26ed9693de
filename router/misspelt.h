/* misspelt.h - a field of a body that is none, and nearly one: it changes nothing, and nobody is told but by the log.
 *
 *     {"max_token": 5}  on a path whose form (forms.h) has max_tokens  ─▶  one line, once for each name of ours
 *
 * OpenAI refuses such a field, SGLang and vLLM ignore it; so do we, since clients send what others may know. What is far from every
 * name is anybody's.
 * Always: only so many members of a body are looked at, and a name is told once.
 * Owner: the loop's thread. */
#ifndef ROUTER_MISSPELT_H
#define ROUTER_MISSPELT_H

#include "common/base/json.h"
#include "common/base/map.h"
#include "router/forms.h"

/* told: the names that the log has named already. */
void misspelt_tell(const struct form *form, const struct by_json *body, struct by_str path,
                   struct by_strmap *told);

#endif
