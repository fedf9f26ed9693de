/* main.c - banyan-detokenizer: a socket for routers, one to the scheduler, a tokenizer, and the core between them.
 *
 * It says hello to the scheduler with the endpoint that routers find in `peers`. */
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/map.h"
#include "common/base/options.h"
#include "common/base/proc.h"
#include "common/base/sandbox.h"
#include "common/modelfile/model_dir.h"
#include "common/net/loop.h"
#include "detokenizer/detok.h"
#include "proto/between.h"

#include <stdio.h>

enum { TICK_MS = 1000 };

static struct shell {
    struct by_tokenizer *tokenizer;
    struct detok *detok;
    struct by_loop *loop;
    struct between wires;
    struct by_map routers; /* epoch -> wire_peer */
    bool has_tick;
} shell;

/* ---- what the core sends ---- */

static bool send_to_router(void *ctx, uint64_t epoch, const struct msg *m) {
    (void)ctx;
    struct wire_peer *router = by_map_get(&shell.routers, epoch);
    if (!router) return false;
    wire_send(router, m);
    return true;
}

static void send_to_scheduler(void *ctx, const struct msg *m) {
    (void)ctx;
    between_tell_scheduler(&shell.wires, m);
}

/* ---- what comes ---- */

static void on_router_up(void *ctx, struct wire_peer *peer) {
    (void)ctx;
    by_map_put(&shell.routers, peer->epoch, peer);
    by_info("router joined instance=%s", peer->instance);
    detok_router_up(shell.detok, peer->epoch);
}

static void on_router_down(void *ctx, struct wire_peer *peer, const char *why) {
    (void)ctx;
    if (by_map_get(&shell.routers, peer->epoch) != peer) return;
    by_map_remove(&shell.routers, peer->epoch);
    by_info("router left instance=%s why=%s", peer->instance, why);
    detok_router_down(shell.detok, peer->epoch);
}

static void on_router_msg(void *ctx, struct wire_peer *peer, const struct msg *m) {
    (void)ctx;
    if (m->kind == MSG_cancel && m->cancel.name.epoch == peer->epoch)
        detok_on_router_cancel(shell.detok, &m->cancel);
}

static void on_scheduler_up(void *ctx, struct wire_peer *peer) {
    (void)ctx;
    (void)peer;
    by_info("scheduler found");
    detok_reset(shell.detok);
}

static void on_scheduler_down(void *ctx, struct wire_peer *peer, const char *why) {
    (void)ctx;
    (void)peer;
    by_log(by_proc_loss_level(), "scheduler lost why=%s", why);
    detok_reset(shell.detok);
}

static void on_scheduler_msg(void *ctx, struct wire_peer *peer, const struct msg *m) {
    (void)ctx;
    (void)peer;
    if (m->kind == MSG_tokens)
        detok_on_tokens(shell.detok, &m->tokens, by_now_ns());
    else if (m->kind == MSG_cancel)
        detok_on_cancel(shell.detok, &m->cancel.name);
    else if (m->kind == MSG_reading)
        detok_on_reading(shell.detok, &m->reading);
}

static void on_tick(void *ctx, uint64_t now_ns) {
    (void)ctx;
    shell.has_tick = false; /* on_idle follows */
    detok_tick(shell.detok, now_ns);
}

/* With nothing to forget it sleeps until frames come: an idle process stays idle. */
static void on_idle(void *ctx, uint64_t now_ns) {
    (void)ctx;
    if (shell.has_tick || !detok_n_requests(shell.detok)) return;
    shell.has_tick = true;
    by_loop_set_timer(shell.loop, now_ns + TICK_MS * BY_NS_PER_MS, on_tick, NULL);
}

/* ---- start ---- */

static int open_tokenizer(const struct by_options *o, struct by_err *err) {
    const char *path = o->tokenizer_path ? o->tokenizer_path : o->model_path;
    struct by_model_dir *dir = NULL;
    if (!path) return by_fail(err, BY_EINVAL, "which model? give --model-path");
    int rc = by_model_dir_open_text(&dir, path, err);
    if (!rc) rc = by_tokenizer_open_cached(&shell.tokenizer, dir, err);
    by_model_dir_close(dir);
    return rc;
}

static int open_sockets(const struct by_options *o, struct by_err *err) {
    struct between_options b = {
        .role = ROLE_DETOKENIZER,
        .kind = "detokenizer",
        .routers = {.up = on_router_up, .msg = on_router_msg, .down = on_router_down},
        .scheduler = {.up = on_scheduler_up, .msg = on_scheduler_msg, .down = on_scheduler_down},
        .loop = shell.loop};
    return between_open(&shell.wires, &b, o, err);
}

static void close_all(void) {
    between_close(&shell.wires);
    detok_free(shell.detok);
    by_loop_free(shell.loop);
    by_tokenizer_close(shell.tokenizer);
    by_map_release(&shell.routers);
}

int main(int argc, char **argv) {
    static const struct by_options_program program = {
        .name = "banyan-detokenizer",
        .who = BY_FOR_DETOKENIZER,
        .summary = "turns token ids into text and finds stop strings"};
    struct by_options o;
    struct by_err err;
    by_proc_start(&o, &program, argc, argv);
    by_sandbox_enter(o.sandbox,
                     o.scheduler_endpoint || o.bind ? BY_SANDBOX_NETWORK : BY_SANDBOX_LOCAL);
    if (open_tokenizer(&o, &err)) by_die("%s", err.text);
    by_map_init(&shell.routers);
    shell.detok = detok_new(&(struct detok_options){
        .t = shell.tokenizer, .to_router = send_to_router, .to_scheduler = send_to_scheduler});
    shell.loop = by_loop_new();
    if (open_sockets(&o, &err)) by_die("%s", err.text);
    by_loop_set_idle(shell.loop, on_idle, NULL);
    by_notify("READY=1");
    by_info("ready instance=%s vocabulary=%u", o.instance, by_tokenizer_n_vocab(shell.tokenizer));
    by_loop_run(shell.loop);
    close_all();
    by_proc_tidy(o.run_dir);
    by_options_release(&o);
    return 0;
}
