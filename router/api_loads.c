#include "router/api.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "common/base/proc.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Questions to the scheduler, and the two that are asked most: GET /v1/loads and GET /metrics. */

static void pending_gone(void *owner) {
    struct api_pending *p = owner;
    p->conn = NULL;
}

struct api_pending *api_pending_new(struct router *r, struct conn *c) {
    struct api_pending *p = by_alloc(sizeof *p);
    *p = (struct api_pending){.router = r, .conn = c};
    conn_set_owner(c, p, pending_gone, NULL);
    return p;
}

static void respond_error(struct conn *c, int code, struct by_str json) {
    char *text = api_error_text(code, json);
    api_error(c, code, text);
    by_free(text);
}

void api_on_answer(void *ctx, int code, struct by_str json) {
    struct api_pending *p = ctx;
    if (p->conn) {
        conn_set_owner(p->conn, NULL, NULL, NULL);
        if (code)
            respond_error(p->conn, code, json);
        else
            conn_respond(p->conn, 200, "application/json", json, NULL);
    }
    by_free(p);
}

/* ---- /v1/loads ---- */

/* The scheduler has no wall clock. */
static void write_loads(const struct api_pending *p, struct by_str json, struct by_buf *out) {
    const struct uplink_state *s = uplink_state(p->router->uplink);
    by_buf_addz(out, "{\"timestamp\":");
    by_buf_add_json_f64(out, (double)by_wall_ns() / BY_NS_PER_S);
    api_add_str(out, "accelerator", s->capacity.device);
    by_buf_addf(out, ",\"num_accelerators\":%u,", s->n_replicas * s->capacity.world);
    by_buf_add_str(out, by_str_sub(json, 1, SIZE_MAX));
}

/* One sample for each replica that says it: `section`, if not NULL, holds it. */
static void write_gauge(const struct by_json *loads, const char *section, struct by_str name,
                        struct by_buf *out) {
    char key[64];
    if (name.n >= sizeof key) return;
    snprintf(key, sizeof key, "%.*s", (int)name.n, name.p);
    const char *before = section ? section : "", *between = section ? "_" : "";
    by_buf_addf(out, "# TYPE banyan:%s%s%s gauge\n", before, between, key);
    for (const struct by_json *it = by_json_first(loads); it; it = by_json_next(it)) {
        const struct by_json *in = section ? by_json_get(it, section) : it,
                             *v = in ? by_json_get(in, key) : NULL;
        if (!v) continue;
        by_buf_addf(out, "banyan:%s%s%s{dp_rank=\"%.0f\"} ", before, between, key,
                    by_json_f64(by_json_get(it, "dp_rank")));
        by_buf_add_json_f64(out,
                            by_json_type(v) == BY_JSON_BOOL ? by_json_bool(v) : by_json_f64(v));
        by_buf_addc(out, '\n');
    }
}

static void write_prometheus(struct by_str json, struct by_buf *out) {
    static const struct by_json_limits lim = {.bytes_max = 4 << 20, .depth_max = 16};
    struct by_json *body = NULL;
    if (by_json_parse(&body, json, &lim, NULL)) return;
    const struct by_json *loads = by_json_get(body, "loads");
    for (const struct by_json *it = by_json_first(by_json_first(loads)); it;
         it = by_json_next(it)) {
        char section[64];
        struct by_str name = by_json_key(it);
        if (by_json_type(it) != BY_JSON_OBJECT) {
            if (!by_str_eqz(name, "dp_rank")) write_gauge(loads, NULL, name, out);
            continue;
        }
        snprintf(section, sizeof section, "%.*s", (int)BY_MIN(name.n, sizeof section - 1), name.p);
        for (const struct by_json *in = by_json_first(it); in; in = by_json_next(in))
            write_gauge(loads, section, by_json_key(in), out);
    }
    by_json_free(body);
}

static void on_loads(void *ctx, int code, struct by_str json) {
    struct api_pending *p = ctx;
    struct by_buf out;
    if (code || !p->conn || json.n < 2) {
        api_on_answer(ctx, code, json);
        return;
    }
    by_buf_init(&out, 8 << 20);
    if (p->as_prometheus)
        write_prometheus(json, &out);
    else
        write_loads(p, json, &out);
    conn_set_owner(p->conn, NULL, NULL, NULL);
    conn_respond(p->conn, 200, p->as_prometheus ? API_PROMETHEUS : "application/json",
                 by_buf_str(&out), NULL);
    by_buf_release(&out);
    by_free(p);
}

/* ?dp_rank=0&include=core,memory&format=prometheus as what the scheduler is asked. */
static int read_loads(const struct http1_request *req, struct by_buf *ask, bool *as_prometheus,
                      struct by_err *err) {
    char rank[24], include[256], format[24];
    uint64_t n;
    bool has_rank = http1_query(req, "dp_rank", rank, sizeof rank),
         has_include = http1_query(req, "include", include, sizeof include),
         has_format = http1_query(req, "format", format, sizeof format);
    if (has_rank && !by_str_to_u64(by_str_of(rank), &n))
        return by_fail(err, BY_EINVAL, "dp_rank: a whole number is needed");
    if (has_include && (!include[0] || include[strlen(include) - 1] == ','))
        return by_fail(err, BY_EINVAL, "include: sections are needed, or none of it: for all");
    *as_prometheus = has_format && strcmp(format, "prometheus") == 0;
    if (has_format && !*as_prometheus && strcmp(format, "json") != 0)
        return by_fail(err, BY_EINVAL, "format: json and prometheus are possible");
    by_buf_addz(ask, "{\"include\":");
    by_buf_add_json_str(ask, by_str_of(has_include ? include : "all"));
    if (has_rank) by_buf_addf(ask, ",\"dp_rank\":%llu", (unsigned long long)n);
    by_buf_addc(ask, '}');
    return 0;
}

void api_loads(struct router *r, struct conn *c, const struct http1_request *req) {
    struct by_buf ask;
    struct by_err err = {0};
    bool as_prometheus = false;
    by_buf_init(&ask, 4096);
    if (read_loads(req, &ask, &as_prometheus, &err)) {
        api_error(c, err.code, err.text);
    } else {
        struct api_pending *p = api_pending_new(r, c);
        p->as_prometheus = as_prometheus;
        uplink_ask_scheduler(r->uplink, "loads", by_buf_str(&ask), on_loads, p);
    }
    by_buf_release(&ask);
}

/* ---- /metrics: ours, and the scheduler's facts as they are now ---- */

static void take_loads(struct by_str json) {
    static const struct by_json_limits lim = {.bytes_max = 1 << 20, .depth_max = 16};
    static const struct {
        const char *key;
        enum by_metric metric;
    } sums[] = {
        {"num_running_reqs", BY_M_RUNNING},        {"num_used_tokens", BY_M_USED_TOKENS},
        {"max_total_num_tokens", BY_M_MAX_TOKENS}, {"num_used_pages", BY_M_USED_PAGES},
        {"gen_throughput", BY_M_GEN_THROUGHPUT},   {"max_running_requests", BY_M_UTILIZATION}};
    double total[BY_COUNTOF(sums)] = {0};
    struct by_json *body = NULL;
    if (by_json_parse(&body, json, &lim, NULL)) return;
    const struct by_json *loads = by_json_get(body, "loads"),
                         *first = loads ? by_json_first(loads) : NULL;
    for (const struct by_json *it = first; it; it = by_json_next(it)) {
        for (size_t i = 0; i < BY_COUNTOF(sums); i++)
            total[i] += by_json_f64(by_json_get(it, sums[i].key));
    }
    for (size_t i = 0; i < BY_COUNTOF(sums); i++)
        by_gauge(sums[i].metric, total[i]);
    double usage = total[2] > 0 ? total[1] / total[2] : 0;
    by_gauge(BY_M_TOKEN_USAGE, usage);
    by_gauge(BY_M_UTILIZATION, total[5] > 0 ? fmax(total[0] / total[5], usage) : 0);
    by_gauge(BY_M_EVICTED, by_json_f64(by_json_get(body, "evicted_tokens_total")));
    by_gauge(BY_M_RETRACTED, by_json_f64(by_json_get(body, "num_retracted_total")));
    if (first) { /* one queue and one tree for all replicas */
        by_gauge(BY_M_WAITING, by_json_f64(by_json_get(first, "num_waiting_reqs")));
        by_gauge(BY_M_CACHE_HIT_RATE, by_json_f64(by_json_get(first, "cache_hit_rate")));
    }
    by_json_free(body);
}

static void look_at_process(const struct router *r) {
    by_gauge(BY_M_ALLOCATIONS, (double)by_mem_n_allocs());
    by_gauge(BY_M_ALLOCATIONS_LIVE, (double)by_mem_n_live());
    by_gauge(BY_M_HELD_BYTES, (double)by_mem_n_bytes());
    by_gauge(BY_M_CPU_SECONDS, by_proc_cpu_seconds());
    by_gauge(BY_M_RSS, (double)by_proc_rss_bytes());
    by_gauge(BY_M_OPEN_FDS, (double)by_proc_n_fds());
    by_gauge(BY_M_MAX_FDS, (double)by_proc_fds_max());
    by_gauge(BY_M_START_TIME, (double)r->started_s);
}

static void on_metrics(void *ctx, int code, struct by_str json) {
    struct api_pending *p = ctx;
    struct by_buf body;
    by_gauge(BY_M_SCHEDULER_UP, !code);
    if (!code) take_loads(json);
    if (p->conn) {
        look_at_process(p->router);
        by_buf_init(&body, 4 << 20);
        by_metrics_text(&body);
        conn_set_owner(p->conn, NULL, NULL, NULL);
        conn_respond(p->conn, 200, API_PROMETHEUS, by_buf_str(&body), NULL);
        by_buf_release(&body);
    }
    by_free(p);
}

void api_metrics(struct router *r, struct conn *c, const struct http1_request *req) {
    (void)req;
    uplink_ask_scheduler(r->uplink, "loads", BY_STR("{\"include\":\"core\"}"), on_metrics,
                         api_pending_new(r, c));
}
