/* sim_client.c - who asks what, and what must come back: the router's part of a request's life (request.c), with every
 * byte held against the undisturbed run. */
#include "tests/sim/sim.h"

enum { ACK_EVERY = 4, STARVED_S = 120 };

static struct sim_client *client_of(struct sim_proc *router, const struct journal_entry *e) {
    return &router->router->client[e->index];
}

/* ---- asking ---- */

/* A chat's next turn: what was said and answered, and a little more. */
static bool draw_turn(struct sim *s, struct sim_client *c) {
    uint32_t n_own = 1 + (uint32_t)sim_below(s, 12), n_said = c->want[0].n;
    if (!c->n_requests || !sim_one_in(s, 3) || c->n_prompt + n_said + n_own > SIM_PROMPT_MAX)
        return false;
    c->prompt_text[0] = '\0';
    memcpy(c->prompt + c->n_prompt, c->want[0].ids, n_said * sizeof *c->prompt);
    c->n_prompt += n_said;
    for (uint32_t i = 0; i < n_own; i++)
        c->prompt[c->n_prompt++] = SIM_ID_FIRST + (uint32_t)sim_below(s, SIM_IDS);
    return true;
}

static void draw_prompt(struct sim *s, struct sim_client *c) {
    static const char *const texts[] = {"Hello, world!", "the the the", "a", "Once upon a time"};
    uint32_t n_shared = sim_one_in(s, 3) ? 0 : (uint32_t)sim_below(s, SIM_PROMPT_MAX / 2);
    uint32_t n_own = 1 + (uint32_t)sim_below(s, sim_one_in(s, 4) ? SIM_PROMPT_MAX / 2 : 12);
    uint32_t family = (uint32_t)sim_below(s, 3);
    c->prompt_text[0] = '\0';
    if (sim_one_in(s, 8))
        snprintf(c->prompt_text, sizeof c->prompt_text, "%s", texts[sim_below(s, 4)]);
    c->n_prompt = n_shared + n_own;
    for (uint32_t i = 0; i < c->n_prompt; i++)
        c->prompt[i] =
            SIM_ID_FIRST +
            (i < n_shared ? i * 7 + family * 31 : (uint32_t)sim_below(s, 1000)) % SIM_IDS;
}

static void draw_sampling(struct sim *s, struct sim_client *c) {
    c->special = SIM_PLAIN;
    if (s->cfg.has_poison && sim_one_in(s, 12))
        c->special = (enum sim_special)(SIM_POISON + sim_below(s, 4));
    c->stop_id = SIM_ID_FIRST + (uint32_t)sim_below(s, SIM_IDS);
    c->sampling = (struct msg_sampling){
        .n = sim_one_in(s, 5) ? 1 + (uint32_t)sim_below(s, SIM_SAMPLES) : 1,
        .max_new_tokens = 1 + (uint32_t)sim_below(s, SIM_OUT_MAX),
        .min_new_tokens = sim_one_in(s, 4) ? (uint32_t)sim_below(s, 4) : 0,
        .seed = (uint64_t)c->special << 56 | (by_rand_next(&s->z) >> 8),
        .repetition_penalty = 1,
        .ignore_eos = sim_one_in(s, 3),
        .stop_ids = {&c->stop_id, sim_one_in(s, 2)},
        .logprobs = sim_one_in(s, 4),
        .logprob_start = sim_one_in(s, 8) ? (int32_t)sim_below(s, 8) : -1,
    };
}

/* Now and then, or always when the model makes nothing else: not a text but a vector. */
static void draw_want(struct sim *s, struct sim_client *c) {
    if (!s->cfg.is_encoder && !sim_one_in(s, 8)) return;
    struct msg_sampling *g = &c->sampling;
    *g = (struct msg_sampling){
        .n = 1, .vector = VECTOR_EMBEDDING, .seed = g->seed, .logprob_start = -1};
}

/* Stop strings are cut from what the undisturbed run writes, so that they are found; half of them are not. */
static void draw_stops(struct sim *s, struct sim_client *c) {
    c->n_stops = 0;
    c->no_stop_trim = sim_one_in(s, 4);
    if (!sim_one_in(s, 2)) return;
    expect(s, c, 0, &c->want[0]);
    uint32_t n_stops = 1 + (uint32_t)sim_below(s, 2);
    for (uint32_t i = 0; i < n_stops; i++) {
        uint32_t at = (uint32_t)sim_below(s, c->want[0].text_n + 1), n = 0;
        char *stop = c->stop[c->n_stops];
        while (n < 1 + i * 2 && at + n < c->want[0].text_n && c->want[0].text[at + n] > 0)
            stop[n] = c->want[0].text[at + n], n++;
        stop[n] = '\0';
        c->n_stops += n > 0;
    }
    for (uint32_t i = 0; i < c->n_stops; i++)
        c->stop_strs[i] = by_str_of(c->stop[i]);
}

static void read_prompt(struct sim *s, struct sim_client *c, uint32_t max_new) {
    struct msg_generate g = {.text = by_str_of(c->prompt_text),
                             .sampling = {.n = 1, .max_new_tokens = max_new},
                             .has_max_new_tokens = true};
    struct msg out;
    worker_generate(s->shared->tokenizer_worker, &g, &out);
    if (out.kind != MSG_tokenized) sim_fail(s, "'%s' has no tokens", c->prompt_text);
    c->n_prompt = out.tokenized.ids.n;
    memcpy(c->prompt, out.tokenized.ids.p, c->n_prompt * sizeof *c->prompt);
}

void client_ask(struct sim *s, struct sim_proc *router, uint32_t i) {
    static const char *const tenants[] = {"", "a", "b", "c"};
    struct sim_client *c = &router->router->client[i];
    struct msg_generate g = {.sampling = c->sampling, .has_max_new_tokens = true, .clock_s = 1};
    if (c->prompt_text[0]) {
        read_prompt(s, c, c->sampling.max_new_tokens);
        g.text = by_str_of(c->prompt_text);
    } else {
        g.ids = (struct msg_u32s){c->prompt, c->n_prompt};
    }
    c->sampling.logprob_start = BY_MIN(c->sampling.logprob_start, (int32_t)c->n_prompt);
    g.sampling = c->sampling; /* a start behind the prompt is refused */
    g.textual = (struct msg_textual){.stop = {c->stop_strs, c->n_stops},
                                     .skip_special_tokens = true,
                                     .no_stop_trim = c->no_stop_trim};
    g.routing = (struct msg_routing){.tenant = by_str_of(tenants[sim_below(s, 4)]),
                                     .extra_key = sim_one_in(s, 5) ? BY_STR("salt") : BY_STR(""),
                                     .priority = (int32_t)sim_below(s, 6)};
    c->has_timeout = !s->is_quiet && s->cfg.fault_every && sim_one_in(s, 12);
    if (c->has_timeout) g.routing.run_timeout_ms = 1 + (uint32_t)sim_below(s, 2000);
    for (uint32_t k = 0; k < c->sampling.n; k++) {
        expect(s, c, k, &c->want[k]);
        c->n_checked[k] = 0;
    }
    c->asked_ns = c->news_ns = s->now;
    c->is_paused = false;
    c->n_aborts = s->n_aborts;
    c->n_deaths = s->n_deaths;
    c->n_reader_deaths = s->n_reader_deaths;
    c->n_scheduler_lives = s->n_scheduler_lives;
    c->entry = journal_add(&router->router->journal, &g, router, i);
    s->n_requests++;
    carry_submit(&router->router->carry, c->entry);
}

/* ---- ending ---- */

static void think(struct sim *s, struct sim_proc *router, uint32_t i) {
    if (!s->is_quiet) bus_post(s, ITEM_CLIENT, router, sim_below(s, s->cfg.think_ns))->arg = i;
}

static void end(struct sim *s, struct sim_proc *router, struct sim_client *c) {
    struct journal_entry *e = c->entry;
    uint32_t i = e->index;
    c->entry = NULL;
    journal_remove(&router->router->journal, e);
    think(s, router, i);
}

static void hang_up(struct sim *s, struct sim_proc *router, struct sim_client *c) {
    carry_cancel(&router->router->carry, c->entry);
    end(s, router, c);
}

void client_act(struct sim *s, struct sim_proc *router, uint32_t i) {
    struct sim_client *c = &router->router->client[i];
    struct carry *carry = &router->router->carry;
    if (!c->entry) {
        if (s->is_quiet) return;
        if (!draw_turn(s, c)) draw_prompt(s, c);
        draw_sampling(s, c);
        draw_want(s, c);
        if (c->prompt_text[0]) read_prompt(s, c, c->sampling.max_new_tokens);
        draw_stops(s, c);
        c->n_requests++;
        client_ask(s, router, i);
        /* It looks again: to hang up, or to read too slowly for a while. */
        if (sim_one_in(s, 4)) bus_post(s, ITEM_CLIENT, router, sim_below(s, 300 * SIM_MS))->arg = i;
        return;
    }
    if (!c->is_paused && sim_one_in(s, 3)) {
        hang_up(s, router, c);
        return;
    }
    c->is_paused = !c->is_paused;
    c->news_ns = s->now;
    carry_pause(carry, c->entry, c->is_paused);
    if (c->is_paused) bus_post(s, ITEM_CLIENT, router, sim_below(s, 2 * SIM_S))->arg = i;
}

/* ---- what comes back ---- */

static void wrong(const struct sim *s, const struct journal_entry *e, const char *what) {
    sim_fail(s, "request %llu/%llu: %s differs from the undisturbed run's",
             (unsigned long long)e->request.name.epoch, (unsigned long long)e->rid, what);
}

/* It ended where no larger replica was known: as if it had been aborted there. */
static bool is_cut(const struct sim *s, const struct journal_sample *j, const struct sim_want *w) {
    return s->is_blind && j->finish == FINISH_LENGTH && j->n_ids < w->n;
}

static void check_prefix(const struct sim *s, const struct journal_entry *e,
                         const struct sim_client *c, const struct journal_sample *j,
                         uint32_t from) {
    const struct sim_want *w = &c->want[j - e->samples];
    if (j->n_ids > w->n || memcmp(j->ids + from, w->ids + from, (j->n_ids - from) * sizeof *w->ids))
        wrong(s, e, "an id");
    /* what was held back came out */
    if (j->finish == FINISH_ABORT || is_cut(s, j, w))
        expect_text(s, c, e, j);
    else if (j->text.n > w->text_n || (j->text.n && memcmp(j->text.p, w->text, j->text.n)))
        wrong(s, e, "the text");
    for (uint32_t i = from; e->request.sampling.logprobs && i < j->n_ids; i++) {
        if (j->logprobs[i] != -(float)w->ids[i]) wrong(s, e, "a logprob");
    }
}

static void check_vector(const struct sim *s, const struct journal_entry *e,
                         const struct sim_client *c) {
    float want[SIM_EMBED];
    uint64_t h = 0;
    for (uint32_t i = 0; i < c->n_prompt; i++)
        h = gpu_hash(h, c->prompt[i]);
    gpu_vector(h, want);
    if (e->n_vector != SIM_EMBED || memcmp(e->vector, want, sizeof want)) wrong(s, e, "the vector");
}

static void check_end(const struct sim *s, const struct journal_entry *e,
                      const struct sim_client *c, const struct journal_sample *j,
                      const struct sim_want *w) {
    if (j->finish == FINISH_ABORT) {
        if (c->n_aborts == s->n_aborts) wrong(s, e, "its end (nobody aborted it)");
        return;
    }
    if (is_cut(s, j, w)) return;
    if (j->finish != w->finish) wrong(s, e, "the reason of its end");
    if (j->n_ids != w->n || j->n_output != w->n) wrong(s, e, "its length");
    if (j->text.n != w->text_n) wrong(s, e, "the length of its text");
    if (j->matched_id != w->matched_id) wrong(s, e, "the stop id");
    if (!by_str_eqz(by_buf_str(&j->matched_text), w->matched)) wrong(s, e, "the stop string");
    if (e->request.sampling.logprobs && j->n_logprobs != j->n_ids)
        wrong(s, e, "the number of logprobs");
    if (e->request.sampling.vector) check_vector(s, e, c);
    if (e->n_prompt != c->n_prompt) wrong(s, e, "usage of the prompt");
    if (e->n_cached >= c->n_prompt) wrong(s, e, "cached_tokens");
}

static void check_prompt(const struct sim *s, const struct journal_entry *e,
                         const struct sim_client *c) {
    int32_t start = e->request.sampling.logprob_start;
    if (e->n_prompt_ids && (e->n_prompt_ids != c->n_prompt ||
                            memcmp(e->prompt_ids, c->prompt, c->n_prompt * sizeof *c->prompt)))
        wrong(s, e, "the prompt");
    if (start < 0 || e->samples[0].finish == FINISH_ABORT) return;
    for (uint32_t i = BY_MAX((uint32_t)start, 1u); i < c->n_prompt; i++) {
        if (!e->prompt_logprobs || e->prompt_logprobs[i] != -(float)(c->prompt[i] + i))
            wrong(s, e, "a prompt logprob");
    }
}

void client_news(struct sim *s, struct sim_proc *router, struct journal_entry *e, uint32_t sample) {
    struct sim_client *c = client_of(router, e);
    struct journal_sample *j = &e->samples[sample];
    if (c->entry != e) sim_fail(s, "news for a request that is over");
    if (c->special >= SIM_UNREADABLE) wrong(s, e, "what nobody can read");
    c->news_ns = s->now;
    check_prefix(s, e, c, j, c->n_checked[sample]);
    if (j->n_ids / ACK_EVERY != c->n_checked[sample] / ACK_EVERY)
        carry_ack(&router->router->carry, e, sample, false);
    c->n_checked[sample] = j->n_ids;
    if (j->finish) check_end(s, e, c, j, &c->want[sample]);
    if (e->n_finished < e->n_samples) return;
    check_prompt(s, e, c);
    carry_ack(&router->router->carry, e, 0, true);
    s->n_done++;
    end(s, router, c);
}

static bool has_ids(const struct journal_entry *e) {
    for (uint32_t i = 0; i < e->n_samples; i++) {
        if (e->samples[i].n_ids) return true;
    }
    return false;
}

/* Which errors may this client see? BY_EUNAVAILABLE: the replica that could hold it stayed away. */
static bool may_fail(const struct sim *s, const struct sim_client *c, const struct msg_failed *f) {
    int32_t code = f->code;
    if (code == BY_EFULL) return true; /* the queue is short in some seeds */
    if (code == BY_ETIMEOUT) return c->has_timeout;
    if (code == BY_EINTERNAL) return c->special == SIM_NAN;
    if (code == BY_ETOOLONG) return s->is_blind;
    if (code == BY_EUNAVAILABLE) return s->cfg.is_uneven && !has_ids(c->entry);
    /* Three tokenizer workers that died while they asked for it prove it guilty, be it so or not; sessions that end do not. */
    if (code == BY_EPOISON && memcmp(f->text.p, "each tokenizer", 14) == 0)
        return c->special == SIM_UNREADABLE || s->n_reader_deaths - c->n_reader_deaths >= 3;
    if (code == BY_EPOISON && memcmp(f->text.p, "each detokenizer", 16) == 0)
        return c->special == SIM_UNWRITABLE;
    /* Three losses without a token prove it guilty (DESIGN D5), be it so or not; the first may have been of a worker that was
     * dead already when it asked. */
    if (code == BY_EPOISON) return s->n_deaths - c->n_deaths >= 2;
    return false;
}

void client_failed(struct sim *s, struct sim_proc *router, struct journal_entry *e,
                   const struct msg_failed *f) {
    struct sim_client *c = client_of(router, e);
    if (c->entry != e) sim_fail(s, "an error for a request that is over");
    if (!may_fail(s, c, f))
        sim_fail(s, "request %llu/%llu fails: " BY_STR_FMT,
                 (unsigned long long)e->request.name.epoch, (unsigned long long)e->rid,
                 BY_STR_ARG(f->text));
    s->n_failed++;
    end(s, router, c);
}
