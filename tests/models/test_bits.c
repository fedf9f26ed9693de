/* The same bits (DESIGN D6): a text's logits do not depend on how it was cut into steps, what was cached, who else was in
 * the batch, or how many lanes there are; for each family and format, on each instruction set of this machine. */
#include "tests/models/model_subjects.h"
#include "tests/models/model_world.h"

enum { TOKENS = 130 };

struct bits {
    struct world w;
    const char *path;
    uint32_t vocab, ids[WORLD_SEQS][TOKENS];
    float *whole; /* [vocab], of sequence 0 in one step */
};

/* Ids that no golden has; each sequence its own. */
static void make_ids(struct bits *b) {
    uint64_t x = 1;
    for (uint32_t s = 0; s < WORLD_SEQS; s++) {
        for (uint32_t i = 0; i < TOKENS; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            b->ids[s][i] = (uint32_t)(x >> 33) % b->vocab;
        }
    }
}

static void same(struct bits *b, const float *logits, const char *what) {
    if (memcmp(b->whole, logits, b->vocab * sizeof *logits) == 0) return;
    for (uint32_t i = 0; i < b->vocab; i++) {
        if (memcmp(&b->whole[i], &logits[i], sizeof *logits) != 0)
            fail_msg("%s: %s: logit %u is %.9g, was %.9g", what, i, (double)logits[i],
                     (double)b->whole[i]);
    }
}

static void in_chunks(struct bits *b, uint32_t chunk, const char *what) {
    b->w.n_done[0] = 0;
    same(b, world_feed(&b->w, 0, b->ids[0], TOKENS, chunk, NULL), what);
}

/* Sequence 1 begins with 64 tokens of sequence 0: it takes over those pages. */
static void after_a_hit(struct bits *b) {
    uint32_t own[WORLD_PAGES_EACH];
    memcpy(own, b->w.pages[1], sizeof own);
    memcpy(b->w.pages[1], b->w.pages[0], 64 / WORLD_PAGE * sizeof b->w.pages[0][0]);
    b->w.n_done[1] = 64;
    same(b, world_feed(&b->w, 1, b->ids[0] + 64, TOKENS - 64, TOKENS, NULL), "after a cache hit");
    memcpy(b->w.pages[1], own, sizeof own);
}

/* Sixteen sequences at once, at different places: some decode, some prefill. Sequence 0 gets its last token in a step
 * with 15 others. */
static void among_others(struct bits *b) {
    uint32_t n[WORLD_SEQS] = {0}, first[WORLD_SEQS] = {0};
    const uint32_t *from[WORLD_SEQS];
    memset(b->w.n_done, 0, sizeof b->w.n_done);
    for (uint32_t left = 1; left;) {
        left = 0;
        for (uint32_t s = 0; s < WORLD_SEQS; s++) {
            uint32_t end = s ? 17 + 7 * s : TOKENS, chunk = s % 3 == 0 ? 29 : s % 3;
            n[s] = BY_MIN(BY_MAX(chunk, 1u), end - b->w.n_done[s]);
            from[s] = b->ids[s] + b->w.n_done[s];
            if (s == 0) left = n[0];
        }
        if (left) world_step(&b->w, from, n, first);
        if (b->w.n_done[0] == TOKENS) {
            uint32_t row = first[0] + n[0] - 1;
            same(b, model_logits(b->w.m, &row, 1), "among 15 others");
            return;
        }
    }
}

/* Eight sequences with the same text, seven of them on some of the first one's pages, get their last token in one step: they
 * attend to what they share together. */
static void among_sharers(struct bits *b) {
    enum { SHARERS = 8 };
    uint32_t own[WORLD_SEQS][WORLD_PAGES_EACH], n[WORLD_SEQS] = {0}, first[WORLD_SEQS] = {0};
    const uint32_t *from[WORLD_SEQS] = {0};
    memcpy(own, b->w.pages, sizeof own);
    b->w.n_done[0] = 0;
    for (uint32_t s = 0; s < SHARERS; s++) {
        uint32_t n_shared = s ? 32 + 32 * (s % 4) : 0;
        memcpy(b->w.pages[s], b->w.pages[0], n_shared / WORLD_PAGE * sizeof own[0][0]);
        b->w.n_done[s] = n_shared;
        world_feed(&b->w, s, b->ids[0] + n_shared, TOKENS - 1 - n_shared, TOKENS, NULL);
        from[s] = b->ids[0] + TOKENS - 1;
        n[s] = 1;
    }
    world_step(&b->w, from, n, first);
    for (uint32_t s = 0; s < SHARERS; s++)
        same(b, model_logits(b->w.m, &first[s], 1), "with others on the same pages");
    memcpy(b->w.pages, own, sizeof own);
}

static void check(const struct subject *s, struct bits *b) {
    for (uint32_t lanes = 1; lanes <= 3; lanes += 2) {
        char path[256];
        struct backend *cpu = NULL;
        struct by_err err = {0};
        if (cpu_backend_new(&cpu, &(struct cpu_options){.n_threads = lanes, .isa = world_isa},
                            &err))
            fail_msg("%s", err.text);
        subject_path(s, path, sizeof path);
        world_open(&b->w, path, cpu, &(struct world_options){.kv_dtype = KV_BF16});
        b->vocab = model_n_vocab(b->w.m);
        b->path = s->path;
        make_ids(b);
        const float *whole = world_feed(&b->w, 0, b->ids[0], TOKENS, TOKENS, NULL);
        if (lanes == 1) {
            b->whole = by_realloc_array(b->whole, b->vocab, sizeof *whole);
            memcpy(b->whole, whole, b->vocab * sizeof *whole);
        } else {
            same(b, whole, "3 lanes");
        }
        /* Three lanes on fewer cores mostly wait for each other: only what differs for them. */
        if (lanes == 1) in_chunks(b, 1, "chunks of 1");
        if (lanes == 1) in_chunks(b, 64, "chunks of 64");
        in_chunks(b, lanes == 1 ? 7 : 29, "chunks of 7 or 29");
        after_a_hit(b);
        among_others(b);
        among_sharers(b);
        world_close(&b->w);
        cpu->close(cpu);
    }
}

TEST(no_way_of_computing_changes_a_bit) {
    UNUSED_STATE;
    struct bits *b = by_alloc(sizeof *b);
    for (size_t i = 0; i < BY_COUNTOF(subjects); i++) {
        if (!subjects[i].only && subject_is_chosen(&subjects[i], world_is_few))
            check(&subjects[i], b);
    }
    by_free(b->whole);
    by_free(b);
}

WORLD_TESTS(RUN(no_way_of_computing_changes_a_bit));
