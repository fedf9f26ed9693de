#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/options.h"
#include "common/base/proc.h"
#include "common/net/loop.h"
#include "deploy/cli/cmd.h"
#include "proto/endpoint.h"
#include "proto/wire.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* banyan inspect: asks the scheduler of a running server for a dump, and draws it. It is one more peer, of role tool. */

enum { WAIT_S = 5, ANSWER_MAX = 16 << 20, ANSWER_DEPTH = 8 };

static struct inspect {
    struct by_loop *loop;
    struct wire *wire;
    struct by_buf json; /* the answer */
    int32_t code;
    bool is_answered;
    const char *why_not;
    char refused[256];
} inspect;

/* ---- asking ---- */

static void on_up(void *ctx, struct wire_peer *scheduler) {
    (void)ctx;
    struct msg m = {.kind = MSG_ask, .ask = {.id = 1, .what = BY_STR("dump")}};
    wire_send(scheduler, &m);
}

static void on_message(void *ctx, struct wire_peer *peer, const struct msg *m) {
    (void)ctx;
    (void)peer;
    if (m->kind != MSG_answer) return;
    by_buf_clear(&inspect.json);
    by_buf_add_str(&inspect.json, m->answer.json);
    inspect.code = m->answer.code;
    inspect.is_answered = true;
    by_loop_stop(inspect.loop);
}

static void on_down(void *ctx, struct wire_peer *peer, const char *why) {
    (void)ctx;
    (void)peer;
    (void)why; /* the wire says hello again; the timer ends that */
}

static void on_refused(void *ctx, const char *why) {
    (void)ctx;
    snprintf(inspect.refused, sizeof inspect.refused, "%s", why);
    inspect.why_not = inspect.refused;
    by_loop_stop(inspect.loop);
}

static void on_late(void *ctx, uint64_t now_ns) {
    (void)ctx;
    (void)now_ns;
    inspect.why_not = "no scheduler answers there";
    by_loop_stop(inspect.loop);
}

static int ask(const char *endpoint, const char *key_file, struct by_err *err) {
    char instance[32];
    snprintf(instance, sizeof instance, "inspect-%ld", (long)getpid());
    struct wire_options o = {.endpoint = endpoint,
                             .key_file = key_file,
                             .role = ROLE_TOOL,
                             .instance = instance,
                             .epoch = by_proc_epoch(),
                             .expect = ROLE_SCHEDULER,
                             .up = on_up,
                             .msg = on_message,
                             .down = on_down,
                             .refused = on_refused};
    inspect.loop = by_loop_new();
    int rc = wire_open(&inspect.wire, &o, err);
    if (rc) return rc;
    wire_attach(inspect.wire, inspect.loop);
    by_loop_set_timer(inspect.loop, by_now_ns() + WAIT_S * BY_NS_PER_S, on_late, NULL);
    by_loop_run(inspect.loop);
    if (inspect.is_answered) return 0;
    return by_fail(err, BY_EUNAVAILABLE, "%s: %s", endpoint,
                   inspect.why_not ? inspect.why_not : "interrupted");
}

/* ---- which server ---- */

/* `banyan serve` without --run-dir makes banyan-<uid>-<pid>-…; the only one of ours that has a scheduler is meant. */
static int find_run_dir(char *out, size_t cap, struct by_err *err) {
    const char *bases[] = {getenv("XDG_RUNTIME_DIR"), "/tmp"};
    char prefix[32], all[BY_ERR_TEXT_MAX] = "";
    uint32_t n_found = 0;
    if (bases[0] && strcmp(bases[0], bases[1]) == 0) bases[0] = NULL;
    snprintf(prefix, sizeof prefix, "banyan-%u-", (unsigned)getuid());
    for (uint32_t i = 0; i < BY_COUNTOF(bases); i++) {
        DIR *d = bases[i] && *bases[i] ? opendir(bases[i]) : NULL;
        for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
            char path[512];
            if (strncmp(e->d_name, prefix, strlen(prefix)) != 0) continue;
            snprintf(path, sizeof path, "%s/%s/" ENDPOINT_SCHEDULER_SOCKET, bases[i], e->d_name);
            if (!by_file_exists(path)) continue;
            snprintf(out, cap, "%s/%s", bases[i], e->d_name);
            size_t n = strlen(all);
            snprintf(all + n, sizeof all - n, "%s %s", n_found ? "," : "", out);
            n_found++;
        }
        if (d) closedir(d);
    }
    if (n_found == 1) return 0;
    if (!n_found)
        return by_fail(
            err, BY_EINVAL,
            "no server of this user's runs here; say where its sockets are with --run-dir, or "
            "--scheduler-endpoint and --curve-key-file");
    return by_fail(err, BY_EINVAL, "%u servers run here; say which one with --run-dir:%s", n_found,
                   all);
}

static int find_endpoint(const struct by_options *o, char *out, size_t cap, struct by_err *err) {
    char found[400];
    int rc = 0;
    if (!o->run_dir && !o->scheduler_endpoint) rc = find_run_dir(found, sizeof found, err);
    if (rc) return rc;
    int n = o->scheduler_endpoint ? snprintf(out, cap, "%s", o->scheduler_endpoint)
                                  : snprintf(out, cap, "ipc://%s/" ENDPOINT_SCHEDULER_SOCKET,
                                             o->run_dir ? o->run_dir : found);
    return n < (int)cap ? 0 : by_fail(err, BY_ELIMIT, "%s is too long for a socket", out);
}

/* ---- drawing ---- */

static double num(const struct by_json *o, const char *key) {
    const struct by_json *value = by_json_get(o, key);
    return value ? by_json_f64(value) : 0;
}

static struct by_str text(const struct by_json *o, const char *key) {
    const struct by_json *value = by_json_get(o, key);
    return value ? by_json_str(value) : BY_STR("");
}

static bool yes(const struct by_json *o, const char *key) {
    const struct by_json *value = by_json_get(o, key);
    return value && by_json_bool(value);
}

#define EACH(it, o, key) \
    const struct by_json *it = by_json_get(o, key) ? by_json_first(by_json_get(o, key)) : NULL; \
    it; \
    it = by_json_next(it)

static void draw_head(const struct by_json *d) {
    printf("%s%s" BY_STR_FMT "   policy " BY_STR_FMT "   %.0f live, %.0f queued, %.0f suspects\n",
           yes(d, "is_ready") ? "ready" : "not ready", text(d, "why").n ? ": " : "",
           BY_STR_ARG(text(d, "why")), BY_STR_ARG(text(d, "policy")), num(d, "live"),
           num(d, "queued"), num(d, "suspects"));
    printf("%.0f requests, %.0f refused, %.0f cancelled, %.0f retractions, %.0f preemptions, "
           "%.0f strange frames\n",
           num(d, "requests"), num(d, "refused"), num(d, "cancelled"), num(d, "retractions"),
           num(d, "preemptions"), num(d, "strange_frames"));
}

static void draw_replicas(const struct by_json *d) {
    printf("\n%-8s %-5s %12s %21s %9s %12s %7s\n", "replica", "", "running", "tokens in use",
           "tokens/s", "steps", "failed");
    for (EACH(r, d, "loads"))
        printf("%-8.0f %-5s %5.0f / %-5.0f %9.0f / %-9.0f %9.1f %12.0f %7.0f\n", num(r, "dp_rank"),
               yes(r, "is_up") ? "up" : "DOWN", num(r, "num_running_reqs"),
               num(r, "max_running_requests"), num(r, "num_used_tokens"),
               num(r, "max_total_num_tokens"), num(r, "gen_throughput"), num(r, "steps"),
               num(r, "steps_failed"));
}

static void draw_samples(const struct by_json *d, const char *key) {
    const struct by_json *list = by_json_get(d, key);
    if (!list || by_json_len(list) == 0) return;
    printf("\n%-10s %10s %-8s %-16s %4s %8s %8s %8s %8s %13s\n", key, "rid", "state", "tenant",
           "prio", "age s", "prompt", "cached", "done", "output/max");
    for (EACH(s, d, key)) {
        struct by_str tenant = by_str_sub(text(s, "tenant"), 0, 16);
        printf("%-10s %8.0f/%-1.0f %-8.*s %-16.*s %4.0f %8.1f %8.0f %8.0f %8.0f %6.0f/%-6.0f\n", "",
               num(s, "rid"), num(s, "sample"), BY_STR_ARG(text(s, "state")), BY_STR_ARG(tenant),
               num(s, "priority"), num(s, "age_s"), num(s, "prompt_tokens"),
               num(s, "cached_tokens"), num(s, "computed_tokens"), num(s, "output_tokens"),
               num(s, "max_tokens"));
    }
}

static void draw_tenants(const struct by_json *d) {
    printf("\n%-16s %10s %8s %8s %9s %10s %10s %10s %9s %9s\n", "tenant", "counter", "running",
           "waiting", "requests", "prompt", "cached", "output", "queue s", "compute s");
    for (EACH(t, d, "tenants")) {
        struct by_str name = by_str_sub(text(t, "tenant"), 0, 16);
        printf("%-16.*s %10.0f %8.0f %8.0f %9.0f %10.0f %10.0f %10.0f %9.1f %9.1f\n",
               BY_STR_ARG(name.n ? name : BY_STR("(none)")), num(t, "counter"), num(t, "running"),
               num(t, "waiting"), num(t, "requests"), num(t, "prompt_tokens"),
               num(t, "cached_tokens"), num(t, "output_tokens"), num(t, "queue_s"),
               num(t, "compute_s"));
    }
    printf("(" BY_STR_FMT ")\n", BY_STR_ARG(text(d, "tenants_note")));
}

static void draw_tree(const struct by_json *tree) {
    double asked = num(tree, "prompt_tokens");
    printf("\ntree: %.0f runs, pages of %.0f tokens; %.0f of %.0f prompt tokens came from it "
           "(%.1f %%), %.0f evicted\n",
           num(tree, "nodes"), num(tree, "page_size"), num(tree, "cached_tokens"), asked,
           asked > 0 ? 100 * num(tree, "cached_tokens") / asked : 0, num(tree, "evicted_tokens"));
    uint32_t i_replica = 0;
    for (EACH(r, tree, "replicas")) {
        if (num(r, "states") > 0)
            printf("replica %u: %.0f states are kept to start from\n", i_replica, num(r, "states"));
        i_replica++;
    }
    printf("%10s %10s %8s  %-12s %-12s %s\n", "tokens", "from root", "hits", "replicas", "space",
           "begins with");
    for (EACH(n, tree, "top")) {
        char replicas[64] = "";
        for (EACH(r, n, "replicas"))
            snprintf(replicas + strlen(replicas), sizeof replicas - strlen(replicas), "%.0f ",
                     by_json_f64(r));
        struct by_str space = by_str_sub(text(n, "space"), 0, 12);
        printf("%10.0f %10.0f %8.0f  %-12s %-12.*s ", num(n, "tokens"), num(n, "depth_tokens"),
               num(n, "hits"), replicas, BY_STR_ARG(space));
        for (EACH(id, n, "ids"))
            printf("%.0f ", by_json_f64(id));
        printf("…\n");
    }
}

static int draw(struct by_err *err) {
    static const struct by_json_limits limits = {.bytes_max = ANSWER_MAX,
                                                 .depth_max = ANSWER_DEPTH};
    struct by_json *d = NULL;
    int rc = by_json_parse(&d, by_buf_str(&inspect.json), &limits, err);
    if (rc) return rc;
    draw_head(d);
    draw_replicas(d);
    draw_samples(d, "waiting");
    draw_samples(d, "running");
    draw_samples(d, "paused");
    draw_tenants(d);
    if (by_json_get(d, "cache")) draw_tree(by_json_get(d, "cache"));
    by_json_free(d);
    return 0;
}

int cmd_inspect(int argc, char **argv) {
    static const struct by_options_program program = {
        .name = "banyan inspect",
        .who = BY_FOR_INSPECT,
        .summary = "shows the queue, the running requests, the replicas, the tenants and the "
                   "prefix tree of a running server; with --json as they come",
        .usage = "[--run-dir DIR | --scheduler-endpoint tcp://HOST:PORT --curve-key-file FILE] "
                 "[--json]"};
    struct by_options o;
    struct by_err err = {0};
    char endpoint[512];
    bool as_json = cmd_take_word(&argc, argv, "--json");
    by_log_init(&(struct by_log_options){.process = "inspect", .level = BY_LOG_ERROR});
    by_proc_init("inspect");
    by_buf_init(&inspect.json, ANSWER_MAX);
    int rc = by_options_parse(&o, &program, argc, argv, &err);
    if (rc) goto done;
    rc = find_endpoint(&o, endpoint, sizeof endpoint, &err);
    if (!rc) rc = ask(endpoint, o.curve_key_file, &err);
    if (!rc && inspect.code)
        rc = by_fail(&err, inspect.code, BY_STR_FMT, BY_STR_ARG(by_buf_str(&inspect.json)));
    if (!rc && as_json) printf(BY_STR_FMT "\n", BY_STR_ARG(by_buf_str(&inspect.json)));
    if (!rc && !as_json) rc = draw(&err);
    by_options_release(&o);
done:
    if (rc) cmd_fail("inspect", err.text);
    wire_close(inspect.wire);
    by_loop_free(inspect.loop);
    by_buf_release(&inspect.json);
    return rc ? 1 : 0;
}
