#include "scheduler/trace.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { HEADER_MAX = 4096, RECORD_HEAD = 17, PEERS_MAX = 4096 };
/* then it stops: better than a full disk */
static const uint64_t trace_bytes_max = UINT64_C(8) << 30;

struct trace {
    FILE *file;
    struct by_buf frame;
    uint64_t n_bytes;
    bool is_over;
};

/* The whole-numbered options of a core as the header spells them, each with the least and the most that it may say. */
#define TRACE_OPTIONS(U) \
    U(n_replicas, 1, RADIX_REPLICAS_MAX) \
    U(max_running, 1, 65536) \
    U(max_queued, 0, 1 << 20) \
    U(chunked_prefill_size, 1, 1 << 20) \
    U(depth, 1, 2) \
    U(policy, 0, POLICY_SHORTEST_PREFILL) \
    U(preemption_gap, 0, INT32_MAX) \
    U(eviction, 0, RADIX_PRIORITY) \
    U(no_radix_cache, 0, 1) \
    U(state_every, 0, INT32_MAX) \
    U(queue_timeout_ms, 0, INT64_MAX) \
    U(run_timeout_ms, 0, INT64_MAX)

int trace_open(struct trace **out, const char *path, const struct core_options *o,
               struct by_err *err) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!file) {
        if (fd >= 0) close(fd);
        return by_fail(err, BY_EIO, "--trace-file %s: %s", path, strerror(errno));
    }
    struct trace *t = by_alloc(sizeof *t);
    t->file = file;
    by_buf_init(&t->frame, LIMIT_FRAME_BYTES);
    struct by_buf head;
    by_buf_init(&head, HEADER_MAX);
    by_buf_addz(&head, "banyan-trace 1");
#define U(name, least, most) by_buf_addf(&head, " " #name "=%lld", (long long)o->name);
    TRACE_OPTIONS(U)
#undef U
    by_buf_addf(&head, " conservativeness=%.17g\n", o->conservativeness);
    t->n_bytes = fwrite(head.p, 1, head.n, file);
    by_buf_release(&head);
    *out = t;
    return 0;
}

void trace_close(struct trace *t) {
    if (!t) return;
    fclose(t->file);
    by_buf_release(&t->frame);
    by_free(t);
}

static void record(struct trace *t, char kind, uint64_t now_ns, uint32_t peer,
                   struct by_str bytes) {
    if (t->is_over) return;
    uint8_t head[RECORD_HEAD];
    uint32_t n = (uint32_t)bytes.n;
    head[0] = (uint8_t)kind;
    memcpy(head + 1, &now_ns, sizeof now_ns);
    memcpy(head + 9, &peer, sizeof peer);
    memcpy(head + 13, &n, sizeof n);
    bool ok =
        fwrite(head, 1, sizeof head, t->file) == sizeof head && fwrite(bytes.p, 1, n, t->file) == n;
    t->n_bytes += sizeof head + n;
    if (ok && t->n_bytes < trace_bytes_max) return;
    t->is_over = true;
    by_warn("the trace ends here: %s", ok ? "it has reached its largest size" : strerror(errno));
}

static struct by_str encoded(struct trace *t, const struct msg *m) {
    by_buf_clear(&t->frame);
    msg_encode(m, &t->frame);
    return by_buf_str(&t->frame);
}

void trace_up(struct trace *t, uint64_t now_ns, uint32_t peer, const struct msg_hello *hello) {
    if (!t) return;
    struct msg m = {.kind = MSG_hello, .hello = *hello};
    record(t, 'U', now_ns, peer, encoded(t, &m));
}

void trace_message(struct trace *t, uint64_t now_ns, uint32_t peer, const struct msg *m) {
    if (t) record(t, 'M', now_ns, peer, encoded(t, m));
}

void trace_down(struct trace *t, uint64_t now_ns, uint32_t peer, const char *why) {
    if (t) record(t, 'D', now_ns, peer, by_str_of(why));
}

void trace_step(struct trace *t, uint64_t now_ns) {
    if (!t) return;
    record(t, 'S', now_ns, 0, (struct by_str){"", 0});
    fflush(t->file);
}

/* ---- and back ---- */

struct replay {
    struct core *core;
    struct trace_summary *sum;
    struct by_buf frame;
    struct by_arena arena;
    uint32_t up[PEERS_MAX]; /* sessions that stand */
    uint32_t n_up;
    uint64_t first_ns, now_ns;
};

static void on_send(void *ctx, uint32_t peer, const struct msg *m) {
    struct replay *r = ctx;
    by_buf_clear(&r->frame);
    msg_encode(m, &r->frame);
    r->sum->n_frames++;
    r->sum->n_steps += m->kind == MSG_step;
    if (m->kind == MSG_tokens) r->sum->n_tokens += m->tokens.ids.n;
    r->sum->hash =
        (r->sum->hash ^ by_str_hash(by_buf_str(&r->frame)) ^ peer) * UINT64_C(0x100000001B3);
}

static bool is_up(const struct replay *r, uint32_t peer) {
    for (uint32_t i = 0; i < r->n_up; i++) {
        if (r->up[i] == peer) return true;
    }
    return false;
}

static void forget(struct replay *r, uint32_t peer) {
    for (uint32_t i = 0; i < r->n_up; i++) {
        if (r->up[i] == peer) r->up[i] = r->up[--r->n_up];
    }
}

static void on_end(void *ctx, uint32_t peer, const char *why) {
    (void)why;
    forget(ctx, peer);
}

static int parse_number(struct by_str text, const char *key, int64_t min, int64_t max, int64_t *out,
                        struct by_err *err) {
    if (!by_str_to_i64(text, out) || *out < min || *out > max)
        return by_fail(err, BY_EFORMAT, "trace header: %s=" BY_STR_FMT " is out of range", key,
                       BY_STR_ARG(text));
    return 0;
}

static int parse_option(struct core_options *o, struct by_str key, struct by_str value,
                        struct by_err *err) {
    int64_t number = 0;
#define U(field, least, most) \
    if (by_str_eqz(key, #field)) { \
        int rc = parse_number(value, #field, least, most, &number, err); \
        o->field = (__typeof__(o->field))number; \
        return rc; \
    }
    TRACE_OPTIONS(U)
#undef U
    if (by_str_eqz(key, "conservativeness") &&
        (!by_str_to_f64(value, &o->conservativeness) || o->conservativeness < 0 ||
         o->conservativeness > 100))
        return by_fail(err, BY_EFORMAT, "trace header: conservativeness=" BY_STR_FMT,
                       BY_STR_ARG(value));
    return 0;
}

static int parse_header(struct by_str *bytes, struct core_options *o, struct by_err *err) {
    struct by_str head = by_str_sub(*bytes, 0, HEADER_MAX), line, word;
    if (by_str_find(head, BY_STR("\n"), 0) == SIZE_MAX ||
        !by_str_starts(head, BY_STR("banyan-trace 1 ")))
        return by_fail(err, BY_EFORMAT,
                       "this is no trace of the scheduler, or one of another version");
    by_str_split(bytes, '\n', &line);
    *o = (struct core_options){.n_replicas = 1,
                               .max_running = 1,
                               .chunked_prefill_size = 1,
                               .depth = 1,
                               .conservativeness = 1};
    while (by_str_split(&line, ' ', &word) || word.n) {
        struct by_str value = word, key;
        if (!by_str_split(&value, '=', &key)) continue;
        int rc = parse_option(o, key, value, err);
        if (rc) return rc;
    }
    return 0;
}

static int feed(struct replay *r, char kind, uint32_t peer, struct by_str body,
                struct by_err *err) {
    struct msg m;
    by_arena_clear(&r->arena);
    if (kind == 'U' || kind == 'M') {
        int rc = msg_decode(&m, body, &r->arena, err);
        if (rc) return rc;
    }
    switch (kind) {
    case 'U':
        if (m.kind != MSG_hello || peer == 0 || is_up(r, peer) || r->n_up == PEERS_MAX)
            return by_fail(err, BY_EFORMAT, "trace: a session that cannot begin");
        if (core_admit(r->core, &m.hello, err) != 0) return err->code;
        r->up[r->n_up++] = peer;
        r->sum->n_ups++;
        core_on_up(r->core, r->now_ns, peer, &m.hello);
        return 0;
    case 'M':
        r->sum->n_messages++;
        core_on_message(r->core, r->now_ns, peer, &m);
        return 0;
    case 'D':
        r->sum->n_downs++;
        forget(r, peer);
        core_on_down(r->core, r->now_ns, peer, "as in the trace");
        return 0;
    case 'S':
        r->sum->n_steps_asked++;
        core_next_step(r->core, r->now_ns);
        return 0;
    default:
        return by_fail(err, BY_EFORMAT, "trace: a record of kind %u", (unsigned)(uint8_t)kind);
    }
}

struct record {
    char kind;
    uint32_t peer;
    uint64_t now_ns;
    struct by_str body;
};

/* The next record, cut off from bytes. 1: there is one; 0: that was the last; *is_cut: it is not whole. */
static int next_record(struct by_str *bytes, struct record *out, bool *is_cut, struct by_err *err) {
    uint32_t n;
    *is_cut = bytes->n > 0 && bytes->n < RECORD_HEAD;
    if (bytes->n < RECORD_HEAD) return 0;
    out->kind = bytes->p[0];
    memcpy(&out->now_ns, bytes->p + 1, sizeof out->now_ns);
    memcpy(&out->peer, bytes->p + 9, sizeof out->peer);
    memcpy(&n, bytes->p + 13, sizeof n);
    if (n > LIMIT_FRAME_BYTES) return by_fail(err, BY_ELIMIT, "trace: a record of %u bytes", n);
    *is_cut = bytes->n < (size_t)RECORD_HEAD + n;
    if (*is_cut) return 0;
    out->body = by_str_sub(*bytes, RECORD_HEAD, n);
    *bytes = by_str_sub(*bytes, (size_t)RECORD_HEAD + n, SIZE_MAX);
    return 1;
}

static int feed_all(struct replay *r, struct by_str bytes, bool check, struct by_err *err) {
    struct record it;
    int rc = next_record(&bytes, &it, &r->sum->is_cut, err);
    for (; rc == 1; rc = next_record(&bytes, &it, &r->sum->is_cut, err)) {
        r->now_ns = BY_MAX(r->now_ns, it.now_ns);
        if (!r->first_ns) r->first_ns = it.now_ns;
        rc = feed(r, it.kind, it.peer, it.body, err);
        if (rc) return rc;
        if (check && !core_check(r->core))
            return by_fail(err, BY_EINTERNAL, "trace: core_check fails");
    }
    return rc;
}

int trace_print(struct by_str bytes, void (*line)(void *ctx, struct by_str text), void *ctx,
                struct by_err *err) {
    struct core_options o;
    struct by_arena arena;
    struct by_buf out;
    struct record it;
    bool is_cut;
    int rc = parse_header(&bytes, &o, err);
    if (rc) return rc;
    by_arena_init(&arena, 0);
    by_buf_init(&out, LIMIT_FRAME_BYTES);
    uint64_t first_ns = 0;
    for (;;) {
        rc = next_record(&bytes, &it, &is_cut, err);
        if (rc != 1) break;
        struct msg m;
        if (it.kind == 'S') continue; /* it was asked for a step: most of the file */
        if (!first_ns) first_ns = it.now_ns;
        by_arena_clear(&arena);
        by_buf_clear(&out);
        by_buf_addf(&out, "%12.6f peer %u: ", (double)(it.now_ns - first_ns) / 1e9, it.peer);
        if (it.kind == 'D') {
            by_buf_addz(&out, "gone: ");
            by_buf_add_str(&out, it.body);
        } else {
            rc = msg_decode(&m, it.body, &arena, err);
            if (rc) break;
            msg_print(&m, &out);
        }
        line(ctx, by_buf_str(&out));
    }
    by_arena_release(&arena);
    by_buf_release(&out);
    return rc;
}

int trace_replay(struct by_str bytes, bool check, struct trace_summary *out, struct by_err *err) {
    struct core_options o;
    *out = (struct trace_summary){0};
    int rc = parse_header(&bytes, &o, err);
    if (rc) return rc;
    struct replay *r = by_alloc(sizeof *r);
    struct core_sink sink = {.send = on_send, .end = on_end, .ctx = r};
    r->sum = out;
    r->core = core_new(&o, &sink);
    by_buf_init(&r->frame, LIMIT_FRAME_BYTES);
    by_arena_init(&r->arena, 0);
    rc = feed_all(r, bytes, check, err);
    out->span_ns = r->now_ns - r->first_ns;
    struct trace_summary at_end = *out; /* what core_free sends no longer counts */
    core_free(r->core);
    *out = at_end;
    by_arena_release(&r->arena);
    by_buf_release(&r->frame);
    by_free(r);
    return rc;
}
