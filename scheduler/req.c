#include "scheduler/req.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <string.h>

static void seq_init(struct seq *s, struct req *req, uint32_t sample, struct pool *pool,
                     const struct msg_u32s *prompt) {
    *s = (struct seq){.req = req,
                      .sample = sample,
                      .slot = SEQ_NO_SLOT,
                      .n_total = prompt->n,
                      .in_priority.index = BY_HEAP_OUT};
    s->n_max = req_n_wanted(req);
    s->ids = pool_get(pool, prompt->n * sizeof *s->ids, &s->ids_cap);
    memcpy(s->ids, prompt->p, prompt->n * sizeof *s->ids);
    /* Nothing comes before position 0, so nothing predicts it. */
    if (req->sampling.logprob_start >= 0)
        s->prompts_next = BY_MAX((uint32_t)req->sampling.logprob_start, 1u);
}

uint32_t req_n_wanted(const struct req *req) {
    uint64_t n = (uint64_t)req->n_prompt + req->sampling.max_new_tokens;
    return (uint32_t)BY_MIN(n, (uint64_t)LIMIT_TOKENS);
}

struct req *req_new(struct pool *pool, const struct msg_tokenized *m) {
    struct req *req = by_alloc(sizeof *req);
    req->name = m->name;
    by_arena_init(&req->arena, 0);
    msg_sampling_copy(&req->arena, &m->sampling, &req->sampling);
    msg_textual_copy(&req->arena, &m->textual, &req->textual);
    msg_routing_copy(&req->arena, &m->routing, &req->routing);
    req->timer.index = BY_HEAP_OUT;
    req->n_prompt = m->ids.n;
    req->n_seqs = req->n_open = m->sampling.n;
    req->seqs = pool_get(pool, req->n_seqs * sizeof *req->seqs, &req->seqs_cap);
    for (uint32_t i = 0; i < req->n_seqs; i++)
        seq_init(&req->seqs[i], req, i, pool, &m->ids);
    return req;
}

void req_free(struct req *req, struct pool *pool) {
    if (!req) return;
    for (uint32_t i = 0; i < req->n_seqs; i++) {
        struct seq *s = &req->seqs[i];
        by_assert(!by_list_linked(&s->link));
        by_assert(!seq_has_slot(s));
        pool_put(pool, s->ids, s->ids_cap);
        pool_put(pool, s->pages, s->pages_cap);
        pool_put(pool, s->logprobs, s->logprobs_cap);
        pool_put(pool, s->tops, s->tops_cap);
        pool_put(pool, s->id_tops, s->id_tops_cap);
        pool_put(pool, s->prompts, s->prompts_cap);
    }
    pool_put(pool, req->seqs, req->seqs_cap);
    by_arena_release(&req->arena);
    by_free(req);
}

void req_reserve(struct pool *pool, struct seq *s, uint32_t n_ids) {
    s->ids = pool_grow(pool, s->ids, s->n_total * sizeof *s->ids, (size_t)n_ids * sizeof *s->ids,
                       &s->ids_cap);
}

static struct msg_top *push_top(struct seq *s, struct pool *pool, struct msg_top *tops, size_t *cap,
                                const struct msg_top *top) {
    size_t used = req_n_output(s) * sizeof *tops;
    tops = pool_grow(pool, tops, used, used + sizeof *tops, cap);
    struct msg_top *to = &tops[req_n_output(s)];
    *to = (struct msg_top){0};
    if (top) msg_top_copy(&s->req->arena, top, to);
    return tops;
}

void req_push(struct pool *pool, struct seq *s, uint32_t id, float logprob,
              const struct msg_top *top, const struct msg_top *id_top) {
    const struct msg_sampling *sp = &s->req->sampling;
    if (sp->logprobs) {
        size_t used = req_n_output(s) * sizeof *s->logprobs;
        s->logprobs =
            pool_grow(pool, s->logprobs, used, used + sizeof *s->logprobs, &s->logprobs_cap);
        s->logprobs[req_n_output(s)] = logprob;
    }
    if (sp->top_logprobs) s->tops = push_top(s, pool, s->tops, &s->tops_cap, top);
    if (sp->logprob_ids.n) s->id_tops = push_top(s, pool, s->id_tops, &s->id_tops_cap, id_top);
    size_t used = s->n_total * sizeof *s->ids;
    s->ids = pool_grow(pool, s->ids, used, used + sizeof *s->ids, &s->ids_cap);
    s->ids[s->n_total++] = id;
}

/* `top` is [n_positions, n_each]: the part behind the first `skip` positions. */
static struct msg_top top_behind(const struct msg_top *top, uint32_t skip) {
    struct msg_top rest = *top;
    uint64_t n_skip = (uint64_t)skip * top->n_each;
    rest.ids.p += BY_MIN(n_skip, top->ids.n);
    rest.ids.n -= (uint32_t)BY_MIN(n_skip, top->ids.n);
    rest.logprobs.p += BY_MIN(n_skip, top->logprobs.n);
    rest.logprobs.n -= (uint32_t)BY_MIN(n_skip, top->logprobs.n);
    return rest;
}

void req_push_prompt(struct pool *pool, struct seq *s, const struct msg_prompt_logprobs *p) {
    if (p->start > s->prompts_next || p->start + p->logprobs.n <= s->prompts_next) return;
    uint32_t skip = s->prompts_next - p->start;
    struct msg_prompt_logprobs part = {
        .start = s->prompts_next,
        .logprobs = {p->logprobs.p + skip, p->logprobs.n - skip},
        .top = top_behind(&p->top, skip),
        .id_logprobs = top_behind(&p->id_logprobs, skip),
    };
    size_t used = s->n_prompts * sizeof *s->prompts;
    s->prompts = pool_grow(pool, s->prompts, used, used + sizeof *s->prompts, &s->prompts_cap);
    msg_prompt_logprobs_copy(&s->req->arena, &part, &s->prompts[s->n_prompts++]);
    s->prompts_next += part.logprobs.n;
}

void req_set_vector(struct seq *s, const struct msg_f32s *values) {
    float *copy = by_arena_get_array(&s->req->arena, values->n, sizeof *copy);
    memcpy(copy, values->p, values->n * sizeof *copy);
    s->vector = (struct msg_f32s){copy, values->n};
}

static bool is_stop_id(const struct msg_sampling *sp, uint32_t id) {
    for (uint32_t i = 0; i < sp->stop_ids.n; i++) {
        if (sp->stop_ids.p[i] == id) return true;
    }
    return false;
}

bool req_check_end(struct seq *s) {
    const struct msg_sampling *sp = &s->req->sampling;
    uint32_t n = req_n_output(s);
    /* The worker masks stop ids until min_new_tokens, so an earlier one cannot be meant as an end. */
    if (n > sp->min_new_tokens && !sp->ignore_eos && is_stop_id(sp, s->ids[s->n_total - 1])) {
        s->finish = FINISH_STOP_ID;
        s->matched_id = s->ids[s->n_total - 1];
        return true;
    }
    if (s->n_total < s->n_max) return false;
    s->finish = FINISH_LENGTH;
    return true;
}

void req_truncate(struct seq *s, uint32_t n_output) {
    by_assert(n_output <= req_n_output(s));
    s->n_total = s->req->n_prompt + n_output;
    s->n_sent = BY_MIN(s->n_sent, n_output);
}
