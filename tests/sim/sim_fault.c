/* sim_fault.c - what goes wrong, and when: kill -9, SIGSTOP for 1, 5 and 60 seconds, partitions, cut connections, orders
 * of an operator. Lost, late and doubled frames are in sim_bus.c, failed steps in sim_gpu.c. */
#include "tests/sim/sim.h"

static void tell(const struct sim *s, const char *what, const struct sim_proc *p, uint64_t ns) {
    if (!s->opt.is_verbose) return;
    fprintf(stderr, "%12.6f FAULT %s %s %u for %.3f s\n", (double)s->now / 1e9, what,
            role_text(p->role), p->index, (double)ns / 1e9);
}

static bool is_there(const struct sim_proc *p) {
    return p->epoch && !p->is_stopped;
}

void fault_kill(struct sim *s, struct sim_proc *p, uint64_t down_ns) {
    if (!p->epoch) return;
    tell(s, "kill", p, down_ns);
    s->n_deaths += p->role == ROLE_GPU_WORKER;
    s->n_reader_deaths += p->role == ROLE_TOKENIZER_WORKER;
    p->is_stopped = false;
    p->stopped_until = 0;
    for (BY_LIST_EACH_SAFE(it, next, &p->inbox)) { /* what it had not read is gone */
        by_list_remove(it);
        by_list_push(&s->unused, it);
    }
    proc_die(s, p);
    bus_post(s, ITEM_START, NULL, down_ns)->arg = (uint32_t)(p - s->proc);
}

void fault_stop(struct sim *s, struct sim_proc *p, uint64_t ns) {
    tell(s, "stop", p, ns);
    p->is_stopped = true;
    p->stopped_until = s->now + ns;
    bus_proc_stopped(s, p, ns);
    bus_post(s, ITEM_WAKE, NULL, ns)->arg = (uint32_t)(p - s->proc);
}

static void partition(struct sim *s, struct sim_proc *p) {
    static const uint64_t seconds[] = {1, 3, 10, 30};
    uint64_t ns = seconds[sim_below(s, 4)] * SIM_S;
    tell(s, "cut off", p, ns);
    s->partition_until[p - s->proc] = s->now + ns;
    bus_proc_stopped(s, p, ns); /* neither side hears the other: the same silence */
}

/* An operator, or a client of the admin API, at any router. */
static void order(struct sim *s) {
    static const char *const what[] = {"flush", "abort", "dump", "pin", "loads"};
    struct sim_proc *p = sim_proc(s, ROLE_ROUTER, (uint32_t)sim_below(s, SIM_ROUTERS));
    struct sim_link *l = bus_between(s, p, sim_proc(s, ROLE_SCHEDULER, 0));
    uint64_t i = sim_below(s, 5);
    if (!is_there(p) || !l) return;
    if (i == 1 && !sim_one_in(s, 4)) i = 0;
    struct msg m = {
        .kind = MSG_ask,
        .ask = {.id = 1,
                .what = by_str_of(what[i]),
                .json = i == 1   ? BY_STR("{\"all\":true}")
                        : i == 3 ? BY_STR("{\"ids\":[3,10,17,24,31,38,45,52,59],\"ttl_s\":2}")
                                 : BY_STR("{}")}};
    bus_send(s, l, 0, &m);
}

static void cut_one(struct sim *s) {
    for (uint32_t tries = 0; tries < 8; tries++) {
        struct sim_link *l = &s->link[sim_below(s, SIM_LINKS)];
        if (!l->is_used || l->is_closed || !l->end[0].is_up) continue;
        bus_cut(s, l);
        return;
    }
}

void fault_draw(struct sim *s) {
    static const uint64_t stops[] = {1, 5, 60};
    struct sim_proc *p = &s->proc[sim_below(s, SIM_PROCS)];
    bool is_real = sim_is_used(s, p);
    s->n_faults++;
    s->calm_since = UINT64_MAX; /* its few items may all fall between two looks (sim_check.c) */
    switch (sim_below(s, 8)) {
    case 0:
    case 1:
    case 2:
        if (is_real && p->epoch)
            fault_kill(s, p,
                       sim_one_in(s, 8) ? sim_below(s, 15 * SIM_S) : sim_below(s, 300 * SIM_MS));
        break;
    case 3:
    case 4:
        if (is_real && is_there(p)) fault_stop(s, p, stops[sim_below(s, 3)] * SIM_S);
        break;
    case 5:
        if (is_real && is_there(p)) partition(s, p);
        break;
    case 6:
        cut_one(s);
        break;
    default:
        order(s);
    }
}

/* The inbox, in order, as if it all came at once; some of it is from sessions that others have given up. */
void fault_wake(struct sim *s, struct sim_proc *p) {
    if (!p->is_stopped || p->stopped_until > s->now) return;
    p->is_stopped = false;
    for (BY_LIST_EACH_SAFE(node, next, &p->inbox)) {
        struct sim_item *it = BY_CONTAINER_OF(node, struct sim_item, link);
        by_list_remove(node);
        it->at = s->now;
        it->order = s->order++;
        by_heap_push(&s->items, &it->node);
    }
}

bool fault_is_calm(const struct sim *s) {
    for (uint32_t i = 0; i < SIM_PROCS; i++) {
        const struct sim_proc *p = &s->proc[i];
        if (!sim_is_used(s, p)) continue;
        if (!is_there(p) || s->partition_until[i] > s->now) return false;
    }
    for (uint32_t i = 0; i < SIM_LINKS; i++) {
        const struct sim_link *l = &s->link[i];
        if (l->is_used && !l->is_closed && (!l->end[0].is_up || !l->end[1].is_up)) return false;
    }
    return true;
}
