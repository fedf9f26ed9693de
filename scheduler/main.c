/* main.c - banyan-scheduler: one socket that all others connect to, a clock, and the core.
 *
 * Every wake-up: all frames that came go into the core, then it builds what can go out. Nothing here decides. */
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/map.h"
#include "common/base/options.h"
#include "common/base/proc.h"
#include "common/base/sandbox.h"
#include "common/net/loop.h"
#include "proto/endpoint.h"
#include "proto/wire.h"
#include "scheduler/core.h"
#include "scheduler/trace.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

/* What the scheduler may hold for requests: this share of the memory, and so much at least. */
enum { HELD_SHARE = 8, HELD_LEAST = 256 * 1024 * 1024 };

static struct shell {
    struct core *core;
    struct wire *wire;
    struct by_loop *loop;
    struct by_map peers; /* number -> wire_peer */
    uint32_t last_peer;
    struct trace *trace; /* NULL: none is kept */
    bool was_ready;
} shell;

static void sink_send(void *ctx, uint32_t peer, const struct msg *m) {
    (void)ctx;
    struct wire_peer *to = by_map_get(&shell.peers, peer);
    if (to) wire_send(to, m);
}

static void sink_end(void *ctx, uint32_t peer, const char *why) {
    (void)ctx;
    struct wire_peer *to = by_map_remove(&shell.peers, peer);
    if (!to) return;
    to->user = NULL;
    wire_end(to, why);
}

static uint32_t number_of(const struct wire_peer *peer) {
    return (uint32_t)(uintptr_t)peer->user;
}

static int on_admit(void *ctx, const struct msg_hello *hello, struct by_err *err) {
    (void)ctx;
    return core_admit(shell.core, hello, err);
}

static void on_up(void *ctx, struct wire_peer *peer) {
    (void)ctx;
    struct msg_hello hello = {.role = peer->role,
                              .instance = by_str_of(peer->instance),
                              .epoch = peer->epoch,
                              .endpoint = by_str_of(peer->endpoint),
                              .model = peer->model,
                              .capacity = peer->capacity};
    if (++shell.last_peer == 0) ++shell.last_peer;
    peer->user = (void *)(uintptr_t)shell.last_peer;
    by_map_put(&shell.peers, shell.last_peer, peer);
    by_info("%s is here instance=%s", role_text(peer->role), peer->instance);
    uint64_t now = by_now_ns();
    trace_up(shell.trace, now, shell.last_peer, &hello);
    core_on_up(shell.core, now, shell.last_peer, &hello);
}

static void on_msg(void *ctx, struct wire_peer *peer, const struct msg *m) {
    (void)ctx;
    if (!peer->user) return;
    uint64_t now = by_now_ns();
    trace_message(shell.trace, now, number_of(peer), m);
    core_on_message(shell.core, now, number_of(peer), m);
}

static void on_down(void *ctx, struct wire_peer *peer, const char *why) {
    (void)ctx;
    bool is_alarm = peer->role == ROLE_GPU_WORKER; /* its requests wait for a place */
    by_log(is_alarm ? by_proc_loss_level() : BY_LOG_INFO, "%s is gone instance=%s why=%s",
           role_text(peer->role), peer->instance, why);
    if (!peer->user) return; /* the core ended it */
    by_map_remove(&shell.peers, number_of(peer));
    uint64_t now = by_now_ns();
    trace_down(shell.trace, now, number_of(peer), why);
    core_on_down(shell.core, now, number_of(peer), why);
    peer->user = NULL;
}

static void on_timer(void *ctx, uint64_t now_ns) {
    (void)ctx;
    (void)now_ns; /* being awake is enough: on_idle follows */
}

static void on_idle(void *ctx, uint64_t now_ns) {
    (void)ctx;
    do
        trace_step(shell.trace, now_ns);
    while (core_next_step(shell.core, now_ns));
    uint64_t due = core_next_timer(shell.core);
    by_loop_set_timer(shell.loop, due == UINT64_MAX ? 0 : BY_MAX(due, 1), on_timer, NULL);
    const char *why;
    bool is_ready = core_is_ready(shell.core, &why);
    if (is_ready == shell.was_ready) return;
    shell.was_ready = is_ready;
    by_notify(is_ready ? "STATUS=serving" : "STATUS=waiting for the other processes");
    if (is_ready)
        by_info("ready to serve");
    else
        by_info("not ready: %s", why);
}

static int core_options_from(const struct by_options *opt, struct core_options *out,
                             struct by_err *err) {
    *out = (struct core_options){
        .n_replicas = (uint32_t)opt->dp_size,
        .max_running = (uint32_t)opt->max_running_requests,
        .max_queued = (uint32_t)opt->max_queued_requests,
        .held_max = BY_MAX(by_proc_memory_max() / HELD_SHARE, (uint64_t)HELD_LEAST),
        .chunked_prefill_size =
            (uint32_t)BY_MIN(opt->chunked_prefill_size, opt->max_prefill_tokens),
        .depth = (uint32_t)opt->steps_in_flight,
        .conservativeness = opt->schedule_conservativeness,
        .preemption_gap = opt->priority_scheduling_preemption_threshold,
        .no_radix_cache = opt->disable_radix_cache,
        .queue_timeout_ms = (uint64_t)(opt->queue_timeout * 1000),
        .run_timeout_ms = (uint64_t)(opt->run_timeout * 1000),
    };
    if (!policy_parse(opt->schedule_policy, &out->policy))
        return by_fail(err, BY_EINVAL, "--schedule-policy %s: no such policy",
                       opt->schedule_policy);
    if (!radix_policy_parse(opt->radix_eviction_policy, &out->eviction))
        return by_fail(err, BY_EINVAL, "--radix-eviction-policy %s: no such policy",
                       opt->radix_eviction_policy);
    return 0;
}

static void replay(const char *path) {
    struct by_mapped file;
    struct by_err err;
    struct trace_summary sum;
    if (by_file_map(&file, path, &err) != 0) by_die("%s", err.text);
    struct by_str bytes = {(const char *)file.p, file.n};
    uint64_t from = by_now_ns();
    int rc = trace_replay(bytes, true, &sum, &err);
    by_file_unmap(&file);
    by_info("replayed sessions=%llu messages=%llu span_s=%.3f in_s=%.3f",
            (unsigned long long)sum.n_ups, (unsigned long long)sum.n_messages,
            (double)sum.span_ns / 1e9, (double)(by_now_ns() - from) / 1e9);
    by_info("it sent frames=%llu steps=%llu tokens=%llu hash=%016llx%s",
            (unsigned long long)sum.n_frames, (unsigned long long)sum.n_steps,
            (unsigned long long)sum.n_tokens, (unsigned long long)sum.hash,
            sum.is_cut ? " (the last record is cut off)" : "");
    if (rc) by_die("%s", err.text);
}

static void print_line(void *ctx, struct by_str text) {
    (void)ctx;
    fwrite(text.p, 1, text.n, stdout); /* what the person at `banyan trace` asked for */
    fputc('\n', stdout);
}

static void print(const char *path) {
    struct by_mapped file;
    struct by_err err;
    if (by_file_map(&file, path, &err) != 0) by_die("%s", err.text);
    int rc = trace_print((struct by_str){(const char *)file.p, file.n}, print_line, NULL, &err);
    by_file_unmap(&file);
    if (rc) by_die("%s", err.text);
}

/* A stop comes to all of us at once. The others, who would warn that the scheduler is lost, go first. */
static void let_others_leave(void) {
    enum { PATIENCE_MS = 100, TURN_MS = 10 };
    uint64_t now = by_now_ns(), until = now + PATIENCE_MS * BY_NS_PER_MS;
    int fds[WIRE_N_FDS];
    struct pollfd p[WIRE_N_FDS];
    wire_detach(shell.wire);
    wire_fds(shell.wire, fds);
    for (int i = 0; i < WIRE_N_FDS; i++)
        p[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    for (; shell.peers.n && now < until; now = by_now_ns()) {
        poll(p, WIRE_N_FDS, TURN_MS);
        wire_pump(shell.wire, by_now_ns());
    }
}

static void serve(const struct by_options *opt) {
    struct by_err err;
    struct core_options core_opt;
    struct endpoint at;
    if (endpoint_read(&at, opt, NULL, &err) != 0) by_die("%s", err.text);
    if (core_options_from(opt, &core_opt, &err) != 0) by_die("%s", err.text);
    /* banyan serve has it for us. A second scheduler would take the first one's socket away. */
    if (opt->run_dir && !opt->scheduler_endpoint && !getenv("BANYAN_PARENT") &&
        by_dir_lock(opt->run_dir, &err) != 0)
        by_die("--run-dir: one scheduler at a time: %s", err.text);
    if (opt->trace_file && trace_open(&shell.trace, opt->trace_file, &core_opt, &err) != 0)
        by_die("%s", err.text);
    struct core_sink sink = {.send = sink_send, .end = sink_end};
    shell.core = core_new(&core_opt, &sink);
    by_map_init(&shell.peers);
    shell.loop = by_loop_new();
    struct wire_options wire = {.endpoint = at.scheduler,
                                .key_file = opt->curve_key_file,
                                .is_bind = true,
                                .role = ROLE_SCHEDULER,
                                .instance = opt->instance,
                                .epoch = by_proc_epoch(),
                                .admit = on_admit,
                                .up = on_up,
                                .msg = on_msg,
                                .down = on_down};
    if (wire_open(&shell.wire, &wire, &err) != 0) by_die("%s", err.text);
    wire_attach(shell.wire, shell.loop);
    by_loop_set_idle(shell.loop, on_idle, NULL);
    by_notify("READY=1\nSTATUS=waiting for the other processes");
    by_info("listening endpoint=%s", wire_endpoint(shell.wire));
    by_loop_run(shell.loop);

    by_info("stopping");
    let_others_leave();
    wire_close(shell.wire);
    by_proc_tidy(opt->run_dir);
    by_map_clear(&shell.peers); /* what the core says from here on has nobody to go to */
    core_free(shell.core);
    trace_close(shell.trace);
    by_map_release(&shell.peers);
    by_loop_free(shell.loop);
}

int main(int argc, char **argv) {
    static const struct by_options_program program = {
        .name = "banyan-scheduler",
        .who = BY_FOR_SCHEDULER,
        .summary = "Decides who computes what, and when; holds the prefix tree.",
    };
    struct by_options opt;
    by_proc_start(&opt, &program, argc, argv);
    by_sandbox_enter(opt.sandbox, opt.scheduler_endpoint ? BY_SANDBOX_NETWORK : BY_SANDBOX_LOCAL);
    if (opt.print_trace)
        print(opt.print_trace);
    else if (opt.replay)
        replay(opt.replay);
    else
        serve(&opt);
    by_options_release(&opt);
    return 0;
}
