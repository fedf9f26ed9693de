#include "router/api.h"

/* What POST /v1/responses asks for, rewritten as a chat completion, whose reader checks it: the items of the input become
 * messages. What the answer has to repeat of it is kept (of_dialect). */

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
    unsigned i = 0;
    for (const struct by_json *t = by_json_first(tools); t; t = by_json_next(t), i++) {
        struct by_str type = by_json_str(by_json_get(t, "type"));
        if (!by_str_eqz(type, "function"))
            return by_fail(err, BY_EUNSUPPORTED,
                           "tools[%u]: one of type '%.*s' is not supported; only function is", i,
                           (int)BY_MIN(type.n, (size_t)40), type.p);
        by_buf_addz(out, i ? ",{" : "{");
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
        return by_fail(err, BY_EUNSUPPORTED,
                       "text.format: '%.*s' takes grammars, and these are not supported yet; leave "
                       "it out, and ask for JSON in a message",
                       (int)BY_MIN(type.n, (size_t)40), type.p);
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

int api_responses_read(struct request *q, struct by_err *err) {
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
