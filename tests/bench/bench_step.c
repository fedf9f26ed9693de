/* bench_step.c - what one step costs the scheduler: 256 running requests, and with 100,000 waiting behind them; one that computes
 * a long prompt which others, of 64 tenants, begin with, too, and wait for; and long prompts, in the tree, that find no room. Beside
 * it what the first request of one of ten thousand tenants costs.
 *
 * A step is: the result of one comes in, its tokens go out, the next one is built. Measured in the processor's time, without and
 * with encoding the frames, and without the worker's work. */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "scheduler/core.h"
#include "tests/bench/bench.h"

enum {
    RUNNING = 256,
    PROMPT = 100,
    STEPS = 2000,
    WARM = 300,
    PAGE = 16,
    VOCAB = 32000,
    MAX_NEW = 4000,
    LONG_PROMPT = 100000,
    FOLLOWERS = 255,
    TENANTS = 64,
    CHUNK = 512,
    MANY_TENANTS = 10000,
    DOCUMENT = 100000,
    READERS = 128
};

struct world {
    struct core *core;
    bool does_encode;
    struct by_buf frame;
    uint64_t step, now;
    uint32_t n_samples, n_tokens_out;
    uint32_t tokens[RUNNING];
};

static void on_send(void *ctx, uint32_t peer, const struct msg *m) {
    struct world *w = ctx;
    (void)peer;
    if (m->kind == MSG_step) {
        w->step = m->step.step;
        w->n_samples = 0;
        for (uint32_t i = 0; i < m->step.row_samples.n; i++)
            w->n_samples += m->step.row_samples.p[i];
    }
    w->n_tokens_out += m->kind == MSG_tokens;
    if (!w->does_encode) return;
    by_buf_clear(&w->frame);
    msg_encode(m, &w->frame);
}

static void on_end(void *ctx, uint32_t peer, const char *why) {
    (void)ctx;
    fprintf(stderr, "session %u ended: %s\n", peer, why);
    abort();
}

static void up(struct world *w, uint32_t peer, enum role role) {
    struct msg_hello h = {.role = role,
                          .epoch = peer,
                          .model = {.n_vocab = VOCAB, .context_len = 1 << 20},
                          .capacity = {.page_size = PAGE,
                                       .n_pages = RUNNING * (MAX_NEW + PROMPT) / PAGE + 1000,
                                       .n_slots = RUNNING,
                                       .step_tokens_max = 4096,
                                       .world = 1}};
    core_on_up(w->core, w->now, peer, &h);
}

/* The first n_shared ids are those of everybody. */
static void submit(struct world *w, uint64_t rid, uint32_t n_shared, struct by_str tenant) {
    static uint32_t ids[LONG_PROMPT + PROMPT];
    uint32_t n = n_shared + PROMPT;
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (uint32_t)((i < n_shared ? 0 : rid * 31) + i) % VOCAB;
    struct msg m = {.kind = MSG_tokenized,
                    .tokenized = {.name = {1, rid},
                                  .ids = {ids, n},
                                  .routing.tenant = tenant,
                                  .sampling = {.n = 1,
                                               .max_new_tokens = MAX_NEW,
                                               .logprob_start = -1,
                                               .ignore_eos = true}}};
    core_on_message(w->core, w->now, 2, &m);
}

/* One step: us. */
static double step(struct world *w) {
    struct msg done = {.kind = MSG_step_done,
                       .step_done = {.step = w->step, .tokens = {w->tokens, w->n_samples}}};
    w->now += 1000000;
    uint64_t from = bench_cpu_ns();
    core_on_message(w->core, w->now, 4, &done);
    while (core_next_step(w->core, w->now))
        ;
    return (double)(bench_cpu_ns() - from) / 1e3;
}

static struct core_options options(enum policy_kind policy, uint32_t chunk,
                                   double conservativeness) {
    return (struct core_options){.n_replicas = 1,
                                 .max_running = RUNNING,
                                 .max_queued = 1 << 20,
                                 .chunked_prefill_size = chunk,
                                 .depth = 1,
                                 .conservativeness = conservativeness,
                                 .policy = policy};
}

static void start(struct world *w, const struct core_options *o) {
    struct core_sink sink = {.send = on_send, .end = on_end, .ctx = w};
    by_buf_init(&w->frame, LIMIT_FRAME_BYTES);
    w->core = core_new(o, &sink);
    up(w, 1, ROLE_ROUTER);
    up(w, 2, ROLE_TOKENIZER_WORKER);
    up(w, 3, ROLE_DETOKENIZER);
    up(w, 4, ROLE_GPU_WORKER);
}

static double run(const char *name, uint32_t n_waiting, bool does_encode, enum policy_kind policy) {
    struct core_options o = options(policy, 4096, 0.01);
    struct world w = {.does_encode = does_encode, .now = 1};
    start(&w, &o);
    for (uint32_t i = 0; i < RUNNING + n_waiting; i++)
        submit(&w, i + 1, 0, BY_STR(""));
    while (core_next_step(w.core, w.now))
        ;
    for (uint32_t i = 0; i < WARM; i++)
        step(&w);
    static double us[STEPS];
    uint64_t n_allocs = by_mem_n_allocs();
    w.n_tokens_out = 0;
    for (uint32_t i = 0; i < STEPS; i++)
        us[i] = step(&w);
    n_allocs = by_mem_n_allocs() - n_allocs;
    if (w.n_tokens_out != STEPS * RUNNING) abort();
    double p50 = bench_quantile(us, STEPS, 0.5);
    bench_row(name, "p50", p50, "us");
    bench_row(name, "p99", bench_quantile(us, STEPS, 0.99), "us");
    bench_row(name, "allocations", (double)n_allocs, "in 2000 steps");
    core_free(w.core);
    by_buf_release(&w.frame);
    return p50;
}

static void run_followed(void) {
    struct core_options o = options(POLICY_FAIR, CHUNK, 1);
    struct world w = {.now = 1};
    double us[LONG_PROMPT / CHUNK];
    start(&w, &o);
    for (uint32_t i = 0; i <= FOLLOWERS; i++) {
        char tenant[16];
        snprintf(tenant, sizeof tenant, "t%u", i % TENANTS);
        submit(&w, i + 1, LONG_PROMPT, by_str_of(tenant));
    }
    while (core_next_step(w.core, w.now))
        ;
    for (uint32_t i = 0; i < BY_COUNTOF(us); i++)
        us[i] = step(&w);
    bench_row("step of a prompt that 255 wait for", "p50", bench_quantile(us, BY_COUNTOF(us), 0.5),
              "us");
    bench_row("step of a prompt that 255 wait for", "p99", bench_quantile(us, BY_COUNTOF(us), 0.99),
              "us");
    core_free(w.core);
    by_buf_release(&w.frame);
}

/* Everybody's first request: whoever begins to wait is set beside all who want something. */
static void run_tenants(void) {
    enum { LAST = 1000 };
    struct core_options o = options(POLICY_FAIR, 4096, 0.01);
    struct world w = {.now = 1};
    double us[LAST];
    start(&w, &o);
    for (uint32_t i = 0; i < MANY_TENANTS; i++) {
        char tenant[16];
        snprintf(tenant, sizeof tenant, "t%u", i);
        uint64_t from = bench_cpu_ns();
        submit(&w, i + 1, 0, by_str_of(tenant));
        us[i % LAST] = (double)(bench_cpu_ns() - from) / 1e3;
    }
    bench_row("first request of one of 10000 tenants", "p50", bench_quantile(us, LAST, 0.5), "us");
    core_free(w.core);
    by_buf_release(&w.frame);
}

/* All of a long document is in the tree, and READERS that end in another page of their own wait; slots are free, pages are not. */
static void run_readers(enum policy_kind policy) {
    enum { OTHERS = 200, N = 300 };
    struct core_options o = options(policy, 4096, 10);
    struct world w = {.now = 1};
    double us[N];
    char name[64];
    start(&w, &o);
    for (uint32_t i = 1; i <= OTHERS; i++)
        submit(&w, i, i == 1 ? DOCUMENT : 0, BY_STR(""));
    while (core_next_step(w.core, w.now))
        ;
    for (uint32_t i = 0; i < 2 * DOCUMENT / 4096; i++)
        step(&w);
    for (uint32_t i = 1; i <= READERS; i++)
        submit(&w, OTHERS + i, DOCUMENT, BY_STR(""));
    for (uint32_t i = 0; i < N; i++)
        us[i] = step(&w);
    snprintf(name, sizeof name, "step with 100 readers of 100000 tokens waiting (%s)",
             policy_name(policy));
    bench_row(name, "p50", bench_quantile(us, N, 0.5), "us");
    core_free(w.core);
    by_buf_release(&w.frame);
}

int main(void) {
    by_log_init(&(struct by_log_options){.process = "bench", .level = BY_LOG_ERROR});
    double alone = run("step of 256", 0, false, POLICY_FAIR);
    run("step of 256 with encoding", 0, true, POLICY_FAIR);
    static const enum policy_kind kinds[] = {POLICY_FAIR, POLICY_FCFS, POLICY_PRIORITY, POLICY_LPM};
    for (uint32_t i = 0; i < BY_COUNTOF(kinds); i++) {
        char name[64];
        snprintf(name, sizeof name, "step of 256 with 100000 waiting (%s)", policy_name(kinds[i]));
        double p50 = run(name, 100000, false, kinds[i]);
        bench_row(name, "of the step without", p50 / alone, "x");
    }
    run_followed();
    run_tenants();
    run_readers(POLICY_FCFS);
    run_readers(POLICY_LPM);
    run_readers(POLICY_DFS_WEIGHT);
    return 0;
}
