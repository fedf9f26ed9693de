#include "gpu_worker/sampler.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/base/rand.h"

#include <math.h>

enum {
    MASS_BITS = 40,  /* weight 1 as a mass; 2^18 tokens and more add up far below 2^64 */
    RADIX_BITS = 10, /* three levels cover the 30 bits of a float in (0, 1] */
    RADIX = 1 << RADIX_BITS,
    RADIX_LEVELS = 3,
    CHOSEN_FIRST = 64,  /* logprob_ids for which there is room from the start */
    KEPT_COUNTS = 1024, /* slots of a table of counts that wait for the next sequence: 16 KB */
};

struct sampler {
    uint32_t n_vocab;
    float *w; /* [n_vocab] weights of the last row */
    uint32_t *top_ids;
    float *top_logprobs; /* [LIMIT_TOP_LOGPROBS] both */
    float *chosen_logprobs;
    uint32_t chosen_cap;
    uint32_t count[RADIX]; /* of one radix level: tokens and their mass */
    uint64_t mass[RADIX];
};

struct sampler *sampler_new(uint32_t n_vocab) {
    struct sampler *s = by_alloc(sizeof *s);
    s->n_vocab = n_vocab;
    s->w = by_alloc(n_vocab * sizeof *s->w);
    s->top_ids = by_alloc(LIMIT_TOP_LOGPROBS * sizeof *s->top_ids);
    s->top_logprobs = by_alloc(LIMIT_TOP_LOGPROBS * sizeof *s->top_logprobs);
    s->chosen_cap = CHOSEN_FIRST;
    s->chosen_logprobs = by_alloc(CHOSEN_FIRST * sizeof *s->chosen_logprobs);
    return s;
}

void sampler_free(struct sampler *s) {
    if (!s) return;
    by_free(s->chosen_logprobs);
    by_free(s->top_logprobs);
    by_free(s->top_ids);
    by_free(s->w);
    by_free(s);
}

uint32_t sampler_n_vocab(const struct sampler *s) {
    return s->n_vocab;
}

/* ---- what a sequence remembers ---- */

static bool has_penalty(const struct msg_sampling *p) {
    return p->frequency_penalty != 0 || p->presence_penalty != 0 || p->repetition_penalty != 1;
}

void sampler_seq_init(struct sampler_seq *q, const struct msg_sampling *params, uint32_t sample) {
    *q = (struct sampler_seq){.params = params, .sample = sample};
    by_map_init(&q->counts);
}

void sampler_seq_restart(struct sampler_seq *q, const struct msg_sampling *params,
                         uint32_t sample) {
    struct by_map counts = q->counts;
    if (counts.cap > KEPT_COUNTS)
        by_map_release(&counts);
    else
        by_map_clear(&counts);
    *q = (struct sampler_seq){.params = params, .sample = sample, .counts = counts};
}

void sampler_seq_release(struct sampler_seq *q) {
    by_map_release(&q->counts);
    *q = (struct sampler_seq){0};
}

bool sampler_seq_counts(const struct sampler_seq *q) {
    return has_penalty(q->params);
}

void sampler_seq_note(struct sampler_seq *q, uint32_t id) {
    q->n_output++;
    if (!has_penalty(q->params)) return;
    uint64_t key = (uint64_t)id + 1;
    uintptr_t n = (uintptr_t)by_map_get(&q->counts, key);
    by_map_put(&q->counts, key, (void *)(n + 1)); /* the count itself is the value: never 0 */
}

/* ---- changes to the logits, in SGLang's order; on a device sampler_device.c and cuda/sample.cu make the same ---- */

static void add_penalties(const struct sampler_seq *q, float *logits, uint32_t n_vocab) {
    const struct msg_sampling *p = q->params;
    size_t at = 0;
    uint64_t key;
    void *count;
    while (by_map_next(&q->counts, &at, &key, &count)) {
        if (key - 1 >= n_vocab) continue;
        float *l = &logits[key - 1];
        *l -= p->frequency_penalty * (float)(uintptr_t)count;
        *l -= p->presence_penalty;
    }
}

static void scale_repeated(const struct sampler_seq *q, float *logits, uint32_t n_vocab) {
    float r = q->params->repetition_penalty;
    size_t at = 0;
    uint64_t key;
    void *count;
    if (r == 1) return;
    while (by_map_next(&q->counts, &at, &key, &count)) {
        if (key - 1 >= n_vocab) continue;
        float *l = &logits[key - 1];
        *l = *l > 0 ? *l / r : *l * r;
    }
}

static void change_logits(const struct sampler_seq *q, float *logits, uint32_t n_vocab) {
    const struct msg_sampling *p = q->params;
    if (has_penalty(p)) add_penalties(q, logits, n_vocab);
    for (uint32_t i = 0; q->n_output < p->min_new_tokens && i < p->stop_ids.n; i++) {
        if (p->stop_ids.p[i] < n_vocab) logits[p->stop_ids.p[i]] = -INFINITY;
    }
    scale_repeated(q, logits, n_vocab);
    for (uint32_t i = 0; i < p->bias_ids.n && i < p->bias_values.n; i++) {
        if (p->bias_ids.p[i] < n_vocab) logits[p->bias_ids.p[i]] += p->bias_values.p[i];
    }
}

/* ---- weights ---- */

/* Several maxima side by side, in words of the CPU: one alone is a chain that no compiler may cut. */
enum { LANES = 4, SPAN = 16 * LANES }; /* 16 bytes: what every CPU of a kind has */
typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
typedef int32_t marks __attribute__((vector_size(LANES * sizeof(int32_t))));

static bool any(const marks *m) {
    int32_t all = 0;
    for (int j = 0; j < LANES; j++)
        all |= (*m)[j];
    return all != 0;
}

/* Where the first x is among l[0 … n-1]; it is there. */
static uint32_t find_first(const float *l, uint32_t n, float x) {
    uint32_t i = 0;
    for (; i + SPAN <= n; i += SPAN) {
        marks found = {0};
        for (uint32_t j = 0; j < SPAN; j += LANES)
            found |= *(const lanes *)(l + i + j) == x;
        if (any(&found)) break;
    }
    while (l[i] != x)
        i++;
    return i;
}

/* The largest logit and its lowest id. False: a NaN or +inf is there, or nothing but -inf. */
static bool find_max(const float *l, uint32_t n, float *max, uint32_t *id) {
    float best = -INFINITY;
    lanes most[2] = {best - (lanes){0}, best - (lanes){0}};
    marks bad[2] = {{0}, {0}};
    bool is_bad = false;
    uint32_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        for (uint32_t j = 0; j < 2; j++) {
            lanes x = *(const lanes *)(l + i + j * LANES);
            marks above = x > most[j];
            bad[j] |= ~(x < INFINITY);
            most[j] = (lanes)(((marks)x & above) | ((marks)most[j] & ~above));
        }
    }
    for (; i < n; i++) {
        is_bad |= !(l[i] < INFINITY);
        best = l[i] > best ? l[i] : best;
    }
    for (int j = 0; j < 2 * LANES; j++)
        best = most[j / LANES][j % LANES] > best ? most[j / LANES][j % LANES] : best;
    if (is_bad || any(&bad[0]) || any(&bad[1]) || best == -INFINITY) return false;
    *max = best;
    *id = find_first(l, n, best);
    return true;
}

/* exp(x) for x <= 0 with IEEE additions and multiplications only, so that every compiler, vector width and numpy give
 * the same bits (libm's differs between machines). Relative error below 2e-7 (Cephes' coefficients); 0 below -87. */
static inline float exp_exact(float x) {
    const float log2e = 1.44269504088896341f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    /* 1.5 · 2^23: adding and taking it away rounds to whole numbers */
    const float round = 12582912.0f;
    float y = x > -87.0f ? x : -87.0f;
    float n = (y * log2e + round) - round;
    float r = y - n * ln2_high - n * ln2_low;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union {
        int32_t i;
        float f;
    } scale = {.i = ((int32_t)n + 127) << 23};
    float e = p * scale.f;
    /* the sum rounds to just above 1 for some x near 0; a weight never does */
    e = e < 1.0f ? e : 1.0f;
    return x > -87.0f ? e : 0.0f;
}

static uint64_t mass_of(float w) {
    return (uint64_t)(int64_t)(w * (float)(INT64_C(1) << MASS_BITS)); /* signed: one instruction */
}

/* Fills s->w; returns the total mass. */
static uint64_t weigh(struct sampler *s, const float *logits, float max, float temperature) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++)
        s->w[i] = exp_exact((logits[i] - max) / temperature);
    for (uint32_t i = 0; i < s->n_vocab; i++)
        total += mass_of(s->w[i]);
    return total;
}

/* ---- what is kept ---- */

struct cut {       /* kept: weights above w, and the first n_ties of those equal to it */
    uint32_t bits; /* of w; positive floats order as their bits do */
    uint32_t n_ties;
};

static uint32_t bits_of(float w) {
    uint32_t bits;
    memcpy(&bits, &w, 4);
    return bits;
}

static void count_level(struct sampler *s, uint32_t prefix, uint32_t shift) {
    memset(s->count, 0, sizeof s->count);
    memset(s->mass, 0, sizeof s->mass);
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        uint32_t bits = bits_of(s->w[i]);
        if ((uint64_t)bits >> (shift + RADIX_BITS) != prefix) continue;
        uint32_t bucket = bits >> shift & (RADIX - 1);
        s->count[bucket]++;
        s->mass[bucket] += mass_of(s->w[i]);
    }
}

/* The smallest weight for which fewer than k tokens, and a mass below `limit`, are larger: a radix select from the top
 * bits down, three passes whatever the distribution. */
static struct cut find_cut(struct sampler *s, uint64_t k, uint64_t limit) {
    uint32_t prefix = 0;
    uint64_t n_above = 0, mass_above = 0;
    for (uint32_t level = RADIX_LEVELS; level-- > 0;) {
        uint32_t shift = level * RADIX_BITS, bucket = RADIX - 1;
        count_level(s, prefix, shift);
        while (bucket > 0 && n_above + s->count[bucket] < k &&
               mass_above + s->mass[bucket] < limit) {
            n_above += s->count[bucket];
            mass_above += s->mass[bucket];
            bucket--;
        }
        prefix = prefix << RADIX_BITS | bucket;
    }
    float w;
    memcpy(&w, &prefix, 4);
    uint64_t each = mass_of(w), room = k - n_above, n_ties = room;
    if (each) n_ties = BY_MIN(room, (limit - mass_above + each - 1) / each);
    return (struct cut){.bits = prefix, .n_ties = (uint32_t)BY_MIN(n_ties, (uint64_t)s->n_vocab)};
}

static struct cut cut_for(struct sampler *s, const struct msg_sampling *p, uint64_t total) {
    struct cut all = {.bits = 0, .n_ties = s->n_vocab}, c = all;
    uint64_t k = p->top_k > 0 ? BY_MIN((uint64_t)p->top_k, (uint64_t)s->n_vocab) : s->n_vocab;
    if (k < s->n_vocab || p->top_p < 1) {
        uint64_t limit = p->top_p < 1 ? (uint64_t)((double)p->top_p * (double)total) : total;
        c = find_cut(s, k, BY_MAX(limit, (uint64_t)1));
    }
    uint32_t floor_bits = bits_of(p->min_p);
    if (p->min_p > 0 && floor_bits > c.bits)
        c = (struct cut){.bits = floor_bits, .n_ties = s->n_vocab};
    return c;
}

static uint32_t draw(const struct sampler *s, struct cut c, uint64_t r) {
    uint64_t kept = 0, passed = 0;
    uint32_t ties = 0, last = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        uint32_t bits = bits_of(s->w[i]);
        if (bits > c.bits || (bits == c.bits && ties++ < c.n_ties)) kept += mass_of(s->w[i]);
    }
    uint64_t target = (uint64_t)((unsigned __int128)r * kept >> 64);
    ties = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        uint32_t bits = bits_of(s->w[i]);
        if (!(bits > c.bits || (bits == c.bits && ties++ < c.n_ties))) continue;
        passed += mass_of(s->w[i]);
        last = i;
        if (passed > target) break;
    }
    return last;
}

/* ---- log probabilities ---- */

static float logprob_at(float logit, float max, float temperature, double log_total) {
    return (float)((double)((logit - max) / temperature) - log_total);
}

static double log_of(uint64_t total) {
    return log((double)total / (double)(UINT64_C(1) << MASS_BITS));
}

float sampler_logprob(float logit, float max, float temperature, uint64_t total) {
    return logprob_at(logit, max, temperature, log_of(total));
}

/* The n largest logits, best first, ties to the lower id: insertion into a short sorted list. */
static uint32_t find_top(struct sampler *s, const float *logits, uint32_t n) {
    uint32_t have = 0;
    n = BY_MIN(n, BY_MIN((uint32_t)LIMIT_TOP_LOGPROBS, s->n_vocab));
    for (uint32_t i = 0; n && i < s->n_vocab; i++) {
        if (have == n && !(logits[i] > s->top_logprobs[n - 1])) continue;
        uint32_t at = have < n ? have++ : n - 1;
        for (; at > 0 && logits[i] > s->top_logprobs[at - 1]; at--) {
            s->top_logprobs[at] = s->top_logprobs[at - 1];
            s->top_ids[at] = s->top_ids[at - 1];
        }
        s->top_logprobs[at] = logits[i];
        s->top_ids[at] = i;
    }
    return have;
}

static void report(struct sampler *s, const struct msg_sampling *p, const float *logits, float max,
                   float temperature, uint64_t total, struct sampler_pick *out) {
    double log_total = log_of(total);
    out->logprob = logprob_at(logits[out->id], max, temperature, log_total);
    uint32_t n = find_top(s, logits, p->top_logprobs);
    for (uint32_t i = 0; i < n; i++)
        s->top_logprobs[i] = logprob_at(s->top_logprobs[i], max, temperature, log_total);
    out->top = (struct sampler_ids){s->top_ids, s->top_logprobs, n};
    if (p->logprob_ids.n > s->chosen_cap) {
        s->chosen_cap = p->logprob_ids.n;
        s->chosen_logprobs =
            by_realloc(s->chosen_logprobs, s->chosen_cap * sizeof *s->chosen_logprobs);
    }
    for (uint32_t i = 0; i < p->logprob_ids.n; i++) {
        uint32_t id = p->logprob_ids.p[i];
        s->chosen_logprobs[i] =
            id < s->n_vocab ? logprob_at(logits[id], max, temperature, log_total) : -INFINITY;
    }
    out->chosen = (struct sampler_ids){p->logprob_ids.p, s->chosen_logprobs, p->logprob_ids.n};
}

static bool wants_report(const struct msg_sampling *p) {
    return p->logprobs || p->top_logprobs || p->logprob_ids.n;
}

int sampler_pick(struct sampler *s, const struct sampler_seq *q, float *logits,
                 struct sampler_pick *out) {
    const struct msg_sampling *p = q->params;
    float max;
    *out = (struct sampler_pick){0};
    change_logits(q, logits, s->n_vocab);
    if (!find_max(logits, s->n_vocab, &max, &out->id)) return BY_EINTERNAL;
    bool is_greedy = p->temperature < 1e-6f || p->top_k == 1;
    if (is_greedy && !wants_report(p)) return 0;
    float temperature = p->temperature < 1e-6f ? 1 : p->temperature;
    uint64_t total = weigh(s, logits, max, temperature);
    if (!is_greedy) {
        uint64_t r = by_rand_word(p->seed, q->n_output, q->sample, 0);
        out->id = draw(s, cut_for(s, p, total), r);
    }
    if (wants_report(p)) report(s, p, logits, max, temperature, total, out);
    return 0;
}

int sampler_score(struct sampler *s, const struct msg_sampling *params, const float *logits,
                  uint32_t id, struct sampler_pick *out) {
    float max;
    *out = (struct sampler_pick){0};
    by_assert(id < s->n_vocab);
    if (!find_max(logits, s->n_vocab, &max, &out->id)) return BY_EINTERNAL;
    out->id = id;
    report(s, params, logits, max, 1, weigh(s, logits, max, 1), out);
    return 0;
}
