/* batch.c - builds one step from the running sequences, and takes what came of it.
 *
 *     budget: step_tokens_max rows   [ decodes, one each | prefill chunks, chunked_prefill_size in all ]
 *
 * Decodes first: a stream that runs is not slowed by a prompt that comes; chunks of running prompts next, in the order
 * of admission; then whoever may enter. Who is behind its fair share, or more urgent, enters before the chunks. */
#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "scheduler/core_state.h"

enum { LONG_STEP = 64 /* prompt tokens */ };

void batch_file(struct core *c, struct seq *s) {
    struct replica *r = s->replica;
    /* The last sampled token has no KV yet, and output cut off by a stop string has no business in the tree. */
    uint32_t n_known = BY_MIN(s->n_done, s->n_total), n_pages = n_known / c->page_size;
    if (n_pages <= s->at.n_pages || c->opt.no_radix_cache || r->capacity.no_prefix_reuse) return;
    struct radix_at at =
        radix_insert(c->tree, s->at, r->index, s->ids, n_pages, s->pages, s->req->routing.priority);
    radix_lock(c->tree, at.node, r->index);
    radix_unlock(c->tree, s->at.node, r->index);
    s->at = at;
}

static void append(struct replica_build *b, uint32_t slot, const uint32_t *pages, uint32_t n) {
    size_t need = (b->n_appends + n) * sizeof *b->append_slots;
    if (need > b->appends_cap) {
        b->appends_cap = BY_MAX(need, 2 * b->appends_cap);
        b->append_slots = by_realloc(b->append_slots, b->appends_cap);
        b->append_pages = by_realloc(b->append_pages, b->appends_cap);
    }
    for (uint32_t i = 0; i < n; i++) {
        b->append_slots[b->n_appends] = slot;
        b->append_pages[b->n_appends++] = pages[i];
    }
}

/* Pages for s to hold n_tokens; evicts if it must. False: there are not enough. */
static bool fit(struct core *c, struct replica *r, struct seq *s, uint32_t n_tokens) {
    uint32_t n_pages = BY_DIV_UP(n_tokens, c->page_size);
    if (n_pages <= s->n_pages) return true;
    uint32_t need = n_pages - s->n_pages, n_free = pages_n_free(r->pages);
    if (need > n_free + radix_n_evictable(c->tree, r->index)) return false;
    while (need > pages_n_free(r->pages)) {
        if (radix_evict(c->tree, r->index, need - pages_n_free(r->pages)) == 0) return false;
    }
    size_t used = s->n_pages * sizeof *s->pages;
    s->pages = pool_grow(&c->pool, s->pages, used, n_pages * sizeof *s->pages, &s->pages_cap);
    bool ok = pages_take(r->pages, need, s->pages + s->n_pages);
    by_assert(ok);
    if (!s->is_entering) append(&r->build, s->slot, s->pages + s->n_pages, need);
    s->n_pages = n_pages;
    return true;
}

/* Each id is paid for once, however often it has to be computed. */
static void charge(struct core *c, struct seq *s) {
    if (s->n_sched <= s->n_charged) return;
    uint32_t n_prompt = s->req->n_prompt, from = s->n_charged;
    uint32_t n_new_prompt = BY_MIN(s->n_sched, n_prompt) - BY_MIN(from, n_prompt);
    tenants_charge(&c->tenants, s->req->tenant, n_new_prompt, s->n_sched - from - n_new_prompt);
    s->n_charged = s->n_sched;
}

static void add_row(struct core *c, struct replica *r, struct seq *s, uint32_t n_tokens,
                    bool is_sampling) {
    struct replica_build *b = &r->build;
    struct flight *f = b->flight;
    by_assert(f->n_rows < r->n_slots);
    b->row_slots[f->n_rows] = s->slot;
    b->row_tokens[f->n_rows] = n_tokens;
    b->row_samples[f->n_rows] = is_sampling;
    f->rows[f->n_rows++] =
        (struct flight_row){.seq = s, .n_tokens = n_tokens, .is_sampling = is_sampling};
    b->n_tokens += n_tokens;
    b->n_prefill += n_tokens > 1 ? n_tokens : 0;
    s->n_inflight++;
    s->n_pending += is_sampling;
    s->n_sched += n_tokens;
    charge(c, s);
}

uint32_t batch_prefill(struct core *c, struct replica *r, struct seq *s, uint32_t budget) {
    uint32_t left = s->n_total - s->n_sched, n = BY_MIN(left, budget);
    uint64_t n_pages =
        (uint64_t)s->n_pages + pages_n_free(r->pages) + radix_n_evictable(c->tree, r->index);
    uint64_t room = n_pages * c->page_size - s->n_sched;
    n = (uint32_t)BY_MIN(n, room);
    if (n == 0) return 0;
    /* some of the evicted pages are in use all the same */
    if (!fit(c, r, s, s->n_sched + n)) {
        room = (uint64_t)(s->n_pages + pages_n_free(r->pages)) * c->page_size - s->n_sched;
        n = (uint32_t)BY_MIN(n, room);
        if (n == 0 || !fit(c, r, s, s->n_sched + n)) return 0;
    }
    bool is_last = n == left;
    by_assert(is_last || !c->model.is_encoder); /* admit_waiting saw to it */
    add_row(c, r, s, n, is_last && s->n_total < s->n_max);
    if (is_last) seq_move(s, SEQ_DECODE, &r->decode);
    return n;
}

static bool may_run(const struct replica *r, const struct seq *s) {
    return !r->solo || s->req == r->solo;
}

static bool may_decode(const struct replica *r, const struct seq *s) {
    return s->n_total + s->n_pending < s->n_max && may_run(r, s);
}

static uint32_t pages_for_decodes(const struct core *c, const struct replica *r) {
    uint32_t need = 0;
    for (BY_LIST_EACH(it, &r->decode)) {
        const struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        need += may_decode(r, s) && s->n_sched == s->n_pages * c->page_size;
    }
    return need;
}

/* Makes room for one more token of every decode before any row is laid down: a victim without rows in this step gives
 * its pages back at once. */
static void make_room(struct core *c, struct replica *r) {
    uint32_t need = pages_for_decodes(c, r);
    while (need > pages_n_free(r->pages)) {
        if (radix_evict(c->tree, r->index, need - pages_n_free(r->pages)) > 0) continue;
        if (!retract_one(c, r)) return;
        need = pages_for_decodes(c, r);
    }
}

static void build_decodes(struct core *c, struct replica *r) {
    make_room(c, r);
    for (BY_LIST_EACH(it, &r->decode)) {
        struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        if (r->build.n_tokens == r->capacity.step_tokens_max) {
            /* The rest goes first next time: the list starts here. */
            struct by_list *last = it->prev;
            by_list_remove(&r->decode);
            by_list_insert_after(last, &r->decode);
            return;
        }
        if (may_decode(r, s) && fit(c, r, s, s->n_sched + 1)) add_row(c, r, s, 1, true);
    }
}

static void build_prefills(struct core *c, struct replica *r, uint32_t *budget) {
    uint64_t round = ++c->policy.round;
    while (*budget > 0) {
        struct seq *s = policy_next_prefill(c, r, round);
        if (!s) return;
        if (!may_run(r, s) || s->is_entering) continue; /* it has its row already */
        uint32_t n = batch_prefill(c, r, s, *budget);
        while (n == 0 && retract_one(c, r) && s->state == SEQ_PREFILL)
            n = batch_prefill(c, r, s, *budget);
        *budget -= n;
        /* Pages are on their way, unless it gave way itself: then there is room for the others. */
        if (n == 0 && s->state == SEQ_PREFILL) return;
    }
}

static void send(struct core *c, struct replica *r) {
    struct replica_build *b = &r->build;
    struct flight *f = b->flight;
    for (uint32_t i = 0; i < b->n_admits; i++) {
        struct seq *s = r->slots[b->admits[i].slot];
        b->admits[i].pages = (struct msg_u32s){s->pages, s->n_pages};
        s->is_entering = false;
    }
    keep_put(c, r);
    f->step = ++r->step;
    f->sent_ns = c->now_ns;
    r->n_flights++;
    struct msg m = {.kind = MSG_step,
                    .step = {
                        .step = f->step,
                        .admits = {b->admits, b->n_admits},
                        .append_slots = {b->append_slots, b->n_appends},
                        .append_pages = {b->append_pages, b->n_appends},
                        .row_slots = {b->row_slots, f->n_rows},
                        .row_tokens = {b->row_tokens, f->n_rows},
                        .row_samples = {b->row_samples, f->n_rows},
                        .free_slots = {r->freed, r->n_freed},
                        .keep_slots = {b->keep_slots, f->n_keeps},
                        .keep_at = {b->keep_at, f->n_keeps},
                        .keep_states = {b->keep_states, f->n_keeps},
                    }};
    for (uint32_t i = 0; i < r->world; i++)
        c->sink.send(c->sink.ctx, r->ranks[i], &m);
    r->n_freed = 0;
    r->n_steps++;
    r->n_tokens += b->n_tokens;
}

/* A suspect that left without a verdict (paused, a failed step) no longer keeps the others waiting. */
static void check_solo(struct replica *r) {
    for (uint32_t i = 0; r->solo && i < r->solo->n_seqs; i++) {
        const struct seq *s = &r->solo->seqs[i];
        if (s->replica == r && s->state != SEQ_PAUSED) return;
    }
    r->solo = NULL;
}

bool batch_build(struct core *c, struct replica *r) {
    if (!r->is_up || r->n_flights >= c->opt.depth) return false;
    /* Running a step ahead hides the way to the worker and back, which a long step does not feel; but a newcomer would
     * stand behind two long steps instead of one. */
    if (r->n_flights > 0 && r->build.n_prefill >= LONG_STEP) return false;
    check_solo(r);
    if (r->solo && r->n_flights > 0) return false;
    struct replica_build *b = &r->build;
    b->flight = replica_flight(r, r->n_flights);
    b->flight->n_rows = b->flight->n_keeps = 0;
    b->n_admits = b->n_appends = b->n_tokens = b->n_prefill = 0;
    uint32_t budget = BY_MIN(c->opt.chunked_prefill_size, r->capacity.step_tokens_max);
    if (c->model.is_encoder) budget = r->capacity.step_tokens_max; /* prompts are not cut */
    if (!admit_suspect(c, r, budget)) {
        build_decodes(c, r);
        budget = BY_MIN(budget, r->capacity.step_tokens_max - b->n_tokens);
        /* Newcomers go first if they may, or take what the chunks leave. */
        bool is_ahead = !r->solo && policy_is_ahead(c, r) && admit_waiting(c, r, &budget) > 0;
        build_prefills(c, r, &budget);
        if (!r->solo && !is_ahead) admit_waiting(c, r, &budget);
    }
    if (b->flight->n_rows == 0) return false;
    send(c, r);
    admit_ratio_decay(c);
    return true;
}

/* ---- what came of it ---- */

struct outcome { /* of one step, while its rows are gone through */
    const struct msg_step_done *m;
    uint32_t i_sample;               /* the next entry of m->tokens */
    const struct flight_keep *keeps; /* those of the next rows */
    uint32_t n_new;                  /* output tokens */
    double us_a_token;
};

static bool slot_failed(const struct msg_step_done *m, uint32_t slot) {
    for (uint32_t i = 0; i < m->failed_slots.n; i++) {
        if (m->failed_slots.p[i] == slot) return true;
    }
    return false;
}

static void take_token(struct core *c, struct seq *s, struct outcome *o, uint32_t i) {
    const struct msg_step_done *m = o->m;
    req_push(&c->pool, s, m->tokens.p[i], i < m->logprobs.n ? m->logprobs.p[i] : 0,
             i < m->tops.n ? &m->tops.p[i] : NULL,
             i < m->id_logprobs.n ? &m->id_logprobs.p[i] : NULL);
    o->n_new++;
    s->req->tenant->output_tokens++;
    core_clear_suspect(c, s->req);
}

/* Its log probabilities are kept until the router has all of them, and there is no room. */
static bool has_outgrown(const struct core *c, const struct req *req) {
    enum { SPARED = 1024 * 1024 };
    return req->arena.n_bytes > SPARED && core_holds_too_much(c, 0);
}

/* Has s come to its end? Who is as long as this replica can hold goes on at a larger one, if there is one. */
static bool check_end(struct core *c, struct seq *s) {
    if (!req_check_end(s)) return false;
    if (s->finish != FINISH_LENGTH || s->n_total == req_n_wanted(s->req) || !hold_elsewhere(c, s))
        return true;
    s->finish = FINISH_NONE;
    retract_leave(c, s, SEQ_WAITING);
    return false;
}

static void take_row(struct core *c, const struct flight_row *row, struct outcome *o) {
    struct seq *s = row->seq;
    uint32_t i = o->i_sample;
    const struct flight_keep *keeps = o->keeps;
    o->keeps += row->n_keeps;
    s->req->tenant->compute_us += row->n_tokens * o->us_a_token;
    o->i_sample += row->is_sampling;
    s->n_pending -= row->is_sampling;
    bool is_bad = slot_failed(o->m, s->slot) ||
                  (row->is_sampling && c->model.n_vocab && o->m->tokens.p[i] >= c->model.n_vocab);
    is_bad |= s->req->sampling.vector && !s->vector.n && s->n_done + row->n_tokens == s->n_total;
    if (s->is_void || is_bad) keep_void(s->replica, keeps, row->n_keeps);
    if (s->is_void) { /* a place that is given up */
        retract_landed(c, s);
        return;
    }
    if (is_bad) {
        s->is_void = true;
        core_fail(c, s->req, BY_EINTERNAL,
                  s->req->sampling.vector
                      ? "the model could not compute this request (NaN, or no vector)"
                      : "the model could not compute this request (NaN logits)");
        retract_landed(c, s);
        return;
    }
    if (has_outgrown(c, s->req))
        core_fail(c, s->req, BY_EFULL,
                  "the requests that run take as much memory as they may, and this one grew large; "
                  "try again");
    s->n_done += row->n_tokens;
    keep_landed(c, s, keeps, row->n_keeps);
    if (s->state == SEQ_LEAVING && s->leave_to == SEQ_DONE) { /* an over-run token */
        retract_landed(c, s);
        return;
    }
    if (s->n_done < s->n_total || row->n_tokens > 1) batch_file(c, s); /* a prefill chunk */
    if (row->is_sampling) take_token(c, s, o, i);
    bool is_end = (row->is_sampling || s->n_done == s->n_max) && check_end(c, s);
    deliver_new(c, s);
    if (is_end) core_seq_ended(c, s);
    retract_landed(c, s); /* the last thing: s may be gone */
}

static void take_prompts(struct core *c, struct replica *r, const struct msg_step_done *m) {
    for (uint32_t i = 0; i < m->prompts.n; i++) {
        const struct msg_prompt_logprobs *p = &m->prompts.p[i];
        struct seq *s = p->slot < r->n_slots ? r->slots[p->slot] : NULL;
        if (s && s->n_inflight > 0 && !s->is_void &&
            (uint64_t)p->start + p->logprobs.n <= s->req->n_prompt)
            req_push_prompt(&c->pool, s, p);
    }
}

static void take_vectors(struct core *c, struct replica *r, const struct msg_step_done *m) {
    for (uint32_t i = 0; i < m->vectors.n; i++) {
        const struct msg_slot_vector *v = &m->vectors.p[i];
        struct seq *s = v->slot < r->n_slots ? r->slots[v->slot] : NULL;
        if (!s || s->n_inflight == 0 || s->is_void || s->vector.n) continue;
        uint32_t want = s->req->sampling.vector;
        if (!want || v->values.n != (want == VECTOR_SCORES ? c->model.n_labels : c->model.n_embed))
            continue;
        req_set_vector(s, &v->values);
        core_clear_suspect(c, s->req); /* it has brought what it was asked for */
    }
}

/* The worker's mirror took the step's changes, but its rows count for nothing: they start again from what is filed. */
static void step_failed(struct core *c, struct replica *r, struct flight *f,
                        const struct msg_step_done *m) {
    by_warn("a step failed replica=%u step=%llu code=%s: " BY_STR_FMT, r->index,
            (unsigned long long)m->step, by_err_name(m->code), BY_STR_ARG(m->error));
    r->n_steps_failed++;
    keep_void(r, f->keeps, f->n_keeps);
    retract_blame(c, f);
    for (uint32_t i = 0; i < f->n_rows; i++) {
        struct seq *s = f->rows[i].seq;
        s->n_pending -= f->rows[i].is_sampling;
        s->is_void = true;
        retract_leave(c, s, SEQ_WAITING);
        retract_landed(c, s);
    }
}

static uint32_t n_sampling(const struct flight *f) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < f->n_rows; i++)
        n += f->rows[i].is_sampling;
    return n;
}

static double us_a_token(const struct flight *f, uint32_t us) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < f->n_rows; i++)
        n += f->rows[i].n_tokens;
    return n ? (double)us / (double)n : 0;
}

/* Every rank mirrors the slots; one that says otherwise than the others computes something else. False: the group ends. */
static bool ranks_agree(struct core *c, struct replica *r, struct core_peer *peer,
                        const struct msg_step_done *m) {
    if (!m->crc || !r->is_up) return true;
    bool differs = r->crc_step == m->step && r->crc != m->crc;
    r->crc_step = m->step;
    r->crc = m->crc;
    if (differs) core_end_peer(c, peer, "its slots differ from those of another rank");
    return !differs;
}

void batch_done(struct core *c, struct replica *r, struct core_peer *peer,
                const struct msg_step_done *m) {
    struct flight *f = replica_flight(r, 0);
    if (!ranks_agree(c, r, peer, m)) return;
    if (peer->rank != 0 && m->crc && r->is_up && m->step <= r->step) return; /* that was all */
    if (!r->is_up || peer->rank != 0 || r->n_flights == 0 || m->step != f->step) {
        core_strange(c, peer, "a result of a step that is not the next one");
        if (r->is_up && m->step > r->step)
            core_end_peer(c, peer, "it answers steps it was not sent");
        return;
    }
    if (m->code == 0 && m->tokens.n != n_sampling(f)) {
        core_end_peer(c, peer, "a result with the wrong number of tokens");
        return;
    }
    r->compute_us += m->compute_us;
    struct outcome o = {.m = m, .keeps = f->keeps, .us_a_token = us_a_token(f, m->compute_us)};
    if (m->code != 0) {
        step_failed(c, r, f, m);
    } else {
        take_prompts(c, r, m);
        take_vectors(c, r, m);
        for (uint32_t i = 0; i < f->n_rows; i++)
            take_row(c, &f->rows[i], &o);
    }
    r->first_flight = (r->first_flight + 1) % REPLICA_DEPTH_MAX;
    r->n_flights--;
    c->counts.output_tokens += o.n_new;
    replica_generated(r, c->now_ns, o.n_new);
    if (o.n_new) by_count(BY_M_GENERATED_TOKENS, o.n_new);
}
