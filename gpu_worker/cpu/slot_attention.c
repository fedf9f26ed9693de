#include "gpu_worker/cpu/slot_attention.h"

#include "common/base/base.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum {
    KEYS = 64, /* keys of one block: their scores stay in L1 */
    ROWS = 16, /* query rows of one task share the keys they load */
    LANES =
        16, /* partial sums of a dot product: one AVX-512 or two AVX2 registers, the same bits either way */
    DIM_MAX = 1024,
    THREADS_MAX = 64,
    THREAD_WORK_MIN = 1 << 18, /* multiplications below which a thread costs more than it brings */
};

/* Built for each instruction set and chosen when the library is loaded; without fma, all give the same bits. What they call
 * is inlined, so that it is built the same way: a call a key cost ten times what it did. */
#define FOR_EACH_ISA __attribute__((target_clones("avx512f", "avx2", "default")))
#define INLINE static inline __attribute__((always_inline))

struct scratch {
    float q[ROWS][DIM_MAX];
    float acc[ROWS][DIM_MAX];
    float k[DIM_MAX], v[DIM_MAX]; /* one token of a bf16 pool as f32 */
    float scores[ROWS][KEYS];
    size_t at[KEYS]; /* where the keys of the block lie: see index_of */
    float max[ROWS], sum[ROWS];
    int own[ROWS];        /* position of each query */
    int first_seen[ROWS]; /* first position it may see */
};

INLINE float from_bf16(uint16_t b) {
    union {
        uint32_t u;
        float f;
    } x = {.u = (uint32_t)b << 16};
    return x.f;
}

INLINE uint16_t to_bf16(float f) {
    union {
        float f;
        uint32_t u;
    } x = {.f = f};
    if ((x.u & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
    return (uint16_t)((x.u + 0x7fffu + (x.u >> 16 & 1)) >> 16);
}

INLINE const float *token_at(const void *pool, int dtype, size_t index, int dim, float *room) {
    if (dtype == BANYAN_F32) return (const float *)pool + index * (size_t)dim;
    const uint16_t *b = (const uint16_t *)pool + index * (size_t)dim;
    for (int d = 0; d < dim; d++)
        room[d] = from_bf16(b[d]);
    return room;
}

typedef float sums __attribute__((vector_size(LANES * sizeof(float))));
typedef int ints __attribute__((vector_size(LANES * sizeof(int))));

INLINE float dot(const float *a, const float *b, int n) {
    sums lane = {0};
    int d = 0;
    for (; d + LANES <= n; d += LANES) {
        sums x, y;
        memcpy(&x, a + d, sizeof x);
        memcpy(&y, b + d, sizeof y);
        lane += x * y;
    }
    for (int j = 0; d + j < n; j++)
        lane[j] += a[d + j] * b[d + j];
    lane +=
        __builtin_shuffle(lane, (ints){8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15});
    lane += __builtin_shuffle(lane, (ints){4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7});
    lane += __builtin_shuffle(lane, (ints){2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3});
    return lane[0] + lane[1];
}

INLINE void add_scaled(float *acc, const float *v, float w, int n) {
    for (int d = 0; d < n; d++)
        acc[d] += w * v[d];
}

INLINE void scale_by(float *acc, float w, int n) {
    for (int d = 0; d < n; d++)
        acc[d] *= w;
}

struct task {
    int seq, kv_head;
    int first, n; /* queries of this task, counted over rows x heads of the group */
};

static int n_queries(const struct banyan_attention *a, int seq) {
    return (a->q_start[seq + 1] - a->q_start[seq]) * (a->n_q_heads / a->n_kv_heads);
}

static int first_seen(const struct banyan_attention *a, int own) {
    int first = 0;
    if (a->window > 0) first = BY_MAX(first, own - a->window + 1);
    if (a->chunk > 0) first = BY_MAX(first, own / a->chunk * a->chunk);
    return first;
}

INLINE float capped(const struct banyan_attention *a, float score) {
    score *= a->scale;
    return a->softcap > 0 ? a->softcap * tanhf(score / a->softcap) : score;
}

static void load_queries(const struct banyan_attention *a, const struct task *t,
                         struct scratch *s) {
    int group = a->n_q_heads / a->n_kv_heads;
    int q_len = a->q_start[t->seq + 1] - a->q_start[t->seq];
    for (int i = 0; i < t->n; i++) {
        int row = (t->first + i) / group, head = t->kv_head * group + (t->first + i) % group;
        int64_t at = (a->q_start[t->seq] + row) * a->q_row_stride + head * a->q_head_stride;
        for (int d = 0; d < a->k_dim; d++) {
            s->q[i][d] = a->dtype == BANYAN_F32 ? ((const float *)a->q)[at + d]
                                                : from_bf16(((const uint16_t *)a->q)[at + d]);
        }
        s->own[i] = a->kv_len[t->seq] - q_len + row;
        s->first_seen[i] = first_seen(a, s->own[i]);
        s->max[i] = a->sinks ? a->sinks[head] : -INFINITY;
        s->sum[i] = a->sinks ? 1 : 0;
        memset(s->acc[i], 0, (size_t)a->v_dim * sizeof(float));
    }
}

/* Index into a pool of [slot][kv head]. */
static size_t index_of(const struct banyan_attention *a, const struct task *t, int position) {
    int32_t page = a->table[t->seq * a->table_stride + position / a->page_size];
    size_t slot = (size_t)page * (size_t)a->page_size + (size_t)(position % a->page_size);
    return slot * (size_t)a->n_kv_heads + (size_t)t->kv_head;
}

static void find_block(const struct banyan_attention *a, const struct task *t, struct scratch *s,
                       int from, int to) {
    for (int p = from; p < to; p++)
        s->at[p - from] = index_of(a, t, p);
}

FOR_EACH_ISA static void score_block(const struct banyan_attention *a, const struct task *t,
                                     struct scratch *s, int from, int to) {
    for (int p = from; p < to; p++) {
        const float *k = token_at(a->k_pool, a->dtype, s->at[p - from], a->k_dim, s->k);
        for (int i = 0; i < t->n; i++) {
            bool is_seen = p <= s->own[i] && p >= s->first_seen[i];
            s->scores[i][p - from] = is_seen ? capped(a, dot(s->q[i], k, a->k_dim)) : -INFINITY;
        }
    }
}

/* Scores become weights under the new maximum; what was summed under the old one shrinks. */
FOR_EACH_ISA static void weigh_block(const struct banyan_attention *a, struct scratch *s, int i,
                                     int n) {
    float max = s->max[i];
    for (int j = 0; j < n; j++)
        max = BY_MAX(max, s->scores[i][j]);
    float base = max == -INFINITY ? 0 : max; /* nothing seen yet: every weight below is 0 */
    float shrink = expf(s->max[i] - base);
    if (shrink != 1) scale_by(s->acc[i], shrink, a->v_dim);
    s->sum[i] *= shrink;
    for (int j = 0; j < n; j++) {
        s->scores[i][j] = expf(s->scores[i][j] - base);
        s->sum[i] += s->scores[i][j];
    }
    s->max[i] = max;
}

FOR_EACH_ISA static void add_block(const struct banyan_attention *a, const struct task *t,
                                   struct scratch *s, int from, int to) {
    for (int p = from; p < to; p++) {
        const float *v = token_at(a->v_pool, a->dtype, s->at[p - from], a->v_dim, s->v);
        for (int i = 0; i < t->n;
             i++) { /* a weight of 0 must not meet a NaN in a slot that is not seen */
            float w = s->scores[i][p - from];
            if (w != 0) add_scaled(s->acc[i], v, w, a->v_dim);
        }
    }
}

static void store(const struct banyan_attention *a, const struct task *t, const struct scratch *s) {
    int group = a->n_q_heads / a->n_kv_heads;
    for (int i = 0; i < t->n; i++) {
        int row = (t->first + i) / group, head = t->kv_head * group + (t->first + i) % group;
        size_t at = ((size_t)(a->q_start[t->seq] + row) * (size_t)a->n_q_heads + (size_t)head) *
                    (size_t)a->v_dim;
        for (int d = 0; d < a->v_dim; d++) {
            float x = s->acc[i][d] / s->sum[i];
            if (a->dtype == BANYAN_F32)
                ((float *)a->out)[at + (size_t)d] = x;
            else
                ((uint16_t *)a->out)[at + (size_t)d] = to_bf16(x);
        }
    }
}

/* Blocks start at multiples of KEYS, so that a key's place in the order of additions is its position's. */
static void run_task(const struct banyan_attention *a, const struct task *t, struct scratch *s) {
    int first = a->kv_len[t->seq], last = 0;
    load_queries(a, t, s);
    for (int i = 0; i < t->n; i++) {
        first = BY_MIN(first, s->first_seen[i]);
        last = BY_MAX(last, s->own[i]);
    }
    for (int p = first / KEYS * KEYS; p <= last; p += KEYS) {
        int from = BY_MAX(p, first), to = BY_MIN(p + KEYS, last + 1);
        find_block(a, t, s, from, to);
        score_block(a, t, s, from, to);
        for (int i = 0; i < t->n; i++)
            weigh_block(a, s, i, to - from);
        add_block(a, t, s, from, to);
    }
    store(a, t, s);
}

/* ---- tasks over threads ---- */

struct job {
    const struct banyan_attention *a;
    atomic_int next;
    int n_tasks;
};

/* Task number i, counted over sequences, their kv heads and blocks of query rows. */
static struct task task_at(const struct banyan_attention *a, int i) {
    int seq = 0, blocks = BY_DIV_UP(n_queries(a, seq), ROWS);
    while (i >= blocks * a->n_kv_heads) {
        i -= blocks * a->n_kv_heads;
        seq++;
        blocks = BY_DIV_UP(n_queries(a, seq), ROWS);
    }
    int first = i % blocks * ROWS;
    return (struct task){seq, i / blocks, first, BY_MIN((int)ROWS, n_queries(a, seq) - first)};
}

static void *work(void *ctx) {
    struct job *job = ctx;
    struct scratch
        s; /* 150 KB of which a task touches a few: from the heap it would be mapped anew in each call */
    for (int i = atomic_fetch_add(&job->next, 1); i < job->n_tasks;
         i = atomic_fetch_add(&job->next, 1)) {
        struct task t = task_at(job->a, i);
        run_task(job->a, &t, &s);
    }
    return NULL;
}

static bool is_sane(const struct banyan_attention *a) {
    if (a->n_seqs < 0 || a->n_kv_heads < 1 || a->n_q_heads % a->n_kv_heads || a->page_size < 1)
        return false;
    if (a->k_dim < 1 || a->k_dim > DIM_MAX || a->v_dim < 1 || a->v_dim > DIM_MAX) return false;
    if (a->dtype != BANYAN_F32 && a->dtype != BANYAN_BF16) return false;
    for (int i = 0; i < a->n_seqs; i++) {
        int q_len = a->q_start[i + 1] - a->q_start[i];
        if (q_len < 0 || a->kv_len[i] < q_len) return false;
        if (BY_DIV_UP(a->kv_len[i], a->page_size) > a->table_stride) return false;
    }
    return true;
}

int slot_attention_run(const struct banyan_attention *a, int n_threads) {
    if (!is_sane(a)) return -1;
    struct job job = {.a = a};
    int64_t n_multiply = 0;
    for (int i = 0; i < a->n_seqs; i++) {
        job.n_tasks += BY_DIV_UP(n_queries(a, i), ROWS) * a->n_kv_heads;
        n_multiply +=
            (int64_t)n_queries(a, i) * a->n_kv_heads * a->kv_len[i] * (a->k_dim + a->v_dim);
    }
    if (n_threads <= 0) n_threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    n_threads = BY_MIN(n_threads, BY_MIN((int)THREADS_MAX, job.n_tasks));
    n_threads = (int)BY_MIN((int64_t)n_threads, n_multiply / THREAD_WORK_MIN + 1);
    pthread_t threads[THREADS_MAX];
    int n = 0;
    while (n + 1 < n_threads && pthread_create(&threads[n], NULL, work, &job) == 0)
        n++;
    work(&job);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
