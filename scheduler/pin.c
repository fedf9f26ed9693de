#include "scheduler/pin.h"

#include "common/base/mem.h"
#include "scheduler/core_state.h"

static struct pin *pin_of(struct by_list *link) {
    return BY_CONTAINER_OF(link, struct pin, link);
}

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
    struct by_list *at = c->pins.prev;
    while (at != &c->pins && pin_of(at)->due_ns > pin->due_ns)
        at = at->prev;
    by_list_insert_after(at, &pin->link);
    c->n_pins++;
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        struct replica *r = c->replicas[i];
        if (!r->is_up) continue;
        uint32_t room = r->capacity.n_pages / 2 - r->n_pinned;
        struct radix_node *root = radix_root(c->tree, space);
        uint32_t n_pages = BY_MIN(n_ids / c->page_size, room);
        pin->at[i] = radix_match(c->tree, root, i, ids, n_pages, NULL);
        n_pages = pin->at[i].n_pages;
        radix_lock(c->tree, pin->at[i].node, i);
        r->n_pinned += n_pages;
        *n_tokens = BY_MAX(*n_tokens, n_pages * c->page_size);
        if (n_pages == 0) unlock(c, pin, i);
    }
    if (*n_tokens == 0) drop(c, pin);
    return 0;
}

bool pin_remove(struct core *c, uint64_t id) {
    for (BY_LIST_EACH(it, &c->pins)) {
        if (pin_of(it)->id != id) continue;
        drop(c, pin_of(it));
        return true;
    }
    return false;
}

void pin_expire(struct core *c, uint64_t now_ns) {
    while (!by_list_empty(&c->pins) && pin_next_due(c) <= now_ns)
        drop(c, pin_of(by_list_first(&c->pins)));
}

uint64_t pin_next_due(const struct core *c) {
    return by_list_empty(&c->pins) ? UINT64_MAX : pin_of(by_list_first(&c->pins))->due_ns;
}

bool pin_give_way(struct core *c, struct replica *r) {
    for (BY_LIST_EACH(it, &c->pins)) {
        if (!pin_of(it)->at[r->index].node) continue;
        unlock(c, pin_of(it), r->index);
        return true;
    }
    return false;
}

void pin_replica_lost(struct core *c, struct replica *r) {
    for (BY_LIST_EACH(it, &c->pins))
        unlock(c, pin_of(it), r->index);
}
