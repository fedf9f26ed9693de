#include "gpu_worker/models/rope.h"

#include <math.h>

static const double two_pi = 6.283185307179586476925;

static double llama3(const struct by_rope *r, double f) {
    double turns = (double)r->original_context * f / two_pi; /* within the original context */
    if (turns < r->low_freq) return f / r->factor;
    if (turns > r->high_freq) return f;
    double share = (turns - r->low_freq) / (r->high_freq - r->low_freq);
    return (1 - share) * f / r->factor + share * f;
}

/* The dimension that turns n times within the original context. */
static double yarn_dim(const struct by_rope *r, double n) {
    return (double)r->n_rot * log((double)r->original_context / (n * two_pi)) / (2 * log(r->theta));
}

static double yarn(const struct by_rope *r, double f, uint32_t i) {
    double low = yarn_dim(r, r->beta_fast), high = yarn_dim(r, r->beta_slow);
    if (r->is_truncated) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)r->n_rot - 1);
    if (low == high) high += 0.001;
    double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
    return f / r->factor * ramp + f * (1 - ramp);
}

static double scaled(const struct by_rope *r, double f, uint32_t i, bool is_long) {
    switch (r->kind) {
    case BY_ROPE_LINEAR:
        return f / r->factor;
    case BY_ROPE_LLAMA3:
        return llama3(r, f);
    case BY_ROPE_YARN:
        return yarn(r, f, i);
    case BY_ROPE_LONGROPE:
        return f / (double)(is_long ? r->long_factors[i] : r->short_factors[i]);
    case BY_ROPE_FACTORS:
        return f / (double)r->long_factors[i];
    default:
        return f;
    }
}

float rope_inv_freq(const struct by_rope *r, bool is_local, uint32_t context_len, float *inv_freq) {
    bool is_own = is_local && r->theta_local > 0;
    double theta = is_own ? r->theta_local : r->theta;
    const uint32_t n_rot = is_own ? r->n_rot_local : r->n_rot;
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        double f = pow(theta, -2.0 * (double)i / (double)n_rot);
        inv_freq[i] = (float)(is_own ? f : scaled(r, f, i, context_len > r->original_context));
    }
    return is_own ? 1 : (float)r->attention_factor;
}
