#include "gpu_worker/cuda/queue.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/str.h"

#include <string.h>

enum {
    BLOCK_MIN = 1 << 19, /* doubled for each further one */
    BLOCKS_MAX = 12,
    ROOM_MIN = 256,
    ROOMS_MAX = 512,    /* staged arrays of one run; beyond that they are not shared, only copied */
    GRAPHS_MAX = 320,   /* one for each number of decode rows, and some for logits and sampling */
    GRAPH_COMMANDS = 6, /* a shorter list is as fast without */
};

/* One command in the list; its bytes follow. */
struct command {
    struct port_launch launch;
    int (*call)(void *ctx, const void *args); /* instead of a kernel */
    void *ctx;
    uint32_t n_bytes; /* of args, rounded up to 16 */
};

struct room {
    const void *of;
    uint64_t variant;
    size_t n, at;
    uint32_t block;
};

/* Once made a block stays where it is, so commands that name it stay true. */
struct block {
    uint8_t *pinned[PORT_MARKS], *device;
    size_t cap, n_used;
};

/* A list that was run before. */
struct known {
    uint64_t hash, used;
    uint8_t *list; /* NULL: seen once */
    size_t n_list;
    struct port_graph *graph; /* NULL with a list: it made room for another */
};

struct queue {
    struct port *port;
    bool use_graphs, has_failed;
    bool is_full; /* the device has no memory for another graph: those that are there go on */
    uint8_t *list;
    size_t n_list, list_cap;
    uint32_t n_commands;
    bool ranks_meet; /* in this list */

    struct block blocks[BLOCKS_MAX];
    uint32_t n_blocks, block;
    uint32_t ring; /* which of a block's pinned parts is being filled */
    struct room rooms[ROOMS_MAX];
    uint32_t n_rooms;
    struct {
        void *to;
        const void *from;
        size_t n; /* 0: nothing is fetched */
    } fetch;
    /* when a run was last seen to be done, or was handed over to an idle device */
    uint64_t reached_ns;
    uint64_t n_reached; /* runs up to this one are done */

    struct known known[GRAPHS_MAX];
    uint32_t n_known;
    struct queue_counts counts;
};

struct queue *queue_new(struct port *p, bool use_graphs) {
    struct queue *q = by_alloc(sizeof *q);
    q->port = p;
    q->use_graphs = use_graphs;
    return q;
}

void queue_forget(struct queue *q) {
    for (uint32_t i = 0; i < q->n_known; i++) {
        port_graph_free(q->port, q->known[i].graph);
        by_free(q->known[i].list);
    }
    q->n_known = 0;
    q->is_full = false;
}

void queue_free(struct queue *q) {
    if (!q) return;
    queue_forget(q);
    for (uint32_t i = 0; i < q->n_blocks; i++) {
        port_free(q->port, q->blocks[i].device);
        for (uint32_t k = 0; k < PORT_MARKS; k++)
            port_pinned_free(q->port, q->blocks[i].pinned[k]);
    }
    by_free(q->list);
    by_free(q);
}

void queue_begin(struct queue *q) {
    q->n_list = q->n_commands = 0;
    for (uint32_t i = 0; i < q->n_blocks; i++)
        q->blocks[i].n_used = 0;
    q->block = q->n_rooms = 0;
    q->ranks_meet = false;
    q->fetch.n = 0;
    q->ring = (q->ring + 1) % PORT_MARKS;
    if (port_wait(q->port, q->ring, 60000)) q->has_failed = true;
}

/* ---- the list ---- */

static uint8_t *grow_list(struct queue *q, size_t n) {
    if (q->n_list + n > q->list_cap) {
        q->list_cap = BY_MAX(2 * q->list_cap, q->n_list + n + 65536);
        q->list = by_realloc(q->list, q->list_cap);
    }
    uint8_t *at = q->list + q->n_list;
    q->n_list += n;
    q->n_commands++;
    return at;
}

static void add(struct queue *q, struct command c, const void *args, uint32_t n_args) {
    c.n_bytes = BY_ALIGN_UP(n_args, 16u);
    uint8_t *at = grow_list(q, sizeof c + c.n_bytes);
    memcpy(at, &c, sizeof c);
    memset(at + sizeof c, 0, c.n_bytes);
    if (n_args) memcpy(at + sizeof c, args, n_args);
}

void queue_add(struct queue *q, const struct port_launch *l, const void *args) {
    struct command c;
    memset(&c, 0, sizeof c); /* padding is compared too */
    c.launch = *l;
    add(q, c, args, l->n_args);
}

void queue_call(struct queue *q, int (*fn)(void *ctx, const void *args), void *ctx,
                const void *args, uint32_t n_args) {
    struct command c;
    memset(&c, 0, sizeof c);
    c.call = fn;
    c.ctx = ctx;
    add(q, c, args, n_args);
}

void queue_meet(struct queue *q, int (*fn)(void *ctx, const void *args), void *ctx,
                const void *args, uint32_t n_args) {
    queue_call(q, fn, ctx, args, n_args);
    q->ranks_meet = true;
}

/* ---- staging ---- */

static size_t room_bytes(size_t n) {
    size_t b = ROOM_MIN;
    while (b < n)
        b *= 2;
    return b;
}

static void add_block(struct queue *q, size_t n) {
    by_assert(q->n_blocks < BLOCKS_MAX);
    struct block *b = &q->blocks[q->n_blocks++];
    b->cap = BY_MAX((size_t)BLOCK_MIN << q->n_blocks, n);
    b->device = port_malloc(q->port, b->cap);
    bool has_all = b->device;
    for (uint32_t i = 0; i < PORT_MARKS; i++) {
        b->pinned[i] = port_pinned(q->port, b->cap);
        has_all = has_all && b->pinned[i];
    }
    if (!has_all) by_die("no memory for %zu bytes between host and device", b->cap);
}

/* First fit from the block in hand on: the same arrays always find the same places. */
static struct block *block_for(struct queue *q, size_t bytes) {
    while (q->block < q->n_blocks && q->blocks[q->block].n_used + bytes > q->blocks[q->block].cap)
        q->block++;
    if (q->block == q->n_blocks) add_block(q, bytes);
    return &q->blocks[q->block];
}

void *queue_room(struct queue *q, const void *of, uint64_t variant, size_t n, const void **device,
                 bool *is_new) {
    *is_new = false;
    for (uint32_t i = 0; i < q->n_rooms; i++) {
        const struct room *r = &q->rooms[i];
        if (r->of != of || r->variant != variant || r->n != n) continue;
        *device = q->blocks[r->block].device + r->at;
        return q->blocks[r->block].pinned[q->ring] + r->at;
    }
    size_t bytes = room_bytes(n);
    struct block *b = block_for(q, bytes);
    size_t at = b->n_used;
    b->n_used += bytes;
    if (q->n_rooms < ROOMS_MAX)
        q->rooms[q->n_rooms++] = (struct room){of, variant, n, at, q->block};
    *is_new = true;
    *device = b->device + at;
    return b->pinned[q->ring] + at;
}

const void *queue_stage(struct queue *q, const void *host, size_t n) {
    const void *device;
    bool is_new;
    void *at = queue_room(q, host, 0, n, &device, &is_new);
    if (is_new && n) memcpy(at, host, n);
    return device;
}

/* ---- handing over ---- */

static int run_list(struct queue *q) {
    size_t at = 0;
    while (at < q->n_list) {
        struct command c;
        memcpy(&c, q->list + at, sizeof c);
        const void *args = q->list + at + sizeof c;
        int rc = c.call ? c.call(c.ctx, args) : port_run(q->port, &c.launch, args);
        if (rc) return rc;
        at += sizeof c + c.n_bytes;
    }
    return 0;
}

static struct known *find_known(struct queue *q, uint64_t hash) {
    for (uint32_t i = 0; i < q->n_known; i++) {
        if (q->known[i].hash == hash) return &q->known[i];
    }
    return NULL;
}

/* A new entry; when all are taken, in place of the one that was not used for longest. */
static struct known *add_known(struct queue *q) {
    if (q->n_known < GRAPHS_MAX) return &q->known[q->n_known++];
    struct known *oldest = &q->known[0];
    for (uint32_t i = 1; i < q->n_known; i++) {
        if (q->known[i].used < oldest->used) oldest = &q->known[i];
    }
    port_graph_free(q->port, oldest->graph);
    by_free(oldest->list);
    return oldest;
}

/* No graph with 0: there is no memory for one more. */
static int record(struct queue *q, struct known *k) {
    int rc = port_record(q->port);
    if (!rc) rc = run_list(q);
    if (!rc) rc = port_recorded(q->port, &k->graph);
    if (rc || !k->graph) return rc;
    if (!k->list) k->list = by_memdup(q->list, q->n_list);
    k->n_list = q->n_list;
    q->counts.n_graphs++;
    return 0;
}

/* The graph that was not used for longest goes, once the device is done with it. Its list stays: it is no new one. */
static int make_room(struct queue *q, bool *has_made) {
    struct known *oldest = NULL;
    for (uint32_t i = 0; i < q->n_known; i++) {
        struct known *k = &q->known[i];
        if (k->graph && (!oldest || k->used < oldest->used)) oldest = k;
    }
    *has_made = oldest;
    if (!oldest) return 0;
    int rc = port_wait(q->port, (q->ring + PORT_MARKS - 1) % PORT_MARKS, 60000);
    port_graph_free(q->port, oldest->graph);
    oldest->graph = NULL;
    return rc;
}

static int record_or_not(struct queue *q, struct known *k) {
    bool goes_on = !q->is_full || q->ranks_meet;
    int rc = 0;
    while (goes_on && !rc) {
        rc = record(q, k);
        goes_on = !rc && !k->graph && q->ranks_meet;
        if (goes_on) rc = make_room(q, &goes_on);
    }
    if (rc || k->graph) return rc;
    q->is_full = true;
    if (!q->ranks_meet) return 0;
    return port_fail(q->port,
                     "no memory for a graph of %u commands, and other ranks may have one: leave "
                     "more of the device free (--mem-fraction-static)",
                     q->n_commands);
}

static int hand_over(struct queue *q) {
    if (!q->use_graphs || q->n_commands < GRAPH_COMMANDS) return run_list(q);
    uint64_t hash = by_str_hash((struct by_str){(const char *)q->list, q->n_list});
    struct known *k = find_known(q, hash);
    if (!k) { /* first sight: most lists of prompts never come again */
        k = add_known(q);
        *k = (struct known){.hash = hash, .used = q->counts.n_runs};
        return run_list(q);
    }
    k->used = q->counts.n_runs;
    if (k->list && (k->n_list != q->n_list || memcmp(k->list, q->list, q->n_list) != 0))
        return run_list(q); /* two lists of one hash: the second goes without */
    int rc = k->graph ? 0 : record_or_not(q, k);
    if (rc) return rc;
    if (!k->graph) return run_list(q);
    q->counts.n_graph_runs++;
    return port_graph_run(q->port, k->graph);
}

void queue_fetch(struct queue *q, void *to, const void *from, size_t n) {
    by_assert(!q->fetch.n);
    q->fetch.to = to;
    q->fetch.from = from;
    q->fetch.n = n;
}

int queue_end(struct queue *q) {
    int rc = q->has_failed ? -1 : 0;
    if (q->n_reached == q->counts.n_runs) q->reached_ns = by_now_ns();
    q->counts.n_runs++;
    q->counts.n_commands += q->n_commands;
    for (uint32_t i = 0; i < q->n_blocks && !rc; i++) {
        const struct block *b = &q->blocks[i];
        if (b->n_used) rc = port_to_device(q->port, b->device, b->pinned[q->ring], b->n_used);
    }
    if (!rc) rc = hand_over(q);
    if (!rc && q->fetch.n) rc = port_to_host(q->port, q->fetch.to, q->fetch.from, q->fetch.n);
    if (!rc) rc = port_mark(q->port, q->ring);
    if (rc) q->has_failed = true;
    return rc;
}

int queue_wait(struct queue *q, uint32_t deadline_ms) {
    if (q->has_failed) return -1;
    int rc = port_wait(q->port, q->ring, deadline_ms);
    if (rc) q->has_failed = true;
    q->n_reached = q->counts.n_runs;
    return rc;
}

int queue_reached(struct queue *q, uint64_t n, uint32_t deadline_ms) {
    uint64_t n_later = q->counts.n_runs - n;
    by_assert(n && n <= q->counts.n_runs);
    if (q->has_failed) return -1;
    /* its mark serves another run already */
    if (n <= q->n_reached || n_later >= PORT_MARKS) return 1;
    int rc = port_reached(q->port, (q->ring + PORT_MARKS - (uint32_t)n_later) % PORT_MARKS);
    uint64_t now = by_now_ns();
    if (rc == 0 && now - q->reached_ns > (uint64_t)deadline_ms * 1000000)
        rc = port_fail(q->port, "a step is not done after %u ms", deadline_ms);
    if (rc < 0) q->has_failed = true;
    if (rc > 0) {
        q->n_reached = n;
        q->reached_ns = now;
    }
    return rc;
}

struct queue_counts queue_counted(const struct queue *q) {
    return q->counts;
}
