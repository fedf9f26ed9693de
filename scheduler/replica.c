#include "scheduler/replica.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mem.h"

struct replica *replica_new(uint32_t index) {
    struct replica *r = by_alloc(sizeof *r);
    r->index = index;
    by_list_init(&r->prefill);
    by_list_init(&r->decode);
    by_list_init(&r->leaving);
    return r;
}

void replica_free(struct replica *r) {
    if (!r) return;
    if (r->is_up) replica_close(r);
    by_free(r);
}

void replica_open(struct replica *r, uint32_t n_slots, uint32_t n_states) {
    by_assert(!r->is_up);
    r->is_up = true;
    r->crc_step = UINT64_MAX;
    r->pages = pages_new(r->capacity.n_pages);
    r->n_slots = r->n_free_slots = n_slots;
    r->slots = by_alloc_array(n_slots, sizeof(struct seq *));
    r->free_slots = by_alloc_array(n_slots, sizeof *r->free_slots);
    r->freed = by_alloc_array(n_slots, sizeof *r->freed);
    for (uint32_t i = 0; i < n_slots; i++)
        r->free_slots[i] = n_slots - 1 - i;
    if (n_states) r->states = states_new(n_states);
    for (uint32_t i = 0; i < REPLICA_DEPTH_MAX; i++) {
        r->flights[i].rows = by_alloc_array(n_slots, sizeof(struct flight_row));
        r->flights[i].keeps = by_alloc_array(n_states, sizeof(struct flight_keep));
    }
    struct replica_build *b = &r->build;
    b->admits = by_alloc_array(n_slots, sizeof *b->admits);
    /* A page for each decode and for each whole page of prompt is the most that one step usually needs. */
    const struct msg_capacity *cap = &r->capacity;
    uint64_t n_appends = n_slots + (uint64_t)cap->step_tokens_max / cap->page_size;
    b->appends_cap = BY_MIN(n_appends, (uint64_t)cap->n_pages) * sizeof *b->append_slots;
    b->append_slots = by_alloc(b->appends_cap);
    b->append_pages = by_alloc(b->appends_cap);
    b->row_slots = by_alloc_array(n_slots, sizeof *b->row_slots);
    b->row_tokens = by_alloc_array(n_slots, sizeof *b->row_tokens);
    b->row_samples = by_alloc_array(n_slots, sizeof *b->row_samples);
    b->keep_slots = by_alloc_array(n_states, sizeof *b->keep_slots);
    b->keep_at = by_alloc_array(n_states, sizeof *b->keep_at);
    b->keep_states = by_alloc_array(n_states, sizeof *b->keep_states);
    r->step = 0;
    r->first_flight = r->n_flights = 0;
}

void replica_close(struct replica *r) {
    by_assert(r->is_up);
    by_assert(r->n_free_slots == r->n_slots);
    r->is_up = false;
    pages_free(r->pages);
    r->pages = NULL;
    states_free(r->states);
    r->states = NULL;
    by_free(r->slots);
    by_free(r->free_slots);
    by_free(r->freed);
    for (uint32_t i = 0; i < REPLICA_DEPTH_MAX; i++) {
        by_free(r->flights[i].rows);
        by_free(r->flights[i].keeps);
    }
    struct replica_build *b = &r->build;
    by_free(b->admits);
    by_free(b->row_slots);
    by_free(b->row_tokens);
    by_free(b->row_samples);
    by_free(b->keep_slots);
    by_free(b->keep_at);
    by_free(b->keep_states);
    by_free(b->append_slots);
    by_free(b->append_pages);
    *b = (struct replica_build){0};
    r->n_slots = r->n_free_slots = r->n_freed = 0;
    r->first_flight = r->n_flights = 0;
    r->solo = NULL;
}

void replica_take_slot(struct replica *r, struct seq *s) {
    by_assert(r->n_free_slots > 0);
    by_assert(!seq_has_slot(s));
    s->slot = r->free_slots[--r->n_free_slots];
    s->replica = r;
    r->slots[s->slot] = s;
}

void replica_give_slot(struct replica *r, struct seq *s) {
    by_assert(r->slots[s->slot] == s);
    by_assert(s->n_inflight == 0);
    r->slots[s->slot] = NULL;
    r->free_slots[r->n_free_slots++] = s->slot;
    /* A slot can be taken and given only once between two steps: its admission puts a row into the step. */
    by_assert(r->n_freed < r->n_slots);
    r->freed[r->n_freed++] = s->slot;
    s->slot = SEQ_NO_SLOT;
    s->replica = NULL;
}

static double rate_since(const struct replica *r, uint64_t now_ns) {
    return (double)r->rate_n * (double)BY_NS_PER_S / (double)(now_ns - r->rate_from_ns);
}

void replica_generated(struct replica *r, uint64_t now_ns, uint32_t n_tokens) {
    r->rate_n += n_tokens;
    if (now_ns - r->rate_from_ns < BY_NS_PER_S) return;
    r->tokens_per_s = rate_since(r, now_ns);
    r->rate_from_ns = now_ns;
    r->rate_n = 0;
}

double replica_rate(const struct replica *r, uint64_t now_ns) {
    /* A step may take long; but with none in flight nothing is generated. */
    bool is_at_rest = r->n_flights == 0 && now_ns - r->rate_from_ns > 2 * BY_NS_PER_S;
    return is_at_rest ? rate_since(r, now_ns) : r->tokens_per_s;
}

uint64_t replica_late_ns(const struct replica *r) {
    enum { LATE_LEAST_MS = 1000, LATE_STEPS = 8 };
    if (r->n_flights == 0) return UINT64_MAX;
    uint64_t step_us = r->n_steps ? r->compute_us / r->n_steps : 0;
    return r->flights[r->first_flight].sent_ns +
           BY_MAX(LATE_LEAST_MS * BY_NS_PER_MS, LATE_STEPS * step_us * 1000);
}

bool replica_check(const struct replica *r) {
    if (!r->is_up) return r->n_running == 0 && r->n_flights == 0 && by_list_empty(&r->leaving);
    uint32_t n_used = 0, n_running = 0;
    for (uint32_t i = 0; i < r->n_slots; i++) {
        const struct seq *s = r->slots[i];
        if (!s) continue;
        n_used++;
        n_running += s->state == SEQ_PREFILL || s->state == SEQ_DECODE;
        if (s->slot != i || s->replica != r || !seq_check(s, r->capacity.page_size)) return false;
    }
    if (n_used + r->n_free_slots != r->n_slots || n_running != r->n_running) return false;
    for (uint32_t i = 0; i < r->n_slots; i++) { /* rows in flight, counted from the other side */
        const struct seq *s = r->slots[i];
        uint32_t n_inflight = 0;
        for (uint32_t k = 0; s && k < r->n_flights; k++) {
            const struct flight *f = &r->flights[(r->first_flight + k) % REPLICA_DEPTH_MAX];
            for (uint32_t j = 0; j < f->n_rows; j++)
                n_inflight += f->rows[j].seq == s;
        }
        if (s && s->n_inflight != n_inflight) return false;
    }
    if (!r->states) return pages_check(r->pages);
    uint32_t n_keeps = 0; /* numbers that are neither free nor filed are under way */
    for (uint32_t k = 0; k < r->n_flights; k++)
        n_keeps += r->flights[(r->first_flight + k) % REPLICA_DEPTH_MAX].n_keeps;
    return pages_check(r->pages) && states_check(r->states) && n_keeps == states_n_taken(r->states);
}
