#include "common/modelfile/model_dir.h"

#include "common/base/check.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/modelfile/gguf_config.h"
#include "common/modelfile/hf_config.h"
#include "common/modelfile/hf_quant.h"
#include "common/modelfile/lfs_pointer.h"
#include "common/modelfile/safetensors.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

struct by_model_dir {
    enum by_model_kind kind;
    char *path; /* the GGUF file, or the folder */
    struct by_gguf *gguf;
    struct by_safetensors *weights;
    struct by_json *config;            /* the whole config.json */
    const struct by_json *text_config; /* it, or its text_config */
    struct by_model_info info;
    bool has_info;
};

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool has_file(const char *dir, const char *name) {
    char *path = by_path_join(dir, name);
    bool found = by_file_exists(path);
    by_free(path);
    return found;
}

/* The one .gguf of a folder, or NULL (none, or several: which one is not ours to guess). */
static char *only_gguf(const char *dir) {
    DIR *d = opendir(dir);
    char *found = NULL;
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        if (!ends_with(e->d_name, ".gguf") || n++) continue;
        found = by_path_join(dir, e->d_name);
    }
    if (d) closedir(d);
    if (n == 1) return found;
    by_free(found);
    return NULL;
}

/* ---- the two kinds ---- */

static int open_gguf(struct by_model_dir *d, struct by_err *err) {
    d->kind = BY_MODEL_GGUF;
    int rc = by_gguf_open(&d->gguf, d->path, err);
    if (!rc) rc = by_gguf_config_read(&d->info, d->gguf, d->path, err);
    d->has_info = !rc;
    return rc;
}

static int add_generation(struct by_model_dir *d, struct by_err *err) {
    struct by_json *generation = NULL;
    char *path = by_path_join(d->path, "generation_config.json");
    int rc = 0;
    if (by_file_exists(path)) {
        rc = by_hf_config_load(&generation, path, err);
        if (!rc) rc = by_hf_config_add_generation(&d->info, generation, path, err);
    }
    by_json_free(generation);
    by_free(path);
    return rc;
}

static int read_config(struct by_model_dir *d, struct by_err *err) {
    char *path = by_path_join(d->path, "config.json");
    int rc = by_hf_config_load(&d->config, path, err);
    if (!rc) {
        const struct by_json *text = by_json_get(d->config, "text_config");
        d->text_config = text && by_json_type(text) == BY_JSON_OBJECT ? text : d->config;
        rc = by_hf_config_read(&d->info, d->text_config, path, err);
        if (!rc) rc = by_hf_quant_add(&d->info, d->config, path, err);
        d->has_info = !rc;
    }
    by_free(path);
    return rc ? rc : add_generation(d, err);
}

static int open_weights(struct by_model_dir *d, struct by_err *err) {
    static const char *const names[] = {"model.safetensors.index.json", "model.safetensors"};
    for (size_t i = 0; i < BY_COUNTOF(names); i++) {
        if (!has_file(d->path, names[i])) continue;
        char *path = by_path_join(d->path, names[i]);
        int rc = by_safetensors_open(&d->weights, path, err);
        by_free(path);
        return rc;
    }
    bool is_pickle =
        has_file(d->path, "pytorch_model.bin") || has_file(d->path, "pytorch_model.bin.index.json");
    return by_fail(err, BY_ENOTFOUND, "%s: there is no model.safetensors%s", d->path,
                   is_pickle ? "; its pytorch_model.bin is a pickle, which only --model-impl "
                               "transformers --allow-pickle reads"
                             : " and no model.safetensors.index.json");
}

/* ---- opening ---- */

static int find_path(struct by_model_dir *d, const char *path, struct by_err *err) {
    if (!by_file_exists(path) && !by_file_is_dir(path))
        return by_fail(err, BY_ENOTFOUND, "%s: there is no such file or folder", path);
    if (!by_file_is_dir(path)) {
        bool is_inside =
            ends_with(path, ".json") || ends_with(path, ".model") || ends_with(path, ".tiktoken");
        d->path = is_inside ? by_path_dir(path) : by_strdup(path);
        return 0;
    }
    d->path = has_file(path, "config.json") ? NULL : only_gguf(path);
    if (!d->path) d->path = by_strdup(path);
    return 0;
}

static int open_any(struct by_model_dir **out, const char *path, bool with_weights,
                    struct by_err *err) {
    struct by_model_dir *d = by_alloc(sizeof *d);
    int rc = find_path(d, path, err);
    if (!rc) rc = by_lfs_pointer_refuse(d->path, with_weights, err);
    if (rc) goto done;
    if (!by_file_is_dir(d->path)) {
        rc = open_gguf(d, err);
    } else if (has_file(d->path, "config.json")) {
        d->kind = BY_MODEL_HF;
        rc = read_config(d, err);
        /* For its text alone, a model of an unknown family is as good as any. */
        if (rc && !with_weights && d->config) rc = 0;
        if (!rc && with_weights) rc = open_weights(d, err);
    } else if (with_weights) {
        rc = by_fail(err, BY_ENOTFOUND,
                     "%s: there is no config.json and no single .gguf file: not a model folder",
                     path);
    } else {
        d->kind = BY_MODEL_TEXT;
    }
    if (rc) goto done;
    *out = d;
    d = NULL;
done:
    by_model_dir_close(d);
    return rc;
}

int by_model_dir_open(struct by_model_dir **out, const char *path, struct by_err *err) {
    return open_any(out, path, true, err);
}

int by_model_dir_open_text(struct by_model_dir **out, const char *path, struct by_err *err) {
    return open_any(out, path, false, err);
}

void by_model_dir_close(struct by_model_dir *d) {
    if (!d) return;
    by_safetensors_close(d->weights);
    by_gguf_close(d->gguf);
    by_json_free(d->config);
    by_free(d->path);
    by_free(d);
}

enum by_model_kind by_model_dir_kind(const struct by_model_dir *d) {
    return d->kind;
}

const char *by_model_dir_path(const struct by_model_dir *d) {
    return d->path;
}

const struct by_model_info *by_model_dir_info(const struct by_model_dir *d) {
    return d->has_info ? &d->info : NULL;
}

const struct by_gguf *by_model_dir_gguf(const struct by_model_dir *d) {
    return d->gguf;
}

const struct by_json *by_model_dir_config(const struct by_model_dir *d) {
    return d->text_config;
}

bool by_model_dir_may_tie(const struct by_model_dir *d) {
    const struct by_json *tie = by_json_get(d->config, "tie_word_embeddings");
    return d->text_config != d->config && (!tie || by_json_bool(tie));
}

bool by_model_dir_unties(const struct by_model_dir *d) {
    return d->text_config != d->config && !by_model_dir_may_tie(d);
}

/* ---- tensors ---- */

size_t by_model_dir_n_tensors(const struct by_model_dir *d) {
    if (d->gguf) return by_gguf_n_tensors(d->gguf);
    return d->weights ? by_safetensors_n(d->weights) : 0;
}

const struct by_tensor_info *by_model_dir_tensor(const struct by_model_dir *d, size_t i) {
    by_assert(i < by_model_dir_n_tensors(d));
    return d->gguf ? by_gguf_tensor(d->gguf, i) : by_safetensors_tensor(d->weights, i);
}

const struct by_tensor_info *by_model_dir_find(const struct by_model_dir *d, const char *name) {
    if (d->gguf) return by_gguf_find(d->gguf, by_str_of(name));
    return d->weights ? by_safetensors_find(d->weights, by_str_of(name)) : NULL;
}

uint64_t by_model_dir_weight_bytes(const struct by_model_dir *d) {
    uint64_t n = 0;
    for (size_t i = 0; i < by_model_dir_n_tensors(d); i++)
        n += by_model_dir_tensor(d, i)->n_bytes;
    return n;
}

/* ---- other files ---- */

static bool is_plain_name(const char *name) {
    return name[0] != '.' && !strchr(name, '/');
}

int by_model_dir_read(const struct by_model_dir *d, const char *name, struct by_buf *text,
                      struct by_err *err) {
    by_assert(is_plain_name(name));
    if (!by_model_dir_has(d, name))
        return by_fail(err, BY_ENOTFOUND, "%s: there is no %s", d->path, name);
    char *path = by_path_join(d->path, name);
    int rc = by_file_read(text, path, err);
    by_free(path);
    return rc;
}

bool by_model_dir_has(const struct by_model_dir *d, const char *name) {
    return !d->gguf && has_file(d->path, name);
}
