#include "common/base/clock.h"
#include "router/api.h"

#include <stdio.h>

/* /parse_function_call and /separate_reasoning: what a model wrote, read as an answer of ours would be. For who has its tokens from
 * /generate. */

/* The body's text, and the parser that it names, or the server's own. */
struct asked {
    struct by_json *body;
    struct by_str text;
    char parser[32];
};

static int read_asked(struct asked *a, const struct http1_request *req, const char *key,
                      const char *own, struct by_err *err) {
    struct by_str name = {0};
    int rc = request_read_body(&a->body, req, err);
    if (!rc) rc = by_json_get_str(a->body, "", "text", &a->text, err);
    if (!rc && by_json_type(by_json_get(a->body, "text")) != BY_JSON_STRING)
        rc = by_fail(err, BY_EINVAL, "text: what the model wrote is needed");
    if (!rc) rc = by_json_get_str(a->body, "", key, &name, err);
    if (rc) return rc;
    snprintf(a->parser, sizeof a->parser, BY_STR_FMT, BY_STR_ARG(name.n ? name : by_str_of(own)));
    return 0;
}

static int refuse_parser(const struct asked *a, const char *key, struct by_err *err) {
    char flag[32];
    snprintf(flag, sizeof flag, "--%s", key);
    for (char *p = flag; *p; p++)
        *p = *p == '_' ? '-' : *p;
    return by_fail(err, BY_EINVAL, "%s: '%s' reads nothing; banyan-router --help has those of %s",
                   key, a->parser, flag);
}

static int write_calls(const struct asked *a, struct by_buf *out, struct by_err *err) {
    struct parse_tools_result said;
    struct parse_tools_types types = {0};
    struct by_arena arena;
    enum parse_tools kind = parse_tools_of(a->parser);
    if (kind == PARSE_TOOLS_NONE) return refuse_parser(a, "tool_call_parser", err);
    by_arena_init(&arena, 0);
    parse_tools_types_read(&types, by_json_get(a->body, "tools"), &arena);
    parse_tools_read(kind, &types, a->text, true, &said);
    by_buf_addz(out, "{\"normal_text\":");
    by_buf_add_json_str(out, by_buf_str(&said.content));
    by_buf_addz(out, ",\"calls\":[");
    for (size_t i = 0; i < said.n_calls; i++) {
        by_buf_addf(out, "%s{\"tool_index\":%zu", i ? "," : "", i);
        api_add_str(out, "name", said.calls[i].name);
        api_add_str(out, "parameters", said.calls[i].arguments);
        by_buf_addc(out, '}');
    }
    by_buf_addz(out, "]}");
    parse_tools_release(&said);
    by_arena_release(&arena);
    return 0;
}

static int write_reasoning(const struct asked *a, struct by_buf *out, struct by_err *err) {
    struct parse_reasoning_parts parts = {0};
    enum parse_reasoning kind = parse_reasoning_of(a->parser);
    if (kind == PARSE_REASONING_NONE) return refuse_parser(a, "reasoning_parser", err);
    parse_reasoning_split(kind, a->text, true, &parts);
    by_buf_addz(out, "{\"reasoning_text\":");
    by_buf_add_json_str(out, parts.reasoning);
    api_add_str(out, "text", parts.content);
    by_buf_addc(out, '}');
    return 0;
}

typedef int writer(const struct asked *a, struct by_buf *out, struct by_err *err);

/* A text of a request's size: it counts for its key as /tokenize does. */
static void serve(struct router *r, struct conn *c, const struct http1_request *req,
                  const char *key, const char *own, writer *write) {
    struct asked a = {0};
    struct by_err err = {0};
    struct by_buf out;
    uint32_t retry_ms = 0;
    by_buf_init(&out, REQUEST_ANSWER_MAX);
    int rc = auth_start(r->caller, by_now_ns(), &retry_ms, &err);
    bool has_started = !rc;
    if (!rc) rc = read_asked(&a, req, key, own, &err);
    if (!rc) rc = write(&a, &out, &err);
    if (has_started) auth_end(r->caller, 0);
    if (rc) {
        struct outlet to = {.conn = c};
        api_error_send(&to, NULL, err.code, err.text, retry_ms);
    } else {
        conn_respond(c, 200, "application/json", by_buf_str(&out), NULL);
    }
    by_buf_release(&out);
    by_json_free(a.body);
}

void api_parse_function_call(struct router *r, struct conn *c, const struct http1_request *req) {
    serve(r, c, req, "tool_call_parser", r->tools_name, write_calls);
}

void api_separate_reasoning(struct router *r, struct conn *c, const struct http1_request *req) {
    serve(r, c, req, "reasoning_parser", r->reasoning_name, write_reasoning);
}
