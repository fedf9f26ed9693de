/* From rows of logits to tokens, a block a row: the sampler of sampler.h in the same integers, so that equal logits give equal
 * tokens. Weights are 40-bit masses; the cut of top-k and top-p is found by pivots, a radix select from the top bits down.
 *
 *     logits ─▶ penalties, bans, bias ─▶ max ─▶ survey: total mass, and a list of what is not small ─▶ 3 levels of 1024
 *     buckets, over the list if the cut is sure to lie in it ─▶ cut ─▶ mass kept, by warp, by thread ─▶ the id at r
 *
 * One block has to bring 512 KB of a large vocabulary: what a thread needs first is on its way together, and there are few
 * passes. Sums of masses are integers: any order of the threads gives the same, of the list too. Additions and
 * multiplications of floats are one rounding each (__fmul_rn …), as sampler.c has them. Slow twin: sampler.c. */
#include "gpu_worker/cuda/device.cuh"

#include <string.h>

enum {
    THREADS = 1024,
    WARPS = THREADS / 32, /* 32: a lane a warp */
    RADIX_BITS = 10,
    RADIX = 1 << RADIX_BITS, /* THREADS: a thread a bucket */
    LIST_MAX = 6144,
    LIST_FROM = 117 << 23, /* 2^-10 of the largest, as bits */
    LOADS = 4,
};

struct sample_args {
    float *logits;
    uint32_t ld, n_vocab;
    const struct sample_row *rows; /* lists point to the device */
    uint32_t *out, *last;
};

struct best {
    float value;
    uint32_t id; /* UINT32_MAX: none */
    bool is_bad; /* a logit forbids a pick: NaN, or +inf */
};

struct shared {
    uint64_t mass[RADIX];
    uint32_t count[RADIX];
    uint64_t sums[WARPS];
    uint32_t ties[WARPS];
    struct best best[WARPS];
    uint32_t n_listed, list[LIST_MAX]; /* list: bits of weights, in any order */
    uint64_t prefix, n_above, mass_above;
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

/* fn(id, logit) for ids from … to - 1 (from: a multiple of 4, or there are none), by n threads of which this is number `own`. */
template <class Fn>
static __device__ __forceinline__ void each_logit(const float *l, uint32_t from, uint32_t to,
                                                  uint32_t own, uint32_t n, Fn fn) {
    uint32_t i = from + 4 * own, whole = (uintptr_t)l % 16 ? from : BY_MAX(from, to / 4 * 4);
    for (; i + 4 * n * (LOADS - 1) < whole; i += 4 * n * LOADS) {
        float4 v[LOADS];
        for (uint32_t k = 0; k < LOADS; k++)
            v[k] = *(const float4 *)(l + i + 4 * n * k);
        for (uint32_t k = 0; k < LOADS; k++) {
            uint32_t id = i + 4 * n * k;
            fn(id, v[k].x), fn(id + 1, v[k].y), fn(id + 2, v[k].z), fn(id + 3, v[k].w);
        }
    }
    for (; i < whole; i += 4 * n) {
        float4 v = *(const float4 *)(l + i);
        fn(i, v.x), fn(i + 1, v.y), fn(i + 2, v.z), fn(i + 3, v.w);
    }
    for (i = whole + own; i < to; i += n)
        fn(i, l[i]);
}

static __device__ bool is_better(float v, uint32_t id, float than, uint32_t than_id) {
    return v > than || (v == than && id < than_id);
}

static __device__ __forceinline__ void take_better(struct best *b, struct best other) {
    b->is_bad |= other.is_bad;
    if (other.id == UINT32_MAX) return;
    if (b->id != UINT32_MAX && !is_better(other.value, other.id, b->value, b->id)) return;
    b->value = other.value, b->id = other.id;
}

static __device__ __forceinline__ struct best warp_best(struct best b) {
    for (int d = 16; d; d >>= 1) {
        struct best other = {__shfl_xor_sync(0xffffffffu, b.value, d),
                             __shfl_xor_sync(0xffffffffu, b.id, d), b.is_bad};
        take_better(&b, other);
    }
    b.is_bad = __ballot_sync(0xffffffffu, b.is_bad);
    return b;
}

/* The best logit below (value, id) in the order of the best, ties to the lower id; below_id UINT32_MAX: the best of all. */
static __device__ struct best find_next(struct shared *s, const float *l, uint32_t n, float below,
                                        uint32_t below_id) {
    struct best b = {-INFINITY, UINT32_MAX, false};
    each_logit(l, 0, n, threadIdx.x, THREADS, [&](uint32_t i, float v) {
        bool is_left = below_id == UINT32_MAX || is_better(below, below_id, v, i);
        struct best one = {v, is_left ? i : UINT32_MAX, !(v < INFINITY)};
        take_better(&b, one);
    });
    b = warp_best(b);
    __syncthreads(); /* the last one's are read */
    s->best[threadIdx.x / 32] = b;
    __syncthreads();
    return warp_best(s->best[threadIdx.x % 32]);
}

/* What lanes 0 … own gave. */
static __device__ __forceinline__ uint64_t warp_scan(uint64_t v) {
    for (uint32_t d = 1; d < 32; d *= 2) {
        uint64_t before = __shfl_up_sync(0xffffffffu, v, d);
        if (threadIdx.x % 32 >= d) v += before;
    }
    return v;
}

/* What threads 0 … own gave; *total: all. */
static __device__ uint64_t block_scan(struct shared *s, uint64_t v, uint64_t *total) {
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    v = warp_scan(v);
    __syncthreads(); /* the last sums are read */
    if (lane == 31) s->sums[warp] = v;
    __syncthreads();
    uint64_t sums = warp_scan(s->sums[lane]),
             before = __shfl_sync(0xffffffffu, sums, warp ? warp - 1 : 0);
    *total = __shfl_sync(0xffffffffu, sums, WARPS - 1);
    return v + (warp ? before : 0);
}

/* ---- the cut ---- */

struct survey {
    uint64_t total, listed; /* masses */
};

/* All masses; and the weights from LIST_FROM on into the list, as many as there is room for: n_listed counts all. */
static __device__ struct survey look_over(struct shared *s, const float *l, uint32_t n, float max,
                                          float temperature) {
    uint64_t mine = 0, mine_listed = 0;
    struct survey v;
    if (threadIdx.x == 0) s->n_listed = 0;
    __syncthreads();
    each_logit(l, 0, n, threadIdx.x, THREADS, [&](uint32_t, float logit) {
        float w = weight_of(logit, max, temperature);
        mine += mass_of(w);
        if (as_u32(w) < LIST_FROM) return;
        mine_listed += mass_of(w);
        uint32_t at = atomicAdd(&s->n_listed, 1u);
        if (at < LIST_MAX) s->list[at] = as_u32(w);
    });
    block_scan(s, mine, &v.total);
    block_scan(s, mine_listed, &v.listed);
    return v;
}

static __device__ void count_weight(struct shared *s, uint32_t bits, uint32_t shift,
                                    uint64_t prefix) {
    uint32_t bucket = bits >> shift & (RADIX - 1);
    if ((uint64_t)bits >> (shift + RADIX_BITS) != prefix) return;
    atomicAdd(&s->count[bucket], 1u);
    atomicAdd((unsigned long long *)&s->mass[bucket], (unsigned long long)mass_of(as_f32(bits)));
}

/* Down from the largest bucket while all of it is above the cut: each thread looks at one. */
static __device__ void pick_bucket(struct shared *s, uint64_t k, uint64_t limit) {
    uint32_t bucket = RADIX - 1 - threadIdx.x;
    uint64_t prefix = s->prefix, n_above = s->n_above, mass_above = s->mass_above, all,
             count = s->count[bucket], mass = s->mass[bucket],
             n = n_above + block_scan(s, count, &all), m = mass_above + block_scan(s, mass, &all);
    bool is_above = n < k && m < limit, is_next = n - count < k && m - mass < limit;
    if (is_above || !is_next) return; /* one thread goes on: all together reach k or the limit */
    s->n_above = n - count, s->mass_above = m - mass;
    s->prefix = prefix << RADIX_BITS | bucket;
}

static __device__ void find_cut(struct shared *s, const float *l, uint32_t n, float max,
                                float temperature, uint64_t k, uint64_t limit, bool by_list) {
    if (threadIdx.x == 0) s->prefix = s->n_above = s->mass_above = 0;
    for (uint32_t level = 3; level-- > 0;) {
        uint32_t shift = level * RADIX_BITS;
        s->mass[threadIdx.x] = 0, s->count[threadIdx.x] = 0;
        __syncthreads();
        uint64_t prefix = s->prefix;
        for (uint32_t i = threadIdx.x; by_list && i < s->n_listed; i += THREADS)
            count_weight(s, s->list[i], shift, prefix);
        if (!by_list)
            each_logit(l, 0, n, threadIdx.x, THREADS, [&](uint32_t, float logit) {
                count_weight(s, as_u32(weight_of(logit, max, temperature)), shift, prefix);
            });
        __syncthreads();
        pick_bucket(s, k, limit);
        __syncthreads();
    }
    if (threadIdx.x != 0) return;
    uint64_t each = mass_of(as_f32((uint32_t)s->prefix)), room = k - s->n_above, n_ties = room;
    if (each) n_ties = BY_MIN(room, (limit - s->mass_above + each - 1) / each);
    s->bits = (uint32_t)s->prefix, s->n_ties = (uint32_t)BY_MIN(n_ties, (uint64_t)n);
}

static __device__ void cut_for(struct shared *s, const struct sample_row &r, const float *l,
                               uint32_t n, float max, const struct survey &v) {
    uint64_t k = r.top_k ? BY_MIN(r.top_k, n) : n;
    if (threadIdx.x == 0) s->bits = 0, s->n_ties = n;
    __syncthreads();
    if (k < n || r.top_p < 1) {
        uint64_t limit = r.top_p < 1 ? (uint64_t)((double)r.top_p * (double)v.total) : v.total;
        limit = BY_MAX(limit, (uint64_t)1);
        bool by_list = s->n_listed <= LIST_MAX && (s->n_listed >= k || v.listed >= limit);
        find_cut(s, l, n, max, r.temperature, k, limit, by_list);
    }
    if (threadIdx.x == 0 && r.min_p > 0 && as_u32(r.min_p) > s->bits)
        s->bits = as_u32(r.min_p), s->n_ties = n;
    __syncthreads();
}

/* ---- the draw: ranks of ties and running masses are sums over ids in their order ---- */

/* Of a run of ids: those above the cut, and those at it. */
struct kept {
    uint64_t mass;
    uint32_t ties;
};

static __device__ __forceinline__ void keep(struct kept *k, float w, uint32_t bits) {
    if (as_u32(w) > bits) k->mass += mass_of(w);
    k->ties += as_u32(w) == bits;
}

/* With the ties that are left after n_before of them. */
static __device__ uint64_t mass_with_ties(const struct shared *s, struct kept k,
                                          uint32_t n_before) {
    uint32_t n_left = s->n_ties > n_before ? s->n_ties - n_before : 0;
    return k.mass + BY_MIN(n_left, k.ties) * mass_of(as_f32(s->bits));
}

/* Ids from … to - 1, of whose ties n_ties come before, and `passed` mass: the one where target lies. */
static __device__ void draw_among(struct shared *s, const float *l, uint32_t from, uint32_t to,
                                  float max, float temperature, uint32_t n_ties, uint64_t passed,
                                  uint64_t target) {
    uint32_t each = BY_DIV_UP(to - from, (uint32_t)THREADS);
    struct kept mine = {0, 0};
    uint64_t all;
    from = BY_MIN(from + threadIdx.x * each, to), to = BY_MIN(from + each, to);
    for (uint32_t i = from; i < to; i++)
        keep(&mine, weight_of(l[i], max, temperature), s->bits);
    n_ties += (uint32_t)block_scan(s, mine.ties, &all) - mine.ties;
    uint64_t mass = mass_with_ties(s, mine, n_ties);
    passed += block_scan(s, mass, &all) - mass;
    if (!(passed <= target && target < passed + mass)) return; /* one thread has it */
    for (uint32_t i = from; i < to; i++) {
        float w = weight_of(l[i], max, temperature);
        uint32_t bits = as_u32(w);
        if (!(bits > s->bits || (bits == s->bits && n_ties++ < s->n_ties))) continue;
        passed += mass_of(w);
        if (passed <= target) continue;
        s->id = i;
        return;
    }
}

/* Each warp has ids side by side; then all threads those of the warp where the number falls. */
static __device__ void draw(struct shared *s, const float *l, uint32_t n, float max,
                            float temperature, uint64_t random) {
    uint32_t each = BY_ALIGN_UP(BY_DIV_UP(n, (uint32_t)WARPS), 4u), warp = threadIdx.x / 32,
             lane = threadIdx.x % 32, from = BY_MIN(warp * each, n), to = BY_MIN(from + each, n);
    struct kept mine = {0, 0};
    if (threadIdx.x == 0) s->id = 0;
    each_logit(l, from, to, lane, 32,
               [&](uint32_t, float v) { keep(&mine, weight_of(v, max, temperature), s->bits); });
    mine.mass = warp_scan(mine.mass), mine.ties = (uint32_t)warp_scan(mine.ties);
    if (lane == 31) s->sums[warp] = mine.mass, s->ties[warp] = mine.ties;
    __syncthreads();
    mine.mass = s->sums[lane], mine.ties = s->ties[lane]; /* every warp: a lane a warp */
    uint32_t n_ties = (uint32_t)warp_scan(mine.ties) - mine.ties;
    uint64_t mass = mass_with_ties(s, mine, n_ties), passed = warp_scan(mass),
             total = __shfl_sync(0xffffffffu, passed, WARPS - 1),
             target = __umul64hi(random, total);
    passed -= mass;
    uint32_t has_it = __ballot_sync(0xffffffffu, passed <= target && target < passed + mass);
    if (!has_it) return; /* nothing is kept */
    uint32_t at = (uint32_t)__popc((has_it & (0u - has_it)) - 1);
    n_ties = __shfl_sync(0xffffffffu, n_ties, (int)at);
    passed = __shfl_sync(0xffffffffu, passed, (int)at);
    draw_among(s, l, at * each, BY_MIN(at * each + each, n), max, temperature, n_ties, passed,
               target);
}

static __device__ void report(struct shared *s, const struct sample_row &r, const float *l,
                              uint32_t n, uint32_t *out) {
    struct best b = {0, UINT32_MAX, false};
    for (uint32_t i = 0; i < r.n_top; i++) {
        b = find_next(s, l, n, b.value, b.id);
        if (threadIdx.x == 0)
            out[SAMPLE_WORDS + i] = b.id, out[SAMPLE_WORDS + r.n_top + i] = as_u32(b.value);
    }
    for (uint32_t i = threadIdx.x; i < r.n_chosen; i += THREADS)
        out[SAMPLE_WORDS + 2 * r.n_top + i] = as_u32(r.chosen[i] < n ? l[r.chosen[i]] : -INFINITY);
}

static __global__ void __launch_bounds__(THREADS) sample_kernel(const struct sample_args a) {
    SHARED(struct shared, s);
    begin();
    const struct sample_row &r = a.rows[blockIdx.x];
    float *l = a.logits + (size_t)r.row * a.ld;
    uint32_t *out = a.out + r.at, n = a.n_vocab;
    struct survey v = {0, 0};
    change_logits(r, l, n);
    const struct best best = find_next(s, l, n, 0, UINT32_MAX);
    float max = best.value;
    uint32_t id = best.id;
    bool bad = best.is_bad || max == -INFINITY, is_cut = r.top_p < 1 || (r.top_k && r.top_k < n);
    if (!bad && (r.wants_report || (!r.is_greedy && is_cut)))
        v = look_over(s, l, n, max, r.temperature);
    if (!bad && !r.is_greedy) {
        cut_for(s, r, l, n, max, v);
        draw(s, l, n, max, r.temperature, r.random);
        __syncthreads();
        id = s->id;
    }
    if (r.is_score) id = r.score_id;
    if (threadIdx.x == 0) {
        out[0] = bad ? 0 : id, out[1] = bad, out[2] = as_u32(max), out[3] = bad ? 0 : as_u32(l[id]);
        out[4] = (uint32_t)v.total, out[5] = (uint32_t)(v.total >> 32);
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
