/* bench_replay.c - a chat trace of many tenants on two stand-in replicas, three ways to choose a replica:
 *
 *     banyan        one scheduler, one tree for both replicas
 *     round-robin   two schedulers with a tree each, requests in turn
 *     approximate   two schedulers with a tree each; before them a balancer that remembers what it sent where and guesses
 *                   from it, as SGLang's cache-aware router does (its rules and its default thresholds)
 *
 * The trace is made from a seed: tenants (Zipf) with a system prompt each, sessions of several turns with think time; a turn's
 * prompt is all that was said before. The same sessions, thoughts and lengths for each way. A replica is a clock: a step
 * costs STEP_US, plus PREFILL_US a prompt token and DECODE_US a running sequence. Prints, for each way and load: share of
 * prompt tokens from the cache, mean latency, mean and 95 % time to the first token. plot_replay.py draws it. */
#include "common/base/clock.h"
#include "common/base/heap.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/rand.h"
#include "scheduler/core.h"
#include "scheduler/radix.h"
#include "tests/bench/bench.h"

#include <math.h>
#include <string.h>

enum {
    REPLICAS = 2,
    TENANTS = 24,
    SESSIONS = 600,
    TURNS_MAX = 8,
    SYSTEM_MIN = 400,
    SYSTEM_MAX = 1600,
    PAGE = 16,
    PAGES = 4096, /* 65,536 tokens a replica: the trace's prefixes do not all fit */
    SLOTS = 64,
    VOCAB = 32000,
    STEP_US = 6000,
    PREFILL_US = 100,
    DECODE_US = 60,
    STEPS_MAX = 4,
    PEER_ROUTER = 1,
    PEER_TOKENIZER = 2,
    PEER_DETOK = 3,
    PEER_WORKER = 10,
    /* SGLang's router: --cache-threshold 0.5 --balance-abs-threshold 32 --balance-rel-threshold 1.0001 */
    BALANCE_ABS = 32,
};
#define CACHE_THRESHOLD 0.5
#define BALANCE_REL 1.0001

enum way { WAY_BANYAN, WAY_ROUND_ROBIN, WAY_APPROXIMATE, WAYS };
static const char *const way_names[WAYS] = {"banyan", "round-robin", "approximate"};

struct session {
    uint32_t tenant, n_turns, turn;
    uint32_t *ids, n_ids, cap;
    uint32_t n_user[TURNS_MAX], n_answer[TURNS_MAX];
    uint64_t start_ns, think_ns[TURNS_MAX];
    uint64_t z; /* of its words */
    /* the turn under way */
    uint64_t asked_ns;
    uint32_t n_got, where;
};
struct event {
    struct by_heap_node node;
    uint64_t at, order;
    int32_t worker; /* its first step is done; -1: session asks */
    uint32_t session;
};
struct worker {
    struct world *w;
    uint32_t core; /* whose it is */
    uint64_t step[STEPS_MAX], done_ns[STEPS_MAX], busy_until;
    uint32_t n_samples[STEPS_MAX], first, n;
};
struct world {
    enum way way;
    uint32_t n_cores;
    struct core *core[REPLICAS];
    struct worker worker[REPLICAS];
    struct session session[SESSIONS];
    uint64_t now, order, z;
    struct by_heap events;
    uint32_t turn_of; /* round robin */
    struct pool pool; /* approximate */
    struct radix *guess;
    struct pages *guess_pages[REPLICAS];
    uint32_t load[REPLICAS];
    uint64_t n_prompt, n_cached;
    double *latency, *first;
    uint32_t n_done, n_first;
};

static bool event_before(const struct by_heap_node *a, const struct by_heap_node *b) {
    const struct event *x = BY_CONTAINER_OF(a, struct event, node);
    const struct event *y = BY_CONTAINER_OF(b, struct event, node);
    return x->at != y->at ? x->at < y->at : x->order < y->order;
}

static void post(struct world *w, uint64_t at, int32_t worker, uint32_t session) {
    struct event *e = by_alloc(sizeof *e);
    *e = (struct event){.at = at, .order = w->order++, .worker = worker, .session = session};
    e->node.index = BY_HEAP_OUT;
    by_heap_push(&w->events, &e->node);
}

static uint32_t between(uint64_t *z, uint32_t least, uint32_t most) {
    return least + (uint32_t)(by_rand_next(z) % (most - least + 1));
}

static double exponential(uint64_t *z, double mean) {
    return -mean * log(1 - (double)(by_rand_next(z) >> 11) / 9007199254740992.0);
}

/* ---- the trace ---- */

static void reserve(struct session *s, uint32_t n) {
    if (s->n_ids + n <= s->cap) return;
    s->cap = 2 * (s->n_ids + n);
    s->ids = by_realloc_array(s->ids, s->cap, sizeof *s->ids);
}

static void say(struct session *s, uint32_t n, uint64_t *z) {
    reserve(s, n);
    for (uint32_t i = 0; i < n; i++)
        s->ids[s->n_ids++] = (uint32_t)(by_rand_next(z) % VOCAB);
}

static uint32_t zipf(uint64_t *z) {
    double sum = 0, total = 0, at;
    for (uint32_t i = 1; i <= TENANTS; i++)
        total += 1.0 / i;
    at = total * (double)(by_rand_next(z) >> 11) / 9007199254740992.0;
    for (uint32_t i = 1; i <= TENANTS; i++) {
        sum += 1.0 / i;
        if (at < sum) return i - 1;
    }
    return TENANTS - 1;
}

static void make_trace(struct world *w, double sessions_per_s) {
    uint64_t z = 20240601, start = BY_NS_PER_S;
    for (uint32_t i = 0; i < SESSIONS; i++) {
        struct session *s = &w->session[i];
        start += (uint64_t)(exponential(&z, 1 / sessions_per_s) * (double)BY_NS_PER_S);
        *s = (struct session){.tenant = zipf(&z), .start_ns = start, .z = i + 1};
        s->n_turns = between(&z, 2, TURNS_MAX);
        for (uint32_t k = 0; k < TURNS_MAX; k++) {
            s->n_user[k] = between(&z, 20, 150);
            s->n_answer[k] = between(&z, 40, 250);
            s->think_ns[k] = (uint64_t)(exponential(&z, 8) * (double)BY_NS_PER_S);
        }
        uint64_t words = 1000003 * (s->tenant + 1);
        say(s, SYSTEM_MIN + s->tenant * (SYSTEM_MAX - SYSTEM_MIN) / TENANTS, &words);
        post(w, start, -1, i);
    }
}

/* ---- where to ---- */

/* SGLang's rules: to the shortest queue when the queues differ much; else to where most of the text was sent before, if that
 * is more than half of it; else to the replica that was sent least. */
static uint32_t guess_replica(struct world *w, const struct session *s) {
    struct radix_held held[REPLICAS];
    uint32_t n_pages = s->n_ids / PAGE, best = 0, a = w->load[0], b = w->load[1];
    uint32_t most = BY_MAX(a, b), least = BY_MIN(a, b);
    if (most - least > BALANCE_ABS && most > least * BALANCE_REL) {
        best = a <= b ? 0 : 1;
    } else {
        struct radix_mark mark = {0};
        radix_peek(w->guess, BY_STR(""), s->ids, n_pages, &mark, held);
        best = held[1].n_pages > held[0].n_pages;
        if (held[best].n_pages <= CACHE_THRESHOLD * n_pages)
            best = radix_n_held(w->guess, 1) < radix_n_held(w->guess, 0);
    }
    struct pages *pages = w->guess_pages[best];
    uint32_t *own = by_alloc_array(n_pages + 1, sizeof *own);
    if (pages_n_free(pages) < n_pages) radix_evict(w->guess, best, n_pages - pages_n_free(pages));
    if (pages_take(pages, n_pages, own)) {
        struct radix_at root = {.node = radix_root(w->guess, BY_STR(""))};
        radix_insert(w->guess, root, best, s->ids, n_pages, own, 0);
        pages_give(pages, own, n_pages);
    }
    by_free(own);
    return best;
}

static uint32_t choose(struct world *w, const struct session *s) {
    if (w->way == WAY_BANYAN) return 0;
    if (w->way == WAY_ROUND_ROBIN) return w->turn_of++ % REPLICAS;
    return guess_replica(w, s);
}

static void step_all(struct world *w) {
    for (uint32_t i = 0; i < w->n_cores; i++) {
        while (core_next_step(w->core[i], w->now))
            ;
    }
}

static void ask(struct world *w, uint32_t i) {
    struct session *s = &w->session[i];
    char tenant[16];
    say(s, s->n_user[s->turn], &s->z);
    s->asked_ns = w->now;
    s->n_got = 0;
    s->where = choose(w, s);
    w->load[s->where]++;
    snprintf(tenant, sizeof tenant, "t%u", s->tenant);
    struct msg m = {.kind = MSG_tokenized,
                    .tokenized = {.name = {1, (uint64_t)i * TURNS_MAX + s->turn + 1},
                                  .ids = {s->ids, s->n_ids},
                                  .sampling = {.n = 1,
                                               .max_new_tokens = s->n_answer[s->turn],
                                               .ignore_eos = true,
                                               .logprob_start = -1},
                                  .routing = {.tenant = by_str_of(tenant)}}};
    w->n_prompt += s->n_ids;
    core_on_message(w->core[s->where], w->now, PEER_TOKENIZER, &m);
    step_all(w);
}

/* ---- what comes back ---- */

static void on_tokens(struct world *w, const struct msg_tokens *m) {
    uint32_t i = (uint32_t)((m->name.rid - 1) / TURNS_MAX);
    struct session *s = &w->session[i];
    if (s->n_got == 0 && m->ids.n) {
        w->first[w->n_first++] = (double)(w->now - s->asked_ns) / 1e6;
        w->n_cached += m->n_cached;
    }
    s->n_got += m->ids.n;
    reserve(s, m->ids.n); /* what was answered is part of the next prompt */
    memcpy(s->ids + s->n_ids, m->ids.p, m->ids.n * sizeof *s->ids);
    s->n_ids += m->ids.n;
    if (!m->finish) return;
    w->latency[w->n_done++] = (double)(w->now - s->asked_ns) / 1e6;
    w->load[s->where]--;
    if (++s->turn < s->n_turns) post(w, w->now + s->think_ns[s->turn], -1, i);
}

static void on_step(struct worker *k, const struct msg_step *m) {
    uint32_t n_prefill = 0, n_decode = 0, n_samples = 0, at = (k->first + k->n++) % STEPS_MAX;
    if (k->n > STEPS_MAX) abort();
    for (uint32_t i = 0; i < m->row_slots.n; i++) {
        n_prefill += m->row_tokens.p[i] > 1 ? m->row_tokens.p[i] : 0;
        n_decode += m->row_tokens.p[i] == 1;
        n_samples += m->row_samples.p[i];
    }
    uint64_t us = STEP_US + (uint64_t)PREFILL_US * n_prefill + (uint64_t)DECODE_US * n_decode;
    k->busy_until = BY_MAX(k->busy_until, k->w->now) + us * (BY_NS_PER_MS / 1000);
    k->step[at] = m->step;
    k->n_samples[at] = n_samples;
    post(k->w, k->busy_until, (int32_t)(k - k->w->worker), 0);
}

static void on_send(void *ctx, uint32_t peer, const struct msg *m) {
    struct worker *workers = ctx; /* of this core */
    if (m->kind == MSG_step) on_step(&workers[peer - PEER_WORKER], &m->step);
    if (m->kind == MSG_tokens) on_tokens(workers->w, &m->tokens);
    if (m->kind == MSG_failed) abort();
}

static void on_end(void *ctx, uint32_t peer, const char *why) {
    (void)ctx;
    fprintf(stderr, "session %u ended: %s\n", peer, why);
    abort();
}

static void step_done(struct world *w, uint32_t i) {
    struct worker *k = &w->worker[i];
    uint32_t tokens[SLOTS];
    for (uint32_t t = 0; t < k->n_samples[k->first]; t++)
        tokens[t] = (uint32_t)(by_rand_next(&w->z) % VOCAB);
    struct msg m = {
        .kind = MSG_step_done,
        .step_done = {.step = k->step[k->first], .tokens = {tokens, k->n_samples[k->first]}}};
    k->first = (k->first + 1) % STEPS_MAX;
    k->n--;
    uint32_t peer = PEER_WORKER + (w->n_cores == 1 ? i : 0);
    core_on_message(w->core[k->core], w->now, peer, &m);
    step_all(w);
}

/* ---- one run ---- */

static void up(struct world *w, uint32_t core, uint32_t peer, enum role role, uint32_t replica) {
    struct msg_hello h = {.role = role,
                          .epoch = role == ROLE_ROUTER ? 1 : peer,
                          .model = {.n_vocab = VOCAB, .context_len = 1 << 20},
                          .capacity = {.page_size = PAGE,
                                       .n_pages = PAGES,
                                       .n_slots = SLOTS,
                                       .step_tokens_max = 2048,
                                       .world = 1,
                                       .replica = replica}};
    core_on_up(w->core[core], w->now, peer, &h);
}

static void start(struct world *w) {
    w->n_cores = w->way == WAY_BANYAN ? 1 : REPLICAS;
    struct core_options o = {.n_replicas = REPLICAS / w->n_cores,
                             .max_running = SLOTS,
                             .max_queued = 1 << 20,
                             .chunked_prefill_size = 512,
                             .depth = 2,
                             .conservativeness = 1,
                             .policy = POLICY_FAIR};
    for (uint32_t i = 0; i < REPLICAS; i++)
        w->worker[i] = (struct worker){.w = w, .core = w->n_cores == 1 ? 0 : i};
    for (uint32_t i = 0; i < w->n_cores; i++) {
        struct core_sink sink = {.send = on_send, .end = on_end, .ctx = &w->worker[i]};
        w->core[i] = core_new(&o, &sink);
        up(w, i, PEER_ROUTER, ROLE_ROUTER, 0);
        up(w, i, PEER_TOKENIZER, ROLE_TOKENIZER_WORKER, 0);
        up(w, i, PEER_DETOK, ROLE_DETOKENIZER, 0);
        for (uint32_t r = 0; r < o.n_replicas; r++)
            up(w, i, PEER_WORKER + r, ROLE_GPU_WORKER, r);
    }
    pool_init(&w->pool);
    w->guess = radix_new(PAGE, REPLICAS, RADIX_LRU, &w->pool);
    for (uint32_t i = 0; i < REPLICAS; i++) {
        w->guess_pages[i] = pages_new(PAGES);
        radix_join(w->guess, i, w->guess_pages[i], NULL);
    }
}

static void stop(struct world *w) {
    for (uint32_t i = 0; i < w->n_cores; i++)
        core_free(w->core[i]);
    radix_free(w->guess);
    for (uint32_t i = 0; i < REPLICAS; i++)
        pages_free(w->guess_pages[i]);
    pool_release(&w->pool);
    for (uint32_t i = 0; i < SESSIONS; i++)
        by_free(w->session[i].ids);
    by_heap_release(&w->events);
    by_free(w->latency);
    by_free(w->first);
    by_free(w);
}

static double mean(const double *values, uint32_t n) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += values[i];
    return n ? sum / n : 0;
}

static void run(enum way way, double sessions_per_s) {
    struct world *w = by_alloc(sizeof *w);
    w->way = way;
    w->z = 7;
    by_heap_init(&w->events, event_before);
    w->latency = by_alloc_array((size_t)SESSIONS * TURNS_MAX, sizeof *w->latency);
    w->first = by_alloc_array((size_t)SESSIONS * TURNS_MAX, sizeof *w->first);
    start(w);
    make_trace(w, sessions_per_s);
    for (struct by_heap_node *n = by_heap_pop(&w->events); n; n = by_heap_pop(&w->events)) {
        struct event e = *BY_CONTAINER_OF(n, struct event, node);
        by_free(BY_CONTAINER_OF(n, struct event, node));
        w->now = e.at;
        if (e.worker >= 0)
            step_done(w, (uint32_t)e.worker);
        else
            ask(w, e.session);
    }
    char parameter[64];
    snprintf(parameter, sizeof parameter, "%s sessions/s=%.2g", way_names[way], sessions_per_s);
    bench_row("replay cache hits", parameter, 100.0 * (double)w->n_cached / (double)w->n_prompt,
              "%");
    bench_row("replay latency mean", parameter, mean(w->latency, w->n_done), "ms");
    bench_row("replay first token mean", parameter, mean(w->first, w->n_first), "ms");
    bench_row("replay first token p95", parameter, bench_quantile(w->first, w->n_first, 0.95),
              "ms");
    stop(w);
}

int main(void) {
    static const double loads[] = {1, 2, 3, 4, 5, 6, 8};
    by_log_init(&(struct by_log_options){.process = "bench", .level = BY_LOG_ERROR});
    for (uint32_t i = 0; i < BY_COUNTOF(loads); i++) {
        for (uint32_t way = 0; way < WAYS; way++)
            run((enum way)way, loads[i]);
    }
    return 0;
}
