/* admit.c - may this one enter now? Slots, pages, prompt tokens, and an estimate of what is to come.
 *
 *     pages free + evictable            >=  its prompt + its expected output
 *       + of its match, locked by others      + what the running ones have left of theirs
 *
 * The expected output is a share (new_token_ratio) of max_new_tokens: it falls slowly while all goes well, and jumps
 * when a sequence has to be retracted. */
#include "common/base/check.h"
#include "common/base/metrics.h"
#include "scheduler/core_state.h"

enum {
    NEW_TOKENS_CLIP = 4096, /* nobody is expected to write more than that */
    RATIO_STEPS = 600,      /* from the highest to the lowest ratio */
    RESERVE_IDS = 8192,     /* output ids that a log has room for from the start */
    DECODE_LOAD = 16,       /* prompt tokens that weigh as much as one running sequence */
};
#define RATIO_HIGH 0.7
#define RATIO_LOW 0.098 /* 0.14 of the highest */

static double ratio_high(const struct core *c) {
    return BY_MIN(RATIO_HIGH * c->opt.conservativeness, 1.0);
}

void admit_ratio_decay(struct core *c) {
    double low = RATIO_LOW * c->opt.conservativeness, step = (ratio_high(c) - low) / RATIO_STEPS;
    c->new_token_ratio = BY_MAX(c->new_token_ratio - step, low);
}

/* After a retraction: as if each running one had 20 more tokens than it has, of all it may write. */
void admit_ratio_bump(struct core *c, const struct replica *r) {
    enum { AHEAD = 20 };
    uint64_t n_output = 0, n_max = 1;
    for (BY_LIST_EACH(it, &r->decode)) {
        const struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        n_output += req_n_output(s) + AHEAD;
        n_max += s->n_max - s->req->n_prompt;
    }
    c->new_token_ratio = BY_MIN(BY_MAX(c->new_token_ratio, (double)n_output / (double)n_max), 1.0);
}

static uint32_t expected(const struct core *c, const struct seq *s) {
    uint32_t left = BY_MIN(s->n_max - s->n_total, (uint32_t)NEW_TOKENS_CLIP);
    return (uint32_t)(left * c->new_token_ratio);
}

/* Pages that s will still take, beyond what it has. */
static uint32_t pages_to_come(const struct core *c, const struct seq *s) {
    uint32_t n = BY_DIV_UP(s->n_total + expected(c, s), c->page_size);
    return n > s->n_pages ? n - s->n_pages : 0;
}

void admit_enqueue(struct core *c, struct seq *s) {
    /* Those who come back are older than nearly all who wait: look from the front. */
    bool is_new = s->state == SEQ_NEW;
    seq_move(s, SEQ_WAITING, &c->waiting);
    s->mark = (struct radix_mark){0};
    s->urgency = s->req->routing.priority;
    c->n_waiting++;
    if (!is_new) {
        c->must_look |= !hold_here(c, s);
        by_list_remove(&s->link);
        struct by_list *at = &c->waiting;
        while (at->next != &c->waiting &&
               BY_CONTAINER_OF(at->next, struct seq, link)->req->order <= s->req->order)
            at = at->next;
        by_list_insert_after(at, &s->link);
    }
    policy_push(c, s);
}

void admit_dequeue(struct core *c, struct seq *s) {
    c->n_waiting--;
    policy_pull(c, s);
}

/* ---- one candidate ---- */

/* Pages of s that may come from the tree: at least one token must be computed to have something to sample from, a wanted
 * prompt logprob needs the position before it, and a mean over all positions all of them. */
static uint32_t match_max(const struct core *c, const struct replica *r, const struct seq *s) {
    if (c->opt.no_radix_cache || r->capacity.no_prefix_reuse) return 0;
    if (s->req->sampling.vector && c->model.pools_all) return 0;
    uint32_t n = s->n_total - 1;
    if (s->req->sampling.logprob_start >= 0 && s->prompts_next < s->req->n_prompt)
        n = BY_MIN(n, s->prompts_next - 1);
    return n / c->page_size;
}

static uint32_t common_ids(const struct seq *a, const struct seq *b, uint32_t n) {
    uint32_t i = 0;
    while (i < n && a->ids[i] == b->ids[i])
        i++;
    return i;
}

/* What each replica has of that in the tree; returns how many pages of s may come from there on r. */
static uint32_t peek(const struct core *c, const struct replica *r, struct seq *s,
                     struct radix_held *held /* [n_replicas], zeros */) {
    uint32_t n_pages_max = match_max(c, r, s);
    if (n_pages_max > 0)
        radix_peek(c->tree, s->req->routing.extra_key, s->ids, n_pages_max, &s->mark, held);
    return n_pages_max;
}

uint32_t admit_n_cached(const struct core *c, const struct replica *r, struct seq *s) {
    struct radix_held held[RADIX_REPLICAS_MAX] = {0};
    peek(c, r, s, held);
    return held[r->index].n_pages * c->page_size;
}

/* Is o computing more of the n_common ids that s shares with it than the n_pages which are in the tree? Then s would find
 * that there a little later. */
static bool leads(const struct core *c, const struct seq *o, const struct seq *s, uint32_t n_common,
                  uint32_t n_pages) {
    if (o->state != SEQ_PREFILL && o->state != SEQ_DECODE) return false;
    if (o->n_done >= o->req->n_prompt || o->is_void) return false;
    uint32_t gain = n_common / c->page_size;
    gain = gain > n_pages ? (gain - n_pages) * c->page_size : 0;
    return gain >= CORE_SHARE_LEAST || (gain > 0 && o->req == s->req);
}

/* s waits for o: those who are less urgent than s shall not keep o waiting, either. */
static bool follow(const struct seq *s, struct seq *o) {
    o->urgency = BY_MAX(o->urgency, s->urgency);
    return true;
}

/* The leader that was found for s the last time is still at it. */
static bool is_still_led(const struct core *c, const struct replica *r, const struct seq *s) {
    const struct seq_leader *l = &s->leader;
    struct seq *o = l->slot < r->n_slots ? r->slots[l->slot] : NULL;
    if (!o || o->req->order != l->order || o->sample != l->sample) return false;
    /* Of pages some are of use before all are there; of a state nothing. */
    uint32_t n_pages = o->n_done / c->page_size;
    if (r->states) n_pages = o->n_done < l->n_common ? 0 : UINT32_MAX;
    return leads(c, o, s, l->n_common, n_pages) && follow(s, o);
}

static bool find_leader(const struct core *c, const struct replica *r, struct seq *s,
                        uint32_t n_pages, uint32_t n_pages_max) {
    const struct by_list *lists[] = {&r->prefill, &r->decode};
    size_t at = (size_t)n_pages * c->page_size;
    for (uint32_t i = 0; i < BY_COUNTOF(lists); i++) {
        for (BY_LIST_EACH(it, lists[i])) {
            struct seq *o = BY_CONTAINER_OF(it, struct seq, link);
            uint32_t n = BY_MIN(n_pages_max * c->page_size, o->req->n_prompt);
            if (!leads(c, o, s, n, n_pages)) continue; /* whatever they share */
            /* Most share what is in the tree and nothing behind it: look there first. */
            if (memcmp(o->ids + at, s->ids + at, c->page_size * sizeof *s->ids) != 0) continue;
            if (!by_str_eq(o->req->routing.extra_key, s->req->routing.extra_key)) continue;
            n = common_ids(o, s, n);
            if (r->states && leads(c, o, s, n, n_pages)) n = keep_meet(c, o, n);
            if (!leads(c, o, s, n, n_pages)) continue;
            s->leader = (struct seq_leader){o->req->order, o->sample, o->slot, n};
            return follow(s, o);
        }
    }
    return false;
}

enum verdict { ENTERS, LATER /* let others go first */, NO_ROOM, ENDED };

struct room {        /* what is left, while candidates are looked at */
    uint32_t budget; /* prompt tokens of this step */
    /* pages that the running sequences of a replica will still take; has_reserved: a bit for each that is known */
    uint64_t n_reserved[RADIX_REPLICAS_MAX], has_reserved;
    uint64_t load[RADIX_REPLICAS_MAX]; /* with several replicas: work each has, in prompt tokens */
};

/* Work before a newcomer would get anywhere: prompts to compute, and decodes that share each step with it. */
static uint64_t load_of(const struct replica *r) {
    uint64_t n = (uint64_t)r->n_running * DECODE_LOAD;
    for (BY_LIST_EACH(it, &r->prefill)) {
        const struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        n += s->n_total - s->n_sched;
    }
    return n;
}

static struct room room_of(const struct core *c, uint32_t budget) {
    struct room room = {.budget = budget};
    for (uint32_t i = 0; c->n_replicas_up > 1 && i < c->opt.n_replicas; i++)
        room.load[i] = load_of(c->replicas[i]);
    return room;
}

static uint64_t reserved(const struct core *c, const struct replica *r, struct room *room) {
    const struct by_list *lists[] = {&r->prefill, &r->decode};
    uint64_t bit = UINT64_C(1) << r->index, n = 0;
    if (room->has_reserved & bit) return room->n_reserved[r->index];
    for (uint32_t i = 0; i < BY_COUNTOF(lists); i++) {
        for (BY_LIST_EACH(it, lists[i]))
            n += pages_to_come(c, BY_CONTAINER_OF(it, struct seq, link));
    }
    room->has_reserved |= bit;
    return room->n_reserved[r->index] = n;
}

/* May s have its prompt, and pages for what is expected of it, without taking them from those who run? */
static bool has_room(const struct core *c, const struct replica *r, const struct seq *s,
                     struct radix_held hit, struct room *room) {
    if (r->n_free_slots == 0) return false;
    /* What it matches is part of both: it is evictable until s locks it, or locked by others. */
    uint64_t need = BY_DIV_UP(s->n_total + expected(c, s), c->page_size);
    uint64_t have =
        (uint64_t)pages_n_free(r->pages) + radix_n_evictable(c->tree, r->index) + hit.n_locked;
    if (have <= hit.n_pages) return false; /* not even one page beyond the match */
    if (c->model.is_encoder) return have >= need && s->n_total <= room->budget; /* all at once */
    if (r->n_running == 0 && by_list_empty(&r->leaving)) return true;
    return have >= need + reserved(c, r, room);
}

/* With several replicas: is another one a better place for s? Room decides, then matched prefix and load, weighed in tokens. Then
 * s waits for that one's next step, and counts as part of its load meanwhile: so a hot prefix spreads as soon as the replica
 * that has it is full, or the queue before it longer than the prefix. */
static bool is_better_elsewhere(const struct core *c, const struct replica *r, const struct seq *s,
                                const struct radix_held *held, struct room *room) {
    if (c->n_replicas_up < 2) return false;
    bool has = has_room(c, r, s, held[r->index], room); /* the best so far */
    uint64_t cost = s->n_total - held[r->index].n_pages * c->page_size + room->load[r->index];
    uint32_t best = r->index;
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        const struct replica *o = c->replicas[i];
        if (o == r || !o->is_up || o->solo || o->n_free_slots == 0 || !hold_longest(o, s)) continue;
        if (c->now_ns >= replica_late_ns(o)) continue; /* nobody knows when its next step is */
        uint64_t cost_there = s->n_total - held[i].n_pages * c->page_size + room->load[i];
        if (has && cost_there >= cost) continue;
        bool has_there = has_room(c, o, s, held[i], room);
        if (has ? !has_there : !has_there && cost_there >= cost) continue;
        has = has_there;
        cost = cost_there;
        best = i;
    }
    if (best == r->index) return false;
    room->load[best] += s->n_total - held[best].n_pages * c->page_size + DECODE_LOAD;
    return true;
}

/* Is there a page beyond what is locked? */
static bool has_page(struct core *c, struct replica *r) {
    while (pages_n_free(r->pages) == 0) { /* one that is evicted may be in use all the same */
        if (radix_evict(c->tree, r->index, 1) == 0) return false;
    }
    return true;
}

/* Its match in the tree, locked, and room for what is likely to come, so that its decode steps allocate nothing. False,
 * and nothing has changed: there is no page to go on with. */
static bool find_place(struct core *c, struct replica *r, struct seq *s, uint32_t n_hit) {
    uint32_t n_ids = s->n_total + BY_MIN(s->n_max - s->n_total, (uint32_t)RESERVE_IDS) + 1;
    s->pages =
        pool_grow(&c->pool, NULL, 0, (n_ids / c->page_size + 2) * sizeof *s->pages, &s->pages_cap);
    s->at = (struct radix_at){.node = radix_root(c->tree, s->req->routing.extra_key)};
    if (n_hit > 0) s->at = radix_match(c->tree, s->at.node, r->index, s->ids, n_hit, s->pages);
    radix_lock(c->tree, s->at.node, r->index);
    if (has_page(c, r)) {
        req_reserve(&c->pool, s, n_ids);
        return true;
    }
    radix_unlock(c->tree, s->at.node, r->index);
    pool_put(&c->pool, s->pages, s->pages_cap);
    s->at = (struct radix_at){0};
    s->pages = NULL;
    s->pages_cap = 0;
    return false;
}

static void place(struct replica *r, struct seq *s, uint32_t page_size) {
    pages_share(r->pages, s->pages, s->at.n_pages);
    s->n_pages = s->at.n_pages;
    s->n_cached = s->n_done = s->n_sched = s->n_gone = s->n_pages * page_size;
    replica_take_slot(r, s);
}

static void put_admit(struct core *c, struct replica *r, struct seq *s) {
    const struct req *req = s->req;
    struct msg_admit *a = &r->build.admits[r->build.n_admits++];
    uint32_t n_before = s->n_cached > req->n_prompt ? s->n_cached - req->n_prompt : 0;
    *a = (struct msg_admit){
        .slot = s->slot,
        .sample = s->sample,
        .n_prompt = req->n_prompt,
        .n_cached = s->n_cached,
        .ids = {s->ids + s->n_cached, s->n_total - s->n_cached},
        .sampling = req->sampling,
        .output_ids = {s->ids + req->n_prompt, n_before},
    };
    if (r->states && s->n_cached) {
        s->from = radix_use_state(c->tree, s->at, r->index, &s->from_stamp);
        a->from_state = 1 + s->from;
    }
    s->is_entering = true; /* its pages are filled in when the step is complete */
}

static void count_admission(struct core *c, struct seq *s) {
    struct req *req = s->req;
    req->replica = s->replica->index;
    if (req->is_admitted) return;
    req->is_admitted = true;
    req->queue_us = (c->now_ns - req->arrived_ns) / 1000;
    core_unqueue(c, req);
    req->n_cached = BY_MIN(s->n_cached, req->n_prompt);
    core_set_timer(c, req); /* from now on only the limit on the whole run counts */
    struct tenant *t = req->tenant;
    t->queue_ns += c->now_ns - req->arrived_ns;
    t->prompt_tokens += req->n_prompt;
    t->cached_tokens += req->n_cached;
    c->counts.cached_tokens += req->n_cached;
    c->counts.prompt_tokens += req->n_prompt;
    by_count(BY_M_CACHED_TOKENS, req->n_cached);
    by_count(BY_M_PROMPT_TOKENS, req->n_prompt);
}

static void enter(struct core *c, struct replica *r, struct seq *s, uint32_t n_matched,
                  struct room *room) {
    admit_dequeue(c, s);
    place(r, s, c->page_size);
    s->n_charged = BY_MAX(s->n_charged, s->n_cached);
    seq_move(s, SEQ_PREFILL, &r->prefill);
    r->n_running++;
    tenants_run(&c->tenants, s->req->tenant);
    put_admit(c, r, s);
    keep_plan(c, s, n_matched);
    count_admission(c, s);
    uint32_t n = batch_prefill(c, r, s, room->budget);
    by_assert(n > 0);
    room->budget -= n;
    room->n_reserved[r->index] += pages_to_come(c, s);
    room->load[r->index] += DECODE_LOAD + s->n_total - s->n_cached;
}

static enum verdict consider(struct core *c, struct replica *r, struct seq *s, struct room *room) {
    struct by_err err;
    if (intake_check(c, s->req, &err) != 0) {
        core_fail(c, s->req, err.code, err.text);
        return ENDED;
    }
    uint32_t n_max = hold_longest(r, s);
    if (n_max == 0) return LATER;
    s->n_max = n_max;
    if (is_still_led(c, r, s)) return LATER;
    struct radix_held held[RADIX_REPLICAS_MAX] = {0};
    uint32_t n_pages_max = peek(c, r, s, held), n_hit = held[r->index].n_pages;
    if (is_better_elsewhere(c, r, s, held, room)) return LATER;
    if (n_hit < n_pages_max && find_leader(c, r, s, n_hit, n_pages_max)) return LATER;
    /* Room comes last: nobody is to give his place for one who would wait all the same. */
    if (!has_room(c, r, s, held[r->index], room) || !find_place(c, r, s, n_hit)) return NO_ROOM;
    enter(c, r, s, held[r->index].n_matched, room);
    return ENTERS;
}

/* Somebody who runs gives its place to s, if the policy says so. True: the place is free now. */
static bool preempt(struct core *c, struct replica *r, const struct seq *s) {
    if (!by_list_empty(&r->leaving)) return false; /* a place is on its way */
    struct seq *victim = policy_victim(c, r, s);
    if (!victim) return false;
    victim->req->n_retractions++;
    c->counts.n_preemptions++;
    retract_leave(c, victim, SEQ_WAITING);
    return !seq_has_slot(victim);
}

uint32_t admit_waiting(struct core *c, struct replica *r, uint32_t *budget) {
    bool may_preempt = c->policy.kind == POLICY_FAIR || c->policy.kind == POLICY_PRIORITY;
    if (by_list_empty(&c->waiting) || *budget == 0) return 0;
    if (r->n_free_slots == 0 && !may_preempt && !retract_has_paused(r)) return 0;
    struct room room = room_of(c, *budget);
    uint32_t n = 0;
    policy_begin(c, r);
    while (room.budget > 0) {
        struct seq *s = policy_next(c);
        if (!s) break;
        if (s->req->n_deaths >= CORE_SUSPECT_DEATHS) continue; /* alone, or later */
        enum verdict v = consider(c, r, s, &room);
        /* Who is not read keeps nothing from those who are. */
        while (v == NO_ROOM && retract_paused(c, r))
            v = consider(c, r, s, &room);
        if (v == NO_ROOM && n == 0 && preempt(c, r, s)) v = consider(c, r, s, &room);
        /* Nobody runs who would give pages back in time: pins give way. */
        while (v == NO_ROOM && r->n_running == 0 && retract_one(c, r))
            v = consider(c, r, s, &room);
        n += v == ENTERS;
        if (v == NO_ROOM) break; /* whoever comes first has the first claim on what comes free */
    }
    policy_end(c);
    *budget = room.budget;
    return n;
}

/* ---- suspects (DESIGN D5) ---- */

static struct seq *first_suspect(struct core *c) {
    for (BY_LIST_EACH(it, &c->waiting)) {
        struct seq *s = BY_CONTAINER_OF(it, struct seq, link);
        if (s->req->n_deaths >= CORE_SUSPECT_DEATHS) return s;
    }
    return NULL;
}

/* Everybody else stands still for the few steps it takes a suspect to bring one token, or to prove itself guilty. */
bool admit_suspect(struct core *c, struct replica *r, uint32_t budget) {
    if (r->solo || c->n_isolated == 0) return false;
    struct seq *s = first_suspect(c);
    if (!s) return false;
    if (r->n_flights > 0) return true;
    struct room room = {.budget = budget}; /* nobody else counts */
    r->solo = s->req;
    enum verdict v;
    do
        v = consider(c, r, s, &room);
    while ((v == NO_ROOM) && retract_one(c, r));
    if (v != ENTERS) r->solo = NULL;
    return v == ENTERS;
}
