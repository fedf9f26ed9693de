/* Checkpoints that no golden covers: the tiny Llama's weights quantised here, written once as the format has them and
 * once as plain floats with the same values; both must give the same logits. */
#include "tests/models/model_world.h"
#include "tests/models/naive_backend.h"
#include "tests/models/st_writer.h"
#include "tests/unit/test.h"

#define SOURCE TEST_SHARED_DATA "/tiny/llama-gqa"
#define SIZES \
    "\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":" \
    "2,\"num_attention_heads\":4," \
    "\"num_key_value_heads\":2,\"rms_norm_eps\":1e-5,\"vocab_size\":640,\"max_position_" \
    "embeddings\":512"

enum kind { INT8_ROWS, INT4_ROWS, INT4_ROWS_ZEROS, F8_ROWS, GPTQ8, GPTQ4_V2 };

struct variant {
    const char *name, *config; /* config: what follows the sizes */
    enum kind kind;
    uint32_t bits, group; /* group 0: the whole row */
    bool has_zeros;
};

/* One weight matrix: w = scale * (q - zero), all as integers and f16 scales. */
struct quantised {
    uint32_t rows, cols, bits, group, n_groups;
    int32_t *q, *zero; /* [rows, cols], [n_groups, rows] */
    float *scale;      /* [n_groups, rows] */
};

static struct quantised quantise(const struct by_tensor_info *t, const struct variant *v) {
    uint64_t rows, cols;
    by_tensor_rows(t, &rows, &cols);
    struct quantised x = {.rows = (uint32_t)rows, .cols = (uint32_t)cols, .bits = v->bits};
    x.group = v->group ? v->group : x.cols;
    x.n_groups = x.cols / x.group;
    x.q = by_alloc_array(rows * cols, sizeof *x.q);
    x.zero = by_alloc_array((size_t)x.n_groups * x.rows, sizeof *x.zero);
    x.scale = by_alloc_array((size_t)x.n_groups * x.rows, sizeof *x.scale);
    float *row = by_alloc_array(cols, sizeof *row);
    for (uint32_t r = 0; r < x.rows; r++) {
        by_tensor_row_f32(t, r, row);
        for (uint32_t c = 0; c < x.cols; c++) {
            size_t g = (size_t)(c / x.group) * x.rows + r;
            x.zero[g] = v->has_zeros ? (int32_t)((r + g) % 15) + 1 : 1 << (v->bits - 1);
            x.scale[g] = by_f16_to_f32(by_f32_to_f16(0.02f + 0.001f * (float)(r % 7)));
            int32_t q = (int32_t)lrintf(row[c] / x.scale[g]) + x.zero[g], top = (1 << v->bits) - 1;
            x.q[(size_t)r * cols + c] = q < 0 ? 0 : q > top ? top : q;
        }
    }
    by_free(row);
    return x;
}

static void release(struct quantised *x) {
    by_free(x->q);
    by_free(x->zero);
    by_free(x->scale);
}

static float value(const struct quantised *x, uint32_t r, uint32_t c) {
    size_t g = (size_t)(c / x->group) * x->rows + r;
    return x->scale[g] * (float)(x->q[(size_t)r * x->cols + c] - x->zero[g]);
}

static void *add(struct st_writer *w, const char *stem, const char *suffix, enum by_dtype t,
                 uint32_t rows, uint32_t cols) {
    char name[ST_NAME_MAX];
    snprintf(name, sizeof name, "%s%s", stem, suffix);
    return st_add(w, name, t, rows, cols);
}

/* A tensor of the source as it is. */
static void add_same(struct st_writer *w, const char *stem, const struct by_tensor_info *t) {
    uint64_t rows, cols;
    by_tensor_rows(t, &rows, &cols);
    memcpy(add(w, stem, ".weight", t->dtype, t->n_dims == 1 ? 0 : (uint32_t)rows, (uint32_t)cols),
           t->data, t->n_bytes);
}

/* Words hold neighbours along a row. */
static void put_packed(uint32_t *words, uint32_t at, uint32_t bits, uint32_t v) {
    uint32_t each = 32 / bits;
    words[at / each] |= v << (at % each * bits);
}

static void write_rows(struct st_writer *w, const char *stem, const struct quantised *x,
                       const struct variant *v) {
    uint32_t each = 32 / x->bits;
    uint16_t *scales = add(w, stem, ".weight_scale", BY_DTYPE_F16, x->rows, x->n_groups);
    for (uint32_t r = 0; r < x->rows; r++) {
        for (uint32_t g = 0; g < x->n_groups; g++)
            scales[r * x->n_groups + g] = by_f32_to_f16(x->scale[(size_t)g * x->rows + r]);
    }
    if (v->kind == INT8_ROWS) {
        int8_t *q = add(w, stem, ".weight", BY_DTYPE_I8, x->rows, x->cols);
        for (uint32_t i = 0; i < x->rows * x->cols; i++)
            q[i] = (int8_t)(x->q[i] - 128);
        return;
    }
    uint32_t *q = add(w, stem, ".weight_packed", BY_DTYPE_I32, x->rows, x->cols / each);
    for (uint32_t r = 0; r < x->rows; r++) {
        for (uint32_t c = 0; c < x->cols; c++)
            put_packed(q + r * (x->cols / each), c, x->bits,
                       (uint32_t)x->q[(size_t)r * x->cols + c]);
    }
    if (!v->has_zeros) return;
    uint32_t *z = add(w, stem, ".weight_zero_point", BY_DTYPE_I32, x->rows / each, x->n_groups);
    for (uint32_t r = 0; r < x->rows; r++) {
        for (uint32_t g = 0; g < x->n_groups; g++)
            z[r / each * x->n_groups + g] |= (uint32_t)x->zero[(size_t)g * x->rows + r]
                                             << (r % each * x->bits);
    }
}

/* GPTQ: [n_in / 8, n_out]. */
static void write_columns(struct st_writer *w, const char *stem, const struct quantised *x,
                          const struct variant *v) {
    uint32_t each = 32 / x->bits;
    uint16_t *scales = add(w, stem, ".scales", BY_DTYPE_F16, x->n_groups, x->rows);
    uint32_t *z = add(w, stem, ".qzeros", BY_DTYPE_I32, x->n_groups, x->rows / each);
    uint32_t *q = add(w, stem, ".qweight", BY_DTYPE_I32, x->cols / each, x->rows);
    for (uint32_t r = 0; r < x->rows; r++) {
        for (uint32_t g = 0; g < x->n_groups; g++) {
            scales[g * x->rows + r] = by_f32_to_f16(x->scale[(size_t)g * x->rows + r]);
            int32_t less = v->kind == GPTQ8; /* v1 */
            put_packed(z + g * (x->rows / each), r, x->bits,
                       (uint32_t)(x->zero[(size_t)g * x->rows + r] - less));
        }
        for (uint32_t c = 0; c < x->cols; c++) {
            uint32_t n = (uint32_t)x->q[(size_t)r * x->cols + c];
            q[c / each * x->rows + r] |= n << (c % each * x->bits);
        }
    }
}

/* e4m3 has 3 bits after the point: the nearest value by trying all. */
static uint8_t to_f8(float v) {
    uint8_t best = 0;
    for (uint32_t i = 0; i < 255; i++) {
        if (i != 127 &&
            fabsf(by_f8_e4m3_to_f32((uint8_t)i) - v) < fabsf(by_f8_e4m3_to_f32(best) - v))
            best = (uint8_t)i;
    }
    return best;
}

static void write_f8(struct st_writer *w, struct st_writer *twin, const char *stem,
                     const struct by_tensor_info *t) {
    uint64_t rows, cols;
    by_tensor_rows(t, &rows, &cols);
    uint8_t *q = add(w, stem, ".weight", BY_DTYPE_F8_E4M3, (uint32_t)rows, (uint32_t)cols);
    float *scales = add(w, stem, ".weight_scale", BY_DTYPE_F32, (uint32_t)rows, 1);
    float *plain = add(twin, stem, ".weight", BY_DTYPE_F32, (uint32_t)rows, (uint32_t)cols);
    for (uint64_t r = 0; r < rows; r++) {
        scales[r] = r % 2 ? 0.25f : 0.125f;
        by_tensor_row_f32(t, r, plain + r * cols);
        for (uint64_t c = 0; c < cols; c++) {
            q[r * cols + c] = to_f8(plain[r * cols + c] / scales[r]);
            plain[r * cols + c] = by_f8_e4m3_to_f32(q[r * cols + c]) * scales[r];
        }
    }
}

static void write_pair(const struct variant *v, const char *dir, const char *twin_dir) {
    struct by_model_dir *source = NULL;
    struct by_err err = {0};
    struct st_writer *w = by_alloc(sizeof *w), *twin = by_alloc(sizeof *twin);
    char config[1024];
    if (by_model_dir_open(&source, SOURCE, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < by_model_dir_n_tensors(source); i++) {
        const struct by_tensor_info *t = by_model_dir_tensor(source, i);
        char stem[ST_NAME_MAX];
        snprintf(stem, sizeof stem, "%.*s", (int)(t->name.n - strlen(".weight")), t->name.p);
        if (!strstr(stem, "_proj")) {
            add_same(w, stem, t);
            add_same(twin, stem, t);
            continue;
        }
        if (v->kind == F8_ROWS) {
            write_f8(w, twin, stem, t);
            continue;
        }
        struct quantised x = quantise(t, v);
        if (v->kind <= INT4_ROWS_ZEROS)
            write_rows(w, stem, &x, v);
        else
            write_columns(w, stem, &x, v);
        float *plain = add(twin, stem, ".weight", BY_DTYPE_F32, x.rows, x.cols);
        for (uint32_t k = 0; k < x.rows * x.cols; k++)
            plain[k] = value(&x, k / x.cols, k % x.cols);
        release(&x);
    }
    snprintf(config, sizeof config, "{" SIZES ",%s}", v->config);
    st_end(w, dir, config);
    st_end(twin, twin_dir, "{" SIZES "}");
    by_free(w);
    by_free(twin);
    by_model_dir_close(source);
}

static void logits_of(const char *dir, struct backend *b, enum by_dtype quantize, float *out) {
    static const uint32_t ids[] = {5, 17, 300, 42, 639, 7, 250, 99, 1, 77, 508, 3};
    struct world w;
    world_open(&w, dir, b, &(struct world_options){.quantize = quantize});
    memcpy(out, world_feed(&w, 0, ids, BY_COUNTOF(ids), 5, NULL), 640 * sizeof *out);
    world_close(&w);
}

static void expect_logits(const float *got, const float *want, const char *name, const char *on) {
    for (uint32_t k = 0; k < 640; k++) {
        if (!(fabsf(got[k] - want[k]) <= 2e-4f))
            fail_msg("%s on %s: logit %u is %g, should be %g", name, on, k, (double)got[k],
                     (double)want[k]);
    }
}

/* With exact activations, so that nothing but the weights can differ. */
static struct backend *exact_cpu(void) {
    struct backend *b = NULL;
    struct by_err err = {0};
    if (cpu_backend_new(&b,
                        &(struct cpu_options){.n_threads = 2,
                                              .isa = cpu_isa_best(),
                                              .exact_activations = true,
                                              .exact_bf16 = true},
                        &err))
        fail_msg("%s", err.text);
    return b;
}

TEST(each_format_gives_what_its_plain_twin_gives) {
    UNUSED_STATE;
    static const struct variant variants[] = {
        {"int8, a scale a row",
         "\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"int-"
         "quantized\"}",
         INT8_ROWS, 8, 0, false},
        {"int4",
         "\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-"
         "quantized\"}",
         INT4_ROWS, 4, 32, false},
        {"int4 with zeros",
         "\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-"
         "quantized\"}",
         INT4_ROWS_ZEROS, 4, 32, true},
        {"f8, a scale a row",
         "\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-"
         "quantized\"}",
         F8_ROWS, 8, 0, false},
        {"GPTQ of 8 bits",
         "\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":8,\"group_size\":32}", GPTQ8,
         8, 32, false},
        {"GPTQ v2",
         "\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,"
         "\"checkpoint_format\":\"gptq_v2\"}",
         GPTQ4_V2, 4, 32, true},
    };
    struct backend *cpu = exact_cpu();
    for (size_t i = 0; i < BY_COUNTOF(variants); i++) {
        char dir[] = "/tmp/banyan-format-XXXXXX", twin[] = "/tmp/banyan-format-XXXXXX";
        float got[640], want[640];
        assert_true(mkdtemp(dir) && mkdtemp(twin));
        write_pair(&variants[i], dir, twin);
        logits_of(twin, naive_backend(), BY_DTYPE_NONE, want);
        logits_of(dir, naive_backend(), BY_DTYPE_NONE, got);
        expect_logits(got, want, variants[i].name, "plain loops");
        logits_of(dir, cpu, BY_DTYPE_NONE, got);
        expect_logits(got, want, variants[i].name, cpu->name);
        by_dir_remove(dir);
        by_dir_remove(twin);
    }
    cpu->close(cpu);
}

/* The tiny Llama with each row of a matrix as it is after going to a type and back: the embedding and the output, which
 * never have less than 8 bits, to Q8_0 where the others are quantised. */
static void write_rounded(enum by_dtype to, const char *dir) {
    struct by_model_dir *source = NULL;
    struct by_err err = {0};
    struct st_writer *w = by_alloc(sizeof *w);
    uint8_t packed[4096];
    if (by_model_dir_open(&source, SOURCE, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < by_model_dir_n_tensors(source); i++) {
        const struct by_tensor_info *t = by_model_dir_tensor(source, i);
        char name[ST_NAME_MAX];
        uint64_t rows, cols;
        by_tensor_rows(t, &rows, &cols);
        snprintf(name, sizeof name, "%.*s", (int)t->name.n, t->name.p);
        bool is_matrix = t->n_dims == 2, is_layers = strstr(name, "_proj") != NULL;
        enum by_dtype as = by_dtype_is_quantised(to) && !is_layers ? BY_DTYPE_Q8_0 : to;
        float *p = st_add(w, name, BY_DTYPE_F32, is_matrix ? rows : 0, cols);
        for (uint64_t r = 0; r < rows; r++) {
            by_tensor_row_f32(t, r, p + r * cols);
            if (!is_matrix) continue;
            assert_true(by_dtype_from_f32(as, p + r * cols, packed, cols));
            by_dtype_to_f32(as, packed, p + r * cols, cols);
        }
    }
    st_end(w, dir, "{" SIZES "}");
    by_free(w);
    by_model_dir_close(source);
}

TEST(quantising_at_load_gives_the_rounded_weights) {
    UNUSED_STATE;
    /* every word of --quantization */
    static const enum by_dtype types[] = {BY_DTYPE_Q8_0, BY_DTYPE_Q4_0, BY_DTYPE_Q4_1, BY_DTYPE_F16,
                                          BY_DTYPE_BF16};
    struct backend *cpu = exact_cpu();
    for (size_t i = 0; i < BY_COUNTOF(types); i++) {
        char dir[] = "/tmp/banyan-format-XXXXXX";
        float got[640], want[640];
        assert_non_null(mkdtemp(dir));
        write_rounded(types[i], dir);
        logits_of(dir, naive_backend(), BY_DTYPE_NONE, want);
        logits_of(SOURCE, cpu, types[i], got);
        expect_logits(got, want, by_dtype_name(types[i]), cpu->name);
        by_dir_remove(dir);
    }
    cpu->close(cpu);
}

/* AWQ deals eight weights to a word by a table of eight: sixteen read behind its end. */
TEST(awq_of_other_than_4_bits_is_refused) {
    UNUSED_STATE;
    struct by_model_dir *source = NULL, *d = NULL;
    struct st_writer *w = by_alloc(sizeof *w);
    struct model *m = NULL;
    struct by_err err = {0};
    char dir[] = "/tmp/banyan-format-XXXXXX";
    assert_non_null(mkdtemp(dir));
    if (by_model_dir_open(&source, SOURCE, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < by_model_dir_n_tensors(source); i++) {
        const struct by_tensor_info *t = by_model_dir_tensor(source, i);
        char stem[ST_NAME_MAX];
        uint64_t rows, cols;
        by_tensor_rows(t, &rows, &cols);
        snprintf(stem, sizeof stem, "%.*s", (int)(t->name.n - strlen(".weight")), t->name.p);
        if (strstr(stem, "_proj")) {
            add(w, stem, ".qweight", BY_DTYPE_I32, (uint32_t)cols, (uint32_t)rows / 16);
            add(w, stem, ".qzeros", BY_DTYPE_I32, (uint32_t)cols / 32, (uint32_t)rows / 16);
            add(w, stem, ".scales", BY_DTYPE_F16, (uint32_t)cols / 32, (uint32_t)rows);
        } else {
            add_same(w, stem, t);
        }
    }
    st_end(w, dir, "{" SIZES ",\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":2}}");
    if (by_model_dir_open(&d, dir, &err)) fail_msg("%s", err.text);
    const struct model_options o = {.page_size = 16, .rows_max = 16, .logit_rows_max = 1};
    assert_int_equal(model_open(&m, d, naive_backend(), &o, &err), BY_EUNSUPPORTED);
    if (!strstr(err.text, "AWQ's 4 bits")) fail_msg("%s", err.text);
    by_model_dir_close(d);
    by_model_dir_close(source);
    by_dir_remove(dir);
    by_free(w);
}

WORLD_TESTS(RUN(each_format_gives_what_its_plain_twin_gives),
            RUN(awq_of_other_than_4_bits_is_refused),
            RUN(quantising_at_load_gives_the_rounded_weights));
