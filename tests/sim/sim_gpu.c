/* sim_gpu.c - a gpu worker whose KV memory holds, for every position of every page, a hash of the ids up to there.
 *
 * The next token is picked from the hash that is read back through the page table. So a page that was given away too
 * early, matched wrongly, or filled by a failed step gives another token than the undisturbed run's; pages that the
 * scheduler holds free are overwritten at once.
 *
 * In half of the seeds the model carries a state along, which is that hash: what it starts from must be what lies in the
 * page before, and a state that a failed step kept is none. */
#include "tests/sim/sim.h"

#include "scheduler/core_state.h"

uint64_t gpu_hash(uint64_t h, uint32_t id) {
    uint64_t z = h ^ (id + UINT64_C(0x9E3779B97F4A7C15));
    return by_rand_next(&z);
}

uint32_t gpu_pick(uint64_t h, uint64_t seed, uint32_t sample) {
    uint64_t z = h ^ seed ^ (sample * UINT64_C(0x100000001B3));
    return SIM_ID_FIRST + (uint32_t)(by_rand_next(&z) % SIM_IDS);
}

void gpu_vector(uint64_t h, float *out) {
    for (uint32_t i = 0; i < SIM_EMBED; i++)
        out[i] = (float)(by_rand_next(&h) >> 40);
}

void gpu_born(struct sim *s, struct sim_worker *w) {
    w->n_pages = s->cfg.n_pages;
    w->context_len = SIM_SEQ_MAX;
    if (s->cfg.is_uneven && w->replica > 0) {
        w->n_pages = 1 + (uint32_t)sim_below(s, w->n_pages);
        w->context_len = 1 + (uint32_t)sim_below(s, w->context_len);
    }
    gpu_reset(s, w);
}

void gpu_reset(struct sim *s, struct sim_worker *w) {
    w->last_step = 0;
    w->first = w->n = 0;
    w->is_working = false;
    w->slow = s->is_quiet || !sim_one_in(s, 6) ? 1 : 20;
    for (uint32_t i = 0; i < SIM_SLOTS_MAX; i++)
        w->slot[i].is_used = false;
    memset(w->kv, 0xEE, sizeof w->kv);
    memset(w->kept, 0, sizeof w->kept);
}

void gpu_take(struct sim *s, struct sim_proc *p, struct sim_link *l, const struct msg_step *m) {
    struct sim_worker *w = p->worker;
    if (m->step != w->last_step + w->n + 1) {
        bus_end(s, l, 0, "a gap in the steps");
        return;
    }
    if (w->n == SIM_STEPS_MAX) sim_fail(s, "%u steps wait at one worker", w->n);
    struct by_buf *b = &w->steps[(w->first + w->n++) % SIM_STEPS_MAX];
    struct msg copy = {.kind = MSG_step, .step = *m};
    if (!b->max) by_buf_init(b, LIMIT_FRAME_BYTES);
    by_buf_clear(b);
    msg_encode(&copy, b);
    if (w->is_working) return;
    w->is_working = true;
    bus_post(s, ITEM_WORK, p, w->slow * (SIM_MS / 2 + sim_below(s, 2 * SIM_MS)));
}

/* ---- one step ---- */

static struct sim_slot *slot_at(struct sim *s, struct sim_worker *w, uint32_t i, bool is_used) {
    if (i >= s->cfg.n_slots) sim_fail(s, "slot %u of %u", i, s->cfg.n_slots);
    if (w->slot[i].is_used != is_used) sim_fail(s, "slot %u is %s", i, is_used ? "free" : "taken");
    return &w->slot[i];
}

static void push_page(struct sim *s, const struct sim_worker *w, struct sim_slot *slot,
                      uint32_t page) {
    if (page >= w->n_pages) sim_fail(s, "page %u of %u", page, w->n_pages);
    if (slot->n_pages == SIM_SEQ_MAX) sim_fail(s, "too many pages for one sequence");
    slot->pages[slot->n_pages++] = page;
}

static void push_id(struct sim *s, struct sim_slot *slot, uint32_t id) {
    if (slot->n_ids == SIM_SEQ_MAX) sim_fail(s, "too many ids for one sequence");
    slot->ids[slot->n_ids++] = id;
}

static const struct sim_state *state_of(struct sim *s, const struct sim_worker *w,
                                        const struct msg_admit *a) {
    static const struct sim_state none;
    bool is_due = s->cfg.n_states && a->n_cached;
    if (a->from_state > s->cfg.n_states || is_due != (a->from_state != 0))
        sim_fail(s, "%u ids are cached, and the state is %u of %u", a->n_cached, a->from_state,
                 s->cfg.n_states);
    if (!is_due) return &none;
    s->n_starts++;
    const struct sim_state *state = &w->kept[a->from_state - 1];
    if (state->n != a->n_cached)
        sim_fail(s, "%u ids are cached, and state %u is of %u", a->n_cached, a->from_state - 1,
                 state->n);
    return state;
}

static void admit(struct sim *s, struct sim_worker *w, const struct msg_admit *a) {
    struct sim_slot *slot = slot_at(s, w, a->slot, false);
    slot->is_used = true;
    slot->is_void = false;
    slot->sample = a->sample;
    slot->seed = a->sampling.seed;
    slot->logprob_start = a->sampling.logprob_start;
    slot->vector = a->sampling.vector;
    slot->n_prompt = a->n_prompt;
    slot->n_pages = 0;
    if (a->n_cached % s->cfg.page_size || a->n_cached + a->ids.n > SIM_SEQ_MAX)
        sim_fail(s, "an admission with %u of %u ids cached", a->n_cached, a->ids.n);
    if (a->ids.n == 0) sim_fail(s, "an admission with nothing to compute");
    if (a->n_cached && (s->cfg.is_encoder || (slot->vector && s->cfg.pools_all)))
        sim_fail(s, "%u ids of a prompt that must be computed whole are cached", a->n_cached);
    slot->n_done = slot->n_ids = a->n_cached;
    slot->state = state_of(s, w, a)->hash;
    for (uint32_t i = 0; i < a->ids.n; i++)
        push_id(s, slot, a->ids.p[i]);
    for (uint32_t i = 0; i < a->pages.n; i++)
        push_page(s, w, slot, a->pages.p[i]);
}

static uint64_t *kv_at(struct sim *s, struct sim_worker *w, const struct sim_slot *slot,
                       uint32_t pos) {
    uint32_t page = pos / s->cfg.page_size;
    if (pos >= w->context_len) sim_fail(s, "position %u of %u", pos, w->context_len);
    if (page >= slot->n_pages) sim_fail(s, "position %u has no page", pos);
    return &w->kv[(size_t)slot->pages[page] * s->cfg.page_size + pos % s->cfg.page_size];
}

static uint32_t compute(struct sim *s, struct sim_worker *w, struct sim_slot *slot, uint32_t n,
                        bool is_sampling) {
    uint64_t h = slot->n_done ? *kv_at(s, w, slot, slot->n_done - 1) : 0;
    if (s->cfg.n_states && !slot->is_void && h != slot->state)
        sim_fail(s, "the state behind %u ids is that of others", slot->n_done);
    for (uint32_t i = 0; i < n; i++) {
        if (slot->n_done >= slot->n_ids) sim_fail(s, "a row beyond the ids of its sequence");
        h = gpu_hash(h, slot->ids[slot->n_done]);
        *kv_at(s, w, slot, slot->n_done++) = slot->is_void ? UINT64_MAX : h;
        slot->state = slot->is_void ? UINT64_MAX : h;
    }
    if (!is_sampling) return 0;
    if (slot->n_done != slot->n_ids) sim_fail(s, "a sampling row with ids left to compute");
    uint32_t id = gpu_pick(h, slot->seed, slot->sample);
    push_id(s, slot, id);
    return id;
}

struct results { /* of one step, as step_done wants them */
    uint32_t tokens[SIM_SLOTS_MAX], n, failed[SIM_SLOTS_MAX], n_failed, n_prompts;
    float logprobs[SIM_SLOTS_MAX];
    struct msg_prompt_logprobs prompts[SIM_SLOTS_MAX];
    float prompt_values[SIM_SLOTS_MAX][SIM_SEQ_MAX];
    struct msg_slot_vector vectors[SIM_SLOTS_MAX];
    float vector_values[SIM_SLOTS_MAX][SIM_EMBED];
    uint32_t n_vectors;
};

/* The logprob of the prompt token at position p is made up from its id and p; it comes with the row before it. */
static void add_prompt_logprobs(struct results *r, const struct sim_slot *slot, uint32_t i_slot,
                                uint32_t from) {
    if (slot->logprob_start < 0) return;
    uint32_t first = BY_MAX(from + 1, (uint32_t)slot->logprob_start);
    uint32_t end = BY_MIN(slot->n_done + 1, slot->n_prompt), n = 0;
    float *values = r->prompt_values[r->n_prompts];
    for (uint32_t p = first; p < end; p++)
        values[n++] = -(float)(slot->ids[p] + p);
    if (n == 0) return;
    r->prompts[r->n_prompts++] =
        (struct msg_prompt_logprobs){.slot = i_slot, .start = first, .logprobs = {values, n}};
}

/* The end of a prompt that comes to a vector: it is made of the hash that lies in the page. */
static bool add_vector(struct sim *s, struct sim_worker *w, struct results *r,
                       const struct sim_slot *slot, uint32_t i_slot) {
    if (!slot->vector || slot->n_done < slot->n_prompt) return false;
    float *values = r->vector_values[r->n_vectors];
    gpu_vector(*kv_at(s, w, slot, slot->n_done - 1), values);
    r->vectors[r->n_vectors++] =
        (struct msg_slot_vector){.slot = i_slot, .values = {values, SIM_EMBED}};
    return true;
}

/* The states that a row's step keeps of it: they lie in its pages, as hashes. */
static void keep_states(struct sim *s, struct sim_worker *w, const struct msg_step *m, uint32_t row,
                        uint32_t from) {
    const struct sim_slot *slot = &w->slot[m->row_slots.p[row]];
    for (uint32_t i = 0, last = from; i < m->keep_slots.n; i++) {
        uint32_t at = m->keep_at.p[i], number = m->keep_states.p[i];
        if (m->keep_slots.p[i] != m->row_slots.p[row]) continue;
        if (at <= last || at > slot->n_done || at % s->cfg.page_size || number >= s->cfg.n_states)
            sim_fail(s, "state %u is kept behind %u ids, of a row from %u to %u", number, at, last,
                     slot->n_done);
        w->kept[number] = (struct sim_state){.hash = *kv_at(s, w, slot, at - 1), .n = at};
        last = at;
        s->n_keeps++;
    }
}

static enum sim_special special_of(const struct sim_slot *slot) {
    bool is_due = slot->vector || slot->n_ids >= slot->n_prompt + 2; /* at the third token */
    return is_due ? (enum sim_special)(slot->seed >> 56) : SIM_PLAIN;
}

static void run_rows(struct sim *s, struct sim_worker *w, const struct msg_step *m, bool is_failed,
                     struct results *r) {
    uint32_t n_rows = 0;
    for (uint32_t i = 0; i < m->row_slots.n; i++) {
        struct sim_slot *slot = slot_at(s, w, m->row_slots.p[i], true);
        for (uint32_t k = 0; k < i; k++) {
            if (m->row_slots.p[k] == m->row_slots.p[i]) sim_fail(s, "two rows of one slot");
        }
        if (is_failed) slot->is_void = true;
        uint32_t from = slot->n_done;
        if (s->cfg.is_encoder && m->row_tokens.p[i] != slot->n_prompt)
            sim_fail(s, "%u of an encoder's %u ids", m->row_tokens.p[i], slot->n_prompt);
        bool is_special = special_of(slot) == SIM_NAN;
        uint32_t id = compute(s, w, slot, m->row_tokens.p[i], m->row_samples.p[i]);
        keep_states(s, w, m, i, from);
        n_rows += m->row_tokens.p[i];
        add_prompt_logprobs(r, slot, m->row_slots.p[i], from);
        bool is_end = add_vector(s, w, r, slot, m->row_slots.p[i]) || m->row_samples.p[i];
        bool is_nan = is_special && is_end;
        if (is_nan) r->failed[r->n_failed++] = m->row_slots.p[i];
        if (!m->row_samples.p[i]) continue;
        r->logprobs[r->n] = -(float)id;
        r->tokens[r->n++] = is_nan ? 0 : id;
    }
    if (n_rows > s->cfg.step_tokens) sim_fail(s, "a step of %u rows", n_rows);
}

static bool has_poison(struct sim *s, const struct sim_worker *w, const struct msg_step *m) {
    (void)s;
    for (uint32_t i = 0; i < m->row_slots.n; i++) {
        const struct sim_slot *slot = &w->slot[m->row_slots.p[i]];
        if (slot->is_used && special_of(slot) == SIM_POISON) return true;
    }
    return false;
}

static void check_keeps(struct sim *s, const struct msg_step *m) {
    if (m->keep_slots.n != m->keep_at.n || m->keep_slots.n != m->keep_states.n)
        sim_fail(s, "%u keep_slots, %u keep_at, %u keep_states", m->keep_slots.n, m->keep_at.n,
                 m->keep_states.n);
    for (uint32_t i = 0; i < m->keep_slots.n; i++) {
        bool has_row = false;
        for (uint32_t k = 0; k < m->row_slots.n; k++)
            has_row |= m->row_slots.p[k] == m->keep_slots.p[i];
        if (!has_row) sim_fail(s, "slot %u keeps a state without a row", m->keep_slots.p[i]);
        for (uint32_t k = 0; k < i; k++) {
            if (m->keep_states.p[k] == m->keep_states.p[i])
                sim_fail(s, "state %u is kept twice in a step", m->keep_states.p[i]);
        }
    }
}

static void apply(struct sim *s, struct sim_worker *w, const struct msg_step *m) {
    w->last_step = m->step;
    check_keeps(s, m);
    for (uint32_t i = 0; i < m->free_slots.n; i++)
        slot_at(s, w, m->free_slots.p[i], true)->is_used = false;
    for (uint32_t i = 0; i < m->admits.n; i++)
        admit(s, w, &m->admits.p[i]);
    for (uint32_t i = 0; i < m->append_slots.n; i++)
        push_page(s, w, slot_at(s, w, m->append_slots.p[i], true), m->append_pages.p[i]);
}

static uint32_t crc_of(const struct sim *s, const struct sim_worker *w) {
    uint64_t h = 1;
    for (uint32_t i = 0; i < s->cfg.n_slots; i++) {
        const struct sim_slot *slot = &w->slot[i];
        if (slot->is_used)
            h = gpu_hash(gpu_hash(gpu_hash(h, i), slot->n_ids), slot->ids[slot->n_ids - 1]);
    }
    return (uint32_t)h | 1;
}

/* Ranks meet in each step: rank 0 is not done before the others are. */
static bool waits_for_ranks(struct sim *s, const struct sim_worker *w) {
    if (w->rank != 0 || s->cfg.world == 1) return false;
    const struct sim_worker *other =
        sim_proc(s, ROLE_GPU_WORKER, w->replica * SIM_RANKS + 1)->worker;
    return other->last_step <= w->last_step;
}

void gpu_work(struct sim *s, struct sim_proc *p, struct sim_link *l) {
    static struct results r;
    struct sim_worker *w = p->worker;
    struct by_err err;
    struct msg in;
    w->is_working = false;
    if (w->n == 0) return; /* the session it was for is over */
    if (waits_for_ranks(s, w)) {
        w->is_working = true;
        bus_post(s, ITEM_WORK, p, SIM_MS);
        return;
    }
    by_arena_clear(&s->arena);
    struct by_buf *b = &w->steps[w->first];
    if (msg_decode(&in, by_buf_str(b), &s->arena, &err) != 0) sim_fail(s, "%s", err.text);
    const struct msg_step *m = &in.step;
    w->first = (w->first + 1) % SIM_STEPS_MAX;
    w->n--;
    apply(s, w, m);
    if (has_poison(s, w, m)) {
        fault_kill(s, p, 5 * SIM_MS + sim_below(s, 100 * SIM_MS));
        return;
    }
    bool is_failed = !s->is_quiet && s->cfg.fault_every && s->cfg.world == 1 &&
                     sim_one_in(s, 20 * s->cfg.fault_every);
    s->n_deaths += is_failed;
    r.n = r.n_failed = r.n_prompts = r.n_vectors = 0;
    run_rows(s, w, m, is_failed, &r);
    struct msg done = {
        .kind = MSG_step_done,
        .step_done = {.step = m->step,
                      .tokens = {r.tokens, is_failed ? 0 : r.n},
                      .logprobs = {r.logprobs, is_failed ? 0 : r.n},
                      .failed_slots = {r.failed, r.n_failed},
                      .compute_us = 1000,
                      .code = is_failed ? BY_EIO : 0,
                      .error = is_failed ? BY_STR("as the seed wants it") : BY_STR("")}};
    done.step_done.prompts.p = r.prompts;
    done.step_done.prompts.n = is_failed ? 0 : r.n_prompts;
    done.step_done.vectors.p = r.vectors;
    done.step_done.vectors.n = is_failed ? 0 : r.n_vectors;
    bool is_checked = m->step % 64 == 0;
    if (is_checked) done.step_done.crc = crc_of(s, w);
    if (w->rank != 0) {
        struct msg_step_done only = {.step = m->step, .crc = done.step_done.crc};
        done.step_done = only;
    }
    if (l && (w->rank == 0 || is_checked)) bus_send(s, l, 0, &done);
    if (w->n == 0) return;
    w->is_working = true;
    bus_post(s, ITEM_WORK, p, w->slow * (SIM_MS / 2 + sim_below(s, 2 * SIM_MS)));
}

/* ---- pages that nobody may read ---- */

void gpu_poison(struct sim *s) {
    const struct core *c = sim_proc(s, ROLE_SCHEDULER, 0)->core;
    for (uint32_t i = 0; i < s->cfg.core.n_replicas; i++) {
        const struct replica *r = c->replicas[i];
        for (uint32_t rank = 0; r->is_up && rank < s->cfg.world; rank++) {
            const struct sim_link *l = bus_find(s, r->ranks[rank]);
            struct sim_proc *p = l ? l->end[0].proc : NULL;
            /* Only in the session that both believe in: a later one starts with other memory. */
            if (!p || !l->end[0].is_up || l->end[0].session != l->end[1].session) continue;
            for (uint32_t page = 0; page < pages_n(r->pages); page++) {
                if (pages_refs(r->pages, page) > 0) continue;
                uint64_t *kv = &p->worker->kv[(size_t)page * s->cfg.page_size];
                if (*kv == UINT64_MAX - 1) continue;
                for (uint32_t k = 0; k < s->cfg.page_size; k++)
                    kv[k] = UINT64_MAX - 1;
            }
        }
    }
}
