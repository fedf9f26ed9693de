/* sim.h - a whole server in one thread: every process's core, on a clock and a bus that a seed drives.
 *
 *     client ─ router ─▶ tokenizer worker ─▶ scheduler ─▶ gpu worker (hashes)      real: journal, carry, desk, worker,
 *        ▲       ▲                            │    ▲           │                         core, detok
 *        │       └──────── detokenizer ◀──────┘    └───────────┘                   played: sockets, sessions, the GPU, time
 *
 * Everything that happens is an item on one heap, ordered by time and then by birth; handling one may put others there.
 * Frames are encoded when they are sent and decoded when they arrive. The same seed gives the same run, so a failure
 * names its seed and comes back.
 *
 *     sim_bus.c      links, sessions, frames; what can happen to them      sim_proc.c    the shells around the cores
 *     sim_gpu.c      KV memory of hashes, and what poisons it              sim_client.c  who asks, and what must come back
 *     sim_expect.c   the undisturbed run                                   sim_fault.c   what goes wrong, and when
 *     sim_check.c    what must hold after every item                       sim_offsets.c stops, ends and kills, placed
 *
 * Always: core_check, desk_check, detok_check and carry_check hold after each item of their process.
 * Owner: one seed. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include <stdio.h>

#include "common/base/err.h"
#include "common/base/heap.h"
#include "common/base/list.h"
#include "common/base/rand.h"
#include "common/text/tokenizer.h"
#include "detokenizer/detok.h"
#include "router/carry.h"
#include "scheduler/core.h"
#include "scheduler/trace.h"
#include "tokenizer_worker/desk.h"
#include "tokenizer_worker/worker.h"

enum {
    SIM_ROUTERS = 2,
    SIM_TOKENIZERS = 2,
    SIM_DETOKS = 2,
    SIM_REPLICAS = 2,
    SIM_RANKS = 2,
    SIM_PROCS = 1 + SIM_ROUTERS + SIM_TOKENIZERS + SIM_DETOKS + SIM_REPLICAS * SIM_RANKS,
    SIM_LINKS = 128,
    SIM_CLIENTS = 4, /* of each router */
    SIM_SAMPLES = 3,
    SIM_PROMPT_MAX = 160,
    SIM_OUT_MAX = 24,
    SIM_TEXT_MAX = 4096,
    SIM_SLOTS_MAX = 16,
    SIM_PAGES_MAX = 256,
    SIM_PAGE_SIZE_MAX = 8,
    SIM_STATES_MAX = 8,
    SIM_SEQ_MAX = SIM_PROMPT_MAX + SIM_OUT_MAX + 8,
    SIM_STEPS_MAX = 8, /* waiting at a worker; more than the scheduler may have in flight */
    /* the ids that the model writes: letters, and bytes that make half characters */
    SIM_ID_FIRST = 3,
    SIM_IDS = 128,
    SIM_EMBED = 4,
};
#define SIM_MS UINT64_C(1000000)
#define SIM_S UINT64_C(1000000000)

struct sim;

/* ---- links ---- */

struct sim_end {
    struct sim_proc *proc;
    uint64_t life; /* of the process that this end belongs to; 0: the binder has not seen a hello */
    bool is_up, is_ending;
    uint64_t session;
    uint64_t seq_out, seq_in;
    uint64_t arrives; /* the last frame sent from here: later ones do not overtake it */
    char why[80];
};
/* A connector in one of its lives, and whom it connects to: end[0] connects, end[1] binds. */
struct sim_link {
    bool is_used;
    bool is_closed;  /* the connector is gone or has let go; the binder does not know yet */
    uint32_t number; /* never 0, never used again: what the cores call their peer */
    struct sim_end end[2];
    uint32_t attempt;
    bool is_listed;
};

/* ---- items ---- */

enum sim_kind {
    ITEM_FRAME, /* arrives at l->end[side] */
    ITEM_COPY,  /* is sent once more from l->end[side] */
    ITEM_DOWN, /* l->end[side] sees that the connection is gone, or hears nothing any more; with arg: that the other end has ended
                  the session */
    ITEM_CONNECT, /* l->end[0] says hello */
    ITEM_TIMER,   /* the process asked to be called */
    ITEM_WORK,    /* a gpu worker has computed a step */
    ITEM_CLIENT,  /* client `arg` of the router does something */
    ITEM_PROC_N,  /* those above belong to a process: while it is stopped, they wait */
    ITEM_FAULT,   /* something goes wrong */
    ITEM_WAKE,    /* SIGCONT */
    ITEM_START,   /* a process that died is back */
};
struct sim_item {
    struct by_heap_node node;
    struct by_list link; /* in an inbox, or among the unused */
    enum sim_kind kind;
    uint64_t at, order;
    struct sim_proc *proc;
    uint64_t life; /* of proc, when the item was made */
    struct sim_link *l;
    uint32_t number; /* of l */
    uint32_t side, arg;
    uint64_t session, seq;
    struct by_buf frame;
};

/* ---- processes ---- */

struct sim_slot {
    bool is_used, is_void;
    uint32_t ids[SIM_SEQ_MAX], n_ids, n_done;
    uint32_t pages[SIM_SEQ_MAX], n_pages;
    uint32_t sample, n_prompt;
    int32_t logprob_start;
    uint32_t vector; /* enum vector: wanted in place of tokens */
    uint64_t seed;
    uint64_t state; /* hash of the ids so far, carried along */
};
struct sim_state { /* one that was kept */
    uint64_t hash;
    uint32_t n; /* tokens; 0: none */
};
struct sim_worker {
    uint32_t replica, rank;
    uint32_t n_pages, context_len; /* what it can hold in this life */
    uint64_t last_step, slow;      /* slow: how many times longer a step takes */
    struct sim_slot slot[SIM_SLOTS_MAX];
    uint64_t kv[SIM_PAGES_MAX * SIM_PAGE_SIZE_MAX];
    struct sim_state kept[SIM_STATES_MAX];
    struct by_buf steps[SIM_STEPS_MAX];
    uint32_t first, n;
    bool is_working;
};

struct sim_want { /* the undisturbed run of one sample */
    uint32_t ids[SIM_OUT_MAX], n;
    uint32_t finish, matched_id;
    char text[SIM_TEXT_MAX];
    uint32_t text_n;
    char matched[64];
};
enum sim_special {
    SIM_PLAIN,
    SIM_POISON /* kills its worker */,
    SIM_NAN /* cannot be computed */,
    SIM_UNREADABLE /* kills its tokenizer worker */,
    SIM_UNWRITABLE /* kills its detokenizer */
};
struct sim_client {
    struct journal_entry *entry; /* NULL: thinks */
    uint64_t asked_ns, news_ns;
    uint32_t prompt[SIM_PROMPT_MAX], n_prompt;
    char prompt_text[64];
    struct msg_sampling sampling;
    uint32_t stop_id;
    char stop[2][16];
    struct by_str stop_strs[2];
    uint32_t n_stops;
    bool no_stop_trim;
    enum sim_special special;
    bool is_paused, has_timeout;
    uint64_t n_requests;
    /* of the whole server, when it asked */
    uint64_t n_aborts, n_deaths, n_reader_deaths, n_scheduler_lives;
    uint32_t n_checked[SIM_SAMPLES];
    struct sim_want want[SIM_SAMPLES];
};
struct sim_router {
    struct journal journal;
    struct carry carry;
    uint64_t rejoin_ns; /* until then others may not have found a new scheduler; 0: over */
    struct sim_client client[SIM_CLIENTS];
};

struct sim_proc {
    struct sim *sim;
    enum role role;
    uint32_t index;
    uint64_t epoch; /* 0: dead */
    uint64_t stopped_until;
    bool is_stopped;
    bool is_dying;        /* of what it reads: it says nothing more, and is gone after the item */
    struct by_list inbox; /* items that came while it was stopped */
    uint64_t timer_at;    /* of the ITEM_TIMER that counts */
    struct core *core;
    struct trace *trace;
    struct desk desk;
    struct detok *detok;
    struct sim_router *router;
    struct sim_worker *worker;
};

/* ---- the world ---- */

struct sim_shared { /* the same for all seeds: opened once */
    struct by_tokenizer *tokenizer;
    struct worker *tokenizer_worker;
};
struct sim_options {
    uint64_t seed;
    uint32_t n_events;
    const char *trace; /* where the scheduler's lives go; NULL: nowhere */
    bool is_verbose, no_faults;
};
struct sim_sum { /* over many seeds */
    uint64_t n_items, n_requests, n_done, n_failed, n_faults, n_dropped_frames, ns;
    uint64_t n_keeps, n_starts; /* states kept, and admissions that started from one */
};
struct sim_config { /* drawn from the seed */
    struct core_options core;
    uint32_t page_size, n_pages, n_slots, step_tokens, world, n_detoks, n_tokenizers;
    uint64_t think_ns, delay_ns;
    uint32_t fault_every; /* items */
    bool has_poison;
    bool is_encoder, pools_all; /* of the model: no texts; embeddings of every position */
    uint32_t n_states;          /* not 0: its layers carry a state along */
    bool is_uneven;             /* the second replica has another size in each life */
};
struct sim {
    struct sim_options opt;
    struct sim_config cfg;
    const struct sim_shared *shared;
    uint64_t z, now, order, sessions, epochs;
    uint32_t n_links_ever, n_ending;
    struct by_heap items;
    struct by_list unused;
    struct sim_proc proc[SIM_PROCS];
    struct sim_link link[SIM_LINKS];
    struct by_arena arena; /* of the frame in hand */
    struct by_buf frame;
    bool is_quiet; /* nothing more goes wrong, nobody asks anew */
    uint64_t partition_until[SIM_PROCS];
    uint64_t calm_since; /* UINT64_MAX: something is broken just now */
    uint64_t n_items, n_requests, n_done, n_failed, n_dropped_frames, n_faults;
    uint64_t n_aborts, n_deaths /* of gpu workers */, n_reader_deaths, n_scheduler_lives;
    uint64_t n_keeps, n_starts;
    bool
        is_blind; /* a scheduler waited in vain for the larger replica's first hello: long ones may have ended */
};

FILE *sim_out(void); /* for what a person shall see */
BY_NORETURN BY_PRINTF(2, 3) void sim_fail(const struct sim *s, const char *fmt, ...);
static inline uint64_t sim_below(struct sim *s, uint64_t n) {
    return n ? by_rand_next(&s->z) % n : 0;
}
static inline bool sim_one_in(struct sim *s, uint64_t n) {
    return sim_below(s, n) == 0;
}

/* sim.c */
/* A failure names the seed and ends the process. */
void sim_run(const struct sim_shared *shared, const struct sim_options *o, struct sim_sum *sum);
void sim_sum_add(struct sim_sum *sum, const struct sim_sum *one);
void sim_open(struct sim *s, const struct sim_shared *shared, const struct sim_options *o);
void sim_start(struct sim *s);
void sim_close(struct sim *s);
bool sim_is_used(const struct sim *s, const struct sim_proc *p); /* by this seed */
bool sim_next(struct sim *s);   /* handles one item; false: there is none */
void sim_settle(struct sim *s); /* everything is made whole; all that is owed must come */
struct sim_proc *sim_proc(struct sim *s, enum role role, uint32_t index);

/* sim_bus.c */
struct sim_item *bus_post(struct sim *s, enum sim_kind kind, struct sim_proc *p, uint64_t delay_ns);
struct sim_link *bus_open(struct sim *s, struct sim_proc *from, struct sim_proc *to);
void bus_close(struct sim *s, struct sim_link *l); /* the connector lets go */
void bus_send(struct sim *s, struct sim_link *l, uint32_t side, const struct msg *m);
/* takes effect after the item */
void bus_end(struct sim *s, struct sim_link *l, uint32_t side, const char *why);
void bus_finish_ending(struct sim *s, struct sim_proc *p);
void bus_handle(struct sim *s, struct sim_item *it); /* FRAME, COPY, DOWN, CONNECT */
void bus_cut(struct sim *s, struct sim_link *l);     /* both ends see it, each in its time */
void bus_proc_died(struct sim *s, struct sim_proc *p);
void bus_proc_stopped(struct sim *s, struct sim_proc *p, uint64_t ns);
struct sim_link *bus_find(struct sim *s, uint32_t number);
/* The link between from (a connector) and to, while it stands; NULL. */
struct sim_link *bus_between(struct sim *s, const struct sim_proc *from, const struct sim_proc *to);

/* sim_proc.c: what the shells do */
void proc_start(struct sim *s, struct sim_proc *p);
void proc_die(struct sim *s, struct sim_proc *p);
int proc_admit(struct sim *s, struct sim_link *l, const struct msg_hello *h, struct by_err *err);
void proc_up(struct sim *s, struct sim_link *l, uint32_t side, const struct msg_hello *h);
void proc_down(struct sim *s, struct sim_link *l, uint32_t side, const char *why, bool is_gone);
void proc_message(struct sim *s, struct sim_link *l, uint32_t side, const struct msg *m);
void proc_handle(struct sim *s, struct sim_item *it); /* TIMER, WORK, CLIENT */
void proc_idle(struct sim *s, struct sim_proc *p);    /* after each item of it */
void proc_hello(struct sim *s, const struct sim_link *l, struct msg_hello *out);

/* sim_gpu.c    */
void gpu_born(struct sim *s, struct sim_worker *w);  /* a new life */
void gpu_reset(struct sim *s, struct sim_worker *w); /* a new session */
void gpu_take(struct sim *s, struct sim_proc *p, struct sim_link *l, const struct msg_step *m);
/* l may be NULL: nobody to tell */
void gpu_work(struct sim *s, struct sim_proc *p, struct sim_link *l);
void gpu_poison(struct sim *s); /* pages that the scheduler holds free */
uint64_t gpu_hash(uint64_t h, uint32_t id);
uint32_t gpu_pick(uint64_t h, uint64_t seed, uint32_t sample);
void gpu_vector(uint64_t h, float *out); /* [SIM_EMBED] */

/* sim_client.c */
void client_act(struct sim *s, struct sim_proc *router, uint32_t i);
void client_ask(struct sim *s, struct sim_proc *router, uint32_t i); /* with what is filled in */
void client_news(struct sim *s, struct sim_proc *router, struct journal_entry *e, uint32_t sample);
void client_failed(struct sim *s, struct sim_proc *router, struct journal_entry *e,
                   const struct msg_failed *f);

/* sim_expect.c */
void expect(const struct sim *s, const struct sim_client *c, uint32_t sample, struct sim_want *out);
void expect_text(const struct sim *s, const struct sim_client *c, const struct journal_entry *e,
                 const struct journal_sample *j);

/* sim_fault.c */
void fault_draw(struct sim *s);
void fault_stop(struct sim *s, struct sim_proc *p, uint64_t ns);
void fault_wake(struct sim *s, struct sim_proc *p);
void fault_kill(struct sim *s, struct sim_proc *p, uint64_t down_ns);
bool fault_is_calm(const struct sim *s);

/* sim_check.c */
void check_after(struct sim *s, struct sim_proc *p);
void check_awake(struct sim *s, const struct core *c); /* when it has no step to send any more */
void check_settled(struct sim *s);
bool check_is_settled(struct sim *s);

/* sim_offsets.c */
void offsets_run(const struct sim_shared *shared, uint32_t *n_runs);

#endif
