#include "gpu_worker/one_batch.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/rand.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    SHAPES_MAX = 64,
    ROUNDS = 3,
    FIRST_ID = 3 /* ids below are special ones in most vocabularies */
};

static bool read_u32(struct by_str *rest, char sep, uint32_t *out) {
    struct by_str head;
    uint64_t n;
    by_str_split(rest, sep, &head);
    if (!by_str_to_u64(head, &n) || n > 1u << 24) return false;
    *out = (uint32_t)n;
    return true;
}

int one_batch_parse(const char *text, struct one_batch **out, uint32_t *n, struct by_err *err) {
    struct by_str rest = by_str_of(text), word;
    *out = by_alloc_array(SHAPES_MAX, sizeof **out);
    *n = 0;
    do {
        by_str_split(&rest, ',', &word);
        struct one_batch s = {0};
        struct by_str whole = word, sizes;
        bool has_shared = by_str_split(&word, '+', &sizes);
        bool good = read_u32(&sizes, 'x', &s.n_seqs) && read_u32(&sizes, 'x', &s.n_input) &&
                    read_u32(&sizes, 'x', &s.n_output) && !sizes.n &&
                    (!has_shared || read_u32(&word, ',', &s.n_shared));
        if (!good || !s.n_seqs || !s.n_input || s.n_shared >= s.n_input || *n == SHAPES_MAX) {
            by_free(*out);
            *out = NULL;
            return by_fail(err, BY_EINVAL,
                           "--one-batch " BY_STR_FMT ": expected SEQUENCESxINPUTxOUTPUT[+SHARED], "
                           "such as 8x160x32, at most %d of them",
                           BY_STR_ARG(whole), (int)SHAPES_MAX);
        }
        (*out)[(*n)++] = s;
    } while (rest.n);
    return 0;
}

/* The sequences of one round, and the step being made of them. */
struct round {
    struct worker *w;
    const struct mirror_limits *limits;
    const struct one_batch *shape;
    uint32_t chunk;
    uint64_t step;
    uint32_t *ids;                 /* [n_seqs, n_input] */
    uint32_t *pages;               /* [n_seqs, pages_each] */
    uint32_t pages_each, n_shared; /* shared tokens, whole pages */
    struct msg_admit *admits;
    uint32_t *slots, *tokens, *samples, *done; /* [n_seqs] */
};

static void lay_out(struct round *r) {
    const struct one_batch *s = r->shape;
    uint64_t seed = 1;
    uint32_t page = r->limits->page_size, next = 0;
    r->n_shared = s->n_shared / page * page;
    r->pages_each = BY_DIV_UP(s->n_input + s->n_output, page);
    r->ids = by_alloc_array((size_t)s->n_seqs * s->n_input, sizeof *r->ids);
    r->pages = by_alloc_array((size_t)s->n_seqs * r->pages_each, sizeof *r->pages);
    r->admits = by_alloc_array(s->n_seqs, sizeof *r->admits);
    r->slots = by_alloc_array(s->n_seqs, sizeof *r->slots);
    r->tokens = by_alloc_array(s->n_seqs, sizeof *r->tokens);
    r->samples = by_alloc_array(s->n_seqs, sizeof *r->samples);
    r->done = by_alloc_array(s->n_seqs, sizeof *r->done);
    for (uint32_t i = 0; i < s->n_seqs; i++) {
        uint32_t *ids = r->ids + (size_t)i * s->n_input;
        uint32_t *pages = r->pages + (size_t)i * r->pages_each;
        for (uint32_t k = 0; k < s->n_input; k++)
            ids[k] =
                i && k < r->n_shared
                    ? r->ids[k]
                    : FIRST_ID + (uint32_t)(by_rand_next(&seed) % (r->limits->n_vocab - FIRST_ID));
        for (uint32_t k = 0; k < r->pages_each; k++)
            pages[k] = i && k < r->n_shared / page ? r->pages[k] : next++;
    }
}

static void release(struct round *r) {
    by_free(r->ids);
    by_free(r->pages);
    by_free(r->admits);
    by_free(r->slots);
    by_free(r->tokens);
    by_free(r->samples);
    by_free(r->done);
}

static int send(struct round *r, struct msg_step *m, uint32_t n_rows, double *seconds,
                struct by_err *err) {
    struct msg_step_done done;
    m->step = ++r->step;
    m->row_slots = (struct msg_u32s){r->slots, n_rows};
    m->row_tokens = (struct msg_u32s){r->tokens, n_rows};
    m->row_samples = (struct msg_u32s){r->samples, n_rows};
    uint64_t from = by_now_ns();
    int rc = worker_step(r->w, m, &done, err);
    *seconds = (double)(by_now_ns() - from) / 1e9;
    if (!rc && done.failed_slots.n)
        return by_fail(err, BY_EINTERNAL, "%u rows gave NaN logits", done.failed_slots.n);
    return rc;
}

/* Admits the sequence in slot i; a sharer's first tokens are there already. */
static struct msg_admit admit_of(const struct round *r, uint32_t i) {
    const struct one_batch *s = r->shape;
    uint32_t n_cached = i ? r->n_shared : 0;
    return (struct msg_admit){
        .slot = i,
        .n_prompt = s->n_input,
        .n_cached = n_cached,
        .ids = {r->ids + (size_t)i * s->n_input + n_cached, s->n_input - n_cached},
        .pages = {r->pages + (size_t)i * r->pages_each, r->pages_each},
        .sampling = {.top_p = 1, .repetition_penalty = 1, .ignore_eos = true, .logprob_start = -1},
    };
}

/* Prompts in chunks over all sequences, as the scheduler lays them; the first one goes ahead where others share. */
static int prefill(struct round *r, double *seconds, struct by_err *err) {
    const struct one_batch *s = r->shape;
    uint32_t n_admitted = 0, first = 0;
    *seconds = 0;
    while (first < s->n_seqs) {
        struct msg_step m = {0};
        uint32_t n_rows = 0, left = r->chunk, n_new = 0;
        for (uint32_t i = first; i < s->n_seqs && left; i++) {
            if (i && r->n_shared && r->done[0] < r->n_shared) break;
            if (i == n_admitted) {
                r->done[i] = i ? r->n_shared : 0;
                r->admits[n_new++] = admit_of(r, i);
                n_admitted++;
            }
            uint32_t n = BY_MIN(left, s->n_input - r->done[i]);
            r->slots[n_rows] = i;
            r->tokens[n_rows] = n;
            r->samples[n_rows++] = r->done[i] + n == s->n_input;
            left -= n;
        }
        m.admits.p = r->admits;
        m.admits.n = n_new;
        double t;
        int rc = send(r, &m, n_rows, &t, err);
        if (rc) return rc;
        *seconds += t;
        for (uint32_t k = 0; k < n_rows; k++)
            r->done[r->slots[k]] += r->tokens[k];
        while (first < s->n_seqs && first < n_admitted && r->done[first] == s->n_input)
            first++;
    }
    return 0;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *t, uint32_t n) {
    qsort(t, n, sizeof *t, by_size);
    return n ? t[n / 2] : 0;
}

static int check(const struct round *r, struct by_err *err) {
    const struct one_batch *s = r->shape;
    uint64_t n_pages =
        (uint64_t)s->n_seqs * BY_DIV_UP(s->n_input + s->n_output, r->limits->page_size);
    if (s->n_seqs > r->limits->n_slots)
        return by_fail(err, BY_EINVAL, "%u sequences; raise --max-running-requests", s->n_seqs);
    if (n_pages > r->limits->n_pages || s->n_input + s->n_output > r->limits->context_len)
        return by_fail(err, BY_EINVAL,
                       "%u sequences of %u tokens need %llu pages, there are %u; the context is %u",
                       s->n_seqs, s->n_input + s->n_output, (unsigned long long)n_pages,
                       r->limits->n_pages, r->limits->context_len);
    return 0;
}

void one_batch_print_header(void) {
    printf("%-16s %12s %12s %12s %12s\n", "shape", "prefill t/s", "prefill ms", "decode t/s",
           "ms a step");
}

int one_batch_run(struct worker *w, const struct mirror_limits *limits, uint32_t chunk,
                  const struct one_batch *shape, struct by_err *err) {
    struct round r = {.w = w, .limits = limits, .shape = shape, .chunk = chunk};
    double prefills[ROUNDS], *steps;
    uint32_t n_steps = 0;
    int rc = check(&r, err);
    if (rc) return rc;
    lay_out(&r);
    steps = by_alloc_array((size_t)ROUNDS * (shape->n_output + 1), sizeof *steps);
    for (int round = 0; !rc && round < ROUNDS; round++) {
        worker_reset(w);
        r.step = 0;
        rc = prefill(&r, &prefills[round], err);
        for (uint32_t i = 0; i < shape->n_seqs; i++) {
            r.slots[i] = i;
            r.tokens[i] = r.samples[i] = 1;
        }
        for (uint32_t k = 1; !rc && k < shape->n_output; k++)
            rc = send(&r, &(struct msg_step){0}, shape->n_seqs, &steps[n_steps++], err);
    }
    if (!rc) {
        double pre = median(prefills, ROUNDS), step = median(steps, n_steps);
        uint64_t n_tokens =
            (uint64_t)shape->n_seqs * shape->n_input - (uint64_t)(shape->n_seqs - 1) * r.n_shared;
        char name[64];
        snprintf(name, sizeof name, r.n_shared ? "%ux%ux%u+%u" : "%ux%ux%u", shape->n_seqs,
                 shape->n_input, shape->n_output, r.n_shared);
        printf("%-16s %12.1f %12.2f %12.1f %12.3f\n", name, (double)n_tokens / pre, pre * 1e3,
               step > 0 ? shape->n_seqs / step : 0, step * 1e3);
        fflush(stdout);
    }
    by_free(steps);
    release(&r);
    return rc;
}
