#include "deploy/cli/bench_tokenize.h"

#include "common/text/tokenizer.h"

#include <stdio.h>
#include <time.h>

enum { ROUNDS = 5, SAMPLE_BYTES = 2 << 20, IDS_MAX = 64 << 20, PROMPT_BYTES = 80, PROMPTS = 4000 };

static const char *const samples[] = {
    "A banyan sends roots down from its branches, and where they meet the ground they become "
    "trunks. After a hundred years "
    "nobody can say which of the trunks was the first; in Calcutta one tree covers five acres, and "
    "it isn't done.\n\n",
    "static int find(const struct map *m, uint64_t key) {\n    for (size_t i = key & m->mask;; i = "
    "(i + 1) & m->mask) {\n"
    "        if (m->slots[i].key == key) return (int)i;\n        if (!m->slots[i].used) return -1; "
    "/* 0x1F, 42 */\n    }\n}\n",
    "\xE6\x9C\xA8\xE3\x81\xAF\xE6\xA0\xB9\xE3\x82\x92\xE4\xB8\x8B\xE3\x82\x8D\xE3\x81\x97\xE3\x80"
    "\x81\xE6\x9E\x9D\xE3\x81\xAF"
    "\xE5\xB9\xB9\xE3\x81\xAB\xE3\x81\xAA\xE3\x82\x8B\xE3\x80\x82 "
    "\xE4\xB8\x80\xE6\xA3\xB5\xE6\xA0\x91\xE6\x9C\x89\xE8\xAE\xB8"
    "\xE5\xA4\x9A\xE6\xA0\x91\xE5\xB9\xB2\xE3\x80\x82 "
    "\xD0\x94\xD0\xB5\xD1\x80\xD0\xB5\xD0\xB2\xD0\xBE \xD1\x80\xD0\xB0\xD1\x81"
    "\xD1\x82\xD1\x91\xD1\x82. Gr\xC3\xBC\xC3\x9F"
    "e \xF0\x9F\x8C\xB3\n",
    "| request | tokens | ms |\n| --- | ---: | ---: |\n| 17 | 1,024 | 3.25 |\n| 18 | 96 | 0.71 "
    "|\n\nWhat's the total? We'll see.\n"};

struct bench {
    struct by_tokenizer *t;
    struct by_str text;
    struct by_ids ids;
    struct by_buf out;
};

static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

typedef int open_fn(struct by_tokenizer **out, const struct by_model_dir *dir, struct by_err *err);

static int time_open(struct bench *b, open_fn *open, const struct by_model_dir *dir, double *best,
                     struct by_err *err) {
    for (int i = 0; i < ROUNDS; i++) {
        by_tokenizer_close(b->t);
        b->t = NULL;
        double from = cpu_s();
        int rc = open(&b->t, dir, err);
        double took = cpu_s() - from;
        if (rc) return rc;
        *best = i ? BY_MIN(*best, took) : took;
    }
    return 0;
}

static int encode(struct bench *b, struct by_str text, struct by_err *err) {
    struct by_encode_options o = {.allow_special = true};
    by_ids_clear(&b->ids);
    return by_tokenizer_encode(b->t, text, &o, &b->ids, err);
}

static int time_encode(struct bench *b, double *best, struct by_err *err) {
    for (int i = 0; i < ROUNDS; i++) {
        double from = cpu_s();
        int rc = encode(b, b->text, err);
        double took = cpu_s() - from;
        if (rc) return rc;
        *best = i ? BY_MIN(*best, took) : took;
    }
    return 0;
}

static size_t border(struct by_str text, size_t at) {
    while (at < text.n && ((unsigned char)text.p[at] & 0xC0) == 0x80)
        at++;
    return at;
}

/* Short prompts from everywhere in the text. */
static int time_prompts(struct bench *b, double *each, struct by_err *err) {
    double from = cpu_s();
    for (size_t i = 0; i < PROMPTS; i++) {
        size_t at = border(b->text, i * 7919 * PROMPT_BYTES % b->text.n);
        size_t end = border(b->text, BY_MIN(at + PROMPT_BYTES, b->text.n));
        int rc = encode(b, by_str_sub(b->text, at, end - at), err);
        if (rc) return rc;
    }
    *each = (cpu_s() - from) / PROMPTS;
    return 0;
}

static void time_decode(struct bench *b, double *best) {
    struct by_decode_options o = {.keep_spaces = true};
    for (int i = 0; i < ROUNDS; i++) {
        double from = cpu_s();
        by_buf_clear(&b->out);
        by_tokenizer_decode(b->t, b->ids.p, b->ids.n, &o, &b->out);
        double took = cpu_s() - from;
        *best = i ? BY_MIN(*best, took) : took;
    }
}

static int run(struct bench *b, const struct by_model_dir *dir, struct by_err *err) {
    double parse, cached, whole, prompt, decode;
    int rc = time_open(b, by_tokenizer_open, dir, &parse, err);
    if (!rc) rc = time_open(b, by_tokenizer_open_cached, dir, &cached, err);
    if (!rc) rc = time_prompts(b, &prompt, err);
    if (!rc) rc = time_encode(b, &whole, err);
    if (rc) return rc;
    time_decode(b, &decode);
    double mb = (double)b->text.n / 1e6, n = (double)b->ids.n / 1e6;
    printf("%s, %u ids, %.1f MB of text, %.2f bytes a token\n", by_tokenizer_kind(b->t),
           by_tokenizer_n_vocab(b->t), mb, mb / n);
    printf("load           %8.1f ms\nload, cached   %8.1f ms\n", parse * 1e3, cached * 1e3);
    printf("encode         %8.1f MB/s  %6.2f M tokens/s\n", mb / whole, n / whole);
    printf("encode %d bytes %7.2f us\n", PROMPT_BYTES, prompt * 1e6);
    printf("decode         %8.1f MB/s  %6.2f M tokens/s\n", mb / decode, n / decode);
    if (!by_str_eq(by_buf_str(&b->out), b->text))
        printf("decoding gives other text than was encoded: this tokenizer normalizes\n");
    return 0;
}

int bench_tokenize(const struct by_model_dir *dir, struct by_str text, struct by_err *err) {
    struct bench b = {.text = text};
    struct by_buf sample;
    by_buf_init(&sample, 2 * (size_t)SAMPLE_BYTES);
    for (size_t i = 0; !text.n && sample.n < SAMPLE_BYTES; i++)
        by_buf_addz(&sample, samples[i % BY_COUNTOF(samples)]);
    if (!text.n) b.text = by_buf_str(&sample);
    by_ids_init(&b.ids, IDS_MAX);
    by_buf_init(&b.out, SIZE_MAX / 2);
    int rc = run(&b, dir, err);
    by_tokenizer_close(b.t);
    by_buf_release(&b.out);
    by_ids_release(&b.ids);
    by_buf_release(&sample);
    return rc;
}
