#include "router/api_openai.h"

#include "common/base/utf8.h"
#include "router/api.h"
#include "router/params.h"

#include <string.h>

/* Fields that change the answer and that we do not have yet: OpenAI's, SGLang's, vLLM's, llama.cpp's. */
static const char *const refused[] = {"beam_width",
                                      "use_beam_search",
                                      "lora_path",
                                      "lora",
                                      "grammar",
                                      "prediction",
                                      "audio",
                                      "suffix",
                                      "functions",
                                      "function_call",
                                      "web_search_options",
                                      "guided_json",
                                      "guided_regex",
                                      "guided_choice",
                                      "guided_grammar",
                                      "structured_outputs",
                                      "bad_words",
                                      "allowed_token_ids",
                                      "logits_processors",
                                      "prompt_logprobs",
                                      "return_token_ids",
                                      "return_tokens_as_token_ids",
                                      "return_hidden_states",
                                      "custom_logit_processor",
                                      "thinking_token_budget",
                                      "prompt_embeds",
                                      "documents",
                                      "truncate_prompt_tokens",
                                      "routed_dp_rank",
                                      "data_parallel_rank",
                                      "chat_template"};

static int refuse_unknown(const struct by_json *body, struct by_err *err) {
    int rc = api_refuse(body, refused, BY_COUNTOF(refused), err);
    for (const struct by_json *it = by_json_first(by_json_get(body, "modalities")); it && !rc;
         it = by_json_next(it)) {
        if (!by_str_eqz(by_json_str(it), "text"))
            rc = by_fail(err, BY_EUNSUPPORTED, "modalities: only text is supported yet");
    }
    const struct by_json *format = NULL;
    struct by_str type = {0};
    if (!rc) rc = by_json_get_object(body, "", "response_format", &format, err);
    if (!rc && format) rc = by_json_get_str(format, "response_format", "type", &type, err);
    if (!rc && type.n && !by_str_eqz(type, "text"))
        return by_fail(err, BY_EUNSUPPORTED,
                       "response_format: '%.*s' takes grammars, and these are not supported yet; "
                       "leave it out, and ask for JSON in a message",
                       (int)BY_MIN(type.n, (size_t)40), type.p);
    return rc;
}

int api_openai_read_common(struct request *q, struct msg_generate *m, struct by_err *err) {
    const struct by_json *options = NULL;
    int rc = refuse_unknown(q->body, err);
    if (!rc) rc = by_json_get_bool(q->body, "", "stream", &q->is_stream, err);
    if (!rc) rc = by_json_get_object(q->body, "", "stream_options", &options, err);
    if (!rc && options)
        rc = by_json_get_bool(options, "stream_options", "include_usage", &q->wants_usage, err);
    if (!rc && options)
        rc = by_json_get_bool(options, "stream_options", "continuous_usage_stats",
                              &q->wants_usage_always, err);
    return rc ? rc : api_read_routing(q, m, err);
}

void api_openai_init(const struct request *q, struct params *p, uint32_t max_new_tokens) {
    const struct msg_sampling_defaults *d =
        &uplink_state(q->router->uplink)->model.sampling_defaults;
    params_init(p, max_new_tokens);
    if (!d->is_given || q->router->has_openai_defaults) return;
    p->sampling.temperature = d->temperature;
    p->sampling.top_p = d->top_p;
    p->sampling.top_k = d->top_k;
    p->sampling.min_p = d->min_p;
    p->sampling.repetition_penalty = d->repetition_penalty;
}

void api_openai_fill(struct msg_generate *m, const struct params *p) {
    m->sampling = p->sampling;
    m->textual = p->textual;
    m->textual.wants_pieces = p->sampling.logprobs;
    m->has_max_new_tokens = p->has_max_new_tokens;
}

void api_openai_write_head(const struct request *q, const char *prefix, const char *object,
                           struct by_buf *out) {
    by_buf_addf(out, "{\"id\":\"%s-%s\",\"object\":\"%s\",\"created\":%llu", prefix, q->id, object,
                (unsigned long long)q->created_s);
    api_add_str(out, "model", q->model);
}

void api_openai_write_finish(const struct journal_sample *s, const char *reason,
                             struct by_buf *out) {
    if (!s->finish) {
        by_buf_addz(out, "\"finish_reason\":null");
        return;
    }
    by_buf_addf(out, "\"finish_reason\":\"%s\",\"matched_stop\":",
                reason ? reason : request_finish_reason(s));
    if (s->finish == FINISH_STOP_ID)
        by_buf_addf(out, "%u", s->matched_id);
    else if (s->finish == FINISH_STOP_TEXT)
        by_buf_add_json_str(out, by_buf_str(&s->matched_text));
    else
        by_buf_addz(out, "null");
}

void api_openai_write_usage_event(const struct request *q, const char *prefix, const char *object,
                                  struct by_buf *out) {
    if (!q->wants_usage) return;
    by_buf_addz(out, "data: ");
    api_openai_write_head(q, prefix, object, out);
    by_buf_addz(out, ",\"choices\":[],");
    api_write_usage(q, out);
    by_buf_addz(out, "}\n\n");
}

void api_openai_write_token(const struct journal_entry *e, uint32_t id, struct by_buf *out) {
    const struct by_str *piece = journal_piece(e, id);
    if (!piece || !piece->n) {
        by_buf_addf(out, "\"token_id:%u\"", id);
    } else if (by_utf8_valid(piece->p, piece->n)) {
        by_buf_add_json_str(out, *piece);
    } else {
        by_buf_addz(out, "\"bytes:");
        for (size_t i = 0; i < piece->n; i++)
            by_buf_addf(out, "\\\\x%02x", (unsigned char)piece->p[i]);
        by_buf_addc(out, '"');
    }
}

uint32_t api_openai_choice(const struct journal_entry *e, uint32_t sample) {
    return e->index * e->n_samples + sample;
}
