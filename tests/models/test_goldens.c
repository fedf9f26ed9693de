/* Every tiny model of the shared data against its golden.json: all families and formats, f32 mathematics. */
#include "tests/models/model_subjects.h"
#include "tests/models/model_world.h"
#include "tests/models/naive_backend.h"

/* As a share of the logits' spread. The naive backend comes within 6e-6 of transformers' f32; a wrong epsilon shows. */
static const double naive_tolerance = 2e-5;
static uint32_t n_wrong;

static void wrong(const struct subject *s, const char *name, const char *what, double got,
                  double want) {
    print_message("%s %s: %s is %g, should be %g\n", s->path, name, what, got, want);
    n_wrong++;
}

static void check_last(const struct subject *s, const char *name, const struct by_json *c,
                       const float *logits, double max) {
    uint32_t n;
    double *want = golden_list(c, "last_logits", &n), worst = 0;
    for (uint32_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)logits[i] - want[i]));
    if (!(worst <= max)) wrong(s, name, "the largest difference of the last logits", worst, max);
    by_free(want);
}

static void check_all(const struct subject *s, const char *name, const struct by_json *c,
                      const float *all, uint32_t vocab, const uint32_t *ids, double max) {
    uint32_t n, m;
    double *best = golden_list(c, "argmax_all", &n),
           *logprobs = golden_list(c, "prompt_logprobs", &m);
    assert_int_equal(n, m);
    for (uint32_t i = 0; i < n; i++) {
        const float *row = all + (size_t)i * vocab;
        if (argmax(row, vocab) != (uint32_t)best[i] && (double)margin(row, vocab) > 2 * max)
            wrong(s, name, "argmax", argmax(row, vocab), best[i]);
        if (i + 1 == n) continue;
        double p = logprob(row, vocab, ids[i + 1]);
        if (!(fabs(p - logprobs[i + 1]) <= 2 * max))
            wrong(s, name, "a prompt logprob", p, logprobs[i + 1]);
    }
    by_free(best);
    by_free(logprobs);
}

static void check_greedy(const struct subject *s, const char *name, const struct by_json *c,
                         struct world *w, const float *logits, double max) {
    uint32_t n, m, vocab = model_n_vocab(w->m);
    uint32_t *want = golden_ids(c, "greedy_ids", &n);
    double *margins = golden_list(c, "greedy_margins", &m);
    for (uint32_t i = 0; i < n && margins[i] >= 2 * max; i++) {
        uint32_t id = argmax(logits, vocab);
        if (id != want[i]) {
            wrong(s, name, "a greedy id", id, want[i]);
            break;
        }
        logits = world_feed(w, 0, &id, 1, 1, NULL);
    }
    by_free(want);
    by_free(margins);
}

static void check_case(const struct subject *s, struct world *w, const struct by_json *c,
                       double max) {
    struct by_str key = by_json_key(c);
    char name[32];
    uint32_t n, vocab = model_n_vocab(w->m);
    snprintf(name, sizeof name, "%.*s", (int)key.n, key.p);
    if (s->only && strcmp(s->only, name) != 0) return;
    uint32_t *ids = golden_ids(c, "prompt_ids", &n);
    float *all = by_alloc_array((size_t)n * vocab, sizeof *all);
    w->n_done[0] = 0;
    const float *last = world_feed(w, 0, ids, n, n, all);
    check_last(s, name, c, last, max);
    check_all(s, name, c, all, vocab, ids, max);
    check_greedy(s, name, c, w, last, max);
    by_free(all);
    by_free(ids);
}

static void check_subject(const struct subject *s, struct backend *b, double tolerance) {
    char path[256], golden_path[256];
    struct world w;
    subject_path(s, path, sizeof path);
    subject_golden(s, golden_path, sizeof golden_path);
    struct by_json *golden = golden_load(golden_path);
    world_open(&w, path, b, &(struct world_options){.context_len = s->context_len});
    uint32_t before = n_wrong, n = 0;
    for (const struct by_json *c = by_json_first(by_json_get(golden, "cases")); c;
         c = by_json_next(c), n++)
        check_case(s, &w, c, tolerance * golden_std(golden));
    assert_true(n >= 3);
    if (n_wrong != before) print_message("%s: wrong\n", s->path);
    world_close(&w);
    by_json_free(golden);
}

TEST(every_family_matches_its_goldens) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(subjects); i++) {
        if (subject_is_chosen(&subjects[i], world_is_few))
            check_subject(&subjects[i], naive_backend(), naive_tolerance);
    }
    assert_int_equal(n_wrong, 0);
}

/* ---- a real backend ---- */

/* What issue and goldens allow where activations are exact. */
static const double exact_tolerance = 2e-3;

TEST(the_cpu_backend_matches_the_goldens_with_exact_activations) {
    UNUSED_STATE;
    uint32_t before = n_wrong;
    struct backend *cpu = NULL;
    struct by_err err = {0};
    const struct cpu_options o = {
        .n_threads = 2, .isa = world_isa, .exact_activations = true, .exact_bf16 = true};
    if (cpu_backend_new(&cpu, &o, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < BY_COUNTOF(subjects); i++) {
        if (subject_is_chosen(&subjects[i], world_is_few))
            check_subject(&subjects[i], cpu, exact_tolerance);
    }
    cpu->close(cpu);
    assert_int_equal(n_wrong, before);
}

/* As it is served: activations rounded to 8 bits for quantised weights, to bf16 for bf16 ones. */
struct served {
    /* of the last logits, mean: the middle one of the three cases. (A tie between two experts that
     * falls the other way shows in one.) */
    double difference;
    double agreement; /* share of len130's argmax */
};

static struct served measure_served(struct world *w, const struct by_json *cases) {
    struct served r = {0};
    double means[3];
    uint32_t n_cases = 0, n, m, vocab = model_n_vocab(w->m);
    for (const struct by_json *c = by_json_first(cases); c; c = by_json_next(c), n_cases++) {
        uint32_t *ids = golden_ids(c, "prompt_ids", &n), agree = 0;
        double *want = golden_list(c, "last_logits", &m), sum = 0;
        float *all = by_alloc_array((size_t)n * vocab, sizeof *all);
        w->n_done[0] = 0;
        const float *last = world_feed(w, 0, ids, n, n, all);
        for (uint32_t i = 0; i < m; i++)
            sum += fabs((double)last[i] - want[i]);
        assert_true(n_cases < 3);
        means[n_cases] = sum / m;
        uint32_t *best = golden_ids(c, "argmax_all", &m);
        for (uint32_t i = 0; i < n; i++)
            agree += argmax(all + (size_t)i * vocab, vocab) == best[i];
        r.agreement = (double)agree / n; /* the last case is len130 */
        by_free(all);
        by_free(want);
        by_free(best);
        by_free(ids);
    }
    assert_int_equal(n_cases, 3);
    double low = fmin(means[0], means[1]), high = fmax(means[0], means[1]);
    r.difference = fmax(low, fmin(high, means[2]));
    return r;
}

/* bf16: no further off than transformers' own bf16 run; quantised: the share of the logits' spread that the issue allows. */
static void check_served(const struct subject *s, struct backend *cpu, enum by_dtype quantize) {
    char path[256], golden_path[256];
    struct world w;
    subject_path(s, path, sizeof path);
    subject_golden(s, golden_path, sizeof golden_path);
    struct by_json *golden = golden_load(golden_path);
    const struct by_json *bf16 = by_json_get(golden, "bf16_compute");
    bool is_bf16 = bf16 &&
                   by_str_eqz(by_json_str(by_json_get(golden, "weights_dtype")), "bfloat16") &&
                   !quantize;
    world_open(&w, path, cpu,
               &(struct world_options){
                   .context_len = s->context_len, .kv_dtype = KV_BF16, .quantize = quantize});
    struct served got = measure_served(&w, by_json_get(golden, "cases"));
    double most =
        is_bf16 ? by_json_f64(by_json_get(bf16, "mean_abs_diff")) : 0.03 * golden_std(golden);
    if (!(got.difference <= most))
        wrong(s, "as served", "the mean difference", got.difference, most);
    if (is_bf16) {
        /* one position may be a near tie */
        double least = by_json_f64(by_json_get(bf16, "argmax_agree")) - 1.5 / 130;
        if (!(got.agreement >= least))
            wrong(s, "as served", "the share of equal argmax", got.agreement, least);
    }
    world_close(&w);
    by_json_free(golden);
}

TEST(what_is_served_is_close_to_the_goldens) {
    UNUSED_STATE;
    static const struct subject llama = {.path = "llama-gqa"};
    uint32_t before = n_wrong;
    struct backend *cpu = NULL;
    struct by_err err = {0};
    if (cpu_backend_new(&cpu, &(struct cpu_options){.n_threads = 2, .isa = world_isa}, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < BY_COUNTOF(subjects); i++) {
        if (!subjects[i].only && subject_is_chosen(&subjects[i], world_is_few))
            check_served(&subjects[i], cpu, BY_DTYPE_NONE);
    }
    check_served(&llama, cpu, BY_DTYPE_Q8_0);
    cpu->close(cpu);
    assert_int_equal(n_wrong, before);
}

/* ---- encoders ---- */

static void check_vector(const char *path, const char *what, const double *want, const float *got,
                         uint32_t n, double max) {
    const struct subject s = {.path = path};
    for (uint32_t i = 0; i < n; i++) {
        if (!(fabs(want[i] - (double)got[i]) <= max))
            wrong(&s, what, "a number", (double)got[i], want[i]);
    }
}

/* The mean of all rows, then unit length: what sentence-transformers makes of all-MiniLM and its like. */
static void mean_of(const float *rows, uint32_t n, uint32_t width, float *out) {
    double sq = 0;
    for (uint32_t i = 0; i < width; i++) {
        double sum = 0;
        for (uint32_t r = 0; r < n; r++)
            sum += (double)rows[(size_t)r * width + i];
        out[i] = (float)(sum / n);
        sq += (double)out[i] * (double)out[i];
    }
    for (uint32_t i = 0; i < width; i++)
        out[i] = (float)((double)out[i] / sqrt(sq));
}

static void run_encoder(struct world *w, const struct by_json *c, const char *types_key,
                        uint32_t *n) {
    uint32_t positions[WORLD_ROWS], n_types = 0;
    uint32_t *ids = golden_ids(c, "ids", n),
             *types = types_key ? golden_ids(c, types_key, &n_types) : NULL;
    for (uint32_t i = 0; i < *n; i++)
        positions[i] = i;
    const struct seq_rows seq = {.n = *n, .pages = w->pages[3]};
    assert_int_equal(model_forward(w->m, &(struct model_step){.ids = ids,
                                                              .positions = positions,
                                                              .types = types,
                                                              .n_rows = *n,
                                                              .seqs = &seq,
                                                              .n_seqs = 1}),
                     0);
    by_free(ids);
    by_free(types);
}

TEST(an_encoder_gives_embeddings) {
    UNUSED_STATE;
    struct by_json *golden = golden_load(TINY "bert-embed/golden.json");
    struct world w;
    uint32_t n, m, rows[WORLD_ROWS], before = n_wrong;
    float mean[64];
    for (uint32_t i = 0; i < WORLD_ROWS; i++)
        rows[i] = i;
    world_open(&w, TINY "bert-embed", naive_backend(), &(struct world_options){0});
    assert_true(model_is_encoder(w.m) && model_hidden_size(w.m) == 64 && model_n_labels(w.m) == 0);
    for (const struct by_json *c = by_json_first(by_json_get(golden, "cases")); c;
         c = by_json_next(c)) {
        run_encoder(&w, c, NULL, &n);
        const float *hidden = model_hidden(w.m, rows, n);
        double *cls = golden_list(c, "cls", &m), *want = golden_list(c, "mean_normalized", &m);
        mean_of(hidden, n, 64, mean);
        check_vector("bert-embed", "cls", cls, hidden, 64, 1e-5);
        check_vector("bert-embed", "mean_normalized", want, mean, 64, 1e-5);
        by_free(cls);
        by_free(want);
    }
    world_close(&w);
    by_json_free(golden);
    assert_int_equal(n_wrong, before);
}

TEST(a_cross_encoder_scores_pairs) {
    UNUSED_STATE;
    struct by_json *golden = golden_load(TINY "bert-rerank/golden.json");
    struct world w;
    uint32_t n, before = n_wrong, first = 0;
    world_open(&w, TINY "bert-rerank", naive_backend(), &(struct world_options){0});
    assert_int_equal(model_n_labels(w.m), 1);
    for (const struct by_json *c = by_json_first(by_json_get(golden, "cases")); c;
         c = by_json_next(c)) {
        run_encoder(&w, c, "token_type_ids", &n);
        double want = by_json_f64(by_json_get(c, "logit"));
        check_vector("bert-rerank", "logit", &want, model_scores(w.m, &first, 1), 1, 1e-5);
    }
    world_close(&w);
    by_json_free(golden);
    assert_int_equal(n_wrong, before);
}

/* Embeddings out of a decoder: the last token's state. */
TEST(a_decoder_gives_the_last_hidden_state) {
    UNUSED_STATE;
    struct by_json *golden = golden_load(TINY "qwen3/golden.json");
    const struct by_json *e = by_json_get(golden, "last_token_embedding");
    struct world w;
    uint32_t n, m, before = n_wrong;
    uint32_t *ids = golden_ids(e, "ids", &n);
    double *want = golden_list(e, "embedding", &m);
    float unit[64];
    world_open(&w, TINY "qwen3", naive_backend(), &(struct world_options){0});
    assert_int_equal(m, model_hidden_size(w.m));
    world_feed(&w, 0, ids, n, n, NULL);
    uint32_t last = n - 1;
    mean_of(model_hidden(w.m, &last, 1), 1, m, unit);
    check_vector("qwen3", "embedding", want, unit, m, 1e-5);
    by_free(ids);
    by_free(want);
    world_close(&w);
    by_json_free(golden);
    assert_int_equal(n_wrong, before);
}

WORLD_TESTS(RUN(every_family_matches_its_goldens),
            RUN(the_cpu_backend_matches_the_goldens_with_exact_activations),
            RUN(what_is_served_is_close_to_the_goldens), RUN(an_encoder_gives_embeddings),
            RUN(a_cross_encoder_scores_pairs), RUN(a_decoder_gives_the_last_hidden_state));
