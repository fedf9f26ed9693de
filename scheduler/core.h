/* core.h - the scheduler without sockets, clock or files: frames and `now` in, frames out.
 *
 *     up / message / down ─▶ ┌──────────────────────────────────────────┐ ─▶ sink.send(peer, frame)
 *     now                 ─▶ │ book · waiting ▶ replicas (slots, pages) │ ─▶ sink.end(peer, why)
 *     core_next_step      ─▶ │              one radix tree              │
 *                            └──────────────────────────────────────────┘
 *
 * The shell hands in everything that came, then calls core_next_step, which builds the steps that can go out, until it
 * says that there are no more; it must call again when core_next_timer says. The same calls in the same order give the
 * same frames: the simulator and `banyan trace` live on that.
 * Always: nothing outside is trusted: a frame that makes no sense is counted, logged once and dropped, or ends its
 * peer's session; core_check() holds between any two calls.
 * Owner: one thread. */
#ifndef SCHEDULER_CORE_H
#define SCHEDULER_CORE_H

#include "common/base/err.h"
#include "proto/msg.h"
#include "scheduler/policy.h"
#include "scheduler/radix.h"

struct core;
/* What a chat's next turn computes again at most of the last one's output, where the model carries a state along. */
enum { CORE_STATE_EVERY = 64 };

struct core_options {
    uint32_t n_replicas;           /* --dp-size */
    uint32_t max_running;          /* sequences of one replica */
    uint32_t max_queued;           /* requests */
    uint32_t chunked_prefill_size; /* prompt tokens of one step */
    uint32_t depth;                /* steps in flight of one replica: 1 or 2 */
    double conservativeness;       /* of the estimate of tokens to come */
    enum policy_kind policy;
    /* under POLICY_PRIORITY: a waiting one this much above a running one takes its place */
    int64_t preemption_gap;
    enum radix_policy eviction;
    bool no_radix_cache;
    uint32_t state_every; /* output tokens from one kept state to the next; 0: CORE_STATE_EVERY */
    uint64_t queue_timeout_ms, run_timeout_ms; /* of every request; 0: none */
    uint64_t
        held_max; /* bytes that the process may hold (mem.h); 0: any number, as when a trace is replayed */
};

/* Frames are borrowed for the call: encode or copy. Neither may call back into the core. */
struct core_sink {
    void (*send)(void *ctx, uint32_t peer, const struct msg *m);
    /* that session is over; the core has let go of it */
    void (*end)(void *ctx, uint32_t peer, const char *why);
    void *ctx;
};

struct core *core_new(const struct core_options *o, const struct core_sink *sink);
void core_free(struct core *c);

/* May this peer have a session? Fills err with why not. */
BY_MUST_USE int core_admit(const struct core *c, const struct msg_hello *hello, struct by_err *err);
/* A session begins and ends. `peer` is a number of the caller's choice, not 0, not used again while it stands. */
void core_on_up(struct core *c, uint64_t now_ns, uint32_t peer, const struct msg_hello *hello);
void core_on_message(struct core *c, uint64_t now_ns, uint32_t peer, const struct msg *m);
void core_on_down(struct core *c, uint64_t now_ns, uint32_t peer, const char *why);
/* Timers that are due, then one round of building: a step for each replica that can take one. True if one went out:
 * call again until false. */
bool core_next_step(struct core *c, uint64_t now_ns);
uint64_t core_next_timer(const struct core *c); /* UINT64_MAX: none */

bool core_is_ready(const struct core *c, const char **why); /* why: one sentence, static */
bool core_is_idle(const struct core *c);                    /* no request is live */
void core_drain(struct core *c); /* from now on new requests are refused; running ones end */
bool core_check(const struct core *c);
/* All of it as text, for a person who looks at a failing seed. */
void core_show(const struct core *c, struct by_buf *out);

#endif
