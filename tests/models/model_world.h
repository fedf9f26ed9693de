/* model_world.h - a model over a backend, with pages and sequences, and what golden.json says of it.
 *
 *     world_open(path, backend) ─▶ world_feed(sequence, ids, chunk) … ─▶ logits of the last row ─▶ world_close
 *
 * Always: sequence s owns pages s * pages_of .. ; a test may overwrite that table, to share pages.
 * Owner: the test program. */
#ifndef TESTS_MODELS_MODEL_WORLD_H
#define TESTS_MODELS_MODEL_WORLD_H

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "gpu_worker/cpu/cpu_backend.h"
#include "gpu_worker/models/model.h"
#include "tests/unit/test.h"

#include <math.h>

/* What the program was called with: an instruction set, and "few". */
static enum cpu_isa world_isa;
static bool world_is_few;

static inline void world_arguments(int argc, char **argv) {
    static const char *const names[] = {"portable", "avx2", "avx512"};
    world_isa = cpu_isa_best();
    for (int i = 1; i < argc; i++) {
        world_is_few |= strcmp(argv[i], "few") == 0;
        for (size_t k = 0; k < BY_COUNTOF(names); k++) {
            if (strcmp(argv[i], names[k]) == 0) world_isa = (enum cpu_isa)k;
        }
    }
    if (world_isa > cpu_isa_best()) exit(77);
}

#define WORLD_TESTS(...) \
    int main(int argc, char **argv) { \
        const struct CMUnitTest tests_[] = {__VA_ARGS__}; \
        world_arguments(argc, argv); \
        return cmocka_run_group_tests(tests_, NULL, NULL); \
    } \
    static_assert(sizeof(void *) == 8, "")

enum {
    WORLD_SEQS = 16,
    WORLD_PAGE = 16,
    WORLD_PAGES_EACH = 40,
    WORLD_ROWS = 512,
    WORLD_LOGIT_ROWS = 160
};

struct world {
    struct model *m;
    struct backend *b;
    uint32_t pages[WORLD_SEQS][WORLD_PAGES_EACH];
    uint32_t n_done[WORLD_SEQS];     /* tokens in the pages */
    bool wants_all;                  /* every row's logits, not only each sequence's last */
    const struct state_copy *starts; /* of the next step, as keeps */
    const struct state_keep *keeps;
    uint32_t n_starts, n_keeps;
};

struct world_options {
    uint32_t context_len;
    enum by_dtype quantize;
    enum kv_dtype kv_dtype;
    uint32_t rank, world; /* 0, 0: alone */
};

static inline void world_open(struct world *w, const char *path, struct backend *b,
                              const struct world_options *o) {
    struct by_model_dir *dir = NULL;
    struct by_err err = {0};
    *w = (struct world){.b = b};
    if (by_model_dir_open(&dir, path, &err)) fail_msg("%s", err.text);
    const struct model_options mo = {
        .page_size = WORLD_PAGE,
        .kv_dtype = o->kv_dtype,
        .rows_max = WORLD_ROWS,
        .logit_rows_max = WORLD_LOGIT_ROWS,
        .context_len = o->context_len,
        .rank = o->rank,
        .world = o->world,
        .quantize = o->quantize,
    };
    if (model_open(&w->m, dir, b, &mo, &err)) fail_msg("%s", err.text);
    by_model_dir_close(dir);
    if (model_kv_new(w->m, WORLD_SEQS * WORLD_PAGES_EACH, WORLD_SEQS, WORLD_SEQS, &err))
        fail_msg("%s", err.text);
    for (uint32_t s = 0; s < WORLD_SEQS; s++) {
        for (uint32_t i = 0; i < WORLD_PAGES_EACH; i++)
            /* no two alike, none in order */
            w->pages[s][i] = i * WORLD_SEQS + (s * 7 + i) % WORLD_SEQS;
    }
}

static inline void world_close(struct world *w) {
    model_close(w->m);
    w->m = NULL;
}

/* One step with n[s] further tokens of each sequence s (0: not in this step). Rows of sequence s begin at first[s]. */
static inline void world_step(struct world *w, const uint32_t *const ids[WORLD_SEQS],
                              const uint32_t n[WORLD_SEQS], uint32_t first[WORLD_SEQS]) {
    static uint32_t all_ids[WORLD_ROWS], positions[WORLD_ROWS];
    uint32_t last[WORLD_SEQS];
    struct seq_rows seqs[WORLD_SEQS];
    struct model_step step = {.ids = all_ids, .positions = positions, .seqs = seqs};
    for (uint32_t s = 0; s < WORLD_SEQS; s++) {
        if (!n[s]) continue;
        first[s] = step.n_rows;
        seqs[step.n_seqs++] = (struct seq_rows){.first = step.n_rows,
                                                .n = n[s],
                                                .position = w->n_done[s],
                                                .pages = w->pages[s],
                                                .slot = s};
        for (uint32_t i = 0; i < n[s]; i++) {
            assert_true(step.n_rows < WORLD_ROWS);
            all_ids[step.n_rows] = ids[s][i];
            positions[step.n_rows++] = w->n_done[s] + i;
        }
        w->n_done[s] += n[s];
        last[step.n_wanted++] = step.n_rows - 1;
    }
    step.wanted = w->wants_all ? NULL : last;
    step.starts = w->starts;
    step.keeps = w->keeps;
    step.n_starts = w->n_starts;
    step.n_keeps = w->n_keeps;
    w->n_starts = w->n_keeps = 0;
    assert_int_equal(model_forward(w->m, &step), 0);
}

/* n tokens into sequence s, `chunk` a step; logits of the last row, or of all rows into all [n, n_vocab] unless NULL. */
static inline const float *world_feed(struct world *w, uint32_t s, const uint32_t *ids, uint32_t n,
                                      uint32_t chunk, float *all) {
    uint32_t vocab = model_n_vocab(w->m), rows[WORLD_LOGIT_ROWS], first[WORLD_SEQS] = {0}, last = 0;
    w->wants_all = all != NULL;
    for (uint32_t at = 0; at < n; at += chunk) {
        uint32_t k = BY_MIN(chunk, n - at), ns[WORLD_SEQS] = {0};
        const uint32_t *from[WORLD_SEQS] = {0};
        ns[s] = k;
        from[s] = ids + at;
        world_step(w, from, ns, first);
        last = first[s] + k - 1;
        if (!all) continue;
        for (uint32_t i = 0; i < k; i += WORLD_LOGIT_ROWS) {
            uint32_t m = BY_MIN(k - i, (uint32_t)WORLD_LOGIT_ROWS);
            for (uint32_t j = 0; j < m; j++)
                rows[j] = i + j;
            memcpy(all + (size_t)(at + i) * vocab, model_logits(w->m, rows, m),
                   (size_t)m * vocab * sizeof *all);
        }
    }
    return model_logits(w->m, &last, 1);
}

static inline uint32_t argmax(const float *v, uint32_t n) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = v[i] > v[best] ? i : best;
    return best;
}

/* Best less second best. */
static inline float margin(const float *v, uint32_t n) {
    uint32_t best = argmax(v, n);
    float second = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        if (i != best && v[i] > second) second = v[i];
    }
    return v[best] - second;
}

static inline double logprob(const float *v, uint32_t n, uint32_t id) {
    double sum = 0, top = (double)v[argmax(v, n)];
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)v[i] - top);
    return (double)v[id] - top - log(sum);
}

/* ---- golden.json ---- */

static inline struct by_json *golden_load(const char *path) {
    struct by_buf text;
    struct by_json *j = NULL;
    struct by_err err = {0};
    const struct by_json_limits lim = {.bytes_max = 64 << 20, .depth_max = 32};
    by_buf_init(&text, 64 << 20);
    if (by_file_read(&text, path, &err)) fail_msg("%s", err.text);
    if (by_json_parse(&j, by_buf_str(&text), &lim, &err)) fail_msg("%s: %s", path, err.text);
    by_buf_release(&text);
    return j;
}

/* A list of numbers, null as NaN; yours. */
static inline double *golden_list(const struct by_json *obj, const char *key, uint32_t *n) {
    const struct by_json *list = by_json_get(obj, key);
    if (!list) fail_msg("golden.json has no %s", key);
    *n = (uint32_t)by_json_len(list);
    double *v = by_alloc_array(*n, sizeof *v);
    uint32_t i = 0;
    for (const struct by_json *it = by_json_first(list); it; it = by_json_next(it))
        v[i++] = by_json_type(it) == BY_JSON_NUMBER ? by_json_f64(it) : (double)NAN;
    return v;
}

static inline uint32_t *golden_ids(const struct by_json *obj, const char *key, uint32_t *n) {
    double *v = golden_list(obj, key, n);
    uint32_t *ids = by_alloc_array(*n, sizeof *ids);
    for (uint32_t i = 0; i < *n; i++)
        ids[i] = (uint32_t)v[i];
    by_free(v);
    return ids;
}

/* The spread of the logits, which tolerances are shares of. */
static inline double golden_std(const struct by_json *golden) {
    const struct by_json *given = by_json_get(golden, "logits_std");
    if (given) return by_json_f64(given);
    uint32_t n;
    double *v = golden_list(by_json_get(by_json_get(golden, "cases"), "len130"), "last_logits", &n),
           sum = 0, sq = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += v[i];
    for (uint32_t i = 0; i < n; i++)
        sq += (v[i] - sum / n) * (v[i] - sum / n);
    by_free(v);
    return sqrt(sq / n);
}

#endif
