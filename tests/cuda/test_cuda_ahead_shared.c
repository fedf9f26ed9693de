/* Two steps in flight on the emulated device: the same frames, done one by one or begun before the last answer is read, come
 * to the same answers. The frames name no sampled token, as the scheduler's do not. */
#include "gpu_worker/cuda/cuda_module.h"
#include "gpu_worker/worker.h"
#include "tests/models/model_subjects.h"
#include "tests/models/model_world.h"

enum { SLOTS = 72, PROMPT = 10, WORDS_MAX = 1 << 20 };

/* What all answers of a run say, one after the other. */
struct answers {
    uint32_t words[WORDS_MAX], n;
    uint64_t n_ahead;
};

/* A run: who takes part, and what they want. */
struct play {
    uint32_t n_seqs, n_steps;
    bool (*sampling)(uint32_t slot, struct msg_sampling *out); /* false: the plain one */
    uint32_t left_at;  /* step in which slot 0 is freed, 0: none */
    uint32_t late_at;  /* step in which slot n_seqs comes in, 0: none */
    uint32_t reset_at; /* step after which all begins anew, 0: none */
};

static void add_words(struct answers *a, const void *p, size_t n) {
    assert_true(a->n + n <= WORDS_MAX);
    memcpy(a->words + a->n, p, n * sizeof *a->words);
    a->n += (uint32_t)n;
}

static void add_tops(struct answers *a, const struct msg_top *tops, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        if (!tops[i].n_each) continue;
        add_words(a, tops[i].ids.p, tops[i].ids.n);
        add_words(a, tops[i].logprobs.p, tops[i].logprobs.n);
    }
}

static void note(struct answers *a, const struct msg_step_done *d) {
    const uint32_t head[] = {(uint32_t)d->step, d->tokens.n, d->failed_slots.n, d->crc};
    add_words(a, head, BY_COUNTOF(head));
    add_words(a, d->tokens.p, d->tokens.n);
    add_words(a, d->logprobs.p, d->logprobs.n);
    add_words(a, d->failed_slots.p, d->failed_slots.n);
    add_tops(a, d->tops.p, d->tops.n);
    add_tops(a, d->id_logprobs.p, d->id_logprobs.n);
    for (uint32_t i = 0; i < d->prompts.n; i++)
        add_words(a, d->prompts.p[i].logprobs.p, d->prompts.p[i].logprobs.n);
}

static void take(struct worker *w, const struct msg_step *m, bool ahead, struct answers *a) {
    struct msg_step_done done;
    struct by_err err = {0};
    while (worker_must_collect(w, m)) {
        assert_true(worker_collect(w, true, &done));
        note(a, &done);
    }
    if (ahead && worker_can_begin(w, m)) {
        if (worker_begin(w, m, &err)) fail_msg("%s", err.text);
        return;
    }
    if (worker_step(w, m, &done, &err)) fail_msg("%s", err.text);
    note(a, &done);
}

static void take_rest(struct worker *w, struct answers *a) {
    struct msg_step_done done;
    while (worker_n_flying(w)) /* by looks, as between the loop's rounds */
        if (worker_collect(w, false, &done)) note(a, &done);
}

/* Prompts in two chunks, then a token a step. */
static void play(struct worker *w, const struct play *p, uint32_t n_vocab, bool ahead,
                 struct answers *a) {
    static uint32_t ids[SLOTS][PROMPT], pages[SLOTS][WORLD_PAGES_EACH], n_done[SLOTS];
    struct msg_admit admits[SLOTS];
    uint32_t slots[SLOTS], tokens[SLOTS], samples[SLOTS], gone = 0, pages_each = 8;
    memset(n_done, 0, sizeof n_done);
    for (uint32_t step = 1; step <= p->n_steps; step++) {
        struct msg_step m = {.step = step};
        uint32_t n_rows = 0, n_admits = 0, n = p->n_seqs + (p->late_at && step >= p->late_at);
        bool is_leaving = step == p->left_at;
        for (uint32_t s = is_leaving || (p->left_at && step > p->left_at); s < n; s++) {
            if (!n_done[s]) {
                for (uint32_t i = 0; i < PROMPT; i++)
                    ids[s][i] = (7 * i + 3 * s + 1) % n_vocab;
                for (uint32_t i = 0; i < pages_each; i++)
                    pages[s][i] = s * pages_each + i;
                struct msg_admit *x = &admits[n_admits++];
                *x = (struct msg_admit){.slot = s,
                                        .n_prompt = PROMPT,
                                        .ids = {ids[s], PROMPT},
                                        .pages = {pages[s], pages_each}};
                if (!p->sampling || !p->sampling(s, &x->sampling))
                    x->sampling = (struct msg_sampling){
                        .top_p = 1, .repetition_penalty = 1, .logprob_start = -1};
            }
            slots[n_rows] = s;
            tokens[n_rows] = !n_done[s] ? 5 : n_done[s] == 5 ? PROMPT - 5 : 1;
            n_done[s] += tokens[n_rows];
            samples[n_rows++] = n_done[s] >= PROMPT;
        }
        m.admits.p = admits;
        m.admits.n = n_admits;
        m.row_slots = (struct msg_u32s){slots, n_rows};
        m.row_tokens = (struct msg_u32s){tokens, n_rows};
        m.row_samples = (struct msg_u32s){samples, n_rows};
        if (is_leaving) m.free_slots = (struct msg_u32s){&gone, 1};
        take(w, &m, ahead, a);
        if (step != p->reset_at) continue;
        worker_reset(w); /* with what is in flight */
        a->n = 0;
        struct play again = *p;
        again.reset_at = 0;
        play(w, &again, n_vocab, ahead, a);
        return;
    }
    take_rest(w, a);
}

static void run_play(const struct play *p, const char *path, bool ahead, struct answers *a) {
    char full[256];
    struct backend *b = NULL;
    struct by_err err;
    struct world world;
    if (banyan_cuda_module()->open(&b, &(struct cuda_options){.deadline_ms = 60000}, &err))
        fail_msg("%s", err.text);
    snprintf(full, sizeof full, TINY "%s", path);
    world_open(&world, full, b, &(struct world_options){.kv_dtype = KV_BF16});
    const struct mirror_limits limits = {.n_slots = SLOTS,
                                         .n_pages = WORLD_SEQS * WORLD_PAGES_EACH,
                                         .page_size = WORLD_PAGE,
                                         .n_vocab = model_n_vocab(world.m),
                                         .rows_max = WORLD_ROWS,
                                         .context_len = model_context_len(world.m)};
    struct worker *w = worker_new(world.m, b, &limits);
    a->n = 0;
    play(w, p, limits.n_vocab, ahead, a);
    a->n_ahead = worker_n_ahead(w);
    worker_free(w);
    world_close(&world);
    b->close(b);
}

/* Both ways; the steps that were begun early. */
static uint64_t same_both_ways(const struct play *p, const char *path) {
    static struct answers one, two;
    run_play(p, path, false, &one);
    run_play(p, path, true, &two);
    assert_int_equal(one.n_ahead, 0);
    assert_true(one.n > 4 * p->n_steps);
    assert_int_equal(one.n, two.n);
    assert_memory_equal(one.words, two.words, one.n * sizeof *one.words);
    return two.n_ahead;
}

static bool mixed(uint32_t slot, struct msg_sampling *s) {
    static const uint32_t ids[] = {5, 9};
    *s = (struct msg_sampling){.top_p = 1, .repetition_penalty = 1, .logprob_start = -1};
    s->seed = slot;
    s->temperature = slot % 2 ? 0.8f : 0;
    s->top_k = slot == 3 ? 20 : 0;
    s->logprobs = slot == 2;
    s->top_logprobs = slot == 2 ? 5 : 0;
    if (slot == 2) s->logprob_ids = (struct msg_u32s){ids, 2};
    s->min_new_tokens = slot == 1 ? 4 : 0; /* counts tokens that are not known yet */
    if (slot == 1) s->stop_ids = (struct msg_u32s){ids, 2};
    return true;
}

TEST(steps_in_flight_answer_as_one_by_one) {
    UNUSED_STATE;
    const struct play p = {.n_seqs = 4, .n_steps = 70, .sampling = mixed, .late_at = 6};
    /* All but the first, and the one after step 64, whose slots as it leaves them are told. */
    assert_int_equal(same_both_ways(&p, "llama-gqa"), p.n_steps - 2);
}

/* Learned positions: the id and the position are embedded side by side. */
TEST(positions_of_their_own_are_looked_up_too) {
    UNUSED_STATE;
    const struct play p = {.n_seqs = 2, .n_steps = 12, .sampling = mixed};
    assert_int_equal(same_both_ways(&p, "gpt2"), p.n_steps - 1);
}

TEST(more_rows_than_one_group_of_logits_has) {
    UNUSED_STATE;
    const struct play p = {.n_seqs = 70, .n_steps = 5};
    assert_int_equal(same_both_ways(&p, "llama-gqa"), p.n_steps - 1);
}

static bool penalised(uint32_t slot, struct msg_sampling *s) {
    mixed(slot, s);
    s->frequency_penalty = 0.5f;
    return true;
}

TEST(who_counts_its_tokens_waits_for_them) {
    UNUSED_STATE;
    const struct play p = {.n_seqs = 3, .n_steps = 20, .sampling = penalised};
    assert_int_equal(same_both_ways(&p, "llama-gqa"), 1); /* the second half of the prompts */
}

static bool scored(uint32_t slot, struct msg_sampling *s) {
    mixed(slot, s);
    if (slot == 1) s->logprob_start = 0;
    return true;
}

TEST(scores_of_a_prompt_are_read_at_once) {
    UNUSED_STATE;
    const struct play p = {.n_seqs = 3, .n_steps = 10, .sampling = scored};
    assert_int_equal(same_both_ways(&p, "llama-gqa"), 0);
}

/* An infinite bias breaks the logits of slot 1; the token that stands for its next one is 0, there as here. */
static bool broken(uint32_t slot, struct msg_sampling *s) {
    static const uint32_t ids[] = {5};
    static const float values[] = {INFINITY};
    mixed(slot, s);
    if (slot == 1) {
        s->bias_ids = (struct msg_u32s){ids, 1};
        s->bias_values = (struct msg_f32s){values, 1};
    }
    return true;
}

TEST(a_row_that_fails_spoils_no_other) {
    UNUSED_STATE;
    const struct play p = {.n_seqs = 3, .n_steps = 12, .sampling = broken};
    assert_int_equal(same_both_ways(&p, "llama-gqa"), p.n_steps - 1);
}

TEST(a_slot_that_is_freed_is_answered_first) {
    UNUSED_STATE;
    const struct play p = {.n_seqs = 3, .n_steps = 16, .sampling = mixed, .left_at = 9};
    assert_int_equal(same_both_ways(&p, "llama-gqa"), p.n_steps - 2);
}

TEST(a_new_session_knows_nothing_of_what_was_in_flight) {
    UNUSED_STATE;
    const struct play p = {.n_seqs = 3, .n_steps = 12, .sampling = mixed, .reset_at = 8};
    assert_int_equal(same_both_ways(&p, "llama-gqa"), p.n_steps - 1 + p.reset_at - 1);
}

WORLD_TESTS(RUN(steps_in_flight_answer_as_one_by_one),
            RUN(positions_of_their_own_are_looked_up_too),
            RUN(more_rows_than_one_group_of_logits_has), RUN(who_counts_its_tokens_waits_for_them),
            RUN(scores_of_a_prompt_are_read_at_once), RUN(a_row_that_fails_spoils_no_other),
            RUN(a_slot_that_is_freed_is_answered_first),
            RUN(a_new_session_knows_nothing_of_what_was_in_flight));
