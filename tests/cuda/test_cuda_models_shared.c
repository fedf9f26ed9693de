/* Whole models through the emulated CUDA backend: every family and format of the shared data against what transformers says
 * of it, in f32; a prompt in one step, then greedy tokens one by one, which from the third on are graphs. Deterministic, all
 * products are in f32 and no way of computing changes a bit; else prompts are multiplied in bf16. */
#include "gpu_worker/cuda/attention.h"
#include "gpu_worker/cuda/cuda_module.h"
#include "gpu_worker/tp.h"
#include "tests/models/model_subjects.h"
#include "tests/models/model_world.h"

#include <sys/wait.h>
#include <unistd.h>

/* As a share of the logits' spread; what the CPU backend is held to with exact activations. */
static const double tolerance = 2e-3;
static const double bf16_tolerance = 0.1;
enum { GREEDY = 6, TOKENS = 70 };

/* Attention as it is, counted where it goes by attention_latent. */
static void (*attention)(struct lane *l, const struct op_attention *o);
static uint32_t n_latent;

static void count_attention(struct lane *l, const struct op_attention *o) {
    n_latent += o->n_seqs == 1 && o->n >= 16 && attention_fits_latent(o);
    attention(l, o);
}

static struct backend *open_backend(bool is_deterministic) {
    struct backend *b = NULL;
    struct by_err err;
    if (banyan_cuda_module()->open(
            &b, &(struct cuda_options){.is_deterministic = is_deterministic, .deadline_ms = 1000},
            &err))
        fail_msg("%s", err.text);
    attention = b->attention, b->attention = count_attention;
    return b;
}

static void check_case(const struct subject *s, struct world *w, const struct by_json *c,
                       double max) {
    uint32_t n, m, vocab = model_n_vocab(w->m);
    uint32_t *ids = golden_ids(c, "prompt_ids", &n), *greedy = golden_ids(c, "greedy_ids", &m);
    double *want = golden_list(c, "last_logits", &m),
           *margins = golden_list(c, "greedy_margins", &m);
    w->n_done[0] = 0;
    const float *logits = world_feed(w, 0, ids, n, n, NULL);
    for (uint32_t i = 0; i < vocab; i++) {
        if (!(fabs((double)logits[i] - want[i]) <= max))
            fail_msg("%s, %u tokens: logit %u is %g, should be %g", s->path, n, i,
                     (double)logits[i], want[i]);
    }
    for (uint32_t i = 0; i < BY_MIN(m, (uint32_t)GREEDY) && margins[i] >= 2 * max; i++) {
        uint32_t id = argmax(logits, vocab);
        if (id != greedy[i])
            fail_msg("%s: greedy id %u is %u, should be %u", s->path, i, id, greedy[i]);
        logits = world_feed(w, 0, &id, 1, 1, NULL);
    }
    by_free(ids);
    by_free(greedy);
    by_free(want);
    by_free(margins);
}

static void check_subject(const struct subject *s, bool is_deterministic, bool with_long) {
    char path[256], golden_path[256];
    subject_path(s, path, sizeof path);
    subject_golden(s, golden_path, sizeof golden_path);
    struct by_json *golden = golden_load(golden_path);
    struct backend *b = open_backend(is_deterministic);
    struct world w;
    world_open(&w, path, b,
               &(struct world_options){.context_len = s->context_len,
                                       .kv_dtype = is_deterministic ? KV_F32 : KV_BF16});
    double max = (is_deterministic ? tolerance : bf16_tolerance) * golden_std(golden);
    for (const struct by_json *c = by_json_first(by_json_get(golden, "cases")); c;
         c = by_json_next(c)) {
        struct by_str key = by_json_key(c);
        if (s->only ? by_str_eqz(key, s->only) : with_long || !by_str_eqz(key, "len130"))
            check_case(s, &w, c, max);
    }
    world_close(&w);
    b->close(b);
    by_json_free(golden);
}

/* What only a device keeps as it is: F8_32 and Z4_32, MXFP4 in four bits. */
static bool is_kept(const struct subject *s) {
    return strstr(s->path, "fp8") || strstr(s->path, "awq") || strstr(s->path, "mxfp4");
}

TEST(every_family_matches_its_goldens) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(subjects); i++) {
        const struct subject *s = &subjects[i];
        if (subject_is_chosen(s, world_is_few) || is_kept(s)) check_subject(s, true, i == 0);
    }
}

TEST(prompts_in_bf16_are_close_to_the_goldens) {
    UNUSED_STATE;
    uint32_t n_latent_models = 0;
    for (size_t i = 0; i < BY_COUNTOF(subjects); i++) {
        const struct subject *s = &subjects[i];
        bool is_latent = strstr(s->path, "deepseek");
        if (!subject_is_chosen(s, world_is_few) || !(is_latent || strstr(s->path, "Q4_1")))
            continue;
        n_latent = 0;
        /* deepseek-v3's router is close to a border there: another expert comes in, whatever attends */
        check_subject(s, false, !is_latent);
        assert_int_equal(n_latent > 0, is_latent);
        n_latent_models += is_latent;
    }
    assert_true(n_latent_models > 0);
}

/* TOKENS tokens of one sequence, a chunk at a time, the others of the step as they come. */
static void same_bits(struct world *w, const char *path, const uint32_t *ids, const float *whole,
                      uint32_t chunk) {
    uint32_t vocab = model_n_vocab(w->m), first[WORLD_SEQS] = {0};
    memset(w->n_done, 0, sizeof w->n_done);
    for (uint32_t at = 0; at < TOKENS; at += chunk) {
        uint32_t n[WORLD_SEQS] = {[1] = 2, [3] = BY_MIN(chunk, TOKENS - at), [4] = 1};
        const uint32_t *from[WORLD_SEQS] = {[1] = ids + 5, [3] = ids + at, [4] = ids};
        if (w->n_done[1] > 500) n[1] = 0;
        world_step(w, from, n, first);
    }
    uint32_t last = first[3] + (TOKENS - 1) % chunk;
    const float *got = model_logits(w->m, &last, 1);
    if (memcmp(got, whole, vocab * sizeof *got) != 0)
        fail_msg("%s: other bits in chunks of %u", path, chunk);
}

TEST(deterministic_bits_depend_on_nothing_else) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(subjects); i++) {
        const struct subject *s = &subjects[i];
        char path[256];
        uint32_t ids[TOKENS];
        if (!subject_is_chosen(s, true) || s->only) continue;
        struct backend *b = open_backend(true);
        struct world w;
        subject_path(s, path, sizeof path);
        world_open(&w, path, b, &(struct world_options){.kv_dtype = KV_BF16});
        uint32_t vocab = model_n_vocab(w.m);
        for (uint32_t k = 0; k < TOKENS; k++)
            ids[k] = (k * 7919 + 13) % vocab;
        float *whole =
            by_memdup(world_feed(&w, 0, ids, TOKENS, TOKENS, NULL), vocab * sizeof *whole);
        same_bits(&w, s->path, ids, whole, 29);
        if (i == 0) same_bits(&w, s->path, ids, whole, 1);
        by_free(whole);
        world_close(&w);
        b->close(b);
    }
}

/* A rank's part of a prompt, which each checks. */
static void run_rank(const struct subject *s, struct tp *tp) {
    char path[256], golden_path[256];
    subject_path(s, path, sizeof path);
    subject_golden(s, golden_path, sizeof golden_path);
    struct by_json *golden = golden_load(golden_path);
    struct backend *b = open_backend(true);
    struct world w;
    world_open(&w, path, b, &(struct world_options){.rank = tp_rank(tp), .world = tp_world(tp)});
    model_set_group(w.m, tp);
    check_case(s, &w, by_json_get(by_json_get(golden, "cases"), "len17"),
               tolerance * golden_std(golden));
    world_close(&w);
    b->close(b);
    by_json_free(golden);
}

/* Rank 1 is this program once more: a process that was forked from one with a device has none. */
static pid_t start_other_rank(const char *subject, const char *address) {
    pid_t pid = fork();
    if (pid) return pid;
    execl("/proc/self/exe", "test_cuda_models_shared", "rank", subject, address, (char *)NULL);
    _exit(127);
}

static int run_other_rank(const char *subject, const char *address) {
    struct tp *tp = NULL;
    struct by_err err;
    size_t i = 0;
    while (i < BY_COUNTOF(subjects) && strcmp(subjects[i].path, subject) != 0)
        i++;
    if (i == BY_COUNTOF(subjects) || tp_join(&tp, by_str_of(address), 1, 2, 60000, &err)) return 1;
    run_rank(&subjects[i], tp);
    tp_close(tp);
    return 0;
}

/* Without NCCL sums go through the host, in the middle of a run. */
TEST(two_ranks_are_near_the_goldens_too) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(subjects); i++) {
        const struct subject *s = &subjects[i];
        /* llama-tied has no output matrix of its own: a rank's logits are some rows of the embedding. */
        if (strcmp(s->path, "llama-gqa") != 0 && strcmp(s->path, "qwen2-moe") != 0 &&
            strcmp(s->path, "llama-tied") != 0)
            continue;
        struct tp *tp = NULL;
        struct by_err err;
        int status = 0;
        if (tp_open(&tp, 2, 60000, &err)) fail_msg("%s", err.text);
        pid_t pid = start_other_rank(s->path, tp_address(tp));
        run_rank(s, tp);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        tp_close(tp);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        RUN(every_family_matches_its_goldens), RUN(prompts_in_bf16_are_close_to_the_goldens),
        RUN(deterministic_bits_depend_on_nothing_else), RUN(two_ranks_are_near_the_goldens_too)};
    if (argc == 4 && strcmp(argv[1], "rank") == 0) return run_other_rank(argv[2], argv[3]);
    world_arguments(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
