#include "router/api.h"
#include "common/base/clock.h"
#include "common/base/mem.h"

static void respond(struct conn *c, struct by_buf *body) {
    conn_respond(c, 200, "application/json", by_buf_str(body), NULL);
    by_buf_release(body);
}

static void write_model(const struct router *r, struct by_buf *out) {
    const struct uplink_state *s = uplink_state(r->uplink);
    by_buf_addz(out, "{\"id\":");
    by_buf_add_json_str(out, request_model_name(r));
    by_buf_addf(out, ",\"object\":\"model\",\"created\":%llu,\"owned_by\":\"banyan\"",
                (unsigned long long)r->started_s);
    api_add_str(out, "root", s->model.path);
    by_buf_addf(out, ",\"parent\":null,\"max_model_len\":%u}", s->model.context_len);
}

void api_models(struct router *r, struct conn *c, const struct http1_request *req) {
    struct by_buf body;
    (void)req;
    by_buf_init(&body, 65536);
    by_buf_addz(&body, "{\"object\":\"list\",\"data\":[");
    write_model(r, &body);
    by_buf_addz(&body, "]}");
    respond(c, &body);
}

/* The name that it is served by, or its path. */
bool api_is_our_model(const struct router *r, struct by_str name) {
    return by_str_eq(name, request_model_name(r)) ||
           by_str_eq(name, uplink_state(r->uplink)->model.path);
}

/* /v1/models/{id}: ids contain slashes, so everything behind the prefix is the id; a path's first one is the prefix's. */
void api_model(struct router *r, struct conn *c, const struct http1_request *req) {
    struct by_buf body;
    struct by_str id = by_str_sub(req->path, sizeof "/v1/models/" - 1, SIZE_MAX),
                  path = by_str_sub(req->path, sizeof "/v1/models" - 1, SIZE_MAX);
    if (!api_is_our_model(r, id) && !api_is_our_model(r, path)) {
        api_error(c, BY_ENOMODEL, by_err_sentence(BY_ENOMODEL));
        return;
    }
    by_buf_init(&body, 65536);
    write_model(r, &body);
    respond(c, &body);
}

/* What requests of OpenAI's and their kin get that do not say it; null: OpenAI's own values. */
static void write_defaults(const struct router *r, struct by_buf *out) {
    const struct msg_sampling_defaults *d = &uplink_state(r->uplink)->model.sampling_defaults;
    by_buf_addz(out, ",\"default_sampling_params\":");
    if (!d->is_given || r->has_openai_defaults) {
        by_buf_addz(out, "null");
        return;
    }
    by_buf_addf(out,
                "{\"temperature\":%.6g,\"top_p\":%.6g,\"top_k\":%d,\"min_p\":%.6g,"
                "\"repetition_penalty\":%.6g}",
                (double)d->temperature, (double)d->top_p, d->top_k ? d->top_k : -1,
                (double)d->min_p, (double)d->repetition_penalty);
}

static void write_info(const struct router *r, struct by_buf *out) {
    const struct uplink_state *s = uplink_state(r->uplink);
    by_buf_addz(out, "\"model_path\":");
    by_buf_add_json_str(out, s->model.path);
    api_add_str(out, "served_model_name", request_model_name(r));
    api_add_str(out, "tokenizer_path", s->model.path);
    by_buf_addf(out,
                ",\"is_generation\":%s,\"embedding_length\":%u,\"num_labels\":%u,"
                "\"preferred_sampling_params\":null,\"weight_version\":\"default\"",
                s->model.is_encoder ? "false" : "true", s->model.n_embed, s->model.n_labels);
    write_defaults(r, out);
    api_add_str(out, "model_type", s->model.type);
    by_buf_addz(out, ",\"architectures\":[");
    if (s->model.arch.n) by_buf_add_json_str(out, s->model.arch);
    by_buf_addz(out, "],\"load_format\":\"auto\",\"disaggregation_mode\":\"null\","
                     "\"has_image_understanding\":false,\"has_audio_understanding\":false");
    api_add_str(out, "tool_call_parser", by_str_of(r->tools_name));
    api_add_str(out, "reasoning_parser", by_str_of(r->reasoning_name));
}

void api_model_info(struct router *r, struct conn *c, const struct http1_request *req) {
    struct by_buf body;
    (void)req;
    by_buf_init(&body, 65536);
    by_buf_addc(&body, '{');
    write_info(r, &body);
    by_buf_addc(&body, '}');
    respond(c, &body);
}

/* Facts of ours and, as internal_states, what the scheduler says of each replica. */
static void write_server_info(const struct router *r, struct by_str loads, struct by_buf *out) {
    const struct uplink_state *s = uplink_state(r->uplink);
    by_buf_addc(out, '{');
    write_info(r, out);
    api_add_str(out, "version", by_str_of(BANYAN_VERSION));
    api_add_str(out, "impl", s->model.impl);
    api_add_str(out, "device", s->capacity.device);
    api_add_str(out, "weights_id", s->model.weights_id);
    by_buf_addf(out,
                ",\"status\":\"%s\",\"max_total_num_tokens\":%llu,\"context_length\":%u,\"max_req_"
                "input_len\":%u",
                s->is_ready ? "ready" : "starting", (unsigned long long)s->kv_tokens,
                s->model.context_len, s->model.context_len ? s->model.context_len - 1 : 0);
    by_buf_addf(out,
                ",\"page_size\":%u,\"dp_size\":%u,\"tp_size\":%u,\"load_ms\":%u,\"weight_bytes\":%"
                "llu,\"kv_bytes\":%llu",
                s->capacity.page_size, s->n_replicas, s->capacity.world, s->capacity.load_ms,
                (unsigned long long)s->capacity.weight_bytes,
                (unsigned long long)s->capacity.kv_bytes);
    by_buf_addf(out, ",\"startup_time\":%llu,\"uptime_s\":%llu,\"internal_states\":",
                (unsigned long long)r->started_s,
                (unsigned long long)((by_now_ns() - r->started_ns) / BY_NS_PER_S));
    by_buf_add_str(out, loads);
    by_buf_addc(out, '}');
}

/* Without a scheduler there are no states to tell, and the rest is as it was. */
static void on_states(void *ctx, int code, struct by_str json) {
    static const struct by_json_limits lim = {.bytes_max = 4 << 20, .depth_max = 16};
    struct api_pending *p = ctx;
    struct by_json *said = NULL;
    struct by_buf body, states;
    by_buf_init(&body, 8 << 20);
    by_buf_init(&states, 4 << 20);
    if (!code && !by_json_parse(&said, json, &lim, NULL) && by_json_get(said, "loads"))
        by_json_print(by_json_get(said, "loads"), &states);
    if (!states.n) by_buf_addz(&states, "[]");
    if (p->conn) {
        conn_set_owner(p->conn, NULL, NULL, NULL);
        write_server_info(p->router, by_buf_str(&states), &body);
        conn_respond(p->conn, 200, "application/json", by_buf_str(&body), NULL);
    }
    by_json_free(said);
    by_buf_release(&states);
    by_buf_release(&body);
    by_free(p);
}

void api_server_info(struct router *r, struct conn *c, const struct http1_request *req) {
    (void)req;
    uplink_ask_scheduler(r->uplink, "loads", BY_STR("{}"), on_states, api_pending_new(r, c));
}
