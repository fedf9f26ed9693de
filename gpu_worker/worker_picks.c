/* From the logits of a step to its tokens and log probabilities: by the lanes, or where the device holds the logits. */
#include "common/base/check.h"
#include "gpu_worker/sampler_device.h"
#include "gpu_worker/worker_state.h"

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
    struct msg_prompt_logprobs *p = &w->turn->prompts[x->prompt];
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
    struct turn *turn = w->turn;
    for (uint32_t i = 0; i < turn->n_prompts; i++) {
        struct msg_prompt_logprobs *p = &turn->prompts[i];
        const struct msg_sampling *params = &w->mirror.slots[p->slot].params;
        uint32_t n_top = BY_MIN(params->top_logprobs, w->mirror.limits.n_vocab);
        uint32_t n_each[] = {BY_MIN(n_top, (uint32_t)LIMIT_TOP_LOGPROBS), params->logprob_ids.n};
        struct msg_top *tables[] = {&p->top, &p->id_logprobs};
        for (int t = 0; t < 2; t++) {
            uint32_t n = n_each[t] * p->logprobs.n;
            *tables[t] =
                (struct msg_top){n_each[t],
                                 {by_arena_get_array(&turn->arena, n, sizeof(uint32_t)), n},
                                 {by_arena_get_array(&turn->arena, n, sizeof(float)), n}};
        }
    }
}

/* ---- where the device holds the logits, it picks too ---- */

static void sample_lane(struct lane *lane, void *ctx) {
    const struct worker *w = ctx;
    w->backend->sample(lane, &w->ask);
}

void worker_sample_there(struct worker *w, const struct sample_row *rows, uint32_t n) {
    w->ask = (struct op_sample){.logits = w->logits,
                                .ld = w->mirror.limits.n_vocab,
                                .n_vocab = w->mirror.limits.n_vocab,
                                .rows = rows,
                                .n = n,
                                .out = w->answers,
                                .last = w->last};
    w->backend->run(w->backend, sample_lane, w);
}

void worker_ask(struct worker *w, const struct want *x, uint32_t i_row, uint32_t at,
                struct sample_row *out) {
    const struct slot *s = &w->mirror.slots[x->slot];
    bool is_score = x->pick == UINT32_MAX;
    if (is_score)
        sampler_device_ask_score(&s->params, x->id, out);
    else /* its own token is among the pending ones */
        sampler_device_ask(&s->pick, s->n_pending - 1, &w->turn->arena, out);
    out->slot = is_score ? UINT32_MAX : x->slot;
    out->row = i_row;
    out->at = at;
}

void worker_take(struct worker *w, const struct want *x, const struct sample_row *row,
                 uint32_t *words) {
    struct sampler_pick pick;
    int rc = sampler_device_take(row, &w->mirror.slots[x->slot].params, w->mirror.limits.n_vocab,
                                 words + row->at, &pick);
    if (x->pick == UINT32_MAX)
        note_score(w, x, rc, &pick);
    else
        note_pick(w, &w->turn->arena, x, rc, &pick);
}

/* False: the answers would not fit, and the logits have to be fetched. */
static bool sample_there(struct worker *w) {
    struct sample_row *rows = w->sample_rows;
    uint32_t n_words = 0;
    for (uint32_t i = 0; i < w->n_group; i++) {
        worker_ask(w, &w->group[i], i, n_words, &rows[i]);
        n_words += sampler_device_words(&rows[i]);
        if (n_words > ANSWER_WORDS) return false;
    }
    worker_sample_there(w, rows, w->n_group);
    uint32_t *words = (uint32_t *)w->backend->get(w->backend, (const float *)w->answers, n_words);
    if (!words) worker_device_failed(w->backend);
    for (uint32_t i = 0; i < w->n_group; i++)
        worker_take(w, &w->group[i], &rows[i], words);
    return true;
}

static void answer_there(struct worker *w, const uint32_t *rows) {
    w->logits = model_logits_there(w->model, rows, w->n_group);
    if (!w->logits) worker_device_failed(w->backend);
    if (sample_there(w)) return;
    w->logits = model_logits(w->model, rows, w->n_group);
    if (!w->logits) worker_device_failed(w->backend);
    for (uint32_t i = 0; i < w->n_group; i++)
        answer_row(w, &w->pickers[0], &w->group[i],
                   w->logits + (size_t)i * w->mirror.limits.n_vocab);
}

int worker_pick(struct worker *w) {
    const struct turn *t = w->turn;
    uint32_t rows[WORKER_LOGIT_ROWS];
    shape_prompts(w);
    for (uint32_t from = 0; from < t->n_wants; from += w->n_group) {
        w->n_group = BY_MIN((uint32_t)WORKER_LOGIT_ROWS, t->n_wants - from);
        w->group = t->wants + from;
        for (uint32_t i = 0; i < w->n_group; i++)
            rows[i] = w->group[i].row;
        if (w->answers) {
            answer_there(w, rows);
            continue;
        }
        w->logits = model_logits(w->model, rows, w->n_group);
        if (!w->logits && !w->backend->is_device) return BY_EUNAVAILABLE; /* of a rank */
        if (!w->logits) worker_device_failed(w->backend);
        w->backend->run(w->backend, answer_group, w);
    }
    return 0;
}
