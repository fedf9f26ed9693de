#include "gpu_worker/worker.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "gpu_worker/sampler_device.h"

/* Of a group's answers from a device: 64 rows with 128 likeliest ids and 64 chosen ones each. */
enum { ANSWER_WORDS = WORKER_LOGIT_ROWS * (SAMPLE_WORDS + 2 * LIMIT_TOP_LOGPROBS + 64) };

/* One row of logits that somebody waits for: a token to pick, or a prompt token to score. */
struct want {
    uint32_t row; /* of the step */
    uint32_t slot;
    uint32_t pick; /* index among the sampled rows; UINT32_MAX: score `id` */
    uint32_t id;
    uint32_t prompt; /* scoring: index of its record in prompts … */
    uint32_t at;     /* … and of its position there */
};

/* What one lane needs to sample on its own; what it finds lies in its arena until the next step. */
struct picker {
    struct sampler *sampler;
    struct by_arena arena;
};

struct worker {
    struct model *model;
    struct backend *backend;
    struct mirror mirror;
    struct vectors *vectors; /* for those that want no tokens */
    struct picker *pickers;  /* [n_lanes] */
    struct by_arena arena;   /* this step's */

    /* Flat rows of the step: [rows_max], [n_slots]. */
    uint32_t *ids, *positions, *types;
    bool has_types; /* some row is of a pair's second text */
    struct seq_rows *seqs;
    uint32_t n_rows, n_seqs;

    /* The answer. */
    struct want *wants; /* in order of rows */
    uint32_t n_wants, wants_cap, n_picks;
    uint32_t *tokens; /* [n_slots] each, by pick */
    float *logprobs;
    struct msg_top *tops, *chosen;
    bool *is_broken; /* [n_slots] by slot */
    uint32_t *failed;
    struct msg_prompt_logprobs *prompts; /* [n_slots] */
    uint32_t n_prompts;
    struct msg_slot_vector *found; /* in the arena */
    uint32_t n_found;

    /* The group of logits in hand. */
    const struct want *group;
    float *logits;
    uint32_t n_group;

    /* Of a device that samples. */
    struct op_sample ask;
    struct sample_row sample_rows[WORKER_LOGIT_ROWS];
    uint32_t *answers; /* [ANSWER_WORDS] backend memory */
};

/* Its first block is there before the first row comes: which lane gets a row is chance, and a step allocates nothing. */
static void open_arena(struct by_arena *a) {
    by_arena_init(a, 0);
    if (by_arena_get(a, 1)) by_arena_clear(a);
}

struct worker *worker_new(struct model *model, struct backend *backend,
                          const struct mirror_limits *limits) {
    struct worker *w = by_alloc(sizeof *w);
    uint32_t n = limits->n_slots;
    w->model = model;
    w->backend = backend;
    mirror_init(&w->mirror, limits);
    by_arena_init(&w->arena, 0);
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
    w->wants_cap = n;
    w->wants = by_alloc_array(n, sizeof *w->wants);
    w->tokens = by_alloc_array(n, sizeof *w->tokens);
    w->logprobs = by_alloc_array(n, sizeof *w->logprobs);
    w->tops = by_alloc_array(n, sizeof *w->tops);
    w->chosen = by_alloc_array(n, sizeof *w->chosen);
    w->is_broken = by_alloc_array(n, sizeof *w->is_broken);
    w->failed = by_alloc_array(n, sizeof *w->failed);
    if (backend->sample) w->answers = backend->alloc(backend, ANSWER_WORDS * sizeof *w->answers);
    w->prompts = by_alloc_array(n, sizeof *w->prompts);
    return w;
}

void worker_set_vectors(struct worker *w, const struct vectors_plan *plan) {
    vectors_free(w->vectors);
    w->vectors = vectors_new(w->model, plan, w->mirror.limits.n_slots, w->mirror.limits.rows_max);
}

void worker_free(struct worker *w) {
    if (!w) return;
    for (uint32_t i = 0; i < w->backend->n_lanes; i++) {
        sampler_free(w->pickers[i].sampler);
        by_arena_release(&w->pickers[i].arena);
    }
    by_free(w->pickers);
    by_arena_release(&w->arena);
    by_free(w->ids);
    by_free(w->positions);
    by_free(w->types);
    vectors_free(w->vectors);
    by_free(w->seqs);
    by_free(w->wants);
    by_free(w->tokens);
    by_free(w->logprobs);
    by_free(w->tops);
    by_free(w->chosen);
    by_free(w->is_broken);
    by_free(w->failed);
    if (w->answers) w->backend->free(w->backend, w->answers);
    by_free(w->prompts);
    mirror_release(&w->mirror);
    by_free(w);
}

void worker_reset(struct worker *w) {
    mirror_reset(&w->mirror);
}

/* ---- the step as flat rows, and what is wanted of them ---- */

static void want(struct worker *w, struct want what) {
    if (w->n_wants == w->wants_cap) {
        w->wants_cap *= 2;
        w->wants = by_realloc_array(w->wants, w->wants_cap, sizeof *w->wants);
    }
    w->wants[w->n_wants++] = what;
}

/* Positions first … end - 1 of the prompt are scored by the rows of this chunk, each by the row before it. */
static void want_scores(struct worker *w, uint32_t slot, uint32_t first_row, uint32_t n) {
    const struct slot *s = &w->mirror.slots[slot];
    if (s->params.logprob_start < 0) return;
    uint32_t first = BY_MAX(s->n_done + 1, BY_MAX((uint32_t)s->params.logprob_start, 1u));
    uint32_t end = BY_MIN(s->n_done + n + 1, s->n_prompt);
    if (first >= end) return;
    uint32_t n_scores = end - first;
    struct msg_prompt_logprobs *p = &w->prompts[w->n_prompts];
    *p = (struct msg_prompt_logprobs){
        .slot = slot,
        .start = first,
        .logprobs = {by_arena_get_array(&w->arena, n_scores, sizeof(float)), n_scores}};
    for (uint32_t i = 0; i < n_scores; i++) {
        want(w, (struct want){.row = first_row + first + i - 1 - s->n_done,
                              .slot = slot,
                              .pick = UINT32_MAX,
                              .id = s->ids[first + i - s->base],
                              .prompt = w->n_prompts,
                              .at = i});
    }
    w->n_prompts++;
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

static void lay_rows(struct worker *w, const struct msg_step *step) {
    w->n_rows = w->n_seqs = w->n_wants = w->n_picks = w->n_prompts = w->n_found = 0;
    w->has_types = false;
    vectors_begin(w->vectors);
    for (uint32_t i = 0; i < step->row_slots.n; i++) {
        uint32_t slot = step->row_slots.p[i], n = step->row_tokens.p[i];
        struct slot *s = &w->mirror.slots[slot];
        w->is_broken[slot] = false;
        memcpy(w->ids + w->n_rows, s->ids + s->n_done - s->base, n * sizeof *w->ids);
        for (uint32_t k = 0; k < n; k++)
            w->positions[w->n_rows + k] = s->n_done + k;
        w->seqs[w->n_seqs++] =
            (struct seq_rows){.first = w->n_rows, .n = n, .position = s->n_done, .pages = s->pages};
        want_scores(w, slot, w->n_rows, n);
        want_vector(w, slot, w->n_rows, n);
        w->n_rows += n;
        if (step->row_samples.p[i])
            want(w, (struct want){.row = w->n_rows - 1, .slot = slot, .pick = w->n_picks++});
    }
}

/* ---- logits to tokens ---- */

static struct msg_top copy_top(struct by_arena *arena, const struct sampler_ids *from) {
    if (!from->n) return (struct msg_top){0};
    uint32_t *ids = by_arena_get_array(arena, from->n, sizeof *ids);
    float *logprobs = by_arena_get_array(arena, from->n, sizeof *logprobs);
    memcpy(ids, from->ids, from->n * sizeof *ids);
    memcpy(logprobs, from->logprobs, from->n * sizeof *logprobs);
    return (struct msg_top){from->n, {ids, from->n}, {logprobs, from->n}};
}

/* One position's entries into a table of n_each entries a position, which the first one shapes. */
static void fill_top(struct msg_top *table, const struct msg_prompt_logprobs *p, uint32_t at,
                     const struct sampler_ids *from) {
    by_assert(table->ids.n == from->n * p->logprobs.n);
    if (!from->n) return;
    memcpy((uint32_t *)(uintptr_t)table->ids.p + at * from->n, from->ids,
           from->n * sizeof *from->ids);
    memcpy((float *)(uintptr_t)table->logprobs.p + at * from->n, from->logprobs,
           from->n * sizeof *from->logprobs);
}

/* What was found of a row that wants a token (rc not 0: its logits are broken), or a score. */
static void note_pick(struct worker *w, struct by_arena *arena, const struct want *x, int rc,
                      const struct sampler_pick *pick) {
    if (rc) w->is_broken[x->slot] = true;
    w->tokens[x->pick] = pick->id;
    w->logprobs[x->pick] = pick->logprob;
    w->tops[x->pick] = copy_top(arena, &pick->top);
    w->chosen[x->pick] = copy_top(arena, &pick->chosen);
}

static void note_score(struct worker *w, const struct want *x, int rc,
                       const struct sampler_pick *pick) {
    struct msg_prompt_logprobs *p = &w->prompts[x->prompt];
    if (rc) {
        w->is_broken[x->slot] = true;
        return;
    }
    ((float *)(uintptr_t)p->logprobs.p)[x->at] = pick->logprob;
    fill_top(&p->top, p, x->at, &pick->top);
    fill_top(&p->id_logprobs, p, x->at, &pick->chosen);
}

static void answer_row(struct worker *w, struct picker *k, const struct want *x, float *logits) {
    struct slot *s = &w->mirror.slots[x->slot];
    struct sampler_pick pick;
    if (x->pick == UINT32_MAX)
        note_score(w, x, sampler_score(k->sampler, &s->params, logits, x->id, &pick), &pick);
    else
        note_pick(w, &k->arena, x, sampler_pick(k->sampler, &s->pick, logits, &pick), &pick);
}

static void answer_group(struct lane *lane, void *ctx) {
    struct worker *w = ctx;
    struct picker *k = &w->pickers[w->backend->lane_id(lane)];
    uint32_t n_vocab = w->mirror.limits.n_vocab;
    for (uint32_t i = w->backend->lane_next(lane, w->n_group); i != UINT32_MAX;
         i = w->backend->lane_next(lane, w->n_group)) {
        answer_row(w, k, &w->group[i], w->logits + (size_t)i * n_vocab);
    }
}

/* The tables of prompt logprobs get their shape before lanes fill them. */
static void shape_prompts(struct worker *w) {
    for (uint32_t i = 0; i < w->n_prompts; i++) {
        struct msg_prompt_logprobs *p = &w->prompts[i];
        const struct msg_sampling *params = &w->mirror.slots[p->slot].params;
        uint32_t n_top = BY_MIN(params->top_logprobs, w->mirror.limits.n_vocab);
        uint32_t n_each[] = {BY_MIN(n_top, (uint32_t)LIMIT_TOP_LOGPROBS), params->logprob_ids.n};
        struct msg_top *tables[] = {&p->top, &p->id_logprobs};
        for (int t = 0; t < 2; t++) {
            uint32_t n = n_each[t] * p->logprobs.n;
            *tables[t] = (struct msg_top){n_each[t],
                                          {by_arena_get_array(&w->arena, n, sizeof(uint32_t)), n},
                                          {by_arena_get_array(&w->arena, n, sizeof(float)), n}};
        }
    }
}

/* ---- where the device holds the logits, it picks too ---- */

/* A device that has failed once gives no step any more: the process ends, and a new one starts with a clean device. What was
 * under way is computed anew from the token log (DESIGN D5). */
static void device_failed(struct backend *b) {
    struct by_err err = {0};
    int rc = b->wait(b, &err);
    by_die("%s", rc ? err.text : "the device gave no logits");
}

static void sample_lane(struct lane *lane, void *ctx) {
    const struct worker *w = ctx;
    w->backend->sample(lane, &w->ask);
}

/* False: the answers would not fit, and the logits have to be fetched. */
static bool sample_there(struct worker *w) {
    struct sample_row *rows = w->sample_rows;
    uint32_t n_words = 0;
    for (uint32_t i = 0; i < w->n_group; i++) {
        const struct want *x = &w->group[i];
        struct slot *s = &w->mirror.slots[x->slot];
        if (x->pick == UINT32_MAX)
            sampler_device_ask_score(&s->params, x->id, &rows[i]);
        else
            sampler_device_ask(&s->pick, &w->arena, &rows[i]);
        rows[i].row = i;
        rows[i].at = n_words;
        n_words += sampler_device_words(&rows[i]);
        if (n_words > ANSWER_WORDS) return false;
    }
    w->ask = (struct op_sample){.logits = w->logits,
                                .ld = w->mirror.limits.n_vocab,
                                .n_vocab = w->mirror.limits.n_vocab,
                                .rows = rows,
                                .n = w->n_group,
                                .out = w->answers};
    w->backend->run(w->backend, sample_lane, w);
    uint32_t *words = (uint32_t *)w->backend->get(w->backend, (const float *)w->answers, n_words);
    if (!words) device_failed(w->backend);
    for (uint32_t i = 0; i < w->n_group; i++) {
        const struct want *x = &w->group[i];
        struct sampler_pick pick;
        int rc = sampler_device_take(&rows[i], &w->mirror.slots[x->slot].params,
                                     w->mirror.limits.n_vocab, words + rows[i].at, &pick);
        if (x->pick == UINT32_MAX)
            note_score(w, x, rc, &pick);
        else
            note_pick(w, &w->arena, x, rc, &pick);
    }
    return true;
}

static void answer_there(struct worker *w, const uint32_t *rows) {
    w->logits = model_logits_there(w->model, rows, w->n_group);
    if (!w->logits) device_failed(w->backend);
    if (sample_there(w)) return;
    w->logits = model_logits(w->model, rows, w->n_group);
    if (!w->logits) device_failed(w->backend);
    for (uint32_t i = 0; i < w->n_group; i++)
        answer_row(w, &w->pickers[0], &w->group[i],
                   w->logits + (size_t)i * w->mirror.limits.n_vocab);
}

static int compute(struct worker *w) {
    uint32_t rows[WORKER_LOGIT_ROWS];
    uint32_t *wanted = by_arena_get_array(&w->arena, BY_MAX(w->n_wants, 1u), sizeof *wanted);
    for (uint32_t i = 0; i < w->n_wants; i++)
        wanted[i] = w->wants[i].row;
    bool all = vectors_any(w->vectors);
    int rc = model_forward(w->model, &(struct model_step){.ids = w->ids,
                                                          .positions = w->positions,
                                                          .n_rows = w->n_rows,
                                                          .seqs = w->seqs,
                                                          .n_seqs = w->n_seqs,
                                                          .types = w->has_types ? w->types : NULL,
                                                          .wanted = all ? NULL : wanted,
                                                          .n_wanted = w->n_wants});
    if (rc) return rc;
    if (all && !vectors_compute(w->vectors, &w->arena, w->is_broken, &w->found, &w->n_found))
        device_failed(w->backend);
    shape_prompts(w);
    for (uint32_t from = 0; from < w->n_wants; from += w->n_group) {
        w->n_group = BY_MIN((uint32_t)WORKER_LOGIT_ROWS, w->n_wants - from);
        w->group = w->wants + from;
        for (uint32_t i = 0; i < w->n_group; i++)
            rows[i] = w->group[i].row;
        if (w->answers) {
            answer_there(w, rows);
            continue;
        }
        w->logits = model_logits(w->model, rows, w->n_group);
        if (!w->logits && !w->backend->is_device) return BY_EUNAVAILABLE; /* of a rank */
        if (!w->logits) device_failed(w->backend);
        w->backend->run(w->backend, answer_group, w);
    }
    return 0;
}

/* ---- the answer ---- */

static bool wants_logprobs(const struct msg_sampling *p) {
    return p->logprobs || p->top_logprobs || p->logprob_ids.n;
}

/* Logprobs travel when any row asked for them; rows that did not have n_each 0. */
static void answer(struct worker *w, const struct msg_step *step, struct msg_step_done *out) {
    bool any_logprob = false, any_top = false, any_chosen = false;
    uint32_t n_failed = 0, n_good = 0, n_found = 0, pick = 0;
    for (uint32_t i = 0; i < step->row_slots.n; i++) {
        uint32_t slot = step->row_slots.p[i];
        struct slot *s = &w->mirror.slots[slot];
        s->n_done += step->row_tokens.p[i];
        if (w->is_broken[slot]) w->failed[n_failed++] = slot;
        if (!step->row_samples.p[i]) continue;
        if (w->is_broken[slot]) w->tokens[pick] = 0;
        any_logprob |= wants_logprobs(&s->params);
        any_top |= w->tops[pick].n_each > 0;
        any_chosen |= w->chosen[pick].n_each > 0;
        mirror_push(s, w->tokens[pick++]);
    }
    for (uint32_t i = 0; i < w->n_prompts; i++) {
        if (!w->is_broken[w->prompts[i].slot]) w->prompts[n_good++] = w->prompts[i];
    }
    for (uint32_t i = 0; i < w->n_found; i++) {
        if (!w->is_broken[w->found[i].slot]) w->found[n_found++] = w->found[i];
    }
    *out = (struct msg_step_done){
        .step = step->step,
        .tokens = {w->tokens, pick},
        .failed_slots = {w->failed, n_failed},
        .crc = step->step % 64 ? 0 : mirror_crc(&w->mirror),
    };
    out->prompts.p = w->prompts;
    out->prompts.n = n_good;
    out->vectors.p = w->found;
    out->vectors.n = n_found;
    if (any_logprob) out->logprobs = (struct msg_f32s){w->logprobs, pick};
    out->tops.p = w->tops;
    out->tops.n = any_top ? pick : 0;
    out->id_logprobs.p = w->chosen;
    out->id_logprobs.n = any_chosen ? pick : 0;
}

int worker_step(struct worker *w, const struct msg_step *step, struct msg_step_done *out,
                struct by_err *err) {
    uint64_t from = by_now_ns();
    int rc = mirror_apply(&w->mirror, step, err);
    if (rc) return rc;
    by_arena_clear(&w->arena);
    for (uint32_t i = 0; i < w->backend->n_lanes; i++)
        by_arena_clear(&w->pickers[i].arena);
    lay_rows(w, step);
    if (w->n_wants && model_is_encoder(w->model))
        return by_fail(err, BY_EFORMAT, "a token is wanted of an encoder");
    if (w->n_rows && compute(w))
        return by_fail(err, BY_EUNAVAILABLE, "another rank of the group is lost");
    answer(w, step, out);
    out->compute_us = (uint32_t)((by_now_ns() - from) / 1000);
    return 0;
}
