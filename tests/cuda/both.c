#include "tests/cuda/both.h"

#include "common/base/mem.h"

#include <math.h>

struct backend *cpu, *gpu;

struct pair pair_of(const float *x, size_t n) {
    struct pair p = {(float *)(uintptr_t)cpu->put(cpu, x, n),
                     (float *)(uintptr_t)gpu->put(gpu, x, n), n};
    assert_true(p.cpu && p.gpu);
    return p;
}

struct pair pair_new(size_t n, float size) {
    float *x = by_alloc_array(n, sizeof *x);
    world_floats(x, n, size);
    struct pair p = pair_of(x, n);
    by_free(x);
    return p;
}

void pair_free(struct pair *p) {
    cpu->free(cpu, p->cpu);
    gpu->free(gpu, p->gpu);
}

void pair_check(const struct pair *p, double tolerance, const char *what) {
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

struct both_norms norms_new(enum norm_kind kind, uint32_t n) {
    struct both_norms s = {.w = pair_new(n, 1), .b = pair_new(n, 1)};
    s.cpu = (struct norm){kind, 1e-5f, s.w.cpu, kind == NORM_LAYER ? s.b.cpu : NULL};
    s.gpu = (struct norm){kind, 1e-5f, s.w.gpu, kind == NORM_LAYER ? s.b.gpu : NULL};
    return s;
}

void norms_free(struct both_norms *s) {
    pair_free(&s->w);
    pair_free(&s->b);
}

struct both_weights weights_new(enum by_dtype t, uint32_t n_out, uint32_t n_in, bool is_gated,
                                bool has_bias) {
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

void weights_free(struct both_weights *w) {
    cpu->weight_free(cpu, w->cpu);
    gpu->weight_free(gpu, w->gpu);
    sample_free(w->sample);
    by_free(w->bias);
}

int both_set_up(void **state) {
    struct by_err err;
    const struct cuda_module *m = banyan_cuda_module();
    (void)state;
    assert_int_equal(m->abi, CUDA_MODULE_ABI);
    assert_int_equal(m->backend_bytes, sizeof(struct backend));
    if (cpu_backend_new(&cpu, &(struct cpu_options){.n_threads = 1, .exact_activations = true},
                        &err) ||
        m->open(&gpu, &(struct cuda_options){.deadline_ms = 1000}, &err))
        fail_msg("%s", err.text);
    return 0;
}

int both_set_up_reversed(void **state) {
    setenv("BANYAN_EMU_REVERSE", "1", 1);
    setenv("BANYAN_EMU_GEMM", "0", 1);
    return both_set_up(state);
}

int both_tear_down(void **state) {
    (void)state;
    gpu->close(gpu);
    cpu->close(cpu);
    return 0;
}
