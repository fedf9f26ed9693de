/* seq.h - one sample of a request: a sequence of token ids that waits, computes and ends on its own.
 *
 *               ┌──────── retracted, worker lost ────────┐
 *               ▼                                        │
 *     NEW ▶ WAITING ──admitted──▶ PREFILL ──all but sampled──▶ DECODE ──▶ DONE
 *               │                    └──────┬───────────────────┘          ▲
 *               │                           ▼ rows still in flight         │
 *               │                        LEAVING ──────────────────────────┤ (or back to WAITING)
 *               └── the client reads too slowly: PAUSED (with its pages or without) ──┘
 *
 *     ids:  [ prompt ............ | output ....... ]         n_cached <= n_done <= n_sched
 *            0        n_cached                 n_total       n_done   KV is there (step_done came)
 *                        pages: n_pages * page_size >= n_sched        n_sched  KV is there or in flight
 *
 * While a step is in flight, n_pending of its tokens are sampled but not known yet: the sequence is then
 * n_total + n_pending long, and a decode row means "the one you sampled last".
 * Always: a state is a list, and only seq_move changes it; a sequence with rows in flight keeps its slot and pages.
 * Owner: the scheduler core, one thread. */
#ifndef SCHEDULER_SEQ_H
#define SCHEDULER_SEQ_H

#include "common/base/heap.h"
#include "common/base/list.h"
#include "scheduler/radix.h"
#include "proto/msg.h"

enum seq_state {
    SEQ_NEW,
    SEQ_WAITING, /* no slot, no pages */
    SEQ_PREFILL, /* has a slot; some known ids are not scheduled yet */
    SEQ_DECODE,  /* has a slot; one row a step */
    SEQ_PAUSED,  /* not wanted just now */
    SEQ_LEAVING, /* gives up its slot as soon as no row of it is in flight */
    SEQ_DONE,    /* only the log is kept, until the router has all of it */
    SEQ_N_STATES
};
enum { SEQ_NO_SLOT = UINT32_MAX, SEQ_KEEPS = 4 };

/* Who was computing the prefix of one that waits when that one was asked last, and how many ids both begin with: as long as
 * it is at it, nobody compares them again. It may be gone: the place tells by order and sample. */
struct seq_leader {
    uint64_t order; /* of its request */
    uint32_t sample, slot, n_common;
};

struct replica;
struct seq {
    struct by_list link; /* in the list of its state */
    struct req *req;
    struct by_list in_tenant;        /* while WAITING */
    struct by_heap_node in_priority; /* while WAITING, under that policy */
    uint64_t asked_round;            /* of the policy */
    struct seq_leader leader;        /* while WAITING (admit.c) */
    struct radix_mark mark; /* while WAITING: where its match ended when that was asked last */
    int32_t urgency; /* its priority, or that of the most urgent who waits for what it computes */
    enum seq_state state;
    enum seq_state leave_to;    /* LEAVING: WAITING, PAUSED or DONE */
    enum seq_state paused_from; /* PAUSED with a slot: PREFILL or DECODE */
    uint32_t sample;

    /* the log: prompt, then output */
    uint32_t *ids;
    size_t ids_cap;   /* bytes */
    uint32_t n_total; /* known ids */
    uint32_t n_max;   /* n_total never passes this: as many as are wanted, or fit where it runs */
    float *logprobs;  /* one an output id, when asked */
    size_t logprobs_cap;
    struct msg_top *tops; /* one an output id, when asked; data in the request's arena */
    size_t tops_cap;
    struct msg_top *id_tops;
    size_t id_tops_cap;
    struct msg_prompt_logprobs *prompts; /* as they came */
    size_t prompts_cap;
    uint32_t n_prompts, n_prompts_sent;
    uint32_t prompts_next;  /* prompt position up to which logprobs are known */
    struct msg_f32s vector; /* what was asked for in place of tokens, once it came; in the arena */

    uint32_t n_sent; /* output ids the detokenizer has got */
    bool is_opened;  /* it knows this sample */
    bool is_end_sent;
    uint32_t n_acked; /* output ids the router has got */
    enum finish finish;
    uint32_t matched_id;

    /* the place, while there is a slot */
    struct replica *replica;
    uint32_t slot; /* SEQ_NO_SLOT */
    uint32_t *pages;
    size_t pages_cap;
    uint32_t n_pages;
    struct radix_at at; /* the part of ids that is filed in the tree; the lock is ours */
    uint32_t n_cached, n_done, n_sched;
    uint32_t n_gone; /* n_sched as of the last step that was sent */
    /* Where its state is to be kept as steps pass by, ascending, beyond n_gone; where it was kept last, or it started (keep.c). */
    uint32_t keep_at[SEQ_KEEPS], n_keeps, kept_at;
    uint32_t rolled;       /* number of its rolling state … */
    uint64_t rolled_stamp; /* … as long as it is that one (states.h); 0: none */
    uint32_t from;         /* number of the state that it started from … */
    uint64_t from_stamp;   /* … as long as nobody else has: a chat's next turn; 0: none */
    uint32_t n_pending;    /* sampling rows in flight */
    uint32_t n_inflight;   /* steps in flight with rows of this sequence */
    bool is_void;          /* a step failed: what its rows in flight bring means nothing */
    uint32_t n_charged;    /* ids that its tenant has paid for */
    bool is_entering;      /* admitted in the step being built: its pages travel with the admit */
};

/* Moves s to the end of `list`, the list of state `to`. Asserts that the move is legal. */
void seq_move(struct seq *s, enum seq_state to, struct by_list *list);
const char *seq_state_name(enum seq_state state);
static inline bool seq_has_slot(const struct seq *s) {
    return s->slot != SEQ_NO_SLOT;
}
bool seq_check(const struct seq *s, uint32_t page_size);

#endif
