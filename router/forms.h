/* forms.h - what requests and answers look like: named forms of named fields, the words of the OpenAPI file.
 *
 *     struct route ──asks──▶ form "Chat" ── fields: {"stream", TRUTH, "…"} …     and the sampling parameters of params.c
 *              └──answers──▶ form "ChatCompletion", or its events when streamed
 *
 * A field's schema is JSON Schema 2020-12 with ' in place of ". What a form leaves open, the readers leave open too: a schema
 * is never stricter than the code (test_openapi.py holds both to it).
 * Always: names are unique; a needed field is one without which the request is refused.
 * Owner: nobody; constant. */
#ifndef ROUTER_FORMS_H
#define ROUTER_FORMS_H

#include "common/base/buf.h"

struct form_field {
    const char *name, *schema, *help;
    bool is_needed;
};

enum form_params {
    FORM_NO_PARAMS,
    FORM_NATIVE_PARAMS, /* those of /generate's sampling_params, and no others */
    FORM_OPENAI_PARAMS  /* those that stand beside a chat's or completion's own fields */
};

struct form {
    const char *name, *help;
    const struct form_field *fields;
    size_t n_fields;
    enum form_params params;
    const char *media;  /* NULL: application/json; "": no body at all */
    const char *stream; /* the media type of its streamed, or other, form; NULL: it has none */
    const char *schema; /* in place of the fields; NULL: an object of them */
};

/* What the routes ask for: in the body, a GET's in the query. */
extern const struct form form_embeddings, form_encode, form_classify, form_ollama_embed,
    form_ollama_embeddings, form_rerank, form_score;
extern const struct form form_abort, form_chat, form_completions, form_count, form_detokenize,
    form_generate, form_messages, form_ollama_chat, form_ollama_generate, form_ollama_show,
    form_parse_calls, form_responses, form_separate, form_template, form_tokenize, form_top,
    form_flush, form_loads_of, form_update;
/* What they answer. */
extern const struct form form_embedding_list, form_encoded, form_ollama_embedded,
    form_ollama_embedding, form_ranks, form_ranked, form_scores;
extern const struct form form_nothing, form_words, form_any, form_model, form_models,
    form_model_info, form_server_info, form_loads, form_generated, form_completion,
    form_chat_completion, form_response, form_message, form_counted, form_ollama_said,
    form_ollama_tags, form_ollama_shown, form_ollama_version, form_tokens, form_text, form_prompt,
    form_parsed_calls, form_separated, form_tokenizer, form_drained, form_status, form_updated;
extern const struct form form_sampling_params; /* part of form_generate */

/* The form as one JSON Schema object. */
void form_write_schema(const struct form *s, struct by_buf *out);
/* text with ' turned into ". */
void form_write_quoted(const char *text, struct by_buf *out);

#endif
