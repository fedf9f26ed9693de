#include "gpu_worker/cpu/slot_attention.h"

#include "common/base/base.h"
#include "common/modelfile/dtype.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum {
    KEYS = 64,  /* keys of one block: their scores stay in L1 */
    ROWS = 16,  /* query rows of one task share the keys they load */
    LANES = 16, /* partial sums of a dot product, and dot products made at once */
    HALF = LANES / 2,
    WIDE = 4, /* vectors of a value summed at once, in registers */
    DIM_MAX = 1024,
    LD_MAX = DIM_MAX + LANES,
    THREADS_MAX = 64,
    THREAD_WORK_MIN = 1 << 18, /* multiplications below which a thread costs more than it brings */
};

/* Built for each instruction set and chosen when the library is loaded; without fma, all give the same bits. What they call
 * is inlined, so that it is built the same way: a call a key cost ten times what it did. */
#define FOR_EACH_ISA __attribute__((target_clones("avx512f", "avx2", "default")))
#define INLINE static inline __attribute__((always_inline))

typedef float sums __attribute__((vector_size(LANES * sizeof(float))));
typedef int ints __attribute__((vector_size(LANES * sizeof(int))));
typedef uint16_t halves __attribute__((vector_size(LANES * sizeof(uint16_t))));
typedef unsigned words __attribute__((vector_size(LANES * sizeof(unsigned))));

/* Rows that are used together lie close, at a distance that is no multiple of 4 KB: all rows at one place of the first cache
 * cost half of the time. */
struct scratch {
    float q[ROWS * LD_MAX];     /* [ROWS][k_ld] */
    float acc[ROWS * LD_MAX];   /* [ROWS][v_ld] */
    float room[LANES * LD_MAX]; /* keys or values of a bf16 pool as f32 */
    int k_ld, v_ld;
    sums scores[ROWS][KEYS / LANES];
    size_t at[KEYS];    /* where the keys of the block lie: see find_block */
    size_t ahead[KEYS]; /* and those of the block after it, which are fetched meanwhile */
    bool has_ahead;     /* ahead is filled */
    sums sum[ROWS];     /* a key's weight goes to the lane of its position */
    float max[ROWS];
    int own[ROWS];        /* position of each query */
    int first_seen[ROWS]; /* first position it may see */
};

INLINE void widen(const uint16_t *from, float *to, int n) {
    int d = 0;
    for (; d + LANES <= n; d += LANES) {
        halves b;
        memcpy(&b, from + d, sizeof b);
        words w = __builtin_convertvector(b, words) << 16;
        memcpy(to + d, &w, sizeof w);
    }
    for (; d < n; d++)
        to[d] = by_bf16_to_f32(from[d]);
}

INLINE size_t size_of(int32_t dtype) {
    return dtype == BANYAN_F32 ? 4 : 2;
}

INLINE uint16_t to_bf16(float f) {
    union {
        float f;
        uint32_t u;
    } x = {.f = f};
    if ((x.u & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
    return (uint16_t)((x.u + 0x7fffu + (x.u >> 16 & 1)) >> 16);
}

INLINE sums all(float f) {
    return (sums){f, f, f, f, f, f, f, f, f, f, f, f, f, f, f, f};
}

INLINE sums load(const float *p) {
    sums v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Lanes i and i + 8, + 4, + 2, + 1 of each vector are added, the vectors of a pair side by side: after four levels a lane holds
 * what was in one vector. */
INLINE sums add_8(sums a, sums b) {
    const ints low = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23};
    return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, low + 8);
}

INLINE sums add_4(sums a, sums b) {
    const ints low = {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27};
    return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, low + 4);
}

INLINE sums add_2(sums a, sums b) {
    const ints low = {0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29};
    return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, low + 2);
}

INLINE sums add_1(sums a, sums b) {
    const ints low = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, low + 1);
}

/* Two partial sums of q with each of eight keys. */
INLINE sums dot_half(const float *q, const float *const *k, int n) {
    sums lane[HALF] = {0};
    int d = 0;
    for (; d + LANES <= n; d += LANES) {
        sums x = load(q + d);
        for (int j = 0; j < HALF; j++)
            lane[j] += x * load(k[j] + d);
    }
    for (int j = 0; j < HALF && d < n; j++) {
        sums x = {0}, y = {0};
        memcpy(&x, q + d, (size_t)(n - d) * sizeof *q);
        memcpy(&y, k[j] + d, (size_t)(n - d) * sizeof *q);
        lane[j] += x * y;
    }
    return add_2(add_4(add_8(lane[0], lane[1]), add_8(lane[2], lane[3])),
                 add_4(add_8(lane[4], lane[5]), add_8(lane[6], lane[7])));
}

/* e^x by Cephes' polynomial, for x <= 0; 0 below -87. A NaN stays one. */
INLINE sums exp_of(sums x) {
    const sums magic = all(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
    ints is_none = x < all(-87.0f);
    sums y = (sums)((is_none & (ints)all(-87.0f)) | (~is_none & (ints)x));
    sums t = y * 1.44269504f + magic, n = t - magic;
    sums r = y - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    sums p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 0.5f;
    p = r * r * p + (r + 1.0f);
    return (sums)(~is_none & ((ints)p + ((ints)t << 23)));
}

struct task {
    int seq, kv_head;
    int first, n; /* queries of this task, counted over rows x heads of the group */
};

static int n_queries(const struct banyan_attention *a, int seq) {
    const int32_t *q_start = a->rows->q_start;
    return (q_start[seq + 1] - q_start[seq]) * (a->n_q_heads / a->n_kv_heads);
}

static int first_seen(const struct banyan_attention *a, int own) {
    int first = 0;
    if (a->window > 0) first = BY_MAX(first, own - a->window + 1);
    if (a->chunk > 0) first = BY_MAX(first, own / a->chunk * a->chunk);
    return first;
}

static void load_queries(const struct banyan_attention *a, const struct task *t,
                         struct scratch *s) {
    const struct banyan_rows *rows = a->rows;
    int group = a->n_q_heads / a->n_kv_heads;
    int q_len = rows->q_start[t->seq + 1] - rows->q_start[t->seq];
    for (int i = 0; i < t->n; i++) {
        int row = (t->first + i) / group, head = t->kv_head * group + (t->first + i) % group;
        int64_t at = (rows->q_start[t->seq] + row) * a->q_row_stride + head * a->q_head_stride;
        if (a->dtype == BANYAN_F32)
            memcpy(s->q + i * s->k_ld, (const float *)a->q + at, (size_t)a->k_dim * sizeof(float));
        else
            widen((const uint16_t *)a->q + at, s->q + i * s->k_ld, a->k_dim);
        s->own[i] = rows->kv_len[t->seq] - q_len + row;
        s->first_seen[i] = first_seen(a, s->own[i]);
        s->max[i] = a->sinks ? a->sinks[head] : -INFINITY;
        s->sum[i] = (sums){a->sinks ? 1 : 0};
        memset(s->acc + i * s->v_ld, 0, (size_t)a->v_dim * sizeof(float));
    }
}

static size_t slot_of(const struct banyan_rows *rows, int seq, int position) {
    int32_t page = rows->table[seq * rows->table_stride + position / rows->page_size];
    return (size_t)page * (size_t)rows->page_size + (size_t)(position % rows->page_size);
}

/* The positions that a task's queries see, first to last, and the block of them that starts at some multiple of KEYS. */
struct span {
    int seq, kv_head;
    int first, last;
};

static struct span span_of(const struct banyan_attention *a, const struct task *t) {
    const int32_t *q_start = a->rows->q_start;
    int group = a->n_q_heads / a->n_kv_heads;
    int before = a->rows->kv_len[t->seq] - (q_start[t->seq + 1] - q_start[t->seq]);
    int last = before + (t->first + t->n - 1) / group;
    return (struct span){t->seq, t->kv_head, first_seen(a, before + t->first / group), last};
}

/* Indices into a pool of [slot][kv head] of a block's positions; those that the span lacks are one of its own, and never
 * counted. */
static void find_block(const struct banyan_attention *a, const struct span *v, int block,
                       size_t *at) {
    const struct banyan_rows *rows = a->rows;
    const int32_t *pages = rows->table + v->seq * rows->table_stride;
    int from = BY_MAX(block, v->first), to = BY_MIN(block + KEYS, v->last + 1);
    for (int p = from; p < to;) {
        size_t slot = (size_t)pages[p / rows->page_size] * (size_t)rows->page_size +
                      (size_t)(p % rows->page_size);
        int end = BY_MIN(to, (p / rows->page_size + 1) * rows->page_size);
        for (; p < end; p++, slot++)
            at[p - block] = slot * (size_t)a->n_kv_heads + (size_t)v->kv_head;
    }
    for (int j = 0; j < from - block; j++)
        at[j] = at[from - block];
    for (int j = to - block; j < KEYS; j++)
        at[j] = at[from - block];
}

/* Asks for 16 keys or values of the block ahead: they lie anywhere, and waiting for each took twice as long as the sums. */
INLINE void fetch(const void *pool, size_t bytes, const struct scratch *s, int c) {
    for (int j = c * LANES; j < (c + 1) * LANES && s->has_ahead; j++)
        for (size_t b = 0; b < bytes; b += 64)
            __builtin_prefetch((const char *)pool + s->ahead[j] * bytes + b, 0, 2);
}

/* Where 16 keys or values of the block lie as f32. */
INLINE void find_rows(const void *pool, int dtype, const size_t *at, int dim, float *room, int ld,
                      const float **rows) {
    for (int j = 0; j < LANES; j++) {
        rows[j] = room + j * ld;
        if (dtype == BANYAN_F32)
            rows[j] = (const float *)pool + at[j] * (size_t)dim;
        else
            widen((const uint16_t *)pool + at[j] * (size_t)dim, room + j * ld, dim);
    }
}

INLINE sums capped(const struct banyan_attention *a, sums scores) {
    scores *= a->scale;
    for (int j = 0; j < LANES && a->softcap > 0; j++)
        scores[j] = a->softcap * tanhf(scores[j] / a->softcap);
    return scores;
}

FOR_EACH_ISA static void score_block(const struct banyan_attention *a, const struct task *t,
                                     struct scratch *s, int block, int from, int to) {
    size_t size = size_of(a->pool_dtype);
    const ints number = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const ints none = (ints)all(-INFINITY);
    for (int c = 0; c < KEYS / LANES; c++) {
        int p = block + c * LANES;
        bool is_out = p + LANES <= from || p >= to;
        const float *rows[LANES];
        fetch(a->k_pool, (size_t)a->k_dim * size, s, c);
        if (!is_out)
            find_rows(a->k_pool, a->pool_dtype, s->at + c * LANES, a->k_dim, s->room, s->k_ld,
                      rows);
        for (int i = 0; i < t->n; i++) {
            if (is_out) {
                s->scores[i][c] = (sums)none;
                continue;
            }
            sums dots = add_1(dot_half(s->q + i * s->k_ld, rows, a->k_dim),
                              dot_half(s->q + i * s->k_ld, rows + HALF, a->k_dim));
            ints at = number + p;
            ints is_seen = (at <= s->own[i]) & (at >= s->first_seen[i]);
            s->scores[i][c] = (sums)((is_seen & (ints)capped(a, dots)) | (~is_seen & none));
        }
    }
}

/* Scores become weights under the new maximum; what was summed under the old one shrinks. */
FOR_EACH_ISA static void weigh_block(const struct banyan_attention *a, struct scratch *s, int i) {
    float max = s->max[i];
    sums most = s->scores[i][0];
    for (int c = 1; c < KEYS / LANES; c++) {
        ints is_more = s->scores[i][c] > most;
        most = (sums)((is_more & (ints)s->scores[i][c]) | (~is_more & (ints)most));
    }
    for (int j = 0; j < LANES; j++)
        max = BY_MAX(max, most[j]);
    float base = max == -INFINITY ? 0 : max; /* nothing seen yet: every weight below is 0 */
    float shrink = expf(s->max[i] - base);
    for (int d = 0; d < a->v_dim && shrink != 1; d++)
        s->acc[i * s->v_ld + d] *= shrink;
    s->sum[i] *= shrink;
    for (int c = 0; c < KEYS / LANES; c++) {
        s->scores[i][c] = exp_of(s->scores[i][c] - base);
        s->sum[i] += s->scores[i][c];
    }
    s->max[i] = max;
}

/* acc += weights · rows, in the order of rows. A weight of 0 must not meet a NaN in a slot that is not seen. */
INLINE void add_rows(float *acc, sums weights, const float *const *rows, int dim) {
    int d = 0;
    for (; d + WIDE * LANES <= dim; d += WIDE * LANES) {
        sums v[WIDE];
        for (int c = 0; c < WIDE; c++)
            v[c] = load(acc + d + c * LANES);
        for (int j = 0; j < LANES; j++)
            for (int c = 0; c < WIDE && weights[j] != 0; c++)
                v[c] += weights[j] * load(rows[j] + d + c * LANES);
        memcpy(acc + d, v, sizeof v);
    }
    for (int j = 0; j < LANES; j++)
        for (int e = d; e < dim && weights[j] != 0; e++)
            acc[e] += weights[j] * rows[j][e];
}

FOR_EACH_ISA static void add_block(const struct banyan_attention *a, const struct task *t,
                                   struct scratch *s, int block, int from, int to) {
    size_t size = size_of(a->pool_dtype);
    for (int c = 0; c < KEYS / LANES; c++) {
        int p = block + c * LANES;
        const float *rows[LANES];
        fetch(a->v_pool, (size_t)a->v_dim * size, s, c);
        if (p + LANES <= from || p >= to) continue;
        find_rows(a->v_pool, a->pool_dtype, s->at + c * LANES, a->v_dim, s->room, s->v_ld, rows);
        for (int i = 0; i < t->n; i++)
            add_rows(s->acc + i * s->v_ld, s->scores[i][c], rows, a->v_dim);
    }
}

static void store(const struct banyan_attention *a, const struct task *t, const struct scratch *s) {
    int group = a->n_q_heads / a->n_kv_heads;
    for (int i = 0; i < t->n; i++) {
        int row = (t->first + i) / group, head = t->kv_head * group + (t->first + i) % group;
        size_t at =
            ((size_t)(a->rows->q_start[t->seq] + row) * (size_t)a->n_q_heads + (size_t)head) *
            (size_t)a->v_dim;
        float sum = 0;
        for (int j = 0; j < LANES; j++)
            sum += s->sum[i][j];
        for (int d = 0; d < a->v_dim; d++) {
            float x = s->acc[i * s->v_ld + d] / sum;
            if (a->dtype == BANYAN_F32)
                ((float *)a->out)[at + (size_t)d] = x;
            else
                ((uint16_t *)a->out)[at + (size_t)d] = to_bf16(x);
        }
    }
}

/* Blocks start at multiples of KEYS, so that a key's place in the order of additions is its position's. then: what this thread
 * may do next, whose first block is fetched during the last one of this task, or NULL. */
static void run_task(const struct banyan_attention *a, const struct task *t,
                     const struct task *then, struct scratch *s) {
    struct span v = span_of(a, t), w = then ? span_of(a, then) : v;
    load_queries(a, t, s);
    for (int block = v.first / KEYS * KEYS; block <= v.last; block += KEYS) {
        bool is_last = block + KEYS > v.last;
        s->has_ahead = !is_last || then;
        if (s->has_ahead)
            find_block(a, is_last ? &w : &v, is_last ? w.first / KEYS * KEYS : block + KEYS,
                       s->ahead);
        find_block(a, &v, block, s->at);
        int from = BY_MAX(block, v.first), to = BY_MIN(block + KEYS, v.last + 1);
        score_block(a, t, s, block, from, to);
        for (int i = 0; i < t->n; i++)
            weigh_block(a, s, i);
        add_block(a, t, s, block, from, to);
    }
    store(a, t, s);
}

/* One head's key or value into its slot. */
INLINE void write_head(const struct banyan_attention *a, const void *from, int64_t at, void *pool,
                       size_t index, int dim) {
    const char *x = (const char *)from + at * (int64_t)size_of(a->dtype);
    char *to = (char *)pool + index * (size_t)dim * size_of(a->pool_dtype);
    if (a->dtype == a->pool_dtype) {
        memcpy(to, x, (size_t)dim * size_of(a->dtype));
        return;
    }
    for (int d = 0; d < dim; d++)
        ((uint16_t *)(void *)to)[d] = to_bf16(((const float *)(const void *)x)[d]);
}

/* The sequence of a row: the last that starts at it or before it, for those without a row start where the next one does. */
static int seq_of(const struct banyan_rows *rows, int row) {
    int low = 0, high = rows->n_seqs;
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (rows->q_start[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void slot_attention_write(const struct banyan_attention *a, int row) {
    const struct banyan_rows *rows = a->rows;
    int seq = seq_of(rows, row);
    int position = rows->kv_len[seq] - rows->q_start[seq + 1] + row;
    size_t to = slot_of(rows, seq, position) * (size_t)a->n_kv_heads;
    for (int h = 0; h < a->n_kv_heads; h++, to++) {
        write_head(a, a->k, row * a->k_row_stride + h * a->k_head_stride, a->k_pool, to, a->k_dim);
        write_head(a, a->v, row * a->v_row_stride + h * a->v_head_stride, a->v_pool, to, a->v_dim);
    }
}

/* ---- tasks over threads ---- */

struct job {
    const struct banyan_attention *a;
    atomic_uint next;
    uint32_t n_tasks;
};

/* Task number i, counted over sequences, their kv heads and blocks of query rows. */
static struct task task_at(const struct banyan_attention *a, int i) {
    int seq = 0, blocks;
    for (;; i -= blocks * a->n_kv_heads, seq++) {
        blocks = BY_DIV_UP(n_queries(a, seq), ROWS);
        if (i < blocks * a->n_kv_heads) break;
    }
    int first = i % blocks * ROWS;
    return (struct task){seq, i / blocks, first, BY_MIN((int)ROWS, n_queries(a, seq) - first)};
}

void slot_attention_tasks(const struct banyan_attention *a, uint32_t n_tasks,
                          uint32_t (*next)(void *ctx), void *ctx) {
    /* 200 KB of which a task touches a few: from the heap it would be mapped anew in each call */
    struct scratch s;
    s.k_ld = BY_ALIGN_UP(a->k_dim, LANES) + LANES;
    s.v_ld = BY_ALIGN_UP(a->v_dim, LANES) + LANES;
    for (uint32_t i = next(ctx); i < n_tasks; i = next(ctx)) {
        struct task t = task_at(a, (int)i), then;
        bool is_last = i + 1 >= n_tasks;
        if (!is_last) then = task_at(a, (int)i + 1);
        run_task(a, &t, is_last ? NULL : &then, &s);
    }
}

static uint32_t next_of(void *ctx) {
    struct job *job = ctx;
    return atomic_fetch_add(&job->next, 1);
}

static void *work(void *ctx) {
    struct job *job = ctx;
    slot_attention_tasks(job->a, job->n_tasks, next_of, job);
    return NULL;
}

static bool is_sane(const struct banyan_attention *a) {
    const struct banyan_rows *rows = a->rows;
    if (rows->n_seqs < 0 || rows->page_size < 1) return false;
    if (a->n_kv_heads < 1 || a->n_q_heads % a->n_kv_heads) return false;
    if (a->k_dim < 1 || a->k_dim > DIM_MAX || a->v_dim < 1 || a->v_dim > DIM_MAX) return false;
    if (a->dtype != BANYAN_F32 && a->dtype != BANYAN_BF16) return false;
    if (a->pool_dtype != a->dtype && (a->dtype != BANYAN_F32 || a->pool_dtype != BANYAN_BF16))
        return false;
    for (int i = 0; i < rows->n_seqs; i++) {
        int q_len = rows->q_start[i + 1] - rows->q_start[i];
        if (q_len < 0 || rows->kv_len[i] < q_len) return false;
        if (BY_DIV_UP(rows->kv_len[i], rows->page_size) > rows->table_stride) return false;
    }
    return true;
}

int64_t slot_attention_count(const struct banyan_attention *a) {
    if (!is_sane(a)) return -1;
    int64_t n = 0;
    for (int i = 0; i < a->rows->n_seqs; i++)
        n += (int64_t)BY_DIV_UP(n_queries(a, i), ROWS) * a->n_kv_heads;
    return n <= INT32_MAX ? n : -1;
}

/* Threads that are worth their start. */
static int n_threads_for(const struct banyan_attention *a, int n_threads, int64_t n_tasks) {
    int64_t n_multiply = 0;
    for (int i = 0; i < a->rows->n_seqs; i++)
        n_multiply +=
            (int64_t)n_queries(a, i) * a->n_kv_heads * a->rows->kv_len[i] * (a->k_dim + a->v_dim);
    if (n_threads <= 0) n_threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    n_threads = (int)BY_MIN((int64_t)BY_MIN(n_threads, (int)THREADS_MAX), n_tasks);
    return (int)BY_MIN((int64_t)n_threads, n_multiply / THREAD_WORK_MIN + 1);
}

int slot_attention_run(const struct banyan_attention *a, int n_threads) {
    int64_t n_tasks = slot_attention_count(a);
    if (n_tasks < 0) return -1;
    for (int r = 0; a->k && r < a->rows->q_start[a->rows->n_seqs]; r++)
        slot_attention_write(a, r);
    struct job job = {.a = a, .n_tasks = (uint32_t)n_tasks};
    n_threads = n_threads_for(a, n_threads, n_tasks);
    pthread_t threads[THREADS_MAX];
    int n = 0;
    while (n + 1 < n_threads && pthread_create(&threads[n], NULL, work, &job) == 0)
        n++;
    work(&job);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
