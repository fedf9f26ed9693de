/* core_world.h - a whole server around the scheduler core, made of arrays: router, detokenizer, workers. For tests.
 *
 *     submit ─▶ core ─step─▶ worker: KV memory of hashes ─step_done─▶ core ─tokens─▶ log of each sample
 *
 * The worker keeps, for every position of every page, a hash of the ids up to there, and picks the next token from the
 * hash it reads back through the page table. So a page that was reused too early, matched wrongly, or filled by a
 * failed step gives another token than world_expect, which hashes the ids themselves.
 * Always: core_check after each call into the core, and what was delivered never changes.
 * Owner: one test. */
#ifndef TESTS_UNIT_CORE_WORLD_H
#define TESTS_UNIT_CORE_WORLD_H

#include "common/base/rand.h"
#include "scheduler/core.h"
#include "tests/unit/test.h"

enum {
    W_REPLICAS = 2,
    W_SLOTS = 64,
    W_PAGES_MAX = 4096,
    W_STEPS = 4,
    W_REQS = 512,
    W_SAMPLES = 4,
    W_OUT = 512,
    W_VOCAB = 97,
    W_ROUTER = 1,
    W_TOKENIZER = 2,
    W_DETOK = 3,
    W_WORKER = 10,
    W_IDS = 2048,
    W_EMBED = 3,
    W_STATES = 64,
};

struct w_slot {
    bool is_used, is_void;
    uint32_t ids[W_IDS], n_ids, n_done;
    uint32_t pages[W_IDS], n_pages;
    uint32_t sample, n_prompt;
    int32_t logprob_start;
    uint32_t vector;
    uint64_t seed;
    uint64_t state; /* hash of the ids so far */
};
struct w_state { /* one that was kept */
    uint64_t hash;
    uint32_t n; /* tokens; 0: none */
};
struct w_worker {
    uint32_t peer, n_free_pages;
    uint32_t epoch;         /* 0 after a kill: the next life gets one of its own */
    const char *weights_id; /* in its hello; NULL: none */
    /* what it says that it can hold: 0, all that the world's can, and W_IDS */
    uint32_t n_pages, context_len;
    struct msg_update update; /* the last one it was told */
    bool is_up;
    uint64_t last_step;
    struct w_slot slot[W_SLOTS];
    uint64_t *kv; /* [n_pages * page_size] */
    struct w_state kept[W_STATES];
    struct by_buf frames[W_STEPS]; /* steps to do, encoded */
    uint32_t first, n;
};
struct w_sample {
    uint32_t ids[W_OUT], n;
    uint32_t finish, matched_id, n_cached, n_prompt, n_prompt_logprobs;
    bool is_open;
    float vector[W_EMBED];
    uint32_t n_vector;
};
struct w_req {
    bool is_failed, is_acked;
    int32_t code;
    uint32_t retry_after_ms;
    uint32_t ids[W_IDS], n_ids;
    struct msg_sampling sampling;
    struct msg_routing routing;
    uint64_t first_token_ns;
    uint32_t stop_ids[2];
    struct w_sample sample[W_SAMPLES];
};
struct world {
    struct core *core;
    struct core_options opt;
    struct by_arena arena;
    uint64_t now, epoch, detok_epoch;
    uint32_t page_size, n_pages, n_slots, step_tokens;
    uint32_t n_states; /* not 0: the model carries a state along */
    uint32_t detok;    /* peer; a new one each life */
    struct w_worker worker[W_REPLICAS];
    struct w_req *req;                            /* [W_REQS] by rid */
    bool is_encoder, pools_all, makes_no_vectors; /* what the workers say of the model, and do */
    bool is_ready, is_deaf /* the detokenizer loses frames */;
    uint64_t deadly_rid; /* kills the detokenizer that reads its tokens; 0: nothing does */
    bool is_detok_dead, is_slow_to_read;
    struct msg_name asked; /* "have you read all before this?", the last time of … */
    uint32_t n_asked;
    uint32_t n_cancels, n_tokens_frames, n_steps, n_rows, n_prefill_tokens;
    uint32_t rows_max, tokens_max; /* of one step */
    uint32_t n_keeps, n_starts;    /* states kept, and admissions from one */
    uint64_t n_allocs;             /* in the core while it steps */
    char answer[65536];
    int32_t answer_code;
};

static inline uint64_t w_hash(uint64_t h, uint32_t id) {
    uint64_t z = h ^ (id + UINT64_C(0x9E3779B97F4A7C15));
    return by_rand_next(&z);
}
/* The next token behind ids of hash h. */
static inline uint32_t w_pick(uint64_t h, uint64_t seed, uint32_t sample) {
    uint64_t z = h ^ seed ^ (sample * UINT64_C(0x100000001B3));
    return (uint32_t)(by_rand_next(&z) % W_VOCAB);
}

/* core_world.c: the server around the core */
/* Everything but page_size, n_pages, n_slots, step_tokens and opt has a default. */
void world_start(struct world *w);
void world_stop(struct world *w);
/* the core's sink: ctx is the world */
void w_send(void *ctx, uint32_t peer, const struct msg *m);
void w_end(void *ctx, uint32_t peer, const char *why);
void w_up(struct world *w, uint32_t peer, enum role role, uint64_t epoch);
void w_detok_up(struct world *w);
void w_detok_kill(struct world *w); /* its open samples are forgotten with it */
bool w_detok_read(struct world *w); /* it has read all before a question; false: there is none */
void w_ask(struct world *w, const char *what, const char *json); /* w->answer is what came */
bool w_step(struct world *w);                                    /* builds all that can go out */
void w_run(struct world *w);        /* until nobody has anything to do */
void w_show(const struct world *w); /* for a person who looks at a failing seed */

/* core_worker.c: the worker of hashes */
void w_worker_up(struct world *w, uint32_t replica);
void w_worker_kill(struct world *w, uint32_t replica);
/* Its oldest step is computed and answered. `code`: it fails as a whole. False: there is none. */
bool w_work(struct world *w, uint32_t replica, int32_t code);
void w_vector(uint64_t h, float *out /* [W_EMBED] */); /* of ids with that hash */

/* core_clients.c: what is asked, and what must come of it */
/* Prompt: `n_shared` ids that all prompts have in common, then ids of its own. */
struct w_req *w_prepare(struct world *w, uint32_t rid, uint32_t n_shared, uint32_t n_own,
                        uint32_t max_new);
void w_tokenized(struct world *w, uint32_t rid, const struct msg_resume *resume, uint32_t n_resume);
void w_submit(struct world *w, uint32_t rid, uint32_t n_shared, uint32_t n_own, uint32_t max_new);
struct w_req *w_embed(struct world *w, uint32_t rid, uint32_t n_shared, uint32_t n_own);
void w_router_says(struct world *w, enum msg_kind kind, uint32_t rid, uint32_t sample, uint32_t n,
                   bool is_final);
void w_finish(struct world *w, uint32_t rid, uint32_t sample, uint32_t n_output);
/* What an undisturbed run gives for this sample, and how it ends; returns how many ids. */
uint32_t world_expect(const struct w_req *q, uint32_t sample, uint32_t *out, uint32_t *finish);
void w_assert_whole(const struct world *w, uint32_t rid);
void w_assert_vector(const struct world *w, uint32_t rid);

#endif
