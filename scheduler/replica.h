/* replica.h - one worker group as the scheduler sees it: its ranks, pages, slots, and the steps in flight.
 *
 *     ranks  [0] peer 7  [1] peer 9        up when all have said hello
 *     slots  [0] seq  [1] -  [2] seq       the worker mirrors this table; step frames carry the changes
 *     flight step 41: rows → step 42: rows     at most `depth`; step_done comes back in order
 *
 * The build area holds the step being made; its arrays grow to their high-water mark and stay.
 * Always: a slot is free, or its sequence's; n_flights <= depth; a flight's rows point to sequences with a slot.
 * Owner: the scheduler core, one thread. */
#ifndef SCHEDULER_REPLICA_H
#define SCHEDULER_REPLICA_H

#include "scheduler/req.h"

enum {
    REPLICA_RANKS_MAX = 64,
    REPLICA_DEPTH_MAX = 2,
    REPLICA_SLOTS_MAX = 65536,
    REPLICA_PAGES_MAX = 1 << 24,
    REPLICA_STATES_MAX = 65536
};

struct flight_row {
    struct seq *seq;
    uint32_t n_tokens, n_keeps;
    bool is_sampling;
};
struct flight_keep { /* a state that the step keeps: behind `at` tokens of its row's sequence */
    uint32_t at, number;
    bool is_rolling;
};
struct flight {
    uint64_t step, sent_ns;
    struct flight_row *rows; /* [n_slots] */
    uint32_t n_rows;
    struct flight_keep *keeps; /* [n_states], in the order of the rows */
    uint32_t n_keeps;
};

struct replica_build {
    struct flight *flight; /* the one being filled */
    struct msg_admit *admits;
    uint32_t n_admits; /* [n_slots] at most */
    uint32_t *append_slots, *append_pages;
    uint32_t n_appends;
    size_t appends_cap;                             /* bytes, of each */
    uint32_t *row_slots, *row_tokens, *row_samples; /* [n_slots] */
    uint32_t *keep_slots, *keep_at, *keep_states;   /* [n_states] */
    uint32_t n_tokens;                              /* rows of this step, in tokens */
    uint32_t n_prefill;                             /* of them, prompt tokens */
};

struct replica {
    uint32_t index;
    bool is_up;
    uint64_t lost_ns; /* when it was lost last */
    /* What all ranks together can hold, the longest sequence among it; lost, of its last life. */
    struct msg_capacity capacity;
    uint32_t context_len;
    char device[128];                  /* of the first rank that came */
    uint32_t ranks[REPLICA_RANKS_MAX]; /* peers; 0: not here */
    uint32_t n_ranks, world;
    uint64_t epochs[REPLICA_RANKS_MAX]; /* of the ranks' lives, the last ones known */
    uint32_t n_blamed;                  /* suspects of the last loss */
    bool has_died; /* a rank is back in another life than the one that was lost */

    struct pages *pages;
    struct states *states; /* NULL: the model has none, or nothing is reused */
    uint32_t n_slots;
    struct seq **slots;   /* [n_slots] */
    uint32_t *free_slots; /* stack */
    uint32_t n_free_slots;
    uint32_t *freed; /* slots the worker has not been told about */
    uint32_t n_freed;

    struct by_list prefill, decode, leaving;
    uint32_t n_running; /* PREFILL + DECODE */

    uint64_t step; /* last one sent */
    struct flight flights[REPLICA_DEPTH_MAX];
    uint32_t first_flight, n_flights;
    struct replica_build build;
    struct req *solo;  /* a suspect that runs alone */
    uint64_t crc_step; /* the last step whose mirror a rank has summed up … */
    uint32_t crc;      /* … and what it said; the others must say the same */

    uint64_t n_steps, n_steps_failed, n_tokens, compute_us;
    double tokens_per_s;           /* generated in the last second of work */
    uint64_t rate_from_ns, rate_n; /* how many since then, for the next one */
    uint32_t n_pinned;             /* pages that pins lock */
};

struct replica *replica_new(uint32_t index);
void replica_free(struct replica *r);
/* All ranks are here: make tables of the size that `capacity` says. */
void replica_open(struct replica *r, uint32_t n_slots, uint32_t n_states);
/* The group is lost: the tables go. No sequence may have a slot. */
void replica_close(struct replica *r);
static inline struct flight *replica_flight(struct replica *r, uint32_t i) { /* 0: the oldest */
    return &r->flights[(r->first_flight + i) % REPLICA_DEPTH_MAX];
}
void replica_take_slot(struct replica *r, struct seq *s);
void replica_give_slot(struct replica *r, struct seq *s);
void replica_generated(struct replica *r, uint64_t now_ns, uint32_t n_tokens);
double replica_rate(const struct replica *r,
                    uint64_t now_ns); /* tokens generated a second, of late */
/* Its oldest step takes many times as long as its steps do from then on: it hangs, for all that is known. UINT64_MAX: never. */
uint64_t replica_late_ns(const struct replica *r);
bool replica_check(const struct replica *r);

#endif
