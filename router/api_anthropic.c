#include "router/api.h"
#include "router/chat_view.h"

/* POST /v1/messages: Anthropic's dialect. The body is rewritten as a chat completion's, so that one reader checks both;
 * the answer's blocks are written here: thinking, text, then the tools that are used. */

/* ---- writing ---- */

static void write_id(const struct request *q, struct by_buf *out) {
    by_buf_addf(out, "\"id\":\"msg_%s\"", q->id);
}

static void write_stop(const struct request *q, const struct journal_sample *s, bool has_calls,
                       struct by_buf *out) {
    const char *why = "end_turn";
    (void)q;
    if (s->finish == FINISH_LENGTH)
        why = "max_tokens";
    else if (has_calls)
        why = "tool_use";
    else if (s->finish == FINISH_STOP_TEXT)
        why = "stop_sequence";
    by_buf_addf(out, "\"stop_reason\":\"%s\",\"stop_sequence\":", why);
    if (s->finish == FINISH_STOP_TEXT)
        by_buf_add_json_str(out, by_buf_str(&s->matched_text));
    else
        by_buf_addz(out, "null");
}

static void write_usage(const struct journal_entry *e, uint32_t n_output, struct by_buf *out) {
    by_buf_addf(out,
                "\"usage\":{\"input_tokens\":%u,\"cache_read_input_tokens\":%u,"
                "\"cache_creation_input_tokens\":0,\"output_tokens\":%u}",
                e->n_prompt - e->n_cached, e->n_cached, n_output);
}

static void write_call(const struct request *q, const struct parse_tools_call *c, size_t i,
                       bool has_input, struct by_buf *out) {
    by_buf_addz(out, "{\"type\":\"tool_use\",\"id\":");
    chat_view_write_call_id(q, 0, i, out);
    api_add_str(out, "name", c->name);
    by_buf_addz(out, ",\"input\":");
    by_buf_add_str(out, has_input ? c->arguments : BY_STR("{}"));
    by_buf_addc(out, '}');
}

static void anthropic_whole(struct request *q, struct by_buf *out) {
    const struct journal_entry *e = q->entries[0];
    const struct journal_sample *s = e->samples;
    struct chat_view v;
    bool is_first = true;
    chat_view_read(q, by_buf_str(&s->text), true, &v);
    by_buf_addc(out, '{');
    write_id(q, out);
    by_buf_addz(out, ",\"type\":\"message\",\"role\":\"assistant\"");
    api_add_str(out, "model", q->model);
    by_buf_addz(out, ",\"content\":[");
    if (v.reasoning.n) {
        by_buf_addz(out, "{\"type\":\"thinking\",\"signature\":\"\"");
        api_add_str(out, "thinking", v.reasoning);
        by_buf_addc(out, '}');
        is_first = false;
    }
    if (v.said.content.n) {
        by_buf_addz(out, is_first ? "{\"type\":\"text\"" : ",{\"type\":\"text\"");
        api_add_str(out, "text", by_buf_str(&v.said.content));
        by_buf_addc(out, '}');
        is_first = false;
    }
    for (size_t i = 0; i < v.said.n_calls; i++, is_first = false) {
        if (!is_first) by_buf_addc(out, ',');
        write_call(q, &v.said.calls[i], i, true, out);
    }
    by_buf_addz(out, "],");
    write_stop(q, s, v.said.n_calls > 0, out);
    by_buf_addc(out, ',');
    write_usage(e, s->n_output, out);
    by_buf_addc(out, '}');
    chat_view_release(&v);
}

static void begin(struct by_buf *out, const char *event) {
    by_buf_addf(out, "event: %s\ndata: {\"type\":\"%s\"", event, event);
}

static void end(struct by_buf *out) {
    by_buf_addz(out, "}\n\n");
}

static void write_message_start(const struct request *q, const struct journal_entry *e,
                                struct by_buf *out) {
    begin(out, "message_start");
    by_buf_addz(out, ",\"message\":{");
    write_id(q, out);
    by_buf_addz(out, ",\"type\":\"message\",\"role\":\"assistant\",\"content\":[]");
    api_add_str(out, "model", q->model);
    by_buf_addz(out, ",\"stop_reason\":null,\"stop_sequence\":null,");
    write_usage(e, 0, out);
    by_buf_addc(out, '}');
    end(out);
}

static void write_block_stop(size_t index, struct by_buf *out) {
    begin(out, "content_block_stop");
    by_buf_addf(out, ",\"index\":%zu", index);
    end(out);
}

/* kind: "text" or "thinking"; is_new: its block begins here. */
static void write_words(size_t index, const char *kind, bool is_new, struct by_str words,
                        struct by_buf *out) {
    if (is_new) {
        begin(out, "content_block_start");
        by_buf_addf(out, ",\"index\":%zu,\"content_block\":{\"type\":\"%s\",\"%s\":\"\"}", index,
                    kind, kind);
        end(out);
    }
    begin(out, "content_block_delta");
    by_buf_addf(out, ",\"index\":%zu,\"delta\":{\"type\":\"%s_delta\"", index, kind);
    api_add_str(out, kind, words);
    by_buf_addc(out, '}');
    end(out);
}

static void write_call_block(const struct request *q, const struct parse_tools_call *c, size_t i,
                             size_t index, struct by_buf *out) {
    begin(out, "content_block_start");
    by_buf_addf(out, ",\"index\":%zu,\"content_block\":", index);
    write_call(q, c, i, false, out);
    end(out);
    begin(out, "content_block_delta");
    by_buf_addf(out, ",\"index\":%zu,\"delta\":{\"type\":\"input_json_delta\"", index);
    api_add_str(out, "partial_json", c->arguments);
    by_buf_addc(out, '}');
    end(out);
    write_block_stop(index, out);
}

/* Tools come at the end, so that all words are one block also when a model goes on behind a call. */
static void write_message_end(const struct request *q, const struct journal_sample *s,
                              const struct chat_view *v, struct by_buf *out) {
    size_t index = (v->reasoning.n > 0) + (v->said.content.n > 0);
    if (index) write_block_stop(index - 1, out);
    for (size_t i = 0; i < v->said.n_calls; i++)
        write_call_block(q, &v->said.calls[i], i, index + i, out);
    begin(out, "message_delta");
    by_buf_addz(out, ",\"delta\":{");
    write_stop(q, s, v->said.n_calls > 0, out);
    by_buf_addz(out, "},");
    write_usage(s->entry, s->n_output, out);
    end(out);
}

static void anthropic_delta(struct request *q, struct journal_entry *e, uint32_t sample,
                            struct by_buf *out) {
    struct journal_sample *s = &e->samples[sample];
    struct chat_news n;
    chat_news_read(q, s, &n);
    size_t n_thinking = n.now.reasoning.n > 0;
    if (!s->is_begun) write_message_start(q, e, out);
    if (n.reasoning.n) write_words(0, "thinking", !n.was.reasoning.n, n.reasoning, out);
    if (n.content.n) {
        if (n_thinking && !n.was.said.content.n) write_block_stop(0, out);
        write_words(n_thinking, "text", !n.was.said.content.n, n.content, out);
    }
    if (s->finish) write_message_end(q, s, &n.now, out);
    chat_news_release(&n);
}

static void anthropic_end(struct request *q, struct by_buf *out) {
    (void)q;
    begin(out, "message_stop");
    end(out);
}

void api_anthropic_write_error(struct by_buf *out, int code, const char *text) {
    int status = by_err_http(code);
    const char *type = status == 413   ? "request_too_large"
                       : status == 503 ? "overloaded_error"
                       : status >= 500 ? "api_error"
                                       : by_err_type(code);
    by_buf_addf(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", type);
    struct by_buf told;
    by_buf_init(&told, 65536);
    if (code == BY_ETOOLONG) by_buf_addz(&told, "prompt is too long: "); /* what clients look for */
    by_buf_addz(&told, text);
    by_buf_add_json_str(out, by_buf_str(&told));
    by_buf_release(&told);
    by_buf_addz(out, "}}");
}

static void write_error_event(struct by_buf *out, int code, const char *text) {
    by_buf_addz(out, "event: error\ndata: ");
    api_anthropic_write_error(out, code, text);
    by_buf_addz(out, "\n\n");
}

static const char *const names[][2] = {
    {"stop", "stop_sequences"}, {"reasoning_effort", "output_config.effort"}, {NULL, NULL}};
static const struct dialect anthropic = {.names = names,
                                         .delta = anthropic_delta,
                                         .end = anthropic_end,
                                         .whole = anthropic_whole,
                                         .error = api_anthropic_write_error,
                                         .error_event = write_error_event};
static const struct dialect count = {.error = api_anthropic_write_error};

/* ---- reading: as a chat completion ---- */

static void add_value(struct by_buf *out, const char *head, const struct by_json *v) {
    by_buf_addz(out, head);
    if (v)
        by_json_print(v, out);
    else
        by_buf_addz(out, "null");
}

static struct by_str type_of(const struct by_json *block) {
    return by_json_str(by_json_get(block, "type"));
}

/* The words of a string or of a list of text blocks, as one JSON string; other blocks are left out. */
static void add_words(struct by_buf *out, const struct by_json *content) {
    struct by_buf words;
    by_buf_init(&words, LIMIT_STR_BYTES);
    if (by_json_type(content) == BY_JSON_STRING) by_buf_add_str(&words, by_json_str(content));
    for (const struct by_json *b = by_json_first(content); b; b = by_json_next(b)) {
        if (by_str_eqz(type_of(b), "text"))
            by_buf_add_str(&words, by_json_str(by_json_get(b, "text")));
    }
    by_buf_add_json_str(out, by_buf_str(&words));
    by_buf_release(&words);
}

static int check_blocks(const struct by_json *content, unsigned i, struct by_err *err) {
    static const char *const known[] = {"text", "tool_use", "tool_result", "thinking",
                                        "redacted_thinking"};
    if (by_json_type(content) != BY_JSON_ARRAY) return 0; /* checked by the chat's reader */
    for (const struct by_json *b = by_json_first(content); b; b = by_json_next(b)) {
        struct by_str type = type_of(b);
        bool is_known = false;
        for (size_t k = 0; k < BY_COUNTOF(known); k++)
            is_known |= by_str_eqz(type, known[k]);
        if (!is_known)
            return by_fail(err, BY_EUNSUPPORTED,
                           "messages[%u].content: a block of type '%.*s' is not supported yet", i,
                           (int)BY_MIN(type.n, (size_t)40), type.p ? type.p : "");
    }
    return 0;
}

static void add_tool_results(struct by_buf *out, const struct by_json *content) {
    for (const struct by_json *b = by_json_first(content); b; b = by_json_next(b)) {
        if (!by_str_eqz(type_of(b), "tool_result")) continue;
        by_buf_addz(out, ",{\"role\":\"tool\"");
        api_add_member(out, b, "tool_use_id", "tool_call_id");
        by_buf_addz(out, ",\"content\":");
        add_words(out, by_json_get(b, "content"));
        by_buf_addc(out, '}');
    }
}

static void add_tool_calls(struct by_buf *out, const struct by_json *content) {
    bool is_first = true;
    for (const struct by_json *b = by_json_first(content); b; b = by_json_next(b)) {
        if (!by_str_eqz(type_of(b), "tool_use")) continue;
        by_buf_addz(out, is_first ? ",\"tool_calls\":[" : ",");
        by_buf_addz(out, "{\"type\":\"function\"");
        api_add_member(out, b, "id", "id");
        add_value(out, ",\"function\":{\"name\":", by_json_get(b, "name"));
        api_add_member(out, b, "input", "arguments");
        by_buf_addz(out, "}}");
        is_first = false;
    }
    if (!is_first) by_buf_addc(out, ']');
}

static bool has_only_results(const struct by_json *content) {
    if (by_json_type(content) != BY_JSON_ARRAY || !by_json_first(content)) return false;
    for (const struct by_json *b = by_json_first(content); b; b = by_json_next(b)) {
        if (!by_str_eqz(type_of(b), "tool_result")) return false;
    }
    return true;
}

static int add_messages(struct by_buf *out, const struct by_json *body, struct by_err *err) {
    const struct by_json *system = by_json_get(body, "system"), *messages = NULL;
    int rc = by_json_get_array(body, "", "messages", &messages, err);
    unsigned i = 0;
    size_t first = out->n;
    if (!rc && (!messages || !by_json_first(messages)))
        rc = by_fail(err, BY_EINVAL, "messages: at least one message is needed");
    if (rc) return rc;
    if (system && by_json_type(system) != BY_JSON_NULL) {
        by_buf_addz(out, ",{\"role\":\"system\",\"content\":");
        add_words(out, system);
        by_buf_addc(out, '}');
    }
    for (const struct by_json *m = by_json_first(messages); m; m = by_json_next(m), i++) {
        const struct by_json *content = by_json_get(m, "content");
        rc = check_blocks(content, i, err);
        if (rc) return rc;
        if (by_json_type(m) != BY_JSON_OBJECT || !content)
            return by_fail(err, BY_EINVAL, "messages[%u].content: a string or blocks are needed",
                           i);
        if (!by_json_str(by_json_get(m, "role")).n)
            return by_fail(err, BY_EINVAL, "messages[%u].role: a string is needed", i);
        add_tool_results(out, content);
        if (has_only_results(content)) continue;
        add_value(out, ",{\"role\":", by_json_get(m, "role"));
        by_buf_addz(out, ",\"content\":");
        if (by_json_type(content) == BY_JSON_ARRAY)
            add_words(out, content);
        else
            by_json_print(content, out);
        add_tool_calls(out, content);
        by_buf_addc(out, '}');
    }
    out->p[first] = '['; /* in place of the first comma */
    by_buf_addc(out, ']');
    return 0;
}

/* What would change the answer, and is not there. */
static int refuse_missing(const struct by_json *body, struct by_err *err) {
    static const char *const refused[] = {"output_format", "mcp_servers", "container"};
    const struct by_json *config = NULL;
    int rc = api_refuse(body, refused, BY_COUNTOF(refused), err);
    if (!rc) rc = by_json_get_object(body, "", "output_config", &config, err);
    if (rc) return rc;
    if (by_json_type(by_json_get(config, "format")) != BY_JSON_NULL)
        return by_fail(err, BY_EUNSUPPORTED,
                       "output_config.format: it is not supported yet; leave it out");
    unsigned i = 0;
    for (const struct by_json *t = by_json_first(by_json_get(body, "tools")); t;
         t = by_json_next(t), i++) {
        struct by_str type = type_of(t);
        if (type.n && !by_str_eqz(type, "custom"))
            return by_fail(err, BY_EUNSUPPORTED,
                           "tools[%u]: of type '%.*s' there are none here; a tool of the client's "
                           "own has an input_schema, and no type",
                           i, (int)BY_MIN(type.n, (size_t)40), type.p);
        if (!by_json_str(by_json_get(t, "name")).n)
            return by_fail(err, BY_EINVAL, "tools[%u].name: a string is needed", i);
    }
    return 0;
}

/* An answer that has begun: their clients end with the assistant's words what it shall go on from. */
static bool is_begun(const struct by_json *body) {
    const struct by_json *last = NULL;
    for (const struct by_json *m = by_json_first(by_json_get(body, "messages")); m;
         m = by_json_next(m))
        last = m;
    const struct by_json *content = by_json_get(last, "content");
    bool has_text = by_json_str(content).n > 0;
    if (!by_str_eqz(by_json_str(by_json_get(last, "role")), "assistant")) return false;
    for (const struct by_json *b = by_json_first(content); b; b = by_json_next(b)) {
        if (by_str_eqz(type_of(b), "tool_use")) return false;
        has_text |= by_json_str(by_json_get(b, "text")).n > 0;
    }
    return has_text;
}

static void add_tools(struct by_buf *out, const struct by_json *body) {
    const struct by_json *tools = by_json_get(body, "tools");
    const struct by_json *choice = by_json_get(body, "tool_choice");
    struct by_str how = type_of(choice);
    if (by_json_type(tools) == BY_JSON_ARRAY && by_json_first(tools)) {
        by_buf_addz(out, ",\"tools\":[");
        for (const struct by_json *t = by_json_first(tools); t; t = by_json_next(t)) {
            by_buf_addz(out, t == by_json_first(tools) ? "{" : ",{");
            add_value(out, "\"type\":\"function\",\"function\":{\"name\":", by_json_get(t, "name"));
            api_add_member(out, t, "description", "description");
            api_add_member(out, t, "input_schema", "parameters");
            by_buf_addz(out, "}}");
        }
        by_buf_addc(out, ']');
    }
    if (how.n) api_add_str(out, "tool_choice", how); /* auto, none; any and tool are refused */
    if (by_json_bool(by_json_get(choice, "disable_parallel_tool_use")))
        by_buf_addz(out, ",\"parallel_tool_calls\":false");
}

static int read_as_chat(struct request *q, bool is_count, struct by_err *err) {
    static const char *const same[] = {"model",      "max_tokens", "temperature", "top_p",
                                       "top_k",      "stream",     "rid",         "priority",
                                       "cache_salt", "extra_key"};
    struct by_buf out;
    const struct by_json *max = by_json_get(q->body, "max_tokens");
    const struct by_json *thinking = by_json_get(q->body, "thinking");
    int rc = refuse_missing(q->body, err);
    if (rc) return rc;
    if (!is_count && (!max || by_json_type(max) == BY_JSON_NULL))
        return by_fail(err, BY_EINVAL, "max_tokens: it is needed");
    by_buf_init(&out, LIMIT_STR_BYTES);
    by_buf_addz(&out, "{\"messages\":");
    rc = add_messages(&out, q->body, err);
    for (size_t i = 0; i < BY_COUNTOF(same) && !(is_count && i); i++)
        api_add_member(&out, q->body, same[i], same[i]);
    if (is_count) by_buf_addz(&out, ",\"max_tokens\":0");
    if (!is_count) api_add_member(&out, q->body, "stop_sequences", "stop");
    if (thinking && by_json_type(thinking) == BY_JSON_OBJECT)
        by_buf_addf(&out, ",\"chat_template_kwargs\":{\"enable_thinking\":%s}",
                    by_str_eqz(type_of(thinking), "disabled") ? "false" : "true");
    api_add_member(&out, by_json_get(q->body, "output_config"), "effort", "reasoning_effort");
    if (is_begun(q->body)) by_buf_addz(&out, ",\"continue_final_message\":true");
    add_tools(&out, q->body);
    by_buf_addc(&out, '}');
    if (!rc) rc = api_chat_read_as(q, &out, err);
    by_buf_release(&out);
    return rc;
}

static int read_messages(struct request *q, struct by_err *err) {
    return read_as_chat(q, false, err);
}

void api_messages(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &anthropic), req, read_messages);
}

/* A tokenizer worker renders and counts; no page is touched. The request was only read, and is never started. */
void api_count_tokens(struct router *r, struct conn *c, const struct http1_request *req) {
    struct by_err err = {0};
    struct request *q = request_new(r, c, &count);
    if (!request_parse(q, req)) return;
    if (read_as_chat(q, true, &err)) {
        request_refuse(q, &err);
        return;
    }
    api_ask_tokenizer(r, c, "count_tokens", q->entries[0]->request.chat, api_anthropic_write_error);
    request_free(q);
}
