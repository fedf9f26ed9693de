/* core_worker.c - the gpu worker of hashes: it mirrors slots and pages, and computes rows. */
#include "tests/unit/core_world.h"

#include "common/base/mem.h"

void w_worker_up(struct world *w, uint32_t replica) {
    struct w_worker *k = &w->worker[replica];
    k->peer = k->peer ? k->peer + W_REPLICAS : W_WORKER + replica;
    if (!k->epoch) k->epoch = k->peer;
    if (!k->n_pages) k->n_pages = w->n_pages;
    if (!k->context_len) k->context_len = w->is_encoder ? w->step_tokens : W_IDS;
    k->is_up = true;
    k->last_step = 0;
    k->n = k->first = 0;
    memset(k->slot, 0, sizeof k->slot);
    memset(k->kept, 0, sizeof k->kept);
    memset(k->kv, 0xAA, (size_t)w->n_pages * w->page_size * sizeof *k->kv);
    struct msg_hello h = {.role = ROLE_GPU_WORKER,
                          .instance = BY_STR("0"),
                          .epoch = k->epoch,
                          .model = {.n_vocab = W_VOCAB,
                                    .context_len = k->context_len,
                                    .is_encoder = w->is_encoder,
                                    .n_embed = W_EMBED,
                                    .pools_all = w->pools_all,
                                    .weights_id = by_str_of(k->weights_id)},
                          .capacity = {.page_size = w->page_size,
                                       .n_pages = k->n_pages,
                                       .n_slots = w->n_slots,
                                       .step_tokens_max = w->step_tokens,
                                       .world = 1,
                                       .replica = replica,
                                       .no_prefix_reuse = w->is_encoder,
                                       .n_states = w->n_states}};
    struct by_err err;
    assert_int_equal(core_admit(w->core, &h, &err), 0);
    core_on_up(w->core, w->now, k->peer, &h);
    assert_true(core_check(w->core));
}

void w_worker_kill(struct world *w, uint32_t replica) {
    struct w_worker *k = &w->worker[replica];
    if (!k->is_up) return;
    k->is_up = false;
    k->epoch = 0;
    core_on_down(w->core, w->now, k->peer, "killed");
    assert_true(core_check(w->core));
}

/* ---- the worker ---- */

static uint64_t *w_kv(struct world *w, struct w_worker *k, struct w_slot *s, uint32_t pos) {
    assert_true(pos / w->page_size < s->n_pages);
    uint32_t page = s->pages[pos / w->page_size];
    assert_true(page < k->n_pages);
    assert_true(pos < k->context_len); /* a worker would end its session */
    return &k->kv[(size_t)page * w->page_size + pos % w->page_size];
}

static void w_apply(struct world *w, struct w_worker *k, const struct msg_step *m) {
    assert_int_equal(m->step, k->last_step + 1);
    k->last_step++;
    for (uint32_t i = 0; i < m->free_slots.n; i++) {
        assert_true(k->slot[m->free_slots.p[i]].is_used);
        k->slot[m->free_slots.p[i]].is_used = false;
    }
    for (uint32_t i = 0; i < m->admits.n; i++) {
        const struct msg_admit *a = &m->admits.p[i];
        assert_true(a->slot < w->n_slots);
        struct w_slot *s = &k->slot[a->slot];
        assert_false(s->is_used);
        memset(s, 0, sizeof *s);
        s->is_used = true;
        s->sample = a->sample;
        s->seed = a->sampling.seed;
        s->logprob_start = a->sampling.logprob_start;
        s->vector = a->sampling.vector;
        s->n_prompt = a->n_prompt;
        s->n_done = s->n_ids = a->n_cached;
        assert_int_equal(a->n_cached % w->page_size, 0);
        assert_int_equal(a->from_state != 0, w->n_states && a->n_cached);
        assert_true(a->from_state <= w->n_states);
        if (a->from_state) {
            assert_int_equal(k->kept[a->from_state - 1].n, a->n_cached);
            s->state = k->kept[a->from_state - 1].hash;
            w->n_starts++;
        }
        for (uint32_t j = 0; j < a->ids.n; j++)
            s->ids[s->n_ids++] = a->ids.p[j];
        s->n_pages = a->pages.n;
        memcpy(s->pages, a->pages.p, a->pages.n * sizeof *s->pages);
        assert_int_equal(a->output_ids.n,
                         a->n_cached > a->n_prompt ? a->n_cached - a->n_prompt : 0);
    }
    assert_int_equal(m->append_slots.n, m->append_pages.n);
    for (uint32_t i = 0; i < m->append_slots.n; i++) {
        struct w_slot *s = &k->slot[m->append_slots.p[i]];
        assert_true(s->is_used);
        s->pages[s->n_pages++] = m->append_pages.p[i];
    }
}

/* One row; returns the token when it samples. `is_bad`: its KV is written wrong, as by a failed step. */
static uint32_t w_row(struct world *w, struct w_worker *k, struct w_slot *s, uint32_t n,
                      bool is_sampling, bool is_bad) {
    uint64_t h = s->n_done ? *w_kv(w, k, s, s->n_done - 1) : 0;
    assert_true(is_bad || !w->n_states || h == s->state); /* the state of just these ids */
    for (uint32_t j = 0; j < n; j++) {
        assert_true(s->n_done < s->n_ids);
        h = w_hash(h, s->ids[s->n_done]);
        s->state = *w_kv(w, k, s, s->n_done++) = is_bad ? UINT64_MAX : h;
    }
    if (!is_sampling) return 0;
    assert_int_equal(s->n_done, s->n_ids);
    uint32_t id = w_pick(h, s->seed, s->sample);
    s->ids[s->n_ids++] = id;
    return id;
}

/* What a step keeps of the slot, whose row began at `from`. */
static void w_keep(struct world *w, struct w_worker *k, const struct msg_step *m, uint32_t slot,
                   uint32_t from) {
    struct w_slot *s = &k->slot[slot];
    for (uint32_t i = 0; i < m->keep_slots.n; i++) {
        if (m->keep_slots.p[i] != slot) continue;
        uint32_t at = m->keep_at.p[i], number = m->keep_states.p[i];
        assert_true(at > from && at <= s->n_done && at % w->page_size == 0);
        assert_true(number < w->n_states);
        k->kept[number] = (struct w_state){.hash = *w_kv(w, k, s, at - 1), .n = at};
        from = at;
        w->n_keeps++;
    }
}

/* The vector of ids is made of their hash. */
void w_vector(uint64_t h, float *out) {
    for (uint32_t i = 0; i < W_EMBED; i++)
        out[i] = (float)(by_rand_next(&h) >> 40);
}

bool w_work(struct world *w, uint32_t replica, int32_t code) {
    struct w_worker *k = &w->worker[replica];
    if (!k->is_up || k->n == 0) return false;
    struct by_buf *b = &k->frames[k->first];
    k->first = (k->first + 1) % W_STEPS;
    k->n--;
    struct msg in;
    struct by_err err;
    by_arena_clear(&w->arena);
    assert_int_equal(msg_decode(&in, by_buf_str(b), &w->arena, &err), 0);
    const struct msg_step *m = &in.step;
    w_apply(w, k, m);
    uint32_t tokens[W_SLOTS], n = 0, n_tokens = 0, n_prompts = 0;
    float logprobs[W_SLOTS], zeros[W_IDS] = {0};
    struct msg_prompt_logprobs prompts[W_SLOTS];
    struct msg_slot_vector vectors[W_SLOTS];
    float values[W_SLOTS][W_EMBED];
    uint32_t n_vectors = 0;
    for (uint32_t i = 0; i < m->row_slots.n; i++) {
        struct w_slot *s = &k->slot[m->row_slots.p[i]];
        assert_true(s->is_used);
        for (uint32_t j = 0; j < i; j++)
            assert_int_not_equal(m->row_slots.p[i], m->row_slots.p[j]);
        if (code) s->is_void = true;
        uint32_t begin = s->n_done;
        uint32_t from = BY_MAX(begin + 1, (uint32_t)BY_MAX(s->logprob_start, 0));
        uint32_t id = w_row(w, k, s, m->row_tokens.p[i], m->row_samples.p[i], s->is_void);
        w_keep(w, k, m, m->row_slots.p[i], begin);
        uint32_t end = BY_MIN(s->n_done + 1, s->n_prompt); /* a row predicts the token after it */
        if (s->logprob_start >= 0 && from < end)
            prompts[n_prompts++] = (struct msg_prompt_logprobs){
                .slot = m->row_slots.p[i], .start = from, .logprobs = {zeros, end - from}};
        n_tokens += m->row_tokens.p[i];
        if (s->vector && s->n_done == s->n_prompt && !w->makes_no_vectors) {
            w_vector(*w_kv(w, k, s, s->n_done - 1), values[n_vectors]);
            vectors[n_vectors] = (struct msg_slot_vector){.slot = m->row_slots.p[i],
                                                          .values = {values[n_vectors], W_EMBED}};
            n_vectors++;
        }
        if (m->row_tokens.p[i] > 1) w->n_prefill_tokens += m->row_tokens.p[i];
        if (!m->row_samples.p[i]) continue;
        logprobs[n] = -(float)id;
        tokens[n++] = id;
    }
    assert_true(n_tokens <= w->step_tokens);
    w->n_steps++;
    w->n_rows += m->row_slots.n;
    w->rows_max = BY_MAX(w->rows_max, m->row_slots.n);
    w->tokens_max = BY_MAX(w->tokens_max, n_tokens);
    struct msg done = {
        .kind = MSG_step_done,
        .step_done = {
            .step = m->step, .tokens = {tokens, n}, .logprobs = {logprobs, n}, .code = code}};
    done.step_done.prompts.p = prompts;
    done.step_done.prompts.n = code ? 0 : n_prompts;
    done.step_done.vectors.p = vectors;
    done.step_done.vectors.n = code ? 0 : n_vectors;
    if (code) done.step_done.tokens.n = 0;
    uint64_t before = by_mem_n_allocs();
    core_on_message(w->core, w->now, k->peer, &done);
    w->n_allocs += by_mem_n_allocs() - before;
    assert_true(core_check(w->core));
    return true;
}
