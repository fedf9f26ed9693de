/* api_vector.h - what the dialects of embeddings and scores have in common.
 *
 *     body ─▶ one prompt an input, sampling.vector set ─▶ request.c as any other ─▶ journal_entry.vector ─▶ the dialect
 *
 * Always: no stream; the answer is written when every input has its vector, in the order of the inputs.
 * Owner: the loop's thread. */
#ifndef ROUTER_API_VECTOR_H
#define ROUTER_API_VECTOR_H

#include "router/request.h"

enum { VECTOR_INPUTS_MAX = 2048 /* of one embeddings request, as OpenAI has it */ };

/* A prompt that wants a vector, not tokens. */
struct msg_generate api_vector_prompt(enum vector want);
/* model, and what api_read_routing reads. */
BY_MUST_USE int api_vector_read_common(struct request *q, struct msg_generate *m,
                                       struct by_err *err);
/* "usage":{"prompt_tokens":…,"total_tokens":…} */
void api_vector_write_usage(const struct request *q, struct by_buf *out);
uint64_t api_vector_n_prompt(const struct request *q); /* tokens of all inputs */
/* ,"meta_info":{…} of one input, as SGLang's native routes have it. */
void api_vector_write_meta(const struct request *q, const struct journal_entry *e,
                           struct by_buf *out);

#endif
