/* params.h - sampling parameters out of JSON: parsed, bounded, defaulted in one place for every dialect.
 *
 *     native   {"sampling_params": {"temperature": 0, "max_new_tokens": 32, …}}     unknown keys are refused by name
 *     OpenAI   {"temperature": 0, "max_tokens": 32, …} beside the other fields       unknown keys are not ours to judge
 *
 * Names, ranges and defaults are SGLang's. null means the default.
 * Always: after success every value lies in its range and every array within proto/limits.h; arrays and strings lie in
 * the arena or borrow from the JSON.
 * Owner: the caller. */
#ifndef ROUTER_PARAMS_H
#define ROUTER_PARAMS_H

#include "common/base/arena.h"
#include "common/base/json.h"
#include "proto/msg.h"

struct params {
    struct msg_sampling sampling;
    struct msg_textual textual;
    bool has_max_new_tokens; /* false: up to the context length */
    bool has_seed;           /* the client's; else it has been drawn */
};

void params_init(struct params *p, uint32_t max_new_tokens); /* 0: up to the context length */
/* obj: the sampling_params object. */
BY_MUST_USE int params_read_native(struct params *p, const struct by_json *obj,
                                   struct by_arena *arena, struct by_err *err);
/* Is it a name of sampling_params? */
bool params_is_native(struct by_str key);
/* body: the whole request; `chat` decides what logprobs means (a flag there, a number in completions). */
BY_MUST_USE int params_read_openai(struct params *p, const struct by_json *body, bool is_chat,
                                   struct by_arena *arena, struct by_err *err);
/* A list of token ids, or one: key names it in errors. */
BY_MUST_USE int params_read_ids(const struct by_json *list, const char *key, uint32_t n_max,
                                struct by_arena *arena, struct msg_u32s *out, struct by_err *err);

/* The i-th name that stands beside OpenAI's other fields: "" for one that does not, NULL behind the last. */
const char *params_openai_name(size_t i);
/* "name": {schema}, … of every parameter, as members of a JSON object (forms.h). */
void params_write_schema(bool is_openai, struct by_buf *out);

#endif
