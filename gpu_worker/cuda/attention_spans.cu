/* Attention of single rows over pages, in f32: spans of keys side by side, then their merge. See attention.h. Spans that go by
 * lanes, those that attention_heads.cu and attention_strips.cu do not take:
 *
 *     scores:  8 lanes a key, 16 keys at a time ─▶ shared [heads][64] ─▶ softmax, a warp a head ─▶ values: 8 columns a
 *     thread, keys shared among the threads ─▶ sums over those in order
 *
 * The query heads of a group share each read of a key or value. Slow twin: cpu_attention. */
#include "gpu_worker/cuda/attention.h"
#include "gpu_worker/cuda/device.cuh"

#include <string.h>

enum { THREADS = 128, WARPS = THREADS / 32, KEYS = 64, KEY_LANES = 8 };

/* The block's kv head in the page of position t. */
static __device__ __forceinline__ const uint8_t *head_at(const struct attend &a,
                                                         const uint32_t *pages, uint32_t t) {
    return a.pool + pages[t / a.page_size] * a.y.page_bytes + blockIdx.y * a.y.head_bytes;
}

/* Scores of up to 64 keys from position `base` on for H heads into sc[h * KEYS + j]. */
template <int T, int H>
static __device__ void score_keys(const struct attend &a, const uint32_t *pages, const float *q,
                                  uint32_t base, uint32_t n, float *sc) {
    uint32_t group = threadIdx.x / KEY_LANES, sub = threadIdx.x % KEY_LANES;
    for (uint32_t j0 = 0; j0 < KEYS; j0 += THREADS / KEY_LANES) {
        uint32_t j = j0 + group, t = base + BY_MIN(j, n - 1), in_page = t % a.page_size;
        const uint8_t *head = head_at(a, pages, t);
        const uint8_t *key = head + (size_t)in_page * a.y.k_step;
        float s[H];
        for (int h = 0; h < H; h++)
            s[h] = 0;
        for (uint32_t d = 8 * sub; d < a.y.k_pad; d += 8 * KEY_LANES) {
            float k[8];
            kv_load<T>(key, d, k);
            for (int h = 0; h < H; h++)
                for (int i = 0; i < 8; i++)
                    s[h] = fmaf(q[h * a.y.k_pad + d + i], k[i], s[h]);
        }
        float scale = CUDA_KV_IS_SCALED(T) ? ((const float *)(head + a.y.scale_at))[in_page] : 1.0f;
        for (int h = 0; h < H; h++) {
            float v = s[h];
            for (int x = KEY_LANES / 2; x; x >>= 1)
                v += __shfl_xor_sync(0xffffffffu, v, x);
            v *= scale;
            if (a.softcap > 0) v = a.softcap * tanhf(v / a.softcap);
            if (sub == 0) sc[h * KEYS + j] = j < n ? v : -INFINITY;
        }
    }
}

/* Scores become weights; stats [H][3]: max so far, mass so far, by how much old sums shrink. */
template <int H> static __device__ void weigh_keys(float *sc, float *stats) {
    uint32_t lane = threadIdx.x % 32;
    for (int h = threadIdx.x / 32; h < H; h += WARPS) {
        float a = sc[h * KEYS + lane], b = sc[h * KEYS + 32 + lane], old = stats[3 * h];
        float max = fmaxf(old, warp_max(fmaxf(a, b)));
        float base = max == -INFINITY ? 0 : max; /* nothing but -inf so far: all weights are 0 */
        a = expf(a - base), b = expf(b - base);
        float mass = warp_sum(a + b), shrink = expf(old - base);
        sc[h * KEYS + lane] = a, sc[h * KEYS + 32 + lane] = b;
        __syncwarp();
        if (lane == 0) {
            stats[3 * h] = max;
            stats[3 * h + 1] = stats[3 * h + 1] * shrink + mass;
            stats[3 * h + 2] = shrink;
        }
    }
}

template <int T, int H>
static __device__ void add_values(const struct attend &a, const uint32_t *pages, uint32_t base,
                                  uint32_t n, const float *sc, const float *stats,
                                  float (&acc)[H][8]) {
    uint32_t each = a.y.v_pad / 8, n_groups = THREADS / each;
    uint32_t d = threadIdx.x % each * 8, group = threadIdx.x / each;
    for (int h = 0; h < H; h++)
        for (int i = 0; i < 8; i++)
            acc[h][i] *= stats[3 * h + 2];
    for (uint32_t j = group; j < n && group < n_groups; j += n_groups) {
        uint32_t t = base + j, in_page = t % a.page_size;
        const uint8_t *head = head_at(a, pages, t);
        float v[8];
        kv_load<T>(head + a.y.v_at + (size_t)in_page * a.y.v_step, d, v);
        if (CUDA_KV_IS_SCALED(T)) {
            float scale = ((const float *)(head + a.y.scale_at))[a.y.v_scale + in_page];
            for (int i = 0; i < 8; i++)
                v[i] *= scale;
        }
        for (int h = 0; h < H; h++)
            for (int i = 0; i < 8; i++)
                acc[h][i] = fmaf(sc[h * KEYS + j], v[i], acc[h][i]);
    }
}

/* Sums of the thread groups, in order, into the part. room: [n_groups][H][v_pad]. */
template <int H>
static __device__ void store_part(const struct span_args &s, uint32_t part, uint32_t head,
                                  uint32_t n_heads, const float *stats, float (&acc)[H][8],
                                  float *room) {
    const struct attend &a = s.a;
    uint32_t each = a.y.v_pad / 8, n_groups = THREADS / each, width = a.v_dim + 2;
    uint32_t d = threadIdx.x % each * 8, group = threadIdx.x / each;
    __syncthreads(); /* the room was scores */
    for (int h = 0; h < H && group < n_groups; h++)
        for (int i = 0; i < 8; i++)
            room[(group * H + h) * a.y.v_pad + d + i] = acc[h][i];
    __syncthreads();
    for (uint32_t e = threadIdx.x; e < n_heads * a.v_dim; e += THREADS) {
        uint32_t h = e / a.v_dim, i = e % a.v_dim;
        float sum = 0;
        for (uint32_t g = 0; g < n_groups; g++)
            sum += room[(g * H + h) * a.y.v_pad + i];
        s.parts[((size_t)part * a.n_heads + head + h) * width + i] = sum;
    }
    if (threadIdx.x < n_heads) {
        float *at = s.parts + ((size_t)part * a.n_heads + head + threadIdx.x) * width + a.v_dim;
        at[0] = stats[3 * threadIdx.x];
        at[1] = stats[3 * threadIdx.x + 1];
    }
}

template <int T, int H>
static __global__ void __launch_bounds__(THREADS, 4) span_kernel(const struct span_args s) {
    begin();
    const struct attend &a = s.a;
    struct attend_item item = s.items[blockIdx.x];
    uint32_t first = blockIdx.z * H, n_heads = BY_MIN((uint32_t)H, a.group - first);
    uint32_t head = blockIdx.y * a.group + first;
    SHARED(float, stats);
    float *q = stats + 4 * H, *sc = q + H * a.y.k_pad;
    if (item.from == item.to) return;
    for (uint32_t e = threadIdx.x; e < H * a.y.k_pad; e += THREADS) {
        uint32_t h = e / a.y.k_pad, d = e % a.y.k_pad;
        const float *from = a.q + (size_t)item.row * a.q_ld + a.q_col + (head + h) * a.k_dim;
        q[e] = h < n_heads && d < a.k_dim ? from[d] * a.scale : 0;
    }
    if (threadIdx.x < H) {
        stats[3 * threadIdx.x] = -INFINITY;
        stats[3 * threadIdx.x + 1] = 0;
    }
    float acc[H][8];
    for (int h = 0; h < H; h++)
        for (int i = 0; i < 8; i++)
            acc[h][i] = 0;
    const uint32_t *pages = a.pages + a.rows[item.row].first_page;
    for (uint32_t base = item.from; base < item.to; base += KEYS) {
        uint32_t n = BY_MIN(item.to - base, (uint32_t)KEYS);
        __syncthreads(); /* queries are there; the last scores are read */
        score_keys<T, H>(a, pages, q, base, n, sc);
        __syncthreads();
        weigh_keys<H>(sc, stats);
        __syncthreads();
        add_values<T, H>(a, pages, base, n, sc, stats, acc);
    }
    store_part<H>(s, item.part, head, n_heads, stats, acc, sc);
}

struct merge_args {
    struct attend a;
    const struct attend_merge *rows;
    const float *parts;
};

static __global__ void __launch_bounds__(THREADS) merge_kernel(const struct merge_args m) {
    begin();
    const struct attend &a = m.a;
    struct attend_merge r = m.rows[blockIdx.x];
    uint32_t head = blockIdx.y, width = a.v_dim + 2;
    const float *parts = m.parts + ((size_t)r.first * a.n_heads + head) * width;
    size_t step = (size_t)a.n_heads * width;
    float max = a.sinks ? a.sinks[head] : -INFINITY, mass = 0;
    if (r.n == 0) return;
    for (uint32_t i = 0; i < r.n; i++)
        max = fmaxf(max, parts[i * step + a.v_dim]);
    float base = max == -INFINITY ? 0 : max;
    if (a.sinks) mass = expf(a.sinks[head] - base);
    for (uint32_t i = 0; i < r.n; i++)
        mass += parts[i * step + a.v_dim + 1] * expf(parts[i * step + a.v_dim] - base);
    float *out = a.out + (size_t)r.row * a.out_ld + a.out_col + head * a.v_dim;
    for (uint32_t d = threadIdx.x; d < a.v_dim; d += THREADS) {
        float sum = 0;
        for (uint32_t i = 0; i < r.n; i++)
            sum += parts[i * step + d] * expf(parts[i * step + a.v_dim] - base);
        out[d] = sum / mass;
    }
}

/* ---- host ---- */

template <int T, int H>
static void launch(struct cuda *c, const struct span_args &s, uint32_t n_items) {
    uint32_t n_groups = THREADS / (s.a.y.v_pad / 8),
             keys = BY_MAX(H * KEYS, H * n_groups * s.a.y.v_pad);
    LAUNCH(c, (span_kernel<T, H>), s,
           GRID(n_items, s.a.n_heads / s.a.group, BY_DIV_UP(s.a.group, (uint32_t)H)), THREADS,
           (4 * H + H * s.a.y.k_pad + keys) * sizeof(float));
}

template <int T>
static void launch_for(struct cuda *c, const struct span_args &s, uint32_t n_items) {
    if (T != KV_F32 || s.a.group > 4)
        launch<T, 8>(c, s, n_items);
    else if (s.a.group == 1)
        launch<KV_F32, 1>(c, s, n_items);
    else if (s.a.group == 2)
        launch<KV_F32, 2>(c, s, n_items);
    else
        launch<KV_F32, 4>(c, s, n_items);
}

static void launch_spans(struct cuda *c, enum kv_dtype t, const struct span_args &s,
                         uint32_t n_items) {
    if (t == KV_F32)
        launch_for<KV_F32>(c, s, n_items);
    else if (t == KV_BF16)
        launch_for<KV_BF16>(c, s, n_items);
    else if (t == KV_F16)
        launch_for<KV_F16>(c, s, n_items);
    else if (t == KV_INT8)
        launch_for<KV_INT8>(c, s, n_items);
    else
        launch_for<KV_FP8>(c, s, n_items);
}

/* What a row sees, in spans of `each` keys. */
struct seen {
    uint32_t from, to, each, n;
};

/* A row of more spans than there is room for parts has longer ones: still a matter of its position alone. */
static struct seen spans_of(const struct op_attention *o, const struct seq_rows *s, uint32_t i,
                            uint32_t n_parts) {
    struct seen x;
    uint32_t own = s->position + i;
    x.from = o->window && own + 1 > o->window ? own + 1 - o->window : 0;
    x.to = s->position + (o->is_full ? s->n : i + 1);
    for (x.each = CUDA_SPAN;; x.each *= 2) {
        x.n = (x.to - 1) / x.each - x.from / x.each + 1;
        if (x.n <= n_parts) return x;
    }
}

struct round {
    uint32_t seq, row; /* where it begins */
    uint32_t n_rows, n_items, n_parts;
};

/* Rows from (seq, i) on whose parts fit. */
static struct round round_from(const struct op_attention *o, uint32_t seq, uint32_t row,
                               uint32_t end, uint32_t n_parts) {
    struct round r = {seq, row, 0, 0, n_parts};
    while (row < end) {
        const struct seq_rows *s = &o->seqs[seq];
        if (row >= s->first + s->n) {
            seq++;
            continue;
        }
        uint32_t n = spans_of(o, s, row - s->first, n_parts).n;
        if (r.n_items + n > n_parts) break;
        r.n_items += n;
        r.n_rows++;
        row++;
    }
    return r;
}

static void fill_round(const struct op_attention *o, const struct round *r,
                       struct attend_item *items, struct attend_merge *merges) {
    uint32_t seq = r->seq, n = 0;
    for (uint32_t i = 0; i < r->n_rows; i++) {
        uint32_t row = r->row + i;
        while (row >= o->seqs[seq].first + o->seqs[seq].n)
            seq++;
        struct seen x = spans_of(o, &o->seqs[seq], row - o->seqs[seq].first, r->n_parts);
        merges[i].row = row, merges[i].first = n;
        for (uint32_t at = x.from; at < x.to; n++) {
            uint32_t end = BY_MIN(x.to, (at / x.each + 1) * x.each);
            items[n].row = row, items[n].from = at, items[n].to = end, items[n].part = n;
            at = end;
        }
        merges[i].n = n - merges[i].first;
    }
}

/* The grid's size is part of a graph: it grows by powers of two, and the rest are items that are none. */
static uint32_t grid_of(uint32_t n) {
    uint32_t g = 16;
    while (g < n)
        g *= 2;
    return g;
}

static void run_round(struct cuda *c, const struct op_attention *o, const struct attend *a,
                      const struct round *r) {
    struct span_args s;
    struct merge_args m;
    uint32_t n_grid = grid_of(r->n_items);
    const void *there;
    /* Layers of one window, and as many rows a round, share their lists: items, then merges. */
    uint64_t variant = (uint64_t)r->row << 40 ^ (uint64_t)o->window << 8 ^ (o->is_full ? 128 : 0);
    size_t item_bytes = n_grid * sizeof(struct attend_item);
    bool is_new;
    uint8_t *host = (uint8_t *)queue_room(c->queue, o->seqs, variant ^ CUDA_ROOM_ITEMS,
                                          item_bytes + r->n_rows * sizeof(struct attend_merge),
                                          &there, &is_new);
    if (is_new) {
        memset(host, 0, item_bytes);
        fill_round(o, r, (struct attend_item *)host, (struct attend_merge *)(host + item_bytes));
    }
    memset(&s, 0, sizeof s);
    s.a = *a, s.items = (const struct attend_item *)there, s.parts = c->parts;
    if (attention_fits_heads(o))
        attention_heads(c, o->kv.dtype, &s, n_grid);
    else if (attention_fits_strips(o))
        attention_strips(c, o->kv.dtype, &s, n_grid);
    else
        launch_spans(c, o->kv.dtype, s, n_grid);
    memset(&m, 0, sizeof m);
    m.a = *a, m.parts = c->parts;
    m.rows = (const struct attend_merge *)((const uint8_t *)there + item_bytes);
    LAUNCH(c, merge_kernel, m, GRID(r->n_rows, a->n_heads, 1), THREADS, 0);
}

extern "C" void attention_spans(struct cuda *c, const struct op_attention *o,
                                const struct attend *a, uint32_t first, uint32_t n) {
    uint32_t n_parts =
        (uint32_t)(c->part_bytes / ((size_t)a->n_heads * (a->v_dim + 2) * sizeof(float)));
    uint32_t seq = 0;
    for (uint32_t row = first; row < first + n;) {
        while (row >= o->seqs[seq].first + o->seqs[seq].n)
            seq++;
        struct round r = round_from(o, seq, row, first + n, n_parts);
        run_round(c, o, a, &r);
        row += r.n_rows;
    }
}
