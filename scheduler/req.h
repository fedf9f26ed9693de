/* req.h - a named request: what the client asked, and its samples.
 *
 *     req (epoch, rid) ── sampling, textual, routing (in its arena)
 *        ├─ seq 0: prompt + output
 *        └─ seq n-1
 *
 * It lives until the router has acknowledged the end, or nobody wants it (cancelled, its router gone), and then until
 * the last of its rows in flight is back: `is_over` says the first half, n_open == 0 the second.
 * Always: n_open == samples not DONE.
 * Owner: the scheduler core, one thread. */
#ifndef SCHEDULER_REQ_H
#define SCHEDULER_REQ_H

#include "common/base/arena.h"
#include "common/base/heap.h"
#include "scheduler/book.h"
#include "scheduler/seq.h"
#include "scheduler/tenant.h"

struct req {
    struct msg_name name;
    struct life *life;       /* NULL once the name is over */
    struct by_list in_life;  /* in life.reqs */
    struct by_list in_detok; /* in the requests of its detokenizer, or in core.detokless */
    struct tenant *tenant;
    uint32_t detok; /* peer; 0: none yet */
    struct by_arena arena;
    struct msg_sampling sampling;
    struct msg_textual textual;
    struct msg_routing routing;
    struct seq *seqs; /* [n_seqs] */
    size_t seqs_cap;  /* bytes */
    uint32_t n_seqs, n_open;
    uint32_t n_prompt;
    uint32_t n_cached; /* prompt tokens from the cache at first admission */
    bool is_admitted;  /* that has happened */
    bool is_queued;    /* counts for --max-queued-requests */
    bool is_over;
    bool
        is_again; /* it came before, perhaps to a scheduler that is gone: its client may have more than is here */
    bool is_blamed;      /* scratch of retract_blame */
    uint32_t checked_by; /* core.n_models when it was found to suit the model; 0: not yet */
    /* replicas, a bit each, that were lost with rows of it in flight and are not back */
    uint64_t blamed_by;
    bool is_paused;
    /* steps lost with rows of this request in flight, since its last new token */
    uint32_t n_deaths;
    /* asked for by the detokenizer one soon after the other, since the router's last ack */
    uint32_t n_replays;
    uint64_t replayed_ns;     /* the last of them */
    uint32_t n_detoks_lost;   /* with it, since it was known to be read (deliver.c) */
    uint32_t n_detoks_killed; /* of them, while it alone was being read */
    bool is_unread;           /* sent alone, and not written: it waits until it is asked for */
    uint32_t n_retractions;
    uint32_t replica;  /* the last that a sample entered */
    uint64_t queue_us; /* from arrival to first admission */
    uint64_t order;    /* of arrival, over all routers */
    uint64_t arrived_ns;
    uint64_t due_ns;           /* the next of its deadlines; 0: none */
    struct by_heap_node timer; /* in core.timers while due_ns != 0 */
};

/* A request of n samples with its prompt in each log, all NEW. */
struct req *req_new(struct pool *pool, const struct msg_tokenized *m);
/* its sequences must be in no list and hold nothing */
void req_free(struct req *req, struct pool *pool);
static inline uint32_t req_n_output(const struct seq *s) {
    return s->n_total - s->req->n_prompt;
}
/* As long as its client wants each sample at most: prompt and output. */
uint32_t req_n_wanted(const struct req *req);
/* Room for n ids in all, so that the next ones cost no allocation. */
void req_reserve(struct pool *pool, struct seq *s, uint32_t n_ids);
/* One more output id. top and id_top may be NULL: nothing was reported for it. */
void req_push(struct pool *pool, struct seq *s, uint32_t id, float logprob,
              const struct msg_top *top, const struct msg_top *id_top);
/* Keeps the part of p that is new (positions from s->prompts_next on). */
void req_push_prompt(struct pool *pool, struct seq *s, const struct msg_prompt_logprobs *p);
/* The vector that its prompt came to: kept until the router has it. */
void req_set_vector(struct seq *s, const struct msg_f32s *values);
/* Has the sequence reached its end, judged by its last id and length? Sets finish and matched_id if so. */
bool req_check_end(struct seq *s);
/* Output beyond n_output ids is void. */
void req_truncate(struct seq *s, uint32_t n_output);

#endif
