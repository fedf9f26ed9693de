#include "router/api.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "router/openapi.h"
#include "router/params.h"

#include <stdio.h>
#include <string.h>

void api_root(struct router *r, struct conn *c, const struct http1_request *req) {
    (void)r;
    (void)req;
    conn_respond(c, 200, "text/plain",
                 BY_STR("Banyan is here, and Ollama is running as one of its dialects\n"), NULL);
}

void api_openapi(struct router *r, struct conn *c, const struct http1_request *req) {
    struct by_buf body;
    (void)r;
    (void)req;
    by_buf_init(&body, 1 << 20);
    openapi_write(&body);
    conn_respond(c, 200, "application/json", by_buf_str(&body), NULL);
    by_buf_release(&body);
}

void api_health(struct router *r, struct conn *c, const struct http1_request *req) {
    (void)r;
    (void)req;
    conn_respond(c, 200, "text/plain", BY_STR("ok\n"), NULL);
}

void api_ready(struct router *r, struct conn *c, const struct http1_request *req) {
    const struct uplink_state *s = uplink_state(r->uplink);
    (void)req;
    if (r->is_draining || r->is_held)
        api_error(c, BY_EDRAINING, request_why_draining(r));
    else if (!s->is_ready)
        api_error(c, BY_EUNAVAILABLE, s->why_not);
    else
        conn_respond(c, 200, "text/plain", BY_STR("ready\n"), NULL);
}

/* ---- /health_generate: one token, or an encoder's vector, through every process ---- */

static void health_whole(struct request *q, struct by_buf *out) {
    (void)q;
    by_buf_addz(out, "{\"status\":\"ok\"}");
}

static const struct dialect health = {.whole = health_whole};

void api_health_generate(struct router *r, struct conn *c, const struct http1_request *req) {
    static const uint32_t ids[] = {1};
    const struct msg_model *model = &uplink_state(r->uplink)->model;
    struct params p;
    (void)req;
    params_init(&p, model->is_encoder ? 0 : 1);
    p.sampling.temperature = 0;
    if (model->is_encoder) p.sampling.vector = model->n_embed ? VECTOR_EMBEDDING : VECTOR_SCORES;
    struct request *q = request_new(r, c, &health);
    struct msg_generate m = {
        .ids = {ids, 1}, .sampling = p.sampling, .textual = p.textual, .has_max_new_tokens = true};
    request_add_prompt(q, &m);
    request_start(q);
}

/* ---- /drain: readiness goes, new requests are refused, what runs goes on; DELETE takes it back ---- */

static void answer_drain(struct router *r, struct conn *c, bool is_held) {
    char text[80];
    if (r->is_held != is_held) by_info(is_held ? "draining: asked to" : "serving again: asked to");
    r->is_held = is_held;
    int n = snprintf(text, sizeof text, "{\"draining\":%s,\"running\":%u}",
                     r->is_held || r->is_draining ? "true" : "false", r->n_requests);
    conn_respond(c, 200, "application/json", (struct by_str){text, (size_t)n}, NULL);
}

void api_drain(struct router *r, struct conn *c, const struct http1_request *req) {
    (void)req;
    answer_drain(r, c, true);
}

void api_drain_end(struct router *r, struct conn *c, const struct http1_request *req) {
    (void)req;
    answer_drain(r, c, false);
}

/* ---- /flush_cache: at once, or with ?timeout=SECONDS when nobody runs or waits, at the latest then ---- */

enum { IDLE_POLL_MS = 20, IDLE_SECONDS_MAX = 3600 };

struct flush {
    struct api_pending *pending;
    uint64_t until_ns;
    uv_timer_t again;
};

static void ask_whether_idle(uv_timer_t *t);

static void on_flush_closed(uv_handle_t *h) {
    by_free(h->data);
}

static bool is_idle(struct by_str json) {
    const struct by_json_limits lim = {.bytes_max = 1 << 20, .depth_max = 16};
    struct by_json *body = NULL;
    double n = 0;
    /* then flush, and hear what is wrong */
    if (by_json_parse(&body, json, &lim, NULL)) return true;
    const struct by_json *it = by_json_first(by_json_get(body, "loads"));
    for (; it; it = by_json_next(it))
        n += by_json_f64(by_json_get(it, "num_running_reqs")) +
             by_json_f64(by_json_get(it, "num_waiting_reqs"));
    by_json_free(body);
    return n == 0;
}

static void on_loads_for_flush(void *ctx, int code, struct by_str json) {
    struct flush *f = ctx;
    struct api_pending *p = f->pending;
    if (!code && p->conn && by_now_ns() < f->until_ns && !is_idle(json)) {
        uv_timer_start(&f->again, ask_whether_idle, IDLE_POLL_MS, 0);
        return;
    }
    if (p->conn)
        uplink_ask_scheduler(p->router->uplink, "flush", BY_STR("{}"), api_on_answer, p);
    else
        /* who asked has left, and wants nothing forgotten any more */
        api_on_answer(p, 0, BY_STR("{}"));
    uv_close((uv_handle_t *)&f->again, on_flush_closed);
}

static void ask_whether_idle(uv_timer_t *t) {
    struct flush *f = t->data;
    uplink_ask_scheduler(f->pending->router->uplink, "loads", BY_STR("{\"include\":\"core\"}"),
                         on_loads_for_flush, f);
}

void api_flush_cache(struct router *r, struct conn *c, const struct http1_request *req) {
    char text[32];
    double seconds = 0;
    if (http1_query(req, "timeout", text, sizeof text) &&
        (!by_str_to_f64(by_str_of(text), &seconds) || seconds < 0 || seconds > IDLE_SECONDS_MAX)) {
        api_error(c, BY_EINVAL, "timeout: seconds are needed, from 0 to 3600");
        return;
    }
    if (seconds == 0) {
        uplink_ask_scheduler(r->uplink, "flush", BY_STR("{}"), api_on_answer,
                             api_pending_new(r, c));
        return;
    }
    struct flush *f = by_alloc(sizeof *f);
    f->pending = api_pending_new(r, c);
    f->until_ns = by_now_ns() + (uint64_t)(seconds * BY_NS_PER_S);
    uv_timer_init(r->loop, &f->again);
    f->again.data = f;
    ask_whether_idle(&f->again);
}

void api_cache(struct router *r, struct conn *c, const struct http1_request *req) {
    char top[24], json[64] = "{}";
    uint64_t n;
    if (http1_query(req, "top", top, sizeof top)) {
        if (!by_str_to_u64(by_str_of(top), &n)) {
            api_error(c, BY_EINVAL, "top: a whole number is needed");
            return;
        }
        snprintf(json, sizeof json, "{\"top\":%llu}", (unsigned long long)n);
    }
    uplink_ask_scheduler(r->uplink, "cache", by_str_of(json), api_on_answer, api_pending_new(r, c));
}

/* ---- /update_weights_from_disk: SGLang's shape ---- */

static void on_updated(void *ctx, int code, struct by_str json) {
    const struct by_json_limits lim = {.bytes_max = 65536, .depth_max = 8};
    struct api_pending *p = ctx;
    struct by_json *body = NULL;
    struct by_str said = {0};
    struct by_buf out;
    by_buf_init(&out, 65536);
    if (!by_json_parse(&body, json, &lim, NULL))
        (void)!by_json_get_str(body, "", "error", &said, NULL);
    if (code && !said.n) said = by_str_of(by_err_sentence(code));
    if (code) { /* as all routes say it, and as SGLang does */
        char text[BY_ERR_TEXT_MAX];
        snprintf(text, sizeof text, "%.*s", (int)BY_MIN(said.n, sizeof text - 1), said.p);
        api_error_write(&out, BY_EINVAL, text);
        out.n--; /* goes on within the object */
        by_buf_addz(&out, ",\"success\":false,\"message\":");
        by_buf_add_json_str(&out, said);
    } else {
        by_buf_addz(&out, "{\"success\":true,\"message\":\"the weights are updated\"");
    }
    by_buf_addf(&out, ",\"num_paused_requests\":%.0f}",
                code ? 0 : by_json_f64(by_json_get(body, "paused")));
    if (p->conn) {
        conn_set_owner(p->conn, NULL, NULL, NULL);
        conn_respond(p->conn, code ? 400 : 200, "application/json", by_buf_str(&out), NULL);
    }
    by_json_free(body);
    by_buf_release(&out);
    by_free(p);
}

/* What would change something that we do not do is refused by name; off, it says nothing. */
static int check_update(const struct by_json *body, struct by_err *err) {
    static const char *const refused[] = {"is_async", "keep_pause", "token_step", "manifest",
                                          "weight_version"};
    struct by_str format = {0};
    bool flush = true;
    int rc = by_json_get_str(body, "", "load_format", &format, err);
    if (!rc && format.n && !by_str_eqz(format, "auto") && !by_str_eqz(format, "safetensors") &&
        !by_str_eqz(format, "gguf"))
        return by_fail(err, BY_EUNSUPPORTED,
                       "load_format: '%.*s' is not read; leave it out: safetensors and GGUF are "
                       "told apart by what lies there",
                       (int)BY_MIN(format.n, (size_t)40), format.p);
    if (!rc) rc = by_json_get_bool(body, "", "flush_cache", &flush, err);
    if (!rc && !flush)
        return by_fail(err, BY_EUNSUPPORTED,
                       "flush_cache: what other weights have cached cannot be kept");
    for (size_t i = 0; !rc && i < BY_COUNTOF(refused); i++) {
        const struct by_json *v = by_json_get(body, refused[i]);
        bool is_off = !v || by_json_type(v) == BY_JSON_NULL ||
                      (by_json_type(v) == BY_JSON_BOOL && !by_json_bool(v)) ||
                      (by_json_type(v) == BY_JSON_NUMBER && by_json_f64(v) == 0);
        if (!is_off) rc = by_fail(err, BY_EUNSUPPORTED, "%s: it is not supported", refused[i]);
    }
    return rc;
}

void api_update_weights(struct router *r, struct conn *c, const struct http1_request *req) {
    const struct by_json_limits lim = {.bytes_max = 65536, .depth_max = 8};
    struct by_json *body = NULL;
    struct by_err err = {0};
    struct by_str path = {0};
    struct by_buf ask;
    bool aborts = false;
    int rc = by_json_parse(&body, req->body, &lim, &err);
    if (!rc) rc = by_json_get_str(body, "", "model_path", &path, &err);
    if (!rc && !path.n)
        rc = by_fail(&err, BY_EINVAL, "model_path: a file or folder on the workers' machine");
    if (!rc) rc = by_json_get_bool(body, "", "abort_all_requests", &aborts, &err);
    if (!rc) rc = check_update(body, &err);
    if (rc) {
        api_error(c, rc, err.text);
    } else {
        if (aborts) request_abort(r, (struct by_str){0}, true);
        by_buf_init(&ask, 65536);
        by_buf_addz(&ask, "{\"model_path\":");
        by_buf_add_json_str(&ask, path);
        by_buf_addc(&ask, '}');
        uplink_ask_scheduler(r->uplink, "update", by_buf_str(&ask), on_updated,
                             api_pending_new(r, c));
        by_buf_release(&ask);
    }
    by_json_free(body);
}

/* The id as /generate says it, or as the OpenAI routes do. */
static struct by_str plain_id(struct by_str rid) {
    static const char *const prefixes[] = {"chatcmpl-", "cmpl-"};
    for (size_t i = 0; i < BY_COUNTOF(prefixes); i++) {
        if (by_str_starts(rid, by_str_of(prefixes[i])))
            return by_str_sub(rid, strlen(prefixes[i]), SIZE_MAX);
    }
    return rid;
}

/* {"rid": prefix} or {"abort_all": true}: requests of this router, by the ids that their clients know. */
void api_abort(struct router *r, struct conn *c, const struct http1_request *req) {
    struct by_json *body = NULL;
    struct by_err err = {0};
    struct by_str rid = {0};
    bool all = false;
    int rc = request_read_body(&body, req, &err);
    if (!rc) rc = by_json_get_str(body, "", "rid", &rid, &err);
    if (!rc) rc = by_json_get_bool(body, "", "abort_all", &all, &err);
    if (!rc && !rid.n && !all)
        rc = by_fail(&err, BY_EINVAL, "rid: a request's id, or abort_all: true, is needed");
    if (rc) {
        api_error(c, rc, err.text);
    } else {
        request_abort(r, plain_id(rid), all);
        conn_respond(c, 200, NULL, BY_STR(""), NULL);
    }
    by_json_free(body);
}
