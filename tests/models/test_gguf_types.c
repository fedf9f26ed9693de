/* A small Llama as a GGUF file, its matrices of each of ggml's types with random bits: logits are those of its twin, which has
 * the same numbers as f32. So a type is read, cut into matrices, packed and multiplied as a whole model has it. */
#include "common/base/rand.h"
#include "tests/kernels/random_block.h"
#include "tests/models/model_world.h"
#include "tests/models/naive_backend.h"
#include "tests/unit/test.h"

#include <stdio.h>

enum { HIDDEN = 256, VOCAB = 64, KEYS_AND_VALUES = 128, ALIGN = 32, TENSORS = 12, GGML_TYPES = 64 };

static const struct {
    const char *name;
    uint32_t rows; /* 0: a vector, and f32 in every file */
} tensors[TENSORS] = {
    {"token_embd.weight", VOCAB},
    {"blk.0.attn_norm.weight", 0},
    {"blk.0.attn_q.weight", HIDDEN},
    {"blk.0.attn_k.weight", KEYS_AND_VALUES},
    {"blk.0.attn_v.weight", KEYS_AND_VALUES},
    {"blk.0.attn_output.weight", HIDDEN},
    {"blk.0.ffn_norm.weight", 0},
    {"blk.0.ffn_gate.weight", HIDDEN},
    {"blk.0.ffn_up.weight", HIDDEN},
    {"blk.0.ffn_down.weight", HIDDEN},
    {"output_norm.weight", 0},
    {"output.weight", VOCAB},
};

static uint64_t state;
static uint64_t next_random(void) {
    return by_rand_next(&state);
}

/* ---- a GGUF file (common/modelfile/gguf.h has its layout) ---- */

static void put_u32(struct by_buf *b, uint32_t v) {
    by_buf_add(b, &v, sizeof v);
}

static void put_u64(struct by_buf *b, uint64_t v) {
    by_buf_add(b, &v, sizeof v);
}

static void put_str(struct by_buf *b, const char *z) {
    put_u64(b, strlen(z));
    by_buf_addz(b, z);
}

static void put_header(struct by_buf *b) {
    static const struct {
        const char *key;
        uint32_t value;
    } keys[] = {{"llama.block_count", 1},
                {"llama.embedding_length", HIDDEN},
                {"llama.feed_forward_length", HIDDEN},
                {"llama.attention.head_count", 4},
                {"llama.attention.head_count_kv", 2},
                {"llama.context_length", 512}};
    const float eps = 1e-5f;
    uint32_t bits;
    by_buf_addz(b, "GGUF");
    put_u32(b, 3);
    put_u64(b, TENSORS);
    put_u64(b, BY_COUNTOF(keys) + 2);
    put_str(b, "general.architecture");
    put_u32(b, 8); /* a string */
    put_str(b, "llama");
    put_str(b, "llama.attention.layer_norm_rms_epsilon");
    put_u32(b, 6); /* f32 */
    memcpy(&bits, &eps, sizeof bits);
    put_u32(b, bits);
    for (size_t i = 0; i < BY_COUNTOF(keys); i++) {
        put_str(b, keys[i].key);
        put_u32(b, 4); /* u32 */
        put_u32(b, keys[i].value);
    }
}

static uint32_t ggml_type_of(enum by_dtype t) {
    for (uint32_t i = 0; i < GGML_TYPES; i++)
        if (by_dtype_of_ggml(i) == t) return i;
    fail_msg("%s is no type of ggml's", by_dtype_name(t));
    return 0;
}

static void pad(struct by_buf *b) {
    while (b->n % ALIGN)
        by_buf_addc(b, 0);
}

static size_t bytes_of(size_t i, enum by_dtype t) {
    size_t each;
    if (!tensors[i].rows) return HIDDEN * sizeof(float);
    assert_true(by_dtype_row_bytes(t, HIDDEN, &each));
    return tensors[i].rows * each;
}

/* The model's numbers, as t has them: in `out` of type t, and in `twin` as f32. */
static void write_files(enum by_dtype t, const char *path, const char *twin_path) {
    const enum by_dtype types[2] = {t, BY_DTYPE_F32};
    const char *const paths[2] = {path, twin_path};
    struct by_buf files[2];
    struct by_err err = {0};
    for (int f = 0; f < 2; f++) {
        size_t at = 0;
        by_buf_init(&files[f], 16 << 20);
        put_header(&files[f]);
        for (size_t i = 0; i < TENSORS; i++) {
            put_str(&files[f], tensors[i].name);
            put_u32(&files[f], tensors[i].rows ? 2 : 1);
            put_u64(&files[f], HIDDEN);
            if (tensors[i].rows) put_u64(&files[f], tensors[i].rows);
            put_u32(&files[f], ggml_type_of(tensors[i].rows ? types[f] : BY_DTYPE_F32));
            put_u64(&files[f], at);
            at = BY_ALIGN_UP(at + bytes_of(i, types[f]), (size_t)ALIGN);
        }
        pad(&files[f]);
    }
    state = (uint64_t)t;
    for (size_t i = 0; i < TENSORS; i++) {
        const size_t n = (size_t)BY_MAX(tensors[i].rows, 1u) * HIDDEN, bytes = bytes_of(i, t);
        uint8_t *blocks = by_alloc(bytes);
        float *numbers = by_alloc_array(n, sizeof *numbers);
        for (size_t k = 0; k < n && !tensors[i].rows; k++)
            ((float *)blocks)[k] = 0.5f + (float)(next_random() >> 40) / 16777216.0f;
        for (size_t k = 0; k < bytes && tensors[i].rows; k += by_dtype_block_bytes(t))
            random_block(t, blocks + k, next_random);
        by_dtype_to_f32(tensors[i].rows ? t : BY_DTYPE_F32, blocks, numbers, n);
        by_buf_add(&files[0], blocks, bytes);
        by_buf_add(&files[1], numbers, n * sizeof *numbers);
        by_free(numbers);
        by_free(blocks);
        pad(&files[0]);
        pad(&files[1]);
    }
    for (int f = 0; f < 2; f++) {
        if (by_file_write(paths[f], by_buf_str(&files[f]), &err)) fail_msg("%s", err.text);
        by_buf_release(&files[f]);
    }
}

/* ---- its logits ---- */

static void logits_of(const char *path, struct backend *b, float *out) {
    static const uint32_t ids[] = {5, 17, 30, 42, 63, 7, 25, 9, 1, 60, 50, 3};
    struct world w;
    world_open(&w, path, b, &(struct world_options){0});
    memcpy(out, world_feed(&w, 0, ids, BY_COUNTOF(ids), 5, NULL), VOCAB * sizeof *out);
    world_close(&w);
}

/* The root of the mean square of what differs, as a share of what there is. */
static double difference(const float *got, const float *want) {
    double differs = 0, all = 0;
    for (uint32_t k = 0; k < VOCAB; k++) {
        differs += ((double)got[k] - (double)want[k]) * ((double)got[k] - (double)want[k]);
        all += (double)want[k] * (double)want[k];
    }
    assert_true(all > 0);
    return sqrt(differs / all);
}

static struct backend *cpu_of(bool is_exact) {
    struct backend *b = NULL;
    struct by_err err = {0};
    const struct cpu_options o = {
        .n_threads = 2, .isa = world_isa, .exact_activations = is_exact, .exact_bf16 = is_exact};
    if (cpu_backend_new(&b, &o, &err)) fail_msg("%s", err.text);
    return b;
}

TEST(each_of_ggmls_types_gives_what_its_numbers_give) {
    UNUSED_STATE;
    struct backend *exact = cpu_of(true), *served = cpu_of(false);
    for (enum by_dtype t = BY_DTYPE_Q4_0; t <= BY_DTYPE_MXFP4; t++) {
        char dir[] = "/tmp/banyan-gguf-types-XXXXXX";
        float want[VOCAB], got[VOCAB];
        assert_non_null(mkdtemp(dir));
        char *path = by_path_join(dir, "model.gguf"), *twin = by_path_join(dir, "twin.gguf");
        write_files(t, path, twin);
        logits_of(twin, naive_backend(), want);
        logits_of(path, exact, got);
        if (difference(got, want) > 1e-5)
            fail_msg("%s: %g beside its numbers", by_dtype_name(t), difference(got, want));
        logits_of(path, served, got); /* activations of 8 bits, and what these leave */
        if (difference(got, want) > 1e-3)
            fail_msg("%s, as it is served: %g", by_dtype_name(t), difference(got, want));
        by_dir_remove(dir);
        by_free(path);
        by_free(twin);
    }
    exact->close(exact);
    served->close(served);
}

WORLD_TESTS(RUN(each_of_ggmls_types_gives_what_its_numbers_give));
