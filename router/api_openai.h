/* api_openai.h - what chat completions and completions have in common.
 * Always: what is written is a piece of JSON that its caller closes.
 * Owner: the loop's thread. */
#ifndef ROUTER_API_OPENAI_H
#define ROUTER_API_OPENAI_H

#include "router/request.h"

struct params;

/* stream, stream_options, rid, extra_key, priority and the fields that are refused by name. Fills m's routing. */
BY_MUST_USE int api_openai_read_common(struct request *q, struct msg_generate *m,
                                       struct by_err *err);
/* A request before it is read: what it does not say is as the model's authors recommend (--sampling-defaults). */
void api_openai_init(const struct request *q, struct params *p, uint32_t max_new_tokens);
/* What was read, as the frame's. The texts of tokens are asked for with logprobs. */
void api_openai_fill(struct msg_generate *m, const struct params *p);
/* {"id":"chatcmpl-…","object":…,"created":…,"model":…   (no closing brace) */
void api_openai_write_head(const struct request *q, const char *prefix, const char *object,
                           struct by_buf *out);
/* "finish_reason":"stop","matched_stop":… */
void api_openai_write_finish(const struct journal_sample *s, const char *reason,
                             struct by_buf *out);
/* The usage event that ends a stream, when asked for. */
void api_openai_write_usage_event(const struct request *q, const char *prefix, const char *object,
                                  struct by_buf *out);
/* What stands for a token in logprobs: its text; "bytes:\\xe2\\x82" when it is no whole characters, so that no two are alike. */
void api_openai_write_token(const struct journal_entry *e, uint32_t id, struct by_buf *out);
/* index among all choices */
uint32_t api_openai_choice(const struct journal_entry *e, uint32_t sample);

#endif
