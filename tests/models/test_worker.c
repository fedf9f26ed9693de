/* The worker over real models, step by step: what it allocates. */
#include "gpu_worker/worker.h"

#include "tests/models/model_subjects.h"
#include "tests/models/model_world.h"

enum { SLOTS = 4, PROMPT_MAX = 70, DECODES = 40, PAGES_OF_SLOT = 8 };

static const uint32_t prompt_lens[SLOTS] = {PROMPT_MAX, 33, 1, 20};

/* Greedy, all filters, logprobs of everything, penalties with a bias: every way through the sampler. */
static struct msg_sampling sampling_of(uint32_t slot) {
    static const uint32_t ids[] = {5, 9};
    static const float values[] = {1.5f, -2};
    struct msg_sampling s = {
        .top_p = 1, .repetition_penalty = 1, .ignore_eos = true, .logprob_start = -1, .seed = slot};
    if (slot >= 1) s.temperature = 0.8f;
    if (slot == 1) {
        s.top_p = 0.9f;
        s.top_k = 20;
        s.min_p = 0.01f;
    }
    if (slot == 2) {
        s.logprobs = true;
        s.top_logprobs = 5;
        s.logprob_ids = (struct msg_u32s){ids, 2};
    }
    if (slot == 3) {
        s.repetition_penalty = 1.2f;
        s.frequency_penalty = s.presence_penalty = 0.3f;
        s.bias_ids = (struct msg_u32s){ids, 2};
        s.bias_values = (struct msg_f32s){values, 2};
        s.logprob_start = 0;
    }
    return s;
}

/* All that a few requests need, from admission to the freeing of their slots. */
static void serve(struct worker *w, uint64_t *step, uint32_t n_vocab) {
    static uint32_t ids[SLOTS][PROMPT_MAX], pages[SLOTS][PAGES_OF_SLOT];
    struct msg_admit admits[SLOTS];
    uint32_t slots[SLOTS], tokens[SLOTS], samples[SLOTS];
    struct msg_step m = {0};
    struct msg_step_done done;
    struct by_err err = {0};
    for (uint32_t s = 0; s < SLOTS; s++) {
        for (uint32_t i = 0; i < prompt_lens[s]; i++)
            ids[s][i] = (7 * i + 3 * s + 1) % n_vocab;
        for (uint32_t i = 0; i < PAGES_OF_SLOT; i++)
            pages[s][i] = s * PAGES_OF_SLOT + i;
        admits[s] = (struct msg_admit){.slot = s,
                                       .n_prompt = prompt_lens[s],
                                       .ids = {ids[s], prompt_lens[s]},
                                       .pages = {pages[s], PAGES_OF_SLOT},
                                       .sampling = sampling_of(s)};
        slots[s] = s;
        tokens[s] = prompt_lens[s];
        samples[s] = 1;
    }
    m.admits.p = admits;
    m.admits.n = SLOTS;
    m.row_slots = (struct msg_u32s){slots, SLOTS};
    m.row_tokens = (struct msg_u32s){tokens, SLOTS};
    m.row_samples = (struct msg_u32s){samples, SLOTS};
    for (uint32_t i = 0; i < DECODES; i++) {
        m.step = ++*step;
        if (worker_step(w, &m, &done, &err)) fail_msg("%s", err.text);
        assert_int_equal(done.tokens.n, SLOTS);
        assert_int_equal(done.failed_slots.n, 0);
        m.admits.n = 0;
        for (uint32_t s = 0; s < SLOTS; s++)
            tokens[s] = 1;
    }
    m = (struct msg_step){.step = ++*step, .free_slots = {slots, SLOTS}};
    if (worker_step(w, &m, &done, &err)) fail_msg("%s", err.text);
}

static void check(const struct subject *s) {
    char path[256];
    struct backend *cpu = NULL;
    struct backend_memory before, after;
    struct world world;
    struct by_err err = {0};
    uint64_t step = 0;
    if (cpu_backend_new(&cpu, &(struct cpu_options){.n_threads = 2, .isa = world_isa}, &err))
        fail_msg("%s", err.text);
    subject_path(s, path, sizeof path);
    world_open(&world, path, cpu, &(struct world_options){.kv_dtype = KV_BF16});
    const struct mirror_limits limits = {.n_slots = SLOTS,
                                         .n_pages = SLOTS * PAGES_OF_SLOT,
                                         .page_size = WORLD_PAGE,
                                         .n_vocab = model_n_vocab(world.m),
                                         .rows_max = WORLD_ROWS,
                                         .context_len = model_context_len(world.m)};
    struct worker *w = worker_new(world.m, cpu, &limits);
    serve(w, &step, limits.n_vocab);
    serve(w, &step, limits.n_vocab);
    cpu->memory(cpu, &before);
    uint64_t n_allocs = by_mem_n_allocs();
    serve(w, &step, limits.n_vocab);
    n_allocs = by_mem_n_allocs() - n_allocs;
    cpu->memory(cpu, &after);
    if (n_allocs) fail_msg("%s: %llu allocations", s->path, (unsigned long long)n_allocs);
    assert_memory_equal(&before, &after, sizeof before);
    worker_free(w);
    world_close(&world);
    cpu->close(cpu);
}

TEST(steps_allocate_nothing_after_warm_up) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(subjects); i++) {
        if (!subjects[i].only && subject_is_chosen(&subjects[i], world_is_few)) check(&subjects[i]);
    }
}

WORLD_TESTS(RUN(steps_allocate_nothing_after_warm_up));
