/* Attention of prompts on sm_90a: tiles of 128 rows of a sequence and one query head against blocks of 128 keys. One warpgroup
 * brings keys and values, two multiply, 64 rows each; the softmax of one block runs beside the product of the last one's weights
 * with its values. See attention.h.
 *
 *     item:   0 keys 0   1 values 0   2 keys 1   3 values 1   4 keys 2 …         slot: item % 4, [D / 64] panels of 128 rows
 *     pages ─copy16─▶ slot ─full─▶ s = q · k^T ─▶ p, shrink ─▶ o = o * shrink + p · v ─empty─▶ the slot's next item
 *
 * Keys lie as rows, values as rows that are turned: both are as they lie in their pages, and only 16 bytes at a time move.
 * Slow twin: cpu_attention. */
#include "gpu_worker/cuda/attention_rows.cuh"
#include "gpu_worker/cuda/copies.cuh"
#include "gpu_worker/cuda/proven.h"
#include "gpu_worker/cuda/wgmma.cuh"

#include <string.h>

enum {
    GROUP = 128, /* threads of a warpgroup */
    GROUP_ROWS = 64,
    GROUPS_MAX = 2, /* that multiply */
    KEYS = 128,     /* of a block */
    SLOTS = 4,
    LATE = 2,   /* so many items are under way before the first of them is waited for */
    STRIP = 16, /* keys that lie in one page */
    COLUMNS_MAX = 128,
    ROW_BYTES = 128,
    PANEL = KEYS * ROW_BYTES,
    ALIGN = 1024,
    /* 65536 registers, for all three: 168 each at the start. */
    BRINGING_REGISTERS = 40,
    MULTIPLYING_REGISTERS = 232,
};

#if HAS_WGMMA

/* Where slots and their barriers lie in shared memory. */
struct ring {
    uint32_t slots, slot_bytes, barriers;
};

static __device__ __forceinline__ uint32_t slot_of(const struct ring &r, uint32_t item) {
    return r.slots + item % SLOTS * r.slot_bytes;
}

static __device__ __forceinline__ uint32_t full_of(const struct ring &r, uint32_t item) {
    return r.barriers + item % SLOTS * 16;
}

static __device__ __forceinline__ uint32_t empty_of(const struct ring &r, uint32_t item) {
    return full_of(r, item) + 8;
}

/* ---- the warpgroup that brings ---- */

/* Keys, or values, of positions base … base + 127 into a slot, zero outside [from, to). */
template <int D>
static __device__ __forceinline__ void
bring_item(const struct attend &a, const struct attend_tile &t, uint32_t head,
           const uint32_t *pages, bool is_value, uint32_t base, uint32_t slot) {
    const uint32_t n_chunks = D / 8, n_rows = 32 / n_chunks; /* that a warp brings at a time */
    const uint32_t lane = threadIdx.x % 32, chunk = lane % n_chunks, r = lane / n_chunks;
    const uint32_t step = is_value ? a.y.v_step : a.y.k_step;
    const bool is_column = 8 * chunk < (is_value ? a.y.v_pad : a.y.k_pad);
    for (uint32_t s = threadIdx.x % GROUP / 32; s < KEYS / STRIP; s += GROUP / 32) {
        uint32_t at = base + STRIP * s, in_page = at % a.page_size;
        const uint8_t *from = a.pool + head * a.y.head_bytes + (is_value ? a.y.v_at : 0);
        if (at < t.to && at + STRIP > t.from) from += pages[at / a.page_size] * a.y.page_bytes;
        from += (size_t)(in_page + r) * step + 16 * chunk;
        for (uint32_t i = 0; i < STRIP; i += n_rows, from += n_rows * step) {
            uint32_t key = STRIP * s + i + r, seen = base + key;
            copy16(slot + chunk / 8 * PANEL + key * ROW_BYTES + (chunk ^ key) % 8 * 16, from,
                   is_column && seen >= t.from && seen < t.to ? 16 : 0);
        }
    }
}

template <int D>
static __device__ void bring(const struct attend &a, const struct attend_tile &t, uint32_t head,
                             const uint32_t *pages, const struct ring &ring) {
    const uint32_t first = t.from / KEYS, n = 2 * (BY_DIV_UP(t.to, (uint32_t)KEYS) - first);
    for (uint32_t i = 0; i < n + LATE; i++) {
        if (i >= SLOTS && i < n) barrier_wait(empty_of(ring, i), (i / SLOTS - 1) % 2);
        if (i < n)
            bring_item<D>(a, t, head, pages, i % 2, (first + i / 2) * KEYS, slot_of(ring, i));
        copies_commit();
        if (i < LATE) continue;
        copies_wait<LATE>();
        fence_async();
        barrier_arrive(full_of(ring, i - LATE));
    }
}

/* ---- the warpgroups that multiply ---- */

static __device__ __forceinline__ void wait_full(const struct ring &ring, uint32_t item) {
    barrier_wait(full_of(ring, item), item / SLOTS % 2);
}

static __device__ __forceinline__ void give_back(const struct ring &ring, uint32_t item) {
    if (threadIdx.x % 32 == 0) barrier_arrive(empty_of(ring, item));
}

/* Begins s = q · k^T. */
template <int T, int D>
static __device__ __forceinline__ void begin_scores(float (&s)[KEYS / 8][4],
                                                    const uint32_t (&q)[D / 16][4], uint32_t keys) {
    wgmma_fence();
    for (int h = 0; h < KEYS / 64; h++)
        for (int d = 0; d < D / 16; d++)
            wgmma<T == KV_F16, false>(
                s, 8 * h, q[d], wgmma_rows(keys + d / 4 * PANEL + h * 64 * ROW_BYTES + d % 4 * 32),
                d > 0);
    wgmma_commit();
}

/* Begins o += p · v. */
template <int T, int D>
static __device__ __forceinline__ void begin_sums(float (&out)[D / 8][4],
                                                  uint32_t (&p)[KEYS / 16][4], uint32_t values) {
    wgmma_settle(out);
    wgmma_settle(p);
    wgmma_fence();
    for (int k = 0; k < KEYS / 16; k++)
        for (int d = 0; d < D / 64; d++)
            wgmma<T == KV_F16, true>(out, 8 * d, p[k],
                                     wgmma_rows(values + d * PANEL + k * 16 * ROW_BYTES), true);
    wgmma_commit();
}

template <int T, int D>
static __device__ __forceinline__ void multiply(const struct attend &a, const struct attend_tile &t,
                                                uint32_t head, const struct ring &ring) {
    float s[KEYS / 8][4], out[D / 8][4] = {}, shrink[2];
    uint32_t q[D / 16][4], p[KEYS / 16][4], base = t.from / KEYS * KEYS, item = 0;
    struct carried c = carry(a, t, head);
    load_queries<T, D>(a, t, head, q);
    wgmma_settle(q);
    wait_full(ring, item);
    begin_scores<T, D>(s, q, slot_of(ring, item));
    wgmma_wait<0>();
    wgmma_settle(s);
    give_back(ring, item);
    weigh(a, c, base, s, shrink); /* nothing to shrink yet */
    for (int k = 0; k < KEYS / 16; k++)
        pack_weights<T>(s, k, p[k]);
    for (base += KEYS, item = 1; base < t.to; base += KEYS, item += 2) {
        wait_full(ring, item + 1);
        begin_scores<T, D>(s, q, slot_of(ring, item + 1));
        begin_sums<T, D>(out, p, slot_of(ring, item)); /* items come in order: it is full too */
        wgmma_wait<1>();
        wgmma_settle(s);
        give_back(ring, item + 1);
        weigh(a, c, base, s, shrink);
        wgmma_wait<0>();
        wgmma_settle(out);
        wgmma_settle(p);
        give_back(ring, item);
        shrink_sums(out, shrink);
        for (int k = 0; k < KEYS / 16; k++)
            pack_weights<T>(s, k, p[k]);
    }
    wait_full(ring, item);
    begin_sums<T, D>(out, p, slot_of(ring, item));
    wgmma_wait<0>();
    wgmma_settle(out);
    store_rows(a, t, head, c, out);
}

template <int T, int D> static __device__ __forceinline__ void run(const struct tile_args &args) {
    const struct attend &a = args.a;
    const struct attend_tile t = args.tiles[blockIdx.y];
    const uint32_t head = blockIdx.x, n_multiply = blockDim.x - GROUP;
    SHARED(uint8_t, bytes);
    struct ring ring;
    ring.slots = BY_ALIGN_UP(shared_address(bytes), (uint32_t)ALIGN);
    ring.slot_bytes = D / 64 * PANEL, ring.barriers = ring.slots + SLOTS * ring.slot_bytes;
    if (threadIdx.x < SLOTS) {
        barrier_init(full_of(ring, threadIdx.x), GROUP);
        barrier_init(empty_of(ring, threadIdx.x), n_multiply / 32);
    }
    __syncthreads();
    if (threadIdx.x < n_multiply) {
        registers_take<MULTIPLYING_REGISTERS>();
        multiply<T, D>(a, t, head, ring);
    } else {
        registers_give<BRINGING_REGISTERS>();
        bring<D>(a, t, head / a.group, a.pages + a.rows[t.row].first_page, ring);
    }
}

#else

/* Code for another device: nobody starts it there (attention_fits_wgmma). */
template <int T, int D> static __device__ __forceinline__ void run(const struct tile_args &) {
    __trap();
}

#endif

template <int T, int D>
static __global__ void __launch_bounds__((GROUPS_MAX + 1) * GROUP, 1)
    wgmma_kernel(const struct tile_args args) {
    begin();
    run<T, D>(args);
}

/* ---- host ---- */

template <int T, int D>
static void launch(struct cuda *c, const struct tile_args &args, uint32_t n_groups,
                   uint32_t n_tiles) {
    LAUNCH(c, (wgmma_kernel<T, D>), args, GRID(args.a.n_heads, n_tiles, 1), (n_groups + 1) * GROUP,
           ALIGN + SLOTS * (D / 64 * PANEL + 16));
}

template <int T>
static void launch_for(struct cuda *c, const struct tile_args &args, uint32_t n_groups,
                       uint32_t n_tiles) {
    if (args.a.k_dim <= 64 && args.a.v_dim <= 64)
        launch<T, 64>(c, args, n_groups, n_tiles);
    else
        launch<T, 128>(c, args, n_groups, n_tiles);
}

#if defined(BANYAN_CUDA_EMU) || defined(BANYAN_SM90A)
static const bool is_compiled = true;
#else
static const bool is_compiled = false;
#endif

extern "C" bool attention_fits_wgmma(const struct cuda *c, const struct op_attention *o) {
    return is_compiled && c->proven & PROVEN_WGMMA && c->device.major == 9 &&
           c->device.minor == 0 && (o->kv.dtype == KV_BF16 || o->kv.dtype == KV_F16) &&
           BY_MAX(o->kv.k_dim, o->kv.v_dim) <= COLUMNS_MAX && o->kv.page_size % STRIP == 0 &&
           attention_fits_tiles(o);
}

extern "C" void attention_wgmma(struct cuda *c, const struct op_attention *o,
                                const struct attend *a, const struct seq_rows *s, uint32_t first,
                                uint32_t n) {
    const uint32_t n_groups = BY_MIN(BY_DIV_UP(n, (uint32_t)GROUP_ROWS), (uint32_t)GROUPS_MAX),
                   n_each = n_groups * GROUP_ROWS;
    struct tile_args args;
    memset(&args, 0, sizeof args);
    args.a = *a, args.tiles = attention_tiles_of(c, o, s, first, n, n_each, CUDA_ROOM_WGMMA);
    if (o->kv.dtype == KV_BF16)
        launch_for<KV_BF16>(c, args, n_groups, BY_DIV_UP(n, n_each));
    else
        launch_for<KV_F16>(c, args, n_groups, BY_DIV_UP(n, n_each));
}
