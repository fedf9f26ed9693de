/* sim.c - one seed: a server is drawn, runs for so many items with faults, is made whole, and must then owe nothing. */
#include "tests/sim/sim.h"

#include "common/base/mem.h"

enum { SETTLE_ITEMS_MAX = 300000 };

struct sim_proc *sim_proc(struct sim *s, enum role role, uint32_t index) {
    uint32_t at = 0;
    if (role == ROLE_ROUTER) at = 1;
    if (role == ROLE_TOKENIZER_WORKER) at = 1 + SIM_ROUTERS;
    if (role == ROLE_DETOKENIZER) at = 1 + SIM_ROUTERS + SIM_TOKENIZERS;
    if (role == ROLE_GPU_WORKER) at = 1 + SIM_ROUTERS + SIM_TOKENIZERS + SIM_DETOKS;
    return &s->proc[at + index];
}

static bool item_before(const struct by_heap_node *a, const struct by_heap_node *b) {
    const struct sim_item *x = BY_CONTAINER_OF(a, struct sim_item, node);
    const struct sim_item *y = BY_CONTAINER_OF(b, struct sim_item, node);
    return x->at != y->at ? x->at < y->at : x->order < y->order;
}

/* ---- drawing ---- */

static struct core_options draw_core(struct sim *s) {
    return (struct core_options){
        .n_replicas = 1 + (uint32_t)sim_one_in(s, 3),
        .max_running = SIM_SLOTS_MAX,
        .max_queued = sim_one_in(s, 10) ? 3 : 100,
        .chunked_prefill_size = 4 + (uint32_t)sim_below(s, 60),
        .depth = 1 + (uint32_t)sim_below(s, 2),
        .conservativeness = (double)sim_below(s, 10) / 8 + 0.01,
        .policy = sim_one_in(s, 3) ? POLICY_FAIR : (enum policy_kind)sim_below(s, 7),
        .preemption_gap = 2,
        .eviction = (enum radix_policy)sim_below(s, 5),
        .no_radix_cache = sim_one_in(s, 10),
    };
}

static void draw(struct sim *s) {
    static const uint64_t paces[] = {20, 200, 2000, 8000};
    struct sim_config *g = &s->cfg;
    g->core = draw_core(s);
    g->page_size = 1 + (uint32_t)sim_below(s, SIM_PAGE_SIZE_MAX);
    /* Room for the longest sequence, and for one or two more. */
    g->n_pages = BY_DIV_UP(SIM_SEQ_MAX, g->page_size);
    g->n_pages += (uint32_t)sim_below(s, g->n_pages);
    g->n_pages = BY_MIN(g->n_pages, (uint32_t)SIM_PAGES_MAX);
    g->n_slots = 1 + (uint32_t)sim_below(s, SIM_SLOTS_MAX);
    g->step_tokens = 16 + (uint32_t)sim_below(s, 100);
    g->world = 1 + (uint32_t)sim_one_in(s, 4);
    g->n_detoks = 1 + (uint32_t)sim_below(s, SIM_DETOKS);
    g->n_tokenizers = 1 + (uint32_t)sim_below(s, SIM_TOKENIZERS);
    g->think_ns = paces[sim_below(s, 4)] * SIM_MS;
    g->delay_ns = sim_one_in(s, 4) ? 20 * SIM_MS : SIM_MS;
    g->fault_every = s->opt.no_faults ? 0 : 30 + (uint32_t)sim_below(s, 100);
    g->has_poison = !s->opt.no_faults && sim_one_in(s, 4);
    g->pools_all = sim_one_in(s, 4);
    g->is_encoder = sim_one_in(s, 10);
    if (g->is_encoder) g->step_tokens += SIM_SEQ_MAX; /* its prompts are not cut */
    g->is_uneven = sim_one_in(s, 2);
    if (!g->is_encoder && sim_one_in(s, 2))
        g->n_states = 1 + (uint32_t)sim_below(s, SIM_STATES_MAX);
    g->core.state_every = 1 + (uint32_t)sim_below(s, SIM_OUT_MAX);
}

bool sim_is_used(const struct sim *s, const struct sim_proc *p) {
    if (p->role == ROLE_TOKENIZER_WORKER) return p->index < s->cfg.n_tokenizers;
    if (p->role == ROLE_DETOKENIZER) return p->index < s->cfg.n_detoks;
    if (p->role != ROLE_GPU_WORKER) return true;
    return p->worker->replica < s->cfg.core.n_replicas && p->worker->rank < s->cfg.world;
}

static void add_proc(struct sim *s, enum role role, uint32_t index) {
    struct sim_proc *p = sim_proc(s, role, index);
    p->sim = s;
    p->role = role;
    p->index = index;
    by_list_init(&p->inbox);
    if (role != ROLE_GPU_WORKER) return;
    p->worker = by_alloc(sizeof *p->worker);
    p->worker->replica = index / SIM_RANKS;
    p->worker->rank = index % SIM_RANKS;
}

void sim_open(struct sim *s, const struct sim_shared *shared, const struct sim_options *o) {
    *s = (struct sim){.opt = *o, .shared = shared, .z = o->seed, .now = SIM_S};
    by_heap_init(&s->items, item_before);
    by_list_init(&s->unused);
    by_arena_init(&s->arena, 0);
    by_buf_init(&s->frame, LIMIT_FRAME_BYTES);
    add_proc(s, ROLE_SCHEDULER, 0);
    for (uint32_t i = 0; i < SIM_ROUTERS; i++)
        add_proc(s, ROLE_ROUTER, i);
    for (uint32_t i = 0; i < SIM_TOKENIZERS; i++)
        add_proc(s, ROLE_TOKENIZER_WORKER, i);
    for (uint32_t i = 0; i < SIM_DETOKS; i++)
        add_proc(s, ROLE_DETOKENIZER, i);
    for (uint32_t i = 0; i < SIM_REPLICAS * SIM_RANKS; i++)
        add_proc(s, ROLE_GPU_WORKER, i);
    draw(s);
}

void sim_start(struct sim *s) {
    for (uint32_t i = 0; i < SIM_PROCS; i++) {
        if (sim_is_used(s, &s->proc[i])) proc_start(s, &s->proc[i]);
    }
}

static void free_item(struct sim_item *it) {
    by_buf_release(&it->frame);
    by_free(it);
}

void sim_close(struct sim *s) {
    s->is_quiet = true;
    for (uint32_t i = 0; i < SIM_PROCS; i++) {
        struct sim_proc *p = &s->proc[i];
        for (BY_LIST_EACH_SAFE(it, next, &p->inbox)) {
            by_list_remove(it);
            free_item(BY_CONTAINER_OF(it, struct sim_item, link));
        }
        proc_die(s, p);
        for (uint32_t k = 0; p->worker && k < SIM_STEPS_MAX; k++)
            by_buf_release(&p->worker->steps[k]);
        by_free(p->worker);
    }
    for (struct by_heap_node *n; (n = by_heap_pop(&s->items)) != NULL;)
        free_item(BY_CONTAINER_OF(n, struct sim_item, node));
    for (BY_LIST_EACH_SAFE(it, next, &s->unused))
        free_item(BY_CONTAINER_OF(it, struct sim_item, link));
    by_heap_release(&s->items);
    by_arena_release(&s->arena);
    by_buf_release(&s->frame);
}

/* ---- running ---- */

static void handle_proc(struct sim *s, struct sim_item *it) {
    struct sim_proc *p = it->proc;
    if (!p->epoch || it->life != p->epoch) {
        if (it->kind != ITEM_FRAME && it->kind != ITEM_DOWN) return;
        if (!p->epoch) return; /* a frame for a process that is not there */
    }
    if (it->kind == ITEM_FRAME || it->kind == ITEM_COPY || it->kind == ITEM_DOWN ||
        it->kind == ITEM_CONNECT)
        bus_handle(s, it);
    else
        proc_handle(s, it);
    if (!p->epoch) return; /* it died of it */
    proc_idle(s, p);
    check_after(s, p);
}

static void handle(struct sim *s, struct sim_item *it) {
    struct sim_proc *p = &s->proc[it->arg % SIM_PROCS];
    if (it->kind < ITEM_PROC_N)
        handle_proc(s, it);
    else if (it->kind == ITEM_WAKE)
        fault_wake(s, p);
    else if (it->kind == ITEM_START && !p->epoch)
        proc_start(s, p);
    else if (it->kind == ITEM_FAULT && !s->is_quiet)
        fault_draw(s);
}

bool sim_next(struct sim *s) {
    struct by_heap_node *first = by_heap_pop(&s->items);
    if (!first) return false;
    struct sim_item *it = BY_CONTAINER_OF(first, struct sim_item, node);
    s->now = it->at;
    if (it->kind < ITEM_PROC_N && it->proc->is_stopped) {
        by_list_push(&it->proc->inbox, &it->link);
        return true;
    }
    s->n_items++;
    handle(s, it);
    by_list_push(&s->unused, &it->link);
    return true;
}

/* ---- settling ---- */

static void make_whole(struct sim *s) {
    s->is_quiet = true;
    for (uint32_t i = 0; i < SIM_PROCS; i++) {
        struct sim_proc *p = &s->proc[i];
        s->partition_until[i] = 0;
        if (p->worker) p->worker->slow = 1;
        for (uint32_t k = 0; p->router && k < SIM_CLIENTS; k++) {
            struct sim_client *c = &p->router->client[k];
            if (c->entry && c->is_paused) bus_post(s, ITEM_CLIENT, p, 0)->arg = k;
        }
    }
}

/* Long enough for the longest stop to end, for orphans and for what came late; then nothing may be owed. */
void sim_settle(struct sim *s) {
    make_whole(s);
    uint64_t until = s->now + 70 * SIM_S, from = s->n_items;
    for (;;) {
        struct by_heap_node *first = by_heap_first(&s->items);
        if (!first) break;
        if (s->now > until && check_is_settled(s)) break;
        if (s->now > until + 200 * SIM_S || s->n_items > from + SETTLE_ITEMS_MAX) break;
        sim_next(s);
    }
    check_settled(s);
}

void sim_sum_add(struct sim_sum *sum, const struct sim_sum *one) {
    sum->n_items += one->n_items;
    sum->n_requests += one->n_requests;
    sum->n_done += one->n_done;
    sum->n_failed += one->n_failed;
    sum->n_faults += one->n_faults;
    sum->n_dropped_frames += one->n_dropped_frames;
    sum->ns += one->ns;
    sum->n_keeps += one->n_keeps;
    sum->n_starts += one->n_starts;
}

void sim_run(const struct sim_shared *shared, const struct sim_options *o, struct sim_sum *sum) {
    struct sim *s = by_alloc(sizeof *s);
    sim_open(s, shared, o);
    sim_start(s);
    while (s->n_items < o->n_events && sim_next(s)) {
        if (s->cfg.fault_every && sim_one_in(s, s->cfg.fault_every))
            bus_post(s, ITEM_FAULT, NULL, 0);
    }
    sim_settle(s);
    sim_sum_add(sum, &(struct sim_sum){.n_items = s->n_items,
                                       .n_requests = s->n_requests,
                                       .n_done = s->n_done,
                                       .n_failed = s->n_failed,
                                       .n_faults = s->n_faults,
                                       .n_dropped_frames = s->n_dropped_frames,
                                       .ns = s->now,
                                       .n_keeps = s->n_keeps,
                                       .n_starts = s->n_starts});
    sim_close(s);
    by_free(s);
}
