#include "gpu_worker/reload.h"

#include "common/base/mem.h"
#include "gpu_worker/kv.h"

#include <stdio.h>
#include <string.h>

void reload_fingerprint(const struct by_model_dir *dir, char out[20]) {
    uint64_t h = 0;
    for (size_t i = 0; i < by_model_dir_n_tensors(dir); i++) {
        const struct by_tensor_info *t = by_model_dir_tensor(dir, i);
        size_t n = BY_MIN(t->n_bytes, (size_t)256);
        const char *data = (const char *)t->data;
        uint64_t parts[] = {h,
                            by_str_hash(t->name),
                            t->dtype,
                            t->n_bytes,
                            n ? by_str_hash((struct by_str){data, n}) : 0,
                            n ? by_str_hash((struct by_str){data + t->n_bytes - n, n}) : 0};
        h = by_str_hash((struct by_str){(const char *)parts, sizeof parts});
    }
    snprintf(out, 20, "%016llx", (unsigned long long)h);
}

static int compare(const struct model *model, const struct model *like, const char *path,
                   struct by_err *err) {
    const char *what = NULL;
    if (strcmp(model_family(model), model_family(like)) != 0) what = "family";
    if (model_n_vocab(model) != model_n_vocab(like)) what = "vocabulary size";
    if (model_kv_page_bytes(model) != model_kv_page_bytes(like)) what = "number of layers or heads";
    if (model_state_bytes(model) != model_state_bytes(like)) what = "size of the states";
    if (model_context_len(model) < model_context_len(like)) what = "context length";
    if (model_hidden_size(model) != model_hidden_size(like)) what = "hidden size";
    if (model_n_labels(model) != model_n_labels(like)) what = "number of labels";
    if (!what) return 0;
    return by_fail(err, BY_EINVAL, "%s: its %s is not that of the model that is served", path,
                   what);
}

int reload_open(struct reload *r, const char *path, struct backend *b,
                const struct model_options *o, const struct model *like, const char *kv_word,
                struct by_err *err) {
    struct by_model_dir *dir = NULL;
    reload_drop(r);
    int rc = by_model_dir_open(&dir, path, err);
    if (!rc && kv_choose_dtype(kv_word, dir) != o->kv_dtype)
        rc = by_fail(err, BY_EINVAL,
                     "%s: the KV cache would be in another type; name one by --kv-cache-dtype",
                     path);
    if (!rc) rc = model_open(&r->model, dir, b, o, err);
    if (!rc) rc = compare(r->model, like, path, err);
    if (rc) {
        reload_drop(r);
    } else {
        r->path = by_strdup(path);
        reload_fingerprint(dir, r->weights_id);
    }
    by_model_dir_close(dir);
    return rc;
}

void reload_drop(struct reload *r) {
    model_close(r->model);
    by_free(r->path);
    *r = (struct reload){0};
}
