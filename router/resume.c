#include "router/resume.h"

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/base/map.h"
#include "common/base/mem.h"
#include "common/base/rand.h"
#include "router/http_write.h"

#include <stdio.h>
#include <string.h>

struct follower {
    struct by_list node;
    struct resume_answer *answer;
    struct conn *conn;
};

struct resume_answer {
    struct resume *home;
    struct by_list node;    /* in home->resting, while it is done or nobody follows */
    uint64_t rests_from_ns; /* since then */
    uint64_t token, owner_hash, request_hash;
    char *name; /* owner and Idempotency-Key; NULL: it is not found by them any more */
    struct by_list followers;
    uint32_t n_followers;
    struct by_buf kept;   /* each event behind its length, 4 bytes; a whole answer: its body */
    size_t at;            /* the oldest event's place in it */
    uint64_t first, next; /* ids of the events that are there: from … up to */
    size_t n_unseen;      /* bytes since nobody follows */
    const char *content_type;
    int status; /* of a whole answer */
    bool is_stream, is_done;
    void *owner;
    void (*gone)(void *owner);
    void (*drained)(void *owner);
};

struct resume {
    uv_timer_t timer;
    uint64_t grace_ms;
    size_t bytes_max, total_max, n_bytes; /* n_bytes: of all answers */
    struct by_map by_token;
    struct by_strmap by_name;
    struct by_list resting; /* by rests_from_ns */
};

static void on_timer(uv_timer_t *t);

struct resume *resume_new(uv_loop_t *loop, uint64_t grace_ms, size_t bytes_max, size_t total_max) {
    struct resume *r = by_alloc(sizeof *r);
    r->grace_ms = grace_ms;
    r->bytes_max = bytes_max;
    r->total_max = BY_MIN(total_max, (size_t)RESUME_TOTAL_BYTES);
    by_map_init(&r->by_token);
    by_strmap_init(&r->by_name);
    by_list_init(&r->resting);
    uv_timer_init(loop, &r->timer);
    r->timer.data = r;
    return r;
}

/* ---- life ---- */

static void forget_name(struct resume_answer *a) {
    uint64_t token;
    if (!a->name) return;
    bool was_there = by_strmap_remove(&a->home->by_name, by_str_of(a->name), &token);
    by_assert(was_there && token == a->token);
    by_free(a->name);
    a->name = NULL;
}

static void answer_free(struct resume_answer *a) {
    by_assert(!a->n_followers);
    forget_name(a);
    (void)by_map_remove(&a->home->by_token, a->token);
    if (by_list_linked(&a->node)) by_list_remove(&a->node);
    a->home->n_bytes -= a->kept.n;
    by_buf_release(&a->kept);
    by_free(a);
}

static void arm(struct resume *r) {
    struct by_list *first = by_list_first(&r->resting);
    if (!first) {
        uv_timer_stop(&r->timer);
        return;
    }
    struct resume_answer *a = BY_CONTAINER_OF(first, struct resume_answer, node);
    uint64_t rested_ms = (by_now_ns() - a->rests_from_ns) / BY_NS_PER_MS;
    uv_timer_start(&r->timer, on_timer, r->grace_ms > rested_ms ? r->grace_ms - rested_ms : 0, 0);
}

static void rest(struct resume_answer *a) {
    struct resume *r = a->home;
    bool was_empty = by_list_empty(&r->resting);
    if (by_list_linked(&a->node)) by_list_remove(&a->node);
    a->rests_from_ns = by_now_ns();
    by_list_push(&r->resting, &a->node);
    if (was_empty) arm(r);
}

/* Nobody has come for the grace: a live request is cancelled, and all of it is forgotten. */
static void end_rest(struct resume_answer *a) {
    void *owner = a->owner;
    a->owner = NULL;
    if (owner) a->gone(owner);
    answer_free(a);
}

static void on_timer(uv_timer_t *t) {
    struct resume *r = t->data;
    uint64_t now = by_now_ns();
    for (struct by_list *node; (node = by_list_first(&r->resting)) != NULL;) {
        struct resume_answer *a = BY_CONTAINER_OF(node, struct resume_answer, node);
        if ((now - a->rests_from_ns) / BY_NS_PER_MS < r->grace_ms) break;
        end_rest(a);
    }
    arm(r);
}

/* Answers that are over make room, the oldest first. */
static void make_room(struct resume *r) {
    for (BY_LIST_EACH_SAFE(node, next, &r->resting)) {
        if (r->n_bytes <= r->total_max && r->by_token.n < RESUME_ANSWERS_MAX) return;
        struct resume_answer *a = BY_CONTAINER_OF(node, struct resume_answer, node);
        if (a->is_done) answer_free(a);
    }
}

void resume_free(struct resume *r) {
    if (!r) return;
    for (struct by_list *node; (node = by_list_first(&r->resting)) != NULL;)
        answer_free(BY_CONTAINER_OF(node, struct resume_answer, node));
    by_map_release(&r->by_token);
    by_strmap_release(&r->by_name);
    uv_timer_stop(&r->timer);
    by_free(r);
}

/* ---- which answer a request means ---- */

static uint64_t owner_hash(const struct auth_key *caller) {
    return caller ? by_str_hash(by_str_of(caller->key)) : 0;
}

/* One Idempotency-Key is one request: same path, same body. */
static uint64_t request_hash(const struct http1_request *req) {
    return by_str_hash(req->path) * 31 + by_str_hash(req->body);
}

static bool is_key(struct by_str key) {
    if (!key.n || key.n > RESUME_KEY_BYTES_MAX) return false;
    for (size_t i = 0; i < key.n; i++) {
        if (key.p[i] <= ' ' || key.p[i] > '~') return false;
    }
    return true;
}

enum { NAME_BYTES = RESUME_KEY_BYTES_MAX + 20 };

static struct by_str name_of(char out[NAME_BYTES], const struct auth_key *caller,
                             struct by_str key) {
    int n = snprintf(out, NAME_BYTES, "%016llx:%.*s", (unsigned long long)owner_hash(caller),
                     (int)key.n, key.p);
    return (struct by_str){out, (size_t)n};
}

static bool read_id(struct by_str text, uint64_t *token, uint64_t *id) {
    struct by_str first;
    uint32_t high, low;
    if (text.n > 40 || !by_str_split(&text, '-', &first) || first.n != 16) return false;
    if (!by_str_hex(first, 0, 8, &high) || !by_str_hex(first, 8, 8, &low)) return false;
    for (size_t i = 0; i < first.n; i++) { /* only as it was given out: in lower case */
        if (first.p[i] >= 'A' && first.p[i] <= 'F') return false;
    }
    *token = (uint64_t)high << 32 | low;
    return *token && by_str_to_u64(text, id);
}

bool resume_wanted(const struct resume *r, const struct http1_request *req) {
    struct by_str key;
    return r->grace_ms && http1_header(req, "idempotency-key", &key);
}

struct resume_answer *resume_begin(struct resume *r, const struct http1_request *req,
                                   const struct auth_key *caller) {
    char name[NAME_BYTES];
    struct by_str key;
    make_room(r);
    if (r->by_token.n >= RESUME_ANSWERS_MAX || r->n_bytes > r->total_max) return NULL;
    if (!http1_header(req, "idempotency-key", &key) || !is_key(key)) return NULL;
    struct by_str full = name_of(name, caller, key);
    struct resume_answer *a = by_alloc(sizeof *a);
    a->home = r;
    do {
        a->token = by_rand_u64();
    } while (!a->token || by_map_get(&r->by_token, a->token));
    a->owner_hash = owner_hash(caller);
    a->request_hash = request_hash(req);
    a->name = by_strndup(full.p, full.n);
    a->first = a->next = 1;
    by_list_init(&a->followers);
    by_buf_init(&a->kept, RESUME_TOTAL_BYTES);
    by_map_put(&r->by_token, a->token, a);
    by_strmap_put(&r->by_name, by_str_of(a->name), a->token);
    return a;
}

/* ---- followers ---- */

static void follower_free(struct follower *f) {
    by_list_remove(&f->node);
    f->answer->n_followers--;
    by_free(f);
}

static void follower_gone(void *owner) {
    struct follower *f = owner;
    struct resume_answer *a = f->answer;
    size_t n_pending = conn_n_pending(f->conn);
    follower_free(f);
    if (a->n_followers) {
        if (a->owner) a->drained(a->owner); /* it may have been the slow one */
    } else {
        a->n_unseen = n_pending;
        rest(a);
    }
}

static void follower_drained(void *owner) {
    struct follower *f = owner;
    if (f->answer->owner) f->answer->drained(f->answer->owner);
}

void resume_follow(struct resume_answer *a, struct conn *c) {
    struct follower *f = by_alloc(sizeof *f);
    *f = (struct follower){.answer = a, .conn = c};
    by_list_push(&a->followers, &f->node);
    a->n_followers++;
    if (by_list_linked(&a->node)) by_list_remove(&a->node);
    conn_set_owner(c, f, follower_gone, follower_drained);
}

static uint32_t event_bytes(const struct resume_answer *a, size_t at) {
    uint32_t n;
    memcpy(&n, a->kept.p + at, sizeof n);
    return n;
}

/* Sends the events behind `seen`, and ends the stream when the answer is over. */
static void send_behind(struct resume_answer *a, struct conn *c, uint64_t seen) {
    struct by_buf out;
    size_t at = a->at;
    by_buf_init(&out, RESUME_TOTAL_BYTES);
    for (uint64_t id = a->first; id < a->next; id++) {
        uint32_t n = event_bytes(a, at);
        if (id > seen) by_buf_add(&out, a->kept.p + at + sizeof n, n);
        at += sizeof n + n;
    }
    conn_stream_begin(c, a->content_type);
    conn_stream_write(c, by_buf_str(&out));
    by_buf_release(&out);
}

static int join(struct resume_answer *a, struct conn *c, uint64_t seen, struct by_err *err) {
    if (!a->is_done && a->n_followers >= RESUME_FOLLOWERS_MAX)
        return by_fail(err, BY_EFULL, "%d connections follow this answer already",
                       RESUME_FOLLOWERS_MAX);
    if (seen >= a->next)
        return by_fail(err, BY_EINVAL, "Last-Event-ID: event %llu has not been sent yet",
                       (unsigned long long)seen);
    if (a->is_stream && seen + 1 < a->first)
        return by_fail(err, BY_ENOTFOUND,
                       "the answer's events are kept from number %llu on (--resume-bytes); ask "
                       "for them by Last-Event-ID, or anew by another Idempotency-Key",
                       (unsigned long long)a->first);
    if (a->is_done && !a->is_stream) {
        conn_respond(c, a->status, a->content_type, by_buf_str(&a->kept), NULL);
    } else if (a->is_done) {
        send_behind(a, c, seen);
        conn_stream_end(c);
    } else {
        resume_follow(a, c);
        if (a->is_stream) send_behind(a, c, seen); /* its follower may be gone by now */
        if (a->n_followers) a->n_unseen = 0;
        if (a->owner) a->drained(a->owner);
    }
    return 1;
}

int resume_join(struct resume *r, struct conn *c, const struct http1_request *req,
                const struct auth_key *caller, struct by_err *err) {
    struct by_str key, last;
    char name[NAME_BYTES];
    uint64_t token = 0, seen = 0;
    if (!r->grace_ms) return 0;
    bool has_key = http1_header(req, "idempotency-key", &key),
         has_last = http1_header(req, "last-event-id", &last);
    if (has_key && !is_key(key))
        return by_fail(err, BY_EINVAL, "Idempotency-Key: 1 to %d printable characters are needed",
                       RESUME_KEY_BYTES_MAX);
    if (has_last) {
        if (!read_id(last, &token, &seen))
            return by_fail(err, BY_EINVAL,
                           "Last-Event-ID: an id as events carry it, such as "
                           "0123456789abcdef-7, is needed");
        struct resume_answer *a = by_map_get(&r->by_token, token);
        if (a && a->is_stream && a->owner_hash == owner_hash(caller)) return join(a, c, seen, err);
        return by_fail(err, BY_ENOTFOUND,
                       "Last-Event-ID: that stream is not here: it ended more than %.0f s ago, or "
                       "was another router's",
                       (double)r->grace_ms / 1e3);
    }
    if (!has_key || !by_strmap_get(&r->by_name, name_of(name, caller, key), &token)) return 0;
    struct resume_answer *a = by_map_get(&r->by_token, token);
    by_assert(a);
    if (a->request_hash != request_hash(req))
        return by_fail(err, BY_EINVAL, "Idempotency-Key: it came with another request before");
    return join(a, c, 0, err);
}

/* ---- what the request says ---- */

void resume_set_owner(struct resume_answer *a, void *owner, void (*gone)(void *owner),
                      void (*drained)(void *owner)) {
    a->owner = owner;
    a->gone = gone;
    a->drained = drained;
}

void resume_stream_begin(struct resume_answer *a, const char *content_type) {
    a->is_stream = true;
    a->content_type = content_type;
    /* as many again may wait to be moved out, and one event comes before the oldest go */
    a->kept.max = 3 * a->home->bytes_max;
    for (BY_LIST_EACH_SAFE(node, next, &a->followers))
        conn_stream_begin(BY_CONTAINER_OF(node, struct follower, node)->conn, content_type);
}

static void drop_oldest(struct resume_answer *a) {
    while (a->kept.n - a->at > a->home->bytes_max) {
        a->at += sizeof(uint32_t) + event_bytes(a, a->at);
        a->first++;
    }
    if (a->at <= a->kept.n / 2) return; /* moved once it is worth it */
    by_buf_drop_front(&a->kept, a->at);
    a->at = 0;
}

/* One that is larger than all that is kept is not, and those before it go with it. */
static void keep(struct resume_answer *a, struct by_str event) {
    uint32_t n = (uint32_t)event.n; /* of an answer, which is far below 4 GiB */
    a->next++;
    if (event.n > a->home->bytes_max - sizeof n) {
        by_buf_clear(&a->kept);
        a->at = 0;
        a->first = a->next;
        return;
    }
    by_buf_add(&a->kept, &n, sizeof n);
    by_buf_add_str(&a->kept, event);
    by_assert(!a->kept.is_full);
    drop_oldest(a);
}

/* Where the first event of these ends: at its empty line. */
static size_t event_end(struct by_str events) {
    const char *p = memmem(events.p, events.n, "\n\n", 2);
    return p ? (size_t)(p - events.p) + 2 : events.n;
}

/* Each event with its id before it. */
static void add_ids(struct resume_answer *a, struct by_str events, struct by_buf *out) {
    while (events.n) {
        size_t from = out->n, n = event_end(events);
        by_buf_addf(out, "id: %016llx-%llu\n", (unsigned long long)a->token,
                    (unsigned long long)a->next);
        by_buf_add_str(out, by_str_sub(events, 0, n));
        events = by_str_sub(events, n, SIZE_MAX);
        keep(a, (struct by_str){out->p + from, out->n - from});
    }
}

void resume_stream_write(struct resume_answer *a, struct by_str events) {
    size_t before = a->kept.n;
    struct by_buf out;
    by_buf_init(&out, SIZE_MAX); /* what came, which has a ceiling, and an id for each event */
    if (strcmp(a->content_type, SSE_TYPE) == 0) {
        add_ids(a, events, &out);
    } else { /* lines of JSON have no ids: joined from the beginning only */
        by_buf_add_str(&out, events);
        keep(a, events);
    }
    a->home->n_bytes += a->kept.n - before;
    if (!a->n_followers) a->n_unseen += out.n;
    for (BY_LIST_EACH_SAFE(node, next, &a->followers))
        conn_stream_write(BY_CONTAINER_OF(node, struct follower, node)->conn, by_buf_str(&out));
    by_buf_release(&out);
}

/* The request is over: takes the first follower out. NULL: there is none left. */
static struct conn *release_follower(struct resume_answer *a) {
    struct by_list *node = by_list_first(&a->followers);
    if (!node) return NULL;
    struct follower *f = BY_CONTAINER_OF(node, struct follower, node);
    struct conn *c = f->conn;
    conn_set_owner(c, NULL, NULL, NULL);
    follower_free(f);
    return c;
}

static void end(struct resume_answer *a) {
    struct resume *r = a->home;
    a->owner = NULL;
    a->is_done = true;
    rest(a);
    make_room(r);
}

void resume_stream_end(struct resume_answer *a, bool has_failed) {
    if (has_failed) forget_name(a);
    for (struct conn *c; (c = release_follower(a)) != NULL;)
        conn_stream_end(c);
    end(a);
}

void resume_respond(struct resume_answer *a, int status, const char *content_type,
                    struct by_str body, const char *extra) {
    bool had_followers = a->n_followers > 0;
    for (struct conn *c; (c = release_follower(a)) != NULL;)
        conn_respond(c, status, content_type, body, extra);
    if (status != 200 || (had_followers && body.n > a->home->bytes_max)) {
        answer_free(a);
        return;
    }
    a->status = status;
    a->content_type = content_type;
    by_buf_add_str(&a->kept, body);
    a->home->n_bytes += a->kept.n;
    end(a);
}

size_t resume_n_pending(const struct resume_answer *a) {
    size_t n = a->n_followers ? 0 : a->n_unseen;
    for (BY_LIST_EACH(node, &a->followers))
        n = BY_MAX(n, conn_n_pending(BY_CONTAINER_OF(node, const struct follower, node)->conn));
    return n;
}
