#include "gpu_worker/mirror.h"

#include "common/base/mem.h"

void mirror_init(struct mirror *m, const struct mirror_limits *limits) {
    *m = (struct mirror){.limits = *limits,
                         .slots = by_alloc_array(limits->n_slots, sizeof *m->slots)};
    for (uint32_t i = 0; i < limits->n_slots; i++)
        by_arena_init(&m->slots[i].arena, 0);
}

static void slot_free(struct slot *s) {
    by_arena_clear(&s->arena);
    s->is_used = false;
}

void mirror_reset(struct mirror *m) {
    for (uint32_t i = 0; i < m->limits.n_slots; i++) {
        if (m->slots[i].is_used) slot_free(&m->slots[i]);
    }
    m->last_step = 0;
}

void mirror_release(struct mirror *m) {
    mirror_reset(m);
    for (uint32_t i = 0; i < m->limits.n_slots; i++) {
        sampler_seq_release(&m->slots[i].pick);
        by_arena_release(&m->slots[i].arena);
        by_free(m->slots[i].ids);
        by_free(m->slots[i].pages);
    }
    by_free(m->slots);
    *m = (struct mirror){0};
}

/* Appends n words; the room doubles. */
static void push(uint32_t **to, uint32_t *n_to, size_t *cap, const uint32_t *from, uint32_t n) {
    size_t need = ((size_t)*n_to + n) * sizeof **to;
    if (need > *cap) {
        *cap = BY_MAX(need, BY_MAX(2 * *cap, (size_t)1024));
        *to = by_realloc(*to, *cap);
    }
    if (n) memcpy(*to + *n_to, from, n * sizeof **to);
    *n_to += n;
}

void mirror_push(struct slot *s, uint32_t id) {
    push(&s->ids, &s->n_ids, &s->ids_cap, &id, 1);
    sampler_seq_note(&s->pick, id);
    if (s->n_pending) s->n_pending--;
}

/* The first of n words that is not below `limit`; n when all are. */
static uint32_t first_beyond(const uint32_t *p, uint32_t n, uint32_t limit) {
    uint32_t i = 0;
    while (i < n && p[i] < limit)
        i++;
    return i;
}

static int check_admit(const struct mirror *m, const struct msg_admit *a, struct by_err *err) {
    const struct mirror_limits *l = &m->limits;
    if (a->slot >= l->n_slots)
        return by_fail(err, BY_EFORMAT, "slot %u is admitted, there are %u", a->slot, l->n_slots);
    if (m->slots[a->slot].is_used)
        return by_fail(err, BY_EFORMAT, "slot %u is admitted, but in use", a->slot);
    if (!a->ids.n)
        return by_fail(err, BY_EFORMAT, "slot %u is admitted without a token to run", a->slot);
    if (a->from_state > l->n_kept || (a->from_state && !a->n_cached))
        return by_fail(err, BY_EFORMAT, "slot %u starts from state %u of %u with %u cached tokens",
                       a->slot, a->from_state - 1, l->n_kept, a->n_cached);
    if ((uint64_t)a->n_cached + a->ids.n > l->context_len)
        return by_fail(err, BY_EFORMAT, "slot %u is admitted with %llu tokens, the context is %u",
                       a->slot, (unsigned long long)a->n_cached + a->ids.n, l->context_len);
    if (l->has_states && a->n_cached && !a->from_state)
        return by_fail(err, BY_EFORMAT, "slot %u is admitted with %u cached tokens, but no state",
                       a->slot, a->n_cached);
    if ((uint64_t)a->pages.n * l->page_size < a->n_cached)
        return by_fail(err, BY_EFORMAT, "slot %u has %u pages for %u cached tokens", a->slot,
                       a->pages.n, a->n_cached);
    uint32_t i = first_beyond(a->ids.p, a->ids.n, l->n_vocab);
    if (i < a->ids.n)
        return by_fail(err, BY_EFORMAT, "slot %u has id %u, the vocabulary is %u", a->slot,
                       a->ids.p[i], l->n_vocab);
    i = first_beyond(a->pages.p, a->pages.n, l->n_pages);
    if (i < a->pages.n)
        return by_fail(err, BY_EFORMAT, "slot %u has page %u of %u", a->slot, a->pages.p[i],
                       l->n_pages);
    return 0;
}

static int admit(struct mirror *m, const struct msg_admit *a, struct by_err *err) {
    int rc = check_admit(m, a, err);
    if (rc) return rc;
    struct slot *s = &m->slots[a->slot];
    s->is_used = true;
    s->n_prompt = a->n_prompt;
    s->base = s->n_done = a->n_cached;
    s->n_ids = s->n_pages = s->n_pending = 0;
    s->row_step = 0;
    push(&s->ids, &s->n_ids, &s->ids_cap, a->ids.p, a->ids.n);
    push(&s->pages, &s->n_pages, &s->pages_cap, a->pages.p, a->pages.n);
    msg_sampling_copy(&s->arena, &a->sampling, &s->params);
    sampler_seq_restart(&s->pick, &s->params, a->sample);
    for (uint32_t i = 0; i < a->output_ids.n; i++)
        sampler_seq_note(&s->pick, a->output_ids.p[i]);
    for (uint32_t i = a->n_prompt > s->base ? a->n_prompt - s->base : 0; i < s->n_ids; i++)
        sampler_seq_note(&s->pick, s->ids[i]);
    return 0;
}

static struct slot *used_slot(struct mirror *m, uint32_t slot) {
    return slot < m->limits.n_slots && m->slots[slot].is_used ? &m->slots[slot] : NULL;
}

static int append_pages(struct mirror *m, const struct msg_step *step, struct by_err *err) {
    if (step->append_slots.n != step->append_pages.n)
        return by_fail(err, BY_EFORMAT, "%u pages for %u slots", step->append_pages.n,
                       step->append_slots.n);
    for (uint32_t i = 0; i < step->append_slots.n; i++) {
        uint32_t page = step->append_pages.p[i];
        struct slot *s = used_slot(m, step->append_slots.p[i]);
        if (!s)
            return by_fail(err, BY_EFORMAT, "slot %u gets a page, but is not in use",
                           step->append_slots.p[i]);
        if (page >= m->limits.n_pages)
            return by_fail(err, BY_EFORMAT, "page %u of %u", page, m->limits.n_pages);
        push(&s->pages, &s->n_pages, &s->pages_cap, &page, 1);
    }
    return 0;
}

static int check_rows(struct mirror *m, const struct msg_step *step, struct by_err *err) {
    uint64_t n_rows = 0;
    if (step->row_tokens.n != step->row_slots.n || step->row_samples.n != step->row_slots.n)
        return by_fail(err, BY_EFORMAT, "the arrays of the rows differ in length: %u, %u, %u",
                       step->row_slots.n, step->row_tokens.n, step->row_samples.n);
    if (step->row_slots.n > m->limits.n_slots)
        return by_fail(err, BY_EFORMAT, "%u rows for %u slots", step->row_slots.n,
                       m->limits.n_slots);
    for (uint32_t i = 0; i < step->row_slots.n; i++) {
        uint32_t n = step->row_tokens.p[i];
        struct slot *s = used_slot(m, step->row_slots.p[i]);
        if (!s || s->row_step == step->step)
            return by_fail(err, BY_EFORMAT, "slot %u has %s", step->row_slots.p[i],
                           s ? "two rows" : "a row, but is not in use");
        s->row_step = step->step;
        uint32_t n_known = s->base + s->n_ids + s->n_pending;
        if (!n || n > n_known - s->n_done)
            return by_fail(err, BY_EFORMAT, "slot %u is to run %u tokens, %u are known",
                           step->row_slots.p[i], n, n_known - s->n_done);
        if ((uint64_t)s->n_done + n > (uint64_t)s->n_pages * m->limits.page_size)
            return by_fail(err, BY_EFORMAT, "slot %u has %u pages for %u tokens",
                           step->row_slots.p[i], s->n_pages, s->n_done + n);
        if ((uint64_t)s->n_done + n > m->limits.context_len)
            return by_fail(err, BY_EFORMAT, "slot %u is at %u tokens, the context is %u",
                           step->row_slots.p[i], s->n_done + n, m->limits.context_len);
        n_rows += n;
    }
    if (n_rows > m->limits.rows_max)
        return by_fail(err, BY_EFORMAT, "a step of %llu tokens, at most %u fit",
                       (unsigned long long)n_rows, m->limits.rows_max);
    return 0;
}

/* A state is kept behind a whole page, within the rows that its slot has here. */
static int check_keep(const struct mirror *m, const struct msg_step *step, uint32_t k,
                      struct by_err *err) {
    uint32_t slot = step->keep_slots.p[k], at = step->keep_at.p[k], i = 0;
    while (i < step->row_slots.n && step->row_slots.p[i] != slot)
        i++;
    uint32_t done = i < step->row_slots.n ? m->slots[slot].n_done : 0,
             end = i < step->row_slots.n ? done + step->row_tokens.p[i] : 0;
    if (step->keep_states.p[k] >= m->limits.n_kept)
        return by_fail(err, BY_EFORMAT, "state %u is to be kept, there are %u",
                       step->keep_states.p[k], m->limits.n_kept);
    if (at > done && at <= end && at % m->limits.page_size == 0) return 0;
    return by_fail(err, BY_EFORMAT,
                   "slot %u is to be kept at %u tokens, it goes from %u to %u, pages of %u", slot,
                   at, done, end, m->limits.page_size);
}

/* Before the rows are laid down: n_done is where they begin. */
static int check_states(const struct mirror *m, const struct msg_step *step, struct by_err *err) {
    uint32_t n = step->keep_slots.n;
    if (step->keep_at.n != n || step->keep_states.n != n || n > m->limits.rows_max)
        return by_fail(err, BY_EFORMAT, "%u, %u and %u slots, places and states to keep", n,
                       step->keep_at.n, step->keep_states.n);
    for (uint32_t k = 0; k < n; k++) {
        int rc = check_keep(m, step, k, err);
        if (rc) return rc;
    }
    for (uint32_t i = 0; i < step->admits.n; i++) {
        uint32_t slot = step->admits.p[i].slot;
        if (step->admits.p[i].from_state && m->slots[slot].row_step != step->step)
            return by_fail(err, BY_EFORMAT, "slot %u starts from a state, but has no row", slot);
    }
    return 0;
}

int mirror_apply(struct mirror *m, const struct msg_step *step, struct by_err *err) {
    if (step->step != m->last_step + 1)
        return by_fail(err, BY_EFORMAT, "step %llu after step %llu", (unsigned long long)step->step,
                       (unsigned long long)m->last_step);
    m->last_step = step->step;
    for (uint32_t i = 0; i < step->free_slots.n; i++) {
        struct slot *s = used_slot(m, step->free_slots.p[i]);
        if (!s)
            return by_fail(err, BY_EFORMAT, "slot %u is freed, but not in use",
                           step->free_slots.p[i]);
        slot_free(s);
    }
    for (uint32_t i = 0; i < step->admits.n; i++) {
        int rc = admit(m, &step->admits.p[i], err);
        if (rc) return rc;
    }
    int rc = append_pages(m, step, err);
    if (!rc) rc = check_rows(m, step, err);
    return rc ? rc : check_states(m, step, err);
}

uint32_t mirror_crc(const struct mirror *m) {
    uint64_t h = 0;
    for (uint32_t i = 0; i < m->limits.n_slots; i++) {
        const struct slot *s = &m->slots[i];
        if (!s->is_used) continue;
        uint64_t state[] = {h, i, s->base + s->n_ids, s->ids[s->n_ids - 1]};
        h = by_str_hash((struct by_str){(const char *)state, sizeof state});
    }
    return (uint32_t)h | 1;
}
