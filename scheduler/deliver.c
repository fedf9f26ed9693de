/* deliver.c - output ids go to the detokenizer; all of them again when it asks or is a new one. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "scheduler/core_state.h"

/* A detokenizer that answers each replay with another cancel is not going to get better. One whose router comes and goes
 * asks as often, but not as fast. */
enum { REPLAYS_MAX = 16, REPLAYS_APART_MS = 500 };

/* A text that kills whoever reads it (DESIGN D5) would kill the next detokenizer, too, and so on. What two were lost with, and
 * is not known to have been read since, is a suspect: of a detokenizer's suspects one at a time is sent, and nothing else,
 * until `reading` says that it is read. One that three were lost at proves itself guilty.
 *
 *     assigned ─▶ reading? ─all before it is read─▶ its tokens, reading? ─▶ the next suspect, or all go on as ever
 *
 * A detokenizer whose router is not there yet has not written it out, and says so: it will ask for it again. */
enum { SUSPECT_LOST = 2, KILLED_MAX = 3 };

static bool is_held(const struct core *c, const struct req *req) {
    if (req->is_unread) return true;
    if (!c->n_probing) return false;
    const struct core_peer *p = core_peer(c, req->detok);
    return p && p->probe && !(p->probe == req && p->is_probe_sent);
}

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
    /* all is sent when one comes, or it is its turn */
    if (!s->req->detok || is_held(c, s->req)) return;
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
    if (is_held(c, s->req)) {
        s->n_sent = s->n_prompts_sent = 0;
        s->is_end_sent = false;
        return;
    }
    if (!is_fresh) send_from(c, s, 0, true, BY_MIN(n_delivered, req_n_output(s)));
}

static void deliver_req(struct core *c, struct req *req) {
    for (uint32_t i = 0; i < req->n_seqs; i++)
        deliver_all(c, &req->seqs[i], req->seqs[i].n_acked);
}

/* ---- suspects ---- */

static void clear_detoks(struct req *req) {
    req->n_detoks_lost = req->n_detoks_killed = 0;
}

static void ask_read(struct core *c, struct core_peer *p) {
    p->n_asked++;
    struct msg m = {.kind = MSG_reading, .reading = {.name = p->probe->name}};
    c->sink.send(c->sink.ctx, p->id, &m);
}

/* The next suspect, if there is one; else all go on that had to wait. */
static void probe_next(struct core *c, struct core_peer *p) {
    p->probe = NULL;
    p->is_probe_sent = false;
    for (BY_LIST_EACH(it, &p->reqs)) {
        struct req *req = BY_CONTAINER_OF(it, struct req, in_detok);
        if (req->n_detoks_lost < SUSPECT_LOST || req->is_unread) continue;
        p->probe = req;
        return;
    }
    c->n_probing--;
    for (BY_LIST_EACH(it, &p->reqs)) {
        struct req *req = BY_CONTAINER_OF(it, struct req, in_detok);
        for (uint32_t i = 0; i < req->n_seqs; i++)
            deliver_new(c, &req->seqs[i]);
    }
}

void deliver_read(struct core *c, struct core_peer *p, const struct msg_reading *m) {
    if (!p->n_asked || --p->n_asked || !p->probe) return; /* it was asked again since */
    if (p->is_probe_sent && m->is_done) clear_detoks(p->probe);
    p->probe->is_unread = p->is_probe_sent && !m->is_done;
    probe_next(c, p);
    if (!p->probe) return;
    p->is_probe_sent = true;
    deliver_req(c, p->probe);
    ask_read(c, p);
}

/* req is about to be sent to p: if it is a suspect, in its turn. */
static void look_at(struct core *c, struct core_peer *p, struct req *req) {
    req->is_unread = false;
    if (req->n_detoks_lost < SUSPECT_LOST || p->probe) return;
    p->probe = req;
    p->is_probe_sent = false;
    c->n_probing++;
    ask_read(c, p);
}

struct req *deliver_lost(struct core *c, struct core_peer *p) {
    struct req *guilty = NULL;
    for (BY_LIST_EACH(it, &p->reqs))
        BY_CONTAINER_OF(it, struct req, in_detok)->n_detoks_lost++;
    if (!p->probe) return NULL;
    if (p->is_probe_sent && ++p->probe->n_detoks_killed >= KILLED_MAX) guilty = p->probe;
    p->probe = NULL;
    c->n_probing--;
    if (!guilty) return NULL;
    by_error("each detokenizer that read a request was lost, and it is refused rid=%llu lost=%u",
             (unsigned long long)guilty->name.rid, guilty->n_detoks_lost);
    for (BY_LIST_EACH(it, &p->reqs)) /* they waited behind it */
        clear_detoks(BY_CONTAINER_OF(it, struct req, in_detok));
    return guilty;
}

/* ---- who reads it ---- */

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
    look_at(c, best, req);
    deliver_req(c, req);
}

void deliver_unassign(struct core *c, struct req *req) {
    if (by_list_linked(&req->in_detok)) by_list_remove(&req->in_detok);
    struct core_peer *p = core_peer(c, req->detok);
    req->detok = 0;
    if (!p) return;
    p->n_reqs--;
    if (p->probe != req) return;
    probe_next(c, p);
    if (p->probe) ask_read(c, p);
}

bool deliver_again(struct core *c, struct req *req) {
    if (c->now_ns > req->replayed_ns + REPLAYS_APART_MS * BY_NS_PER_MS) req->n_replays = 0;
    req->replayed_ns = c->now_ns;
    if (++req->n_replays > REPLAYS_MAX) return false;
    struct core_peer *p = core_peer(c, req->detok);
    if (p) look_at(c, p, req);
    deliver_req(c, req);
    if (p && p->probe == req && p->is_probe_sent) ask_read(c, p);
    return true;
}
