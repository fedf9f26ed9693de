/* bench_tokenizer FOLDER DOCUMENTS: how fast a tokenizer loads, encodes and decodes; one thread. DOCUMENTS is a file of texts
 * with a NUL between them. bench_tokenizer.py makes one and runs this beside PyPI's tokenizers. */
#include "common/base/file.h"
#include "common/text/tokenizer.h"
#include "tests/bench/bench.h"

#include <time.h>

enum { ROUNDS = 3, PROMPTS = 2000, PROMPT_BYTES = 80, IDS_MAX = 64 << 20 };

enum row { LOAD, LOAD_CACHED, ENCODE, WHOLE, PROMPT, DECODE, DECODE_BYTES };

static struct by_tokenizer *tokenizer;
static struct by_buf file;
static struct by_ids ids;

/* CPU time: a busy neighbour counts for neither side. */
static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const struct by_err *err) {
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static void encode(struct by_str text) {
    struct by_err err = {0};
    struct by_encode_options o = {.add_special_tokens = false, .allow_special = true};
    if (by_tokenizer_encode(tokenizer, text, &o, &ids, &err)) die(&err);
}

static double load(const char *folder, bool is_cached) {
    int (*open)(struct by_tokenizer **, const struct by_model_dir *, struct by_err *) =
        is_cached ? by_tokenizer_open_cached : by_tokenizer_open;
    struct by_model_dir *dir = NULL;
    struct by_err err = {0};
    uint64_t from = cpu_ns();
    by_tokenizer_close(tokenizer);
    if (by_model_dir_open_text(&dir, folder, &err) || open(&tokenizer, dir, &err)) die(&err);
    by_model_dir_close(dir);
    return (double)(cpu_ns() - from) / 1e6;
}

static double encode_documents(void) {
    struct by_str rest = by_buf_str(&file), text;
    uint64_t from = cpu_ns();
    for (bool more = true; more;) {
        more = by_str_split(&rest, '\0', &text);
        by_ids_clear(&ids);
        encode(text);
    }
    return (double)file.n / 1e6 / ((double)(cpu_ns() - from) / 1e9);
}

/* All documents as one string: NULs become blanks. */
static double encode_whole(struct by_buf *whole) {
    uint64_t from = cpu_ns();
    by_ids_clear(&ids);
    encode(by_buf_str(whole));
    return (double)whole->n / 1e6 / ((double)(cpu_ns() - from) / 1e9);
}

/* The clock is read once for all: a reading takes a quarter of a microsecond. */
static double encode_prompts(void) {
    static struct by_str prompts[PROMPTS];
    for (size_t i = 0; i < PROMPTS; i++) {
        size_t at = i * 7919 * PROMPT_BYTES % (file.n - 2 * PROMPT_BYTES), n = PROMPT_BYTES;
        while (((unsigned char)file.p[at] & 0xC0) == 0x80)
            at++;
        while (((unsigned char)file.p[at + n] & 0xC0) == 0x80)
            n++;
        prompts[i] = (struct by_str){file.p + at, n};
    }
    uint64_t from = cpu_ns();
    for (size_t i = 0; i < PROMPTS; i++) {
        by_ids_clear(&ids);
        encode(prompts[i]);
    }
    return (double)(cpu_ns() - from) / PROMPTS / 1e3;
}

static double decode(struct by_buf *out) {
    struct by_decode_options o = {0};
    uint64_t from = cpu_ns();
    by_buf_clear(out);
    by_tokenizer_decode(tokenizer, ids.p, ids.n, &o, out);
    return (double)ids.n / 1e6 / ((double)(cpu_ns() - from) / 1e9);
}

int main(int argc, char **argv) {
    struct by_err err = {0};
    struct by_buf whole, text;
    double best[] = {[LOAD] = 1e9, [LOAD_CACHED] = 1e9, [PROMPT] = 1e9, [DECODE_BYTES] = 0};
    if (argc != 3) return 2;
    by_buf_init(&file, IDS_MAX);
    by_buf_init(&whole, IDS_MAX);
    by_buf_init(&text, 8 * (size_t)IDS_MAX);
    by_ids_init(&ids, IDS_MAX);
    if (by_file_read(&file, argv[2], &err)) die(&err);
    by_buf_add_str(&whole, by_buf_str(&file));
    for (size_t i = 0; i < whole.n; i++)
        if (!whole.p[i]) whole.p[i] = ' ';
    for (int i = 0; i < ROUNDS; i++) {
        best[LOAD_CACHED] = BY_MIN(best[LOAD_CACHED], load(argv[1], true)); /* the first makes it */
        best[LOAD] = BY_MIN(best[LOAD], load(argv[1], false));
        best[ENCODE] = BY_MAX(best[ENCODE], encode_documents());
        best[PROMPT] = BY_MIN(best[PROMPT], encode_prompts());
        best[WHOLE] = BY_MAX(best[WHOLE], encode_whole(&whole));
        best[DECODE] = BY_MAX(best[DECODE], decode(&text));
    }
    best[DECODE_BYTES] = best[DECODE] * (double)text.n / (double)ids.n;
    static const char *const names[][2] = {[LOAD] = {"load", "ms"},
                                           [LOAD_CACHED] = {"load cached", "ms"},
                                           [ENCODE] = {"encode", "MB/s"},
                                           [WHOLE] = {"encode whole", "MB/s"},
                                           [PROMPT] = {"encode prompt", "us"},
                                           [DECODE] = {"decode", "Mtokens/s"},
                                           [DECODE_BYTES] = {"decode", "MB/s"}};
    for (size_t i = 0; i < BY_COUNTOF(names); i++)
        bench_row(names[i][0], by_path_base(argv[1]), best[i], names[i][1]);
    by_tokenizer_close(tokenizer);
    by_ids_release(&ids);
    by_buf_release(&text);
    by_buf_release(&whole);
    by_buf_release(&file);
    return 0;
}
