#include "router/routes.h"

#include "common/base/log.h"
#include "router/cors.h"

#include <stdio.h>
#include <string.h>

const struct route routes[] = {
    {HTTP1_GET, "/", api_root, ROUTE_OPEN, "a greeting, as Ollama's clients look for it", NULL,
     &form_words},
    {HTTP1_GET, "/health", api_health, ROUTE_OPEN, "the router is alive", NULL, &form_words},
    {HTTP1_GET, "/ready", api_ready, ROUTE_OPEN, "requests can be served; if not, why", NULL,
     &form_words},
    {HTTP1_GET, "/ping", api_ready, ROUTE_OPEN, "the same, where SageMaker looks for it", NULL,
     &form_words},
    {HTTP1_GET, "/health_generate", api_health_generate, ROUTE_OPEN,
     "one token through every process", NULL, &form_status},
    {HTTP1_GET, "/metrics", api_metrics, ROUTE_OPEN, "Prometheus text", NULL, &form_words},
    {HTTP1_GET, "/openapi.json", api_openapi, ROUTE_OPEN, "this table, as an OpenAPI document",
     NULL, &form_any},
    {HTTP1_GET, "/v1/models", api_models, ROUTE_KEY, "what is served", NULL, &form_models},
    {HTTP1_GET, "/v1/models/*", api_model, ROUTE_KEY, "one model", NULL, &form_model},
    {HTTP1_GET, "/model_info", api_model_info, ROUTE_KEY, "facts of the model", NULL,
     &form_model_info},
    {HTTP1_GET, "/get_model_info", api_model_info, ROUTE_KEY, "old name of /model_info", NULL,
     &form_model_info},
    {HTTP1_GET, "/server_info", api_server_info, ROUTE_KEY, "facts of the server", NULL,
     &form_server_info},
    {HTTP1_GET, "/get_server_info", api_server_info, ROUTE_KEY, "old name of /server_info", NULL,
     &form_server_info},
    {HTTP1_GET, "/v1/loads", api_loads, ROUTE_KEY, "load, for balancers", &form_loads_of,
     &form_loads},
    {HTTP1_GET, "/v1/cache", api_cache, ROUTE_KEY, "the prefix tree: what it holds; ?top=N of it",
     &form_top, &form_any},
    {HTTP1_POST, "/generate", api_generate, ROUTE_KEY, "SGLang's native generation", &form_generate,
     &form_generated},
    {HTTP1_PUT, "/generate", api_generate, ROUTE_KEY, "the same", &form_generate, &form_generated},
    {HTTP1_POST, "/v1/completions", api_completions, ROUTE_KEY, "OpenAI completions",
     &form_completions, &form_completion},
    {HTTP1_POST, "/v1/chat/completions", api_chat, ROUTE_KEY, "OpenAI chat completions", &form_chat,
     &form_chat_completion},
    {HTTP1_POST, "/invocations", api_chat, ROUTE_KEY, "the same, where SageMaker looks for them",
     &form_chat, &form_chat_completion},
    {HTTP1_POST, "/v1/embeddings", api_embeddings, ROUTE_KEY, "OpenAI embeddings", &form_embeddings,
     &form_embedding_list},
    {HTTP1_POST, "/v1/rerank", api_rerank, ROUTE_KEY, "documents by how well they answer a query",
     &form_rerank, &form_ranks},
    {HTTP1_PUT, "/v1/rerank", api_rerank, ROUTE_KEY, "the same", &form_rerank, &form_ranks},
    {HTTP1_POST, "/rerank", api_cohere_rerank, ROUTE_KEY, "the same, as Cohere and vLLM tell it",
     &form_rerank, &form_ranked},
    {HTTP1_POST, "/v2/rerank", api_cohere_rerank, ROUTE_KEY, "likewise", &form_rerank,
     &form_ranked},
    {HTTP1_POST, "/v1/score", api_score, ROUTE_KEY, "how likely some tokens are next, item by item",
     &form_score, &form_scores},
    {HTTP1_POST, "/encode", api_encode, ROUTE_KEY, "SGLang's native embeddings", &form_encode,
     &form_encoded},
    {HTTP1_PUT, "/encode", api_encode, ROUTE_KEY, "the same", &form_encode, &form_encoded},
    {HTTP1_POST, "/classify", api_classify, ROUTE_KEY, "a classifier's scores of a text, likewise",
     &form_classify, &form_encoded},
    {HTTP1_PUT, "/classify", api_classify, ROUTE_KEY, "the same", &form_classify, &form_encoded},
    {HTTP1_POST, "/v1/responses", api_responses, ROUTE_KEY, "OpenAI responses, without a store",
     &form_responses, &form_response},
    {HTTP1_POST, "/v1/messages", api_messages, ROUTE_KEY, "Anthropic messages", &form_messages,
     &form_message},
    {HTTP1_POST, "/v1/messages/count_tokens", api_count_tokens, ROUTE_KEY,
     "how long their prompt is", &form_count, &form_counted},
    {HTTP1_POST, "/api/chat", api_ollama_chat, ROUTE_KEY, "Ollama's chat", &form_ollama_chat,
     &form_ollama_said},
    {HTTP1_POST, "/api/generate", api_ollama_generate, ROUTE_KEY, "Ollama's generate",
     &form_ollama_generate, &form_ollama_said},
    {HTTP1_POST, "/api/embed", api_ollama_embed, ROUTE_KEY, "Ollama's embeddings",
     &form_ollama_embed, &form_ollama_embedded},
    {HTTP1_POST, "/api/embeddings", api_ollama_embeddings, ROUTE_KEY, "their old form: of one text",
     &form_ollama_embeddings, &form_ollama_embedding},
    {HTTP1_GET, "/api/tags", api_ollama_tags, ROUTE_KEY, "what is served, in Ollama's form", NULL,
     &form_ollama_tags},
    {HTTP1_GET, "/api/ps", api_ollama_ps, ROUTE_KEY, "what is loaded, likewise", NULL,
     &form_ollama_tags},
    {HTTP1_POST, "/api/show", api_ollama_show, ROUTE_KEY, "facts of the model, likewise",
     &form_ollama_show, &form_ollama_shown},
    {HTTP1_GET, "/api/version", api_ollama_version, ROUTE_KEY, "the server's version, likewise",
     NULL, &form_ollama_version},
    {HTTP1_GET, "/version", api_ollama_version, ROUTE_KEY, "the same, as vLLM's clients ask", NULL,
     &form_ollama_version},
    {HTTP1_POST, "/tokenize", api_tokenize, ROUTE_KEY, "text to token ids", &form_tokenize,
     &form_tokens},
    {HTTP1_POST, "/v1/tokenize", api_tokenize, ROUTE_KEY, "the same", &form_tokenize, &form_tokens},
    {HTTP1_POST, "/detokenize", api_detokenize, ROUTE_KEY, "token ids to text", &form_detokenize,
     &form_text},
    {HTTP1_POST, "/v1/detokenize", api_detokenize, ROUTE_KEY, "the same", &form_detokenize,
     &form_text},
    {HTTP1_GET, "/tokenizer_info", api_tokenizer_info, ROUTE_KEY,
     "facts of the tokenizer, and the chat template", NULL, &form_tokenizer},
    {HTTP1_POST, "/apply_template", api_apply_template, ROUTE_KEY, "messages to a prompt",
     &form_template, &form_prompt},
    {HTTP1_POST, "/parse_function_call", api_parse_function_call, ROUTE_KEY,
     "a model's text to what it says and what it calls", &form_parse_calls, &form_parsed_calls},
    {HTTP1_POST, "/separate_reasoning", api_separate_reasoning, ROUTE_KEY,
     "a model's text to what it thought and what it says", &form_separate, &form_separated},
    {HTTP1_POST, "/abort_request", api_abort, ROUTE_KEY, "cancel by rid", &form_abort,
     &form_nothing},
    {HTTP1_POST, "/drain", api_drain, ROUTE_ADMIN,
     "take no new requests; answers how many run: again until it is 0", NULL, &form_drained},
    {HTTP1_DELETE, "/drain", api_drain_end, ROUTE_ADMIN, "take requests again", NULL,
     &form_drained},
    {HTTP1_POST, "/update_weights_from_disk", api_update_weights, ROUTE_ADMIN,
     "other weights of the same shape, without losing a request", &form_update, &form_updated},
    {HTTP1_POST, "/flush_cache", api_flush_cache, ROUTE_ADMIN,
     "forget the prefix cache; with ?timeout=SECONDS once nobody runs or waits, at the latest then",
     NULL, &form_any},
    {HTTP1_GET, "/flush_cache", api_flush_cache, ROUTE_ADMIN, "the same", &form_flush, &form_any},
};
const size_t n_routes = BY_COUNTOF(routes);

static bool matches(const char *pattern, struct by_str path) {
    size_t n = strlen(pattern);
    if (n && pattern[n - 1] == '*') return path.n >= n && memcmp(path.p, pattern, n - 1) == 0;
    return by_str_eqz(path, pattern);
}

static struct by_str key_of(const struct http1_request *req) {
    struct by_str v = {0};
    if (http1_header(req, "authorization", &v) && by_str_ieqz(by_str_sub(v, 0, 7), "bearer "))
        return by_str_sub(v, 7, SIZE_MAX);
    if (http1_header(req, "x-api-key", &v)) return v; /* Anthropic's clients */
    return (struct by_str){0};
}

/* Who asks: remembered for the handler. */
static int check_key(struct router *r, enum route_level level, const struct http1_request *req) {
    r->caller = auth_find(r->auth, key_of(req));
    if (r->is_by_admin_socket) return 0;
    if (level == ROUTE_ADMIN && !r->auth->n && http1_is_of_page(req)) return BY_EFORBIDDEN;
    return level == ROUTE_OPEN ? 0 : auth_may(r->auth, r->caller, level == ROUTE_ADMIN);
}

static void refuse_method(struct conn *c, const struct http1_request *req) {
    struct by_buf body;
    char allowed[96] = "", extra[128], text[256];
    for (size_t i = 0; i < n_routes; i++) {
        if (!matches(routes[i].path, req->path)) continue;
        size_t n = strlen(allowed);
        snprintf(allowed + n, sizeof allowed - n, "%s%s", n ? ", " : "",
                 http1_method_name(routes[i].method));
    }
    snprintf(extra, sizeof extra, "Allow: %s\r\n", allowed);
    snprintf(text, sizeof text, "this path does not take this method; it takes %s", allowed);
    by_buf_init(&body, 4096);
    api_error_write(&body, BY_EMETHOD, text);
    conn_respond(c, 405, "application/json", by_buf_str(&body), extra);
    by_buf_release(&body);
}

/* In the form of the dialect whose path it is. */
static void refuse(struct conn *c, const struct http1_request *req, int code, const char *text) {
    struct outlet to = {.conn = c};
    api_error_writer *write = by_str_starts(req->path, BY_STR("/v1/messages"))
                                  ? api_anthropic_write_error
                              : by_str_starts(req->path, BY_STR("/api/")) ? api_ollama_write_error
                                                                          : NULL;
    api_error_send(&to, write, code, text, 0);
}

static bool is_path(struct by_str path) {
    for (size_t i = 0; i < n_routes; i++) {
        if (by_str_eqz(path, routes[i].path)) return true;
    }
    return false;
}

/* What it is called elsewhere, or what comes nearest: Kubernetes' own servers, KServe, FastAPI; llama.cpp; vLLM; SGLang, whose
 * weights are updated between a pause and its end. */
static struct by_str path_here(struct by_str path) {
    static const char *const foreign[][2] = {
        {"/healthz", "/health"},
        {"/livez", "/health"},
        {"/readyz", "/ready"},
        {"/v2/health/live", "/health"},
        {"/v2/health/ready", "/ready"},
        {"/docs", "/openapi.json"},
        {"/v1", "/v1/models"},
        {"/v1/", "/v1/models"},
        {"/props", "/get_server_info"},
        {"/slots", "/v1/loads"},
        {"/completion", "/v1/completions"},
        {"/embedding", "/v1/embeddings"},
        {"/apply-template", "/apply_template"},
        {"/load", "/v1/loads"},
        {"/pooling", "/encode"},
        {"/score", "/v1/rerank"},
        {"/reset_prefix_cache", "/flush_cache"},
        {"/v1/classify", "/classify"},
        {"/get_load", "/v1/loads"},
        {"/pause_generation", "/update_weights_from_disk"},
        {"/continue_generation", "/update_weights_from_disk"},
        {"/init_weights_update_group", "/update_weights_from_disk"},
        {"/update_weights_from_tensor", "/update_weights_from_disk"},
        {"/update_weights_from_distributed", "/update_weights_from_disk"},
    };
    for (size_t i = 0; i < BY_COUNTOF(foreign); i++) {
        if (by_str_eqz(path, foreign[i][0])) return by_str_of(foreign[i][1]);
    }
    return (struct by_str){0};
}

/* Clients differ in whether their base URL ends in /v1: it is missing, or there twice. */
static void refuse_path(struct conn *c, const struct http1_request *req) {
    enum { PATH_MAX_SHOWN = 200 };
    const struct by_str v1 = BY_STR("/v1");
    char text[512], longer[PATH_MAX_SHOWN + 8];
    struct by_str path = by_str_sub(req->path, 0, PATH_MAX_SHOWN), meant = {0},
                  here = path_here(path);
    snprintf(longer, sizeof longer, "/v1" BY_STR_FMT, BY_STR_ARG(path));
    if (is_path(by_str_of(longer)))
        meant = by_str_of(longer);
    else if (by_str_starts(path, v1) && is_path(by_str_sub(path, v1.n, path.n)))
        meant = by_str_sub(path, v1.n, path.n);
    if (here.n)
        snprintf(text, sizeof text, "there is no " BY_STR_FMT " here; see " BY_STR_FMT,
                 BY_STR_ARG(path), BY_STR_ARG(here));
    else
        snprintf(text, sizeof text, "there is no " BY_STR_FMT " here%s" BY_STR_FMT "%s",
                 BY_STR_ARG(path), meant.n ? "; did you mean " : "", BY_STR_ARG(meant),
                 meant.n ? "? See the client's base URL" : "");
    refuse(c, req, BY_ENOTFOUND, text);
}

/* "May I send this?", asked by the browser of a page that may; without a key, and of a path that may not be there. */
static bool is_preflight(const struct conn *c, const struct http1_request *req) {
    struct by_str v, page = BY_STR("");
    if (req->method != HTTP1_OPTIONS || !http1_header(req, "access-control-request-method", &v))
        return false;
    if (conn_origin_may(c)) return true;
    (void)http1_header(req, "origin", &page);
    by_warn_limited("a web page of %.*s may not use this server; --allowed-origins says whose may",
                    (int)BY_MIN(page.n, (size_t)100), page.p);
    return false;
}

static const struct route *find(const struct router *r, const struct http1_request *req,
                                bool *is_path_known) {
    enum http1_method method = req->method == HTTP1_HEAD_METHOD ? HTTP1_GET : req->method;
    for (size_t i = 0; i < n_routes; i++) {
        if (!matches(routes[i].path, req->path)) continue;
        if (routes[i].level == ROUTE_ADMIN && r->hides_admin && !r->is_by_admin_socket) continue;
        *is_path_known = true;
        if (routes[i].method == method) return &routes[i];
    }
    return NULL;
}

static void refuse_caller(const struct router *r, struct conn *c, const struct http1_request *req,
                          int refused) {
    const char *why = refused != BY_EFORBIDDEN
                          ? "the API key is missing or wrong; send Authorization: Bearer KEY"
                      : r->auth->n ? "this key may not do that; an admin's key may"
                                   : "a page in a browser may not do that without an admin's key "
                                     "(--admin-api-key)";
    refuse(c, req, refused, why);
}

/* Who asks for what is known from the head: only who may is waited for with a body. */
static bool handle(struct router *r, struct conn *c, const struct http1_request *req,
                   bool is_whole) {
    bool is_path_known = false;
    const struct route *found = find(r, req, &is_path_known);
    int refused = found ? check_key(r, found->level, req) : 0;
    if (is_preflight(c, req)) {
        conn_respond(c, 204, NULL, BY_STR(""), cors_preflight);
    } else if (refused) {
        refuse_caller(r, c, req, refused);
    } else if (!found && is_path_known) {
        refuse_method(c, req);
    } else if (!found) {
        refuse_path(c, req);
    } else if (is_whole) {
        r->asks = found->asks;
        found->handler(r, c, req);
    } else {
        return false;
    }
    return true;
}

bool routes_handle(void *router, struct conn *c, const struct http1_request *req, bool is_whole) {
    return handle(router, c, req, is_whole);
}

bool routes_handle_admin(void *router, struct conn *c, const struct http1_request *req,
                         bool is_whole) {
    struct router *r = router;
    r->is_by_admin_socket = true;
    bool was_answered = handle(r, c, req, is_whole);
    r->is_by_admin_socket = false;
    return was_answered;
}
