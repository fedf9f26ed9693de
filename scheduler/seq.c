#include "scheduler/seq.h"

#include "common/base/check.h"
#include "scheduler/req.h"

#define BIT(state) (uint8_t)(1u << (state))

/* legal[from] has the bits of the states one may go to. */
static const uint8_t legal[SEQ_N_STATES] = {
    [SEQ_NEW] = BIT(SEQ_WAITING) | BIT(SEQ_DONE),
    [SEQ_WAITING] = BIT(SEQ_PREFILL) | BIT(SEQ_PAUSED) | BIT(SEQ_DONE),
    [SEQ_PREFILL] =
        BIT(SEQ_DECODE) | BIT(SEQ_WAITING) | BIT(SEQ_PAUSED) | BIT(SEQ_LEAVING) | BIT(SEQ_DONE),
    [SEQ_DECODE] = BIT(SEQ_WAITING) | BIT(SEQ_PAUSED) | BIT(SEQ_LEAVING) | BIT(SEQ_DONE),
    [SEQ_PAUSED] =
        BIT(SEQ_WAITING) | BIT(SEQ_PREFILL) | BIT(SEQ_DECODE) | BIT(SEQ_LEAVING) | BIT(SEQ_DONE),
    [SEQ_LEAVING] = BIT(SEQ_WAITING) | BIT(SEQ_PAUSED) | BIT(SEQ_DONE),
    [SEQ_DONE] = 0,
};

static const char *const names[SEQ_N_STATES] = {
    [SEQ_NEW] = "new",       [SEQ_WAITING] = "waiting", [SEQ_PREFILL] = "prefill",
    [SEQ_DECODE] = "decode", [SEQ_PAUSED] = "paused",   [SEQ_LEAVING] = "leaving",
    [SEQ_DONE] = "done",
};

const char *seq_state_name(enum seq_state state) {
    return state < SEQ_N_STATES ? names[state] : "?";
}

void seq_move(struct seq *s, enum seq_state to, struct by_list *list) {
    by_assert(legal[s->state] & BIT(to));
    by_trace("seq %llu/%u: %s -> %s", (unsigned long long)s->req->name.rid, s->sample,
             names[s->state], names[to]);
    if (by_list_linked(&s->link)) by_list_remove(&s->link);
    s->state = to;
    by_list_push(list, &s->link);
}

bool seq_check(const struct seq *s, uint32_t page_size) {
    bool may_have_slot = s->state == SEQ_PREFILL || s->state == SEQ_DECODE ||
                         s->state == SEQ_PAUSED || s->state == SEQ_LEAVING;
    bool must_have_slot = may_have_slot && s->state != SEQ_PAUSED;
    if (!seq_has_slot(s)) {
        return !must_have_slot && s->n_pages == 0 && s->n_inflight == 0 && s->n_pending == 0 &&
               s->n_sched == 0 && !s->at.node && !s->is_void;
    }
    if (!may_have_slot || !s->replica || !s->at.node) return false;
    if (s->n_cached > s->n_done || s->n_done > s->n_gone || s->n_gone > s->n_sched) return false;
    for (uint32_t i = 0; i < s->n_keeps; i++) {
        if (s->keep_at[i] <= (i ? s->keep_at[i - 1] : s->n_gone) || s->keep_at[i] % page_size)
            return false;
    }
    if (s->n_sched > (uint64_t)s->n_pages * page_size) return false;
    if (s->at.n_pages > s->n_pages) return false;
    if (s->n_pending > s->n_inflight) return false;
    if (s->state == SEQ_LEAVING) return s->n_inflight > 0;
    return s->n_total + s->n_pending <= BY_MAX(s->n_max, s->n_total);
}
