/* dump.c - questions and orders: what `banyan inspect`, /v1/loads, /v1/cache and /flush_cache see and say. */
#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/metrics.h"
#include "scheduler/core_state.h"

enum { LISTED_MAX = 100, TOP_MAX = 100, TOP_DEFAULT = 10, IDS_SHOWN = 8, PIN_IDS_MAX = 1 << 20 };

typedef int dump_fn(struct core *c, const struct by_json *args, struct by_buf *out,
                    struct by_err *err);

static double per(uint64_t a, uint64_t b) {
    return b ? (double)a / (double)b : 0;
}

static void add_u64(struct by_buf *out, const char *key, uint64_t value) {
    by_buf_addf(out, "\"%s\":%llu,", key, (unsigned long long)value);
}

static void add_f64(struct by_buf *out, const char *key, double value) {
    by_buf_addf(out, "\"%s\":", key);
    by_buf_add_json_f64(out, value);
    by_buf_addc(out, ',');
}

static void add_str(struct by_buf *out, const char *key, struct by_str value) {
    by_buf_addf(out, "\"%s\":", key);
    by_buf_add_json_str(out, value);
    by_buf_addc(out, ',');
}

/* The last comma becomes what ends the object or array. */
static void close_with(struct by_buf *out, const char *end) {
    if (out->n && out->p[out->n - 1] == ',') out->n--;
    by_buf_addz(out, end);
}

/* ---- loads ---- */

/* An upper bound: what the tree holds is not looked up. Of many, the first say for all. */
static uint64_t uncached_waiting(const struct core *c) {
    uint64_t n = 0;
    uint32_t n_seen = 0;
    for (BY_LIST_EACH(it, &c->waiting)) {
        if (n_seen == LISTED_MAX) break;
        n += BY_CONTAINER_OF(it, struct seq, link)->n_total;
        n_seen++;
    }
    return n_seen ? n * c->n_waiting / n_seen : 0;
}

/* Sections of /v1/loads, as SGLang names them. Of speculation, adapters and disaggregation there is nothing to tell. */
enum { CORE = 1, MEMORY = 2, QUEUES = 4, NOTHING = 8, ALL = 15 };

static int read_sections(struct by_str list, unsigned *sections, struct by_err *err) {
    static const struct {
        const char *name;
        unsigned bit;
    } known[] = {{"core", CORE},    {"memory", MEMORY}, {"queues", QUEUES}, {"all", ALL},
                 {"spec", NOTHING}, {"lora", NOTHING},  {"disagg", NOTHING}};
    struct by_str name;
    *sections = list.n ? 0 : ALL;
    while (list.n) {
        unsigned bit = 0;
        by_str_split(&list, ',', &name);
        for (size_t i = 0; i < BY_COUNTOF(known); i++) {
            if (by_str_eqz(name, known[i].name)) bit = known[i].bit;
        }
        if (!bit)
            return by_fail(err, BY_EINVAL,
                           "include: '%.*s' is no section; core, memory, spec, lora, disagg, "
                           "queues and all are",
                           (int)BY_MIN(name.n, (size_t)40), name.p);
        *sections |= bit;
    }
    return 0;
}

static void add_memory(const struct replica *r, uint32_t page_size, struct by_buf *out) {
    by_buf_addz(out, "\"memory\":{");
    add_f64(out, "weight_gb", (double)r->capacity.weight_bytes / 1e9);
    add_f64(out, "kv_cache_gb", (double)r->capacity.kv_bytes / 1e9);
    add_u64(out, "token_capacity", r->is_up ? (uint64_t)pages_n(r->pages) * page_size : 0);
    close_with(out, "},");
}

/* Those that gave way and wait for a place again are among those that wait. */
static void add_queues(const struct core *c, struct by_buf *out) {
    uint64_t n_paused = 0, n_retracted = 0;
    for (BY_LIST_EACH(it, &c->paused))
        n_paused++;
    for (BY_LIST_EACH(it, &c->waiting))
        n_retracted += req_n_output(BY_CONTAINER_OF(it, struct seq, link)) > 0;
    by_buf_addz(out, "\"queues\":{");
    add_u64(out, "waiting", c->n_waiting);
    add_u64(out, "paused", n_paused);
    add_u64(out, "retracted", n_retracted);
    close_with(out, "},");
}

static void add_core(const struct core *c, const struct replica *r, struct by_buf *out) {
    uint64_t n_pages = r->is_up ? pages_n(r->pages) : 0;
    uint64_t n_used =
        r->is_up ? n_pages - pages_n_free(r->pages) - radix_n_evictable(c->tree, r->index) : 0;
    by_buf_addf(out, "\"is_up\":%s,", r->is_up ? "true" : "false");
    add_u64(out, "num_running_reqs", r->n_running);
    add_u64(out, "num_waiting_reqs", c->n_queued);
    add_u64(out, "num_waiting_uncached_tokens", uncached_waiting(c));
    add_u64(out, "num_used_pages", r->is_up ? n_pages - pages_n_free(r->pages) : 0);
    add_u64(out, "num_used_tokens", n_used * c->page_size);
    add_u64(out, "num_active_tokens", n_used * c->page_size);
    add_u64(out, "num_total_tokens", n_used * c->page_size + uncached_waiting(c));
    add_u64(out, "max_total_num_tokens", n_pages * c->page_size);
    add_u64(out, "num_kept_states", r->states ? states_n_filed(r->states) : 0);
    add_u64(out, "max_kept_states", r->states ? states_n(r->states) : 0);
    add_u64(out, "max_running_requests", r->n_slots);
    add_f64(out, "token_usage", per(n_used, n_pages));
    add_f64(out, "gen_throughput", replica_rate(r, c->now_ns));
    add_f64(out, "cache_hit_rate", per(c->counts.cached_tokens, c->counts.prompt_tokens));
    add_f64(out, "utilization", BY_MAX(per(r->n_running, r->n_slots), per(n_used, n_pages)));
    add_u64(out, "steps", r->n_steps);
    add_u64(out, "steps_failed", r->n_steps_failed);
    add_u64(out, "compute_us", r->compute_us);
}

static void add_load(const struct core *c, const struct replica *r, unsigned sections,
                     struct by_buf *out) {
    by_buf_addc(out, '{');
    add_u64(out, "dp_rank", r->index);
    if (sections & CORE) add_core(c, r, out);
    if (sections & MEMORY) add_memory(r, c->page_size, out);
    if (sections & QUEUES) add_queues(c, out);
    close_with(out, "},");
}

/* args: {include: "core,memory", dp_rank: 0}; without them all of all. */
static int dump_loads(struct core *c, const struct by_json *args, struct by_buf *out,
                      struct by_err *err) {
    struct by_str include = {0};
    int64_t rank = -1, n = c->opt.n_replicas;
    unsigned sections;
    int rc = by_json_get_str(args, "", "include", &include, err);
    if (!rc) rc = read_sections(include, &sections, err);
    if (!rc) rc = by_json_get_i64(args, "", "dp_rank", 0, n - 1, &rank, err);
    if (rc) return rc;
    by_buf_addc(out, '{');
    add_str(out, "version", BY_STR(BANYAN_VERSION));
    add_f64(out, "uptime_s", (double)(c->now_ns - c->started_ns) / (double)BY_NS_PER_S);
    add_u64(out, "num_retracted_total", c->counts.n_retractions);
    add_u64(out, "evicted_tokens_total", c->tree ? radix_n_evicted(c->tree) * c->page_size : 0);
    by_buf_addz(out, "\"loads\":[");
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        if (rank < 0 || i == rank) add_load(c, c->replicas[i], sections, out);
    }
    close_with(out, "]}");
    return 0;
}

/* ---- the tree ---- */

static void add_top(struct by_buf *out, const struct radix_top *top) {
    by_buf_addc(out, '{');
    add_u64(out, "tokens", top->n_tokens);
    add_u64(out, "depth_tokens", top->n_path_tokens);
    add_u64(out, "hits", top->n_hits);
    add_str(out, "space", top->space);
    by_buf_addz(out, "\"replicas\":[");
    for (uint32_t i = 0; i < RADIX_REPLICAS_MAX; i++) {
        if (top->replicas >> i & 1) by_buf_addf(out, "%u,", i);
    }
    close_with(out, "],\"ids\":[");
    for (uint32_t i = 0; i < BY_MIN(top->n_tokens, (uint32_t)IDS_SHOWN); i++)
        by_buf_addf(out, "%u,", top->ids[i]);
    close_with(out, "]},");
}

static void add_tree(struct core *c, uint32_t n_top, struct by_buf *out) {
    struct radix_top top[TOP_MAX];
    by_buf_addc(out, '{');
    add_u64(out, "page_size", c->page_size);
    add_u64(out, "nodes", c->tree ? radix_n_nodes(c->tree) : 0);
    add_u64(out, "evicted_tokens", c->tree ? radix_n_evicted(c->tree) * c->page_size : 0);
    add_u64(out, "prompt_tokens", c->counts.prompt_tokens);
    add_u64(out, "cached_tokens", c->counts.cached_tokens);
    by_buf_addz(out, "\"replicas\":[");
    for (uint32_t i = 0; i < c->opt.n_replicas && c->tree; i++) {
        const struct replica *r = c->replicas[i];
        by_buf_addc(out, '{');
        add_u64(out, "held_tokens", (uint64_t)radix_n_held(c->tree, i) * c->page_size);
        add_u64(out, "evictable_tokens", (uint64_t)radix_n_evictable(c->tree, i) * c->page_size);
        add_u64(out, "pinned_tokens", (uint64_t)r->n_pinned * c->page_size);
        add_u64(out, "free_tokens", r->is_up ? (uint64_t)pages_n_free(r->pages) * c->page_size : 0);
        add_u64(out, "states", r->states ? states_n_filed(r->states) : 0);
        close_with(out, "},");
    }
    close_with(out, "],\"top\":[");
    uint32_t n = c->tree ? radix_top(c->tree, top, n_top) : 0;
    for (uint32_t i = 0; i < n; i++)
        add_top(out, &top[i]);
    close_with(out, "]}");
}

static int dump_cache(struct core *c, const struct by_json *args, struct by_buf *out,
                      struct by_err *err) {
    int64_t n_top = TOP_DEFAULT;
    int rc = by_json_get_i64(args, "", "top", 0, TOP_MAX, &n_top, err);
    if (rc == 0) add_tree(c, (uint32_t)n_top, out);
    return rc;
}

/* ---- everything ---- */

static void add_seq(struct by_buf *out, const struct core *c, const struct seq *s) {
    const struct req *req = s->req;
    by_buf_addc(out, '{');
    add_u64(out, "epoch", req->name.epoch);
    add_u64(out, "rid", req->name.rid);
    add_u64(out, "sample", s->sample);
    add_str(out, "state", by_str_of(seq_state_name(s->state)));
    add_str(out, "tenant", req->tenant->name);
    by_buf_addf(out, "\"priority\":%d,", req->routing.priority);
    add_f64(out, "age_s", (double)(c->now_ns - req->arrived_ns) / (double)BY_NS_PER_S);
    add_u64(out, "prompt_tokens", req->n_prompt);
    add_u64(out, "cached_tokens", s->n_cached);
    add_u64(out, "computed_tokens", s->n_done);
    add_u64(out, "output_tokens", req_n_output(s));
    add_u64(out, "max_tokens", s->n_max - BY_MIN(s->n_max, req->n_prompt));
    add_u64(out, "retractions", req->n_retractions);
    close_with(out, "},");
}

static void add_list(struct by_buf *out, const struct core *c, const struct by_list *list) {
    uint32_t n = 0;
    for (BY_LIST_EACH(it, list)) {
        if (n++ == LISTED_MAX) break;
        add_seq(out, c, BY_CONTAINER_OF(it, struct seq, link));
    }
}

static void add_tenants(struct by_buf *out, const struct core *c) {
    const struct by_list *lists[] = {&c->tenants.busy, &c->tenants.idle};
    uint32_t n = 0;
    by_buf_addz(out, "\"tenants\":[");
    for (uint32_t i = 0; i < BY_COUNTOF(lists); i++) {
        for (BY_LIST_EACH(it, lists[i])) {
            const struct tenant *t = BY_CONTAINER_OF(it, struct tenant, link);
            if (n == LISTED_MAX) break;
            n++;
            by_buf_addc(out, '{');
            add_str(out, "tenant", t->name);
            add_f64(out, "counter", t->counter);
            add_u64(out, "running", t->n_running);
            add_u64(out, "waiting", t->n_waiting);
            add_u64(out, "requests", t->n_requests);
            add_u64(out, "prompt_tokens", t->prompt_tokens);
            add_u64(out, "cached_tokens", t->cached_tokens);
            add_u64(out, "output_tokens", t->output_tokens);
            add_f64(out, "queue_s", (double)t->queue_ns / (double)BY_NS_PER_S);
            add_f64(out, "compute_s", t->compute_us / 1e6);
            close_with(out, "},");
        }
    }
    close_with(out, "],");
    add_str(out, "tenants_note", BY_STR("counters and ledger start at zero with the scheduler"));
}

static int dump_all(struct core *c, const struct by_json *args, struct by_buf *out,
                    struct by_err *err) {
    int64_t n_top = TOP_DEFAULT;
    int rc = by_json_get_i64(args, "", "top", 0, TOP_MAX, &n_top, err);
    if (rc) return rc;
    const char *why;
    bool is_ready = core_is_ready(c, &why);
    by_buf_addf(out, "{\"is_ready\":%s,", is_ready ? "true" : "false");
    add_str(out, "why", by_str_of(why));
    add_str(out, "policy", by_str_of(policy_name(c->policy.kind)));
    add_f64(out, "new_token_ratio", c->new_token_ratio);
    add_u64(out, "live", c->n_live);
    add_u64(out, "queued", c->n_queued);
    add_u64(out, "waiting_samples", c->n_waiting);
    add_u64(out, "suspects", c->n_isolated);
    add_u64(out, "requests", c->counts.n_requests);
    add_u64(out, "refused", c->counts.n_refused);
    add_u64(out, "cancelled", c->counts.n_cancelled);
    add_u64(out, "retractions", c->counts.n_retractions);
    add_u64(out, "preemptions", c->counts.n_preemptions);
    add_u64(out, "strange_frames", c->counts.n_strange_frames);
    add_u64(out, "output_tokens", c->counts.output_tokens);
    by_buf_addz(out, "\"waiting\":[");
    add_list(out, c, &c->waiting);
    close_with(out, "],\"running\":[");
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        add_list(out, c, &c->replicas[i]->prefill);
        add_list(out, c, &c->replicas[i]->decode);
    }
    close_with(out, "],\"paused\":[");
    add_list(out, c, &c->paused);
    close_with(out, "],\"loads\":[");
    for (uint32_t i = 0; i < c->opt.n_replicas; i++)
        add_load(c, c->replicas[i], ALL, out);
    close_with(out, "],");
    add_tenants(out, c);
    by_buf_addz(out, "\"cache\":");
    add_tree(c, (uint32_t)n_top, out);
    by_buf_addc(out, '}');
    return 0;
}

static int dump_metrics(struct core *c, const struct by_json *args, struct by_buf *out,
                        struct by_err *err) {
    (void)c;
    (void)args;
    (void)err;
    struct by_buf text;
    by_buf_init(&text, 1 << 20);
    by_metrics_text(&text);
    by_buf_addz(out, "{\"text\":");
    by_buf_add_json_str(out, by_buf_str(&text));
    by_buf_addc(out, '}');
    by_buf_release(&text);
    return 0;
}

/* ---- orders ---- */

static int order_flush(struct core *c, const struct by_json *args, struct by_buf *out,
                       struct by_err *err) {
    (void)args;
    (void)err;
    uint64_t n = 0, n_kept = 0;
    for (uint32_t i = 0; i < c->opt.n_replicas; i++) {
        if (!c->replicas[i]->is_up) continue;
        n += radix_evict(c->tree, i, UINT32_MAX);
        n_kept += radix_n_held(c->tree, i);
    }
    by_info("cache flushed tokens=%llu still_in_use=%llu", (unsigned long long)(n * c->page_size),
            (unsigned long long)(n_kept * c->page_size));
    by_buf_addc(out, '{');
    add_u64(out, "flushed_tokens", n * c->page_size);
    add_u64(out, "kept_tokens", n_kept * c->page_size);
    close_with(out, "}");
    return 0;
}

/* The clients get what there is, with finish_reason abort. */
static bool abort_req(struct core *c, struct req *req) {
    bool any = false;
    for (uint32_t i = 0; i < req->n_seqs; i++) {
        struct seq *s = &req->seqs[i];
        if (s->finish != FINISH_NONE || s->state == SEQ_DONE) continue;
        s->finish = FINISH_ABORT;
        deliver_new(c, s);
        core_seq_ended(c, s);
        any = true;
    }
    return any;
}

static int order_abort(struct core *c, const struct by_json *args, struct by_buf *out,
                       struct by_err *err) {
    bool all = false;
    int64_t epoch = 0, rid = -1;
    int rc = by_json_get_bool(args, "", "all", &all, err);
    if (rc == 0) rc = by_json_get_i64(args, "", "epoch", INT64_MIN, INT64_MAX, &epoch, err);
    if (rc == 0) rc = by_json_get_i64(args, "", "rid", 0, INT64_MAX, &rid, err);
    if (rc) return rc;
    if (!all && rid < 0) return by_fail(err, BY_EINVAL, "all: true, or epoch and rid, is needed");
    uint64_t n = 0;
    for (BY_LIST_EACH(it, &c->book.lives)) {
        struct life *life = BY_CONTAINER_OF(it, struct life, link);
        for (BY_LIST_EACH(at, &life->reqs)) {
            struct req *req = BY_CONTAINER_OF(at, struct req, in_life);
            if (all || (life->epoch == (uint64_t)epoch && req->name.rid == (uint64_t)rid))
                n += abort_req(c, req);
        }
    }
    by_buf_addf(out, "{\"aborted\":%llu}", (unsigned long long)n);
    return 0;
}

static int order_drain(struct core *c, const struct by_json *args, struct by_buf *out,
                       struct by_err *err) {
    (void)args;
    (void)err;
    core_drain(c);
    by_buf_addf(out, "{\"live\":%u}", c->n_live);
    return 0;
}

static int order_pin(struct core *c, const struct by_json *args, struct by_buf *out,
                     struct by_err *err) {
    const struct by_json *list = NULL;
    struct by_str space = {0};
    double ttl_s = 300;
    int rc = by_json_get_array(args, "", "ids", &list, err);
    if (rc == 0) rc = by_json_get_str(args, "", "extra_key", &space, err);
    if (rc == 0) rc = by_json_get_f64(args, "", "ttl_s", 0, 1e6, &ttl_s, err);
    if (rc) return rc;
    size_t n = list ? by_json_len(list) : 0, cap;
    if (n == 0 || n > PIN_IDS_MAX)
        return by_fail(err, BY_EINVAL, "ids: 1 to %d token ids are needed", PIN_IDS_MAX);
    uint32_t *ids = pool_get(&c->pool, n * sizeof *ids, &cap), i = 0, n_tokens = 0;
    uint64_t id = 0;
    for (const struct by_json *it = by_json_first(list); it && rc == 0; it = by_json_next(it)) {
        int64_t value;
        bool ok = by_json_to_i64(it, &value) && value >= 0 && value <= UINT32_MAX;
        if (ok)
            ids[i++] = (uint32_t)value;
        else
            rc = by_fail(err, BY_EINVAL, "ids[%u] is no token id", i);
    }
    if (rc == 0)
        rc =
            pin_add(c, space, ids, i, (uint64_t)(ttl_s * (double)BY_NS_PER_S), &id, &n_tokens, err);
    pool_put(&c->pool, ids, cap);
    if (rc) return rc;
    by_buf_addf(out, "{\"pin\":%llu,\"pinned_tokens\":%u}", n_tokens ? (unsigned long long)id : 0,
                n_tokens);
    return 0;
}

static int order_unpin(struct core *c, const struct by_json *args, struct by_buf *out,
                       struct by_err *err) {
    int64_t id = 0;
    int rc = by_json_get_i64(args, "", "pin", 1, INT64_MAX, &id, err);
    if (rc) return rc;
    if (!pin_remove(c, (uint64_t)id))
        return by_fail(err, BY_ENOTFOUND, "there is no pin %lld", (long long)id);
    by_buf_addz(out, "{}");
    return 0;
}

static const struct {
    const char *what;
    dump_fn *fn;
} table[] = {
    {"loads", dump_loads},     {"cache", dump_cache},  {"dump", dump_all},
    {"metrics", dump_metrics}, {"flush", order_flush}, {"abort", order_abort},
    {"drain", order_drain},    {"pin", order_pin},     {"unpin", order_unpin},
};

static int answer(struct core *c, const struct msg_ask *m, struct by_buf *out, struct by_err *err) {
    static const struct by_json_limits limits = {.bytes_max = 16 << 20, .depth_max = 8};
    dump_fn *fn = NULL;
    for (uint32_t i = 0; i < BY_COUNTOF(table); i++) {
        if (by_str_eqz(m->what, table[i].what)) fn = table[i].fn;
    }
    if (!fn) return by_fail(err, BY_ENOTFOUND, "the scheduler knows no such question");
    struct by_json *args = NULL;
    struct by_str json = m->json.n ? m->json : BY_STR("{}");
    int rc = by_json_parse(&args, json, &limits, err);
    if (rc == 0) rc = fn(c, args, out, err);
    by_json_free(args);
    if (rc == 0 && out->is_full) rc = by_fail(err, BY_ELIMIT, "the answer is too long");
    return rc;
}

void dump_ask(struct core *c, struct core_peer *from, const struct msg_ask *m) {
    enum { ANSWER_MAX = 4 << 20 };
    struct by_buf out;
    struct by_err err = {0};
    if (by_str_eqz(m->what, "update")) { /* it takes a while */
        update_ask(c, from, m);
        return;
    }
    by_buf_init(&out, ANSWER_MAX);
    int rc = answer(c, m, &out, &err);
    if (rc) {
        by_buf_clear(&out);
        by_buf_addz(&out, "{\"error\":");
        by_buf_add_json_str(&out, by_str_of(err.text));
        by_buf_addc(&out, '}');
    }
    struct msg a = {.kind = MSG_answer,
                    .answer = {.id = m->id, .code = rc, .json = by_buf_str(&out)}};
    c->sink.send(c->sink.ctx, from->id, &a);
    by_buf_release(&out);
}
