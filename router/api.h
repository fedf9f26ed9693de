/* api.h - every handler of the route table, and what the dialects share.
 *
 * Always: a handler answers on the connection, now or later, exactly once.
 * Owner: the loop's thread. */
#ifndef ROUTER_API_H
#define ROUTER_API_H

#include "router/request.h"

typedef void api_handler(struct router *r, struct conn *c, const struct http1_request *req);

api_handler api_generate;                                           /* api_native.c */
api_handler api_chat;                                               /* api_openai_chat.c */
api_handler api_responses;                                          /* api_responses.c */
api_handler api_messages, api_count_tokens;                         /* api_anthropic.c */
api_handler api_completions;                                        /* api_openai_completions.c */
api_handler api_models, api_model, api_model_info, api_server_info; /* api_models.c */
api_handler api_loads, api_metrics;                                 /* api_loads.c */
api_handler api_health, api_health_generate, api_ready;             /* api_admin.c */
api_handler api_drain, api_drain_end, api_root, api_openapi;
api_handler api_cache, api_flush_cache, api_abort, api_update_weights;
api_handler api_tokenize, api_detokenize, api_tokenizer_info, api_apply_template; /* api_text.c */
api_handler api_parse_function_call, api_separate_reasoning;                      /* api_parse.c */

/* api_ollama.c */
api_handler api_ollama_chat, api_ollama_generate, api_ollama_tags, api_ollama_show;
api_handler api_ollama_ps, api_ollama_version;
/* api_embed.c */
api_handler api_embeddings, api_encode, api_classify, api_ollama_embed, api_ollama_embeddings;
api_handler api_rerank, api_cohere_rerank, api_score; /* api_score.c */

#define API_PROMETHEUS "text/plain; version=0.0.4; charset=utf-8"

/* A question to the scheduler whose answer a client waits for; uplink_ask_scheduler's ctx. api_loads.c */
struct api_pending {
    struct router *router;
    struct conn *conn;  /* NULL: the client has left */
    bool as_prometheus; /* /v1/loads */
};
struct api_pending *api_pending_new(struct router *r, struct conn *c);
/* An uplink_answer: passes the JSON, or the error, on to the client, and frees ctx. */
void api_on_answer(void *ctx, int code, struct by_str json);

/* Sends a question and its JSON to a tokenizer worker, and the answer to the client; error: in what form it fails; NULL: OpenAI's. */
void api_ask_tokenizer(struct router *r, struct conn *c, const char *what, struct by_str json,
                       api_error_writer *error);
/* {"type":"error","error":{…}} and {"error":"…"}: how two of the dialects say it. */
api_error_writer api_anthropic_write_error, api_ollama_write_error;
/* "usage": {…} of all prompts and samples that have ended or run. */
void api_write_usage(const struct request *q, struct by_buf *out);
/* ,"name":"text" and so on: a JSON member with a comma before it. */
void api_add_str(struct by_buf *out, const char *key, struct by_str value);
/* The same of obj's member `key`, called `as`; nothing when it is null or not there. */
void api_add_member(struct by_buf *out, const struct by_json *obj, const char *key, const char *as);
/* Makes prompts of q->body. */
typedef int api_reader(struct request *q, struct by_err *err);
/* How a handler that generates ends: the body is parsed and read, and the request starts, or is refused and is over. */
void api_serve(struct request *q, const struct http1_request *req, api_reader *read);
enum { API_TEXT = 1, API_IDS = 2 }; /* what a prompt may be */
/* model, rid, priority, extra_key, cache_salt, timeout_ms, queue_timeout_ms: the same in every dialect. */
BY_MUST_USE int api_read_routing(struct request *q, struct msg_generate *m, struct by_err *err);
/* The same in two parts, without model: all but extra_key and cache_salt; and these, when the request's extra_key is not for all. */
BY_MUST_USE int api_read_limits(struct request *q, struct msg_generate *m, struct by_err *err);
BY_MUST_USE int api_read_namespace(struct request *q, const struct by_json *extra_key,
                                   struct by_str *out, struct by_err *err);
bool api_is_our_model(const struct router *r, struct by_str name); /* api_models.c */
/* Refuses the first of these fields that asks for something (null, false and what is empty ask for nothing), so that nobody
 * takes silence for consent. */
BY_MUST_USE int api_refuse(const struct by_json *body, const char *const *names, size_t n,
                           struct by_err *err);
/* What POST /generate asks for: api_native_read.c */
BY_MUST_USE int api_generate_read(struct request *q, struct by_err *err);
/* What POST /v1/responses asks for: api_responses_read.c */
BY_MUST_USE int api_responses_read(struct request *q, struct by_err *err);
/* Reads `body`, a chat completion's or a completion's, in place of the request's own: how other dialects are read. Of a
 * completion's tokens there are no 16 unless it says so. */
BY_MUST_USE int api_chat_read_as(struct request *q, const struct by_buf *body, struct by_err *err);
BY_MUST_USE int api_completions_read_as(struct request *q, const struct by_buf *body,
                                        struct by_err *err);
/* Half of these two: `body` becomes the request's; what: the field that makes it too long when it is. */
BY_MUST_USE int api_replace_body(struct request *q, const struct by_buf *body, const char *what,
                                 struct by_err *err);
/* A list prompt: strings, token ids, or lists of either, as /generate and /v1/completions take it. Adds one entry a
 * prompt to q. `base` holds everything but the prompt. */
bool api_is_list_of_prompts(const struct by_json *prompt);
BY_MUST_USE int api_add_prompt(struct request *q, const struct by_json *prompt, const char *key,
                               unsigned allowed, const struct msg_generate *base,
                               struct by_err *err); /* one of them */
BY_MUST_USE int api_add_prompts(struct request *q, const struct by_json *prompt, const char *key,
                                unsigned allowed, const struct msg_generate *base,
                                struct by_err *err);

#endif
