#include "router/api.h"
#include "router/api_openai.h"
#include "router/chat_view.h"
#include "router/params.h"

#include <string.h>

/* POST /v1/chat/completions. The messages go to a tokenizer worker as they are; it renders the model's template. */

#define PREFIX "chatcmpl"
#define CHUNK "chat.completion.chunk"

/* ---- writing ---- */

static void write_logprob_entry(const struct journal_entry *e, uint32_t id, float logprob,
                                struct by_buf *out) {
    const struct by_str *piece = journal_piece(e, id);
    by_buf_addz(out, "{\"token\":");
    api_openai_write_token(e, id, out);
    by_buf_addz(out, ",\"logprob\":");
    by_buf_add_json_f32(out, logprob);
    by_buf_addz(out, piece ? ",\"bytes\":[" : ",\"bytes\":null");
    for (size_t i = 0; piece && i < piece->n; i++) {
        if (i) by_buf_addc(out, ',');
        by_buf_add_u64(out, (unsigned char)piece->p[i]);
    }
    if (piece) by_buf_addc(out, ']');
}

/* tokens [from, to) of the sample */
static void write_logprobs(const struct journal_entry *e, const struct journal_sample *s,
                           uint32_t from, uint32_t to, struct by_buf *out) {
    if (!e->request.sampling.logprobs) {
        by_buf_addz(out, "\"logprobs\":null");
        return;
    }
    uint32_t at = 0;
    for (uint32_t i = 0; i < from && i < s->tops.n; i++)
        at += s->tops.n_each[i];
    by_buf_addz(out, "\"logprobs\":{\"content\":[");
    for (uint32_t i = from; i < to && i < s->n_logprobs; i++) {
        if (i > from) by_buf_addc(out, ',');
        write_logprob_entry(e, s->ids[i], s->logprobs[i], out);
        by_buf_addz(out, ",\"top_logprobs\":[");
        uint32_t n = i < s->tops.n ? s->tops.n_each[i] : 0;
        for (uint32_t k = 0; k < n; k++, at++) {
            if (k) by_buf_addc(out, ',');
            write_logprob_entry(e, s->tops.ids[at], s->tops.logprobs[at], out);
            by_buf_addc(out, '}');
        }
        by_buf_addz(out, "]}");
    }
    by_buf_addz(out, "]}");
}

static void write_usage_so_far(const struct request *q, struct by_buf *out) {
    if (!q->wants_usage_always) return;
    by_buf_addc(out, ',');
    api_write_usage(q, out);
}

static void begin_event(const struct request *q, const struct journal_entry *e, uint32_t sample,
                        struct by_buf *out) {
    by_buf_addz(out, "data: ");
    api_openai_write_head(q, PREFIX, CHUNK, out);
    by_buf_addf(out, ",\"choices\":[{\"index\":%u,\"delta\":{", api_openai_choice(e, sample));
}

static void end_event(const struct request *q, const struct journal_entry *e, uint32_t sample,
                      bool has_tokens, struct by_buf *out) {
    const struct journal_sample *s = &e->samples[sample];
    by_buf_addz(out, "},");
    if (has_tokens)
        write_logprobs(e, s, s->n_sent_ids, s->finish ? s->n_output : s->n_ids, out);
    else
        by_buf_addz(out, "\"logprobs\":null");
    by_buf_addz(out, ",\"finish_reason\":null}]");
    write_usage_so_far(q, out);
    by_buf_addz(out, "}\n\n");
}

/* Calls [from, n). */
static void write_calls(const struct request *q, const struct chat_view *v, uint32_t choice,
                        size_t from, bool is_stream, struct by_buf *out) {
    by_buf_addz(out, "\"tool_calls\":[");
    for (size_t i = from; i < v->said.n_calls; i++) {
        const struct parse_tools_call *c = &v->said.calls[i];
        by_buf_addz(out, i > from ? ",{" : "{");
        if (is_stream) by_buf_addf(out, "\"index\":%zu,", i);
        by_buf_addz(out, "\"id\":");
        chat_view_write_call_id(q, choice, i, out);
        by_buf_addz(out, ",\"type\":\"function\",\"function\":{\"name\":");
        by_buf_add_json_str(out, c->name);
        api_add_str(out, "arguments", c->arguments);
        by_buf_addz(out, "}}");
    }
    by_buf_addc(out, ']');
}

static void write_view_delta(const struct request *q, const struct journal_entry *e,
                             uint32_t sample, bool has_tokens, struct by_buf *out) {
    struct journal_sample *s = &e->samples[sample];
    struct chat_news n;
    chat_news_read(q, s, &n);
    if (n.reasoning.n || n.content.n || n.has_calls || has_tokens) {
        begin_event(q, e, sample, out);
        by_buf_addz(out, "\"content\":");
        if (n.content.n)
            by_buf_add_json_str(out, n.content);
        else
            by_buf_addz(out, "null");
        if (n.reasoning.n) api_add_str(out, "reasoning_content", n.reasoning);
        if (n.has_calls) by_buf_addc(out, ',');
        if (n.has_calls)
            write_calls(q, &n.now, api_openai_choice(e, sample), n.was.said.n_calls, true, out);
        end_event(q, e, sample, has_tokens, out);
    }
    chat_news_release(&n);
}

/* NULL: as the sample says. */
static const char *reason_of(const struct request *q, const struct journal_sample *s) {
    bool is_stop = s->finish == FINISH_STOP_ID || s->finish == FINISH_STOP_TEXT;
    struct chat_view v;
    if (!q->tools || !is_stop) return NULL;
    chat_view_read(q, by_buf_str(&s->text), true, &v);
    bool has_calls = v.said.n_calls > 0;
    chat_view_release(&v);
    return has_calls ? "tool_calls" : NULL;
}

static void write_last_event(const struct request *q, const struct journal_entry *e,
                             uint32_t sample, struct by_buf *out) {
    const struct journal_sample *s = &e->samples[sample];
    begin_event(q, e, sample, out);
    by_buf_addz(out, "},\"logprobs\":null,");
    api_openai_write_finish(s, reason_of(q, s), out);
    by_buf_addz(out, "}]");
    write_usage_so_far(q, out);
    by_buf_addz(out, "}\n\n");
}

static void chat_delta(struct request *q, struct journal_entry *e, uint32_t sample,
                       struct by_buf *out) {
    struct journal_sample *s = &e->samples[sample];
    struct by_str text = by_str_sub(by_buf_str(&s->text), s->n_sent_text, SIZE_MAX);
    bool has_tokens = e->request.sampling.logprobs && s->n_ids > s->n_sent_ids;
    if (!s->is_begun) {
        begin_event(q, e, sample, out);
        by_buf_addz(out, "\"role\":\"assistant\",\"content\":\"\"");
        end_event(q, e, sample, false, out);
    }
    if (!chat_view_is_plain(q)) {
        write_view_delta(q, e, sample, has_tokens, out);
    } else if (text.n || has_tokens) {
        begin_event(q, e, sample, out);
        by_buf_addz(out, "\"content\":");
        by_buf_add_json_str(out, text);
        end_event(q, e, sample, true, out);
    }
    if (s->finish) write_last_event(q, e, sample, out);
}

static void chat_end(struct request *q, struct by_buf *out) {
    api_openai_write_usage_event(q, PREFIX, CHUNK, out);
    by_buf_addz(out, "data: [DONE]\n\n");
}

static void write_message(const struct request *q, const struct journal_entry *e, uint32_t sample,
                          struct by_buf *out) {
    struct chat_view v;
    chat_view_read(q, by_buf_str(&e->samples[sample].text), true, &v);
    by_buf_addz(out, "\"message\":{\"role\":\"assistant\",\"content\":");
    if (v.said.n_calls && !v.said.content.n)
        by_buf_addz(out, "null");
    else
        by_buf_add_json_str(out, by_buf_str(&v.said.content));
    by_buf_addz(out, ",\"reasoning_content\":");
    if (v.reasoning.n)
        by_buf_add_json_str(out, v.reasoning);
    else
        by_buf_addz(out, "null");
    by_buf_addc(out, ',');
    if (v.said.n_calls)
        write_calls(q, &v, sample, 0, false, out);
    else
        by_buf_addz(out, "\"tool_calls\":null");
    by_buf_addz(out, "},");
    chat_view_release(&v);
}

static void chat_whole(struct request *q, struct by_buf *out) {
    const struct journal_entry *e = q->entries[0];
    api_openai_write_head(q, PREFIX, "chat.completion", out);
    by_buf_addz(out, ",\"choices\":[");
    for (uint32_t i = 0; i < e->n_samples; i++) {
        const struct journal_sample *s = &e->samples[i];
        by_buf_addf(out, "%s{\"index\":%u,", i ? "," : "", i);
        write_message(q, e, i, out);
        write_logprobs(e, s, 0, s->n_output, out);
        by_buf_addc(out, ',');
        api_openai_write_finish(s, reason_of(q, s), out);
        by_buf_addc(out, '}');
    }
    by_buf_addz(out, "],");
    api_write_usage(q, out);
    by_buf_addc(out, '}');
}

static const char *const names[][2] = {{"min_new_tokens", "min_tokens"}, {NULL, NULL}};
static const struct dialect chat = {
    .delta = chat_delta, .end = chat_end, .whole = chat_whole, .names = names};

/* ---- reading ---- */

static int check_messages(const struct by_json *body, struct by_err *err) {
    const struct by_json *messages = NULL;
    int rc = by_json_get_array(body, "", "messages", &messages, err);
    if (rc) return rc;
    if (!messages || !by_json_first(messages))
        return by_fail(err, BY_EINVAL, "messages: at least one message is needed%s",
                       by_json_get(body, "prompt") ? "; a prompt goes to /v1/completions" : "");
    unsigned i = 0;
    for (const struct by_json *it = by_json_first(messages); it; it = by_json_next(it), i++) {
        if (by_json_type(it) != BY_JSON_OBJECT)
            return by_fail(err, BY_EINVAL, "messages[%u]: expected an object, got %s", i,
                           by_json_type_name(it));
        const struct by_json *role = by_json_get(it, "role"), *content = by_json_get(it, "content");
        if (!role || by_json_type(role) != BY_JSON_STRING)
            return by_fail(err, BY_EINVAL, "messages[%u].role: a string is needed", i);
        if (by_str_eqz(by_json_str(role), "user") &&
            (!content || by_json_type(content) == BY_JSON_NULL))
            return by_fail(err, BY_EINVAL, "messages[%u].content: a text is needed", i);
        bool is_text = !content || by_json_type(content) == BY_JSON_NULL ||
                       by_json_type(content) == BY_JSON_STRING;
        if (!is_text && by_json_type(content) != BY_JSON_ARRAY)
            return by_fail(err, BY_EINVAL,
                           "messages[%u].content: expected a string or a list of parts, got %s", i,
                           by_json_type_name(content));
        for (const struct by_json *part = is_text ? NULL : by_json_first(content); part;
             part = by_json_next(part)) {
            if (!by_str_eqz(by_json_str(by_json_get(part, "type")), "text"))
                return by_fail(err, BY_EUNSUPPORTED,
                               "messages[%u].content: only parts of type text are supported yet",
                               i);
            const struct by_json *text = by_json_get(part, "text");
            if (!text || by_json_type(text) != BY_JSON_STRING)
                return by_fail(err, BY_EINVAL,
                               "messages[%u].content: a part of type text needs its text", i);
        }
    }
    return 0;
}

/* Templates write a content as it is, so a list of parts would come out as a list: their texts take its place. */
static void add_content(struct by_buf *out, const struct by_json *content) {
    struct by_buf text;
    if (by_json_type(content) != BY_JSON_ARRAY) {
        by_json_print(content, out);
        return;
    }
    by_buf_init(&text, LIMIT_STR_BYTES);
    for (const struct by_json *it = by_json_first(content); it; it = by_json_next(it)) {
        if (it != by_json_first(content)) by_buf_addc(&text, ' ');
        by_buf_add_str(&text, by_json_str(by_json_get(it, "text")));
    }
    by_buf_add_json_str(out, by_buf_str(&text));
    by_buf_release(&text);
}

static void add_messages(struct by_buf *out, const struct by_json *messages) {
    by_buf_addz(out, "\"messages\":[");
    for (const struct by_json *m = by_json_first(messages); m; m = by_json_next(m)) {
        by_buf_addz(out, m == by_json_first(messages) ? "{" : ",{");
        for (const struct by_json *it = by_json_first(m); it; it = by_json_next(it)) {
            if (it != by_json_first(m)) by_buf_addc(out, ',');
            by_buf_add_json_str(out, by_json_key(it));
            by_buf_addc(out, ':');
            if (by_str_eqz(by_json_key(it), "content"))
                add_content(out, it);
            else
                by_json_print(it, out);
        }
        by_buf_addc(out, '}');
    }
    by_buf_addc(out, ']');
}

/* reasoning_effort is a variable of the template; none also says so to those that know enable_thinking or thinking. What the
 * client's own variables say goes first. */
static void add_kwargs(struct by_buf *out, const struct by_json *body) {
    static const char *const off[] = {"enable_thinking", "thinking"};
    const struct by_json *kwargs = by_json_get(body, "chat_template_kwargs"),
                         *effort = by_json_get(body, "reasoning_effort");
    size_t first = out->n;
    by_buf_addz(out, ",\"kwargs\":{");
    for (const struct by_json *it = by_json_first(kwargs); it; it = by_json_next(it)) {
        by_buf_add_json_str(out, by_json_key(it));
        by_buf_addc(out, ':');
        by_json_print(it, out);
        by_buf_addc(out, ',');
    }
    if (by_json_type(effort) != BY_JSON_NULL && !by_json_get(kwargs, "reasoning_effort")) {
        by_buf_addz(out, "\"reasoning_effort\":");
        by_json_print(effort, out);
        by_buf_addc(out, ',');
    }
    for (size_t i = 0; i < BY_COUNTOF(off) && by_str_eqz(by_json_str(effort), "none"); i++) {
        if (!by_json_get(kwargs, off[i])) by_buf_addf(out, "\"%s\":false,", off[i]);
    }
    if (out->p[out->n - 1] == '{') {
        out->n = first; /* there are none */
        return;
    }
    out->p[out->n - 1] = '}';
}

static int check_effort(const struct by_json *effort, struct by_err *err) {
    static const char *const known[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
    double x = by_json_type(effort) == BY_JSON_NUMBER ? by_json_f64(effort) : -1;
    if (by_json_type(effort) == BY_JSON_NULL || (x >= 0 && x < 1)) return 0;
    for (size_t i = 0; i < BY_COUNTOF(known); i++) {
        if (by_str_eqz(by_json_str(effort), known[i])) return 0;
    }
    return by_fail(err, BY_EINVAL,
                   "reasoning_effort: none, minimal, low, medium, high, xhigh, max or a number "
                   "from 0 to 0.99 is possible");
}

/* What the tokenizer worker needs to render: {messages, tools, needs_tools, add_generation_prompt, continue_final_message, kwargs}. */
static struct by_str chat_of(struct request *q) {
    struct by_buf out;
    const struct by_json *body = q->body, *choice = by_json_get(body, "tool_choice");
    bool goes_on = by_json_bool(by_json_get(body, "continue_final_message"));
    by_buf_init(&out, LIMIT_STR_BYTES);
    by_buf_addc(&out, '{');
    add_messages(&out, by_json_get(body, "messages"));
    if (!choice || !by_str_eqz(by_json_str(choice), "none")) {
        api_add_member(&out, body, "tools", "tools");
        /* who has named a parser knows how the model hears of tools */
        if (q->router->tools == PARSE_TOOLS_NONE) by_buf_addz(&out, ",\"needs_tools\":true");
    }
    api_add_member(&out, body, "continue_final_message", "continue_final_message");
    if (by_json_type(by_json_get(body, "add_generation_prompt")) != BY_JSON_NULL)
        api_add_member(&out, body, "add_generation_prompt", "add_generation_prompt");
    else
        by_buf_addf(&out, ",\"add_generation_prompt\":%s", goes_on ? "false" : "true");
    add_kwargs(&out, body);
    by_buf_addc(&out, '}');
    struct by_str copy = by_arena_copy(&q->arena, by_buf_str(&out));
    by_buf_release(&out);
    return copy;
}

static int check_tools(const struct by_json *tools, struct by_err *err) {
    unsigned i = 0;
    for (const struct by_json *t = by_json_first(tools); t; t = by_json_next(t), i++) {
        struct by_str type = by_json_str(by_json_get(t, "type"));
        if (by_json_type(t) != BY_JSON_OBJECT)
            return by_fail(err, BY_EINVAL, "tools[%u]: expected an object, got %s", i,
                           by_json_type_name(t));
        if (type.n && !by_str_eqz(type, "function"))
            return by_fail(err, BY_EUNSUPPORTED, "tools[%u].type: only function is supported", i);
        if (!by_json_str(by_json_get(by_json_get(t, "function"), "name")).n)
            return by_fail(err, BY_EINVAL, "tools[%u].function.name: a string is needed", i);
    }
    return 0;
}

/* Does it say that it wants to think, 1, or not, 0? -1: it says nothing. */
static int read_thinks(const struct by_json *body, int *thinks, struct by_err *err) {
    static const char *const flags[] = {"thinking", "enable_thinking"};
    const struct by_json *kwargs = NULL, *effort = by_json_get(body, "reasoning_effort");
    int rc = by_json_get_object(body, "", "chat_template_kwargs", &kwargs, err);
    bool flag = true;
    *thinks = by_str_eqz(by_json_str(effort), "none") ? 0 : -1;
    if (!rc && kwargs)
        rc = by_json_get_bool(kwargs, "chat_template_kwargs", "enable_thinking", &flag, err);
    for (size_t i = 0; i < BY_COUNTOF(flags); i++) {
        const struct by_json *v = by_json_get(kwargs, flags[i]);
        if (by_json_type(v) == BY_JSON_BOOL) *thinks = by_json_bool(v);
    }
    return rc;
}

/* Which parsers read the answer: those of the router's options, when the request has a use for them. */
static int read_parsers(struct request *q, struct msg_generate *m, struct by_err *err) {
    const struct by_json *body = q->body, *tools = NULL, *choice = by_json_get(body, "tool_choice");
    struct by_str how = by_json_str(choice);
    bool is_separate = true, is_told = true, is_parallel = true, flag = false;
    int thinks = -1;
    int rc = by_json_get_array(body, "", "tools", &tools, err);
    if (!rc) rc = check_tools(tools, err);
    if (!rc) rc = by_json_get_bool(body, "", "continue_final_message", &flag, err);
    if (!rc) rc = by_json_get_bool(body, "", "add_generation_prompt", &flag, err);
    if (!rc) rc = by_json_get_bool(body, "", "parallel_tool_calls", &is_parallel, err);
    if (!rc) rc = by_json_get_bool(body, "", "separate_reasoning", &is_separate, err);
    if (!rc) rc = by_json_get_bool(body, "", "include_reasoning", &is_told, err);
    if (!rc) rc = read_thinks(body, &thinks, err);
    if (!rc) rc = check_effort(by_json_get(body, "reasoning_effort"), err);
    if (rc) return rc;
    if (choice && by_json_type(choice) != BY_JSON_NULL && !by_str_eqz(how, "auto") &&
        !by_str_eqz(how, "none"))
        return by_fail(err, BY_EUNSUPPORTED,
                       "tool_choice: a call cannot be forced, which takes grammars, and these are "
                       "not supported yet; ask for auto, and say in a message which to call");
    q->is_one_call = !is_parallel;
    q->hides_reasoning = !is_told;
    if (is_separate) q->reasoning = parse_reasoning_when(q->router->reasoning, thinks);
    m->textual.wants_pieces |= q->reasoning != PARSE_REASONING_NONE; /* its tokens are counted */
    if (tools && by_json_first(tools) && !by_str_eqz(how, "none")) q->tools = q->router->tools;
    if (parse_tools_asks_types(q->tools)) parse_tools_types_read(&q->tool_types, tools, &q->arena);
    bool has_special = q->tools > PARSE_TOOLS_HERMES || parse_reasoning_is_special(q->reasoning);
    if (has_special && !by_json_get(body, "skip_special_tokens"))
        m->textual.skip_special_tokens = false; /* the markers are special tokens */
    return 0;
}

static int read_chat(struct request *q, struct by_err *err) {
    struct params p;
    struct msg_generate m = {.clock_s = q->created_s};
    api_openai_init(q, &p, 0);
    int rc = check_messages(q->body, err);
    if (!rc) rc = params_read_openai(&p, q->body, true, &q->arena, err);
    if (!rc) rc = api_openai_read_common(q, &m, err);
    if (rc) return rc;
    api_openai_fill(&m, &p);
    rc = read_parsers(q, &m, err);
    if (rc) return rc;
    m.chat = chat_of(q);
    request_add_prompt(q, &m);
    return 0;
}

int api_chat_read_as(struct request *q, const struct by_buf *body, struct by_err *err) {
    int rc = api_replace_body(q, body, "messages", err);
    return rc ? rc : read_chat(q, err);
}

void api_chat(struct router *r, struct conn *c, const struct http1_request *req) {
    api_serve(request_new(r, c, &chat), req, read_chat);
}
