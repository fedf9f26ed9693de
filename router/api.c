#include "router/api.h"

#include "common/base/rand.h"
#include "router/chat_view.h"
#include "router/params.h"

#include <stdio.h>

enum { TIMEOUT_MS_MAX = 86400000 };

void api_write_usage(const struct request *q, struct by_buf *out) {
    uint64_t n_prompt = 0, n_cached = 0, n_output = 0, n_reasoning = 0;
    for (uint32_t i = 0; i < q->n_entries; i++) {
        const struct journal_entry *e = q->entries[i];
        n_prompt += e->n_prompt;
        n_cached += e->n_cached;
        for (uint32_t k = 0; k < e->n_samples; k++) {
            n_output += e->samples[k].n_output;
            n_reasoning += chat_view_n_reasoning(q, e, &e->samples[k]);
        }
    }
    by_buf_addf(
        out,
        "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
        "\"reasoning_tokens\":%llu,\"prompt_tokens_details\":{\"cached_tokens\":%llu},"
        "\"completion_tokens_details\":{\"reasoning_tokens\":%llu}}",
        (unsigned long long)n_prompt, (unsigned long long)n_output,
        (unsigned long long)(n_prompt + n_output), (unsigned long long)n_reasoning,
        (unsigned long long)n_cached, (unsigned long long)n_reasoning);
}

void api_add_str(struct by_buf *out, const char *key, struct by_str value) {
    by_buf_addf(out, ",\"%s\":", key);
    by_buf_add_json_str(out, value);
}

void api_add_member(struct by_buf *out, const struct by_json *obj, const char *key,
                    const char *as) {
    const struct by_json *v = by_json_get(obj, key);
    if (!v || by_json_type(v) == BY_JSON_NULL) return;
    by_buf_addf(out, ",\"%s\":", as);
    by_json_print(v, out);
}

/* cache_salt and extra_key make one namespace; the salt's length stands first, so that no two pairs make the same one. */
int api_read_namespace(struct request *q, const struct by_json *extra_key, struct by_str *out,
                       struct by_err *err) {
    struct by_str extra = by_json_str(extra_key), salt = {0};
    enum by_json_type type = extra_key ? by_json_type(extra_key) : BY_JSON_NULL;
    if (type != BY_JSON_NULL && type != BY_JSON_STRING)
        return by_fail(err, BY_EINVAL, "extra_key: expected a string, got %s",
                       by_json_type_name(extra_key));
    int rc = by_json_get_str(q->body, "", "cache_salt", &salt, err);
    if (rc || !(extra.n + salt.n)) return rc;
    if (extra.n + salt.n > LIMIT_CONTROL_STR_BYTES)
        return by_fail(err, BY_ELIMIT, "extra_key: with cache_salt it may have %d bytes",
                       LIMIT_CONTROL_STR_BYTES);
    struct by_buf both;
    by_buf_init(&both, 2 * LIMIT_CONTROL_STR_BYTES);
    by_buf_addf(&both, "%zu:", salt.n);
    by_buf_add_str(&both, salt);
    by_buf_add_str(&both, extra);
    *out = by_arena_copy(&q->arena, by_buf_str(&both));
    by_buf_release(&both);
    return 0;
}

static int read_id(struct request *q, struct by_err *err) {
    struct by_str s = {0};
    const struct by_json *rid = by_json_get(q->body, "rid");
    if (q->n_rids) return 0;
    int rc = by_json_get_str(q->body, "", "rid", &s, err);
    if (rc || !rid || by_json_type(rid) == BY_JSON_NULL) return rc;
    if (!s.n || s.n >= sizeof q->id)
        return by_fail(err, BY_EINVAL, "rid: 1 to %zu bytes are possible", sizeof q->id - 1);
    snprintf(q->id, sizeof q->id, "%.*s", (int)s.n, s.p);
    q->has_own_id = true;
    if (q->outlet.conn) request_id_name(conn_id(q->outlet.conn), q->id);
    return 0;
}

int api_read_limits(struct request *q, struct msg_generate *m, struct by_err *err) {
    int64_t priority = 0, run_ms = 0, queue_ms = 0;
    int rc = read_id(q, err);
    if (!rc) rc = by_json_get_i64(q->body, "", "priority", INT32_MIN, INT32_MAX, &priority, err);
    if (!rc) rc = by_json_get_i64(q->body, "", "timeout_ms", 1, TIMEOUT_MS_MAX, &run_ms, err);
    if (!rc)
        rc = by_json_get_i64(q->body, "", "queue_timeout_ms", 1, TIMEOUT_MS_MAX, &queue_ms, err);
    m->routing.priority = (int32_t)priority;
    m->routing.run_timeout_ms = (uint32_t)run_ms;
    m->routing.queue_timeout_ms = (uint32_t)queue_ms;
    return rc;
}

/* It stands in each event of the answer. */
static int read_model(struct request *q, struct by_err *err) {
    enum { MODEL_BYTES_MAX = 4096 }; /* a path's */
    struct by_str model = {0};
    int rc = by_json_get_str(q->body, "", "model", &model, err);
    if (!rc && model.n > MODEL_BYTES_MAX)
        return by_fail(err, BY_ELIMIT, "model: a name of %zu bytes is over the limit of %d",
                       model.n, MODEL_BYTES_MAX);
    if (!rc && model.n) q->model = model;
    return rc;
}

int api_read_routing(struct request *q, struct msg_generate *m, struct by_err *err) {
    int rc = read_model(q, err);
    if (!rc) rc = api_read_limits(q, m, err);
    return rc ? rc
              : api_read_namespace(q, by_json_get(q->body, "extra_key"), &m->routing.extra_key,
                                   err);
}

void api_serve(struct request *q, const struct http1_request *req, api_reader *read) {
    struct by_err err = {0};
    if (!request_parse(q, req)) return;
    if (read(q, &err))
        request_refuse(q, &err);
    else
        request_start(q);
}

static bool is_off(const struct by_json *v) {
    switch (by_json_type(v)) {
    case BY_JSON_NULL:
        return true;
    case BY_JSON_BOOL:
        return !by_json_bool(v);
    case BY_JSON_STRING:
        return !by_json_str(v).n;
    case BY_JSON_ARRAY:
    case BY_JSON_OBJECT:
        return !by_json_first(v);
    default:
        return false;
    }
}

int api_refuse(const struct by_json *body, const char *const *names, size_t n, struct by_err *err) {
    for (size_t i = 0; i < n; i++) {
        const struct by_json *v = by_json_get(body, names[i]);
        if (v && !is_off(v))
            return by_fail(err, BY_EUNSUPPORTED, "%s: it is not supported yet; leave it out",
                           names[i]);
    }
    return 0;
}

int api_replace_body(struct request *q, const struct by_buf *body, const char *what,
                     struct by_err *err) {
    const struct by_json_limits lim = {.bytes_max = SIZE_MAX, .depth_max = LIMIT_JSON_DEPTH};
    struct by_json *as = NULL;
    int rc = body->is_full ? by_fail(err, BY_ELIMIT, "%s: more than %zu bytes", what, body->max)
                           : by_json_parse(&as, by_buf_str(body), &lim, err);
    if (rc) return rc;
    by_json_free(q->body);
    q->body = as;
    return 0;
}

/* Prompts of one request that brings no seed are drawn apart, also when they are the same. */
static void draw_seed(const struct request *q, struct msg_sampling *s) {
    if (q->has_seed || !q->n_entries) return;
    by_rand_bytes(&s->seed, sizeof s->seed);
    s->seed >>= 1; /* as params_init draws them */
}

int api_add_prompt(struct request *q, const struct by_json *v, const char *key, unsigned allowed,
                   const struct msg_generate *base, struct by_err *err) {
    static const char *const wanted[] = {"", "a string", "token ids", "a string or token ids"};
    struct msg_generate m = *base;
    if (q->n_open + BY_MAX(m.sampling.n, 1u) > REQUEST_SAMPLES_MAX)
        return by_fail(err, BY_ELIMIT, "n: of all prompts more than %d answers are asked for",
                       REQUEST_SAMPLES_MAX);
    if (by_json_type(v) == BY_JSON_STRING && allowed & API_TEXT) {
        m.text = by_json_str(v);
        if (!m.text.n) return by_fail(err, BY_EINVAL, "%s: the prompt is empty", key);
    } else if (by_json_type(v) == BY_JSON_ARRAY && allowed & API_IDS) {
        int rc = params_read_ids(v, key, LIMIT_TOKENS, &q->arena, &m.ids, err);
        if (rc) return rc;
        if (!m.ids.n) return by_fail(err, BY_EINVAL, "%s: the prompt is empty", key);
    } else if (by_json_type(v) == BY_JSON_ARRAY && !by_json_first(v)) {
        return by_fail(err, BY_EINVAL, "%s: the list is empty", key);
    } else {
        return by_fail(err, BY_EINVAL, "%s: expected %s, got %s", key, wanted[allowed],
                       by_json_type_name(v));
    }
    draw_seed(q, &m.sampling);
    request_add_prompt(q, &m);
    return 0;
}

/* An empty list is one prompt of no ids: it is refused as such. */
bool api_is_list_of_prompts(const struct by_json *prompt) {
    const struct by_json *first =
        by_json_type(prompt) == BY_JSON_ARRAY ? by_json_first(prompt) : NULL;
    return first && by_json_type(first) != BY_JSON_NUMBER;
}

int api_add_prompts(struct request *q, const struct by_json *prompt, const char *key,
                    unsigned allowed, const struct msg_generate *base, struct by_err *err) {
    if (!api_is_list_of_prompts(prompt)) return api_add_prompt(q, prompt, key, allowed, base, err);
    q->is_list = true;
    if (by_json_len(prompt) > REQUEST_PROMPTS_MAX)
        return by_fail(err, BY_ELIMIT, "%s: %zu prompts are over the limit of %d", key,
                       by_json_len(prompt), REQUEST_PROMPTS_MAX);
    int rc = 0;
    for (const struct by_json *it = by_json_first(prompt); it && !rc; it = by_json_next(it))
        rc = api_add_prompt(q, it, key, allowed, base, err);
    return rc;
}
