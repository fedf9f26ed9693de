#include "common/base/clock.h"
#include "router/api.h"
#include "router/chat_view.h"

#include <stdio.h>
#include <time.h>

/* /api/chat, /api/generate, /api/tags, /api/ps, /api/show, /api/version: Ollama's dialect, lines of JSON. The body is rewritten as a
 * chat completion's, so that one reader checks both. */

enum { DEFAULT_NEW_TOKENS = 2048 };

/* ---- writing ---- */

enum { TIME_BYTES = 32 };

static void format_time(char at[TIME_BYTES], uint64_t since_1970_s) {
    time_t s = (time_t)since_1970_s;
    struct tm t;
    gmtime_r(&s, &t);
    strftime(at, TIME_BYTES, "%Y-%m-%dT%H:%M:%SZ", &t);
}

/* {"model":…,"created_at":…   (no closing brace) */
static void write_head(const struct request *q, struct by_buf *out) {
    char at[TIME_BYTES];
    format_time(at, q->created_s);
    by_buf_addz(out, "{\"model\":");
    by_buf_add_json_str(out, q->model);
    api_add_str(out, "created_at", by_str_of(at));
}

/* Nanoseconds: of the prompt, without its wait, until the first token; of the answer from there on, never 0, as clients divide
 * eval_count by it. */
static void write_done(const struct request *q, const struct journal_entry *e, struct by_buf *out) {
    const struct journal_sample *s = e->samples;
    uint64_t now_ns = by_now_ns(), first_ns = s->first_ns ? s->first_ns : now_ns,
             until_first_ns = first_ns - q->started_ns, queue_ns = e->queue_us * 1000,
             prompt_ns = until_first_ns - BY_MIN(queue_ns, until_first_ns);
    by_buf_addf(out,
                ",\"done\":true,\"done_reason\":\"%s\",\"total_duration\":%llu,\"load_duration\":0,"
                "\"prompt_eval_count\":%u,\"prompt_eval_duration\":%llu,\"eval_count\":%u,"
                "\"eval_duration\":%llu}",
                request_finish_reason(s), (unsigned long long)(now_ns - q->started_ns), e->n_prompt,
                (unsigned long long)prompt_ns, s->n_output,
                (unsigned long long)BY_MAX(now_ns - first_ns, (uint64_t)1));
}

/* As the model wrote them, but in one line: between its words JSON takes a blank for a line's end, and within none there is any. */
static void write_arguments(struct by_str arguments, struct by_buf *out) {
    size_t from = out->n;
    by_buf_add_str(out, arguments);
    for (size_t i = from; i < out->n; i++) {
        if (out->p[i] == '\n' || out->p[i] == '\r') out->p[i] = ' ';
    }
}

static void write_calls(const struct chat_view *v, size_t from, struct by_buf *out) {
    by_buf_addz(out, ",\"tool_calls\":[");
    for (size_t i = from; i < v->said.n_calls; i++) {
        by_buf_addz(out, i > from ? ",{\"function\":{\"name\":" : "{\"function\":{\"name\":");
        by_buf_add_json_str(out, v->said.calls[i].name);
        by_buf_addz(out, ",\"arguments\":");
        write_arguments(v->said.calls[i].arguments, out);
        by_buf_addz(out, "}}");
    }
    by_buf_addc(out, ']');
}

/* What is new of now against was: as a message, or under the name `response`. */
static void write_said(const struct chat_view *was, const struct chat_view *now, bool is_chat,
                       struct by_buf *out) {
    struct by_str words = by_str_sub(by_buf_str(&now->said.content), was->said.content.n, SIZE_MAX),
                  thought = by_str_sub(now->reasoning, was->reasoning.n, SIZE_MAX);
    if (!is_chat) {
        api_add_str(out, "response", words);
        if (thought.n) api_add_str(out, "thinking", thought);
        return;
    }
    by_buf_addz(out, ",\"message\":{\"role\":\"assistant\"");
    api_add_str(out, "content", words);
    if (thought.n) api_add_str(out, "thinking", thought);
    if (now->said.n_calls > was->said.n_calls) write_calls(now, was->said.n_calls, out);
    by_buf_addc(out, '}');
}

static void write_delta(const struct request *q, const struct journal_entry *e, uint32_t sample,
                        bool is_chat, struct by_buf *out) {
    struct journal_sample *s = &e->samples[sample];
    struct chat_news n;
    chat_news_read(q, s, &n);
    if (n.reasoning.n || n.content.n || n.has_calls) {
        write_head(q, out);
        write_said(&n.was, &n.now, is_chat, out);
        by_buf_addz(out, ",\"done\":false}\n");
    }
    if (s->finish) {
        write_head(q, out);
        write_said(&n.now, &n.now, is_chat, out);
        write_done(q, e, out);
        by_buf_addc(out, '\n');
    }
    chat_news_release(&n);
}

static void ollama_end(struct request *q, struct by_buf *out) {
    (void)q;
    (void)out; /* the last line said so */
}

static void write_whole(const struct request *q, bool is_chat, struct by_buf *out) {
    const struct journal_entry *e = q->entries[0];
    struct chat_view none, all;
    chat_view_read(q, (struct by_str){0}, false, &none);
    chat_view_read(q, by_buf_str(&e->samples[0].text), true, &all);
    write_head(q, out);
    write_said(&none, &all, is_chat, out);
    write_done(q, e, out);
    chat_view_release(&none);
    chat_view_release(&all);
}

void api_ollama_write_error(struct by_buf *out, int code, const char *text) {
    (void)code;
    by_buf_addz(out, "{\"error\":");
    by_buf_add_json_str(out, by_str_of(text));
    by_buf_addc(out, '}');
}

static void write_error_line(struct by_buf *out, int code, const char *text) {
    api_ollama_write_error(out, code, text);
    by_buf_addc(out, '\n');
}

static void chat_delta(struct request *q, struct journal_entry *e, uint32_t sample,
                       struct by_buf *out) {
    write_delta(q, e, sample, true, out);
}

static void generate_delta(struct request *q, struct journal_entry *e, uint32_t sample,
                           struct by_buf *out) {
    write_delta(q, e, sample, false, out);
}

static void chat_whole(struct request *q, struct by_buf *out) {
    write_whole(q, true, out);
}

static void generate_whole(struct request *q, struct by_buf *out) {
    write_whole(q, false, out);
}

static const char *const their_names[][2] = {{"max_tokens", "options.num_predict"},
                                             {"repetition_penalty", "options.repeat_penalty"},
                                             {"temperature", "options.temperature"},
                                             {"top_p", "options.top_p"},
                                             {"top_k", "options.top_k"},
                                             {"min_p", "options.min_p"},
                                             {"stop", "options.stop"},
                                             {"seed", "options.seed"},
                                             {"reasoning_effort", "think"},
                                             {NULL, NULL}};
static const struct dialect chat = {.delta = chat_delta,
                                    .end = ollama_end,
                                    .whole = chat_whole,
                                    .error = api_ollama_write_error,
                                    .names = their_names,
                                    .error_event = write_error_line,
                                    .stream_type = "application/x-ndjson"};
static const struct dialect generate = {.delta = generate_delta,
                                        .end = ollama_end,
                                        .whole = generate_whole,
                                        .error = api_ollama_write_error,
                                        .names = their_names,
                                        .error_event = write_error_line,
                                        .stream_type = "application/x-ndjson"};

/* ---- reading: as a chat completion ---- */

static int refuse_missing(const struct by_json *body, bool is_chat, struct by_err *err) {
    static const char *const refused[] = {"format",  "images",   "suffix", "template",
                                          "context", "logprobs", "raw"}; /* that: of a chat only */
    int rc = api_refuse(body, refused, BY_COUNTOF(refused) - !is_chat, err);
    if (rc) return rc;
    const struct by_json *list = is_chat ? by_json_get(body, "messages") : NULL;
    unsigned i = 0;
    for (const struct by_json *m = by_json_first(list); m; m = by_json_next(m), i++) {
        if (by_json_first(by_json_get(m, "images")))
            return by_fail(err, BY_EUNSUPPORTED, "messages[%u].images: they are not supported yet",
                           i);
    }
    return 0;
}

static void add_options(struct by_buf *out, const struct by_json *options) {
    static const char *const names[][2] = {{"temperature", "temperature"},
                                           {"top_p", "top_p"},
                                           {"top_k", "top_k"},
                                           {"min_p", "min_p"},
                                           {"stop", "stop"},
                                           {"seed", "seed"},
                                           {"repeat_penalty", "repetition_penalty"},
                                           {"presence_penalty", "presence_penalty"},
                                           {"frequency_penalty", "frequency_penalty"}};
    const struct by_json *n = by_json_get(options, "num_predict");
    for (size_t i = 0; i < BY_COUNTOF(names); i++)
        api_add_member(out, options, names[i][0], names[i][1]);
    if (!n || by_json_type(n) == BY_JSON_NULL)
        by_buf_addf(out, ",\"max_tokens\":%d", DEFAULT_NEW_TOKENS);
    else if (by_json_type(n) != BY_JSON_NUMBER || by_json_f64(n) >= 0) /* below 0: no limit */
        api_add_member(out, options, "num_predict", "max_tokens");
}

/* Those of a chat, or what `generate` says as messages. */
static void add_messages(struct by_buf *out, const struct by_json *messages,
                         const struct by_json *body) {
    by_buf_addz(out, "{\"messages\":");
    if (messages) {
        by_json_print(messages, out);
        return;
    }
    by_buf_addz(out, "[");
    if (by_json_str(by_json_get(body, "system")).n) {
        by_buf_addz(out, "{\"role\":\"system\"");
        api_add_member(out, body, "system", "content");
        by_buf_addz(out, "},");
    }
    by_buf_addz(out, "{\"role\":\"user\"");
    api_add_member(out, body, "prompt", "content");
    by_buf_addz(out, "}]");
}

/* A prompt that is its own template; as with Ollama nothing else stands before it. */
static int add_raw(struct by_buf *out, const struct by_json *body, struct by_err *err) {
    if (by_json_str(by_json_get(body, "system")).n)
        return by_fail(err, BY_EINVAL,
                       "system: with raw the prompt is all that the model sees; write it there");
    by_buf_addz(out, "{\"prompt\":");
    by_json_print(by_json_get(body, "prompt"), out);
    return 0;
}

/* is_load: nothing is said, it is only to be loaded; the rest has not been read. */
static int read_body(struct request *q, bool is_chat, bool *is_load, struct by_err *err) {
    struct by_buf out;
    const struct by_json *messages = NULL, *options = NULL;
    const struct by_json *think = by_json_get(q->body, "think");
    struct by_str prompt = {0};
    bool is_stream = true, is_raw = false;
    int rc = refuse_missing(q->body, is_chat, err);
    if (!rc) rc = by_json_get_bool(q->body, "", "stream", &is_stream, err);
    if (!rc) rc = by_json_get_object(q->body, "", "options", &options, err);
    if (!rc && is_chat) rc = by_json_get_array(q->body, "", "messages", &messages, err);
    if (!rc && !is_chat) rc = by_json_get_str(q->body, "", "prompt", &prompt, err);
    if (!rc && !is_chat) rc = by_json_get_bool(q->body, "", "raw", &is_raw, err);
    if (!rc) rc = by_json_get_str(q->body, "", "model", &q->model, err);
    *is_load = !rc && !by_json_first(messages) && !prompt.n;
    if (rc || *is_load) return rc;
    by_buf_init(&out, LIMIT_STR_BYTES);
    if (is_raw)
        rc = add_raw(&out, q->body, err);
    else
        add_messages(&out, messages, q->body);
    by_buf_addz(&out, is_stream ? ",\"stream\":true" : ",\"stream\":false");
    api_add_member(&out, q->body, "model", "model");
    api_add_member(&out, q->body, "tools", "tools");
    api_add_member(&out, q->body, "cache_salt", "cache_salt");
    add_options(&out, options);
    if (by_json_type(think) == BY_JSON_BOOL && think)
        by_buf_addf(&out, ",\"chat_template_kwargs\":{\"enable_thinking\":%s}",
                    by_json_bool(think) ? "true" : "false");
    if (by_json_type(think) == BY_JSON_STRING)
        api_add_member(&out, q->body, "think", "reasoning_effort");
    by_buf_addc(&out, '}');
    if (!rc) rc = is_raw ? api_completions_read_as(q, &out, err) : api_chat_read_as(q, &out, err);
    by_buf_release(&out);
    return rc;
}

/* Their clients begin by asking for the model alone, and end so with keep_alive: 0; here it is always loaded. */
static void answer_load(struct request *q, struct conn *c, bool is_chat) {
    int64_t keep = -1;
    const struct by_json *alive = by_json_get(q->body, "keep_alive");
    bool ends = alive && by_json_to_i64(alive, &keep) && keep == 0;
    struct by_buf body;
    by_buf_init(&body, 65536);
    write_head(q, &body);
    by_buf_addz(&body, is_chat ? ",\"message\":{\"role\":\"assistant\",\"content\":\"\"}"
                               : ",\"response\":\"\"");
    by_buf_addf(&body,
                ",\"done\":true,\"done_reason\":\"%s\",\"total_duration\":0,\"load_duration\":0,"
                "\"prompt_eval_count\":0,\"prompt_eval_duration\":0,\"eval_count\":0,"
                "\"eval_duration\":0}\n",
                ends ? "unload" : "load");
    conn_respond(c, 200, "application/json", by_buf_str(&body), NULL);
    by_buf_release(&body);
    request_free(q);
}

static void handle(struct router *r, struct conn *c, const struct http1_request *req,
                   bool is_chat) {
    struct by_err err = {0};
    bool is_load = false;
    struct request *q = request_new(r, c, is_chat ? &chat : &generate);
    if (!request_parse(q, req)) return;
    if (read_body(q, is_chat, &is_load, &err))
        request_refuse(q, &err);
    else if (is_load)
        answer_load(q, c, is_chat);
    else
        request_start(q);
}

void api_ollama_chat(struct router *r, struct conn *c, const struct http1_request *req) {
    handle(r, c, req, true);
}

void api_ollama_generate(struct router *r, struct conn *c, const struct http1_request *req) {
    handle(r, c, req, false);
}

/* ---- facts ---- */

static void write_details(const struct router *r, struct by_buf *out) {
    struct by_str family = uplink_state(r->uplink)->model.type;
    by_buf_addz(out, "\"details\":{\"parent_model\":\"\",\"format\":\"\"");
    api_add_str(out, "family", family);
    by_buf_addz(out, ",\"families\":[");
    by_buf_add_json_str(out, family);
    by_buf_addz(out, "],\"parameter_size\":\"\",\"quantization_level\":\"\"}");
}

static void respond(struct conn *c, struct by_buf *body) {
    conn_respond(c, 200, "application/json", by_buf_str(body), NULL);
    by_buf_release(body);
}

/* The one model that there is, with what `more` says of it. */
static void respond_models(const struct router *r, struct conn *c, const char *more) {
    const struct uplink_state *u = uplink_state(r->uplink);
    struct by_buf body;
    by_buf_init(&body, 65536);
    by_buf_addz(&body, "{\"models\":[{\"name\":");
    by_buf_add_json_str(&body, request_model_name(r));
    api_add_str(&body, "model", request_model_name(r));
    api_add_str(&body, "digest", u->model.weights_id);
    by_buf_addf(&body, ",\"size\":%llu,", (unsigned long long)u->capacity.weight_bytes);
    by_buf_addz(&body, more);
    write_details(r, &body);
    by_buf_addz(&body, "}]}");
    respond(c, &body);
}

void api_ollama_tags(struct router *r, struct conn *c, const struct http1_request *req) {
    char at[TIME_BYTES], more[64];
    (void)req;
    format_time(at, r->started_s); /* as /v1/models has it: "56 years ago" in a list helps nobody */
    snprintf(more, sizeof more, "\"modified_at\":\"%s\",", at);
    respond_models(r, c, more);
}

/* What is served stays loaded: its end lies as far away as Ollama's keep_alive of -1 puts it. */
void api_ollama_ps(struct router *r, struct conn *c, const struct http1_request *req) {
    (void)req;
    respond_models(r, c, "\"expires_at\":\"2318-01-01T00:00:00Z\",\"size_vram\":0,");
}

void api_ollama_show(struct router *r, struct conn *c, const struct http1_request *req) {
    const struct uplink_state *u = uplink_state(r->uplink);
    struct by_buf body, key;
    (void)req; /* there is one model */
    by_buf_init(&body, 65536);
    by_buf_addz(&body, "{\"modelfile\":\"\",\"parameters\":\"\",\"template\":\"\",");
    write_details(r, &body);
    by_buf_addz(&body, ",\"model_info\":{\"general.architecture\":");
    by_buf_add_json_str(&body, u->model.type);
    by_buf_init(&key, 4096);
    by_buf_add_str(&key, u->model.type);
    by_buf_addz(&key, ".context_length");
    by_buf_addc(&body, ',');
    by_buf_add_json_str(&body, by_buf_str(&key));
    by_buf_release(&key);
    by_buf_addf(&body, ":%u},\"capabilities\":[", u->model.context_len);
    if (!u->model.is_encoder)
        by_buf_addf(&body, "\"completion\"%s%s", r->tools ? ",\"tools\"" : "",
                    r->reasoning ? ",\"thinking\"" : "");
    if (u->model.n_embed)
        by_buf_addz(&body, u->model.is_encoder ? "\"embedding\"" : ",\"embedding\"");
    by_buf_addz(&body, "]}");
    respond(c, &body);
}

void api_ollama_version(struct router *r, struct conn *c, const struct http1_request *req) {
    struct by_buf body;
    (void)r;
    (void)req;
    by_buf_init(&body, 256);
    by_buf_addz(&body, "{\"version\":\"" BANYAN_VERSION "\"}");
    respond(c, &body);
}
