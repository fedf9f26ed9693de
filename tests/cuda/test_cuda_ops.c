/* Each op of the CUDA backend, run by the emulator, against portable C with exact activations; odd shapes, NaN wherever
 * nobody may look. And what the device side has beyond the CPU's: graphs, orders of threads, failures. */
#include <math.h>
#include <string.h>

#include "common/base/mem.h"
#include "gpu_worker/cuda/cuda.h"
#include "tests/kernels/ops_world.h"

static struct backend *cpu, *gpu;

/* ---- buffers that both have ---- */

struct pair {
    float *cpu, *gpu;
    size_t n;
};

static struct pair pair_new(size_t n, float size) {
    float *x = by_alloc_array(n, sizeof *x);
    world_floats(x, n, size);
    struct pair p = {(float *)(uintptr_t)cpu->put(cpu, x, n),
                     (float *)(uintptr_t)gpu->put(gpu, x, n), n};
    assert_true(p.cpu && p.gpu);
    by_free(x);
    return p;
}

static void pair_free(struct pair *p) {
    cpu->free(cpu, p->cpu);
    gpu->free(gpu, p->gpu);
}

/* The largest difference as a share of what the right numbers are about. */
static void pair_check(const struct pair *p, double tolerance, const char *what) {
    const float *got = gpu->get(gpu, p->gpu, p->n);
    struct by_err err;
    double size = 0;
    if (!got) fail_msg("%s: %s", what, gpu->wait(gpu, &err) ? err.text : "?");
    for (size_t i = 0; i < p->n; i++)
        size += fabs((double)p->cpu[i]) / (double)p->n;
    for (size_t i = 0; i < p->n; i++) {
        double want = (double)p->cpu[i], d = fabs((double)got[i] - want);
        if (isnan(want) && isnan((double)got[i])) continue;
        if (!(d <= tolerance * (size + fabs(want))))
            fail_msg("%s: number %zu of %zu is %.9g, should be %.9g (size %g)", what, i, p->n,
                     (double)got[i], want, size);
    }
}

/* Runs the op on both: X is the name of a local pair of ops. */
#define BOTH(op, on_cpu, on_gpu) \
    do { \
        RUN_OP(cpu, op, on_cpu); \
        RUN_OP(gpu, op, on_gpu); \
    } while (0)

struct both_norms {
    struct norm cpu, gpu;
    struct pair w, b;
};

static struct both_norms norms_new(enum norm_kind kind, uint32_t n) {
    struct both_norms s = {.w = pair_new(n, 1), .b = pair_new(n, 1)};
    s.cpu = (struct norm){kind, 1e-5f, s.w.cpu, kind == NORM_LAYER ? s.b.cpu : NULL};
    s.gpu = (struct norm){kind, 1e-5f, s.w.gpu, kind == NORM_LAYER ? s.b.gpu : NULL};
    return s;
}

static void norms_free(struct both_norms *s) {
    pair_free(&s->w);
    pair_free(&s->b);
}

struct both_weights {
    struct sample *sample;
    struct weight *cpu, *gpu;
    float *bias;
};

static struct both_weights weights_new(enum by_dtype t, uint32_t n_out, uint32_t n_in,
                                       bool is_gated, bool has_bias) {
    struct both_weights w = {.sample = sample_new(t, n_out, n_in)};
    w.sample->src.is_gated = is_gated;
    w.sample->src.is_row_lookup = !is_gated;
    if (has_bias) {
        w.bias = by_alloc_array(n_out, sizeof *w.bias);
        world_floats(w.bias, n_out, 1);
        w.sample->src.bias = w.bias;
    }
    w.cpu = sample_weight(cpu, w.sample);
    w.gpu = sample_weight(gpu, w.sample);
    return w;
}

static void weights_free(struct both_weights *w) {
    cpu->weight_free(cpu, w->cpu);
    gpu->weight_free(gpu, w->gpu);
    sample_free(w->sample);
    by_free(w->bias);
}

/* ---- rows ---- */

TEST(norm_adds_scales_and_leaves_other_columns_alone) {
    UNUSED_STATE;
    static const uint32_t widths[] = {1, 33, 256, 577, 1030};
    for (size_t i = 0; i < BY_COUNTOF(widths); i++) {
        for (int kind = 0; kind < 4; kind++) {
            uint32_t n = widths[i], ld = n + 5;
            struct pair x = pair_new(7 * ld, 1), y = pair_new(7 * ld, 1);
            struct both_norms s = norms_new(kind & 1 ? NORM_LAYER : NORM_RMS, n);
            struct op_norm a = {.x = x.cpu,
                                .x_ld = ld,
                                .x_col = 2,
                                .width = n,
                                .norm = &s.cpu,
                                .y = y.cpu,
                                .y_ld = ld,
                                .y_col = 3,
                                .is_add = kind & 2,
                                .scale = 0.7f,
                                .first = 1,
                                .n = 5};
            struct op_norm b = a;
            b.x = x.gpu, b.y = y.gpu, b.norm = &s.gpu;
            BOTH(norm, &a, &b);
            a.norm = b.norm = NULL;
            a.first = b.first = 6, a.n = b.n = 1;
            BOTH(norm, &a, &b);
            pair_check(&y, 2e-6, "norm");
            pair_free(&x);
            pair_free(&y);
            norms_free(&s);
        }
    }
}

TEST(gate_multiplies_by_a_sigmoid) {
    UNUSED_STATE;
    struct pair x = pair_new(5 * 301, 1), g = pair_new(5 * 3, 2);
    struct op_gate a = {
        .x = x.cpu, .ld = 301, .width = 299, .gate = g.cpu, .gate_ld = 3, .first = 1, .n = 3};
    struct op_gate b = a;
    b.x = x.gpu, b.gate = g.gpu;
    BOTH(gate, &a, &b);
    pair_check(&x, 1e-6, "gate");
    pair_free(&x);
    pair_free(&g);
}

TEST(embed_reads_rows_of_every_format) {
    UNUSED_STATE;
    static const enum by_dtype types[] = {BY_DTYPE_F32,  BY_DTYPE_BF16, BY_DTYPE_F16,
                                          BY_DTYPE_Q4_0, BY_DTYPE_Q4_1, BY_DTYPE_Q8_0,
                                          BY_DTYPE_Q6_K, BY_DTYPE_F8_32};
    for (size_t i = 0; i < BY_COUNTOF(types); i++) {
        uint32_t n_in = by_dtype_block_len(types[i]) == 1 ? 75 : 512, ids[] = {3, 0, 18, 7, 3},
                 types_[] = {0, 1, 1, 0, 1};
        struct both_weights w = weights_new(types[i], 19, n_in, false, false);
        struct both_weights p = weights_new(BY_DTYPE_F32, 23, n_in, false, false);
        struct pair out = pair_new(5 * 520, 1);
        struct op_embed a = {.table = w.cpu,
                             .ids = ids,
                             .scale = 1.5f,
                             .pos_table = p.cpu,
                             .positions = ids,
                             .pos_offset = 2,
                             .type_table = p.cpu,
                             .types = i % 2 ? types_ : NULL,
                             .out = out.cpu,
                             .ld = 520,
                             .first = 1,
                             .n = 4};
        struct op_embed b = a;
        b.table = w.gpu, b.pos_table = b.type_table = p.gpu, b.out = out.gpu;
        BOTH(embed, &a, &b);
        pair_check(&out, 1e-6, by_dtype_name(types[i]));
        pair_free(&out);
        weights_free(&w);
        weights_free(&p);
    }
}

/* ---- products ---- */

struct linear_case {
    enum by_dtype type;
    uint32_t n_out, n_in, n, out_first, out_n;
    bool is_gated, has_norm, has_rows, is_add;
    enum act_kind act;
    float softcap;
};

static void check_linear(const struct linear_case *k, double tolerance) {
    struct both_weights w = weights_new(k->type, k->n_out, k->n_in, k->is_gated, k->n % 2);
    struct both_norms s = norms_new(k->n % 3 ? NORM_RMS : NORM_LAYER, k->n_in);
    uint32_t x_ld = k->n_in + (k->n % 2 ? 5 : 8), y_ld = k->n_out + 3, rows[256];
    struct pair x = pair_new((size_t)(k->n + 2) * x_ld, 1),
                y = pair_new((size_t)(k->n + 2) * y_ld, 1);
    for (uint32_t i = 0; i < k->n + 1; i++)
        rows[i] = world_below(k->n + 2);
    struct op_linear a = {.w = w.cpu,
                          .x = x.cpu,
                          .x_ld = x_ld,
                          .x_col = k->n % 2 ? 3 : 4,
                          .norm = k->has_norm ? &s.cpu : NULL,
                          .act = k->act,
                          .y = y.cpu,
                          .y_ld = y_ld,
                          .y_col = 1,
                          .is_add = k->is_add,
                          .scale = 0.9f,
                          .softcap = k->softcap,
                          .rows = k->has_rows ? rows : NULL,
                          .out_first = k->out_first,
                          .out_n = k->out_n,
                          .first = 1,
                          .n = k->n};
    struct op_linear b = a;
    char what[96];
    b.w = w.gpu, b.x = x.gpu, b.y = y.gpu, b.norm = k->has_norm ? &s.gpu : NULL;
    BOTH(linear, &a, &b);
    snprintf(what, sizeof what, "linear %s %ux%u, %u rows", by_dtype_name(k->type), k->n_out,
             k->n_in, k->n);
    pair_check(&y, tolerance, what);
    pair_free(&x);
    pair_free(&y);
    norms_free(&s);
    weights_free(&w);
}

TEST(linear_multiplies_by_every_format) {
    UNUSED_STATE;
    static const enum by_dtype types[] = {
        BY_DTYPE_F32,   BY_DTYPE_BF16, BY_DTYPE_F16,  BY_DTYPE_Q4_0,   BY_DTYPE_Q4_1,
        BY_DTYPE_Q8_0,  BY_DTYPE_Q5_0, BY_DTYPE_Q5_1, BY_DTYPE_Q2_K,   BY_DTYPE_Q3_K,
        BY_DTYPE_Q4_K,  BY_DTYPE_Q5_K, BY_DTYPE_Q6_K, BY_DTYPE_IQ4_NL, BY_DTYPE_MXFP4,
        BY_DTYPE_F8_32, BY_DTYPE_Z4_32};
    for (size_t i = 0; i < BY_COUNTOF(types); i++) {
        uint32_t n_in = by_dtype_block_len(types[i]) == 1 ? 45 : by_dtype_block_len(types[i]) * 3;
        for (uint32_t n = 1; n <= 5; n++)
            check_linear(&(struct linear_case){.type = types[i],
                                               .n_out = 38,
                                               .n_in = n_in,
                                               .n = n,
                                               .has_norm = n & 1,
                                               .has_rows = n & 2,
                                               .is_add = n == 2,
                                               .act = n == 3 ? ACT_GELU : ACT_NONE,
                                               .softcap = n == 4 ? 3 : 0},
                         by_dtype_is_quantised(types[i]) ? 1e-4 : 2e-5);
    }
}

/* Prompts: bf16 times bf16, by gemm.h where it is (lanes forward), else by tiles (backward). Blocks of random bits are large
 * numbers, and a gate multiplies two such sums. */
TEST(linear_multiplies_tiles) {
    UNUSED_STATE;
    static const enum by_dtype types[] = {BY_DTYPE_BF16, BY_DTYPE_F16, BY_DTYPE_Q4_0, BY_DTYPE_Q8_0,
                                          BY_DTYPE_F8_32};
    for (uint32_t i = 0; i < BY_COUNTOF(types); i++) {
        uint32_t n_in = i < 2 ? 45 : 96;
        check_linear(&(struct linear_case){.type = types[i],
                                           .n_out = 38 + i,
                                           .n_in = n_in,
                                           .n = 9 + 60 * i,
                                           .has_norm = i & 1,
                                           .has_rows = i & 2,
                                           .is_add = i == 2},
                     6e-2);
        check_linear(&(struct linear_case){.type = types[i],
                                           .n_out = 2 * 51,
                                           .n_in = n_in,
                                           .n = 70 + i,
                                           .is_gated = true,
                                           .has_norm = true,
                                           .act = ACT_SILU},
                     i < 2 ? 6e-2 : 0.25);
    }
}

/* More than its scratch holds at once: several pieces of a weight that is widened, with a bias and without. */
TEST(linear_multiplies_large_weights_in_pieces) {
    UNUSED_STATE;
    for (uint32_t i = 0; i < 2; i++)
        check_linear(&(struct linear_case){.type = BY_DTYPE_F16,
                                           .n_out = 42000,
                                           .n_in = 8,
                                           .n = 200 + i,
                                           .is_gated = i,
                                           .act = ACT_SILU},
                     6e-2);
}

/* A rank's logits out of a matrix that it has whole: the other columns of y stay as they are. */
TEST(linear_computes_some_outputs) {
    UNUSED_STATE;
    static const enum by_dtype types[] = {BY_DTYPE_F32, BY_DTYPE_BF16, BY_DTYPE_Q8_0,
                                          BY_DTYPE_F8_32};
    static const uint32_t n_rows[] = {1, 5, 12, 130};
    for (size_t i = 0; i < BY_COUNTOF(types); i++)
        for (size_t k = 0; k < BY_COUNTOF(n_rows); k++)
            check_linear(&(struct linear_case){.type = types[i],
                                               .n_out = 101,
                                               .n_in = 96,
                                               .n = n_rows[k],
                                               .out_first = 16 * (uint32_t)k,
                                               .out_n = k == 3 ? 53 : 32,
                                               .has_norm = k & 1,
                                               .softcap = k == 2 ? 3 : 0},
                         n_rows[k] <= 8 || types[i] == BY_DTYPE_F32 ? 1e-4
                         : types[i] == BY_DTYPE_BF16                ? 6e-2
                                                                    : 0.25);
}

TEST(linear_multiplies_by_iq4_xs) {
    UNUSED_STATE;
    for (uint32_t n = 1; n <= 5; n++)
        check_linear(
            &(struct linear_case){
                .type = BY_DTYPE_IQ4_XS, .n_out = 38, .n_in = 768, .n = n, .has_norm = n & 1},
            1e-4);
}

TEST(linear_gates) {
    UNUSED_STATE;
    static const enum act_kind acts[] = {ACT_SILU,  ACT_GELU,       ACT_GELU_TANH,  ACT_RELU,
                                         ACT_RELU2, ACT_QUICK_GELU, ACT_SWIGLU_OAI, ACT_NONE};
    for (uint32_t i = 0; i < BY_COUNTOF(acts); i++)
        check_linear(&(struct linear_case){.type = i % 2 ? BY_DTYPE_Q4_1 : BY_DTYPE_BF16,
                                           .n_out = 2 * 17,
                                           .n_in = 96,
                                           .n = 1 + i,
                                           .is_gated = true,
                                           .has_norm = true,
                                           .is_add = i & 1,
                                           .act = acts[i]},
                     2e-5);
}

TEST(linear_heads_give_each_head_its_columns) {
    UNUSED_STATE;
    enum { HEADS = 3 };
    struct both_weights w[HEADS];
    const struct weight *on_cpu[HEADS], *on_gpu[HEADS];
    for (int h = 0; h < HEADS; h++) {
        w[h] = weights_new(BY_DTYPE_BF16, 24, 16, false, false);
        on_cpu[h] = w[h].cpu, on_gpu[h] = w[h].gpu;
    }
    struct pair x = pair_new(6 * 90, 1), y = pair_new(6 * 100, 1);
    struct op_linear_heads a = {.w = on_cpu,
                                .n_heads = HEADS,
                                .x = x.cpu,
                                .x_ld = 90,
                                .x_col = 1,
                                .x_step = 28,
                                .y = y.cpu,
                                .y_ld = 100,
                                .y_col = 2,
                                .y_step = 32,
                                .n_copy = 7,
                                .x_copy_col = 17,
                                .y_copy_col = 25,
                                .first = 1,
                                .n = 4};
    struct op_linear_heads b = a;
    b.w = on_gpu, b.x = x.gpu, b.y = y.gpu;
    BOTH(linear_heads, &a, &b);
    pair_check(&y, 1e-5, "linear_heads");
    pair_free(&x);
    pair_free(&y);
    for (int h = 0; h < HEADS; h++)
        weights_free(&w[h]);
}

/* ---- experts ---- */

static void check_experts(enum by_dtype t, const struct op_route *like, enum act_kind act,
                          bool has_bias, uint32_t n_rows, double tolerance) {
    enum { HIDDEN = 64, FFN = 32 };
    const size_t rows = n_rows;
    uint32_t n_experts = like->n_experts, n_used = like->n_used;
    struct both_weights *up = by_alloc_array(n_experts, sizeof *up),
                        *down = by_alloc_array(n_experts, sizeof *down);
    const struct weight *tables[4][64];
    for (uint32_t e = 0; e < n_experts; e++) {
        up[e] = weights_new(t, 2 * FFN, HIDDEN, true, has_bias);
        down[e] = weights_new(t, HIDDEN, FFN, false, has_bias);
        tables[0][e] = up[e].cpu, tables[1][e] = up[e].gpu;
        tables[2][e] = down[e].cpu, tables[3][e] = down[e].gpu;
    }
    struct pair logits = pair_new(rows * (n_experts + 1), 2), weights = pair_new(rows * n_used, 1);
    struct pair bias = pair_new(n_experts, 0.3f), x = pair_new(rows * HIDDEN, 1),
                y = pair_new(rows * HIDDEN, 1);
    struct pair scratch = pair_new(rows * n_used * (FFN + HIDDEN), 1),
                ids = pair_new(rows * n_used, 0);
    struct both_norms s = norms_new(NORM_RMS, HIDDEN);
    struct op_route r = *like, q;
    r.logits = logits.cpu, r.logits_ld = n_experts + 1, r.weights = weights.cpu;
    r.choice_bias = like->choice_bias ? bias.cpu : NULL, r.experts = (uint32_t *)ids.cpu,
    r.first = 1, r.n = rows - 1;
    q = r;
    q.logits = logits.gpu, q.weights = weights.gpu, q.experts = (uint32_t *)ids.gpu;
    if (q.choice_bias) q.choice_bias = bias.gpu;
    BOTH(route, &r, &q);
    pair_check(&weights, 5e-6, "weights of experts");
    const float *got = gpu->get(gpu, ids.gpu, ids.n);
    assert_memory_equal(got + n_used, ids.cpu + n_used, (rows - 1) * n_used * sizeof(uint32_t));
    struct op_experts a = {.gate_up = tables[0],
                           .down = tables[2],
                           .n_experts = n_experts,
                           .n_used = n_used,
                           .experts = r.experts,
                           .weights = r.weights,
                           .x = x.cpu,
                           .x_ld = HIDDEN,
                           .norm = &s.cpu,
                           .act = act,
                           .y = y.cpu,
                           .y_ld = HIDDEN,
                           .scale = 0.8f,
                           .scratch = scratch.cpu,
                           .first = 1,
                           .n = rows - 1};
    struct op_experts b = a;
    b.gate_up = tables[1], b.down = tables[3], b.experts = q.experts, b.weights = q.weights;
    b.x = x.gpu, b.norm = &s.gpu, b.y = y.gpu, b.scratch = scratch.gpu;
    BOTH(experts, &a, &b);
    pair_check(&y, tolerance, "experts");
    struct pair *all[] = {&logits, &weights, &bias, &x, &y, &scratch, &ids};
    for (size_t i = 0; i < BY_COUNTOF(all); i++)
        pair_free(all[i]);
    norms_free(&s);
    for (uint32_t e = 0; e < n_experts; e++) {
        weights_free(&up[e]);
        weights_free(&down[e]);
    }
    by_free(up);
    by_free(down);
}

TEST(experts_are_chosen_and_added_up) {
    UNUSED_STATE;
    static const float has;
    static const struct op_route ways[] = {
        {.n_experts = 8,
         .n_used = 2,
         .is_softmax_of_chosen = true,
         .n_groups = 1,
         .n_groups_used = 1,
         .scale = 1},
        {.n_experts = 6,
         .n_used = 3,
         .norm_topk = true,
         .n_groups = 1,
         .n_groups_used = 1,
         .scale = 1},
        {.n_experts = 40, .n_used = 1, .n_groups = 1, .n_groups_used = 1, .scale = 2.5f},
        {.n_experts = 12,
         .n_used = 4,
         .is_sigmoid = true,
         .norm_topk = true,
         .choice_bias = &has,
         .n_groups = 4,
         .n_groups_used = 2,
         .group_by_top2 = true,
         .scale = 2},
        {.n_experts = 9, .n_used = 2, .n_groups = 3, .n_groups_used = 1, .scale = 1}};
    for (uint32_t i = 0; i < BY_COUNTOF(ways); i++)
        check_experts(i % 2 ? BY_DTYPE_Q8_0 : BY_DTYPE_BF16, &ways[i],
                      i == 2 ? ACT_SWIGLU_OAI : ACT_SILU, i == 2, 7, 2e-5);
}

/* What lies between the members of an op's struct is no part of it: the same list comes again, and is a graph. */
static void route_lane(struct lane *l, void *ctx) {
    for (int i = 0; i < 8; i++)
        gpu->route(l, ctx);
}

TEST(a_list_with_routes_becomes_a_graph) {
    UNUSED_STATE;
    struct pair logits = pair_new(8, 1), weights = pair_new(2, 1);
    uint32_t *experts = gpu->alloc(gpu, 2 * sizeof *experts);
    const struct queue *q = ((const struct cuda *)gpu)->queue;
    uint64_t n_before = queue_counted(q).n_graph_runs;
    for (int i = 0; i < 4; i++) {
        struct op_route o;
        struct by_err err;
        memset(&o, i, sizeof o);
        o.logits = logits.gpu, o.logits_ld = o.n_experts = 8, o.n_used = 2;
        o.is_sigmoid = o.is_softmax_of_chosen = o.norm_topk = o.group_by_top2 = false;
        o.choice_bias = NULL, o.n_groups = o.n_groups_used = 1, o.scale = 1;
        o.experts = experts, o.weights = weights.gpu, o.first = 0, o.n = 1;
        gpu->run(gpu, route_lane, &o);
        assert_int_equal(gpu->wait(gpu, &err), 0);
    }
    assert_int_equal(queue_counted(q).n_graph_runs - n_before, 3);
    gpu->free(gpu, experts);
    pair_free(&logits);
    pair_free(&weights);
}

/* Slots of several warps and rounds of the sort, some experts with none. */
TEST(experts_share_out_many_slots) {
    UNUSED_STATE;
    static const struct op_route ways[] = {
        {.n_experts = 61, .n_used = 3, .n_groups = 1, .n_groups_used = 1, .scale = 1},
        {.n_experts = 64,
         .n_used = 4,
         .is_sigmoid = true,
         .n_groups = 8,
         .n_groups_used = 1,
         .scale = 1}};
    check_experts(BY_DTYPE_BF16, &ways[0], ACT_SILU, false, 151, 2e-5);
    check_experts(BY_DTYPE_BF16, &ways[1], ACT_SILU, false, 120, 2e-5);
}

/* Enough rows an expert; of three experts one has more than its blocks take at once. */
TEST(experts_take_many_rows_by_tiles) {
    UNUSED_STATE;
    static const struct op_route ways[] = {
        {.n_experts = 9,
         .n_used = 2,
         .norm_topk = true,
         .n_groups = 1,
         .n_groups_used = 1,
         .scale = 1},
        {.n_experts = 3, .n_used = 2, .n_groups = 1, .n_groups_used = 1, .scale = 1},
        {.n_experts = 2, .n_used = 1, .n_groups = 1, .n_groups_used = 1, .scale = 1}};
    static const enum by_dtype types[] = {BY_DTYPE_BF16, BY_DTYPE_Q8_0, BY_DTYPE_MXFP4};
    for (uint32_t i = 0; i < BY_COUNTOF(ways); i++)
        check_experts(types[i], &ways[i], i == 2 ? ACT_SWIGLU_OAI : ACT_SILU, i == 2, 60 + 77 * i,
                      i ? 0.25 : 6e-2);
}

/* ---- keys, values, attention ---- */

struct attention_case {
    uint32_t n_heads, n_kv_heads, k_dim, v_dim, page_size, window;
    enum kv_dtype dtype;
    float softcap;
    bool has_sinks, is_full, is_latent, is_whole, is_interleaved;
    bool
        is_on_grid; /* keys and values are numbers that FP8 keeps as they are: no norm, no rotation */
    enum norm_kind kind;
    uint32_t done[3], n[3]; /* tokens in the pages before the last step, and in it */
    double tolerance;
};

enum { PAGES = 96 };

static const char *const kv_names[] = {"attention over float32", "… bfloat16", "… float16",
                                       "… int8", "… fp8"};

struct attention_world {
    const struct attention_case *k;
    struct backend *b;
    struct kv_shape kv;
    float *x, *out;
    void *pool;
    struct rope_table *rope;
    const struct norm *q_norm, *k_norm;
    const float *sinks;
};

static void attend(struct attention_world *w, const struct seq_rows *seqs, uint32_t n_seqs,
                   uint32_t ld, uint32_t out_ld, const uint32_t *positions, uint32_t n_rows,
                   bool wants_output) {
    const struct attention_case *k = w->k;
    uint32_t q_cols = k->n_heads * k->k_dim, k_cols = k->n_kv_heads * k->k_dim;
    struct op_kv_write write = {.x = w->x,
                                .ld = ld,
                                .q_col = 1,
                                .k_col = 1 + q_cols,
                                .v_col = k->is_latent ? 1 + q_cols : 1 + q_cols + k_cols,
                                .n_heads = k->n_heads,
                                .q_dim = k->k_dim,
                                .q_norm = w->q_norm,
                                .k_norm = w->k_norm,
                                .qk_whole = k->is_whole,
                                .rope = k->is_on_grid ? NULL : w->rope,
                                .is_interleaved = k->is_interleaved,
                                .q_rot_col = k->is_latent ? k->v_dim : 0,
                                .k_rot_col = k->is_latent ? k->v_dim : 0,
                                .kv = w->kv,
                                .pool = w->pool,
                                .positions = positions,
                                .seqs = seqs,
                                .n_seqs = n_seqs,
                                .n = n_rows};
    struct op_attention op = {.q = w->x,
                              .q_ld = ld,
                              .q_col = 1,
                              .n_heads = k->n_heads,
                              .scale = k->is_on_grid ? 1e-3f : 0.3f,
                              .softcap = k->softcap,
                              .window = k->window,
                              .is_full = k->is_full,
                              .sinks = w->sinks,
                              .kv = w->kv,
                              .pool = w->pool,
                              .out = w->out,
                              .out_ld = out_ld,
                              .out_col = 2,
                              .seqs = seqs,
                              .n_seqs = n_seqs,
                              .n = n_rows};
    RUN_OP(w->b, kv_write, &write);
    if (wants_output) RUN_OP(w->b, attention, &op);
}

/* NaN in every place of the pages that the sequences will have, as in pages that others have left. */
static void poison_pages(struct attention_world *w, uint32_t pages[3][PAGES], uint32_t ld) {
    static const uint32_t positions[2048];
    struct seq_rows seqs[3];
    uint32_t n_rows = 0;
    for (uint32_t q = 0; q < 3; q++) {
        uint32_t n = BY_ALIGN_UP(w->k->done[q] + w->k->n[q], w->k->page_size);
        seqs[q] = (struct seq_rows){n_rows, n, 0, pages[q]};
        n_rows += n;
    }
    assert_true(n_rows <= BY_COUNTOF(positions));
    float *nan = by_alloc_array((size_t)n_rows * ld, sizeof *nan);
    for (size_t i = 0; i < (size_t)n_rows * ld; i++)
        nan[i] = NAN;
    w->x = (float *)(uintptr_t)w->b->put(w->b, nan, (size_t)n_rows * ld);
    assert_non_null(w->x);
    attend(w, seqs, 3, ld, 0, positions, n_rows, false);
    w->b->free(w->b, w->x);
    by_free(nan);
}

/* Small numbers of E4M3, and in each head its largest, so that the scale is 1. */
static void put_on_grid(float *x, uint32_t n_heads, uint32_t dim) {
    for (uint32_t i = 0; i < n_heads * dim; i++)
        x[i] = by_f8_e4m3_to_f32((uint8_t)(world_below(2) << 7 | world_below(0x48)));
    for (uint32_t h = 0; h < n_heads; h++)
        x[h * dim + world_below(dim)] = h % 2 ? -448 : 448;
}

static struct pair rows_new(const struct attention_case *k, uint32_t n_rows, uint32_t ld) {
    size_t n = (size_t)n_rows * ld;
    float *x = by_alloc_array(n, sizeof *x);
    uint32_t k_col = 1 + k->n_heads * k->k_dim, v_col = k_col + k->n_kv_heads * k->k_dim;
    world_floats(x, n, 1);
    for (uint32_t r = 0; r < n_rows && k->is_on_grid; r++) {
        put_on_grid(x + (size_t)r * ld + k_col, k->n_kv_heads, k->k_dim);
        put_on_grid(x + (size_t)r * ld + v_col, k->n_kv_heads, k->v_dim);
    }
    struct pair p = {(float *)(uintptr_t)cpu->put(cpu, x, n),
                     (float *)(uintptr_t)gpu->put(gpu, x, n), n};
    assert_true(p.cpu && p.gpu);
    by_free(x);
    return p;
}

/* Sequences of done + n tokens: first all but the last n, then those; both backends from the same numbers. */
static void check_attention(const struct attention_case *k) {
    struct kv_shape kv = {.n_kv_heads = k->n_kv_heads,
                          .k_dim = k->k_dim,
                          .v_dim = k->v_dim,
                          .page_size = k->page_size,
                          .dtype = k->dtype,
                          .v_in_k = k->is_latent};
    uint32_t cols = (k->n_heads + k->n_kv_heads) * k->k_dim + k->n_kv_heads * k->v_dim,
             ld = cols + 2;
    uint32_t out_ld = k->n_heads * k->v_dim + 3, pages[3][PAGES], positions[2048], next = 5;
    uint32_t n_whole = k->is_whole ? k->n_heads : 1, n_whole_k = k->is_whole ? k->n_kv_heads : 1;
    struct both_norms qn = norms_new(k->kind, n_whole * k->k_dim),
                      kn = norms_new(k->kind, n_whole_k * k->k_dim);
    struct pair sinks = pair_new(k->n_heads, 1);
    float inv_freq[4] = {1, 0.31f, 0.1f, 0.031f};
    const struct rope_source rope = {
        .n_rot = 8, .inv_freq = inv_freq, .mscale = 1.1f, .n_positions = 2000};
    struct attention_world on_cpu = {.k = k,
                                     .b = cpu,
                                     .q_norm = k->is_on_grid ? NULL : &qn.cpu,
                                     .k_norm = k->is_on_grid ? NULL : &kn.cpu,
                                     .sinks = k->has_sinks ? sinks.cpu : NULL};
    struct attention_world on_gpu = {.k = k,
                                     .b = gpu,
                                     .q_norm = k->is_on_grid ? NULL : &qn.gpu,
                                     .k_norm = k->is_on_grid ? NULL : &kn.gpu,
                                     .sinks = k->has_sinks ? sinks.gpu : NULL};
    struct attention_world *both[] = {&on_cpu, &on_gpu};
    for (int i = 0; i < 2; i++) {
        if (i == 0 && k->dtype == KV_FP8) kv.dtype = KV_F32; /* portable C has no FP8 */
        both[i]->kv = kv;
        kv.dtype = k->dtype;
        both[i]->pool = both[i]->b->kv_new(both[i]->b, &both[i]->kv, 3 * PAGES + 5);
        both[i]->rope = both[i]->b->rope_new(both[i]->b, &rope);
        assert_true(both[i]->pool && both[i]->rope);
    }
    for (uint32_t i = 0; i < PAGES; i++)
        for (uint32_t q = 0; q < 3; q++)
            pages[q][i] = next++ * 7 % (3 * PAGES + 5);
    for (int i = 0; i < 2; i++)
        poison_pages(both[i], pages, ld);
    for (int step = 0; step < 2; step++) {
        struct seq_rows seqs[3];
        uint32_t n_seqs = 0, n_rows = 0;
        for (uint32_t q = 0; q < 3; q++) {
            uint32_t n = step ? k->n[q] : k->done[q], from = step ? k->done[q] : 0;
            if (!n) continue;
            seqs[n_seqs++] = (struct seq_rows){n_rows, n, from, pages[q]};
            for (uint32_t i = 0; i < n; i++)
                positions[n_rows++] = from + i;
        }
        if (!n_rows) continue;
        struct pair x = rows_new(k, n_rows, ld), out = pair_new((size_t)n_rows * out_ld, 1);
        on_cpu.x = x.cpu, on_cpu.out = out.cpu, on_gpu.x = x.gpu, on_gpu.out = out.gpu;
        for (int i = 0; i < 2; i++)
            attend(both[i], seqs, n_seqs, ld, out_ld, positions, n_rows, step == 1);
        pair_check(&out, k->tolerance, kv_names[k->dtype]);
        pair_free(&x);
        pair_free(&out);
    }
    for (int i = 0; i < 2; i++) {
        both[i]->b->kv_free(both[i]->b, both[i]->pool);
        both[i]->b->rope_free(both[i]->b, both[i]->rope);
    }
    norms_free(&qn);
    norms_free(&kn);
    pair_free(&sinks);
}

static const struct attention_case cases[] = {
    {.n_heads = 4, .n_kv_heads = 2, .k_dim = 16, .v_dim = 16, .page_size = 16, .n = {3, 40, 1}},
    {.n_heads = 6,
     .n_kv_heads = 2,
     .k_dim = 20,
     .v_dim = 12,
     .page_size = 16,
     .done = {0, 300, 17},
     .n = {2, 1, 1},
     .kind = NORM_LAYER},
    {.n_heads = 9,
     .n_kv_heads = 1,
     .k_dim = 16,
     .v_dim = 16,
     .page_size = 32,
     .done = {515, 0, 70},
     .n = {1, 1, 3},
     .has_sinks = true,
     .window = 100},
    {.n_heads = 2,
     .n_kv_heads = 2,
     .k_dim = 40,
     .v_dim = 40,
     .page_size = 16,
     .done = {255, 256, 257},
     .n = {1, 1, 1},
     .softcap = 2,
     .is_interleaved = true,
     .window = 5},
    {.n_heads = 3,
     .n_kv_heads = 3,
     .k_dim = 24,
     .v_dim = 24,
     .page_size = 16,
     .n = {7, 33, 0},
     .is_full = true,
     .is_whole = true},
    {.n_heads = 5,
     .n_kv_heads = 1,
     .k_dim = 24,
     .v_dim = 16,
     .page_size = 16,
     .done = {20, 0, 0},
     .n = {1, 9, 0},
     .is_latent = true},
    {.n_heads = 4,
     .n_kv_heads = 2,
     .k_dim = 16,
     .v_dim = 16,
     .page_size = 16,
     .done = {0, 290, 0},
     .n = {5, 2, 1},
     .is_whole = true,
     .kind = NORM_LAYER,
     .has_sinks = true}};

TEST(attention_sees_what_it_should) {
    UNUSED_STATE;
    for (size_t i = 0; i < BY_COUNTOF(cases); i++) {
        for (int t = KV_F32; t <= KV_FP8; t++) {
            if (t != KV_F32 && t != KV_BF16 && i > 1 && !cases[i].is_latent) continue;
            struct attention_case k = cases[i];
            k.dtype = (enum kv_dtype)t;
            /* A key that lies on the border between two roundings may fall on either side; FP8 is beside f32 here. */
            k.tolerance = t == KV_F32 ? 3e-5 : t == KV_FP8 ? 0.3 : 3e-2;
            check_attention(&k);
        }
        if (cases[i].is_latent) continue;
        struct attention_case k = cases[i];
        k.dtype = KV_FP8, k.is_on_grid = true;
        k.tolerance = k.n[1] < 16 ? 1e-4 : 3e-2; /* long pieces go by tiles, in bf16 */
        check_attention(&k);
    }
}

TEST(attention_of_prompts_by_tiles) {
    UNUSED_STATE;
    static const struct attention_case long_ones[] = {{.n_heads = 4,
                                                       .n_kv_heads = 2,
                                                       .k_dim = 64,
                                                       .v_dim = 64,
                                                       .page_size = 16,
                                                       .n = {17, 1, 70}},
                                                      {.n_heads = 2,
                                                       .n_kv_heads = 1,
                                                       .k_dim = 128,
                                                       .v_dim = 128,
                                                       .page_size = 32,
                                                       .done = {0, 100, 3},
                                                       .n = {2, 66, 16},
                                                       .window = 40},
                                                      {.n_heads = 3,
                                                       .n_kv_heads = 3,
                                                       .k_dim = 72,
                                                       .v_dim = 40,
                                                       .page_size = 16,
                                                       .done = {70, 0, 5},
                                                       .n = {33, 16, 1},
                                                       .softcap = 2,
                                                       .has_sinks = true},
                                                      {.n_heads = 2,
                                                       .n_kv_heads = 2,
                                                       .k_dim = 24,
                                                       .v_dim = 24,
                                                       .page_size = 16,
                                                       .n = {18, 33, 0},
                                                       .is_full = true}};
    for (size_t i = 0; i < BY_COUNTOF(long_ones); i++) {
        for (int t = KV_BF16; t <= KV_FP8; t++) {
            struct attention_case k = long_ones[i];
            k.dtype = (enum kv_dtype)t;
            k.tolerance = t == KV_INT8 ? 0.1 : 6e-2; /* int8 becomes bf16 first */
            k.is_on_grid = t == KV_FP8;
            check_attention(&k);
        }
    }
}

/* The nearest number of E4M3, of two the one with the even code. */
static float nearest_e4m3(float x) {
    uint8_t best = 0;
    for (uint32_t code = 1; code < 256; code++) {
        float at = by_f8_e4m3_to_f32((uint8_t)code), d = fabsf(at - x),
              least = fabsf(by_f8_e4m3_to_f32(best) - x);
        if (d < least || (d == least && code % 2 == 0 && best % 2)) best = (uint8_t)code;
    }
    return by_f8_e4m3_to_f32(best);
}

/* A token that sees only itself gets its own values back, as they are kept. */
TEST(fp8_keeps_the_nearest_number) {
    UNUSED_STATE;
    enum { ROWS = 12, DIM = 128, LD = 3 * DIM + 1 };
    const struct attention_case k = {.n_heads = 1,
                                     .n_kv_heads = 1,
                                     .k_dim = DIM,
                                     .v_dim = DIM,
                                     .page_size = 16,
                                     .dtype = KV_FP8,
                                     .is_on_grid = true};
    struct attention_world w = {.k = &k, .b = gpu, .kv = {1, DIM, DIM, 16, KV_FP8, false}};
    uint32_t pages[ROWS], positions[ROWS] = {0};
    struct seq_rows seqs[ROWS];
    float x[ROWS * LD];
    world_floats(x, BY_COUNTOF(x), 1);
    for (uint32_t r = 0; r < ROWS; r++) {
        pages[r] = ROWS - 1 - r;
        seqs[r] = (struct seq_rows){r, 1, 0, &pages[r]};
        for (uint32_t i = 0; i < DIM; i++) { /* every second one lies between two, or nearly */
            uint8_t code = (uint8_t)world_below(0x7e);
            float low = by_f8_e4m3_to_f32(code), high = by_f8_e4m3_to_f32((uint8_t)(code + 1));
            float at =
                i % 2 ? (low + high) / 2 : low + (high - low) * (float)world_below(1000) / 1000;
            x[r * LD + 1 + 2 * DIM + i] = world_below(2) ? at : -at;
        }
        x[r * LD + 1 + 2 * DIM + r] = r ? 448 : -448;
    }
    struct pair out = pair_new(ROWS * DIM + 2, 1);
    w.x = (float *)(uintptr_t)gpu->put(gpu, x, BY_COUNTOF(x));
    w.out = out.gpu;
    w.pool = gpu->kv_new(gpu, &w.kv, ROWS);
    assert_true(w.x && w.pool);
    attend(&w, seqs, ROWS, LD, DIM, positions, ROWS, true);
    const float *got = gpu->get(gpu, out.gpu, out.n);
    assert_non_null(got);
    for (uint32_t r = 0; r < ROWS; r++)
        for (uint32_t i = 0; i < DIM; i++) {
            float v = x[r * LD + 1 + 2 * DIM + i], is = got[2 + r * DIM + i];
            if (is != nearest_e4m3(v))
                fail_msg("%.9g became %.9g, not %.9g", (double)v, (double)is,
                         (double)nearest_e4m3(v));
        }
    gpu->kv_free(gpu, w.pool);
    gpu->free(gpu, w.x);
    pair_free(&out);
}

/* Bytes a token and kv head. */
TEST(pages_are_as_small_as_they_can_be) {
    UNUSED_STATE;
    static const struct {
        struct kv_shape kv;
        size_t bytes;
    } shapes[] = {
        {{1, 128, 128, 16, KV_F32, false}, 1024},  {{1, 128, 128, 16, KV_BF16, false}, 512},
        {{1, 128, 128, 16, KV_INT8, false}, 264},  {{1, 128, 128, 16, KV_FP8, false}, 264},
        {{1, 576, 512, 64, KV_BF16, true}, 1152},  {{1, 576, 512, 64, KV_FP8, true}, 580},
        {{1, 576, 512, 64, KV_BF16, false}, 2176}, {{1, 20, 12, 16, KV_FP8, false}, 48}};
    for (size_t i = 0; i < BY_COUNTOF(shapes); i++)
        assert_int_equal(gpu->kv_page_bytes(gpu, &shapes[i].kv),
                         shapes[i].bytes * shapes[i].kv.page_size);
}

/* ---- main ---- */

static void open_backends(bool is_deterministic, bool no_graphs) {
    struct by_err err;
    const struct cuda_module *m = banyan_cuda_module();
    assert_int_equal(m->abi, CUDA_MODULE_ABI);
    assert_int_equal(m->backend_bytes, sizeof(struct backend));
    if (cpu_backend_new(&cpu, &(struct cpu_options){.n_threads = 1, .exact_activations = true},
                        &err) ||
        m->open(&gpu,
                &(struct cuda_options){.is_deterministic = is_deterministic,
                                       .no_graphs = no_graphs,
                                       .deadline_ms = 1000},
                &err))
        fail_msg("%s", err.text);
}

static int set_up(void **state) {
    (void)state;
    open_backends(false, false);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    gpu->close(gpu);
    cpu->close(cpu);
    return 0;
}

/* The other way round the lanes and warps of each block: a missing barrier shows in one of the two. */
static int reverse(void **state) {
    setenv("BANYAN_EMU_REVERSE", "1", 1);
    setenv("BANYAN_EMU_GEMM", "0", 1);
    return set_up(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {RUN(norm_adds_scales_and_leaves_other_columns_alone),
                                       RUN(gate_multiplies_by_a_sigmoid),
                                       RUN(embed_reads_rows_of_every_format),
                                       RUN(linear_multiplies_by_every_format),
                                       RUN(linear_gates),
                                       RUN(linear_multiplies_tiles),
                                       RUN(linear_multiplies_large_weights_in_pieces),
                                       RUN(linear_heads_give_each_head_its_columns),
                                       RUN(experts_are_chosen_and_added_up),
                                       RUN(experts_share_out_many_slots),
                                       RUN(experts_take_many_rows_by_tiles),
                                       RUN(attention_sees_what_it_should),
                                       RUN(attention_of_prompts_by_tiles),
                                       RUN(fp8_keeps_the_nearest_number),
                                       RUN(pages_are_as_small_as_they_can_be),
                                       RUN(linear_multiplies_by_iq4_xs)};
    const struct CMUnitTest of_parts[] = {RUN(linear_computes_some_outputs),
                                          RUN(a_list_with_routes_becomes_a_graph)};
    int rc = cmocka_run_group_tests_name("lanes forward", tests, set_up, tear_down);
    rc += cmocka_run_group_tests_name("lanes backward", tests, reverse, tear_down);
    rc += cmocka_run_group_tests_name("parts, by tiles", of_parts, set_up, tear_down);
    unsetenv("BANYAN_EMU_GEMM");
    return rc + cmocka_run_group_tests_name("parts", of_parts, set_up, tear_down);
}
