/* keep.c - behind which tokens a model's state is kept, so that others can start there (states.h).
 *
 *     prompt [ in the tree, with a state | in the tree | own ........ | rest ] output ....|....|..
 *                        it starts here ^      branch ^     last page ^           rolling ^
 *
 * The last page: the same prompt again, and a chat's next turn. The branch: others begin alike up to there, as the tree has
 * learned. Rolling: what it writes is part of the next turn; its own last one moves along. Whoever waits for what it computes
 * may ask for one more. The state that a chat's turn started from goes next once the turn has left one. A state counts when
 * its step has come back well, behind the page that the tree holds there. */
#include "scheduler/core_state.h"

/* False: there is no room for one more. */
static bool ask(struct seq *s, uint32_t at) {
    uint32_t i = s->n_keeps;
    while (i > 0 && s->keep_at[i - 1] > at)
        i--;
    if (i > 0 && s->keep_at[i - 1] == at) return true;
    if (s->n_keeps == SEQ_KEEPS) return false;
    memmove(s->keep_at + i + 1, s->keep_at + i, (s->n_keeps - i) * sizeof *s->keep_at);
    s->keep_at[i] = at;
    s->n_keeps++;
    return true;
}

void keep_plan(const struct core *c, struct seq *s, uint32_t n_matched) {
    s->n_keeps = 0;
    s->kept_at = s->n_cached;
    if (!s->replica->states) return;
    uint32_t branch = n_matched * c->page_size, last = s->n_total - 1, from = s->n_cached;
    last -= last % c->page_size;
    if (branch >= from + CORE_SHARE_LEAST && ask(s, branch)) from = branch;
    if (last >= from + CORE_SHARE_LEAST) ask(s, last);
}

uint32_t keep_meet(const struct core *c, struct seq *o, uint32_t n_common) {
    uint32_t want = n_common - n_common % c->page_size, best = 0;
    if (o->kept_at > o->n_done && o->kept_at <= want) best = o->kept_at; /* on its way */
    for (uint32_t i = 0; i < o->n_keeps && o->keep_at[i] <= want; i++)
        best = o->keep_at[i];
    if (best > 0 && want - best < CORE_SHARE_LEAST) return best;
    return want > o->n_gone && ask(o, want) ? want : best;
}

static void put(struct replica *r, struct flight_row *row, uint32_t at, bool is_rolling) {
    struct replica_build *b = &r->build;
    struct flight *f = b->flight;
    struct seq *s = row->seq;
    if (is_rolling && s->rolled_stamp &&
        states_stamp(r->states, s->rolled) == s->rolled_stamp) /* nobody else has used it */
        states_drop(r->states, s->rolled);
    uint32_t number = states_take(r->states);
    if (number == STATES_NONE) return;
    b->keep_slots[f->n_keeps] = s->slot;
    b->keep_at[f->n_keeps] = at;
    b->keep_states[f->n_keeps] = number;
    f->keeps[f->n_keeps++] =
        (struct flight_keep){.at = at, .number = number, .is_rolling = is_rolling};
    row->n_keeps++;
    s->kept_at = at;
}

void keep_put(const struct core *c, struct replica *r) {
    struct flight *f = r->build.flight;
    uint32_t every = c->opt.state_every ? c->opt.state_every : (uint32_t)CORE_STATE_EVERY;
    for (uint32_t i = 0; i < f->n_rows; i++) {
        struct flight_row *row = &f->rows[i];
        struct seq *s = row->seq;
        uint32_t n = 0;
        for (; n < s->n_keeps && s->keep_at[n] <= s->n_sched; n++)
            put(r, row, s->keep_at[n], false);
        s->n_keeps -= n;
        memmove(s->keep_at, s->keep_at + n, s->n_keeps * sizeof *s->keep_at);
        bool is_decode = r->states && row->n_tokens == 1 && row->is_sampling;
        if (is_decode && s->n_sched % c->page_size == 0 && s->n_sched >= s->kept_at + every)
            put(r, row, s->n_sched, true);
        s->n_gone = s->n_sched;
    }
}

void keep_landed(struct core *c, struct seq *s, const struct flight_keep *keeps, uint32_t n) {
    struct states *st = s->replica->states;
    if (n > 0) batch_file(c, s); /* a state stands behind a page of the tree */
    for (const struct flight_keep *k = keeps; k < keeps + n; k++) {
        if (k->at > s->at.n_pages * c->page_size) { /* output that was cut off since */
            states_give(st, k->number);
            continue;
        }
        radix_keep(c->tree, s->at, s->replica->index, k->at / c->page_size, k->number,
                   s->from_stamp != 0);
        if (s->from_stamp && states_stamp(st, s->from) == s->from_stamp)
            states_pass_on(st, s->from);
        if (!k->is_rolling) continue;
        s->rolled = k->number;
        s->rolled_stamp = states_stamp(st, k->number); /* 0: somebody else's is there already */
    }
}

void keep_void(struct replica *r, const struct flight_keep *keeps, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        states_give(r->states, keeps[i].number);
}
