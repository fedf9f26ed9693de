/* banyan-tokenizer-worker: a socket for routers, one to the scheduler, and the worker between them. */
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/options.h"
#include "common/base/proc.h"
#include "common/base/sandbox.h"
#include "common/net/loop.h"
#include "proto/between.h"
#include "tokenizer_worker/desk.h"
#include "tokenizer_worker/worker.h"

#include <stdio.h>

static struct shell {
    struct worker *worker;
    struct desk desk;
    struct by_loop *loop;
    struct between wires;
} shell;

/* ---- what the desk sends ---- */

static void generate(void *ctx, const struct msg_generate *m, struct msg *out) {
    (void)ctx;
    worker_generate(shell.worker, m, out);
}

static void answer(void *ctx, const struct msg_text_ask *m, struct msg *out) {
    (void)ctx;
    worker_text_ask(shell.worker, m, out);
}

static void send_to_router(void *ctx, void *router, const struct msg *m) {
    (void)ctx;
    wire_send(router, m);
}

static void send_to_scheduler(void *ctx, const struct msg *m) {
    (void)ctx;
    between_tell_scheduler(&shell.wires, m);
}

static void end_router(void *ctx, void *router, const char *why) {
    (void)ctx;
    wire_end(router, why);
}

/* ---- sessions ---- */

/* A timer that is due: the loop comes to it once it has seen to all sockets. */
static void read_large(void *ctx, uint64_t now) {
    (void)ctx;
    if (desk_later(&shell.desk)) by_loop_set_timer(shell.loop, now, read_large, NULL);
}

static void read_large_soon(void) {
    if (desk_has_more(&shell.desk)) by_loop_set_timer(shell.loop, by_now_ns(), read_large, NULL);
}

static void on_router_up(void *ctx, struct wire_peer *peer) {
    (void)ctx;
    by_info("router joined instance=%s", peer->instance);
    desk_router_up(&shell.desk, peer);
}

static void on_router_down(void *ctx, struct wire_peer *peer, const char *why) {
    (void)ctx;
    by_info("router left: %s instance=%s", why, peer->instance);
    desk_router_down(&shell.desk, peer);
    read_large_soon();
}

static void on_scheduler_up(void *ctx, struct wire_peer *peer) {
    (void)ctx;
    (void)peer;
    desk_scheduler_up(&shell.desk);
    read_large_soon();
}

static void on_scheduler_down(void *ctx, struct wire_peer *peer, const char *why) {
    (void)ctx;
    (void)peer;
    by_log(by_proc_loss_level(), "lost the scheduler: %s", why);
    desk_scheduler_down(&shell.desk);
}

static void on_router_msg(void *ctx, struct wire_peer *peer, const struct msg *m) {
    (void)ctx;
    if (m->kind == MSG_generate)
        desk_generate(&shell.desk, peer, &m->generate);
    else if (m->kind == MSG_reading)
        desk_reading(&shell.desk, peer, &m->reading);
    else if (m->kind == MSG_text_ask)
        desk_ask(&shell.desk, peer, &m->text_ask);
    read_large_soon();
}

static void on_scheduler_msg(void *ctx, struct wire_peer *peer, const struct msg *m) {
    (void)ctx;
    (void)peer;
    by_debug("the scheduler said %s, which nobody here expects", msg_kind_name(m->kind));
}

static int open_sockets(const struct by_options *o, struct by_err *err) {
    struct between_options b = {
        .role = ROLE_TOKENIZER_WORKER,
        .kind = "tokenizer",
        .routers = {.up = on_router_up, .msg = on_router_msg, .down = on_router_down},
        .scheduler = {.up = on_scheduler_up, .msg = on_scheduler_msg, .down = on_scheduler_down},
        .loop = shell.loop};
    return between_open(&shell.wires, &b, o, err);
}

int main(int argc, char **argv) {
    static const struct by_options_program program = {
        .name = "banyan-tokenizer-worker",
        .who = BY_FOR_TOKENIZER,
        .summary = "turns messages into prompts and prompts into token ids; `banyan serve` starts "
                   "it for you",
    };
    struct by_options o;
    struct by_err err = {0};
    by_proc_start(&o, &program, argc, argv);
    by_sandbox_enter(o.sandbox,
                     o.scheduler_endpoint || o.bind ? BY_SANDBOX_NETWORK : BY_SANDBOX_LOCAL);
    if (!o.model_path) by_die("--model-path is needed; `banyan serve` names it for you");
    struct worker_options wo = {.model_path = o.model_path,
                                .tokenizer_path = o.tokenizer_path,
                                .chat_template = o.chat_template,
                                .context_len = (uint32_t)o.context_length};
    if (worker_open(&shell.worker, &wo, &err)) by_die("%s", err.text);
    desk_init(&shell.desk, &(struct desk_options){.generate = generate,
                                                  .answer = answer,
                                                  .to_router = send_to_router,
                                                  .to_scheduler = send_to_scheduler,
                                                  .end_router = end_router});
    shell.loop = by_loop_new();
    if (open_sockets(&o, &err)) by_die("%s", err.text);
    by_notify("READY=1\nSTATUS=serving");
    by_info("ready instance=%s vocabulary=%u chat_template=%s", o.instance,
            worker_n_vocab(shell.worker), worker_has_template(shell.worker) ? "yes" : "none");
    by_loop_run(shell.loop);
    between_close(&shell.wires);
    by_proc_tidy(o.run_dir);
    desk_release(&shell.desk);
    by_loop_free(shell.loop);
    worker_close(shell.worker);
    by_options_release(&o);
    return 0;
}
