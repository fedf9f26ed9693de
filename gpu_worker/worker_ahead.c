/* Steps in flight: the next one is handed to the device before the tokens of the last are read.
 *
 *     frame N   ─▶ begin:  rows, forward, logits, sampler ──▶ last[slot] on the device ──▶ words, pinned ──collect──▶ step_done N
 *     frame N+1 ─▶ begin:  a row of a slot that N samples is EMBED_LAST | slot ──▲            (perhaps long before that)
 *
 * What a step's rows need of the one before it is only which id to embed, as long as nothing counts those ids: then the
 * older step is collected first, as before all else that is done on the host (worker_must_collect). */
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "gpu_worker/sampler_device.h"
#include "gpu_worker/worker_state.h"

void worker_ahead_init(struct worker *w) {
    struct backend *b = w->backend;
    uint32_t n = w->mirror.limits.n_slots;
    bool has_all = true;
    if (!b->go || !b->sample) return;
    for (uint32_t i = 0; i < WORKER_TURNS; i++) {
        w->turns[i].asks = by_alloc_array(n, sizeof *w->turns[i].asks);
        w->turns[i].words = b->host_new(b, ANSWER_WORDS * sizeof *w->turns[i].words);
        has_all = has_all && w->turns[i].words;
    }
    if (has_all) w->last = b->alloc(b, n * sizeof *w->last);
    if (!w->last) by_warn("no memory for steps in flight: one after the other");
}

void worker_ahead_release(struct worker *w) {
    struct backend *b = w->backend;
    struct by_err err;
    if (w->n_flying && b->wait(b, &err)) by_warn("%s", err.text);
    for (uint32_t i = 0; i < WORKER_TURNS; i++) {
        by_free(w->turns[i].asks);
        if (b->host_free) b->host_free(b, w->turns[i].words);
    }
    if (w->last) b->free(b, w->last);
}

uint32_t worker_n_flying(const struct worker *w) {
    return w->n_flying;
}

/* ---- may it? Of a frame that is not checked yet: what contradicts the mirror is left to worker_step to say ---- */

/* What the sequence in a slot wants once the step is taken; NULL: there is none. */
static const struct msg_sampling *params_of(const struct worker *w, const struct msg_step *step,
                                            uint32_t slot) {
    if (slot >= w->mirror.limits.n_slots) return NULL;
    for (uint32_t i = 0; i < step->admits.n; i++) {
        if (step->admits.p[i].slot == slot) return &step->admits.p[i].sampling;
    }
    return w->mirror.slots[slot].is_used ? &w->mirror.slots[slot].params : NULL;
}

static uint32_t words_of(const struct msg_sampling *p) {
    if (!p->logprobs && !p->top_logprobs && !p->logprob_ids.n) return SAMPLE_WORDS;
    return SAMPLE_WORDS + 2 * BY_MIN(p->top_logprobs, (uint32_t)LIMIT_TOP_LOGPROBS) +
           p->logprob_ids.n;
}

bool worker_can_begin(const struct worker *w, const struct msg_step *step) {
    uint64_t n_words = 0;
    uint32_t n = step->row_slots.n;
    if (!w->last || model_is_encoder(w->model) || model_has_group(w->model)) return false;
    if (!n || n > w->mirror.limits.n_slots || step->row_samples.n != n) return false;
    for (uint32_t i = 0; i < n; i++) {
        const struct msg_sampling *p = params_of(w, step, step->row_slots.p[i]);
        if (!p || p->vector || p->logprob_start >= 0) return false; /* read on the host */
        if (step->row_samples.p[i]) n_words += words_of(p);
    }
    return n_words <= ANSWER_WORDS;
}

bool worker_must_collect(const struct worker *w, const struct msg_step *step) {
    const struct mirror *m = &w->mirror;
    if (!w->n_flying) return false;
    if (w->n_flying == WORKER_TURNS || !worker_can_begin(w, step)) return true;
    const struct turn *oldest = &w->turns[w->oldest];
    if (oldest->step % 64 == 0) return true; /* its crc is of the slots as it leaves them */
    for (uint32_t i = 0; i < step->free_slots.n; i++) { /* its answer asks what they wanted */
        uint32_t slot = step->free_slots.p[i];
        if (slot < m->limits.n_slots && m->slots[slot].row_step >= oldest->step) return true;
    }
    for (uint32_t i = 0; i < step->row_slots.n; i++) {
        const struct slot *s = &m->slots[step->row_slots.p[i]];
        if (s->is_used && s->n_pending && sampler_seq_counts(&s->pick)) return true;
    }
    return false;
}

/* ---- begin and collect ---- */

int worker_begin(struct worker *w, const struct msg_step *step, struct by_err *err) {
    struct backend *b = w->backend;
    by_assert(w->n_flying < WORKER_TURNS);
    struct turn *t = w->turn = &w->turns[(w->oldest + w->n_flying) % WORKER_TURNS];
    int rc = worker_lay(w, step, err);
    if (rc) return rc;
    /* Arrays are copied once a run, by their addresses: each group has its own part of these. */
    uint32_t n_words = 0;
    uint32_t *rows = by_arena_get_array(&t->arena, BY_MAX(t->n_wants, 1u), sizeof *rows);
    for (uint32_t i = 0; i < t->n_wants; i++) {
        rows[i] = t->wants[i].row;
        worker_ask(w, &t->wants[i], i % WORKER_LOGIT_ROWS, n_words, &t->asks[i]);
        n_words += sampler_device_words(&t->asks[i]);
    }
    by_assert(n_words <= ANSWER_WORDS);
    b->hold(b);
    rc = worker_forward(w, rows);
    by_assert(rc == 0); /* only sums through the host fail at once */
    for (uint32_t from = 0; from < t->n_wants; from += WORKER_LOGIT_ROWS) {
        uint32_t n = BY_MIN((uint32_t)WORKER_LOGIT_ROWS, t->n_wants - from);
        w->logits = model_logits_there(w->model, rows + from, n);
        worker_sample_there(w, t->asks + from, n);
    }
    t->point = b->go(b, t->words, w->answers, n_words * sizeof *t->words);
    w->n_ahead += w->n_flying > 0;
    w->n_flying++;
    return 0;
}

bool worker_collect(struct worker *w, bool may_wait, struct msg_step_done *out) {
    struct backend *b = w->backend;
    struct turn *t = w->turn = &w->turns[w->oldest];
    struct by_err err = {0};
    by_assert(w->n_flying > 0);
    int rc = may_wait ? b->wait(b, &err) : 0;
    if (!rc) rc = b->reached(b, t->point, &err);
    if (rc < 0) worker_device_failed(b);
    if (!rc) return false;
    for (uint32_t i = 0; i < t->n_seqs; i++)
        w->is_broken[t->slots[i]] = false;
    for (uint32_t i = 0; i < t->n_wants; i++)
        worker_take(w, &t->wants[i], &t->asks[i], t->words);
    worker_answer(w, out);
    w->oldest = (w->oldest + 1) % WORKER_TURNS;
    w->n_flying--;
    return true;
}

uint64_t worker_n_ahead(const struct worker *w) {
    return w->n_ahead;
}
