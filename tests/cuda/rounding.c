#include "tests/cuda/rounding.h"

#include "common/base/check.h"

#include <math.h>

static const double unit = 1.0 / 256, f32_unit = 1.0 / (1 << 23);

static double square(double x) {
    return x * x;
}

void rounded_norm(const struct norm *n, const float *x, uint32_t width, struct rounded *out) {
    double mean = 0, power = 0;
    for (uint32_t i = 0; i < width && n && n->kind == NORM_LAYER; i++)
        mean += (double)x[i] / width;
    for (uint32_t i = 0; i < width; i++)
        power += square((double)x[i] - mean) / width;
    for (uint32_t i = 0; i < width; i++) {
        double v = (double)x[i];
        if (n) v = (v - mean) / sqrt(power + (double)n->eps) * (double)n->w[i];
        if (n && n->b) v += (double)n->b[i];
        out[i] = (struct rounded){.value = v, .off = n ? 1e-6 * (fabs(v) + 1) : 0};
    }
}

struct rounded rounded_sum(const struct sample *w, uint32_t out, const struct rounded *x,
                           const float *bias) {
    const uint32_t n = w->src.n_in;
    const float *row = w->values + (size_t)out * n;
    struct rounded s = {.value = bias ? (double)bias[out] : 0};
    double size = fabs(s.value);
    for (uint32_t k = 0; k < n; k++) {
        double v = (double)row[k], most = fabs(x[k].value) + x[k].off;
        double w_off =
            fabs((double)by_bf16_to_f32(by_f32_to_bf16(row[k])) - v) + f32_unit * fabs(v);
        double x_off = x[k].off + unit * most;
        s.value += x[k].value * v;
        s.off += (most + x_off) * w_off + fabs(v) * x_off;
        s.square +=
            square(x[k].value * w_off) + square(v) * (x[k].square + square(unit * x[k].value) / 3);
        size += fabs(x[k].value * v);
    }
    s.off += f32_unit * n * size;
    return s;
}

/* The steepest that any of them gets, but for the square of RELU2, is 1.13 (GELU). */
struct rounded rounded_act(enum act_kind act, struct rounded x) {
    double steep = act == ACT_NONE ? 1 : 1.13;
    by_assert(act != ACT_RELU2 && act != ACT_SWIGLU_OAI);
    return (struct rounded){act_of(act, x.value), steep * x.off + 1e-6 * fabs(x.value),
                            square(steep) * x.square};
}

struct rounded rounded_gate(enum act_kind act, struct rounded gate, struct rounded up) {
    struct rounded a;
    if (act == ACT_SWIGLU_OAI) { /* a limit brings nothing further apart */
        gate.value = fmin(gate.value, 7);
        up.value = fmax(fmin(up.value, 7), -7) + 1;
        act = ACT_QUICK_GELU;
    }
    a = rounded_act(act, gate);
    return (struct rounded){
        a.value * up.value, a.off * (fabs(up.value) + up.off) + fabs(a.value) * up.off,
        a.square * square(up.value) + square(a.value) * up.square + a.square * up.square};
}

struct rounded rounded_scale(struct rounded x, double by) {
    return (struct rounded){by * x.value, fabs(by) * x.off, square(by) * x.square};
}

void rounding_check(struct roundings *r, float got, float want, const struct rounded *may,
                    const char *what) {
    double d = fabs((double)got - (double)want), off = may->off + 1e-6 * fabs((double)want);
    if (!(d <= off))
        fail_msg("%s: %.9g should be %.9g; off by %g, at most %g is rounding", what, (double)got,
                 (double)want, d, off);
    r->squares += d * d;
    r->expected += may->square + square(1e-6 * (double)want);
}

void roundings_check(const struct roundings *r, const char *what) {
    if (!(r->squares <= r->expected))
        fail_msg("%s: all together are off by %g, by rounding %g", what, sqrt(r->squares),
                 sqrt(r->expected));
}
