#include "router/api.h"
#include "common/base/clock.h"

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

/* /v1/models/{id}: ids contain slashes, so everything behind the prefix is the id. */
void api_model(struct router *r, struct conn *c, const struct http1_request *req) {
    struct by_buf body;
    struct by_str id = by_str_sub(req->path, sizeof "/v1/models/" - 1, SIZE_MAX),
                  ours = request_model_name(r);
    if (!by_str_eq(id, ours) &&
        !(ours.n && ours.p[0] == '/' && by_str_eq(id, by_str_sub(ours, 1, SIZE_MAX)))) {
        request_error(c, BY_ENOTFOUND,
                      "model: there is no model of this name; GET /v1/models lists what is served",
                      0);
        return;
    }
    by_buf_init(&body, 65536);
    write_model(r, &body);
    respond(c, &body);
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
    api_add_str(out, "model_type", s->model.type);
    by_buf_addz(out, ",\"architectures\":[");
    if (s->model.arch.n) by_buf_add_json_str(out, s->model.arch);
    by_buf_addz(out, "],\"has_image_understanding\":false,\"has_audio_understanding\":false");
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

void api_server_info(struct router *r, struct conn *c, const struct http1_request *req) {
    const struct uplink_state *s = uplink_state(r->uplink);
    struct by_buf body;
    (void)req;
    by_buf_init(&body, 65536);
    by_buf_addc(&body, '{');
    write_info(r, &body);
    api_add_str(&body, "version", by_str_of(BANYAN_VERSION));
    api_add_str(&body, "impl", s->model.impl);
    api_add_str(&body, "device", s->capacity.device);
    api_add_str(&body, "weights_id", s->model.weights_id);
    by_buf_addf(&body,
                ",\"status\":\"%s\",\"max_total_num_tokens\":%llu,\"context_length\":%u,\"max_req_"
                "input_len\":%u",
                s->is_ready ? "ready" : "starting", (unsigned long long)s->kv_tokens,
                s->model.context_len, s->model.context_len ? s->model.context_len - 1 : 0);
    by_buf_addf(&body,
                ",\"page_size\":%u,\"dp_size\":%u,\"tp_size\":%u,\"load_ms\":%u,\"weight_bytes\":%"
                "llu,\"kv_bytes\":%llu",
                s->capacity.page_size, s->n_replicas, s->capacity.world, s->capacity.load_ms,
                (unsigned long long)s->capacity.weight_bytes,
                (unsigned long long)s->capacity.kv_bytes);
    by_buf_addf(&body, ",\"startup_time\":%llu,\"uptime_s\":%llu,\"internal_states\":[{}]}",
                (unsigned long long)r->started_s,
                (unsigned long long)(by_wall_ns() / BY_NS_PER_S - r->started_s));
    respond(c, &body);
}
