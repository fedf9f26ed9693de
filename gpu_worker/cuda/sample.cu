/* From rows of logits to tokens, a block a row: the sampler of sampler.h in the same integers, so that equal logits give equal
 * tokens. Weights are 40-bit masses; the cut of top-k and top-p is found by pivots, a radix select from the top bits down.
 *
 *     logits ─▶ penalties, bans, bias ─▶ max ─▶ total mass ─▶ 3 levels of 1024 buckets ─▶ cut ─▶ mass kept ─▶ the id at r
 *
 * Sums of masses are integers: any order of the threads gives the same. Additions and multiplications of floats are one
 * rounding each (__fmul_rn …), as sampler.c has them. Slow twin: sampler.c. */
#include "gpu_worker/cuda/device.cuh"

#include <string.h>

enum { THREADS = 256, WARPS = THREADS / 32, RADIX_BITS = 10, RADIX = 1 << RADIX_BITS, GROUP = 32 };

struct sample_args {
    float *logits;
    uint32_t ld, n_vocab;
    const struct sample_row *rows; /* lists point to the device */
    uint32_t *out, *last;
};

struct shared {
    uint64_t mass[RADIX];
    uint32_t count[RADIX];
    uint64_t sums[THREADS];
    uint32_t ties[THREADS];
    float values[WARPS];
    uint32_t ids[WARPS], is_bad;
    uint64_t prefix, n_above, mass_above, kept, target;
    uint32_t bits, n_ties, id;
};

/* ---- what sampler.c computes, operation for operation ---- */

static __device__ float weight_of(float logit, float max, float temperature) {
    const float log2e = 1.44269504088896341f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    const float round = 12582912.0f;
    float x = __fdiv_rn(__fsub_rn(logit, max), temperature), y = x > -87.0f ? x : -87.0f;
    float n = __fsub_rn(__fadd_rn(__fmul_rn(y, log2e), round), round);
    float r = __fsub_rn(__fsub_rn(y, __fmul_rn(n, ln2_high)), __fmul_rn(n, ln2_low));
    float p = 1.9875691500e-4f;
    p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
    p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
    p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1f);
    p = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(p, r), r), r), 1.0f);
    float e = __fmul_rn(p, as_f32((uint32_t)((int32_t)n + 127) << 23));
    e = e < 1.0f ? e : 1.0f;
    return x > -87.0f ? e : 0.0f;
}

static __device__ uint64_t mass_of(float w) {
    return (uint64_t)(int64_t)__fmul_rn(w, 1099511627776.0f);
}

/* Penalties, bans, repetition, bias: each id of a list of counts is there once; biases are added in their order. */
static __device__ void change_logits(const struct sample_row &s, float *l, uint32_t n_vocab) {
    for (uint32_t i = threadIdx.x; i < s.n_counted; i += THREADS) {
        uint32_t id = s.counted[i];
        if (id >= n_vocab) continue;
        l[id] = __fsub_rn(l[id], __fmul_rn(s.frequency_penalty, (float)s.counts[i]));
        l[id] = __fsub_rn(l[id], s.presence_penalty);
    }
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < s.n_banned; i += THREADS)
        if (s.banned[i] < n_vocab) l[s.banned[i]] = -INFINITY;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < s.n_counted && s.repetition_penalty != 1; i += THREADS) {
        uint32_t id = s.counted[i];
        float r = s.repetition_penalty;
        if (id < n_vocab) l[id] = l[id] > 0 ? __fdiv_rn(l[id], r) : __fmul_rn(l[id], r);
    }
    __syncthreads();
    for (uint32_t i = 0; i < s.n_bias && threadIdx.x == 0; i++)
        if (s.bias_ids[i] < n_vocab)
            l[s.bias_ids[i]] = __fadd_rn(l[s.bias_ids[i]], s.bias_values[i]);
    __syncthreads();
}

/* ---- over the block ---- */

static __device__ bool is_better(float v, uint32_t id, float than, uint32_t than_id) {
    return v > than || (v == than && id < than_id);
}

/* The best logit below (value, id) in the order of the best, ties to the lower id: into values[0], ids[0]. */
static __device__ void find_next(struct shared *s, const float *l, uint32_t n, float below,
                                 uint32_t below_id) {
    float best = -INFINITY;
    uint32_t id = UINT32_MAX;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        bool is_left = below_id == UINT32_MAX || is_better(below, below_id, l[i], i);
        if (is_left && (id == UINT32_MAX || is_better(l[i], i, best, id))) best = l[i], id = i;
    }
    for (int d = 16; d; d >>= 1) {
        float v = __shfl_xor_sync(0xffffffffu, best, d);
        uint32_t at = __shfl_xor_sync(0xffffffffu, id, d);
        if (at != UINT32_MAX && (id == UINT32_MAX || is_better(v, at, best, id))) best = v, id = at;
    }
    __syncthreads(); /* the last result is read */
    if (threadIdx.x % 32 == 0) s->values[threadIdx.x / 32] = best, s->ids[threadIdx.x / 32] = id;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int w = 1; w < WARPS; w++)
            if (s->ids[w] != UINT32_MAX &&
                (s->ids[0] == UINT32_MAX ||
                 is_better(s->values[w], s->ids[w], s->values[0], s->ids[0])))
                s->values[0] = s->values[w], s->ids[0] = s->ids[w];
    __syncthreads();
}

/* Does anything forbid a pick: a NaN, +inf, nothing but -inf? */
static __device__ bool is_bad(struct shared *s, const float *l, uint32_t n) {
    bool bad = false;
    if (threadIdx.x == 0) s->is_bad = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        bad |= !(l[i] < INFINITY);
    if (bad) s->is_bad = 1; /* all who write, write the same */
    __syncthreads();
    return s->is_bad;
}

/* sums[t] becomes the sum of what threads 0 … t gave; few steps, by thread 0. */
static __device__ void scan_sums(struct shared *s, uint64_t mine) {
    s->sums[threadIdx.x] = mine;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int t = 1; t < THREADS; t++)
            s->sums[t] += s->sums[t - 1];
    __syncthreads();
}

static __device__ uint64_t total_mass(struct shared *s, const float *l, uint32_t n, float max,
                                      float temperature) {
    uint64_t mine = 0;
    for (uint32_t i = threadIdx.x; i < n; i += THREADS)
        mine += mass_of(weight_of(l[i], max, temperature));
    scan_sums(s, mine);
    return s->sums[THREADS - 1];
}

/* ---- the cut ---- */

static __device__ void count_level(struct shared *s, const float *l, uint32_t n, float max,
                                   float temperature, uint32_t shift) {
    for (uint32_t b = threadIdx.x; b < RADIX; b += THREADS)
        s->mass[b] = 0, s->count[b] = 0;
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += THREADS) {
        float w = weight_of(l[i], max, temperature);
        uint32_t bits = as_u32(w), bucket = bits >> shift & (RADIX - 1);
        if ((uint64_t)bits >> (shift + RADIX_BITS) != s->prefix) continue;
        atomicAdd(&s->count[bucket], 1u);
        atomicAdd((unsigned long long *)&s->mass[bucket], (unsigned long long)mass_of(w));
    }
    __syncthreads();
}

/* Thread 0: down from the largest bucket while all of it is above the cut; whole groups first. */
static __device__ void pick_bucket(struct shared *s, uint64_t k, uint64_t limit) {
    uint32_t bucket = RADIX - 1;
    while (bucket > 0) {
        uint64_t count = s->count[bucket], mass = s->mass[bucket];
        if (!(s->n_above + count < k && s->mass_above + mass < limit)) break;
        s->n_above += count, s->mass_above += mass;
        bucket--;
    }
    s->prefix = s->prefix << RADIX_BITS | bucket;
}

static __device__ void find_cut(struct shared *s, const float *l, uint32_t n, float max,
                                float temperature, uint64_t k, uint64_t limit) {
    if (threadIdx.x == 0) s->prefix = s->n_above = s->mass_above = 0;
    __syncthreads();
    for (uint32_t level = 3; level-- > 0;) {
        count_level(s, l, n, max, temperature, level * RADIX_BITS);
        if (threadIdx.x == 0) pick_bucket(s, k, limit);
        __syncthreads();
    }
    if (threadIdx.x != 0) return;
    uint64_t each = mass_of(as_f32((uint32_t)s->prefix)), room = k - s->n_above, n_ties = room;
    if (each) n_ties = BY_MIN(room, (limit - s->mass_above + each - 1) / each);
    s->bits = (uint32_t)s->prefix, s->n_ties = (uint32_t)BY_MIN(n_ties, (uint64_t)n);
}

static __device__ void cut_for(struct shared *s, const struct sample_row &r, const float *l,
                               uint32_t n, float max, float temperature, uint64_t total) {
    uint64_t k = r.top_k ? BY_MIN(r.top_k, n) : n;
    if (threadIdx.x == 0) s->bits = 0, s->n_ties = n;
    __syncthreads();
    if (k < n || r.top_p < 1) {
        uint64_t limit = r.top_p < 1 ? (uint64_t)((double)r.top_p * (double)total) : total;
        find_cut(s, l, n, max, temperature, k, BY_MAX(limit, (uint64_t)1));
    }
    if (threadIdx.x == 0 && r.min_p > 0 && as_u32(r.min_p) > s->bits)
        s->bits = as_u32(r.min_p), s->n_ties = n;
    __syncthreads();
}

/* ---- the draw: each thread has ids side by side, so that ranks of ties and running masses are sums over threads ---- */

static __device__ void draw(struct shared *s, const float *l, uint32_t n, float max,
                            float temperature, uint64_t random) {
    uint32_t each = BY_DIV_UP(n, (uint32_t)THREADS), from = BY_MIN(threadIdx.x * each, n),
             to = BY_MIN(from + each, n);
    uint32_t ties = 0, before;
    for (uint32_t i = from; i < to; i++)
        ties += as_u32(weight_of(l[i], max, temperature)) == s->bits;
    scan_sums(s, ties);
    before = (uint32_t)s->sums[threadIdx.x] - ties;
    uint64_t mine = 0;
    ties = before;
    for (uint32_t i = from; i < to; i++) {
        float w = weight_of(l[i], max, temperature);
        uint32_t bits = as_u32(w);
        if (bits > s->bits || (bits == s->bits && ties++ < s->n_ties)) mine += mass_of(w);
    }
    __syncthreads();
    scan_sums(s, mine);
    uint64_t target = __umul64hi(random, s->sums[THREADS - 1]),
             passed = s->sums[threadIdx.x] - mine;
    if (threadIdx.x == 0) s->id = 0;
    __syncthreads();
    if (!(passed <= target && target < passed + mine)) return; /* one thread has it */
    ties = before;
    for (uint32_t i = from; i < to; i++) {
        float w = weight_of(l[i], max, temperature);
        uint32_t bits = as_u32(w);
        if (!(bits > s->bits || (bits == s->bits && ties++ < s->n_ties))) continue;
        passed += mass_of(w);
        if (passed <= target) continue;
        s->id = i;
        return;
    }
}

static __device__ void report(struct shared *s, const struct sample_row &r, const float *l,
                              uint32_t n, uint32_t *out) {
    float below = 0;
    uint32_t below_id = UINT32_MAX;
    for (uint32_t i = 0; i < r.n_top; i++) {
        find_next(s, l, n, below, below_id);
        below = s->values[0], below_id = s->ids[0];
        if (threadIdx.x == 0)
            out[SAMPLE_WORDS + i] = below_id, out[SAMPLE_WORDS + r.n_top + i] = as_u32(below);
    }
    for (uint32_t i = threadIdx.x; i < r.n_chosen; i += THREADS)
        out[SAMPLE_WORDS + 2 * r.n_top + i] = as_u32(r.chosen[i] < n ? l[r.chosen[i]] : -INFINITY);
}

/* Two blocks: told of one alone, ptxas keeps to 32 registers on sm_90 and spills. */
static __global__ void __launch_bounds__(THREADS, 2) sample_kernel(const struct sample_args a) {
    SHARED(struct shared, s);
    begin();
    const struct sample_row &r = a.rows[blockIdx.x];
    float *l = a.logits + (size_t)r.row * a.ld;
    uint32_t *out = a.out + r.at, n = a.n_vocab;
    change_logits(r, l, n);
    bool bad = is_bad(s, l, n);
    find_next(s, l, n, 0, UINT32_MAX);
    float max = s->values[0];
    uint32_t id = s->ids[0];
    bad = bad || max == -INFINITY;
    __syncthreads();
    uint64_t total = 0;
    if (!bad && (!r.is_greedy || r.wants_report)) {
        total = total_mass(s, l, n, max, r.temperature);
        __syncthreads();
    }
    if (!bad && !r.is_greedy) {
        cut_for(s, r, l, n, max, r.temperature, total);
        draw(s, l, n, max, r.temperature, r.random);
        __syncthreads();
        id = s->id;
    }
    if (r.is_score) id = r.score_id;
    if (threadIdx.x == 0) {
        out[0] = bad ? 0 : id, out[1] = bad, out[2] = as_u32(max), out[3] = bad ? 0 : as_u32(l[id]);
        out[4] = (uint32_t)total, out[5] = (uint32_t)(total >> 32);
        if (a.last && r.slot != UINT32_MAX) a.last[r.slot] = bad ? 0 : id;
    }
    if (!bad && r.wants_report) report(s, r, l, n, out);
}

/* ---- host ---- */

static const uint32_t *lay(uint32_t **at, const uint8_t *device, const uint8_t *host,
                           const void *list, uint32_t n) {
    const uint32_t *there = (const uint32_t *)(device + ((const uint8_t *)*at - host));
    if (n) memcpy(*at, list, n * sizeof **at);
    *at += n;
    return there;
}

/* Rows, and behind them their lists, in one room. */
extern "C" void cuda_sample(struct lane *l, const struct op_sample *o) {
    struct cuda *c = l->cuda;
    size_t n_bytes = o->n * sizeof(struct sample_row);
    const void *device;
    bool is_new;
    if (!o->n) return;
    for (uint32_t i = 0; i < o->n; i++) {
        const struct sample_row *r = &o->rows[i];
        n_bytes +=
            4 * (2 * (size_t)r->n_counted + r->n_banned + 2 * (size_t)r->n_bias + r->n_chosen);
    }
    uint8_t *room = (uint8_t *)queue_room(c->queue, o->rows, 1, n_bytes, &device, &is_new);
    struct sample_row *rows = (struct sample_row *)room;
    uint32_t *at = (uint32_t *)(rows + o->n);
    const uint8_t *there = (const uint8_t *)device;
    for (uint32_t i = 0; i < o->n; i++) {
        const struct sample_row *r = &o->rows[i];
        memcpy(&rows[i], r, sizeof *r);
        rows[i].counted = lay(&at, there, room, r->counted, r->n_counted);
        rows[i].counts = lay(&at, there, room, r->counts, r->n_counted);
        rows[i].banned = lay(&at, there, room, r->banned, r->n_banned);
        rows[i].bias_ids = lay(&at, there, room, r->bias_ids, r->n_bias);
        rows[i].bias_values = (const float *)lay(&at, there, room, r->bias_values, r->n_bias);
        rows[i].chosen = lay(&at, there, room, r->chosen, r->n_chosen);
    }
    struct sample_args a;
    memset(&a, 0, sizeof a);
    a.logits = o->logits, a.ld = o->ld, a.n_vocab = o->n_vocab;
    a.rows = (const struct sample_row *)device, a.out = o->out, a.last = o->last;
    LAUNCH(c, sample_kernel, a, GRID(o->n, 1, 1), THREADS, sizeof(struct shared));
}
