#include "router/api.h"
#include "router/chat_view.h"

/* POST /v1/responses, without a store: the whole conversation comes with each request. Read as a chat completion; what
 * is written is a list of items: reasoning, message, function calls. */

/* ---- writing ---- */

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

/* ---- reading: as a chat completion ---- */

/* The messages so far: an assistant's words and the calls behind them are one. */
struct turns {
    struct by_buf *out;
    enum { OTHERS, HIS_WORDS, HIS_CALLS } last; /* not closed yet, but for OTHERS */
};

static void end_turn(struct turns *t) {
    if (t->last == HIS_CALLS) by_buf_addc(t->out, ']');
    if (t->last != OTHERS) by_buf_addc(t->out, '}');
    t->last = OTHERS;
}

static void add_call(struct turns *t, const struct by_json *item) {
    static const char *const before[] = {
        [OTHERS] = ",{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[",
        [HIS_WORDS] = ",\"tool_calls\":[",
        [HIS_CALLS] = ","};
    by_buf_addz(t->out, before[t->last]);
    by_buf_addz(t->out, "{\"type\":\"function\"");
    api_add_member(t->out, item, "call_id", "id");
    by_buf_addz(t->out, ",\"function\":{\"name\":");
    by_buf_add_json_str(t->out, by_json_str(by_json_get(item, "name")));
    api_add_member(t->out, item, "arguments", "arguments");
    by_buf_addz(t->out, "}}");
    t->last = HIS_CALLS;
}

static int add_parts(struct by_buf *out, const struct by_json *parts, unsigned i,
                     struct by_err *err) {
    by_buf_addz(out, "[");
    for (const struct by_json *p = by_json_first(parts); p; p = by_json_next(p)) {
        struct by_str kind = by_json_str(by_json_get(p, "type"));
        if (!by_str_eqz(kind, "input_text") && !by_str_eqz(kind, "output_text"))
            return by_fail(err, BY_EUNSUPPORTED,
                           "input[%u].content: only parts of text are supported yet", i);
        by_buf_addz(out, p == by_json_first(parts) ? "{" : ",{");
        by_buf_addz(out, "\"type\":\"text\"");
        api_add_member(out, p, "text", "text");
        by_buf_addc(out, '}');
    }
    by_buf_addc(out, ']');
    return 0;
}

static int add_words(struct turns *t, const struct by_json *item, unsigned i, struct by_err *err) {
    const struct by_json *content = by_json_get(item, "content");
    struct by_str role = by_json_str(by_json_get(item, "role"));
    if (!role.n) return by_fail(err, BY_EINVAL, "input[%u].role: a string is needed", i);
    by_buf_addz(t->out, ",{\"role\":");
    by_buf_add_json_str(t->out, role);
    by_buf_addz(t->out, ",\"content\":");
    t->last = HIS_WORDS;
    if (by_json_type(content) == BY_JSON_ARRAY && add_parts(t->out, content, i, err))
        return err->code;
    if (by_json_type(content) != BY_JSON_ARRAY) by_buf_add_json_str(t->out, by_json_str(content));
    if (!by_str_eqz(role, "assistant")) end_turn(t);
    return 0;
}

/* One item of the input as a message, or as a part of the last one. */
static int add_item(struct turns *t, const struct by_json *item, unsigned i, struct by_err *err) {
    struct by_str type = by_json_str(by_json_get(item, "type"));
    if (by_str_eqz(type, "reasoning")) return 0;
    if (by_str_eqz(type, "function_call")) {
        add_call(t, item);
        return 0;
    }
    end_turn(t);
    if (by_str_eqz(type, "function_call_output")) {
        by_buf_addz(t->out, ",{\"role\":\"tool\"");
        api_add_member(t->out, item, "call_id", "tool_call_id");
        api_add_member(t->out, item, "output", "content");
        by_buf_addc(t->out, '}');
        return 0;
    }
    if (type.n && !by_str_eqz(type, "message"))
        return by_fail(err, BY_EUNSUPPORTED,
                       "input[%u]: an item of type '%.*s' is not supported yet", i,
                       (int)BY_MIN(type.n, (size_t)40), type.p);
    return add_words(t, item, i, err);
}

static int add_input(struct by_buf *out, const struct by_json *body, struct by_err *err) {
    const struct by_json *input = by_json_get(body, "input");
    struct turns turns = {.out = out};
    struct by_str system = {0};
    size_t first = out->n;
    unsigned i = 0;
    int rc = by_json_get_str(body, "", "instructions", &system, err);
    if (rc) return rc;
    if (system.n) {
        by_buf_addz(out, ",{\"role\":\"system\",\"content\":");
        by_buf_add_json_str(out, system);
        by_buf_addc(out, '}');
    }
    if (by_json_type(input) == BY_JSON_STRING) {
        by_buf_addz(out, ",{\"role\":\"user\",\"content\":");
        by_json_print(input, out);
        by_buf_addc(out, '}');
    } else if (by_json_type(input) != BY_JSON_ARRAY || !by_json_first(input)) {
        return by_fail(err, BY_EINVAL, "input: a string or a list of items is needed");
    }
    for (const struct by_json *it = by_json_first(input); it && !rc; it = by_json_next(it), i++) {
        rc = by_json_type(it) == BY_JSON_OBJECT
                 ? add_item(&turns, it, i, err)
                 : by_fail(err, BY_EINVAL, "input[%u]: expected an object, got %s", i,
                           by_json_type_name(it));
    }
    end_turn(&turns);
    if (out->n == first) by_buf_addc(out, '[');
    out->p[first] = '['; /* in place of the first comma */
    by_buf_addc(out, ']');
    return rc;
}

/* Tools lie flat here: {"type": "function", "name", "parameters"}. */
static int add_tools(struct by_buf *out, const struct by_json *body, struct by_err *err) {
    const struct by_json *tools = NULL;
    int rc = by_json_get_array(body, "", "tools", &tools, err);
    if (rc || !tools || !by_json_first(tools)) return rc;
    by_buf_addz(out, ",\"tools\":[");
    for (const struct by_json *t = by_json_first(tools); t; t = by_json_next(t)) {
        struct by_str type = by_json_str(by_json_get(t, "type"));
        if (!by_str_eqz(type, "function"))
            return by_fail(err, BY_EUNSUPPORTED,
                           "tools: only those of type function are supported");
        by_buf_addz(out, t == by_json_first(tools) ? "{" : ",{");
        by_buf_addz(out, "\"type\":\"function\",\"function\":{\"name\":");
        by_buf_add_json_str(out, by_json_str(by_json_get(t, "name")));
        api_add_member(out, t, "description", "description");
        api_add_member(out, t, "parameters", "parameters");
        by_buf_addz(out, "}}");
    }
    by_buf_addc(out, ']');
    return 0;
}

static int refuse_missing(const struct by_json *body, struct by_err *err) {
    static const char *const refused[] = {"previous_response_id", "conversation", "prompt"};
    /* Chat completions' names, which OpenAI's own servers refuse here, too. */
    static const char *const elsewhere[][2] = {{"messages", "input"},
                                               {"max_tokens", "max_output_tokens"},
                                               {"max_completion_tokens", "max_output_tokens"},
                                               {"response_format", "text.format"},
                                               {"reasoning_effort", "reasoning.effort"}};
    const struct by_json *format = by_json_get(by_json_get(body, "text"), "format");
    struct by_str type = by_json_str(by_json_get(format, "type"));
    for (size_t i = 0; i < BY_COUNTOF(refused); i++) {
        const struct by_json *v = by_json_get(body, refused[i]);
        if (v && by_json_type(v) != BY_JSON_NULL)
            return by_fail(err, BY_EUNSUPPORTED, "%s: nothing is stored here; send the whole input",
                           refused[i]);
    }
    for (size_t i = 0; i < BY_COUNTOF(elsewhere); i++) {
        const struct by_json *v = by_json_get(body, elsewhere[i][0]);
        if (v && by_json_type(v) != BY_JSON_NULL)
            return by_fail(err, BY_EINVAL, "%s: that is its name here, not %s", elsewhere[i][1],
                           elsewhere[i][0]);
    }
    const struct by_json *n = by_json_get(body, "n"), *top = by_json_get(body, "top_logprobs");
    bool wants_logprobs = top && by_json_f64(top) != 0;
    for (const struct by_json *it = by_json_first(by_json_get(body, "include")); it;
         it = by_json_next(it))
        wants_logprobs |= by_str_eqz(by_json_str(it), "message.output_text.logprobs");
    if (wants_logprobs)
        return by_fail(err, BY_EUNSUPPORTED,
                       "top_logprobs: log probabilities are not supported here; chat completions "
                       "have them");
    if (n && by_json_type(n) != BY_JSON_NULL && by_json_f64(n) != 1)
        return by_fail(err, BY_EUNSUPPORTED,
                       "n: a response is one answer; chat completions have n");
    if (by_json_bool(by_json_get(body, "background")))
        return by_fail(err, BY_EUNSUPPORTED, "background: nothing is stored here");
    if (type.n && !by_str_eqz(type, "text"))
        return by_fail(err, BY_EUNSUPPORTED, "text.format: only text is supported yet");
    return 0;
}

/* ,"instructions":… and so on: what the client asked for stands in the answer. */
static void keep_asked(struct request *q) {
    static const char *const told[][2] = {{"instructions", "null"},
                                          {"metadata", "{}"},
                                          {"tools", "[]"},
                                          {"tool_choice", "\"auto\""},
                                          {"max_output_tokens", "null"},
                                          {"reasoning", "{\"effort\":null,\"summary\":null}"},
                                          {"text", "{\"format\":{\"type\":\"text\"}}"},
                                          {"user", "null"}};
    struct by_buf out;
    struct by_str *asked = by_arena_get(&q->arena, sizeof *asked);
    by_buf_init(&out, LIMIT_STR_BYTES);
    for (size_t i = 0; i < BY_COUNTOF(told); i++) {
        const struct by_json *v = by_json_get(q->body, told[i][0]);
        by_buf_addf(&out, ",\"%s\":", told[i][0]);
        if (by_json_type(v) == BY_JSON_NULL)
            by_buf_addz(&out, told[i][1]);
        else
            by_json_print(v, &out);
    }
    *asked = by_arena_copy(&q->arena, by_buf_str(&out));
    q->of_dialect = asked;
    by_buf_release(&out);
}

static int read_responses(struct request *q, struct by_err *err) {
    static const char *const same[][2] = {{"model", "model"},
                                          {"max_output_tokens", "max_tokens"},
                                          {"temperature", "temperature"},
                                          {"top_p", "top_p"},
                                          {"top_k", "top_k"},
                                          {"min_p", "min_p"},
                                          {"frequency_penalty", "frequency_penalty"},
                                          {"presence_penalty", "presence_penalty"},
                                          {"repetition_penalty", "repetition_penalty"},
                                          {"logit_bias", "logit_bias"},
                                          {"seed", "seed"},
                                          {"ignore_eos", "ignore_eos"},
                                          {"stop_token_ids", "stop_token_ids"},
                                          {"chat_template_kwargs", "chat_template_kwargs"},
                                          {"stop", "stop"},
                                          {"stream", "stream"},
                                          {"tool_choice", "tool_choice"},
                                          {"parallel_tool_calls", "parallel_tool_calls"},
                                          {"priority", "priority"},
                                          {"cache_salt", "cache_salt"},
                                          {"extra_key", "extra_key"}};
    struct by_buf out;
    const struct by_json *reasoning = NULL;
    struct by_str model = {0};
    int rc = refuse_missing(q->body, err);
    if (!rc) rc = by_json_get_str(q->body, "", "model", &model, err);
    if (!rc) rc = by_json_get_object(q->body, "", "reasoning", &reasoning, err);
    if (!rc && model.n && !api_is_our_model(q->router, model))
        rc = by_fail(err, BY_ENOMODEL, "%s", by_err_sentence(BY_ENOMODEL));
    if (rc) return rc;
    keep_asked(q);
    by_buf_init(&out, LIMIT_STR_BYTES);
    by_buf_addz(&out, "{\"messages\":");
    rc = add_input(&out, q->body, err);
    for (size_t i = 0; i < BY_COUNTOF(same); i++)
        api_add_member(&out, q->body, same[i][0], same[i][1]);
    if (reasoning) api_add_member(&out, reasoning, "effort", "reasoning_effort");
    if (!rc) rc = add_tools(&out, q->body, err);
    by_buf_addc(&out, '}');
    if (!rc) rc = api_chat_read_as(q, &out, err);
    by_buf_release(&out);
    return rc;
}

void api_responses(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &responses), req, read_responses);
}
