#include "gpu_worker/worker.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "gpu_worker/worker_state.h"

#include <unistd.h>

/* Its first block is there before the first row comes: which lane gets a row is chance, and a step allocates nothing. */
static void open_arena(struct by_arena *a) {
    by_arena_init(a, 0);
    if (by_arena_get(a, 1)) by_arena_clear(a);
}

static void turn_init(struct turn *t, uint32_t n_slots) {
    by_arena_init(&t->arena, 0);
    t->slots = by_alloc_array(n_slots, sizeof *t->slots);
    t->samples = by_alloc_array(n_slots, sizeof *t->samples);
    t->wants_cap = n_slots;
    t->wants = by_alloc_array(n_slots, sizeof *t->wants);
    t->prompts = by_alloc_array(n_slots, sizeof *t->prompts);
}

static void turn_release(struct turn *t) {
    by_arena_release(&t->arena);
    by_free(t->slots);
    by_free(t->samples);
    by_free(t->wants);
    by_free(t->prompts);
}

struct worker *worker_new(struct model *model, struct backend *backend,
                          const struct mirror_limits *limits) {
    struct worker *w = by_alloc(sizeof *w);
    uint32_t n = limits->n_slots;
    w->model = model;
    w->backend = backend;
    mirror_init(&w->mirror, limits);
    w->pickers = by_alloc_array(backend->n_lanes, sizeof *w->pickers);
    for (uint32_t i = 0; i < backend->n_lanes; i++) {
        w->pickers[i].sampler = sampler_new(limits->n_vocab);
        open_arena(&w->pickers[i].arena);
    }
    w->ids = by_alloc_array(limits->rows_max, sizeof *w->ids);
    w->positions = by_alloc_array(limits->rows_max, sizeof *w->positions);
    w->types = by_alloc_array(limits->rows_max, sizeof *w->types);
    worker_set_vectors(w, &(struct vectors_plan){.n_embed = 0});
    w->seqs = by_alloc_array(n, sizeof *w->seqs);
    w->tokens = by_alloc_array(n, sizeof *w->tokens);
    w->logprobs = by_alloc_array(n, sizeof *w->logprobs);
    w->tops = by_alloc_array(n, sizeof *w->tops);
    w->chosen = by_alloc_array(n, sizeof *w->chosen);
    w->is_broken = by_alloc_array(n, sizeof *w->is_broken);
    w->failed = by_alloc_array(n, sizeof *w->failed);
    if (backend->sample) w->answers = backend->alloc(backend, ANSWER_WORDS * sizeof *w->answers);
    for (uint32_t i = 0; i < WORKER_TURNS; i++)
        turn_init(&w->turns[i], n);
    w->turn = &w->turns[0];
    worker_ahead_init(w);
    return w;
}

void worker_set_vectors(struct worker *w, const struct vectors_plan *plan) {
    vectors_free(w->vectors);
    w->vectors = vectors_new(w->model, plan, w->mirror.limits.n_slots, w->mirror.limits.rows_max);
}

void worker_free(struct worker *w) {
    if (!w) return;
    worker_ahead_release(w);
    for (uint32_t i = 0; i < w->backend->n_lanes; i++) {
        sampler_free(w->pickers[i].sampler);
        by_arena_release(&w->pickers[i].arena);
    }
    by_free(w->pickers);
    by_free(w->ids);
    by_free(w->positions);
    by_free(w->types);
    vectors_free(w->vectors);
    by_free(w->seqs);
    by_free(w->tokens);
    by_free(w->logprobs);
    by_free(w->tops);
    by_free(w->chosen);
    by_free(w->is_broken);
    by_free(w->failed);
    if (w->answers) w->backend->free(w->backend, w->answers);
    for (uint32_t i = 0; i < WORKER_TURNS; i++)
        turn_release(&w->turns[i]);
    mirror_release(&w->mirror);
    by_free(w);
}

void worker_reset(struct worker *w) {
    mirror_reset(&w->mirror);
    /* what they bring is nobody's; the device does all in order, so nothing of theirs comes too late */
    w->n_flying = 0;
}

/* ---- the step as flat rows, and what is wanted of them ---- */

static void want(struct turn *t, struct want what) {
    if (t->n_wants == t->wants_cap) {
        t->wants_cap *= 2;
        t->wants = by_realloc_array(t->wants, t->wants_cap, sizeof *t->wants);
    }
    t->wants[t->n_wants++] = what;
}

/* Positions first … end - 1 of the prompt are scored by the rows of this chunk, each by the row before it. */
static void want_scores(struct worker *w, uint32_t slot, uint32_t first_row, uint32_t n) {
    const struct slot *s = &w->mirror.slots[slot];
    struct turn *t = w->turn;
    if (s->params.logprob_start < 0) return;
    uint32_t first = BY_MAX(s->n_done + 1, BY_MAX((uint32_t)s->params.logprob_start, 1u));
    uint32_t end = BY_MIN(s->n_done + n + 1, s->n_prompt);
    if (first >= end) return;
    uint32_t n_scores = end - first;
    struct msg_prompt_logprobs *p = &t->prompts[t->n_prompts];
    *p = (struct msg_prompt_logprobs){
        .slot = slot,
        .start = first,
        .logprobs = {by_arena_get_array(&t->arena, n_scores, sizeof(float)), n_scores}};
    for (uint32_t i = 0; i < n_scores; i++) {
        want(t, (struct want){.row = first_row + first + i - 1 - s->n_done,
                              .slot = slot,
                              .pick = UINT32_MAX,
                              .id = s->ids[first + i - s->base],
                              .prompt = t->n_prompts,
                              .at = i});
    }
    t->n_prompts++;
}

/* A prompt that comes to a vector; its rows' token types. */
static void want_vector(struct worker *w, uint32_t slot, uint32_t first_row, uint32_t n) {
    const struct slot *s = &w->mirror.slots[slot];
    uint32_t pair_at = s->params.pair_at;
    for (uint32_t i = 0; i < n; i++)
        w->types[first_row + i] = pair_at && s->n_done + i >= pair_at;
    w->has_types |= pair_at && s->n_done + n > pair_at;
    if (!s->params.vector) return;
    vectors_add(w->vectors, &(struct vectors_rows){.slot = slot,
                                                   .want = s->params.vector,
                                                   .first_row = first_row,
                                                   .position = s->n_done,
                                                   .n = n,
                                                   .is_last = s->n_done + n == s->n_prompt});
}

/* The ids of a slot's next n tokens; one that is still being sampled is read on the device. */
static void lay_ids(struct worker *w, uint32_t slot, uint32_t n) {
    struct slot *s = &w->mirror.slots[slot];
    uint32_t n_known = BY_MIN(n, s->base + s->n_ids - s->n_done);
    by_assert(n - n_known <= s->n_pending);
    memcpy(w->ids + w->n_rows, s->ids + s->n_done - s->base, n_known * sizeof *w->ids);
    for (uint32_t k = n_known; k < n; k++)
        w->ids[w->n_rows + k] = (uint32_t)EMBED_LAST | slot;
    for (uint32_t k = 0; k < n; k++)
        w->positions[w->n_rows + k] = s->n_done + k;
}

static void lay_rows(struct worker *w, const struct msg_step *step) {
    struct turn *t = w->turn;
    t->n_seqs = t->n_wants = t->n_picks = t->n_prompts = w->n_rows = w->n_found = 0;
    w->has_types = false;
    vectors_begin(w->vectors);
    for (uint32_t i = 0; i < step->row_slots.n; i++) {
        uint32_t slot = step->row_slots.p[i], n = step->row_tokens.p[i];
        struct slot *s = &w->mirror.slots[slot];
        lay_ids(w, slot, n);
        w->seqs[i] = (struct seq_rows){
            .first = w->n_rows, .n = n, .position = s->n_done, .pages = s->pages, .slot = slot};
        want_scores(w, slot, w->n_rows, n);
        want_vector(w, slot, w->n_rows, n);
        w->n_rows += n;
        s->n_done += n;
        t->slots[t->n_seqs] = slot;
        t->samples[t->n_seqs++] = step->row_samples.p[i];
        if (!step->row_samples.p[i]) continue;
        want(t, (struct want){.row = w->n_rows - 1, .slot = slot, .pick = t->n_picks++});
        s->n_pending++;
    }
}

static uint32_t seq_of(const struct turn *t, uint32_t slot) {
    uint32_t i = 0;
    while (t->slots[i] != slot)
        i++;
    return i;
}

/* Which slots start from a state that was kept, and what is to be kept of those that have rows. */
static void lay_states(struct worker *w, const struct msg_step *step) {
    struct turn *t = w->turn;
    const uint32_t n = step->keep_slots.n;
    t->starts = by_arena_get_array(&t->arena, BY_MAX(step->admits.n, 1u), sizeof *t->starts);
    t->keeps = by_arena_get_array(&t->arena, BY_MAX(n, 1u), sizeof *t->keeps);
    t->n_starts = 0;
    for (uint32_t i = 0; i < step->admits.n; i++) {
        const struct msg_admit *a = &step->admits.p[i];
        if (a->from_state)
            t->starts[t->n_starts++] = (struct state_copy){a->from_state - 1, a->slot};
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t seq = seq_of(t, step->keep_slots.p[i]);
        t->keeps[i] = (struct state_keep){.seq = seq,
                                          .n = step->keep_at.p[i] - w->seqs[seq].position,
                                          .to = step->keep_states.p[i]};
    }
    t->n_keeps = n;
}

int worker_lay(struct worker *w, const struct msg_step *step, struct by_err *err) {
    struct turn *t = w->turn;
    t->from_ns = by_now_ns();
    int rc = mirror_apply(&w->mirror, step, err);
    if (rc) return rc;
    by_arena_clear(&t->arena);
    t->step = step->step;
    lay_rows(w, step);
    lay_states(w, step);
    if (t->n_wants && model_is_encoder(w->model))
        return by_fail(err, BY_EFORMAT, "a token is wanted of an encoder");
    return 0;
}

/* ---- computing it ---- */

enum { END_SECONDS = 10 };

void worker_device_failed(struct backend *b) {
    struct by_err err = {0};
    int rc = b->wait(b, &err);
    alarm(END_SECONDS); /* what libraries do at exit may wait for a device that hangs */
    by_die("%s", rc ? err.text : "the device gave no logits");
}

int worker_forward(struct worker *w, const uint32_t *wanted) {
    return model_forward(w->model, &(struct model_step){.ids = w->ids,
                                                        .positions = w->positions,
                                                        .last = w->last,
                                                        .n_rows = w->n_rows,
                                                        .seqs = w->seqs,
                                                        .n_seqs = w->turn->n_seqs,
                                                        .types = w->has_types ? w->types : NULL,
                                                        .wanted = wanted,
                                                        .n_wanted = w->turn->n_wants,
                                                        .starts = w->turn->starts,
                                                        .keeps = w->turn->keeps,
                                                        .n_starts = w->turn->n_starts,
                                                        .n_keeps = w->turn->n_keeps});
}

static int compute(struct worker *w) {
    struct turn *t = w->turn;
    uint32_t *wanted = by_arena_get_array(&t->arena, BY_MAX(t->n_wants, 1u), sizeof *wanted);
    for (uint32_t i = 0; i < t->n_wants; i++)
        wanted[i] = t->wants[i].row;
    bool all = vectors_any(w->vectors);
    int rc = worker_forward(w, all ? NULL : wanted);
    if (rc) return rc;
    if (all && !vectors_compute(w->vectors, &t->arena, w->is_broken, &w->found, &w->n_found))
        worker_device_failed(w->backend);
    return worker_pick(w);
}

/* ---- the answer ---- */

static bool wants_logprobs(const struct msg_sampling *p) {
    return p->logprobs || p->top_logprobs || p->logprob_ids.n;
}

/* Logprobs travel when any row asked for them; rows that did not have n_each 0. */
void worker_answer(struct worker *w, struct msg_step_done *out) {
    struct turn *t = w->turn;
    bool any_logprob = false, any_top = false, any_chosen = false;
    uint32_t n_failed = 0, n_good = 0, n_found = 0, pick = 0;
    for (uint32_t i = 0; i < t->n_seqs; i++) {
        uint32_t slot = t->slots[i];
        struct slot *s = &w->mirror.slots[slot];
        if (w->is_broken[slot]) w->failed[n_failed++] = slot;
        if (!t->samples[i]) continue;
        if (w->is_broken[slot]) w->tokens[pick] = 0;
        any_logprob |= wants_logprobs(&s->params);
        any_top |= w->tops[pick].n_each > 0;
        any_chosen |= w->chosen[pick].n_each > 0;
        mirror_push(s, w->tokens[pick++]);
    }
    for (uint32_t i = 0; i < t->n_prompts; i++) {
        if (!w->is_broken[t->prompts[i].slot]) t->prompts[n_good++] = t->prompts[i];
    }
    for (uint32_t i = 0; i < w->n_found; i++) {
        if (!w->is_broken[w->found[i].slot]) w->found[n_found++] = w->found[i];
    }
    *out = (struct msg_step_done){
        .step = t->step,
        .tokens = {w->tokens, pick},
        .failed_slots = {w->failed, n_failed},
        .crc = t->step % 64 ? 0 : mirror_crc(&w->mirror),
    };
    out->prompts.p = t->prompts;
    out->prompts.n = n_good;
    out->vectors.p = w->found;
    out->vectors.n = n_found;
    if (any_logprob) out->logprobs = (struct msg_f32s){w->logprobs, pick};
    out->tops.p = w->tops;
    out->tops.n = any_top ? pick : 0;
    out->id_logprobs.p = w->chosen;
    out->id_logprobs.n = any_chosen ? pick : 0;
    uint64_t now = by_now_ns();
    out->compute_us = (uint32_t)((now - BY_MAX(t->from_ns, w->collected_ns)) / 1000);
    w->collected_ns = now;
}

int worker_step(struct worker *w, const struct msg_step *step, struct msg_step_done *out,
                struct by_err *err) {
    by_assert(!w->n_flying);
    w->turn = &w->turns[0];
    int rc = worker_lay(w, step, err);
    if (rc) return rc;
    for (uint32_t i = 0; i < w->backend->n_lanes; i++)
        by_arena_clear(&w->pickers[i].arena);
    for (uint32_t i = 0; i < w->turn->n_seqs; i++)
        w->is_broken[w->turn->slots[i]] = false;
    if (w->n_rows && compute(w))
        return by_fail(err, BY_EUNAVAILABLE, "another rank of the group is lost");
    worker_answer(w, out);
    return 0;
}
