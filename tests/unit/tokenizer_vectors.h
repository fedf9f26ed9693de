/* tokenizer_vectors.h - runs a golden.jsonl (what Hugging Face's tokenizers made of the same text) against a
 * tokenizer.json: encode with and without special tokens, decode likewise, each step of the stream.
 *
 *     {"kind": "encode", "text", "ids", "ids_with_special"?, "decoded", "decoded_skip_special"?, "stream"?}
 *     {"kind": "decode", "ids", "text", "stream"?}
 *
 * Always: a folder without rows fails.
 * Owner: the test that includes it. */
#ifndef TESTS_UNIT_TOKENIZER_VECTORS_H
#define TESTS_UNIT_TOKENIZER_VECTORS_H

#include "common/text/tokenizer.h"

#include "common/base/file.h"
#include "common/text/json_pull.h"
#include "common/text/stream_decode.h"
#include "tests/unit/test.h"

/* One line of a golden.jsonl. Read by our own reader, since texts may hold U+0000. */
struct row {
    bool is_encode, has_special, has_skipped;
    struct by_buf text, decoded, skipped;
    struct by_ids ids, special;
    struct by_str stream; /* raw */
};

struct vectors {
    const char *name;
    struct by_tokenizer *t;
    struct row row;
    struct by_ids ids;
    struct by_buf out;
    size_t n_rows, n_bad;
};

static void init_row(struct row *r) {
    *r = (struct row){.is_encode = false};
    by_buf_init(&r->text, 64 << 20);
    by_buf_init(&r->decoded, 64 << 20);
    by_buf_init(&r->skipped, 64 << 20);
    by_ids_init(&r->ids, 1 << 24);
    by_ids_init(&r->special, 1 << 24);
}

static void release_row(struct row *r) {
    by_ids_release(&r->special);
    by_ids_release(&r->ids);
    by_buf_release(&r->skipped);
    by_buf_release(&r->decoded);
    by_buf_release(&r->text);
}

static void read_str(struct by_pull *p, struct by_buf *scratch, struct by_buf *out) {
    struct by_str s;
    by_buf_clear(out);
    if (by_pull_str(p, scratch, &s)) by_buf_add_str(out, s);
}

static void read_ids(struct by_pull *p, struct by_ids *out) {
    by_ids_clear(out);
    by_pull_array(p);
    while (by_pull_item(p)) {
        int64_t id;
        if (by_pull_i64(p, &id)) by_ids_add(out, (uint32_t)id);
    }
}

static void read_row(struct row *r, struct by_str line) {
    struct by_pull p;
    struct by_buf scratch, kind;
    struct by_str key;
    struct by_err err;
    by_buf_init(&scratch, 64 << 20);
    by_buf_init(&kind, 64);
    r->has_special = r->has_skipped = false;
    r->stream = (struct by_str){0};
    by_pull_init(&p, line);
    by_pull_object(&p);
    while (by_pull_key(&p, &scratch, &key)) {
        if (by_str_eqz(key, "kind"))
            read_str(&p, &scratch, &kind);
        else if (by_str_eqz(key, "text"))
            read_str(&p, &scratch, &r->text);
        else if (by_str_eqz(key, "decoded"))
            read_str(&p, &scratch, &r->decoded);
        else if (by_str_eqz(key, "decoded_skip_special"))
            read_str(&p, &scratch, &r->skipped), r->has_skipped = true;
        else if (by_str_eqz(key, "ids"))
            read_ids(&p, &r->ids);
        else if (by_str_eqz(key, "ids_with_special"))
            read_ids(&p, &r->special), r->has_special = true;
        else if (by_str_eqz(key, "stream"))
            by_pull_skip(&p, &r->stream);
        else
            by_pull_fail(&p, "an unknown key");
    }
    r->is_encode = by_str_eqz(by_buf_str(&kind), "encode");
    if (by_pull_error(&p, &err)) fail_msg("%s", err.text);
    by_buf_release(&kind);
    by_buf_release(&scratch);
}

static void complain(struct vectors *v, const char *what, struct by_str text) {
    if (v->n_bad++ < 8)
        print_message("%s row %zu: %s differs for " BY_STR_FMT "\n", v->name, v->n_rows, what,
                      BY_STR_ARG(by_str_sub(text, 0, 120)));
}

static void check_encode(struct vectors *v, const struct by_ids *want, bool add_special_tokens) {
    struct by_encode_options o = {.add_special_tokens = add_special_tokens, .allow_special = true};
    struct by_err err;
    struct by_str text = by_buf_str(&v->row.text);
    by_ids_clear(&v->ids);
    assert_int_equal(by_tokenizer_encode(v->t, text, &o, &v->ids, &err), 0);
    bool is_same = v->ids.n == want->n;
    for (size_t i = 0; i < want->n && is_same; i++)
        is_same = v->ids.p[i] == want->p[i];
    if (!is_same) complain(v, add_special_tokens ? "encode with special" : "encode", text);
}

static void check_decode(struct vectors *v, struct by_str want, bool skip) {
    struct by_decode_options o = {.skip_special_tokens = skip, .keep_spaces = true};
    by_buf_clear(&v->out);
    by_tokenizer_decode(v->t, v->row.ids.p, v->row.ids.n, &o, &v->out);
    if (!by_str_eq(by_buf_str(&v->out), want))
        complain(v, skip ? "decode without special" : "decode", want);
}

/* Step by step, and the whole at the end. The whole is not compared where the reference itself had released a byte
 * token's character that a later byte of the same run made void (README, pitfall 3). */
static void check_stream(struct vectors *v, struct by_str whole) {
    struct by_decode_options o = {.skip_special_tokens = false, .keep_spaces = true};
    struct by_stream_decode s;
    struct by_pull p;
    struct by_buf scratch;
    by_pull_init(&p, v->row.stream);
    if (by_pull_peek(&p) != '[') return;
    by_pull_array(&p);
    by_buf_init(&scratch, 64 << 20);
    by_stream_decode_init(&s, v->t, &o);
    by_buf_clear(&v->out);
    for (size_t i = 0; i < v->row.ids.n; i++) {
        struct by_str want = {"", 0};
        size_t from = v->out.n;
        by_stream_decode_push(&s, v->row.ids.p[i], &v->out);
        assert_true(by_pull_item(&p));
        if (by_pull_peek(&p) == '"')
            by_pull_str(&p, &scratch, &want);
        else
            by_pull_skip(&p, NULL);
        if (!by_str_eq(by_str_sub(by_buf_str(&v->out), from, v->out.n - from), want)) {
            complain(v, "a step of the stream", whole);
            break;
        }
    }
    bool is_sound = by_str_starts(whole, by_buf_str(&v->out));
    by_stream_decode_finish(&s, &v->out);
    if (is_sound && !by_str_eq(by_buf_str(&v->out), whole)) complain(v, "the whole stream", whole);
    by_stream_decode_release(&s);
    by_buf_release(&scratch);
}

static void check_row(struct vectors *v) {
    struct row *r = &v->row;
    struct by_str decoded = by_buf_str(r->is_encode ? &r->decoded : &r->text);
    v->n_rows++;
    if (r->is_encode) {
        check_encode(v, r->has_special ? &r->special : &r->ids, true);
        check_encode(v, &r->ids, false);
        check_decode(v, r->has_skipped ? by_buf_str(&r->skipped) : decoded, true);
    }
    check_decode(v, decoded, false);
    if (r->stream.n) check_stream(v, decoded);
}

static void open_file(struct vectors *v, const char *root) {
    struct by_buf file;
    struct by_err err;
    char path[512];
    by_buf_init(&file, 256 << 20);
    snprintf(path, sizeof path, "%s/%s/tokenizer.json", root, v->name);
    if (by_file_read(&file, path, &err)) fail_msg("%s", err.text);
    if (by_tokenizer_parse(&v->t, by_buf_str(&file), v->name, &err)) fail_msg("%s", err.text);
    by_buf_release(&file);
}

/* The folder as a process opens it, or the GGUF file in it. */
static void open_folder(struct vectors *v, const char *root) {
    struct by_model_dir *dir = NULL;
    struct by_err err;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, v->name);
    if (by_model_dir_open_text(&dir, path, &err)) fail_msg("%s", err.text);
    if (by_tokenizer_open(&v->t, dir, &err)) fail_msg("%s", err.text);
    by_model_dir_close(dir);
}

static void check_vectors(const char *root, const char *name, bool is_folder) {
    struct vectors v = {.name = name};
    struct by_err err;
    struct by_buf file;
    char path[512];
    init_row(&v.row);
    by_ids_init(&v.ids, 1 << 24);
    by_buf_init(&v.out, 64 << 20);
    by_buf_init(&file, 256 << 20);
    if (is_folder)
        open_folder(&v, root);
    else
        open_file(&v, root);
    snprintf(path, sizeof path, "%s/%s/golden.jsonl", root, name);
    by_buf_clear(&file);
    if (by_file_read(&file, path, &err)) fail_msg("%s", err.text);
    struct by_str rest = by_buf_str(&file), line;
    while (rest.n) {
        by_str_split(&rest, '\n', &line);
        read_row(&v.row, line);
        check_row(&v);
    }
    by_tokenizer_close(v.t);
    by_buf_release(&file);
    by_buf_release(&v.out);
    by_ids_release(&v.ids);
    release_row(&v.row);
    if (v.n_bad) fail_msg("%s: %zu differences in %zu rows", name, v.n_bad, v.n_rows);
    assert_true(v.n_rows > 100);
}

/* A test that runs the vectors of one folder. */
#define VECTORS(test, root, folder) \
    TEST(test) { \
        UNUSED_STATE; \
        check_vectors(root, folder, false); \
    }
#define FOLDER_VECTORS(test, root, folder) \
    TEST(test) { \
        UNUSED_STATE; \
        check_vectors(root, folder, true); \
    }

#endif
