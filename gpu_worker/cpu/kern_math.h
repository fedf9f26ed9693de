/* kern_math.h - exp, tanh, erf and the activations on vectors: one polynomial each, for every path and every tail.
 *
 *     exp(x) = 2^n * p(r), n = round(x / ln 2), r = x - n ln 2 in two steps
 *
 * Always: within 2 units in the last place of the true value where the result is normal; exp(0) is 1; a NaN stays one.
 * Coefficients: exp and tanh, Cephes; erf, N. Juffa. Owner: nobody; kern_*.c include it after a vec_*.h. */
#ifndef GPU_WORKER_CPU_KERN_MATH_H
#define GPU_WORKER_CPU_KERN_MATH_H

#include "gpu_worker/backend.h"

INLINE vf v_exp(vf x) {
    const vf magic = v_set1(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
    x = v_min(v_set1(88.0f), v_max(v_set1(-87.0f), x));
    vf t = v_fma(x, v_set1(1.44269504f), magic), n = t - magic;
    vf r = v_fma(n, v_set1(-0.693359375f), x);
    r = v_fma(n, v_set1(2.12194440e-4f), r);
    vf p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(0.5f));
    p = v_fma(r * r, p, r + v_set1(1.0f));
    return (vf)((vi)p + ((vi)t << 23));
}

INLINE vf v_abs(vf x) {
    return (vf)((vi)x & vi_set1(0x7fffffff));
}

/* The sign of s on the magnitude x. */
INLINE vf v_sign_of(vf x, vf s) {
    return (vf)((vi)x | ((vi)s & vi_set1((int32_t)0x80000000)));
}

INLINE vf v_tanh(vf x) {
    vf a = v_abs(x), z = x * x, one = v_set1(1.0f);
    vf p = v_set1(-5.70498872745e-3f);
    p = v_fma(p, z, v_set1(2.06390887954e-2f));
    p = v_fma(p, z, v_set1(-5.37397155531e-2f));
    p = v_fma(p, z, v_set1(1.33314422036e-1f));
    p = v_fma(p, z, v_set1(-3.33332819422e-1f));
    vf small = v_fma(p * z, x, x);
    vf large = one - v_set1(2.0f) / (v_exp(a + a) + one);
    return v_if_less(a, v_set1(0.625f), small, v_sign_of(large, x));
}

INLINE vf v_erf(vf x) {
    vf t = v_abs(x), s = x * x;
    vf r = v_fma(v_set1(-1.72853470e-5f), t, v_set1(3.83197126e-4f));
    vf u = v_fma(v_set1(-3.88396438e-3f), t, v_set1(2.42546219e-2f));
    r = v_fma(r, s, u);
    r = v_fma(r, t, v_set1(-1.06777877e-1f));
    r = v_fma(r, t, v_set1(-6.34846687e-1f));
    r = v_fma(r, t, v_set1(-1.28717512e-1f));
    r = v_fma(r, t, v_set1(0.0f) - t);
    vf large = v_sign_of(v_set1(1.0f) - v_exp(r), x);
    vf p = v_set1(-5.96761703e-4f);
    p = v_fma(p, s, v_set1(4.99119423e-3f));
    p = v_fma(p, s, v_set1(-2.67681349e-2f));
    p = v_fma(p, s, v_set1(1.12819925e-1f));
    p = v_fma(p, s, v_set1(-3.76125336e-1f));
    p = v_fma(p, s, v_set1(1.28379166e-1f));
    return v_if_less(v_set1(0.927734375f), t, large, v_fma(p, x, x));
}

INLINE vf v_sigmoid(vf x) {
    vf one = v_set1(1.0f);
    return one / (one + v_exp(v_set1(0.0f) - x));
}

/* log(1 + exp(x)): the positive part of x, and log(1 + e) of e = exp(-|x|) as 2 atanh(e / (2 + e)). */
INLINE vf v_softplus(vf x) {
    const vf zero = v_set1(0.0f), two = v_set1(2.0f);
    vf e = v_exp(zero - v_abs(x)), s = e / (two + e), z = s * s;
    vf p = v_set1(1 / 15.0f);
    p = v_fma(p, z, v_set1(1 / 13.0f));
    p = v_fma(p, z, v_set1(1 / 11.0f));
    p = v_fma(p, z, v_set1(1 / 9.0f));
    p = v_fma(p, z, v_set1(1 / 7.0f));
    p = v_fma(p, z, v_set1(1 / 5.0f));
    p = v_fma(p, z, v_set1(1 / 3.0f));
    return v_max(zero, x) + two * v_fma(p * z, s, s);
}

INLINE vf v_act(enum act_kind act, vf x) {
    vf half = v_set1(0.5f), one = v_set1(1.0f), zero = v_set1(0.0f);
    switch (act) {
    case ACT_SILU:
        return x * v_sigmoid(x);
    case ACT_GELU:
        return half * x * (one + v_erf(x * v_set1(0.70710678f)));
    case ACT_GELU_TANH: {
        vf cube = v_fma(x * x * x, v_set1(0.044715f), x);
        return half * x * (one + v_tanh(v_set1(0.79788456f) * cube));
    }
    case ACT_RELU:
        return v_max(zero, x);
    case ACT_RELU2: {
        vf r = v_max(zero, x);
        return r * r;
    }
    case ACT_QUICK_GELU:
        return x * v_sigmoid(v_set1(1.702f) * x);
    case ACT_TANH:
        return v_tanh(x);
    case ACT_SWIGLU_OAI:
    case ACT_NONE:
        break;
    }
    return x;
}

INLINE vf v_act_gated(enum act_kind act, vf gate, vf up) {
    if (act != ACT_SWIGLU_OAI) return v_act(act, gate) * up;
    vf seven = v_set1(7.0f);
    gate = v_min(seven, gate);
    up = v_min(seven, v_max(v_set1(-7.0f), up));
    return gate * v_sigmoid(v_set1(1.702f) * gate) * (up + v_set1(1.0f));
}

#endif
