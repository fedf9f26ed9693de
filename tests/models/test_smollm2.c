/* SmolLM2-135M-Instruct: what a worker with it takes beside its accounts; 12 prompts of transformers, by the Q4_1 file as it
 * is served, and by its weights as an f32 folder. */
#include "common/base/options.h"
#include "deploy/cli/fetch_model.h"
#include "gpu_worker/worker.h"
#include "tests/models/model_world.h"
#include "tests/models/st_writer.h"
#include "tests/unit/test.h"

enum { TEXT_MAX = 192 };

static char *model_path; /* the GGUF file */

static int find_model(void **state_) {
    UNUSED_STATE;
    struct by_options o = {0};
    struct by_err err = {0};
    if (fetch_model(NULL, &o, FETCH_ALL, &model_path, &err)) fail_msg("%s", err.text);
    return 0;
}

/* ---- memory ---- */

enum { SLOTS = 64, SLOT_ROWS = 12, ROWS = SLOTS * SLOT_ROWS, BESIDE_MAX = 30000000 };

/* A size of /proc/self/status: "VmRSS:" what is resident, "VmHWM:" the most that has been since forget_peak. */
static uint64_t status_bytes(const char *key) {
    char line[128];
    uint64_t kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) == 0) kib = strtoull(line + strlen(key), NULL, 10);
    }
    fclose(f);
    assert_true(kib > 0);
    return kib * 1024;
}

static void forget_peak(void) {
    FILE *f = fopen("/proc/self/clear_refs", "we");
    assert_non_null(f);
    assert_true(fputs("5", f) >= 0);
    fclose(f);
}

struct progress {
    uint32_t n_calls;
    double last;
};

static void on_progress(void *ctx, double share) {
    struct progress *p = ctx;
    assert_true(share >= p->last && share <= 1);
    p->last = share;
    p->n_calls++;
}

/* Pages of the file go as soon as a matrix is packed: the most that is resident is the packed weights and one matrix of the
 * file, not all of both. Each matrix tells how far the load is. */
TEST(loading_holds_no_second_copy) {
    UNUSED_STATE;
    struct by_model_dir *dir = NULL;
    struct backend *cpu = NULL;
    struct model *model;
    struct by_err err = {0};
    struct backend_memory memory;
    struct progress p = {0};
    uint64_t largest = 0;
    const struct model_options o = {.page_size = 16,
                                    .kv_dtype = KV_F16,
                                    .rows_max = 16,
                                    .logit_rows_max = 1,
                                    .world = 1,
                                    .progress = on_progress,
                                    .progress_ctx = &p};
    if (cpu_backend_new(&cpu, &(struct cpu_options){.isa = world_isa}, &err) ||
        by_model_dir_open(&dir, model_path, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < by_model_dir_n_tensors(dir); i++)
        largest = BY_MAX(largest, by_model_dir_tensor(dir, i)->n_bytes);
    forget_peak();
    uint64_t before = status_bytes("VmRSS:");
    if (model_open(&model, dir, cpu, &o, &err)) fail_msg("%s", err.text);
    uint64_t peak = status_bytes("VmHWM:") - before;
    cpu->memory(cpu, &memory);
    print_message("at most %.1f MB more while loading: weights %.1f, largest tensor %.1f\n",
                  (double)peak / 1e6, (double)memory.weights / 1e6, (double)largest / 1e6);
    assert_true(peak < memory.weights + memory.other + largest + BESIDE_MAX);
    assert_true(p.n_calls > 100 && p.last > 0.99);
    by_model_dir_close(dir);
    model_close(model);
    cpu->close(cpu);
}

/* The longest step that the worker takes, every row of logits in use, and every page of the cache. */
static void fill_worker(struct worker *w) {
    static uint32_t ids[SLOT_ROWS], pages[SLOTS], slots[SLOTS], tokens[SLOTS], samples[SLOTS];
    static struct msg_admit admits[SLOTS];
    struct msg_step_done done;
    struct by_err err = {0};
    for (uint32_t i = 0; i < SLOT_ROWS; i++)
        ids[i] = 1000 + i;
    for (uint32_t i = 0; i < SLOTS; i++) {
        pages[i] = slots[i] = i;
        tokens[i] = SLOT_ROWS;
        samples[i] = 1;
        admits[i] = (struct msg_admit){
            .slot = i,
            .n_prompt = SLOT_ROWS,
            .ids = {ids, SLOT_ROWS},
            .pages = {&pages[i], 1},
            .sampling = {.top_p = 1, .repetition_penalty = 1, .logprob_start = -1}};
    }
    struct msg_step m = {.step = 1,
                         .row_slots = {slots, SLOTS},
                         .row_tokens = {tokens, SLOTS},
                         .row_samples = {samples, SLOTS}};
    m.admits.p = admits;
    m.admits.n = SLOTS;
    if (worker_step(w, &m, &done, &err)) fail_msg("%s", err.text);
    assert_int_equal(done.tokens.n, SLOTS);
}

/* Resident less weights, cache and activations, all of them in use: code, libraries, the team, tables, the mirror. */
TEST(a_worker_takes_little_beside_weights_cache_and_activations) {
    UNUSED_STATE;
    struct by_model_dir *dir = NULL;
    struct backend *cpu = NULL;
    struct model *model;
    struct by_err err = {0};
    struct backend_memory memory;
    const struct model_options o = {.page_size = 16,
                                    .kv_dtype = KV_F16,
                                    .rows_max = ROWS,
                                    .logit_rows_max = WORKER_LOGIT_ROWS,
                                    .world = 1};
    if (cpu_backend_new(&cpu, &(struct cpu_options){.isa = world_isa}, &err) ||
        by_model_dir_open(&dir, model_path, &err) || model_open(&model, dir, cpu, &o, &err) ||
        model_kv_new(model, SLOTS, SLOTS, 0, &err))
        fail_msg("%s", err.text);
    by_model_dir_close(dir);
    struct worker *w = worker_new(
        model, cpu,
        &(struct mirror_limits){SLOTS, SLOTS, 16, model_n_vocab(model), ROWS, 8192, false, 0});
    fill_worker(w);
    cpu->memory(cpu, &memory);
    uint64_t accounted = memory.weights + memory.kv + memory.other,
             resident = status_bytes("VmRSS:");
    print_message("resident %.1f MB: weights %.1f, cache %.1f, activations %.1f, beside %.1f\n",
                  (double)resident / 1e6, (double)memory.weights / 1e6, (double)memory.kv / 1e6,
                  (double)memory.other / 1e6, ((double)resident - (double)accounted) / 1e6);
    assert_true(memory.weights > 90000000 && memory.kv > 0);
    assert_true(resident < accounted + BESIDE_MAX);
    worker_free(w);
    model_close(model);
    cpu->close(cpu);
}

/* ---- answers ---- */

struct text {
    uint32_t ids[TEXT_MAX], n, n_prompt;
    const struct by_json *golden;
};

/* Prompt and reference ids, one after the other. */
static void read_text(struct text *t, const struct by_json *c) {
    uint32_t n_more;
    uint32_t *prompt = golden_ids(c, "prompt_ids", &t->n_prompt),
             *more = golden_ids(c, "greedy_ids", &n_more);
    assert_true(t->n_prompt + n_more <= TEXT_MAX);
    memcpy(t->ids, prompt, t->n_prompt * sizeof *prompt);
    memcpy(t->ids + t->n_prompt, more, n_more * sizeof *more);
    t->n = t->n_prompt + n_more;
    t->golden = c;
    by_free(prompt);
    by_free(more);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* |difference| of the logprobs of prompt tokens. */
static uint32_t prompt_differences(const struct text *t, const float *all, uint32_t vocab,
                                   double *out) {
    uint32_t n;
    double *want = golden_list(t->golden, "prompt_logprobs", &n);
    for (uint32_t i = 1; i < t->n_prompt; i++)
        out[i - 1] = fabs(logprob(all + (size_t)(i - 1) * vocab, vocab, t->ids[i]) - want[i]);
    by_free(want);
    return t->n_prompt - 1;
}

/* The reference's next token wherever its margin is not small, and up to the first small margin in what was generated.
 * (One token at a time gives the same bits: test_bits.) */
static void check_argmax(const struct text *t, const float *all, uint32_t vocab, double small) {
    uint32_t n, m;
    double *margins = golden_list(t->golden, "greedy_margins", &n);
    uint32_t *best = golden_ids(t->golden, "prompt_argmax", &m);
    for (uint32_t i = 0; i + t->n_prompt < t->n; i++) {
        uint32_t got = argmax(all + (size_t)(t->n_prompt - 1 + i) * vocab, vocab),
                 want = t->ids[t->n_prompt + i];
        if (margins[i] >= small && got != want)
            fail_msg("token %u is %u, should be %u (margin %g)", i, got, want, margins[i]);
    }
    for (uint32_t i = 0; i < t->n_prompt; i++) {
        const float *row = all + (size_t)i * vocab;
        if ((double)margin(row, vocab) >= small && argmax(row, vocab) != best[i])
            fail_msg("after prompt token %u: %u, should be %u", i, argmax(row, vocab), best[i]);
    }
    by_free(margins);
    by_free(best);
}

struct limits {
    double small, median, largest;
};

static void check_model(const char *path, const struct limits *max) {
    struct backend *cpu = NULL;
    struct by_err err = {0};
    struct world w;
    struct by_json *golden = golden_load(TEST_SHARED_DATA "/smollm2/golden_f32.json");
    double differences[12 * TEXT_MAX];
    uint32_t n = 0, n_texts = 0;
    if (cpu_backend_new(&cpu, &(struct cpu_options){.isa = world_isa}, &err))
        fail_msg("%s", err.text);
    world_open(&w, path, cpu,
               &(struct world_options){.kv_dtype = max->largest < 1 ? KV_F32 : KV_F16});
    uint32_t vocab = model_n_vocab(w.m);
    float *all = by_alloc_array((size_t)TEXT_MAX * vocab, sizeof *all);
    for (const struct by_json *c = by_json_first(by_json_get(golden, "cases")); c;
         c = by_json_next(c), n_texts++) {
        struct text t;
        read_text(&t, c);
        w.n_done[0] = 0;
        world_feed(&w, 0, t.ids, t.n, t.n, all);
        n += prompt_differences(&t, all, vocab, differences + n);
        check_argmax(&t, all, vocab, max->small);
    }
    assert_int_equal(n_texts, 12);
    qsort(differences, n, sizeof *differences, by_size);
    print_message("%s: prompt logprobs differ by %.2g in the median, by %.2g at most\n",
                  by_path_base(path), differences[n / 2], differences[n - 1]);
    assert_true(differences[n / 2] <= max->median && differences[n - 1] <= max->largest);
    by_free(all);
    world_close(&w);
    cpu->close(cpu);
    by_json_free(golden);
}

TEST(the_quantised_file_answers_as_the_reference) {
    UNUSED_STATE;
    check_model(model_path, &(struct limits){.small = 0.25, .median = 0.05, .largest = INFINITY});
}

/* ---- the same weights as a Hugging Face folder ---- */

static void hf_name(const struct by_tensor_info *t, char *out, size_t cap) {
    static const char *const names[][2] = {
        {"attn_norm", "input_layernorm"}, {"ffn_norm", "post_attention_layernorm"},
        {"attn_q", "self_attn.q_proj"},   {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"},
        {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"}};
    unsigned layer;
    char part[32] = "";
    if (by_str_eqz(t->name, "token_embd.weight")) {
        snprintf(out, cap, "model.embed_tokens.weight");
    } else if (by_str_eqz(t->name, "output_norm.weight")) {
        snprintf(out, cap, "model.norm.weight");
    } else if (sscanf(t->name.p, "blk.%u.%31[a-z_].weight", &layer, part) == 2) {
        for (size_t i = 0; i < BY_COUNTOF(names); i++) {
            if (strcmp(names[i][0], part) == 0)
                snprintf(out, cap, "model.layers.%u.%s.weight", layer, names[i][1]);
        }
    }
}

/* ggml turns pairs (2i, 2i+1), transformers (i, i + 32): rows of q and k are put back. */
static void dequantise(const struct by_tensor_info *t, float *out) {
    uint64_t rows, cols;
    bool is_qk = by_str_find(t->name, BY_STR("attn_q."), 0) != SIZE_MAX ||
                 by_str_find(t->name, BY_STR("attn_k."), 0) != SIZE_MAX;
    by_tensor_rows(t, &rows, &cols);
    for (uint64_t r = 0; r < rows; r++) {
        uint64_t h = r / 64, d = r % 64;
        by_tensor_row_f32(t, is_qk ? h * 64 + 2 * (d % 32) + d / 32 : r, out + r * cols);
    }
}

static void write_folder(const char *dir) {
    static const char config[] = "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":"
                                 "\"llama\",\"hidden_size\":576,\"intermediate_size\":1536,"
                                 "\"num_hidden_layers\":30,\"num_attention_heads\":9,\"num_key_"
                                 "value_heads\":3,\"head_dim\":64,\"vocab_size\":49152,"
                                 "\"max_position_embeddings\":8192,\"rms_norm_eps\":1e-5,\"rope_"
                                 "theta\":100000,\"tie_word_embeddings\":true,"
                                 "\"hidden_act\":\"silu\",\"bos_token_id\":1,\"eos_token_id\":2}";
    struct by_model_dir *gguf = NULL;
    struct by_err err = {0};
    struct st_writer st;
    if (by_model_dir_open(&gguf, model_path, &err)) fail_msg("%s", err.text);
    st_begin(&st);
    for (size_t i = 0; i < by_model_dir_n_tensors(gguf); i++) {
        const struct by_tensor_info *t = by_model_dir_tensor(gguf, i);
        char name[128] = "";
        uint64_t rows, cols;
        hf_name(t, name, sizeof name);
        by_tensor_rows(t, &rows, &cols);
        dequantise(t, st_add(&st, name, BY_DTYPE_F32, t->n_dims == 1 ? 0 : rows, cols));
    }
    st_end(&st, dir, config);
    by_model_dir_close(gguf);
}

TEST(its_weights_in_f32_answer_the_same) {
    UNUSED_STATE;
    char dir[] = "/tmp/banyan-smollm2-XXXXXX";
    assert_non_null(mkdtemp(dir));
    write_folder(dir);
    check_model(dir, &(struct limits){.small = 0.01, .median = 1e-4, .largest = 1e-3});
    by_dir_remove(dir);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        RUN(loading_holds_no_second_copy),
        RUN(a_worker_takes_little_beside_weights_cache_and_activations),
        RUN(the_quantised_file_answers_as_the_reference), RUN(its_weights_in_f32_answer_the_same)};
    world_arguments(argc, argv);
    return cmocka_run_group_tests(tests, find_model, NULL);
}
