/* deliver.c - output ids go to the detokenizer; all of them again when it asks or is a new one. */
#include "common/base/clock.h"
#include "scheduler/core_state.h"

/* A detokenizer that answers each replay with another cancel is not going to get better. One whose router comes and goes
 * asks as often, but not as fast. */
enum { REPLAYS_MAX = 16, REPLAYS_APART_MS = 500 };

static void send_from(struct core *c, struct seq *s, uint32_t pos, bool is_open,
                      uint32_t n_delivered) {
    const struct req *req = s->req;
    uint32_t n_output = req_n_output(s), n = n_output - pos;
    bool is_end = s->finish != FINISH_NONE;
    uint32_t first_prompt = is_open ? 0 : s->n_prompts_sent;
    struct msg m = {
        .kind = MSG_tokens,
        .tokens =
            {
                .name = req->name,
                .sample = s->sample,
                .pos = pos,
                .ids = {s->ids + req->n_prompt + pos, n},
                .is_open = is_open,
                .n_prompt = req->n_prompt,
                .n_cached = req->n_cached,
                .finish = s->finish,
                .matched_id = s->matched_id,
                .prompts = {s->prompts + first_prompt, s->n_prompts - first_prompt},
                .n_delivered = n_delivered,
                .n_retractions = req->n_retractions,
                .replica = req->replica,
                .queue_us = req->queue_us,
            },
    };
    if (is_open) {
        m.tokens.textual = req->textual;
        if (s->sample == 0) m.tokens.prompt_ids = (struct msg_u32s){s->ids, req->n_prompt};
    }
    if (s->logprobs) m.tokens.logprobs = (struct msg_f32s){s->logprobs + pos, n};
    if (s->tops) {
        m.tokens.tops.p = s->tops + pos;
        m.tokens.tops.n = n;
    }
    if (s->id_tops) {
        m.tokens.id_logprobs.p = s->id_tops + pos;
        m.tokens.id_logprobs.n = n;
    }
    if (is_end) m.tokens.vector = s->vector;
    c->sink.send(c->sink.ctx, req->detok, &m);
    s->is_opened = true;
    s->n_sent = n_output;
    s->n_prompts_sent = s->n_prompts;
    s->is_end_sent = is_end;
}

void deliver_new(struct core *c, struct seq *s) {
    if (!s->req->detok) return; /* deliver_assign sends all when one comes */
    bool has_news = req_n_output(s) > s->n_sent || s->n_prompts > s->n_prompts_sent ||
                    (s->finish != FINISH_NONE && !s->is_end_sent);
    if (!has_news) return;
    if (s->is_opened)
        send_from(c, s, s->n_sent, false, 0);
    else
        send_from(c, s, 0, true, s->n_acked);
}

void deliver_all(struct core *c, struct seq *s, uint32_t n_delivered) {
    if (!s->req->detok) return;
    bool is_fresh = req_n_output(s) == 0 && s->n_prompts == 0 && s->finish == FINISH_NONE;
    s->is_opened = false;
    if (!is_fresh) send_from(c, s, 0, true, BY_MIN(n_delivered, req_n_output(s)));
}

void deliver_assign(struct core *c, struct req *req) {
    struct core_peer *best = NULL;
    for (BY_LIST_EACH(it, &c->peers)) {
        struct core_peer *p = BY_CONTAINER_OF(it, struct core_peer, link);
        if (p->role == ROLE_DETOKENIZER && (!best || p->n_reqs < best->n_reqs)) best = p;
    }
    if (!best) {
        by_list_push(&c->detokless, &req->in_detok);
        return;
    }
    req->detok = best->id;
    best->n_reqs++;
    by_list_push(&best->reqs, &req->in_detok);
    for (uint32_t i = 0; i < req->n_seqs; i++)
        deliver_all(c, &req->seqs[i], req->seqs[i].n_acked);
}

void deliver_unassign(struct core *c, struct req *req) {
    if (by_list_linked(&req->in_detok)) by_list_remove(&req->in_detok);
    struct core_peer *p = core_peer(c, req->detok);
    if (p) p->n_reqs--;
    req->detok = 0;
}

bool deliver_again(struct core *c, struct req *req) {
    if (c->now_ns > req->replayed_ns + REPLAYS_APART_MS * BY_NS_PER_MS) req->n_replays = 0;
    req->replayed_ns = c->now_ns;
    if (++req->n_replays > REPLAYS_MAX) return false;
    for (uint32_t i = 0; i < req->n_seqs; i++)
        deliver_all(c, &req->seqs[i], req->seqs[i].n_acked);
    return true;
}
