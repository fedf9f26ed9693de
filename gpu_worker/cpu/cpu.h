/* cpu.h - what the files of this room share: the backend, a lane and its own memory, a packed weight, the KV layout.
 *
 *     struct cpu = struct backend (first) + team + kernels + lanes        struct lane = own scratch, sized when weights
 *                                                                         and pools are made: a step allocates nothing
 *     op, collective:  fill a shared tile ─barrier─ strips, dynamically ─barrier─       (more than 4 rows)
 *                      each lane fills its own tile, strips, dynamically ─barrier─      (up to 4 rows)
 *         solo:        own tile, all strips; no barrier
 *
 * Always: scratch of a lane is touched by that lane alone.
 * Owner: the gpu worker's main thread; lanes during run. */
#ifndef GPU_WORKER_CPU_CPU_H
#define GPU_WORKER_CPU_CPU_H

#include "gpu_worker/cpu/cpu_backend.h"
#include "gpu_worker/cpu/cpu_kernels.h"
#include "gpu_worker/cpu/cpu_threads.h"

#include <stdatomic.h>

enum {
    CPU_FEW_ROWS = 4,    /* up to here each lane fills its own tile: cheaper than a barrier */
    CPU_BLOCK_ROWS = 96, /* rows whose activations are shared at once: 8 tiles in L2 */
    CPU_SOLO_ROWS = 96,  /* the same for one lane: each strip comes from memory once for so many */
    CPU_FEW_TILES = 4,   /* tiles a lane below which attention is shared out by spans */
    CPU_SOLO_BYTES = 4 << 20, /* of activations of one lane, unless a single tile needs more */
};

struct weight {
    enum cpu_format format;
    uint32_t n_out, n_in;
    uint32_t n_strips;  /* gated: gate, up, gate, up … */
    size_t strip_bytes; /* a multiple of 64 */
    bool is_gated;
    uint8_t *strips;
    float *bias; /* [n_strips * 16] in the order of the strips, or NULL */
};

struct cpu;

struct lane {
    struct cpu *cpu;
    uint32_t id;
    bool is_solo;
    float *row;   /* [row_cap]: one row, normed */
    uint8_t *act; /* [act_cap]: tiles */
    float *sums;  /* [CPU_TILE_MAX * 2 * CPU_STRIP] */
    float *fine;  /* [CPU_BLOCK_ROWS * 2 * CPU_STRIP]: sums of remainders */
    /* attention: [k_dim * 12], 2 x [v_pad * 12], [24 * CPU_KEYS] */
    float *query, *acc, *span_acc, *scores;
} __attribute__((aligned(64)));

struct cpu {
    struct backend b; /* first: the two are cast into each other */
    const struct cpu_kernels *k;
    struct cpu_linear_kernel linear[CPU_N_FORMATS];
    cpu_fill_fn *fill[CPU_ACT_I8X2 + 1];
    struct cpu_team *team;
    struct lane *lanes;
    struct cpu_options options;
    uint32_t row_cap;           /* columns of lane.row: widest n_in */
    uint32_t k_cap, v_cap;      /* columns of the attention scratch */
    size_t act_cap, shared_cap; /* bytes */
    uint8_t *shared;            /* tiles of CPU_BLOCK_ROWS rows */
    float *slots;               /* [slots_cap]: spans of attention before they are merged */
    size_t slots_cap;
    uint64_t nodes; /* of memory, see cpu_numa.h */
    char name[96];
    struct slab *slabs[3]; /* weights, kv, other: the one that still has room */
    uint64_t n_bytes[3];
};

static inline struct cpu *cpu_of(struct backend *b) {
    return (struct cpu *)b;
}

/* ---- memory (cpu_backend.c) ---- */
enum cpu_purpose { CPU_MEM_WEIGHTS, CPU_MEM_KV, CPU_MEM_OTHER };
/* zeroed, 64-byte aligned; NULL: none */
void *cpu_alloc(struct cpu *c, size_t bytes, enum cpu_purpose what);
void cpu_free(struct cpu *c, void *p);
/* Scratch for weights of n_in columns whose rows take act_bytes in a tile, for pools of these shapes; false: no memory. */
BY_MUST_USE bool cpu_reserve_row(struct cpu *c, uint32_t n_in, size_t act_bytes);
BY_MUST_USE bool cpu_reserve_attention(struct cpu *c, uint32_t k_dim, uint32_t v_dim);

/* ---- sharing out: a solo lane takes everything ---- */
struct cpu_share {
    struct lane *l;
    uint32_t n, next;
};

static inline bool cpu_is_alone(const struct lane *l) {
    return l->is_solo || l->cpu->b.n_lanes == 1;
}

static inline struct cpu_share cpu_share(struct lane *l, uint32_t n) {
    return (struct cpu_share){l, n, 0};
}

/* The next of 0 … n-1 for this lane; UINT32_MAX: no more. */
static inline uint32_t cpu_share_next(struct cpu_share *s) {
    if (!cpu_is_alone(s->l)) return cpu_team_next(s->l->cpu->team, s->l->id, s->n);
    return s->next < s->n ? s->next++ : UINT32_MAX;
}

static inline void cpu_meet(struct lane *l) {
    if (!cpu_is_alone(l)) cpu_team_meet(l->cpu->team, l->id);
}

/* Pieces into which n units are cut: about 4 a lane. */
static inline uint32_t cpu_n_pieces(const struct lane *l, uint32_t n) {
    return cpu_is_alone(l) ? 1 : BY_MIN(n, 4 * l->cpu->b.n_lanes);
}

/* ---- activation tiles: rows [t * n / n_tiles, (t + 1) * n / n_tiles) ---- */
static inline uint32_t cpu_tile_start(uint32_t n, uint32_t n_tiles, uint32_t t) {
    return (uint32_t)((uint64_t)n * t / n_tiles);
}

size_t cpu_act_bytes(enum cpu_act act, uint32_t n_in); /* of one row in a tile */

/* Rows to fill a block of tiles from. */
struct cpu_source {
    const float *x;
    uint32_t ld, col;
    const struct norm *norm;
    const uint32_t *rows;   /* row r reads x row rows[r]; NULL: r */
    const uint8_t *is_fine; /* by x row, or NULL: see op_linear */
    uint32_t fine_each;     /* so many x rows have one entry in is_fine; 0: one */
    uint32_t first, n;
};

/* A block of rows as tiles. A fine row's values are two int8 each: its own tiles hold the first, those behind hold what is
 * left, as rows of the same form; the two sums are added. When all fit into one tile they are one, so that a strip is
 * gone through once. */
struct cpu_tiles {
    uint8_t *p; /* n rows, then n_fine */
    uint32_t n, n_tiles, n_fine, n_fine_tiles;
    bool is_joined; /* one tile of n + n_fine rows, n_fine_tiles is 0 */
    /* of row i: 1 + its place among the fine ones; 0: it is not one */
    uint8_t fine[CPU_BLOCK_ROWS];
    uint8_t fine_row[CPU_BLOCK_ROWS]; /* the row at that place */
};
struct cpu_tiles cpu_tiles(const struct lane *l, const struct weight *w, const struct cpu_source *s,
                           uint8_t *room);
/* Fills tile t of n_tiles + n_fine_tiles with rows of s for w. */
void cpu_fill_tile(struct lane *l, const struct weight *w, const struct cpu_source *s,
                   const struct cpu_tiles *tiles, uint32_t t);

/* Where sums of a block of rows go: row i of the block to y + rows[i] * ld (rows NULL: i). */
struct cpu_target {
    float *y;
    uint32_t ld, col;
    uint32_t out_first; /* column of the weight that comes to `col` */
    const uint32_t *rows;
    enum act_kind act;
    bool is_add;
    float scale, softcap;
};
/* Columns of strips (gated: of pairs of strips) [from, to) for the rows in tiles. */
void cpu_strips(struct lane *l, const struct weight *w, const struct cpu_tiles *tiles,
                uint32_t from, uint32_t to, const struct cpu_target *out);
uint32_t cpu_n_units(const struct weight *w); /* strips or pairs of them */
uint32_t cpu_n_tiles(const struct cpu *c, const struct weight *w, uint32_t n);
/* Rows a lane alone takes at once with weights of n_in columns. */
uint32_t cpu_solo_rows(const struct cpu *c, const struct weight *w);

/* ---- packing (cpu_pack.c) ---- */
int cpu_weight_new(struct backend *b, struct weight **out, const struct weight_source *src,
                   struct by_err *err);
void cpu_weight_free(struct backend *b, struct weight *w);
/* y = fma(scale, row `out` of w, y), or scale * row. */
void cpu_weight_row(const struct weight *w, uint32_t out, float scale, bool is_add, float *y);

/* ---- the KV cache (cpu_kv.c): page | kv head | group of 16 tokens: K [k_dim][16], V [16][v_pad], scales ---- */
struct cpu_kv_layout {
    uint32_t v_pad, v_at, scale_at, n_groups; /* of a page */
    size_t group_bytes, head_bytes, page_bytes;
};
struct cpu_kv_layout cpu_kv_layout(const struct kv_shape *s);
size_t cpu_kv_page_bytes(const struct backend *b, const struct kv_shape *s);
void *cpu_kv_new(struct backend *b, const struct kv_shape *s, uint32_t n_pages);
void cpu_kv_free(struct backend *b, void *pool);
struct rope_table *cpu_rope_new(struct backend *b, const struct rope_source *src);
void cpu_rope_free(struct backend *b, struct rope_table *t);

/* ---- the ops ---- */
void cpu_embed(struct lane *l, const struct op_embed *o);
void cpu_linear(struct lane *l, const struct op_linear *o);
void cpu_linear_heads(struct lane *l, const struct op_linear_heads *o);
void cpu_norm(struct lane *l, const struct op_norm *o);
void cpu_kv_write(struct lane *l, const struct op_kv_write *o);
void cpu_attention(struct lane *l, const struct op_attention *o);
void cpu_route(struct lane *l, const struct op_route *o);
void cpu_experts(struct lane *l, const struct op_experts *o);
void cpu_gate(struct lane *l, const struct op_gate *o);
void cpu_conv(struct lane *l, const struct op_conv *o);
void cpu_delta(struct lane *l, const struct op_delta *o);
void cpu_ssm(struct lane *l, const struct op_ssm *o);
void cpu_copy(struct lane *l, const struct op_copy *o);

#endif
