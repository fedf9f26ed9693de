#include "router/journal.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "router/chat_view.h"

#include <math.h>
#include <string.h>

enum { TEXT_MAX = 512 * 1024 * 1024, MATCHED_MAX = 65536 };

void journal_init(struct journal *j, uint64_t epoch) {
    *j = (struct journal){.epoch = epoch, .next_rid = 1};
    by_map_init(&j->entries);
    by_strmap_init(&j->client_ids);
    by_list_init(&j->in_order);
}

static void release_tops(struct journal_tops *t) {
    by_free(t->n_each);
    by_free(t->ids);
    by_free(t->logprobs);
}

static void free_entry(struct journal_entry *e) {
    for (uint32_t i = 0; i < e->n_samples; i++) {
        struct journal_sample *s = &e->samples[i];
        if (by_list_linked(&s->unwritten)) by_list_remove(&s->unwritten);
        by_free(s->ids);
        by_free(s->logprobs);
        chat_progress_free(s->progress);
        by_buf_release(&s->text);
        by_buf_release(&s->matched_text);
        release_tops(&s->tops);
        release_tops(&s->id_logprobs);
    }
    release_tops(&e->prompt_tops);
    release_tops(&e->prompt_id_logprobs);
    by_free(e->samples);
    by_free(e->prompt_ids);
    by_free(e->prompt_logprobs);
    by_map_release(&e->pieces);
    by_arena_release(&e->arena);
    by_free(e);
}

void journal_release(struct journal *j) {
    size_t at = 0;
    uint64_t rid;
    void *e;
    while (by_map_next(&j->entries, &at, &rid, &e))
        free_entry(e);
    by_map_release(&j->entries);
    by_strmap_release(&j->client_ids);
}

static void claim_id(struct journal *j, struct journal_entry *e) {
    struct by_str id = e->request.routing.client_id;
    uint64_t rid;
    if (!id.n) return;
    e->is_id_taken = by_strmap_get(&j->client_ids, id, &rid);
    if (!e->is_id_taken) by_strmap_put(&j->client_ids, id, e->rid);
}

struct journal_entry *journal_add(struct journal *j, const struct msg_generate *request,
                                  void *owner, uint32_t index) {
    struct journal_entry *e = by_alloc(sizeof *e);
    by_arena_init(&e->arena, 0);
    by_map_init(&e->pieces);
    msg_generate_copy(&e->arena, request, &e->request);
    j->n_asked_bytes += e->n_asked_bytes = e->arena.n_bytes;
    e->rid = j->next_rid++;
    e->request.name = (struct msg_name){.epoch = j->epoch, .rid = e->rid};
    e->owner = owner;
    e->index = index;
    e->n_samples = BY_MAX(request->sampling.n, 1u);
    e->samples = by_alloc_array(e->n_samples, sizeof *e->samples);
    for (uint32_t i = 0; i < e->n_samples; i++) {
        e->samples[i].entry = e;
        by_buf_init(&e->samples[i].text, TEXT_MAX);
        by_buf_init(&e->samples[i].matched_text, MATCHED_MAX);
    }
    by_map_put(&j->entries, e->rid, e);
    by_list_push(&j->in_order, &e->in_order);
    claim_id(j, e);
    return e;
}

void journal_remove(struct journal *j, struct journal_entry *e) {
    void *removed = by_map_remove(&j->entries, e->rid);
    by_assert(removed == e);
    by_list_remove(&e->in_order);
    j->n_asked_bytes -= e->n_asked_bytes;
    struct by_str id = e->request.routing.client_id;
    uint64_t rid;
    if (id.n && !e->is_id_taken) (void)!by_strmap_remove(&j->client_ids, id, &rid);
    free_entry(e);
}

struct journal_entry *journal_find(const struct journal *j, struct msg_name name) {
    return name.epoch == j->epoch && name.rid ? by_map_get(&j->entries, name.rid) : NULL;
}

/* ---- taking ---- */

static void add_ids(struct journal_sample *s, const uint32_t *ids, const float *logprobs,
                    uint32_t n) {
    if (s->n_ids + n > s->cap) {
        s->cap = BY_MAX(s->n_ids + n, s->cap * 2);
        s->ids = by_realloc_array(s->ids, s->cap, sizeof *s->ids);
        s->logprobs = by_realloc_array(s->logprobs, s->cap, sizeof *s->logprobs);
    }
    if (!n) return;
    memcpy(s->ids + s->n_ids, ids, n * sizeof *ids);
    if (logprobs) memcpy(s->logprobs + s->n_ids, logprobs, n * sizeof *logprobs);
    s->n_ids += n;
    if (logprobs) s->n_logprobs = s->n_ids;
}

/* One position: n_each pairs. */
static void add_top(struct journal_tops *t, const uint32_t *ids, const float *logprobs,
                    uint32_t n_each) {
    if (t->n == t->cap) {
        t->cap = BY_MAX(16u, t->cap * 2);
        t->n_each = by_realloc_array(t->n_each, t->cap, sizeof *t->n_each);
    }
    if (t->n_flat + n_each > t->cap_flat) {
        t->cap_flat = BY_MAX(t->n_flat + n_each, t->cap_flat * 2);
        t->ids = by_realloc_array(t->ids, t->cap_flat, sizeof *t->ids);
        t->logprobs = by_realloc_array(t->logprobs, t->cap_flat, sizeof *t->logprobs);
    }
    if (n_each) memcpy(t->ids + t->n_flat, ids, n_each * sizeof *ids);
    if (n_each) memcpy(t->logprobs + t->n_flat, logprobs, n_each * sizeof *logprobs);
    t->n_flat += n_each;
    t->n_each[t->n++] = n_each;
}

/* A top record of one position each; the first `skip` are here already. */
static void add_tops(struct journal_tops *t, const struct msg_top *p, uint32_t n, uint32_t skip) {
    for (uint32_t i = skip; i < n; i++) {
        uint32_t each = BY_MIN(p[i].n_each, BY_MIN(p[i].ids.n, p[i].logprobs.n));
        add_top(t, p[i].ids.p, p[i].logprobs.p, each);
    }
}

/* A top record of many positions; the first `skip` are here already. */
static void add_positions(struct journal_tops *t, const struct msg_top *p, uint32_t n,
                          uint32_t skip) {
    bool fits = p->n_each && p->ids.n / p->n_each >= n && p->logprobs.n / p->n_each >= n;
    for (uint32_t i = skip; fits && i < n; i++)
        add_top(t, p->ids.p + i * p->n_each, p->logprobs.p + i * p->n_each, p->n_each);
}

static void take_prompt(struct journal_entry *e, const struct msg_text *t) {
    if (t->n_prompt && !e->n_prompt) {
        e->n_prompt = t->n_prompt;
        e->n_cached = t->n_cached;
    }
    if (t->prompt_ids.n && !e->n_prompt_ids) {
        e->prompt_ids = by_memdup(t->prompt_ids.p, t->prompt_ids.n * sizeof(uint32_t));
        e->n_prompt_ids = t->prompt_ids.n;
    }
}

static void start_prompt_logprobs(struct journal_entry *e) {
    e->prompt_logprobs = by_alloc_array(e->n_prompt, sizeof(float));
    for (uint32_t i = 0; i < e->n_prompt; i++)
        e->prompt_logprobs[i] = NAN;
}

/* Chunks of prompt logprobs come in order; a replay brings some again, cut at other places. */
static void take_prompt_logprobs(struct journal_entry *e, const struct msg_text *t) {
    for (uint32_t i = 0; i < t->prompts.n; i++) {
        const struct msg_prompt_logprobs *p = &t->prompts.p[i];
        uint32_t n = p->logprobs.n;
        if (!e->n_prompt || p->start >= e->n_prompt || n > e->n_prompt - p->start) continue;
        if (!e->prompt_logprobs) {
            start_prompt_logprobs(e);
            e->prompt_logprob_start = e->prompt_logprob_end = p->start;
        }
        uint32_t end = e->prompt_logprob_end;
        if (p->start > end || p->start + n <= end) continue;
        uint32_t skip = end - p->start;
        memcpy(e->prompt_logprobs + end, p->logprobs.p + skip, (n - skip) * sizeof(float));
        add_positions(&e->prompt_tops, &p->top, n, skip);
        add_positions(&e->prompt_id_logprobs, &p->id_logprobs, n, skip);
        e->prompt_logprob_end = p->start + n;
    }
}

static void take_pieces(struct journal_entry *e, const struct msg_text *t) {
    size_t at = 0;
    for (uint32_t i = 0; i < t->piece_ids.n && i < t->piece_lens.n; i++) {
        struct by_str bytes = by_str_sub(t->piece_bytes, at, t->piece_lens.p[i]);
        uint64_t key = (uint64_t)t->piece_ids.p[i] + 1;
        if (bytes.n != t->piece_lens.p[i]) return;
        at += bytes.n;
        if (by_map_get(&e->pieces, key)) continue;
        struct by_str *piece = by_arena_get(&e->arena, sizeof *piece);
        *piece = by_arena_copy(&e->arena, bytes);
        by_map_put(&e->pieces, key, piece);
    }
}

const struct by_str *journal_piece(const struct journal_entry *e, uint32_t id) {
    return by_map_get(&e->pieces, (uint64_t)id + 1);
}

static size_t tops_bytes(const struct journal_tops *t) {
    return (size_t)t->n_flat * (sizeof *t->ids + sizeof *t->logprobs) + t->n * sizeof *t->n_each;
}

size_t journal_n_bytes(const struct journal_entry *e) {
    size_t n = e->arena.n_bytes + tops_bytes(&e->prompt_tops) + tops_bytes(&e->prompt_id_logprobs) +
               (size_t)e->n_prompt * (sizeof *e->prompt_ids + sizeof *e->prompt_logprobs);
    for (uint32_t i = 0; i < e->n_samples; i++) {
        const struct journal_sample *s = &e->samples[i];
        n += s->text.n + (size_t)s->n_ids * (sizeof *s->ids + sizeof *s->logprobs) +
             tops_bytes(&s->tops) + tops_bytes(&s->id_logprobs);
    }
    return n;
}

static void take_vector(struct journal_entry *e, const struct msg_text *t) {
    if (!t->vector.n || e->n_vector) return;
    e->vector = by_arena_get_array(&e->arena, t->vector.n, sizeof *e->vector);
    memcpy(e->vector, t->vector.p, t->vector.n * sizeof *e->vector);
    e->n_vector = t->vector.n;
}

static void take_finish(struct journal_entry *e, struct journal_sample *s,
                        const struct msg_text *t) {
    s->n_output = BY_MAX(s->n_output, t->n_output);
    s->n_retractions = t->n_retractions;
    s->replica = t->replica;
    e->queue_us = BY_MAX(e->queue_us, t->queue_us); /* a replay has waited anew */
    if (!t->finish) return;
    s->finish = t->finish;
    /* An abort may meet a copy that is behind what the client has. */
    s->n_output = BY_MAX(t->n_output, s->n_ids);
    s->matched_id = t->matched_id;
    by_buf_add_str(&s->matched_text, t->matched_text);
    e->n_finished++;
}

enum journal_result journal_take(struct journal_entry *e, const struct msg_text *t) {
    if (t->sample >= e->n_samples) return JOURNAL_OLD;
    struct journal_sample *s = &e->samples[t->sample];
    if (s->finish) return JOURNAL_OLD;
    if (t->pos > s->n_ids || t->offset > s->text.n) return JOURNAL_GAP;
    uint32_t skip_ids = BY_MIN(s->n_ids - t->pos, t->ids.n);
    size_t skip_text = BY_MIN(s->text.n - (size_t)t->offset, t->text.n);
    /* The end of a copy that is behind: what it made of its last ids the client has as they went on. */
    if ((uint64_t)t->pos + t->ids.n < s->n_ids) skip_text = t->text.n;
    bool has_logprobs = t->logprobs.n == t->ids.n && t->ids.n;
    e->has_text = true;
    take_prompt(e, t);
    take_prompt_logprobs(e, t);
    take_pieces(e, t);
    take_vector(e, t);
    add_ids(s, t->ids.n ? t->ids.p + skip_ids : NULL,
            has_logprobs ? t->logprobs.p + skip_ids : NULL, t->ids.n - skip_ids);
    add_tops(&s->tops, t->tops.p, t->tops.n, skip_ids);
    add_tops(&s->id_logprobs, t->id_logprobs.p, t->id_logprobs.n, skip_ids);
    by_buf_add_str(&s->text, by_str_sub(t->text, skip_text, t->text.n));
    take_finish(e, s, t);
    return JOURNAL_NEWS;
}

void journal_fill_resume(const struct journal_entry *e, struct by_arena *arena,
                         struct msg_generate *out) {
    *out = e->request;
    if (e->n_prompt_ids) { /* the prompt is known by now: rendering it again could only be slower */
        out->ids = (struct msg_u32s){e->prompt_ids, e->n_prompt_ids};
        out->text = out->chat = (struct by_str){0};
    }
    if (!e->n_sent) return;
    struct msg_resume *r = by_arena_get_array(arena, e->n_samples, sizeof *r);
    for (uint32_t i = 0; i < e->n_samples; i++) {
        const struct journal_sample *s = &e->samples[i];
        r[i] = (struct msg_resume){.sample = i,
                                   .ids = {s->ids, s->n_ids},
                                   .n_delivered = s->n_ids,
                                   .is_done = s->finish != 0};
    }
    out->resume.p = r;
    out->resume.n = e->n_samples;
}

bool journal_check(const struct journal *j) {
    size_t at = 0;
    uint64_t rid;
    void *p;
    while (by_map_next(&j->entries, &at, &rid, &p)) {
        const struct journal_entry *e = p;
        uint32_t n_finished = 0;
        if (e->rid != rid || rid >= j->next_rid) return false;
        for (uint32_t i = 0; i < e->n_samples; i++) {
            const struct journal_sample *s = &e->samples[i];
            n_finished += s->finish != 0;
            if (s->n_sent_ids > s->n_ids || s->n_sent_text > s->text.n) return false;
            if (s->n_logprobs && s->n_logprobs != s->n_ids) return false;
        }
        if (n_finished != e->n_finished) return false;
    }
    return true;
}
