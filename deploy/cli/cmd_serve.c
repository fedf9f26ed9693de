#include "deploy/cli/cmd.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/options.h"
#include "common/base/proc.h"
#include "common/base/sandbox.h"
#include "deploy/cli/choose_parsers.h"
#include "deploy/cli/fetch_model.h"
#include "deploy/cli/supervise.h"
#include "deploy/cli/workers.h"
#include "proto/endpoint.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

/* banyan serve: the five kinds of process on one host.
 *
 *     model path ─▶ private run directory ─▶ scheduler, tokenizer workers, gpu worker, detokenizer, router ─▶ "ready …"
 *
 * One line a process when it is up, one when requests can be served. SIGTERM: the router drains, then all stop. */

enum { STOP_GRACE_MS = 5000, DRAIN_GRACE_MS = 2000 };

static struct serve {
    struct by_options o;
    uv_loop_t *loop;
    struct supervisor *supervisor;
    struct child *router;
    struct workers workers;
    char *run_dir, *exe_dir;
    char **keys; /* the router's environment */
    bool owns_run_dir, was_ready, is_stopping;
    int status;     /* not 0: it has failed, and … */
    char why[1200]; /* … this is the last line, where one looks who comes later */
    uint64_t started_ns;
    uv_signal_t signals[2], hangup;
    uv_timer_t timer, alive; /* alive: systemd's watchdog, when there is one */
    int n_signals;
} serve;

/* ---- the run directory ---- */

/* banyan-UID-PID-XXXXXX of servers that are no more: what kill -9 left behind. One of another container, whose processes we do
 * not see, has its folder locked. */
static void sweep(const char *base) {
    DIR *d = opendir(base);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        unsigned uid, pid;
        int n = 0;
        if (sscanf(e->d_name, "banyan-%u-%u-%n", &uid, &pid, &n) != 2 || !n || uid != getuid())
            continue;
        if (kill((pid_t)pid, 0) == 0 || errno != ESRCH) continue;
        char *path = by_path_join(base, e->d_name);
        if (by_dir_lock(path, NULL) == 0) by_dir_remove(path);
        by_free(path);
    }
    if (d) closedir(d);
}

static int make_run_dir(struct by_err *err) {
    const char *base = getenv("XDG_RUNTIME_DIR");
    char path[256];
    if (serve.o.run_dir) {
        if (strlen(serve.o.run_dir) > SUPERVISE_DIR_MAX)
            return by_fail(err, BY_ELIMIT,
                           "--run-dir %s: it has %zu bytes; %d at most leave room for the names of "
                           "the sockets, whose paths end at 107",
                           serve.o.run_dir, strlen(serve.o.run_dir), SUPERVISE_DIR_MAX);
        serve.run_dir = by_strdup(serve.o.run_dir);
        int rc = by_dir_make(serve.run_dir, 0700, err);
        if (!rc) rc = by_dir_lock(serve.run_dir, err);
        if (rc) by_fail_prefix(err, "--run-dir: stop the other server, or name another folder");
        return rc;
    }
    if (!base || !*base || access(base, W_OK)) base = "/tmp";
    sweep(base);
    int n = snprintf(path, sizeof path, "%s/banyan-%u-%u-XXXXXX", base, (unsigned)getuid(),
                     (unsigned)getpid());
    if (n >= (int)sizeof path || n > 60) { /* a socket's path ends at 107 bytes */
        snprintf(path, sizeof path, "/tmp/banyan-%u-%u-XXXXXX", (unsigned)getuid(),
                 (unsigned)getpid());
    }
    if (!mkdtemp(path))
        return by_fail(err, BY_EIO, "%s: %s; name a folder with --run-dir", path, strerror(errno));
    serve.run_dir = by_strdup(path);
    serve.owns_run_dir = true;
    serve.o.run_dir = by_strdup(path);
    return by_dir_lock(path, err);
}

static void remove_socket(const char *name) {
    char *path = by_path_join(serve.run_dir, name);
    unlink(path);
    by_free(path);
}

/* Who was killed as it stopped left its own in a folder that stays. Other processes' may lie there too. */
static void remove_sockets(void) {
    char name[64], instance[32];
    remove_socket(ENDPOINT_SCHEDULER_SOCKET);
    snprintf(name, sizeof name, ENDPOINT_OWN_SOCKET, "detokenizer", "0");
    remove_socket(name);
    for (int64_t i = 0; i < serve.o.tokenizer_worker_num; i++) {
        snprintf(instance, sizeof instance, "%lld", (long long)i);
        snprintf(name, sizeof name, ENDPOINT_OWN_SOCKET, "tokenizer", instance);
        remove_socket(name);
    }
}

/* ---- children ---- */

static char **argv_of(const char *program, uint32_t who, const char *instance) {
    char *path = by_path_join(serve.exe_dir, program), *old = serve.o.instance;
    serve.o.instance = (char *)(uintptr_t)instance;
    char **argv = by_options_argv(&serve.o, path, who);
    serve.o.instance = old;
    by_free(path);
    return argv;
}

static int start_all(struct by_err *err) {
    struct supervisor *s = serve.supervisor;
    supervisor_add(s, "scheduler", argv_of("banyan-scheduler", BY_FOR_SCHEDULER, "0"), NULL);
    int rc = workers_start(&serve.workers, s, &serve.o, serve.exe_dir, err);
    if (rc) return rc;
    for (int64_t i = 0; i < serve.o.tokenizer_worker_num; i++) {
        char name[64], instance[24];
        snprintf(instance, sizeof instance, "%lld", (long long)i);
        snprintf(name, sizeof name, i ? "tokenizer-worker-%lld" : "tokenizer-worker", (long long)i);
        supervisor_add(s, name, argv_of("banyan-tokenizer-worker", BY_FOR_TOKENIZER, instance),
                       NULL);
    }
    supervisor_add(s, "detokenizer", argv_of("banyan-detokenizer", BY_FOR_DETOKENIZER, "0"), NULL);
    serve.router = supervisor_add(s, "router", argv_of("banyan-router", BY_FOR_ROUTER, "0"),
                                  (const char *const *)serve.keys);
    return 0;
}

/* ---- events ---- */

static void stop_all(bool now);

/* --port 0: clients know the port by now, so a new router must have the same one. */
static void keep_port(void) {
    struct by_str rest = by_str_of(child_status(serve.router)), url, host;
    uint64_t port;
    by_str_split(&rest, ' ', &url); /* listening */
    by_str_split(&rest, ' ', &url); /* on */
    by_str_split(&rest, ' ', &url); /* http://127.0.0.1:30000 */
    while (by_str_split(&url, ':', &host)) {
    }
    if (serve.o.port || !by_str_to_u64(host, &port) || !port || port > UINT16_MAX) return;
    serve.o.port = (int64_t)port;
    child_set_argv(serve.router, argv_of("banyan-router", BY_FOR_ROUTER, "0"),
                   (const char *const *)serve.keys);
}

static void on_ready(void *ctx, struct child *c) {
    (void)ctx;
    if (c == serve.router) keep_port();
    by_info("%s is up pid=%d seconds=%.2f", child_name(c), child_pid(c), child_seconds(c));
    if (!supervisor_all_ready(serve.supervisor)) return;
    const char *status = child_status(serve.router);
    if (strncmp(status, "listening on ", 13) == 0) status += 13;
    if (serve.was_ready) {
        by_info("ready again: %s", status);
        return;
    }
    serve.was_ready = true;
    by_info("ready in %.2f s: %s", (double)(by_now_ns() - serve.started_ns) / 1e9, status);
    by_notify("READY=1");
}

static void on_status(void *ctx, struct child *c, const char *status) {
    (void)ctx;
    by_debug("%s: %s", child_name(c), status);
}

/* It ended before it was ever ready: its own line above says why. */
static bool on_failed(void *ctx, struct child *c, int64_t code) {
    struct by_err err = {0};
    (void)ctx;
    if (code == BY_EXIT_UNSUPPORTED && workers_hand_over(&serve.workers, c, &err)) return true;
    if (err.code) by_error("%s", err.text);
    by_error("%s could not start (its own line above says why) status=%lld", child_name(c),
             (long long)code);
    const char *why = child_last_words(c);
    snprintf(serve.why, sizeof serve.why, "stopped: %s could not start%s%s", child_name(c),
             *why ? ": " : "; its own line above says why", why);
    serve.status = code == BY_EXIT_CONFIG || code == BY_EXIT_UNSUPPORTED ? (int)code : 1;
    stop_all(true);
    return false;
}

static void on_kill_timer(uv_timer_t *t) {
    (void)t;
    supervisor_signal_all(serve.supervisor, SIGKILL);
}

static void on_drain_timer(uv_timer_t *t) {
    supervisor_signal_all(serve.supervisor, SIGTERM);
    uv_timer_start(t, on_kill_timer, STOP_GRACE_MS, 0);
}

static void on_exited(void *ctx, struct child *c, int64_t code, int sig, bool will_restart) {
    (void)ctx;
    if (!serve.is_stopping) {
        by_warn("%s ended; %s status=%lld signal=%d", child_name(c),
                will_restart ? "it is started again" : "it stays down", (long long)code, sig);
        return;
    }
    if (sig == SIGKILL && serve.n_signals < 2)
        by_warn("%s did not stop in time, and was killed", child_name(c));
    if (c == serve.router) on_drain_timer(&serve.timer);
    if (supervisor_all_gone(serve.supervisor)) uv_stop(serve.loop);
}

/* The router first: it finishes what runs; the others stop when it is gone. */
static void stop_all(bool now) {
    serve.is_stopping = true;
    supervisor_stop_starting(serve.supervisor);
    if (supervisor_all_gone(serve.supervisor)) uv_stop(serve.loop);
    if (now || !serve.router || !child_pid(serve.router)) {
        on_drain_timer(&serve.timer);
        return;
    }
    by_notify("STOPPING=1");
    child_signal(serve.router, SIGTERM);
    uv_timer_start(&serve.timer, on_drain_timer,
                   (uint64_t)(serve.o.drain_timeout * 1000) + DRAIN_GRACE_MS, 0);
}

static void on_signal(uv_signal_t *h, int number) {
    (void)h;
    if (++serve.n_signals == 1) {
        by_info("stopping: running requests get %.0f s; once more means now signal=%d",
                serve.o.drain_timeout, number);
        stop_all(false);
    } else {
        on_kill_timer(&serve.timer);
    }
}

/* The router reads its file of keys again; without one a hang-up ends us, as it ends any program of a terminal. */
static void on_hangup(uv_signal_t *h, int number) {
    (void)h;
    if (serve.router) child_signal(serve.router, number);
}

static void on_alive(uv_timer_t *t) {
    (void)t;
    by_notify("WATCHDOG=1");
}

static void watch_signals(void) {
    static const int numbers[] = {SIGTERM, SIGINT};
    for (size_t i = 0; i < BY_COUNTOF(numbers); i++) {
        uv_signal_init(serve.loop, &serve.signals[i]);
        uv_signal_start(&serve.signals[i], on_signal, numbers[i]);
    }
    if (serve.o.api_key_file) {
        uv_signal_init(serve.loop, &serve.hangup);
        uv_signal_start(&serve.hangup, on_hangup, SIGHUP);
    }
    uv_timer_init(serve.loop, &serve.timer);
    if (by_proc_should_stop()) on_signal(NULL, SIGTERM); /* it came before there was a loop */
    uint64_t alive_ms = by_proc_watchdog_ns() / BY_NS_PER_MS;
    uv_timer_init(serve.loop, &serve.alive);
    if (alive_ms) uv_timer_start(&serve.alive, on_alive, 0, alive_ms);
}

/* ---- the command ---- */

static int prepare(int argc, char **argv, struct by_err *err) {
    static const struct by_options_program program = {
        .name = "banyan serve",
        .who = BY_FOR_SERVE | BY_FOR_DAEMONS,
        .summary =
            "starts a server: all processes, one model; without --model-path SmolLM2-135M-Instruct",
        .usage = "[MODEL-PATH] [options]",
        .n_words = 1,
    };
    int rc = by_options_parse(&serve.o, &program, argc, argv, err);
    if (!rc) rc = cmd_take_model(&serve.o, err);
    if (rc) {
        serve.status = BY_EXIT_CONFIG;
        return rc;
    }
    struct by_log_options log = {.process = "serve", .json = serve.o.log_json};
    if (!by_log_level_parse(serve.o.log_level, &log.level)) log.level = BY_LOG_INFO;
    by_log_init(&log);
    by_proc_init("serve");
    serve.keys = by_options_hand_on(&serve.o, BY_FOR_ROUTER);
    /* the children's own filters add to it */
    by_sandbox_enter(serve.o.sandbox, BY_SANDBOX_PROGRAMS);
    if (strcmp(serve.o.model_impl, "sglang") == 0) {
        by_free(serve.o.model_impl);
        serve.o.model_impl = by_strdup("native");
    }
    char *path = NULL;
    struct by_str repo;
    if (!serve.o.served_model_name && fetch_is_hub_id(serve.o.model_path, &repo))
        serve.o.served_model_name = by_strndup(repo.p, repo.n);
    if (!serve.o.served_model_name && !serve.o.model_path)
        serve.o.served_model_name = by_strdup(FETCH_DEFAULT_NAME);
    rc = fetch_model(serve.o.model_path, &serve.o, FETCH_ALL, &path, err);
    if (rc) return rc;
    by_free(serve.o.model_path);
    serve.o.model_path = path;
    if (serve.o.tokenizer_path) {
        rc = fetch_model(serve.o.tokenizer_path, &serve.o, FETCH_TEXT, &path, err);
        if (rc) return rc;
        by_free(serve.o.tokenizer_path);
        serve.o.tokenizer_path = path;
    }
    serve.exe_dir = by_proc_exe_dir();
    return make_run_dir(err);
}

int cmd_serve(int argc, char **argv) {
    struct by_err err = {0};
    serve.started_ns = by_now_ns();
    if (prepare(argc, argv, &err)) {
        by_proc_last_words(err.text);
        return serve.status ? serve.status : 1;
    }
    serve.started_ns = by_now_ns(); /* a download is no part of the start */
    serve.loop = uv_default_loop();
    struct supervisor_options so = {.loop = serve.loop,
                                    .run_dir = serve.run_dir,
                                    .ready = on_ready,
                                    .status = on_status,
                                    .exited = on_exited,
                                    .failed = on_failed};
    serve.supervisor = supervisor_new(&so);
    watch_signals();
    choose_parsers(&serve.o);
    if (start_all(&err)) {
        by_error("%s", err.text);
        snprintf(serve.why, sizeof serve.why, "stopped: %s", err.text);
        serve.status = 1;
        stop_all(true);
    }
    if (!supervisor_all_gone(serve.supervisor)) uv_run(serve.loop, UV_RUN_DEFAULT);
    supervisor_free(serve.supervisor);
    workers_release(&serve.workers);
    remove_sockets();
    if (serve.owns_run_dir) by_dir_remove(serve.run_dir);
    if (serve.status)
        by_proc_last_words(serve.why);
    else
        by_info("stopped");
    return serve.status;
}
