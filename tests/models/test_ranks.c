/* Two and three ranks as processes: near the goldens as one rank is, and the same bits on all of them. */
#include "gpu_worker/tp.h"
#include "tests/models/model_subjects.h"
#include "tests/models/model_world.h"

#include <sys/wait.h>
#include <unistd.h>

enum { STEPS = 8, DEADLINE_MS = 60000 };
static const double tolerance = 2e-3; /* of logits_std: issue and README of the data */

/* The prompt in chunks of 7, then STEPS greedy ids; the last logits of both into out [2, vocab], the ids behind them. */
static void run_rank(const struct subject *s, const uint32_t *ids, uint32_t n, struct tp *tp,
                     float *out, uint32_t *greedy) {
    struct backend *b;
    struct by_err err = {0};
    struct world w;
    if (cpu_backend_new(
            &b,
            &(struct cpu_options){
                .n_threads = 2, .isa = world_isa, .exact_activations = true, .exact_bf16 = true},
            &err))
        fail_msg("%s", err.text);
    char path[256];
    subject_path(s, path, sizeof path);
    world_open(&w, path, b,
               &(struct world_options){
                   .context_len = s->context_len, .rank = tp_rank(tp), .world = tp_world(tp)});
    model_set_group(w.m, tp);
    uint32_t vocab = model_n_vocab(w.m);
    memcpy(out, world_feed(&w, 0, ids, n, 7, NULL), vocab * sizeof *out);
    memcpy(out + vocab, out, vocab * sizeof *out);
    for (uint32_t i = 0; i < STEPS; i++) {
        greedy[i] = argmax(out + vocab, vocab);
        memcpy(out + vocab, world_feed(&w, 0, &greedy[i], 1, 1, NULL), vocab * sizeof *out);
    }
    world_close(&w);
    b->close(b);
}

struct result {
    float logits[2 * 1024]; /* the tiny vocabularies are smaller */
    uint32_t greedy[STEPS];
};

/* Rank r in a process of its own; its result comes through the pipe. */
static void start_rank(const struct subject *s, const uint32_t *ids, uint32_t n,
                       const char *address, uint32_t rank, uint32_t world, int fds[2]) {
    static struct result r;
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid) {
        close(fds[1]);
        return;
    }
    struct tp *tp;
    struct by_err err;
    if (tp_join(&tp, by_str_of(address), rank, world, DEADLINE_MS, &err)) _exit(1);
    run_rank(s, ids, n, tp, r.logits, r.greedy);
    for (size_t at = 0; at < sizeof r;) {
        ssize_t put = write(fds[1], (char *)&r + at, sizeof r - at);
        if (put <= 0) _exit(1);
        at += (size_t)put;
    }
    _exit(0);
}

static void read_result(int fd, struct result *r) {
    for (size_t at = 0; at < sizeof *r;) {
        ssize_t got = read(fd, (char *)r + at, sizeof *r - at);
        if (got <= 0) fail_msg("a rank died");
        at += (size_t)got;
    }
    close(fd);
    wait(NULL);
}

static void check_golden(const struct subject *s, const struct by_json *golden,
                         const struct by_json *c, const struct result *r) {
    uint32_t n, m, k;
    double *want = golden_list(c, "last_logits", &n), max = tolerance * golden_std(golden);
    double *margins = golden_list(c, "greedy_margins", &m);
    uint32_t *greedy = golden_ids(c, "greedy_ids", &k);
    for (uint32_t i = 0; i < n; i++) {
        if (!(fabs((double)r->logits[i] - want[i]) <= max))
            fail_msg("%s: logit %u is %g, should be %g", s->path, i, (double)r->logits[i], want[i]);
    }
    for (uint32_t i = 0; i < STEPS && margins[i] >= 2 * max; i++) {
        if (r->greedy[i] != greedy[i])
            fail_msg("%s: greedy id %u is %u, should be %u", s->path, i, r->greedy[i], greedy[i]);
    }
    by_free(want);
    by_free(margins);
    by_free(greedy);
}

static void check_subject(const struct subject *s, uint32_t world, const char *key) {
    static struct result mine, other;
    char path[256];
    subject_golden(s, path, sizeof path);
    struct by_json *golden = golden_load(path);
    const struct by_json *c = by_json_get(by_json_get(golden, "cases"), key);
    uint32_t n;
    uint32_t *ids = golden_ids(c, "prompt_ids", &n);
    struct tp *tp;
    struct by_err err;
    int fds[TP_RANKS_MAX][2];
    assert_int_equal(tp_open(&tp, world, DEADLINE_MS, &err), 0);
    for (uint32_t r = 1; r < world; r++)
        start_rank(s, ids, n, tp_address(tp), r, world, fds[r]);
    memset(&mine, 0, sizeof mine);
    run_rank(s, ids, n, tp, mine.logits, mine.greedy);
    for (uint32_t r = 1; r < world; r++) {
        read_result(fds[r][0], &other);
        if (memcmp(&mine, &other, sizeof mine) != 0)
            fail_msg("%s: rank %u of %u differs from rank 0", s->path, r, world);
    }
    check_golden(s, golden, c, &mine);
    tp_close(tp);
    by_free(ids);
    by_json_free(golden);
}

static void check_all(uint32_t world) {
    const char *only = getenv("ONLY");
    for (size_t i = 0; i < BY_COUNTOF(subjects); i++) {
        const struct subject *s = &subjects[i];
        if ((only && !strstr(s->path, only)) || (world_is_few && !s->is_one_of_few)) continue;
        check_subject(s, world, s->only ? s->only : "len130");
    }
}

TEST(two_ranks_give_what_one_gives) {
    UNUSED_STATE;
    check_all(2);
}

TEST(three_ranks_share_heads_unevenly) {
    UNUSED_STATE;
    check_subject(&subjects[0], 3, "len17"); /* 4 query heads over 2 key-value heads */
}

TEST(a_cut_within_a_block_is_refused_by_name) {
    UNUSED_STATE;
    struct by_model_dir *dir;
    struct by_err err = {0};
    struct backend *b;
    struct model *m;
    assert_int_equal(cpu_backend_new(&b, &(struct cpu_options){.n_threads = 1}, &err), 0);
    assert_int_equal(by_model_dir_open(&dir, TINY "llama-gqa-gguf/llama-gqa-Q4_1.gguf", &err), 0);
    struct model_options o = {
        .page_size = 16, .rows_max = 16, .logit_rows_max = 1, .rank = 0, .world = 4};
    assert_int_equal(model_open(&m, dir, b, &o, &err), BY_EUNSUPPORTED);
    assert_non_null(strstr(err.text, "--tp-size 4 would cut at column 16"));
    by_model_dir_close(dir);
    b->close(b);
}

WORLD_TESTS(RUN(two_ranks_give_what_one_gives), RUN(three_ranks_share_heads_unevenly),
            RUN(a_cut_within_a_block_is_refused_by_name));
