/* Whole models through the emulated CUDA backend: every family and format of the shared data against what transformers says
 * of it, in f32; a prompt in one step, then greedy tokens one by one, which from the third on are graphs. */
#include "gpu_worker/cuda/cuda_module.h"
#include "tests/models/model_subjects.h"
#include "tests/models/model_world.h"

/* As a share of the logits' spread; what the CPU backend is held to with exact activations. */
static const double tolerance = 2e-3;
enum { GREEDY = 6 };

static struct backend *open_backend(void) {
    struct backend *b = NULL;
    struct by_err err;
    if (banyan_cuda_module()->open(&b, &(struct cuda_options){.deadline_ms = 1000}, &err))
        fail_msg("%s", err.text);
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

TEST(every_family_matches_its_goldens) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(subjects); i++) {
        const struct subject *s = &subjects[i];
        char path[256], golden_path[256];
        if (!subject_is_chosen(s, world_is_few)) continue;
        snprintf(path, sizeof path, TINY "%s", s->path);
        snprintf(golden_path, sizeof golden_path, TINY "%s%s", s->golden ? s->golden : s->path,
                 s->golden ? "" : "/golden.json");
        struct by_json *golden = golden_load(golden_path);
        struct backend *b = open_backend();
        struct world w;
        world_open(&w, path, b, &(struct world_options){.context_len = s->context_len});
        for (const struct by_json *c = by_json_first(by_json_get(golden, "cases")); c;
             c = by_json_next(c)) {
            struct by_str key = by_json_key(c);
            bool is_long = by_str_eqz(key, "len130");
            if (s->only ? by_str_eqz(key, s->only)
                        : !is_long || i == 0 || (s->is_one_of_few && !world_is_few))
                check_case(s, &w, c, tolerance * golden_std(golden));
        }
        world_close(&w);
        b->close(b);
        by_json_free(golden);
    }
}

WORLD_TESTS(RUN(every_family_matches_its_goldens));
