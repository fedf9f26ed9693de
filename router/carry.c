#include "router/carry.h"

#include "common/base/log.h"
#include "common/base/mem.h"

struct link {
    struct by_list node;
    uint32_t id;
    enum role role;
    uint32_t n_entries; /* live ones that were sent to it */
};

void carry_init(struct carry *c, const struct carry_options *o) {
    *c = (struct carry){.o = *o};
    by_list_init(&c->links);
}

void carry_release(struct carry *c) {
    for (BY_LIST_EACH_SAFE(node, next, &c->links))
        by_free(BY_CONTAINER_OF(node, struct link, node));
    by_free(c->untold);
    *c = (struct carry){0};
}

/* ---- links ---- */

static struct link *find(const struct carry *c, uint32_t id) {
    for (BY_LIST_EACH(node, &c->links)) {
        struct link *l = BY_CONTAINER_OF(node, struct link, node);
        if (l->id == id) return l;
    }
    return NULL;
}

static struct link *least_busy(const struct carry *c, enum role role) {
    struct link *best = NULL;
    for (BY_LIST_EACH(node, &c->links)) {
        struct link *l = BY_CONTAINER_OF(node, struct link, node);
        if (l->role == role && (!best || l->n_entries < best->n_entries)) best = l;
    }
    return best;
}

bool carry_has(const struct carry *c, enum role role) {
    return least_busy(c, role) != NULL;
}

uint32_t carry_tokenizer(const struct carry *c) {
    const struct link *l = least_busy(c, ROLE_TOKENIZER_WORKER);
    return l ? l->id : 0;
}

/* ---- requests out ---- */

static void leave_link(struct carry *c, struct journal_entry *e) {
    struct link *l = e->tokenizer ? find(c, e->tokenizer) : NULL;
    if (l) l->n_entries--;
    e->tokenizer = 0;
    e->is_unsent = false;
}

static bool is_unread(const struct journal_entry *e) {
    return !e->is_read && !e->has_text;
}

void carry_submit(struct carry *c, struct journal_entry *e) {
    struct link *l = least_busy(c, ROLE_TOKENIZER_WORKER);
    leave_link(c, e);
    e->is_unsent = !l;
    if (!l) return;
    struct by_arena arena;
    struct msg m = {.kind = MSG_generate};
    by_arena_init(&arena, 0);
    journal_fill_resume(e, &arena, &m.generate);
    m.generate.n_lost = is_unread(e) ? e->n_lost : 0;
    e->is_being_read = false;
    e->tokenizer = l->id;
    e->n_sent++;
    l->n_entries++;
    c->o.send(c->o.ctx, l->id, &m);
    by_arena_release(&arena);
}

/* Submits every entry that `wants` picks, in order of arrival. Sending calls no handler: the journal stands still. */
static void submit_all(struct carry *c, bool (*wants)(const struct journal_entry *e, uint32_t link),
                       uint32_t link) {
    for (BY_LIST_EACH(node, &c->o.journal->in_order)) {
        struct journal_entry *e = BY_CONTAINER_OF(node, struct journal_entry, in_order);
        if (wants(e, link)) carry_submit(c, e);
    }
}

static bool is_owed(const struct journal_entry *e, uint32_t link) {
    (void)link;
    return e->n_finished < e->n_samples;
}

static bool is_unsent(const struct journal_entry *e, uint32_t link) {
    (void)link;
    return e->is_unsent;
}

/* Text that came since is no proof that the scheduler has it: it may be of an earlier copy, with a scheduler that is gone. */
static bool is_with(const struct journal_entry *e, uint32_t link) {
    return e->tokenizer == link && is_owed(e, link);
}

void carry_link_up(struct carry *c, uint32_t id, enum role role) {
    by_assert(id && !find(c, id));
    struct link *l = by_alloc(sizeof *l);
    l->id = id;
    l->role = role;
    by_list_push(&c->links, &l->node);
    if (role == ROLE_TOKENIZER_WORKER) submit_all(c, is_unsent, 0);
}

/* ---- what the scheduler is told ---- */

static void tell_scheduler(struct carry *c, const struct msg *m) {
    if (c->has_scheduler) c->o.send(c->o.ctx, CARRY_SCHEDULER, m);
}

/* The request is over on this side. */
static void tell_end(struct carry *c, struct carry_end end) {
    struct msg_name name = {.epoch = c->o.journal->epoch, .rid = end.rid};
    struct msg m = {.kind = end.is_cancel ? MSG_cancel : MSG_ack};
    if (end.is_cancel)
        m.cancel = (struct msg_cancel){.name = name, .code = BY_ECANCELLED};
    else
        m.ack = (struct msg_ack){.name = name, .is_final = true};
    if (c->has_scheduler) {
        c->o.send(c->o.ctx, CARRY_SCHEDULER, &m);
        return;
    }
    if (c->n_untold == CARRY_UNTOLD_MAX) return;
    if (c->n_untold == c->untold_cap) {
        c->untold_cap = BY_MAX(16u, 2 * c->untold_cap);
        c->untold = by_realloc_array(c->untold, c->untold_cap, sizeof *c->untold);
    }
    c->untold[c->n_untold++] = end;
}

/* ---- losses ---- */

/* Who had begun to read one died of it, or was lost for another reason just then; of the others nothing is known. Returns
 * the one that so many were lost at. */
static struct journal_entry *count_loss(struct carry *c, uint32_t id) {
    struct journal_entry *guilty = NULL;
    for (BY_LIST_EACH(node, &c->o.journal->in_order)) {
        struct journal_entry *e = BY_CONTAINER_OF(node, struct journal_entry, in_order);
        if (!is_with(e, id) || !is_unread(e)) continue;
        e->n_lost++;
        e->n_killed += e->is_being_read;
        if (e->is_being_read && e->n_killed >= CARRY_KILLED_MAX) guilty = e;
    }
    return guilty;
}

static void clear_others(struct carry *c, uint32_t id) {
    for (BY_LIST_EACH(node, &c->o.journal->in_order)) {
        struct journal_entry *e = BY_CONTAINER_OF(node, struct journal_entry, in_order);
        if (is_with(e, id)) e->n_lost = e->n_killed = 0;
    }
}

static void refuse_poison(struct carry *c, struct journal_entry *e) {
    struct msg_failed f = {.name = e->request.name,
                           .code = BY_EPOISON,
                           .text = BY_STR("each tokenizer worker that read it has died")};
    by_error("each tokenizer worker that read a request was lost, and it is refused rid=%llu "
             "lost=%u",
             (unsigned long long)e->rid, e->n_lost);
    clear_others(c, e->tokenizer); /* they were behind it */
    leave_link(c, e);
    tell_end(c, (struct carry_end){.rid = e->rid, .is_cancel = true});
    c->o.failed(c->o.ctx, e, &f);
}

void carry_link_down(struct carry *c, uint32_t id, bool is_gone) {
    struct link *l = find(c, id);
    if (!l) return;
    by_list_remove(&l->node);
    by_free(l);
    struct journal_entry *guilty = is_gone ? count_loss(c, id) : NULL;
    if (guilty) refuse_poison(c, guilty);
    submit_all(c, is_with, id);
    for (BY_LIST_EACH(node, &c->o.journal->in_order)) { /* those that have ended */
        struct journal_entry *e = BY_CONTAINER_OF(node, struct journal_entry, in_order);
        if (e->tokenizer == id) e->tokenizer = 0;
    }
}

void carry_scheduler_down(struct carry *c) {
    c->has_scheduler = false;
}

void carry_scheduler_up(struct carry *c) {
    c->has_scheduler = true;
    for (uint32_t i = 0; i < c->n_untold; i++)
        tell_end(c, c->untold[i]);
    c->n_untold = 0;
    submit_all(c, is_owed, 0);
}

/* ---- frames in ---- */

static void on_text(struct carry *c, const struct msg_text *t) {
    struct journal_entry *e = journal_find(c->o.journal, t->name);
    if (!e) { /* a copy that came late runs for nobody; of one that is over the scheduler takes no notice */
        if (t->name.epoch == c->o.journal->epoch)
            tell_end(c, (struct carry_end){.rid = t->name.rid, .is_cancel = true});
        return;
    }
    enum journal_result result = journal_take(e, t);
    if (result == JOURNAL_GAP && !e->is_asked_again) {
        e->is_asked_again = true;
        carry_submit(c, e);
    }
    if (result != JOURNAL_NEWS) return;
    e->is_asked_again = false;
    /* a scheduler that does not know yet */
    if (e->is_paused && !t->finish) carry_pause(c, e, true);
    c->o.news(c->o.ctx, e, t->sample);
}

static void on_failed(struct carry *c, const struct msg_failed *f) {
    struct journal_entry *e = journal_find(c->o.journal, f->name);
    if (!e) return;
    leave_link(c, e);
    if (e->n_sent > 1) /* another copy may have fared better */
        tell_end(c, (struct carry_end){.rid = e->rid, .is_cancel = true});
    c->o.failed(c->o.ctx, e, f);
}

/* The scheduler does not know this request any more: what the client has of it goes along, and it starts again. */
static void on_cancel(struct carry *c, const struct msg_cancel *m) {
    struct journal_entry *e = journal_find(c->o.journal, m->name);
    if (e) carry_submit(c, e);
}

/* It asks, or it has done. What was sent elsewhere meanwhile is not wanted there. */
static void on_reading(struct carry *c, uint32_t link, const struct msg_reading *m) {
    struct journal_entry *e = journal_find(c->o.journal, m->name);
    bool is_wanted = e && e->tokenizer == link;
    if (is_wanted) e->is_being_read = !m->is_done;
    if (e && m->is_done) e->is_read = true;
    if (m->is_done) return;
    struct msg out = {.kind = MSG_reading, .reading = {.name = m->name, .is_done = !is_wanted}};
    c->o.send(c->o.ctx, link, &out);
}

void carry_on_message(struct carry *c, uint32_t link, const struct msg *m) {
    if (m->kind == MSG_text)
        on_text(c, &m->text);
    else if (m->kind == MSG_failed)
        on_failed(c, &m->failed);
    else if (m->kind == MSG_cancel)
        on_cancel(c, &m->cancel);
    else if (m->kind == MSG_reading)
        on_reading(c, link, &m->reading);
}

/* ---- control out ---- */

void carry_cancel(struct carry *c, struct journal_entry *e) {
    leave_link(c, e);
    tell_end(c, (struct carry_end){.rid = e->rid, .is_cancel = true});
}

void carry_ack(struct carry *c, struct journal_entry *e, uint32_t sample, bool is_final) {
    struct msg m = {
        .kind = MSG_ack,
        .ack = {.name = e->request.name, .sample = sample, .n_tokens = e->samples[sample].n_ids}};
    if (!is_final) {
        tell_scheduler(c, &m);
        return;
    }
    leave_link(c, e);
    tell_end(c, (struct carry_end){.rid = e->rid});
}

void carry_pause(struct carry *c, struct journal_entry *e, bool is_paused) {
    e->is_paused = is_paused;
    struct msg m = {.kind = is_paused ? MSG_pause : MSG_unpause};
    if (is_paused)
        m.pause.name = e->request.name;
    else
        m.unpause.name = e->request.name;
    tell_scheduler(c, &m);
}

bool carry_check(const struct carry *c) {
    for (BY_LIST_EACH(node, &c->links)) {
        const struct link *l = BY_CONTAINER_OF(node, struct link, node);
        uint32_t n = 0;
        for (BY_LIST_EACH(at, &c->o.journal->in_order)) {
            const struct journal_entry *e = BY_CONTAINER_OF(at, struct journal_entry, in_order);
            n += e->tokenizer == l->id;
            if (e->tokenizer && (e->is_unsent || !find(c, e->tokenizer))) return false;
        }
        if (n != l->n_entries) return false;
    }
    return true;
}
