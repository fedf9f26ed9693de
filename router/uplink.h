/* uplink.h - the router's side of the river: wires to the scheduler, the tokenizer workers and the detokenizers, on libuv.
 *
 *     submit ─generate─▶ tokenizer worker …            text ─▶ journal ─▶ news(entry, sample)
 *     scheduler: peers (who is there, is it ready) in; ack, cancel, ask out
 *
 * The wires, who is listed in `peers`, readiness and questions are here; who has which request, and who is asked again
 * when a process is lost, is carry.h.
 * Who was ready stays so for 10 s after a loss: new requests wait with the old ones for the process to be back. As long may
 * others take to find a new scheduler: until then a link that stands is kept, listed or not. One that cannot be opened, since no
 * file descriptor is left, is tried again each second.
 * Always: handlers are called from the loop, never from within submit.
 * Owner: the loop's thread. */
#ifndef ROUTER_UPLINK_H
#define ROUTER_UPLINK_H

#include "proto/msg.h"
#include "router/journal.h"

#include <uv.h>

struct uplink;

struct uplink_options {
    uv_loop_t *loop;
    const char *scheduler_endpoint, *key_file, *instance;
    uint64_t epoch;
    struct journal *journal;
    void (*news)(void *ctx, struct journal_entry *e, uint32_t sample); /* may remove e */
    /* must remove e */
    void (*failed)(void *ctx, struct journal_entry *e, const struct msg_failed *f);
    void (*settled)(void *ctx); /* the frames at hand have been taken: write what they brought */
    void (*ready_changed)(void *ctx, bool is_ready);
    void *ctx;
};

/* What the scheduler last said of itself; strings live in the uplink. */
struct uplink_state {
    bool is_ready;
    char why_not[256]; /* one sentence when not ready */
    struct msg_model model;
    struct msg_capacity capacity;
    uint64_t kv_tokens;
    uint32_t n_replicas;
};

BY_MUST_USE int uplink_open(struct uplink **out, const struct uplink_options *o,
                            struct by_err *err);
const struct uplink_state *uplink_state(const struct uplink *u);

void uplink_submit(struct uplink *u, struct journal_entry *e);
/* the client left; remove the entry afterwards */
void uplink_cancel(struct uplink *u, struct journal_entry *e);
void uplink_ack(struct uplink *u, struct journal_entry *e, uint32_t sample, bool is_final);
void uplink_pause(struct uplink *u, struct journal_entry *e, bool is_paused);

/* Questions: answer(ctx, code, json) is called once, with BY_EUNAVAILABLE when the process asked is lost. uplink_forget
 * makes sure that it is not called for ctx any more. */
typedef void uplink_answer(void *ctx, int code, struct by_str json);
void uplink_ask_scheduler(struct uplink *u, const char *what, struct by_str json,
                          uplink_answer *answer, void *ctx);
void uplink_ask_tokenizer(struct uplink *u, const char *what, struct by_str json,
                          uplink_answer *answer, void *ctx);
void uplink_forget(struct uplink *u, void *ctx);

#endif
