/* detok.h - the detokenizer's core: `tokens` in, `text` out. Messages and the time in, messages out; no socket.
 *
 *     request (router epoch, rid) ─▶ sample ─▶ stream_decode ─▶ stop ─▶ text(pos, offset)
 *
 *     OPEN ─ids─▶ OPEN ─last ids, or a stop string─▶ ENDED ─cancel, a minute, or too many─▶ forgotten
 *
 * Always: a sample's text is a function of its ids and its `textual` alone, so a replay (is_open) gives the same
 * bytes at the same offsets; positions follow one another: what came before is dropped, a gap is answered by `cancel`,
 * which makes the scheduler replay. Text for a router that is not here is not kept: when it comes, its requests are
 * replayed.
 * Owner: main.c, one thread. */
#ifndef DETOKENIZER_DETOK_H
#define DETOKENIZER_DETOK_H

#include "common/text/tokenizer.h"
#include "proto/msg.h"

enum {
    /* ended requests that are remembered, to tell late frames from unknown ones */
    DETOK_ENDED_MAX = 65536,
    DETOK_ENDED_S = 60,
};

struct detok_options {
    const struct by_tokenizer *t;
    /* false: that router is not here */
    bool (*to_router)(void *ctx, uint64_t epoch, const struct msg *m);
    void (*to_scheduler)(void *ctx, const struct msg *m);
    void *ctx;
};

struct detok;

struct detok *detok_new(const struct detok_options *o);
void detok_free(struct detok *d); /* NULL is fine */

void detok_on_tokens(struct detok *d, const struct msg_tokens *m, uint64_t now_ns);
/* All that came before is read, or it would not get here: the scheduler asks when it looks for what kills its reader. It is
 * not done if that request will be asked for again. */
void detok_on_reading(struct detok *d, const struct msg_reading *m);
/* the scheduler's: nothing more will come */
void detok_on_cancel(struct detok *d, const struct msg_name *name);
/* The router's. BY_EAGAIN: it misses a part, the scheduler shall replay. Else: it does not want this request. */
void detok_on_router_cancel(struct detok *d, const struct msg_cancel *m);
void detok_reset(struct detok *d); /* the scheduler's session is new */
/* Its session is new: what went into the one before may be lost, also where nobody has seen that one end. */
void detok_router_up(struct detok *d, uint64_t epoch);
void detok_router_down(struct detok *d, uint64_t epoch);
/* forgets old ended requests; call every second or so */
void detok_tick(struct detok *d, uint64_t now_ns);

size_t detok_n_open(const struct detok *d);     /* samples whose text goes on */
size_t detok_n_requests(const struct detok *d); /* ended ones included */
bool detok_check(const struct detok *d);

#endif
