/* fake_worker.c - a gpu worker without a model: it speaks the real frames, keeps the real mirror, and picks each next token
 * from a hash of all ids before it. For tests and benchmarks of everything around the engine.
 *
 *     fake-worker --run-dir DIR [--replica 0] [--vocab 49152] [--first-id 100] [--ids-end VOCAB] [--pages 4096]
 *                 [--page-size 16] [--slots 256] [--context 8192] [--step-us 0] [--die-at-step 0]
 *                 [--die-at-id 0] [--parrot 0] [--embed 0] [--labels 0] [--encoder 0] [--states 0]
 *
 * Ids are from first-id up to ids-end, so that special ids stay out. The hash of a sequence does not depend on batch,
 * chunks or cache, as with the native engine. It keeps a hash for each page slot in place of KV, and reads prefixes back
 * through it. With --states it plays a model that carries a state along, that hash: it dies of one of other ids.
 * Stop ids are masked until min_new_tokens; log probabilities are made up: logprob_of. The other parameters but temperature
 * and seed change nothing. A vector is made of the same hash: vector_of. */
#include <stdio.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/proc.h"
#include "common/base/rand.h"
#include "common/net/loop.h"

#include <math.h>
#include "proto/wire.h"

struct slot {
    bool is_used;
    uint32_t *ids, n_ids, cap, n_done; /* known ids; of them computed */
    uint32_t *pages, n_pages, pages_cap;
    struct msg_sampling sampling; /* of its scalars only */
    uint32_t *stop_ids, n_stop_ids;
    uint32_t *asked_ids, n_asked_ids; /* logprob_ids */
    uint32_t sample, n_prompt;
    uint64_t state; /* hash of the ids so far */
};

static struct fake {
    struct wire *wire;
    struct by_loop *loop;
    struct msg_capacity capacity;
    struct msg_model model;
    uint32_t first_id, ids_end, step_us, die_at_id;
    uint64_t die_at_step, last_step;
    bool is_parrot;
    uint64_t salt; /* of the weights in force: what all hashes begin with */
    char path[256], next_path[256], weights_id[24];
    struct slot *slots; /* [n_slots] */
    uint64_t *kv;       /* [n_pages * page_size]: hash of the ids up to there */
    uint64_t *kept;     /* [n_states]: hash of the ids that each is of */
    uint32_t *tokens;   /* [n_slots] of the step in hand */
    float *logprobs;
    struct msg_top *tops, *chosen;       /* [n_slots] */
    struct msg_prompt_logprobs *prompts; /* [n_slots] */
    uint32_t n_prompts;
    struct msg_slot_vector *vectors; /* [n_slots] */
    uint32_t n_vectors;
    struct by_arena arena; /* the lists of the step in hand */
} fake;

static void reset(void) { /* a new session: nothing is remembered */
    for (uint32_t i = 0; i < fake.capacity.n_slots; i++)
        fake.slots[i].is_used = false;
    fake.last_step = 0;
}

static uint64_t mix(uint64_t h, uint32_t id) {
    uint64_t z = h ^ (id + UINT64_C(0x9E3779B97F4A7C15));
    return by_rand_next(&z);
}

static void push_id(struct slot *s, uint32_t id) {
    if (s->n_ids == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 1024;
        s->ids = by_realloc_array(s->ids, s->cap, sizeof *s->ids);
    }
    s->ids[s->n_ids++] = id;
}

static void push_page(struct slot *s, uint32_t page) {
    if (page >= fake.capacity.n_pages) by_die("page %u of %u", page, fake.capacity.n_pages);
    if (s->n_pages == s->pages_cap) {
        s->pages_cap = s->pages_cap ? 2 * s->pages_cap : 256;
        s->pages = by_realloc_array(s->pages, s->pages_cap, sizeof *s->pages);
    }
    s->pages[s->n_pages++] = page;
}

static struct slot *slot_at(uint32_t i, bool is_used) {
    if (i >= fake.capacity.n_slots) by_die("slot %u of %u", i, fake.capacity.n_slots);
    if (fake.slots[i].is_used != is_used) by_die("slot %u is %s", i, is_used ? "free" : "taken");
    return &fake.slots[i];
}

static void admit(const struct msg_admit *a) {
    struct slot *s = slot_at(a->slot, false);
    s->is_used = true;
    s->sampling = a->sampling;
    s->sample = a->sample;
    s->n_prompt = a->n_prompt;
    s->n_stop_ids = a->sampling.stop_ids.n;
    s->stop_ids = by_realloc_array(s->stop_ids, s->n_stop_ids + 1, sizeof *s->stop_ids);
    if (s->n_stop_ids)
        memcpy(s->stop_ids, a->sampling.stop_ids.p, s->n_stop_ids * sizeof *s->stop_ids);
    s->n_asked_ids = a->sampling.logprob_ids.n;
    s->asked_ids = by_realloc_array(s->asked_ids, s->n_asked_ids + 1, sizeof *s->asked_ids);
    if (s->n_asked_ids)
        memcpy(s->asked_ids, a->sampling.logprob_ids.p, s->n_asked_ids * sizeof *s->asked_ids);
    s->n_pages = 0;
    /* the cached ids themselves are not needed: their hash lies in the page */
    s->n_ids = s->n_done = a->n_cached;
    if (s->cap < s->n_ids) {
        s->cap = s->n_ids + 1024;
        s->ids = by_realloc_array(s->ids, s->cap, sizeof *s->ids);
    }
    for (uint32_t i = 0; i < a->ids.n; i++)
        push_id(s, a->ids.p[i]);
    for (uint32_t i = 0; i < a->pages.n; i++)
        push_page(s, a->pages.p[i]);
    if (a->from_state > fake.capacity.n_states) by_die("there is no state %u", a->from_state - 1);
    s->state = a->from_state ? fake.kept[a->from_state - 1] : fake.salt;
}

static uint64_t *kv_at(const struct slot *s, uint32_t pos) {
    uint32_t page = pos / fake.capacity.page_size;
    if (page >= s->n_pages) by_die("position %u without a page", pos);
    return &fake.kv[(size_t)s->pages[page] * fake.capacity.page_size +
                    pos % fake.capacity.page_size];
}

static bool is_masked(const struct slot *s, uint32_t id) {
    if (s->n_done >= s->n_prompt + s->sampling.min_new_tokens) return false;
    for (uint32_t i = 0; i < s->n_stop_ids; i++) {
        if (s->stop_ids[i] == id) return true;
    }
    return false;
}

/* A token's made-up log probability; the likeliest ones are the first ids, from -0.5 downwards. */
static float logprob_of(uint32_t id) {
    return -(float)(id % 50) / 10 - 1;
}

static void fill_top(struct msg_top *top, uint32_t n_each, uint32_t n_positions) {
    uint32_t *ids = by_arena_get_array(&fake.arena, (size_t)n_each * n_positions, sizeof *ids);
    float *logprobs =
        by_arena_get_array(&fake.arena, (size_t)n_each * n_positions, sizeof *logprobs);
    for (uint32_t i = 0; i < n_each * n_positions; i++) {
        ids[i] = fake.first_id + i % n_each;
        logprobs[i] = -0.5f - (float)(i % n_each);
    }
    top->n_each = n_each;
    top->ids = (struct msg_u32s){ids, n_each * n_positions};
    top->logprobs = (struct msg_f32s){logprobs, n_each * n_positions};
}

static void fill_chosen(struct msg_top *top, const struct slot *s) {
    float *logprobs = by_arena_get_array(&fake.arena, s->n_asked_ids, sizeof *logprobs);
    for (uint32_t i = 0; i < s->n_asked_ids; i++)
        logprobs[i] = logprob_of(s->asked_ids[i]);
    top->n_each = s->n_asked_ids;
    top->ids = (struct msg_u32s){s->asked_ids, s->n_asked_ids};
    top->logprobs = (struct msg_f32s){logprobs, s->n_asked_ids};
}

/* The row computes positions from..from+n; each predicts the token behind it. */
static void tell_prompt(const struct slot *s, uint32_t slot, uint32_t from, uint32_t n) {
    uint32_t start = from + 1, end = BY_MIN(from + n + 1, s->n_prompt);
    if (s->sampling.logprob_start < 0) return;
    start = BY_MAX(start, (uint32_t)s->sampling.logprob_start);
    if (start >= end) return;
    struct msg_prompt_logprobs *p = &fake.prompts[fake.n_prompts++];
    float *logprobs = by_arena_get_array(&fake.arena, end - start, sizeof *logprobs);
    for (uint32_t i = start; i < end; i++)
        logprobs[i - start] = logprob_of(s->ids[i]);
    *p = (struct msg_prompt_logprobs){
        .slot = slot, .start = start, .logprobs = {logprobs, end - start}};
    fill_top(&p->top, s->sampling.top_logprobs, end - start);
}

/* Numbers of a hash, as a unit vector; a classifier's lie between 0 and 1. */
static struct msg_f32s vector_of(uint64_t h, uint32_t want) {
    uint32_t n = want == VECTOR_SCORES ? fake.model.n_labels : fake.model.n_embed;
    float *v = by_arena_get_array(&fake.arena, n, sizeof *v);
    double sq = 0;
    for (uint32_t i = 0; i < n; i++) {
        v[i] = (float)(by_rand_next(&h) >> 40) * 0x1p-24f;
        sq += (double)v[i] * (double)v[i];
    }
    for (uint32_t i = 0; i < n && want == VECTOR_EMBEDDING; i++)
        v[i] = (float)((double)v[i] / sqrt(sq));
    return (struct msg_f32s){v, n};
}

static void tell_vector(const struct slot *s, uint32_t slot) {
    if (!s->sampling.vector || s->n_done < s->n_prompt) return;
    uint64_t h = *kv_at(s, s->n_done - 1) ^ s->sampling.pair_at;
    fake.vectors[fake.n_vectors++] =
        (struct msg_slot_vector){.slot = slot, .values = vector_of(h, s->sampling.vector)};
}

static uint32_t compute(struct slot *s, uint32_t n) {
    uint64_t h = s->n_done ? *kv_at(s, s->n_done - 1) : fake.salt;
    if (fake.capacity.n_states && h != s->state) by_die("a state of other ids");
    for (uint32_t i = 0; i < n; i++, s->n_done++) {
        if (s->n_done >= s->n_ids) by_die("a row beyond the ids it has");
        if (fake.die_at_id && s->ids[s->n_done] == fake.die_at_id)
            by_die("dies at id %u, as told", fake.die_at_id);
        h = mix(h, s->ids[s->n_done]);
        *kv_at(s, s->n_done) = s->state = h;
    }
    /* A parrot says its prompt again; ids behind a cached prefix would be unknown, so its requests share none. */
    if (fake.is_parrot && s->n_prompt) return s->ids[(s->n_done - s->n_prompt) % s->n_prompt];
    bool is_greedy = s->sampling.temperature == 0;
    uint64_t z = is_greedy ? h : h ^ s->sampling.seed ^ s->sample;
    for (int tries = 0; tries < 1000; tries++) {
        uint32_t id = fake.first_id + (uint32_t)(by_rand_next(&z) % (fake.ids_end - fake.first_id));
        if (!is_masked(s, id)) return id;
    }
    by_die("every id is masked");
}

static void keep(const struct msg_step *m) {
    if (m->keep_at.n != m->keep_slots.n || m->keep_states.n != m->keep_slots.n)
        by_die("half of what is to be kept");
    for (uint32_t i = 0; i < m->keep_slots.n; i++) {
        const struct slot *s = slot_at(m->keep_slots.p[i], true);
        uint32_t at = m->keep_at.p[i], number = m->keep_states.p[i];
        if (number >= fake.capacity.n_states) by_die("there is no state %u", number);
        if (at == 0 || at > s->n_done || at % fake.capacity.page_size)
            by_die("a state behind %u of %u tokens", at, s->n_done);
        fake.kept[number] = *kv_at(s, at - 1);
    }
}

static void pause_us(uint32_t us) {
    struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    if (us) nanosleep(&t, NULL);
}

static void on_step(struct wire_peer *peer, const struct msg_step *m) {
    if (m->step != fake.last_step + 1) {
        wire_end(peer, "a gap in the steps");
        return;
    }
    fake.last_step = m->step;
    if (fake.die_at_step == m->step)
        by_die("dies at step %llu, as told", (unsigned long long)m->step);
    uint64_t from = by_now_ns();
    for (uint32_t i = 0; i < m->free_slots.n; i++)
        slot_at(m->free_slots.p[i], true)->is_used = false;
    for (uint32_t i = 0; i < m->admits.n; i++)
        admit(&m->admits.p[i]);
    for (uint32_t i = 0; i < m->append_slots.n; i++)
        push_page(slot_at(m->append_slots.p[i], true), m->append_pages.p[i]);
    uint32_t n = 0;
    bool has_tops = false, has_chosen = false;
    by_arena_clear(&fake.arena);
    fake.n_prompts = fake.n_vectors = 0;
    for (uint32_t i = 0; i < m->row_slots.n; i++) {
        struct slot *s = slot_at(m->row_slots.p[i], true);
        uint32_t n_before = s->n_done, id = compute(s, m->row_tokens.p[i]);
        tell_prompt(s, m->row_slots.p[i], n_before, m->row_tokens.p[i]);
        tell_vector(s, m->row_slots.p[i]);
        if (!m->row_samples.p[i]) continue;
        push_id(s, id);
        has_tops |= s->sampling.top_logprobs != 0;
        fill_top(&fake.tops[n], s->sampling.top_logprobs, 1);
        has_chosen |= s->n_asked_ids != 0;
        fill_chosen(&fake.chosen[n], s);
        fake.logprobs[n] = logprob_of(id);
        fake.tokens[n++] = id;
    }
    keep(m);
    pause_us(fake.step_us);
    struct msg done = {.kind = MSG_step_done,
                       .step_done = {.step = m->step,
                                     .tokens = {fake.tokens, n},
                                     .logprobs = {fake.logprobs, n},
                                     .tops = {fake.tops, has_tops ? n : 0},
                                     .id_logprobs = {fake.chosen, has_chosen ? n : 0},
                                     .prompts = {fake.prompts, fake.n_prompts},
                                     .vectors = {fake.vectors, fake.n_vectors},
                                     .compute_us = (uint32_t)((by_now_ns() - from) / 1000)}};
    wire_send(peer, &done);
}

static void on_up(void *ctx, struct wire_peer *peer) {
    (void)ctx;
    (void)peer;
    reset();
    by_notify("READY=1");
}

/* Weights of a stand-in are the name of their path: other names make other hashes. */
static void switch_to(const char *path) {
    fake.salt = by_str_hash(by_str_of(path));
    snprintf(fake.path, sizeof fake.path, "%s", path);
    snprintf(fake.weights_id, sizeof fake.weights_id, "%016llx", (unsigned long long)fake.salt);
    fake.model.path = by_str_of(fake.path);
    fake.model.weights_id = by_str_of(fake.weights_id);
}

static void on_update(struct wire_peer *peer, const struct msg_update *m) {
    struct msg done = {.kind = MSG_updated, .updated = {.id = m->id}};
    char id[24];
    snprintf(fake.next_path, sizeof fake.next_path, BY_STR_FMT, BY_STR_ARG(m->path));
    if (m->phase == UPDATE_DROP) return;
    if (m->phase == UPDATE_LOAD && strstr(fake.next_path, "die"))
        by_die("dies as it loads, as told");
    if (strstr(fake.next_path, "bad"))
        done.updated.code = BY_EFORMAT, done.updated.text = BY_STR("bad weights, as told");
    if (m->phase != UPDATE_LOAD) switch_to(fake.next_path);
    snprintf(id, sizeof id, "%016llx", (unsigned long long)by_str_hash(by_str_of(fake.next_path)));
    done.updated.weights_id = by_str_of(id);
    wire_send(peer, &done);
}

static void on_msg(void *ctx, struct wire_peer *peer, const struct msg *m) {
    (void)ctx;
    if (m->kind == MSG_step) on_step(peer, &m->step);
    if (m->kind == MSG_update) on_update(peer, &m->update);
}

static void on_down(void *ctx, struct wire_peer *peer, const char *why) {
    (void)ctx;
    (void)peer;
    by_info("the session ended why=%s", why);
}

static uint32_t number(int argc, char **argv, const char *flag, uint32_t otherwise) {
    for (int i = 1; i + 1 < argc; i++) {
        uint64_t value;
        if (strcmp(argv[i], flag) != 0) continue;
        if (!by_str_to_u64(by_str_of(argv[i + 1]), &value) || value > UINT32_MAX)
            by_die("%s %s is no number", flag, argv[i + 1]);
        return (uint32_t)value;
    }
    return otherwise;
}

static const char *text(int argc, char **argv, const char *flag) {
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], flag) == 0) return argv[i + 1];
    }
    return NULL;
}

static void alloc_all(void) {
    fake.slots = by_alloc_array(fake.capacity.n_slots, sizeof *fake.slots);
    fake.tokens = by_alloc_array(fake.capacity.n_slots, sizeof *fake.tokens);
    fake.logprobs = by_alloc_array(fake.capacity.n_slots, sizeof *fake.logprobs);
    fake.tops = by_alloc_array(fake.capacity.n_slots, sizeof *fake.tops);
    fake.chosen = by_alloc_array(fake.capacity.n_slots, sizeof *fake.chosen);
    fake.prompts = by_alloc_array(fake.capacity.n_slots, sizeof *fake.prompts);
    fake.vectors = by_alloc_array(fake.capacity.n_slots, sizeof *fake.vectors);
    by_arena_init(&fake.arena, 0);
    fake.kept = by_alloc_array(fake.capacity.n_states, sizeof *fake.kept);
    fake.kv =
        by_alloc_array((size_t)fake.capacity.n_pages * fake.capacity.page_size, sizeof *fake.kv);
}

static void set_model(int argc, char **argv) {
    fake.model = (struct msg_model){.path = BY_STR("stand-in"),
                                    .type = BY_STR("stand-in"),
                                    .impl = BY_STR("stand-in"),
                                    .n_vocab = number(argc, argv, "--vocab", 49152),
                                    .context_len = number(argc, argv, "--context", 8192),
                                    .n_embed = number(argc, argv, "--embed", 0),
                                    .n_labels = number(argc, argv, "--labels", 0),
                                    .is_encoder = fake.capacity.no_prefix_reuse};
}

int main(int argc, char **argv) {
    struct by_err err;
    by_proc_init("fake-worker");
    const char *run_dir = text(argc, argv, "--run-dir"),
               *named = text(argc, argv, "--scheduler-endpoint");
    if (!run_dir && !named) by_die("--run-dir or --scheduler-endpoint is needed");
    fake.capacity = (struct msg_capacity){
        .page_size = number(argc, argv, "--page-size", 16),
        .n_pages = number(argc, argv, "--pages", 4096),
        .n_slots = number(argc, argv, "--slots", 256),
        .step_tokens_max = 4096,
        .world = 1,
        .replica = number(argc, argv, "--replica", 0),
        .device = BY_STR("none: a stand-in"),
        .no_prefix_reuse = number(argc, argv, "--encoder", 0) != 0,
        .n_states = number(argc, argv, "--states", 0),
    };
    set_model(argc, argv);
    fake.first_id = number(argc, argv, "--first-id", 100);
    fake.ids_end = number(argc, argv, "--ids-end", fake.model.n_vocab);
    fake.is_parrot = number(argc, argv, "--parrot", 0);
    fake.step_us = number(argc, argv, "--step-us", 0);
    fake.die_at_id = number(argc, argv, "--die-at-id", 0);
    fake.die_at_step = number(argc, argv, "--die-at-step", 0);
    if (fake.first_id >= fake.ids_end || fake.ids_end > fake.model.n_vocab)
        by_die("--first-id, --ids-end and --vocab must grow in this order");
    alloc_all();
    char endpoint[512], instance[32];
    if (named)
        snprintf(endpoint, sizeof endpoint, "%s", named);
    else
        snprintf(endpoint, sizeof endpoint, "ipc://%s/scheduler.sock", run_dir);
    snprintf(instance, sizeof instance, "fake-%u", fake.capacity.replica);
    struct wire_options o = {.endpoint = endpoint,
                             .key_file = text(argc, argv, "--curve-key-file"),
                             .role = ROLE_GPU_WORKER,
                             .instance = instance,
                             .epoch = by_proc_epoch(),
                             .expect = ROLE_SCHEDULER,
                             .model = &fake.model,
                             .capacity = &fake.capacity,
                             .up = on_up,
                             .msg = on_msg,
                             .down = on_down};
    fake.loop = by_loop_new();
    if (wire_open(&fake.wire, &o, &err) != 0) by_die("%s", err.text);
    wire_attach(fake.wire, fake.loop);
    by_loop_run(fake.loop);
    wire_close(fake.wire);
    by_loop_free(fake.loop);
    for (uint32_t i = 0; i < fake.capacity.n_slots; i++) {
        by_free(fake.slots[i].ids);
        by_free(fake.slots[i].pages);
        by_free(fake.slots[i].stop_ids);
        by_free(fake.slots[i].asked_ids);
    }
    by_free(fake.slots);
    by_free(fake.tokens);
    by_free(fake.logprobs);
    by_free(fake.tops);
    by_free(fake.chosen);
    by_free(fake.prompts);
    by_free(fake.vectors);
    by_arena_release(&fake.arena);
    by_free(fake.kv);
    by_free(fake.kept);
    return 0;
}
