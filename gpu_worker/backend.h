/* backend.h - the operations of a forward pass, and who carries them out: the one seam between models and hardware.
 *
 *     models/decoder.c ──ops──▶ struct backend ◀── cpu/ (portable truth, AVX2, AVX-512)      ◀── cuda/
 *
 *     lanes: a CPU backend has one a thread, a GPU one in all. backend->run lets every lane run the same function, and
 *     an op is a collective call: every lane calls it with equal arguments, they share its work, and nobody returns
 *     before all of it is done. A lane that is `solo` does an op alone and waits for nobody: decoder.c hands each lane
 *     its own rows of a long prompt that way, and the same code serves both.
 *
 *         all lanes, rows 0 … n        |####|####|####|####|   a barrier after each op: decode, short steps
 *         solo, up to 96 rows each     |#### all ops ####|     a barrier a layer: prefill
 *
 * Always: the bits of a row's result depend on that row's inputs alone (and its keys): not on the other rows, their
 * number, `first`, the lanes or solo (DESIGN D6). Sums run in an order fixed by the shape of the weight.
 * Activations are rows of f32 in backend memory (a GPU may use another type behind the same pointers: address them by
 * row and column numbers, never by arithmetic). Small arrays that ops read (positions, pages, row lists) are host memory and
 * stay unchanged until run returns.
 * Owner: one gpu worker; its main thread calls run. Compiles as C++ for the CUDA side. */
#ifndef GPU_WORKER_BACKEND_H
#define GPU_WORKER_BACKEND_H

#include "common/base/err.h"
#include "common/modelfile/dtype.h"

struct backend;
struct lane;   /* one executing thread (CPU) or stream (GPU) */
struct weight; /* a matrix [n_out, n_in] as the backend keeps it (packed) */

/* ---- weights ---- */

/* Where a matrix comes from. Rows are asked for in any order and from several threads; each once or a few times. */
struct weight_source {
    uint32_t n_out, n_in;
    /* of what row() gives: floats, or ggml blocks. A backend may widen, never narrow it silently */
    enum by_dtype dtype;
    void (*row)(const void *ctx, uint32_t out, void *bytes); /* n_in elements of dtype */
    const void *ctx;
    const float *bias; /* [n_out] or NULL; copied */
    /* Rows 0 … n_out/2-1 are the gate and the rest the up projection of a gated feed-forward: op_linear then yields
     * n_out/2 columns, act(gate) * up. n_out/2 may be any number. */
    bool is_gated;
    bool is_row_lookup; /* op_embed will read rows of it too */
    uint32_t out_n;     /* of op_linear's calls, where it is not 0: so many rows are multiplied */
};

enum norm_kind { NORM_RMS, NORM_LAYER };
/* RMS: y = x / sqrt(mean(x^2) + eps) * w        LAYER: y = (x - mean) / sqrt(var + eps) * w + b */
struct norm {
    enum norm_kind kind;
    float eps;
    /* [n], backend memory (backend->put); b NULL: none. A family's 1 + w is already in w */
    const float *w, *b;
};

enum act_kind {
    ACT_NONE,
    ACT_SILU,
    ACT_GELU, /* with erf */
    ACT_GELU_TANH,
    ACT_RELU,
    ACT_RELU2,
    ACT_QUICK_GELU,
    /* gated only, gpt-oss: g = min(g, 7), u = clamp(u, -7, 7): g * sigmoid(1.702 g) * (u + 1) */
    ACT_TANH, /* BERT's pooler */
    ACT_SWIGLU_OAI,
};

/* ---- ops: rows `first` … first + n - 1 of the named buffers ---- */

enum { EMBED_LAST = INT32_MIN }; /* the highest bit of an id: no vocabulary is so large */

/* out[r] = table[ids[r]] * scale (+ positions table, + types table) */
struct op_embed {
    const struct weight *table;
    /* [first + n]. EMBED_LAST | slot: the id in last[slot], backend memory that op_sample wrote; NULL on a host */
    const uint32_t *ids, *last;
    float scale;
    const struct weight *pos_table; /* learned positions, or NULL */
    const uint32_t *positions;      /* [first + n]; pos_offset is added to each */
    uint32_t pos_offset;
    /* BERT's token types, or NULL; row 0 of it is added, or types[r] */
    const struct weight *type_table;
    const uint32_t *types;
    float *out; /* [rows, ld] */
    uint32_t ld, first, n;
};

/* y[:, y_col …] = or += scale * act(norm(x[:, x_col …]) · w^T + bias).  Row r reads x row rows[r] when rows is given. */
struct op_linear {
    const struct weight *w;
    const float *x;
    uint32_t x_ld, x_col;
    const struct norm *norm; /* of the n_in columns read, first; NULL: none */
    enum act_kind act;       /* for a gated weight the gate's; else of each output */
    float *y;
    uint32_t y_ld, y_col;
    bool is_add;          /* y += scale * …; else y = scale * … */
    float scale;          /* 1: none */
    float softcap;        /* > 0: softcap * tanh(v / softcap), last of all (logits) */
    const uint32_t *rows; /* [first + n] or NULL */
    /* By x row (host memory), or NULL: rows that a backend which rounds activations (int8) shall round more finely. */
    const uint8_t *is_fine;
    /* Only outputs out_first … + out_n - 1 of a weight that is not gated; out_first: a multiple of 16, and column 0 of what is
     * written. out_n 0: all */
    uint32_t out_first, out_n;
    uint32_t first, n;
};

/* The same for n_heads small matrices at once (DeepSeek's MLA): head h reads columns x_col + h * x_step, writes
 * y_col + h * y_step. No norm, no act, no bias, no add. n_copy columns of each head go over as they are, from x_copy_col
 * after the head's first column to y_copy_col after its first. */
struct op_linear_heads {
    const struct weight *const *w; /* [n_heads] */
    uint32_t n_heads;
    const float *x;
    uint32_t x_ld, x_col, x_step;
    float *y;
    uint32_t y_ld, y_col, y_step;
    uint32_t n_copy, x_copy_col, y_copy_col;
    uint32_t first, n;
};

/* y = scale * norm(x), or y += scale * norm(x): final and post norms, standalone. norm NULL: y = or += scale * x. */
struct op_norm {
    const float *x;
    uint32_t x_ld, x_col, width;
    /* so many times width columns, one after the other, each normed alone; 0: one */
    uint32_t n_parts;
    bool parts_differ; /* each part has weights of its own: the norm's are [n_parts * width] */
    const struct norm *norm;
    float *y;
    uint32_t y_ld, y_col;
    bool is_add;
    float scale;
    uint32_t first, n;
};

/* One sequence's rows of a step, and where its keys and values lie. */
struct seq_rows {
    uint32_t first, n;     /* rows of the step */
    uint32_t position;     /* of its first row: so many tokens are already in the pages */
    const uint32_t *pages; /* token t lies in pages[t / page_size] */
    uint32_t slot;         /* whose states it has: op_conv, op_delta */
};

/* Sequences of one row, those whose pages begin alike side by side: order[i] (a number in seqs) and order[i - 1] have their
 * first common[i] tokens in the same pages; common[0] is 0. */
struct shared_prefixes {
    const uint32_t *order, *common; /* [n] */
    uint32_t n;
};

/* INT8 and FP8 (E4M3): with an f32 scale for each head of a token, its keys and its values apart. FP8: has_fp8_kv. */
enum kv_dtype { KV_F32, KV_BF16, KV_F16, KV_INT8, KV_FP8 };

/* A layer's cache, laid out as the backend likes: shape only. */
struct kv_shape {
    uint32_t n_kv_heads, k_dim, v_dim, page_size; /* page_size: a multiple of 16 */
    enum kv_dtype dtype;
    /* Values are the first v_dim columns of their keys, which kv_write finds there too (v_col == k_col): a backend may keep
     * them once. */
    bool v_in_k;
};

struct rope_table; /* cos and sin by position, backend memory: see rope_new below */

/* What queries are multiplied by, so that softmax stays sharp over many keys: 1 + beta * ln(1 + position / every), the quotient
 * a whole number. every 0: nothing. */
struct growth {
    float beta;
    uint32_t every;
};

/* q and k of each row: optional norm a head, rotation, q's growth; then k and v into the pages. q turns in place. */
struct op_kv_write {
    float *x; /* [rows, ld]: q heads at q_col, k heads at k_col, v heads at v_col */
    uint32_t ld, q_col, k_col, v_col;
    uint32_t n_heads, q_dim; /* query heads of q_dim columns (q_dim == kv.k_dim but for MLA) */
    /* over each head's columns (qk_whole: over all of q, all of k), or NULL */
    const struct norm *q_norm, *k_norm;
    bool qk_whole;
    bool norm_is_last; /* the norms come after the rotation; not with qk_whole */
    struct growth q_growth;
    const struct rope_table *rope; /* NULL: none */
    bool is_interleaved;           /* pairs (2i, 2i+1), else (i, i + n_rot/2) */
    uint32_t q_rot_col, k_rot_col; /* first turned column within a head */
    struct kv_shape kv; /* no heads: keys and values are another layer's, queries only are turned */
    void *pool;         /* this layer's, from kv_new */
    const uint32_t *positions;   /* [rows] */
    const struct seq_rows *seqs; /* of the whole step */
    uint32_t n_seqs, first, n;   /* rows first … of the step; those outside are left alone */
};

/* out[row, head] = sum over seen keys of softmax(scale * q·k, capped, masked) * v, in blocks of 64 keys by position. */
struct op_attention {
    const float *q;
    uint32_t q_ld, q_col, n_heads; /* heads of kv.k_dim columns; n_heads % kv.n_kv_heads == 0 */
    float scale, softcap;          /* softcap 0: none */
    uint32_t window;               /* 0: all; else the last `window` positions, its own included */
    /* encoders: every row sees all of its sequence's keys (position + n of them) */
    bool is_full;
    /* [n_heads] backend memory, or NULL: a logit that only takes mass */
    const float *sinks;
    struct kv_shape kv;
    const void *pool;
    float *out;
    uint32_t out_ld, out_col; /* heads of kv.v_dim columns */
    const struct seq_rows *seqs;
    uint32_t n_seqs, first, n;
    /* All sequences of one row, or none: a backend may read what they share once for several. Changes no bit. */
    struct shared_prefixes prefixes;
};

/* Which experts a row goes to, from its router logits. */
struct op_route {
    const float *logits;
    uint32_t logits_ld, n_experts, n_used;
    bool is_sigmoid;          /* score = sigmoid(logit), else softmax over all experts */
    bool norm_topk;           /* weights are made to sum to 1 */
    const float *choice_bias; /* [n_experts] added for the choice only (DeepSeek V3), or NULL */
    uint32_t n_groups, n_groups_used; /* 1, 1: none */
    bool group_by_top2;
    float scale;
    const float
        *weight_scale; /* [n_experts] its weight is multiplied by, last of all (Gemma 4), or NULL */
    uint32_t *experts; /* out [rows, n_used]: ties to the lower expert; backend memory */
    float *weights;    /* out [rows, n_used] */
    uint32_t first, n;
};

/* y[r] += scale * sum over k of weights[r][k] * down_e(act(gate_e(norm(x[r]))) * up_e(…)), e = experts[r][k], in the order of k. */
struct op_experts {
    const struct weight *const *gate_up; /* [n_experts], is_gated */
    const struct weight *const *down;    /* [n_experts] */
    uint32_t n_experts, n_used;
    const uint32_t *experts;
    const float *weights;
    const float *x;
    uint32_t x_ld;
    const struct norm *norm;
    enum act_kind act;
    float *y;
    uint32_t y_ld;
    float scale;
    float *scratch;         /* [rows * n_used, ffn + hidden] */
    const uint8_t *is_fine; /* by x row, or NULL: see op_linear */
    uint32_t first, n;
};

/* x[:, width] *= sigmoid(gate[:, gate_col]) (Qwen2-MoE's shared expert), or column by column (Qwen3-Next's attention) */
struct op_gate {
    float *x;
    uint32_t ld, width;
    const float *gate;
    uint32_t gate_ld, gate_col;
    bool is_by_column; /* x's column i by the gate's column gate_col + i */
    bool is_plain;     /* the gate as it is, without the sigmoid; by column (Gemma 4) */
    uint32_t first, n;
};

/* A convolution over time of each column by itself: out[t] = act(bias + sum over j of w[j] * x[t - size + 1 + j]), j upwards.
 * What lies before a sequence's rows is in the window of its slot, or 0 before position 0; afterwards its last inputs are.
 * Gates (LFM2): the input is x times the columns from in_gate_col on, and what comes out is multiplied by those from out_gate_col
 * on; 0: by none. */
struct op_conv {
    const float *x; /* [rows, ld], columns 0 … width - 1 */
    uint32_t ld, width, in_gate_col, out_gate_col;
    const float *w, *bias; /* [size, width], [width] or NULL: backend memory */
    uint32_t size;         /* 1 … BY_CONV_MAX */
    enum act_kind act;
    float *windows; /* [slots, size - 1, width] */
    float *out;     /* [rows, out_ld]; may be x */
    uint32_t out_ld;
    const struct seq_rows *seqs; /* of the whole step: all their rows, in order */
    uint32_t n_seqs;
};

/* Gated delta rule, for each value head and row after row (S: the head's state, zeroes before position 0):
 *     d = exp(decay * softplus(a + dt)), s = sigmoid(b); q, k of length 1 (eps 1e-6), q / sqrt(k_dim)
 *     m = d * (S^T k)     S = d * S + k (s * (v - m))^T     out = norm(S^T q) * silu(z) */
struct op_delta {
    const float *x; /* [rows, ld]: q heads from column 0 on, the others from theirs */
    uint32_t ld, k_col, v_col, z_col, b_col, a_col;
    uint32_t n_k_heads, n_v_heads, k_dim, v_dim;
    bool is_tiled;           /* see by_state_info */
    const float *decay, *dt; /* [n_v_heads] backend memory */
    const struct norm *norm; /* RMS, of v_dim */
    float *states;           /* [slots, n_v_heads, backend_delta_floats] */
    float *out;
    uint32_t out_ld;             /* heads of v_dim columns, from 0 on */
    const struct seq_rows *seqs; /* as op_conv's */
    uint32_t n_seqs;
};

/* Mamba-2's state space, for each head and row after row (S: the head's state as op_delta has it, zeroes before position 0; k and
 * q: B and C, which the heads of a group share):
 *     t = min(max(softplus(t + dt), step_min), step_max)
 *     S = exp(decay * t) * S + k (t * x)^T     out = (S^T q + skip * x) * silu(z) */
struct op_ssm {
    const float
        *x; /* [rows, ld]: heads of v_dim columns from column 0 on, the others from theirs */
    uint32_t ld, k_col, q_col, z_col, t_col;
    uint32_t n_groups, n_heads, k_dim, v_dim;
    const float *decay, *dt, *skip; /* [n_heads] backend memory */
    float step_min, step_max;
    float *states; /* [slots, n_heads, backend_delta_floats] */
    float *out;
    uint32_t out_ld;             /* heads of v_dim columns, from 0 on */
    const struct seq_rows *seqs; /* as op_conv's */
    uint32_t n_seqs;
};

struct state_copy {
    uint32_t from, to;
};
/* Rows of a table of states: row pairs[i].to becomes what row pairs[i].from is. No row is both in one call. */
struct op_copy {
    float *p;
    size_t ld;
    const struct state_copy *pairs;
    uint32_t n;
};

enum { DELTA_STRIP = 16 };
/* Floats of a head's state: [columns of v in strips of 16][k_dim][16]. */
static inline size_t backend_delta_floats(uint32_t k_dim, uint32_t v_dim) {
    return (size_t)(v_dim + DELTA_STRIP - 1) / DELTA_STRIP * DELTA_STRIP * k_dim;
}

/* Columns that each rank of a group has computed come together on all of them: all[r, starts[k] … starts[k + 1] - 1] becomes
 * what rank k has in own[r, 0 …]. */
struct op_gather {
    const float *own; /* [n, own_ld], own_ld the same on all ranks */
    float *all;       /* [n, all_ld] */
    uint32_t own_ld, all_ld;
    const uint32_t *starts; /* [world + 1] */
    uint32_t world, n;
};

/* The pick of sampler.h for one row of logits, for a device that holds them. Lists are host memory. */
struct sample_row {
    uint32_t row, at; /* at: word of out where its answer begins */
    uint32_t slot;    /* last[slot] becomes the id, or 0 of broken logits; UINT32_MAX: none */
    bool is_greedy, wants_report;
    bool is_score; /* no pick: score_id is reported */
    uint32_t score_id;
    float temperature, top_p, min_p;
    uint32_t top_k;  /* 0: all */
    uint64_t random; /* by_rand_word of seed, position and sample */
    float frequency_penalty, presence_penalty, repetition_penalty;
    const uint32_t *counted, *counts; /* output ids, each once, and how often */
    const uint32_t *banned, *bias_ids, *chosen;
    const float *bias_values;
    uint32_t n_counted, n_banned, n_bias, n_chosen, n_top;
};

/* Words of an answer: id, is it broken, largest logit, the id's logit (bits of f32), total mass (low, high); then n_top ids,
 * n_top logits and n_chosen logits. */
enum { SAMPLE_WORDS = 6 };

struct op_sample {
    float *logits; /* changed in place */
    uint32_t ld, n_vocab;
    const struct sample_row *rows; /* host memory */
    uint32_t n;
    uint32_t *out;  /* backend memory */
    uint32_t *last; /* backend memory, or NULL: see op_embed */
};

/* What a rotation needs: inv_freq already scaled by its kind; cos and sin times mscale. */
struct rope_source {
    uint32_t n_rot;        /* columns that turn */
    const float *inv_freq; /* [n_rot / 2], copied */
    float mscale;
    uint32_t n_positions; /* table length; positions below this */
};

struct backend_memory {
    uint64_t weights, kv, other; /* bytes held */
};

struct backend {
    const char *name; /* "cpu avx512-vnni-bf16 2 threads": for people */
    uint32_t n_lanes;
    /* One lane, a device: an op is best given all rows at once, and run only hands over. What the device then made is there
     * after get or wait; where they are NULL, backend memory is host memory and run has done all. */
    bool is_device;
    bool keeps_packed; /* weights of F8_32 and Z4_32 are multiplied as they are */
    bool has_fp8_kv;   /* pools of KV_FP8 */
    /* n f32 of backend memory as host memory of the backend, until the next call; NULL: wait says why. */
    float *(*get)(struct backend *b, const float *p, size_t n);
    /* Until all that was run is done. BY_EUNAVAILABLE: the device failed or is late, and is of no more use. */
    int (*wait)(struct backend *b, struct by_err *err);
    /* Steps in flight, of a device; NULL: it has none. Between hold and go what is run is kept, and go hands it over as one; n
     * bytes of backend memory then come to `to`, which is of host_new. go names the point where all that is done. */
    void (*hold)(struct backend *b);
    uint64_t (*go)(struct backend *b, void *to, const void *from, size_t n);
    /* 1: the point is reached, 0: not yet. BY_EUNAVAILABLE: the device failed or is late, and is of no more use. */
    int (*reached)(struct backend *b, uint64_t point, struct by_err *err);
    /* host memory that a device can fill by itself; NULL: none */
    void *(*host_new)(struct backend *b, size_t n);
    void (*host_free)(struct backend *b, void *p);
    uint64_t (*free_bytes)(struct backend *b); /* of the device's memory; NULL: the host's */

    /* Memory; 64-byte aligned, zeroed; NULL when there is none. `what` for the accounts of backend_memory. */
    void *(*alloc)(struct backend *b, size_t bytes);
    /* As alloc, for what sum adds up: where ranks can reach each other's, that is quicker. NULL: alloc's serves */
    void *(*alloc_sums)(struct backend *b, size_t bytes);
    void (*free)(struct backend *b, void *p);
    /* n f32 into backend memory; free with free */
    const float *(*put)(struct backend *b, const float *host, size_t n);

    /* May pack with all lanes. BY_EUNSUPPORTED for a dtype it has no kernel for, BY_ENOMEM. */
    int (*weight_new)(struct backend *b, struct weight **out, const struct weight_source *src,
                      struct by_err *err);
    void (*weight_free)(struct backend *b, struct weight *w);
    struct rope_table *(*rope_new)(struct backend *b, const struct rope_source *src);
    void (*rope_free)(struct backend *b, struct rope_table *t);

    size_t (*kv_page_bytes)(const struct backend *b, const struct kv_shape *s); /* of one layer */
    /* NULL: not enough memory */
    void *(*kv_new)(struct backend *b, const struct kv_shape *s, uint32_t n_pages);
    void (*kv_free)(struct backend *b, void *pool);

    /* The lanes run fn, at least the caller's; one that comes too late for it does not. Returns when all are back. */
    void (*run)(struct backend *b, void (*fn)(struct lane *l, void *ctx), void *ctx);
    uint32_t (*lane_id)(const struct lane *l);
    void (*lane_solo)(struct lane *l, bool on);
    /* Hands out 0 … n-1, each to one lane, in order; UINT32_MAX when there are no more. The next thing that every lane
     * does is barrier, which returns when all n are done, and from which on it begins anew; or fn ends. A lane that was
     * late finds nothing left of what the others have done, and must not look at its data: they may be far ahead. */
    uint32_t (*lane_next)(struct lane *l, uint32_t n);
    void (*barrier)(struct lane *l);

    void (*embed)(struct lane *l, const struct op_embed *o);
    void (*linear)(struct lane *l, const struct op_linear *o);
    void (*linear_heads)(struct lane *l, const struct op_linear_heads *o);
    void (*norm)(struct lane *l, const struct op_norm *o);
    void (*kv_write)(struct lane *l, const struct op_kv_write *o);
    void (*attention)(struct lane *l, const struct op_attention *o);
    void (*route)(struct lane *l, const struct op_route *o);
    void (*experts)(struct lane *l, const struct op_experts *o);
    void (*gate)(struct lane *l, const struct op_gate *o);
    /* NULL, all four: models with states are refused */
    void (*conv)(struct lane *l, const struct op_conv *o);
    void (*delta)(struct lane *l, const struct op_delta *o);
    void (*ssm)(struct lane *l, const struct op_ssm *o);
    void (*copy)(struct lane *l, const struct op_copy *o);
    /* NULL on a CPU: sampler.c does it */
    void (*sample)(struct lane *l, const struct op_sample *o);

    /* Where devices of a group reach each other (NCCL); else NULL. Rank 0 makes an address; every rank joins before its first
     * step, which waits for the others up to a minute, and leaves when the session ends. */
    int (*group_new)(struct backend *b, char *address, size_t cap, struct by_err *err);
    int (*group_join)(struct backend *b, const char *address, uint32_t rank, uint32_t world,
                      struct by_err *err);
    void (*group_leave)(struct backend *b);
    /* In a run: x[n] becomes the sum over the ranks of a group. on_host makes it of host memory, where the backend has no
     * quicker way; its code is returned. NULL: backend memory is host memory. */
    int (*sum)(struct lane *l, float *x, size_t n, int (*on_host)(void *ctx, float *x, size_t n),
               void *ctx);
    /* In a run, the same way: all[world][n] from each rank's x[n] is what on_host makes. NULL: as sum. */
    int (*gather)(struct lane *l, const struct op_gather *o,
                  int (*on_host)(void *ctx, const float *x, size_t n, float *all), void *ctx);

    void (*memory)(const struct backend *b, struct backend_memory *out);
    void (*close)(struct backend *b);
};

#endif
