#include "router/api.h"
#include "router/chat_view.h"

/* POST /v1/responses, without a store: the whole conversation comes with each request. What is written is a list of
 * items: reasoning, message, function calls. */

static void write_item_id(const struct request *q, const char *kind, size_t i, struct by_buf *out) {
    by_buf_addf(out, "\"id\":\"%s_%llx_%zu\"", kind,
                (unsigned long long)by_str_hash(by_str_of(q->id)), i);
}

static void write_reasoning(const struct request *q, struct by_str text, bool is_done,
                            struct by_buf *out) {
    by_buf_addz(out, "{\"type\":\"reasoning\",");
    write_item_id(q, "rs", 0, out);
    by_buf_addz(out, ",\"summary\":[],\"content\":[");
    if (is_done) {
        by_buf_addz(out, "{\"type\":\"reasoning_text\"");
        api_add_str(out, "text", text);
        by_buf_addc(out, '}');
    }
    by_buf_addf(out, "],\"status\":\"%s\"}", is_done ? "completed" : "in_progress");
}

static void write_part(struct by_str text, struct by_buf *out) {
    by_buf_addz(out, "{\"type\":\"output_text\",\"annotations\":[]");
    api_add_str(out, "text", text);
    by_buf_addc(out, '}');
}

static void write_message(const struct request *q, struct by_str text, bool is_done,
                          struct by_buf *out) {
    by_buf_addz(out, "{\"type\":\"message\",\"role\":\"assistant\",");
    write_item_id(q, "msg", 0, out);
    by_buf_addz(out, ",\"content\":[");
    if (is_done) write_part(text, out);
    by_buf_addf(out, "],\"status\":\"%s\"}", is_done ? "completed" : "in_progress");
}

static void write_call(const struct request *q, const struct parse_tools_call *c, size_t i,
                       bool is_done, struct by_buf *out) {
    by_buf_addz(out, "{\"type\":\"function_call\",");
    write_item_id(q, "fc", i, out);
    by_buf_addz(out, ",\"call_id\":");
    chat_view_write_call_id(q, 0, i, out);
    api_add_str(out, "name", c->name);
    api_add_str(out, "arguments", is_done ? c->arguments : BY_STR(""));
    by_buf_addf(out, ",\"status\":\"%s\"}", is_done ? "completed" : "in_progress");
}

static void write_output(const struct request *q, const struct chat_view *v, struct by_buf *out) {
    bool is_first = true;
    by_buf_addz(out, ",\"output\":[");
    if (v && v->reasoning.n) {
        write_reasoning(q, v->reasoning, true, out);
        is_first = false;
    }
    if (v && v->said.content.n) {
        if (!is_first) by_buf_addc(out, ',');
        write_message(q, by_buf_str(&v->said.content), true, out);
        is_first = false;
    }
    for (size_t i = 0; v && i < v->said.n_calls; i++, is_first = false) {
        if (!is_first) by_buf_addc(out, ',');
        write_call(q, &v->said.calls[i], i, true, out);
    }
    by_buf_addc(out, ']');
}

/* v: NULL while it runs. */
static void write_response(const struct request *q, const struct chat_view *v, struct by_buf *out) {
    const struct journal_entry *e = q->entries[0];
    const struct journal_sample *s = e->samples;
    const char *status = "completed";
    if (!v) status = "in_progress";
    if (v && s->finish == FINISH_LENGTH) status = "incomplete";
    if (v && s->finish == FINISH_ABORT) status = "cancelled";
    by_buf_addf(out, "{\"id\":\"resp_%s\",\"object\":\"response\",\"created_at\":%llu", q->id,
                (unsigned long long)q->created_s);
    by_buf_addf(out, ",\"status\":\"%s\",\"error\":null,\"incomplete_details\":%s", status,
                v && s->finish == FINISH_LENGTH ? "{\"reason\":\"max_output_tokens\"}" : "null");
    api_add_str(out, "model", q->model);
    write_output(q, v, out);
    by_buf_add_str(out, *(const struct by_str *)q->of_dialect);
    by_buf_addz(out, ",\"store\":false,\"background\":false,\"previous_response_id\":null,"
                     "\"truncation\":\"disabled\",\"temperature\":");
    by_buf_add_json_f64(out, (double)e->request.sampling.temperature);
    by_buf_addz(out, ",\"top_p\":");
    by_buf_add_json_f64(out, (double)e->request.sampling.top_p);
    by_buf_addf(out, ",\"parallel_tool_calls\":%s,\"usage\":", q->is_one_call ? "false" : "true");
    if (v)
        by_buf_addf(out,
                    "{\"input_tokens\":%u,\"input_tokens_details\":{\"cached_tokens\":%u},"
                    "\"output_tokens\":%u,\"output_tokens_details\":{\"reasoning_tokens\":%u},"
                    "\"total_tokens\":%u}",
                    e->n_prompt, e->n_cached, s->n_output, chat_view_n_reasoning(q, e, s),
                    e->n_prompt + s->n_output);
    else
        by_buf_addz(out, "null");
    by_buf_addc(out, '}');
}

static void responses_whole(struct request *q, struct by_buf *out) {
    struct chat_view v;
    chat_view_read(q, by_buf_str(&q->entries[0]->samples[0].text), true, &v);
    write_response(q, &v, out);
    chat_view_release(&v);
}

/* Each event has its number. */
static void begin(struct request *q, const char *event, struct by_buf *out) {
    by_buf_addf(out, "event: response.%s\ndata: {\"type\":\"response.%s\",\"sequence_number\":%u",
                event, event, q->n_events++);
}

static void end(struct by_buf *out) {
    by_buf_addz(out, "}\n\n");
}

static void write_item(struct request *q, const struct chat_view *v, size_t index, size_t call,
                       bool is_done, struct by_buf *out) {
    size_t n_words = (v->reasoning.n > 0) + (v->said.content.n > 0);
    begin(q, is_done ? "output_item.done" : "output_item.added", out);
    by_buf_addf(out, ",\"output_index\":%zu,\"item\":", index);
    if (index >= n_words)
        write_call(q, &v->said.calls[call], call, is_done, out);
    else if (index == 0 && v->reasoning.n)
        write_reasoning(q, v->reasoning, is_done, out);
    else
        write_message(q, by_buf_str(&v->said.content), is_done, out);
    end(out);
}

static void write_place(const struct request *q, const char *kind, size_t index, size_t i,
                        struct by_buf *out) {
    by_buf_addf(out, ",\"item_id\":\"%s_%llx_%zu\",\"output_index\":%zu", kind,
                (unsigned long long)by_str_hash(by_str_of(q->id)), i, index);
}

static void write_words(struct request *q, const struct chat_view *v, size_t index, bool is_new,
                        struct by_str words, struct by_buf *out) {
    bool is_thought = index == 0 && v->reasoning.n;
    if (is_new) write_item(q, v, index, 0, false, out);
    if (is_new && !is_thought) {
        begin(q, "content_part.added", out);
        write_place(q, "msg", index, 0, out);
        by_buf_addz(out, ",\"content_index\":0,\"part\":");
        write_part(BY_STR(""), out);
        end(out);
    }
    begin(q, is_thought ? "reasoning_text.delta" : "output_text.delta", out);
    write_place(q, is_thought ? "rs" : "msg", index, 0, out);
    by_buf_addz(out, is_thought ? ",\"content_index\":0" : ",\"content_index\":0,\"logprobs\":[]");
    api_add_str(out, "delta", words);
    end(out);
}

static void end_words(struct request *q, const struct chat_view *v, size_t index,
                      struct by_buf *out) {
    bool is_thought = index == 0 && v->reasoning.n;
    struct by_str text = is_thought ? v->reasoning : by_buf_str(&v->said.content);
    begin(q, is_thought ? "reasoning_text.done" : "output_text.done", out);
    write_place(q, is_thought ? "rs" : "msg", index, 0, out);
    by_buf_addz(out, is_thought ? ",\"content_index\":0" : ",\"content_index\":0,\"logprobs\":[]");
    api_add_str(out, "text", text);
    end(out);
    if (!is_thought) {
        begin(q, "content_part.done", out);
        write_place(q, "msg", index, 0, out);
        by_buf_addz(out, ",\"content_index\":0,\"part\":");
        write_part(text, out);
        end(out);
    }
    write_item(q, v, index, 0, true, out);
}

static void write_call_events(struct request *q, const struct chat_view *v, size_t i,
                              struct by_buf *out) {
    size_t index = (v->reasoning.n > 0) + (v->said.content.n > 0) + i;
    write_item(q, v, index, i, false, out);
    begin(q, "function_call_arguments.delta", out);
    write_place(q, "fc", index, i, out);
    api_add_str(out, "delta", v->said.calls[i].arguments);
    end(out);
    begin(q, "function_call_arguments.done", out);
    write_place(q, "fc", index, i, out);
    api_add_str(out, "name", v->said.calls[i].name);
    api_add_str(out, "arguments", v->said.calls[i].arguments);
    end(out);
    write_item(q, v, index, i, true, out);
}

/* Calls come at the end, so that all words are one item also when a model goes on behind a call. */
static void write_end(struct request *q, const struct journal_sample *s, const struct chat_view *v,
                      struct by_buf *out) {
    size_t n_words = (v->reasoning.n > 0) + (v->said.content.n > 0);
    if (n_words) end_words(q, v, n_words - 1, out);
    for (size_t i = 0; i < v->said.n_calls; i++)
        write_call_events(q, v, i, out);
    begin(q, s->finish == FINISH_LENGTH ? "incomplete" : "completed", out);
    by_buf_addz(out, ",\"response\":");
    write_response(q, v, out);
    end(out);
}

static void responses_delta(struct request *q, struct journal_entry *e, uint32_t sample,
                            struct by_buf *out) {
    struct journal_sample *s = &e->samples[sample];
    struct chat_news n;
    chat_news_read(q, s, &n);
    size_t n_thinking = n.now.reasoning.n > 0;
    if (!s->is_begun) {
        begin(q, "created", out);
        by_buf_addz(out, ",\"response\":");
        write_response(q, NULL, out);
        end(out);
    }
    if (n.reasoning.n) write_words(q, &n.now, 0, !n.was.reasoning.n, n.reasoning, out);
    if (n.content.n) {
        if (n_thinking && !n.was.said.content.n) end_words(q, &n.now, 0, out);
        write_words(q, &n.now, n_thinking, !n.was.said.content.n, n.content, out);
    }
    if (s->finish) write_end(q, s, &n.now, out);
    chat_news_release(&n);
}

static void responses_end(struct request *q, struct by_buf *out) {
    (void)q;
    (void)out; /* response.completed said so */
}

static void write_error_event(struct by_buf *out, int code, const char *text) {
    by_buf_addf(out, "event: error\ndata: {\"type\":\"error\",\"param\":null,\"code\":\"%s\"",
                by_err_type(code));
    api_add_str(out, "message", by_str_of(text));
    by_buf_addz(out, "}\n\n");
}

static const char *const names[][2] = {
    {"max_tokens", "max_output_tokens"}, {"reasoning_effort", "reasoning.effort"}, {NULL, NULL}};
static const struct dialect responses = {.names = names,
                                         .delta = responses_delta,
                                         .end = responses_end,
                                         .whole = responses_whole,
                                         .error_event = write_error_event};

void api_responses(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &responses), req, api_responses_read);
}
