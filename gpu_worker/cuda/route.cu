/* Which experts a row goes to: a warp a row, logits in shared memory; the best of those left, n_used times, ties to the lower
 * expert. Slow twin: cpu_route. */
#include "gpu_worker/cuda/device.cuh"

#include <string.h>

struct best {
    float value;
    uint32_t at;
};

/* The largest of v[from … to - 1] but skip, ties to the first; the same in every lane. */
static __device__ struct best best_of(const float *v, uint32_t from, uint32_t to, uint32_t skip) {
    struct best b = {-INFINITY, UINT32_MAX};
    for (uint32_t i = from + threadIdx.x; i < to; i += 32) {
        if (i != skip && (v[i] > b.value || b.at == UINT32_MAX)) b.value = v[i], b.at = i;
    }
    for (int d = 16; d; d >>= 1) {
        float value = __shfl_xor_sync(0xffffffffu, b.value, d);
        uint32_t at = __shfl_xor_sync(0xffffffffu, b.at, d);
        if (value > b.value || (value == b.value && at < b.at)) b.value = value, b.at = at;
    }
    return b;
}

static __device__ void scores_of(const struct op_route &o, const float *logits, float *scores) {
    float max = best_of(logits, 0, o.n_experts, UINT32_MAX).value, sum = 0;
    for (uint32_t e = threadIdx.x; e < o.n_experts; e += 32) {
        scores[e] = o.is_sigmoid ? sigmoid(logits[e]) : expf(logits[e] - max);
        sum += scores[e];
    }
    sum = warp_sum(sum);
    for (uint32_t e = threadIdx.x; e < o.n_experts && !o.is_sigmoid; e += 32)
        scores[e] /= sum;
    __syncwarp();
}

/* Experts outside the best groups are out of the choice; of equal groups the last goes. */
static __device__ void keep_groups(const struct op_route &o, float *choice, float *best) {
    uint32_t each = o.n_experts / o.n_groups;
    for (uint32_t g = 0; g < o.n_groups; g++) {
        struct best first = best_of(choice, g * each, (g + 1) * each, UINT32_MAX);
        float v = first.value;
        if (o.group_by_top2 && each > 1)
            v += best_of(choice, g * each, (g + 1) * each, first.at).value;
        if (threadIdx.x == 0) best[g] = v;
    }
    __syncwarp();
    for (uint32_t n = o.n_groups - o.n_groups_used; n > 0; n--) {
        uint32_t worst = 0;
        for (uint32_t g = 1; g < o.n_groups; g++)
            if (!(best[g] > best[worst])) worst = g;
        __syncwarp();
        if (threadIdx.x == 0) best[worst] = INFINITY;
        for (uint32_t e = threadIdx.x; e < each; e += 32)
            choice[worst * each + e] = -INFINITY;
        __syncwarp();
    }
}

/* Lane 0: few numbers, and in the order of the choice. */
static __device__ void weigh_chosen(const struct op_route &o, const float *scores,
                                    const uint32_t *experts, float *weights) {
    float sum = 1e-20f;
    for (uint32_t k = 0; k < o.n_used; k++) {
        weights[k] = scores[experts[k]];
        sum += weights[k];
    }
    for (uint32_t k = 0; k < o.n_used; k++) {
        if (o.norm_topk) weights[k] /= sum;
        weights[k] *= o.scale;
        if (o.weight_scale) weights[k] *= o.weight_scale[experts[k]];
    }
}

static __global__ void __launch_bounds__(32) route_kernel(const struct op_route o) {
    SHARED(float, scores);
    begin();
    float *choice = scores + o.n_experts, *best = choice + o.n_experts;
    size_t r = o.first + blockIdx.x;
    const float *logits = o.logits + r * o.logits_ld;
    uint32_t *experts = o.experts + r * o.n_used;
    scores_of(o, logits, scores);
    for (uint32_t e = threadIdx.x; e < o.n_experts; e += 32)
        choice[e] = scores[e] + (o.choice_bias ? o.choice_bias[e] : 0);
    __syncwarp();
    if (o.n_groups > 1) keep_groups(o, choice, best);
    for (uint32_t k = 0; k < o.n_used; k++) {
        uint32_t at = best_of(choice, 0, o.n_experts, UINT32_MAX).at;
        __syncwarp();
        if (threadIdx.x == 0) experts[k] = at;
        if (threadIdx.x == 0) choice[at] = -INFINITY;
        __syncwarp();
    }
    if (threadIdx.x == 0) weigh_chosen(o, scores, experts, o.weights + r * o.n_used);
}

extern "C" void cuda_route(struct lane *l, const struct op_route *o) {
    struct op_route a;
    if (!o->n) return;
    memset(&a, 0, sizeof a); /* what lies between its members is compared too (queue.h) */
    a.logits = o->logits, a.logits_ld = o->logits_ld, a.n_experts = o->n_experts;
    a.n_used = o->n_used, a.is_sigmoid = o->is_sigmoid, a.norm_topk = o->norm_topk;
    a.choice_bias = o->choice_bias, a.n_groups = o->n_groups, a.n_groups_used = o->n_groups_used;
    a.group_by_top2 = o->group_by_top2, a.scale = o->scale, a.weight_scale = o->weight_scale;
    a.experts = o->experts, a.weights = o->weights, a.first = o->first, a.n = o->n;
    LAUNCH(l->cuda, route_kernel, a, GRID(o->n, 1, 1), 32,
           (2 * o->n_experts + o->n_groups) * sizeof(float));
}
