/* peers.c - who is here: may one come in, what follows when one comes or goes, and what routers are told of the others. */
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "scheduler/core_state.h"

struct core_peer *core_peer(const struct core *c, uint32_t id) {
    return id ? by_map_get(&c->peer_by_id, id) : NULL;
}

/* ---- readiness, and what routers are told ---- */

static bool has_role(const struct core *c, enum role role) {
    for (BY_LIST_EACH(it, &c->peers)) {
        if (BY_CONTAINER_OF(it, struct core_peer, link)->role == role) return true;
    }
    return false;
}

static const char *what_is_missing(const struct core *c) {
    if (c->is_draining) return "the server is shutting down";
    if (c->n_replicas_up == 0) return "no gpu worker is ready";
    if (!has_role(c, ROLE_TOKENIZER_WORKER)) return "no tokenizer worker is ready";
    if (!has_role(c, ROLE_DETOKENIZER)) return "no detokenizer is ready";
    return "";
}

bool core_is_ready(const struct core *c, const char **why) {
    *why = what_is_missing(c);
    if (**why == '\0') return true;
    /* A process that died is back in a moment; its requests wait meanwhile. */
    return c->was_ready && !c->is_draining;
}

static void update_ready(struct core *c) {
    bool is_complete = *what_is_missing(c) == '\0';
    if (is_complete) {
        c->was_ready = true;
        c->ready_lost_ns = 0;
    } else if (c->was_ready && !c->ready_lost_ns) {
        c->ready_lost_ns = c->now_ns;
    }
}

void peers_expire(struct core *c) {
    if (peers_next_due(c) > c->now_ns) return;
    c->was_ready = false; /* it did not come back in time: say so */
    c->peers_changed = true;
}

uint64_t peers_next_due(const struct core *c) {
    return c->ready_lost_ns && c->was_ready ? c->ready_lost_ns + CORE_GRACE_MS * BY_NS_PER_MS
                                            : UINT64_MAX;
}

void peers_tell(struct core *c) {
    struct msg_peer list[LIMIT_PEERS];
    uint32_t n = 0, n_up = 0;
    uint64_t kv_tokens = 0;
    for (BY_LIST_EACH(it, &c->peers)) {
        const struct core_peer *p = BY_CONTAINER_OF(it, struct core_peer, link);
        if (p->role != ROLE_TOKENIZER_WORKER && p->role != ROLE_DETOKENIZER) continue;
        if (n == LIMIT_PEERS) break;
        list[n++] = (struct msg_peer){.role = p->role,
                                      .instance = by_str_of(p->instance),
                                      .epoch = p->epoch,
                                      .endpoint = by_str_of(p->endpoint)};
    }
    const struct msg_capacity *first = NULL;
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        const struct replica *r = c->replicas[i];
        if (!r->is_up) continue;
        if (!first) first = &r->capacity;
        n_up++;
        kv_tokens += (uint64_t)r->capacity.n_pages * r->capacity.page_size;
    }
    const char *why;
    bool is_ready = core_is_ready(c, &why);
    struct msg m = {.kind = MSG_peers,
                    .peers = {.peers = {list, n},
                              .is_ready = is_ready,
                              .not_ready_why = by_str_of(why),
                              .model = c->model,
                              .kv_tokens = kv_tokens,
                              .n_replicas = n_up}};
    if (first) m.peers.capacity = *first;
    for (BY_LIST_EACH(it, &c->peers)) {
        const struct core_peer *p = BY_CONTAINER_OF(it, struct core_peer, link);
        if (p->role == ROLE_ROUTER) c->sink.send(c->sink.ctx, p->id, &m);
    }
    c->peers_changed = false;
}

/* ---- peers ---- */

static int admit_worker(const struct core *c, const struct msg_hello *h, struct by_err *err) {
    const struct msg_capacity *cap = &h->capacity;
    if (cap->page_size == 0 || cap->page_size > 4096 || cap->n_pages == 0 ||
        cap->n_pages > REPLICA_PAGES_MAX || cap->n_slots == 0 || cap->n_slots > REPLICA_SLOTS_MAX ||
        cap->step_tokens_max == 0)
        return by_fail(err, BY_EINVAL,
                       "capacity makes no sense: %u pages of %u tokens, %u slots, %u rows a step; "
                       "there may be %d pages of 4096 tokens and %d slots",
                       cap->n_pages, cap->page_size, cap->n_slots, cap->step_tokens_max,
                       REPLICA_PAGES_MAX, REPLICA_SLOTS_MAX);
    if (h->model.is_encoder && cap->step_tokens_max < h->model.context_len)
        return by_fail(err, BY_EINVAL, "an encoder of %u tokens whose steps have %u rows",
                       h->model.context_len, cap->step_tokens_max);
    if (h->model.is_encoder && !cap->no_prefix_reuse)
        return by_fail(err, BY_EINVAL, "an encoder has no prefix to reuse, and must say so");
    if (cap->n_states > (cap->no_prefix_reuse ? 0 : REPLICA_STATES_MAX))
        return by_fail(err, BY_EINVAL, "%u states: %d at most, and none where nothing is reused",
                       cap->n_states, REPLICA_STATES_MAX);
    if (cap->world == 0 || cap->world > REPLICA_RANKS_MAX || cap->rank >= cap->world)
        return by_fail(err, BY_EINVAL, "rank %u of %u makes no sense", cap->rank, cap->world);
    if (cap->replica >= c->opt.n_replicas)
        return by_fail(err, BY_EINVAL, "replica %u, but --dp-size is %u", cap->replica,
                       c->opt.n_replicas);
    if (c->n_replicas_up > 0 && cap->page_size != c->page_size)
        return by_fail(err, BY_EINVAL, "--page-size is %u here and %u at the other replicas",
                       cap->page_size, c->page_size);
    const struct replica *r = c->replicas[cap->replica];
    if (r->n_ranks > 0 && cap->page_size != r->capacity.page_size)
        return by_fail(err, BY_EINVAL, "--page-size is %u here and %u at the other ranks",
                       cap->page_size, r->capacity.page_size);
    if (c->model.n_vocab && h->model.n_vocab != c->model.n_vocab)
        return by_fail(err, BY_EINVAL, "its model has %u token ids, the one served %u",
                       h->model.n_vocab, c->model.n_vocab);
    if (c->n_replicas_up > 0 && !update_is_stale(c, &h->model) &&
        !by_str_eq(h->model.weights_id, c->model.weights_id))
        return by_fail(err, BY_EINVAL, "its weights differ from the other replicas'");
    const struct core_peer *p = core_peer(c, r->ranks[cap->rank]);
    if (p && !by_str_eqz(h->instance, p->instance))
        return by_fail(err, BY_EINVAL, "rank %u of replica %u is here already: instance %s",
                       cap->rank, cap->replica, p->instance);
    return 0;
}

int core_admit(const struct core *c, const struct msg_hello *hello, struct by_err *err) {
    switch (hello->role) {
    case ROLE_ROUTER:
    case ROLE_TOKENIZER_WORKER:
    case ROLE_DETOKENIZER:
        if (hello->epoch == 0) return by_fail(err, BY_EINVAL, "a process without an epoch");
        return 0;
    case ROLE_TOOL:
        return 0;
    case ROLE_GPU_WORKER:
        return admit_worker(c, hello, err);
    default:
        return by_fail(err, BY_EINVAL, "role %u has no business with the scheduler", hello->role);
    }
}

static void learn_model(struct core *c, const struct msg_model *model) {
    by_arena_clear(&c->model_arena);
    msg_model_copy(&c->model_arena, model, &c->model);
    c->n_models++;
}

/* A worker that was started again may be here before the end of its former life is noticed. */
static void end_former(struct core *c, struct replica *r, const struct msg_capacity *cap) {
    for (uint32_t i = 0; i < REPLICA_RANKS_MAX; i++) {
        struct core_peer *former = core_peer(c, r->ranks[i]);
        if (former && (i == cap->rank || r->world != cap->world))
            core_end_peer(c, former, "it has been started again");
    }
}

/* All ranks are here: rank 0 has said where they meet. */
static void send_group(struct core *c, const struct replica *r) {
    const struct core_peer *first = core_peer(c, r->ranks[0]);
    struct msg m = {.kind = MSG_group, .group = {.address = by_str_of(first->endpoint)}};
    for (uint32_t i = 1; i < r->world; i++)
        c->sink.send(c->sink.ctx, r->ranks[i], &m);
}

static void copy_text(char *to, size_t cap, struct by_str from) {
    size_t n = BY_MIN(from.n, cap - 1);
    if (n) memcpy(to, from.p, n);
    to[n] = '\0';
}

/* What all ranks of a group can hold: the least of each. */
static void join_capacity(struct replica *r, const struct msg_hello *h) {
    const struct msg_capacity *cap = &h->capacity;
    struct msg_capacity *all = &r->capacity;
    uint64_t kv_tokens = (uint64_t)cap->n_pages * cap->page_size;
    uint64_t context = h->model.context_len ? h->model.context_len : LIMIT_TOKENS;
    uint32_t context_len = (uint32_t)BY_MIN(context, kv_tokens);
    if (r->n_ranks == 0) {
        r->context_len = context_len;
        *all = *cap;
        copy_text(r->device, sizeof r->device, cap->device);
        all->device = by_str_of(r->device);
        return;
    }
    r->context_len = BY_MIN(r->context_len, context_len);
    all->n_pages = BY_MIN(all->n_pages, cap->n_pages);
    all->n_slots = BY_MIN(all->n_slots, cap->n_slots);
    all->n_states = BY_MIN(all->n_states, cap->n_states);
    all->no_prefix_reuse |= cap->no_prefix_reuse;
    all->step_tokens_max = BY_MIN(all->step_tokens_max, cap->step_tokens_max);
    all->weight_bytes += cap->weight_bytes;
    all->kv_bytes += cap->kv_bytes;
    all->load_ms = BY_MAX(all->load_ms, cap->load_ms);
}

static uint32_t longest_context(const struct core *c) {
    uint32_t longest = 0;
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        const struct replica *r = c->replicas[i];
        if (r->is_up) longest = BY_MAX(longest, r->context_len);
    }
    return longest;
}

static void worker_up(struct core *c, struct core_peer *p, const struct msg_hello *h) {
    const struct msg_capacity *cap = &h->capacity;
    struct replica *r = c->replicas[cap->replica];
    p->replica = cap->replica;
    p->rank = cap->rank;
    if (update_is_stale(c, &h->model)) {
        update_catch_up(c, p);
        return;
    }
    end_former(c, r, cap);
    r->ranks[p->rank] = p->id;
    r->has_died |= r->epochs[p->rank] != 0 && r->epochs[p->rank] != p->epoch;
    r->epochs[p->rank] = p->epoch;
    join_capacity(r, h);
    r->n_ranks++;
    r->world = cap->world;
    if (r->n_ranks < r->world) return;
    if (c->n_replicas_up == 0) {
        learn_model(c, &h->model);
        c->served_ns = c->now_ns;
    }
    if (c->page_size != cap->page_size) { /* no replica is up, so the tree is empty */
        radix_free(c->tree);
        c->page_size = cap->page_size;
        c->tree = radix_new(c->page_size, c->opt.n_replicas, c->opt.eviction, &c->pool);
        for (BY_LIST_EACH(it, &c->waiting)) /* marks are of the former one */
            BY_CONTAINER_OF(it, struct seq, link)->mark = (struct radix_mark){0};
    }
    uint32_t n_states = c->opt.no_radix_cache ? 0 : r->capacity.n_states;
    replica_open(r, BY_MIN(r->capacity.n_slots, c->opt.max_running), n_states);
    radix_join(c->tree, r->index, r->pages, r->states);
    c->n_replicas_up++;
    c->model.context_len = longest_context(c);
    c->must_look = true;
    send_group(c, r);
    by_info("replica is up replica=%u ranks=%u pages=%u page_size=%u slots=%u states=%u", r->index,
            r->world, r->capacity.n_pages, r->capacity.page_size, r->n_slots, n_states);
    retract_verdict(c, r);
}

/* Requests that came before their router: it may have said of one of them, while nobody heard, that it does not want it. */
static void tell_again(struct core *c, struct life *life) {
    for (BY_LIST_EACH(it, &life->reqs)) {
        struct req *req = BY_CONTAINER_OF(it, struct req, in_life);
        for (uint32_t i = 0; i < req->n_seqs; i++)
            deliver_all(c, &req->seqs[i], req->seqs[i].n_acked);
    }
}

void core_on_up(struct core *c, uint64_t now_ns, uint32_t peer, const struct msg_hello *hello) {
    by_assert(peer != 0);
    by_assert(!core_peer(c, peer));
    core_see_time(c, now_ns);
    struct core_peer *p = by_alloc(sizeof *p);
    p->id = peer;
    p->role = (enum role)hello->role;
    p->epoch = hello->epoch;
    copy_text(p->instance, sizeof p->instance, hello->instance);
    copy_text(p->endpoint, sizeof p->endpoint, hello->endpoint);
    by_list_init(&p->reqs);
    by_list_push(&c->peers, &p->link);
    by_map_put(&c->peer_by_id, peer, p);
    if (p->role == ROLE_ROUTER) {
        struct life *life = book_life_open(&c->book, p->epoch);
        struct core_peer *former = core_peer(c, life->peer);
        if (former) core_end_peer(c, former, "the same router is here again");
        life = book_life_open(&c->book, p->epoch); /* that ended its names, too */
        life->peer = peer;
        if (life->orphan_due_ns) tell_again(c, life);
        life->orphan_due_ns = 0;
    } else if (p->role == ROLE_GPU_WORKER) {
        worker_up(c, p, hello);
    } else if (p->role == ROLE_DETOKENIZER) {
        for (BY_LIST_EACH_SAFE(it, next, &c->detokless)) {
            by_list_remove(it);
            deliver_assign(c, BY_CONTAINER_OF(it, struct req, in_detok));
        }
    }
    update_ready(c);
    c->peers_changed = true;
}

static void router_down(struct core *c, struct core_peer *p) {
    struct life *life = book_life(&c->book, p->epoch);
    if (!life || life->peer != p->id) return;
    life->peer = 0;
    /* Dead, or about to say hello again and to send all it still owes: either way these are nobody's. */
    while (!by_list_empty(&life->reqs))
        core_drop(c, BY_CONTAINER_OF(by_list_first(&life->reqs), struct req, in_life), false);
    book_life_end(&c->book, life);
}

static void detok_down(struct core *c, struct core_peer *p) {
    struct req *guilty = deliver_lost(c, p);
    if (guilty) core_fail(c, guilty, BY_EPOISON, "each detokenizer that read it has died");
    while (!by_list_empty(&p->reqs)) {
        struct req *req = BY_CONTAINER_OF(by_list_first(&p->reqs), struct req, in_detok);
        by_list_remove(&req->in_detok);
        req->detok = 0;
        deliver_assign(c, req);
    }
}

static void worker_down(struct core *c, struct core_peer *p) {
    struct replica *r = c->replicas[p->replica];
    if (r->ranks[p->rank] != p->id) return;
    r->ranks[p->rank] = 0;
    r->n_ranks--;
    if (r->is_up) retract_replica_lost(c, r);
    for (uint32_t i = 0; i < r->world; i++) { /* one rank gone: the group starts again */
        struct core_peer *other = core_peer(c, r->ranks[i]);
        if (other) core_end_peer(c, other, "another rank of the group is gone");
    }
}

void core_on_down(struct core *c, uint64_t now_ns, uint32_t peer, const char *why) {
    (void)why;
    core_see_time(c, now_ns);
    struct core_peer *p = core_peer(c, peer);
    if (!p) return; /* ended by core_end_peer before */
    by_list_remove(&p->link);
    by_map_remove(&c->peer_by_id, peer);
    if (p->role == ROLE_ROUTER) router_down(c, p);
    if (p->role == ROLE_DETOKENIZER) detok_down(c, p);
    if (p->role == ROLE_GPU_WORKER) {
        worker_down(c, p);
        update_lost(c, p);
    }
    by_free(p);
    update_ready(c);
    c->peers_changed = true;
}

void core_end_peer(struct core *c, struct core_peer *peer, const char *why) {
    by_warn("ended a session with=%s:%s why=%s", role_text(peer->role), peer->instance, why);
    c->sink.end(c->sink.ctx, peer->id, why);
    core_on_down(c, c->now_ns, peer->id, why);
}
