/* st_writer.h - writes a Hugging Face folder with one model.safetensors, for tests that need a model of their own.
 *
 *     st_begin ─▶ p = st_add(name, type, rows, cols), fill p ─▶ … ─▶ st_end(folder, config.json's text)
 *
 * Always: what st_add gave is yours to fill until st_end.
 * Owner: the test program. */
#ifndef TESTS_MODELS_ST_WRITER_H
#define TESTS_MODELS_ST_WRITER_H

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/modelfile/dtype.h"
#include "tests/unit/test.h"

#include <stdio.h>

enum { ST_TENSORS_MAX = 512, ST_NAME_MAX = 128 };

struct st_tensor {
    char name[ST_NAME_MAX];
    enum by_dtype dtype;
    uint64_t rows, cols; /* rows 0: a vector */
    size_t n_bytes;
    void *data;
};
struct st_writer {
    struct st_tensor tensors[ST_TENSORS_MAX];
    uint32_t n;
};

static inline void st_begin(struct st_writer *w) {
    w->n = 0;
}

static inline void *st_add(struct st_writer *w, const char *name, enum by_dtype t, uint64_t rows,
                           uint64_t cols) {
    struct st_tensor *x = &w->tensors[w->n++];
    assert_true(w->n <= ST_TENSORS_MAX && name[0]);
    *x = (struct st_tensor){.dtype = t,
                            .rows = rows,
                            .cols = cols,
                            .n_bytes = (rows ? rows : 1) * cols * by_dtype_block_bytes(t)};
    snprintf(x->name, sizeof x->name, "%s", name);
    x->data = by_alloc(x->n_bytes);
    return x->data;
}

/* "F8_E4M3" and the like are safetensors' own names too. */
static inline void st_header(const struct st_writer *w, struct by_buf *out) {
    size_t at = 0;
    by_buf_addc(out, '{');
    for (uint32_t i = 0; i < w->n; i++) {
        const struct st_tensor *t = &w->tensors[i];
        by_buf_addf(out, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "", t->name,
                    by_dtype_name(t->dtype));
        if (t->rows) by_buf_addf(out, "%llu,", (unsigned long long)t->rows);
        by_buf_addf(out, "%llu],\"data_offsets\":[%zu,%zu]}", (unsigned long long)t->cols, at,
                    at + t->n_bytes);
        at += t->n_bytes;
    }
    by_buf_addc(out, '}');
    while (out->n % 8)
        by_buf_addc(out, ' ');
}

/* Writes the folder's two files and frees the tensors. */
static inline void st_end(struct st_writer *w, const char *dir, const char *config) {
    struct by_buf header;
    struct by_err err = {0};
    char *path = by_path_join(dir, "model.safetensors"),
         *config_path = by_path_join(dir, "config.json");
    by_buf_init(&header, 1 << 20);
    st_header(w, &header);
    FILE *f = fopen(path, "wb");
    uint64_t n = header.n;
    assert_non_null(f);
    assert_int_equal(fwrite(&n, sizeof n, 1, f) + fwrite(header.p, 1, header.n, f), 1 + header.n);
    for (uint32_t i = 0; i < w->n; i++) {
        assert_int_equal(fwrite(w->tensors[i].data, 1, w->tensors[i].n_bytes, f),
                         w->tensors[i].n_bytes);
        by_free(w->tensors[i].data);
    }
    assert_int_equal(fclose(f), 0);
    if (by_file_write(config_path, by_str_of(config), &err)) fail_msg("%s", err.text);
    by_buf_release(&header);
    by_free(config_path);
    by_free(path);
}

#endif
