#include "scheduler/book.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "scheduler/req.h"

enum { TOMBS_MAX = 1000000, TOMBS_LEAST = 1024 };

/* The map's value for a name that is over is an address in here, at the error that ended it. */
enum { EPITAPHS = 256 };
static const char tombstones[EPITAPHS];

static bool is_tombstone(const void *value) {
    const char *at = value;
    return at >= tombstones && at < tombstones + EPITAPHS;
}

void book_init(struct book *b) {
    *b = (struct book){0};
    by_list_init(&b->lives);
    by_strmap_init(&b->client_ids);
}

static void life_free(struct life *life) {
    by_assert(by_list_empty(&life->reqs));
    by_list_remove(&life->link);
    by_map_release(&life->names);
    by_free(life);
}

void book_release(struct book *b) {
    while (!by_list_empty(&b->lives))
        life_free(BY_CONTAINER_OF(by_list_first(&b->lives), struct life, link));
    by_free(b->tombs);
    by_assert(b->client_ids.n == 0);
    by_strmap_release(&b->client_ids);
    *b = (struct book){0};
}

struct life *book_life(struct book *b, uint64_t epoch) {
    for (BY_LIST_EACH(it, &b->lives)) {
        struct life *life = BY_CONTAINER_OF(it, struct life, link);
        if (life->epoch == epoch) return life;
    }
    return NULL;
}

struct life *book_life_open(struct book *b, uint64_t epoch) {
    struct life *life = book_life(b, epoch);
    if (life) return life;
    for (uint32_t i = 0; i < BOOK_ENDED_KEPT; i++) {
        if (b->ended[i] == epoch) b->ended[i] = 0;
    }
    life = by_alloc(sizeof *life);
    life->epoch = epoch;
    by_list_init(&life->reqs);
    by_map_init(&life->names);
    by_list_push(&b->lives, &life->link);
    return life;
}

void book_life_end(struct book *b, struct life *life) {
    b->ended[b->n_ended++ % BOOK_ENDED_KEPT] = life->epoch;
    life_free(life);
}

static bool life_ended(const struct book *b, uint64_t epoch) {
    for (uint32_t i = 0; i < BOOK_ENDED_KEPT; i++) {
        if (b->ended[i] == epoch && epoch != 0) return true;
    }
    return false;
}

enum book_state book_find(struct book *b, const struct msg_name *name, struct req **req) {
    *req = NULL;
    struct life *life = book_life(b, name->epoch);
    if (!life) return life_ended(b, name->epoch) ? BOOK_OVER : BOOK_NEW;
    void *value = by_map_get(&life->names, name->rid);
    if (is_tombstone(value)) return BOOK_OVER;
    *req = value;
    if (value) return BOOK_LIVE;
    return name->rid < life->low_water ? BOOK_FORGOTTEN : BOOK_NEW;
}

void book_add(struct life *life, struct req *req) {
    by_map_put(&life->names, req->name.rid, req);
    by_list_push(&life->reqs, &req->in_life);
    req->life = life;
}

void book_forget(struct req *req) {
    by_map_remove(&req->life->names, req->name.rid);
    by_list_remove(&req->in_life);
    req->life = NULL;
}

static void expire_first(struct book *b) {
    struct tomb *t = &b->tombs[b->first_tomb];
    struct life *life = book_life(b, t->epoch);
    if (life && is_tombstone(by_map_get(&life->names, t->rid))) {
        by_map_remove(&life->names, t->rid);
        life->low_water = BY_MAX(life->low_water, t->rid + 1);
    }
    b->first_tomb = (b->first_tomb + 1) % b->tombs_cap;
    b->n_tombs--;
}

static uint32_t room_for(uint32_t n) {
    return n < TOMBS_LEAST ? TOMBS_LEAST : BY_MIN(2 * n, (uint32_t)TOMBS_MAX);
}

static void tombs_resize(struct book *b, uint32_t cap) {
    struct tomb *other = by_alloc_array(cap, sizeof *other);
    for (uint32_t i = 0; i < b->n_tombs; i++)
        other[i] = b->tombs[(b->first_tomb + i) % b->tombs_cap];
    by_free(b->tombs);
    b->tombs = other;
    b->tombs_cap = cap;
    b->first_tomb = 0;
}

int book_epitaph(struct book *b, const struct msg_name *name) {
    struct life *life = book_life(b, name->epoch);
    const char *value = life ? by_map_get(&life->names, name->rid) : NULL;
    return is_tombstone(value) ? -(int)(value - tombstones) : 0;
}

void book_bury(struct book *b, struct life *life, uint64_t rid, uint64_t due_ns, int code) {
    by_assert(!by_map_get(&life->names, rid));
    by_assert(code <= 0 && code > -EPITAPHS);
    by_map_put(&life->names, rid, (void *)(uintptr_t)&tombstones[-code]);
    if (b->n_tombs == TOMBS_MAX) expire_first(b);
    if (b->n_tombs == b->tombs_cap) tombs_resize(b, room_for(b->n_tombs));
    b->tombs[(b->first_tomb + b->n_tombs++) % b->tombs_cap] =
        (struct tomb){.epoch = life->epoch, .rid = rid, .due_ns = due_ns};
}

/* A storm of requests is remembered for ten minutes, and its 60 MB for no longer. */
static void give_room_back(struct book *b) {
    enum { SPARE = 8 };
    if (b->tombs_cap > TOMBS_LEAST && b->n_tombs < b->tombs_cap / SPARE)
        tombs_resize(b, room_for(b->n_tombs));
    for (BY_LIST_EACH(it, &b->lives))
        by_map_fit(&BY_CONTAINER_OF(it, struct life, link)->names);
}

void book_expire(struct book *b, uint64_t now_ns) {
    uint32_t before = b->n_tombs;
    while (b->n_tombs && b->tombs[b->first_tomb].due_ns <= now_ns)
        expire_first(b);
    if (b->n_tombs < before) give_room_back(b);
}

/* ---- what clients call them ---- */

static struct req *claimant(const struct book *b, struct by_str client_id) {
    uint64_t value;
    if (!client_id.n || !by_strmap_get(&b->client_ids, client_id, &value)) return NULL;
    return (struct req *)(uintptr_t)value;
}

bool book_is_taken(const struct book *b, const struct msg_name *name, struct by_str client_id) {
    const struct req *req = claimant(b, client_id);
    return req && req->name.epoch != name->epoch && req->n_open > 0;
}

void book_claim(struct book *b, struct req *req) {
    if (req->routing.client_id.n)
        by_strmap_put(&b->client_ids, req->routing.client_id, (uintptr_t)req);
}

void book_unclaim(struct book *b, const struct req *req) {
    uint64_t value;
    if (claimant(b, req->routing.client_id) == req)
        (void)!by_strmap_remove(&b->client_ids, req->routing.client_id, &value);
}

bool book_check(const struct book *b) {
    for (BY_LIST_EACH(it, &b->lives)) {
        const struct life *life = BY_CONTAINER_OF(it, struct life, link);
        size_t n_live = 0, n_tombs = 0, i = 0;
        uint64_t rid;
        void *value;
        while (by_map_next(&life->names, &i, &rid, &value)) {
            n_tombs += is_tombstone(value);
            if (!is_tombstone(value) && ((struct req *)value)->life != life) return false;
        }
        for (BY_LIST_EACH(at, &life->reqs)) {
            const struct req *req = BY_CONTAINER_OF(at, struct req, in_life);
            if (by_map_get(&life->names, req->name.rid) != req) return false;
            n_live++;
        }
        if (n_live + n_tombs != life->names.n) return false;
    }
    return b->n_tombs <= b->tombs_cap;
}
