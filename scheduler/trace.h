/* trace.h - everything that went into the core, in a file; and the file into a core again.
 *
 *     banyan-trace 1 page … \n          the core's options, as key=value
 *     [kind u8][now_ns u64][peer u32][len u32][len bytes]*
 *      'U' a session begins: its hello    'M' a message    'D' it ends: why    'S' core_next_step was called
 *
 * The core is pure, so a replay does what the scheduler did: same frames out, in the same order, to the same peers. That is
 * how a bad hour in production becomes a test.
 * Always: numbers are little endian; a file that ends in the middle of a record (the writer was killed) is replayed up
 * to there; every length is checked before it is believed.
 * Owner: main.c. A trace holds prompts: it is written with mode 0600. */
#ifndef SCHEDULER_TRACE_H
#define SCHEDULER_TRACE_H

#include "scheduler/core.h"

struct trace;

BY_MUST_USE int trace_open(struct trace **out, const char *path, const struct core_options *o,
                           struct by_err *err);
void trace_close(struct trace *t); /* NULL is fine, as it is for all of these */
void trace_up(struct trace *t, uint64_t now_ns, uint32_t peer, const struct msg_hello *hello);
void trace_message(struct trace *t, uint64_t now_ns, uint32_t peer, const struct msg *m);
void trace_down(struct trace *t, uint64_t now_ns, uint32_t peer, const char *why);
void trace_step(struct trace *t, uint64_t now_ns); /* also hands the bytes to the system */

struct trace_summary {
    uint64_t n_ups, n_messages, n_downs, n_steps_asked; /* in */
    uint64_t n_frames, n_steps, n_tokens; /* out: frames, steps among them, output ids */
    uint64_t hash;                        /* of all frames out: two replays of one file agree */
    uint64_t span_ns;                     /* first to last event */
    bool is_cut;                          /* the last record is not whole */
};
/* Feeds the bytes of a trace into a new core. `check`: core_check after every event. */
BY_MUST_USE int trace_replay(struct by_str bytes, bool check, struct trace_summary *out,
                             struct by_err *err);

/* The records as text, a line each: seconds, peer, what. Prompts show their length only (msg_print). `line` is called with
 * each; its text is borrowed. */
BY_MUST_USE int trace_print(struct by_str bytes, void (*line)(void *ctx, struct by_str text),
                            void *ctx, struct by_err *err);

#endif
