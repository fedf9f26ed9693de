#include "scheduler/pin.h"

#include "common/base/mem.h"
#include "scheduler/core_state.h"

static void unlock(struct core *c, struct pin *pin, uint32_t replica) {
    struct radix_at *at = &pin->at[replica];
    if (!at->node) return;
    c->replicas[replica]->n_pinned -= at->n_pages;
    radix_unlock(c->tree, at->node, replica);
    *at = (struct radix_at){0};
}

static void drop(struct core *c, struct pin *pin) {
    for (uint32_t i = 0; i < c->opt.n_replicas; i++)
        unlock(c, pin, i);
    by_list_remove(&pin->link);
    c->n_pins--;
    by_free(pin);
}

int pin_add(struct core *c, struct by_str space, const uint32_t *ids, uint32_t n_ids,
            uint64_t ttl_ns, uint64_t *id, uint32_t *n_tokens, struct by_err *err) {
    *n_tokens = 0;
    *id = 0;
    if (c->n_pins == PINS_MAX) return by_fail(err, BY_EFULL, "there are %d pins already", PINS_MAX);
    if (c->n_replicas_up == 0) return by_fail(err, BY_EUNAVAILABLE, "no gpu worker is ready");
    struct pin *pin = by_alloc(sizeof *pin);
    pin->due_ns = c->now_ns + ttl_ns;
    pin->id = *id = ++c->last_pin;
    by_list_push(&c->pins, &pin->link);
    c->n_pins++;
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        struct replica *r = c->replicas[i];
        if (!r->is_up) continue;
        uint32_t room = r->capacity.n_pages / 2 - r->n_pinned;
        struct radix_node *root = radix_root(c->tree, space);
        struct radix_at at =
            radix_match(c->tree, root, i, ids, BY_MIN(n_ids / c->page_size, room), NULL);
        radix_lock(c->tree, at.node, i);
        pin->at[i] = at;
        r->n_pinned += at.n_pages;
        *n_tokens = BY_MAX(*n_tokens, at.n_pages * c->page_size);
        if (at.n_pages == 0) unlock(c, pin, i);
    }
    if (*n_tokens == 0) drop(c, pin);
    return 0;
}

bool pin_remove(struct core *c, uint64_t id) {
    for (BY_LIST_EACH(it, &c->pins)) {
        struct pin *pin = BY_CONTAINER_OF(it, struct pin, link);
        if (pin->id != id) continue;
        drop(c, pin);
        return true;
    }
    return false;
}

void pin_expire(struct core *c, uint64_t now_ns) {
    for (BY_LIST_EACH_SAFE(it, next, &c->pins)) {
        struct pin *pin = BY_CONTAINER_OF(it, struct pin, link);
        if (pin->due_ns <= now_ns) drop(c, pin);
    }
}

uint64_t pin_next_due(const struct core *c) {
    uint64_t due = UINT64_MAX;
    for (BY_LIST_EACH(it, &c->pins))
        due = BY_MIN(due, BY_CONTAINER_OF(it, struct pin, link)->due_ns);
    return due;
}

bool pin_give_way(struct core *c, struct replica *r) {
    struct pin *first = NULL;
    for (BY_LIST_EACH(it, &c->pins)) {
        struct pin *pin = BY_CONTAINER_OF(it, struct pin, link);
        if (pin->at[r->index].node && (!first || pin->due_ns < first->due_ns)) first = pin;
    }
    if (first) unlock(c, first, r->index);
    return first != NULL;
}

void pin_replica_lost(struct core *c, struct replica *r) {
    for (BY_LIST_EACH(it, &c->pins))
        unlock(c, BY_CONTAINER_OF(it, struct pin, link), r->index);
}
