#include "tests/kernels/ops_world.h"

#include "common/base/mem.h"
#include "tests/kernels/random_block.h"

#include <math.h>
#include <string.h>

enum { TESTS_MAX = 64 };

struct world world;
static uint64_t state = 88172645463325252u;

/* A test's numbers are its own, whatever ran before it. */
static int seed_by_name(void **name) {
    state = 88172645463325252u ^ by_str_hash(by_str_of(*name));
    state += test_seed() * UINT64_C(0x9E3779B97F4A7C15);
    return 0;
}

int world_tests(const char *group, const struct CMUnitTest *tests, size_t n,
                CMFixtureFunction set_up, CMFixtureFunction tear_down) {
    struct CMUnitTest seeded[TESTS_MAX];
    if (n > TESTS_MAX) return fprintf(stderr, "%s: %zu tests are too many\n", group, n);
    memcpy(seeded, tests, n * sizeof *tests);
    for (size_t i = 0; i < n; i++) {
        seeded[i].setup_func = seed_by_name;
        seeded[i].initial_state = (void *)(uintptr_t)tests[i].name;
    }
    return _cmocka_run_group_tests(group, seeded, n, set_up, tear_down);
}

uint64_t world_random(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * UINT64_C(0x2545F4914F6CDD1D);
}

uint32_t world_below(uint32_t n) {
    return (uint32_t)(world_random() >> 33) % n;
}

float world_float(void) {
    return random_float(world_random);
}

void world_floats(float *out, size_t n, float size) {
    for (size_t i = 0; i < n; i++)
        out[i] = world_float() * size;
}

/* ---- weights ---- */

static void sample_row(const void *ctx, uint32_t out, void *bytes) {
    const struct sample *m = ctx;
    memcpy(bytes, m->bytes + out * m->row_bytes, m->row_bytes);
}

struct sample *sample_new(enum by_dtype t, uint32_t n_out, uint32_t n_in) {
    struct sample *m = by_alloc(sizeof *m);
    m->src = (struct weight_source){
        .n_out = n_out, .n_in = n_in, .dtype = t, .row = sample_row, .ctx = m};
    assert_true(by_dtype_row_bytes(t, n_in, &m->row_bytes));
    m->bytes = by_alloc(m->row_bytes * n_out);
    m->values = by_alloc_array((size_t)n_out * n_in, sizeof(float));
    size_t n = (size_t)n_out * n_in;
    if (by_dtype_is_quantised(t)) {
        for (size_t i = 0; i < n / by_dtype_block_len(t); i++)
            random_block(t, m->bytes + i * by_dtype_block_bytes(t), world_random);
    } else {
        world_floats(m->values, n, 0.1f);
        assert_true(by_dtype_from_f32(t, m->values, m->bytes, n));
    }
    by_dtype_to_f32(t, m->bytes, m->values, n);
    return m;
}

void sample_free(struct sample *m) {
    if (!m) return;
    by_free(m->bytes);
    by_free(m->values);
    by_free(m);
}

struct weight *sample_weight(struct backend *b, const struct sample *m) {
    struct weight *w = NULL;
    struct by_err err;
    if (b->weight_new(b, &w, &m->src, &err)) fail_msg("%s", err.text);
    return w;
}

float *world_room(struct backend *b, size_t n, float fill) {
    float *p = b->alloc(b, n * sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = fill;
    return p;
}

/* ---- references ---- */

void int8_values(const float *x, uint32_t n, double *out) {
    for (uint32_t b = 0; b < n; b += 32) {
        float top = 0;
        for (uint32_t i = b; i < b + 32; i++)
            top = fmaxf(top, fabsf(x[i]));
        for (uint32_t i = b; i < b + 32; i++)
            out[i] = top > 0 ? (double)(top / 127.0f) * (double)rintf(x[i] * (127.0f / top)) : 0;
    }
}

double act_of(enum act_kind act, double x) {
    switch (act) {
    case ACT_SILU:
        return x / (1 + exp(-x));
    case ACT_GELU:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACT_RELU:
        return x > 0 ? x : 0;
    case ACT_RELU2:
        return x > 0 ? x * x : 0;
    case ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case ACT_TANH:
        return tanh(x);
    default:
        return x;
    }
}

/* ---- running ---- */

struct call {
    struct backend *b;
    size_t member;
    const void *op;
    bool is_solo;
};

static void call_lane(struct lane *l, void *ctx) {
    struct call *c = ctx;
    void (*fn)(struct lane *, const void *);
    memcpy(&fn, (char *)c->b + c->member, sizeof fn);
    if (!c->is_solo) {
        fn(l, c->op);
        return;
    }
    while (c->b->lane_next(l, 1) != UINT32_MAX) {
        c->b->lane_solo(l, true);
        fn(l, c->op);
        c->b->lane_solo(l, false);
    }
}

void world_run(struct backend *b, size_t member, const void *op) {
    struct call c = {b, member, op, false};
    b->run(b, call_lane, &c);
}

void world_run_solo(struct backend *b, size_t member, const void *op) {
    struct call c = {b, member, op, true};
    b->run(b, call_lane, &c);
}

void assert_same_bits(const float *a, const float *b, size_t n, const char *what) {
    for (size_t i = 0; i < n; i++) {
        if (by_f32_bits(a[i]) != by_f32_bits(b[i]))
            fail_msg("%s: number %zu of %zu is %.9g and %.9g", what, i, n, (double)a[i],
                     (double)b[i]);
    }
}

void assert_near(double got, double want, double tolerance, double size, const char *what) {
    if (!(fabs(got - want) <= tolerance * size))
        fail_msg("%s: %.9g where %.9g is right (allowed: %.3g)", what, got, want, tolerance * size);
}

static struct backend *make(enum cpu_isa isa, uint32_t n_threads) {
    struct backend *b = NULL;
    struct by_err err;
    struct cpu_options o = {.n_threads = n_threads, .isa = isa};
    if (cpu_backend_new(&b, &o, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return b;
}

int world_main(int argc, char **argv, const struct CMUnitTest *tests, size_t n) {
    static const char *const names[] = {"portable", "avx2", "avx512"};
    for (size_t i = 0; argc > 1 && i < BY_COUNTOF(names); i++)
        if (strcmp(argv[1], names[i]) == 0) world.isa = (enum cpu_isa)i;
    if (world.isa > cpu_isa_best()) {
        fprintf(stderr, "this machine has no %s\n", argv[1]);
        return 1;
    }
    world.b = make(world.isa, 2);
    world.one = make(world.isa, 1);
    world.portable = make(CPU_ISA_PORTABLE, 1);
    print_message("%s\n", world.b->name);
    int rc = world_tests("ops", tests, n, NULL, NULL);
    world.portable->close(world.portable);
    world.one->close(world.one);
    world.b->close(world.b);
    return rc;
}

double world_norm_of(const struct norm *n, const float *x, uint32_t width, uint32_t i) {
    double mean = 0, square = 0;
    for (uint32_t k = 0; k < width && n->kind == NORM_LAYER; k++)
        mean += (double)x[k] / width;
    for (uint32_t k = 0; k < width; k++)
        square += ((double)x[k] - mean) * ((double)x[k] - mean) / width;
    double v = ((double)x[i] - mean) / sqrt(square + (double)n->eps) * (double)n->w[i];
    return n->b ? v + (double)n->b[i] : v;
}

struct norm world_norm_new(enum norm_kind kind, uint32_t width, bool has_bias) {
    float w[WORLD_NORM_MAX], b[WORLD_NORM_MAX];
    world_floats(w, WORLD_NORM_MAX, 1);
    world_floats(b, WORLD_NORM_MAX, 1);
    return (struct norm){kind, 1e-5f, world.b->put(world.b, w, width),
                         has_bias ? world.b->put(world.b, b, width) : NULL};
}

void world_norm_free(struct norm *n) {
    world.b->free(world.b, (void *)n->w);
    world.b->free(world.b, (void *)n->b);
}

double world_product_of(const struct sample *m, const double *x, uint32_t o) {
    double v = m->src.bias ? (double)m->src.bias[o] : 0;
    for (uint32_t k = 0; k < m->src.n_in; k++)
        v += x[k] * (double)m->values[(size_t)o * m->src.n_in + k];
    return v;
}
