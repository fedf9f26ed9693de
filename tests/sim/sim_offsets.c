/* sim_offsets.c - a stop string, a stop id and the length limit at every pair of offsets around one position, and a kill of
 * each process at every moment between: the sample ends where the first of them says, with nothing past it. */
#include "tests/sim/sim.h"

#include "common/base/mem.h"

enum { MIDDLE = 8, REACH = 2, ITEMS_MAX = 4000 };

/* A prompt whose undisturbed output has, around MIDDLE, ids that are letters and come only once. */
static void find_prompt(struct sim *s, struct sim_client *c, uint64_t *z) {
    for (;;) {
        memset(c->stop, 0, sizeof c->stop);
        c->n_stops = 0;
        c->n_prompt = 5 + (uint32_t)(by_rand_next(z) % 20);
        for (uint32_t i = 0; i < c->n_prompt; i++)
            c->prompt[i] = SIM_ID_FIRST + (uint32_t)(by_rand_next(z) % SIM_IDS);
        c->sampling = (struct msg_sampling){.n = 1,
                                            .max_new_tokens = SIM_OUT_MAX,
                                            .seed = by_rand_next(z) >> 8,
                                            .ignore_eos = true,
                                            .logprob_start = -1};
        expect(s, c, 0, &c->want[0]);
        bool ok = true;
        for (uint32_t i = 0; i <= MIDDLE + REACH && ok; i++) {
            ok = c->want[0].ids[i] < SIM_ID_FIRST + 94; /* one letter each */
            for (uint32_t k = 0; k < i && ok; k++)
                ok = c->want[0].ids[k] != c->want[0].ids[i];
        }
        if (ok) return;
    }
}

/* The stop string ends with the id at MIDDLE, the stop id is d_id behind it, the last id allowed d_len behind it. */
static void place(struct sim *s, struct sim_client *c, int d_id, int d_len) {
    uint64_t z = 77;
    find_prompt(s, c, &z);
    const struct sim_want *w = &c->want[0];
    struct by_str piece = by_tokenizer_bytes(s->shared->tokenizer, w->ids[MIDDLE]);
    struct by_str before = by_tokenizer_bytes(s->shared->tokenizer, w->ids[MIDDLE - 1]);
    snprintf(c->stop[0], sizeof c->stop[0], BY_STR_FMT BY_STR_FMT, BY_STR_ARG(before),
             BY_STR_ARG(piece)); /* across a token border */
    c->stop_strs[0] = by_str_of(c->stop[0]);
    c->n_stops = 1;
    c->stop_id = w->ids[MIDDLE + d_id];
    c->sampling.stop_ids = (struct msg_u32s){&c->stop_id, 1};
    c->sampling.ignore_eos = false;
    c->sampling.max_new_tokens = (uint32_t)(MIDDLE + 1 + d_len);
}

/* One run; returns how many items it took. kill_at 0: nobody dies. */
static uint64_t run(const struct sim_shared *shared, int d_id, int d_len, enum role victim,
                    uint64_t kill_at) {
    struct sim_options o = {.seed = 1, .no_faults = true};
    struct sim *s = by_alloc(sizeof *s);
    sim_open(s, shared, &o);
    s->is_quiet = true; /* nobody asks but this one */
    s->cfg.core.depth = 2;
    s->cfg.is_encoder = false;
    s->cfg.core.n_replicas = s->cfg.world = s->cfg.n_detoks = s->cfg.n_tokenizers = 1;
    sim_start(s);
    while (sim_next(s) && s->now < 3 * SIM_S)
        ;
    struct sim_proc *router = sim_proc(s, ROLE_ROUTER, 0);
    struct sim_client *c = &router->router->client[0];
    place(s, c, d_id, d_len);
    client_ask(s, router, 0); /* what comes is compared with sim_expect.c's end */
    uint64_t from = s->n_items;
    while (c->entry && s->n_items < from + ITEMS_MAX && sim_next(s)) {
        if (kill_at && s->n_items == from + kill_at)
            fault_kill(s, sim_proc(s, victim, 0), 3 * SIM_MS);
    }
    if (c->entry) sim_fail(s, "stop id at %+d, length at %+d: it never ended", d_id, d_len);
    uint64_t n = s->n_items - from;
    if (kill_at) sim_settle(s);
    sim_close(s);
    by_free(s);
    return n;
}

void offsets_run(const struct sim_shared *shared, uint32_t *n_runs) {
    static const enum role victims[] = {ROLE_SCHEDULER, ROLE_DETOKENIZER, ROLE_GPU_WORKER,
                                        ROLE_TOKENIZER_WORKER};
    *n_runs = 0;
    for (int d_id = -REACH; d_id <= REACH; d_id++) {
        for (int d_len = -REACH; d_len <= REACH; d_len++) {
            uint64_t n = run(shared, d_id, d_len, ROLE_SCHEDULER, 0);
            for (uint32_t v = 0; v < BY_COUNTOF(victims); v++) {
                for (uint64_t at = 1; at <= n; at++, ++*n_runs)
                    run(shared, d_id, d_len, victims[v], at);
            }
        }
    }
}
