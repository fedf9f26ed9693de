/* core_state.h - what is behind core.h; only the core's own files see it.
 *
 *     core.c     frames, deadlines, ends of requests           admit.c    may this one enter now?
 *     peers.c    who is here, who may come in                  intake.c   what the others say about requests
 *     batch.c    builds a step, takes its result               retract.c  gives a place back, loses a replica
 *     deliver.c  log -> tokens frames, replays                 update.c   other weights for all workers
 *     keep.c     where a model's state is kept                 hold.c      which replica can hold one so long
 *
 * Always: each sequence is in the list of its state: WAITING, PAUSED and DONE here, the others in their replica.
 * Owner: the scheduler core, one thread. */
#ifndef SCHEDULER_CORE_STATE_H
#define SCHEDULER_CORE_STATE_H

#include "scheduler/core.h"
#include "scheduler/pin.h"
#include "scheduler/policy.h"
#include "scheduler/replica.h"
#include "scheduler/update.h"

/* After so many lost steps without a new token, a request runs alone; the next loss proves it guilty (DESIGN D5). */
enum { CORE_SUSPECT_DEATHS = 2, CORE_TOMB_MS = 600000 };
/* Prompt tokens that are worth waiting for, or keeping a state for, rather than computing them again. */
enum { CORE_SHARE_LEAST = 32 };
/* A lost worker, tokenizer worker or detokenizer may come back in this time, and all find a new scheduler: requests wait. */
enum { CORE_GRACE_MS = 10000 };

struct core_peer {
    uint32_t id;
    enum role role;
    struct by_list link; /* in core.peers, in the order they came */
    char instance[64];
    char endpoint[256];
    uint64_t epoch;
    uint32_t replica, rank; /* gpu workers */
    uint64_t update_due;    /* gpu workers: the update whose answer is awaited; 0: none */
    bool is_stale;          /* a gpu worker with former weights: it has no place yet */
    struct by_list reqs;    /* detokenizers: by req.in_detok */
    uint32_t n_reqs;
    struct req *probe;  /* detokenizers: who of reqs is sent alone; NULL: nobody */
    bool is_probe_sent; /* it was; else what was sent before it is still being read */
    uint32_t n_asked;   /* whether it is read: answers to come */
};

struct core_counts {
    uint64_t n_requests, n_refused, n_cancelled, n_retractions, n_preemptions, n_strange_frames;
    uint64_t prompt_tokens, cached_tokens, output_tokens;
};

struct core {
    struct core_options opt;
    struct core_sink sink;
    uint64_t now_ns, started_ns; /* as it was told of last, and first */
    struct pool pool;
    struct radix *tree; /* NULL until the first replica says its page size */
    uint32_t page_size;
    struct replica *replicas[RADIX_REPLICAS_MAX]; /* [opt.n_replicas] */
    uint32_t n_replicas_up;
    uint64_t served_ns; /* since then at least one is up */
    /* when the last replica, tokenizer worker or detokenizer went; 0: not lost */
    uint64_t ready_lost_ns;
    bool was_ready;

    struct by_list peers;
    struct by_map peer_by_id;
    bool peers_changed; /* routers are told at the end of the round */
    bool is_draining;

    /* Of the first replica since there was none, but for the longest context of any; strings: model_arena's. */
    struct msg_model model;
    struct by_arena model_arena;
    uint32_t n_models; /* that were learned so far */

    struct book book;
    struct by_list waiting, paused, done;
    uint32_t n_waiting; /* sequences */
    /* Whether each of them can be held was looked at, and must be again. */
    uint64_t looked_ns;
    bool must_look;
    uint32_t n_queued; /* requests that have not been admitted yet */
    struct tenants tenants;
    struct policy policy;
    struct by_list detokless; /* requests without a detokenizer */
    uint32_t n_probing;       /* detokenizers with a probe */
    /* requests whose name is over but that have rows in flight, by req.in_life */
    struct by_list over;
    struct by_list pins;
    uint32_t n_pins;
    uint64_t last_pin;
    struct by_heap timers; /* of requests, by due_ns */
    uint64_t next_order;
    uint32_t n_live;     /* requests not freed */
    uint32_t n_isolated; /* of them, suspects that must run alone */

    struct update update;

    double new_token_ratio;  /* of a request's max_new_tokens that admission expects to be used */
    double finish_ns;        /* between two samples' ends while there is work: moving average */
    uint64_t last_finish_ns; /* 0: none since there was nothing to do */
    struct core_counts counts;
};

/* core.c */
void core_see_time(struct core *c, uint64_t now_ns); /* as the shell tells it; never back */
void core_send_router(struct core *c, uint64_t epoch, const struct msg *m);
/* Ends a live request with an error: the router is told, the detokenizer forgets it. */
void core_fail(struct core *c, struct req *req, int code, const char *text);
/* Nobody wants it any more: places go, the log too. is_known: a late copy of it must not run. */
void core_drop(struct core *c, struct req *req, bool is_known);
/* it counts no more for --max-queued-requests */
void core_unqueue(struct core *c, struct req *req);
/* Would it hold more than it may, with so many bytes more? */
bool core_holds_too_much(const struct core *c, size_t more);
/* frees it when nobody needs it and nothing is in flight */
void core_req_changed(struct core *c, struct req *req);
void core_set_timer(struct core *c, struct req *req);
void core_strange(struct core *c, const struct core_peer *peer, const char *what);
void core_clear_suspect(struct core *c, struct req *req);
/* its finish is set: the place goes, the log stays */
void core_seq_ended(struct core *c, struct seq *s);

/* peers.c */
struct core_peer *core_peer(const struct core *c, uint32_t id); /* NULL: gone */
void core_end_peer(struct core *c, struct core_peer *peer, const char *why);
void peers_tell(struct core *c); /* routers: who is here, and whether all that is needed is */
/* Who was needed and left had its time to come back: the server is not ready. Due at peers_next_due, UINT64_MAX: never. */
void peers_expire(struct core *c);
uint64_t peers_next_due(const struct core *c);

/* intake.c: what routers, tokenizer workers and detokenizers say about requests */
void intake_tokenized(struct core *c, struct core_peer *from, const struct msg_tokenized *m);
void intake_ack(struct core *c, struct core_peer *from, const struct msg_ack *m);
void intake_cancel(struct core *c, struct core_peer *from, const struct msg_cancel *m);
void intake_finish(struct core *c, struct core_peer *from, const struct msg_finish *m);
void intake_pause(struct core *c, struct core_peer *from, const struct msg_name *name,
                  bool is_paused);
/* Does it suit the model, whatever its length? Answers 0 at once until a model is known. */
BY_MUST_USE int intake_check(struct core *c, struct req *req, struct by_err *err);

/* admit.c */
/* Takes waiting sequences into the step that is being built, while there is room for `*budget` prompt tokens, which falls by
 * what they take; returns how many. */
uint32_t admit_waiting(struct core *c, struct replica *r, uint32_t *budget);
/* If a suspect waits: lets it in alone as soon as nothing is in flight. True: nobody else may join this step. */
bool admit_suspect(struct core *c, struct replica *r, uint32_t budget);
void admit_enqueue(struct core *c, struct seq *s); /* to WAITING, in order of arrival */
void admit_dequeue(struct core *c, struct seq *s); /* it is about to leave WAITING */
/* Ids of s that this replica has in the tree and may be used. Changes nothing but its mark. */
uint32_t admit_n_cached(const struct core *c, const struct replica *r, struct seq *s);
void admit_ratio_decay(struct core *c);
void admit_ratio_bump(struct core *c, const struct replica *r);

/* hold.c */
/* As long as s can become on r, up or not; 0: r cannot hold it, and the next token if one is wanted. */
uint32_t hold_longest(const struct replica *r, const struct seq *s);
bool hold_here(const struct core *c, const struct seq *s); /* can one that is up? */
/* Can another replica than its own, here, lost or still to come? One that is lost for long, while others serve, can hold only
 * who may have begun. */
bool hold_elsewhere(const struct core *c, const struct seq *s);
/* If none can, s, which waits, ends: with what it has, or an error. True: it did; its request may be gone. */
bool hold_or_end(struct core *c, struct seq *s);
void hold_look(struct core *c); /* asks that of all who wait, when it may have changed */
/* when time alone changes who can go where; UINT64_MAX: never */
uint64_t hold_next_due(const struct core *c);

/* batch.c */
bool batch_build(struct core *c, struct replica *r); /* true: a step was sent */
void batch_done(struct core *c, struct replica *r, struct core_peer *peer,
                const struct msg_step_done *m);
/* Prompt tokens of s that go into the step being built, at most `budget`; 0 when no page is to be had. */
uint32_t batch_prefill(struct core *c, struct replica *r, struct seq *s, uint32_t budget);
void batch_file(struct core *c, struct seq *s); /* whole computed pages become matchable */

/* keep.c */
/* s has been admitted, and the tree has so many pages of its prompt: its state will be kept in these places. */
void keep_plan(const struct core *c, struct seq *s, uint32_t n_matched);
/* Where within the first n_common tokens another sequence will find a state of o, which computes them: o is asked to keep
 * one if it has not come too far. 0: nowhere. */
uint32_t keep_meet(const struct core *c, struct seq *o, uint32_t n_common);
void keep_put(const struct core *c, struct replica *r); /* into the step that is about to be sent */
/* A row's step came back, well or not. */
void keep_landed(struct core *c, struct seq *s, const struct flight_keep *keeps, uint32_t n);
void keep_void(struct replica *r, const struct flight_keep *keeps, uint32_t n);

/* retract.c */
/* s gives its slot up, now or when its rows in flight are back, and goes to `to`: WAITING, PAUSED or DONE. */
void retract_leave(struct core *c, struct seq *s, enum seq_state to);
/* one flight with rows of s is over; s may be freed */
void retract_landed(struct core *c, struct seq *s);
/* One sequence of r gives way: a paused one, or the last in the policy's order. True if its pages are free now. */
bool retract_one(struct core *c, struct replica *r);
/* Nobody is about to leave r, and a paused one keeps its place: the one that is paused longest gives it up. True if it is
 * free now. */
bool retract_has_paused(const struct replica *r);
bool retract_paused(struct core *c, struct replica *r);
void retract_blame(struct core *c, const struct flight *f);
void retract_replica_lost(struct core *c, struct replica *r);
/* The replica is back: had its process died, or had it only lost its session? */
void retract_verdict(struct core *c, struct replica *r);

/* dump.c */
void dump_ask(struct core *c, struct core_peer *from, const struct msg_ask *m);

/* deliver.c */
void deliver_new(struct core *c, struct seq *s); /* what the detokenizer has not got */
/* from the start: a replay */
void deliver_all(struct core *c, struct seq *s, uint32_t n_delivered);
void deliver_assign(struct core *c, struct req *req); /* picks a detokenizer, if there is one */
void deliver_unassign(struct core *c, struct req *req);
/* A detokenizer is gone, and its requests are about to go to others. Returns the one that kills whoever reads it, or NULL. */
struct req *deliver_lost(struct core *c, struct core_peer *p);
void deliver_read(struct core *c, struct core_peer *p, const struct msg_reading *m);
/* The detokenizer lost track of it. False: that happened too often. */
BY_MUST_USE bool deliver_again(struct core *c, struct req *req);

#endif
