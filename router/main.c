/* banyan-router: HTTP outward, one `generate` and many `text` frames inward. */
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/options.h"
#include "common/base/proc.h"
#include "common/base/sandbox.h"
#include "proto/endpoint.h"
#include "router/cors.h"
#include "router/routes.h"
#include "router/server.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum {
    DRAIN_POLL_MS = 50,
    RESUME_SHARE = 4, /* of what may be held: answers that may be asked for again */
};

struct shell {
    struct router router;
    struct endpoint at;
    uv_poll_t stop;
    uv_timer_t drain;
    uv_signal_t hangup; /* SIGHUP: the file of keys again */
    const char *key_file;
    struct server *server, *admin; /* admin: --admin-socket; NULL: none */
    uv_timer_t alive;              /* systemd's watchdog, when there is one */
    uint64_t drain_until_ns;
    uint64_t drain_ns;
    char url[256];
    bool was_ready;
};

static void on_ready(void *ctx, bool is_ready) {
    struct shell *s = BY_CONTAINER_OF(ctx, struct shell, router);
    by_info("%s url=%s", is_ready ? "ready" : "not ready", s->url);
    if (!is_ready || s->was_ready) return;
    s->was_ready = true;
    const struct uplink_state *u = uplink_state(s->router.uplink);
    struct by_str model = request_model_name(&s->router);
    char state[1024];
    snprintf(state, sizeof state,
             "READY=1\nSTATUS=listening on %s model=%.*s kv_tokens=%llu load_s=%.2f impl=%.*s",
             s->url, (int)BY_MIN(model.n, (size_t)300), model.p, (unsigned long long)u->kv_tokens,
             u->capacity.load_ms / 1e3, (int)BY_MIN(u->model.impl.n, (size_t)100), u->model.impl.p);
    by_notify(state);
}

static void on_hangup(uv_signal_t *sig, int number) {
    struct shell *s = sig->data;
    struct by_err err = {0};
    (void)number;
    if (!s->key_file)
        by_warn("SIGHUP: there is no --api-key-file to read again");
    else if (auth_reread(s->router.auth, s->key_file, &err))
        by_error("SIGHUP: the API keys stay as they were: %s", err.text);
    else
        by_info("SIGHUP: API keys were read again keys=%zu", s->router.auth->n);
}

static void stop_now(struct shell *s) {
    server_close_all(s->server);
    if (s->admin) server_close_all(s->admin);
    uv_stop(s->router.loop);
}

static void on_drain_tick(uv_timer_t *t) {
    struct shell *s = t->data;
    server_close_idle(s->server);
    uint32_t n_busy = server_n_busy(s->server) + (s->admin ? server_n_busy(s->admin) : 0);
    if (!n_busy || by_now_ns() >= s->drain_until_ns || by_proc_n_stops() > 1) stop_now(s);
}

/* SIGTERM: no new connection, no new request; what runs may finish within --drain-timeout. */
static void on_stop(uv_poll_t *p, int status, int events) {
    struct shell *s = p->data;
    (void)status;
    (void)events;
    uv_poll_stop(p);
    by_notify("STOPPING=1");
    s->router.is_draining = true;
    server_stop_listening(s->server);
    if (s->admin) server_stop_listening(s->admin);
    /* nobody to serve with */
    s->drain_until_ns = by_proc_is_orphan() ? 0 : by_now_ns() + s->drain_ns;
    uv_timer_start(&s->drain, on_drain_tick, 0, DRAIN_POLL_MS);
}

static int open_all(struct shell *s, const struct by_options *o, struct by_err *err) {
    struct router *r = &s->router;
    int rc = endpoint_read(&s->at, o, NULL, err);
    if (rc) return rc;
    struct uplink_options uo = {.loop = r->loop,
                                .scheduler_endpoint = s->at.scheduler,
                                .key_file = o->curve_key_file,
                                .instance = o->instance,
                                .epoch = r->epoch,
                                .journal = &r->journal,
                                .news = request_on_news,
                                .failed = request_on_failed,
                                .settled = request_write_news,
                                .ready_changed = on_ready,
                                .ctx = r};
    struct server_options so = {.host = o->host,
                                .port = (int)o->port,
                                .unix_path = o->uds,
                                .conn = {.origins = o->allowed_origins,
                                         .body_bytes_max = (size_t)o->max_body_bytes,
                                         .connections_max = (uint32_t)o->max_connections,
                                         .held_max = r->held_max,
                                         .stall_seconds = (uint32_t)ceil(o->slow_client_timeout),
                                         .request_seconds = (uint32_t)ceil(o->slow_request_timeout),
                                         .handle = routes_handle,
                                         .ctx = r}};
    struct server_options ao = so;
    ao.unix_path = o->admin_socket;
    ao.is_private = true;
    ao.conn.handle = routes_handle_admin;
    if (o->admin_socket_only && !o->admin_socket)
        return by_fail(err, BY_EINVAL, "--admin-socket-only: --admin-socket PATH is missing");
    rc = cors_check(o->allowed_origins, err);
    if (rc) return rc;
    rc = uplink_open(&r->uplink, &uo, err);
    if (!rc) rc = server_open(&s->server, r->loop, &so, err);
    if (!rc && o->admin_socket) rc = server_open(&s->admin, r->loop, &ao, err);
    if (rc) return rc;
    if (o->uds)
        snprintf(s->url, sizeof s->url, "unix:%s", o->uds);
    else
        snprintf(s->url, sizeof s->url, strchr(o->host, ':') ? "http://[%s]:%d" : "http://%s:%d",
                 o->host, server_port(s->server)); /* an IPv6 address stands in brackets */
    char state[512];
    snprintf(state, sizeof state, "STATUS=listening on %s", s->url);
    by_notify(state);
    by_info("listening url=%s", s->url);
    return 0;
}

/* Without a key whoever reaches the port may use the server, and drain it, and load other weights into it. */
static void check_openness(const struct by_options *o, const struct auth *keys) {
    bool is_near = strncmp(o->host, "127.", 4) == 0 || strcmp(o->host, "localhost") == 0 ||
                   strcmp(o->host, "::1") == 0;
    if (!o->uds && !is_near && !keys->n)
        by_warn("no key is asked for, and others than this machine may reach %s: each of them may "
                "use it, and "
                "change it; give --api-key-file (SECURITY.md), or listen on 127.0.0.1",
                o->host);
}

/* The soft limit is the hard one by now (common/base/proc.c). Few serve so many at a time that they need to hear of more. */
static void check_files(int64_t n_connections) {
    enum { MANY = 4096 };
    uint64_t have;
    if (by_proc_lacks_files((uint64_t)BY_MIN(n_connections, MANY), &have))
        by_warn("%llu open files are allowed: connections beyond them wait; raise `ulimit -n` (in "
                "a unit LimitNOFILE=)",
                (unsigned long long)have);
}

/* --max-held-bytes; 0 chooses. */
static int choose_held_max(const struct by_options *o, uint64_t *out, struct by_err *err) {
    enum { SHARE = 8, BODIES_LEAST = 4, BYTES_LEAST = 256 * 1024 * 1024 };
    uint64_t bodies = (uint64_t)o->max_body_bytes * BODIES_LEAST;
    *out = (uint64_t)o->max_held_bytes;
    if (!*out) *out = BY_MAX(by_proc_memory_max() / SHARE, BY_MAX(bodies, (uint64_t)BYTES_LEAST));
    return *out >= bodies
               ? 0
               : by_fail(err, BY_EINVAL,
                         "--max-held-bytes %llu: four bodies of --max-body-bytes have to fit, "
                         "%llu bytes",
                         (unsigned long long)*out, (unsigned long long)bodies);
}

static void on_alive(uv_timer_t *t) {
    (void)t;
    by_notify("WATCHDOG=1");
}

static void watch_stop(struct shell *s) {
    int rc = uv_poll_init(s->router.loop, &s->stop, by_proc_stop_fd());
    by_assert(rc == 0);
    s->stop.data = s;
    uv_poll_start(&s->stop, UV_READABLE, on_stop);
    uv_timer_init(s->router.loop, &s->drain);
    s->drain.data = s;
    uv_signal_init(s->router.loop, &s->hangup);
    s->hangup.data = s;
    uv_signal_start(&s->hangup, on_hangup, SIGHUP);
    uint64_t alive_ms = by_proc_watchdog_ns() / BY_NS_PER_MS;
    uv_timer_init(s->router.loop, &s->alive);
    if (alive_ms) uv_timer_start(&s->alive, on_alive, 0, alive_ms);
}

int main(int argc, char **argv) {
    static struct shell shell;
    struct by_options o;
    struct by_err err = {0};
    static const struct by_options_program program = {
        .name = "banyan-router",
        .who = BY_FOR_ROUTER,
        .summary = "answers HTTP and streams what the other processes make; `banyan serve` starts "
                   "it for you",
    };
    by_proc_start(&o, &program, argc, argv);
    by_sandbox_enter(o.sandbox, BY_SANDBOX_NETWORK);
    struct router *r = &shell.router;
    r->loop = uv_default_loop();
    r->epoch = by_proc_epoch();
    r->started_s = by_wall_ns() / BY_NS_PER_S;
    r->started_ns = by_now_ns();
    r->model_name = o.served_model_name;
    r->auth = auth_new();
    auth_add(r->auth, o.api_key, false);
    auth_add(r->auth, o.admin_api_key, true);
    if (o.api_key_file && auth_read(r->auth, o.api_key_file, &err)) {
        by_fail_prefix(&err, "--api-key-file");
        by_proc_last_words(err.text);
        return BY_EXIT_CONFIG;
    }
    shell.key_file = o.api_key_file;
    r->hides_admin = o.admin_socket_only;
    r->logs_text = o.log_requests_text;
    r->logs_requests = o.log_requests || o.log_requests_text;
    r->isolates_cache = o.isolate_cache;
    r->is_incremental = o.incremental_streaming_output;
    r->has_openai_defaults = strcmp(o.sampling_defaults, "openai") == 0;
    if (by_str_eqz(by_str_of(o.tool_call_parser), "auto") ||
        by_str_eqz(by_str_of(o.reasoning_parser), "auto"))
        by_warn("parsers on auto are chosen by banyan serve; a router alone sees no template, and "
                "takes none");
    r->tools = parse_tools_of(o.tool_call_parser);
    r->reasoning = parse_reasoning_of(o.reasoning_parser);
    r->tools_name = o.tool_call_parser;
    r->reasoning_name = o.reasoning_parser;
    r->request_timeout_ms = (uint32_t)(o.request_timeout * 1000);
    shell.drain_ns = (uint64_t)(o.drain_timeout * 1e9);
    journal_init(&r->journal, r->epoch);
    by_list_init(&r->unwritten);
    by_strmap_init(&r->misspelt);
    by_buf_init(&r->scratch, REQUEST_ANSWER_MAX);
    int rc = choose_held_max(&o, &r->held_max, &err);
    r->resume = resume_new(r->loop, (uint64_t)(o.resume_grace * 1000), (size_t)o.resume_bytes,
                           (size_t)r->held_max / RESUME_SHARE);
    if (rc || open_all(&shell, &o, &err)) {
        by_proc_last_words(err.text);
        return err.code == BY_EIO ? 1 : BY_EXIT_CONFIG; /* another's port may be free in a moment */
    }
    check_files(o.max_connections);
    check_openness(&o, r->auth);
    watch_stop(&shell);
    uv_run(r->loop, UV_RUN_DEFAULT);
    by_proc_tidy(o.run_dir);
    by_options_release(&o);
    by_info("stopped");
    return 0;
}
