/* vectors_plan.c - reads what a model's folder or file says of its pooling and its scores. */
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "gpu_worker/vectors.h"

#include <stdio.h>
#include <string.h>

enum { FILE_MAX = 1 << 20 };

static const char *const pooling_names[] = {
    [POOLING_LAST] = "last", [POOLING_CLS] = "cls", [POOLING_MEAN] = "mean"};

const char *vectors_pooling_name(enum pooling p) {
    return pooling_names[p];
}

/* A JSON file of the model's folder, `folder`/name. *out NULL: it is not there. */
static int read_json(const struct by_model_dir *dir, struct by_str folder, const char *name,
                     struct by_json **out, struct by_err *err) {
    static const struct by_json_limits lim = {.bytes_max = FILE_MAX, .depth_max = 16};
    struct by_buf text, path;
    *out = NULL;
    if (by_model_dir_kind(dir) != BY_MODEL_HF) return 0;
    by_buf_init(&text, FILE_MAX);
    by_buf_init(&path, 65536);
    by_buf_addf(&path, "%s/", by_model_dir_path(dir));
    by_buf_add_str(&path, folder);
    by_buf_addf(&path, "%s%s", folder.n ? "/" : "", name);
    by_buf_addc(&path, '\0');
    int rc = by_file_read(&text, path.p, err);
    if (!rc) rc = by_json_parse(out, by_buf_str(&text), &lim, err);
    if (rc == BY_ENOTFOUND)
        rc = 0;
    else if (rc)
        rc = by_fail_prefix(err, "%s", path.p);
    by_buf_release(&path);
    by_buf_release(&text);
    return rc;
}

/* A folder's name that leads nowhere else. */
static bool is_inside(struct by_str folder) {
    for (size_t i = 0; i < folder.n; i++) {
        if (folder.p[i] == '/' || folder.p[i] == '\0') return false;
    }
    return folder.n && folder.n < 256 && folder.p[0] != '.';
}

static int read_pooling_config(struct vectors_plan *out, const struct by_json *j,
                               struct by_err *err) {
    static const struct {
        const char *key;
        int pooling; /* -1: not here */
    } modes[] = {
        {"pooling_mode_cls_token", POOLING_CLS},   {"pooling_mode_mean_tokens", POOLING_MEAN},
        {"pooling_mode_lasttoken", POOLING_LAST},  {"pooling_mode_max_tokens", -1},
        {"pooling_mode_mean_sqrt_len_tokens", -1}, {"pooling_mode_weightedmean_tokens", -1}};
    unsigned n = 0;
    for (size_t i = 0; i < BY_COUNTOF(modes); i++) {
        if (!by_json_bool(by_json_get(j, modes[i].key))) continue;
        if (modes[i].pooling < 0 || n++)
            return by_fail(err, BY_EUNSUPPORTED,
                           "its pooling, %s, is not supported; --pooling names another",
                           modes[i].key);
        out->pooling = (enum pooling)modes[i].pooling;
    }
    return 0;
}

/* modules.json lists what sentence-transformers puts behind the model. */
static int read_modules(struct vectors_plan *out, const struct by_model_dir *dir, bool *has_pooling,
                        struct by_err *err) {
    static const char *const known[] = {".Transformer", ".Pooling", ".Normalize"};
    struct by_json *modules = NULL, *pooling = NULL;
    struct by_str folder = BY_STR("1_Pooling");
    int rc = read_json(dir, (struct by_str){0}, "modules.json", &modules, err);
    for (const struct by_json *it = rc ? NULL : by_json_first(modules); it && !rc;
         it = by_json_next(it)) {
        struct by_str type = by_json_str(by_json_get(it, "type")),
                      path = by_json_str(by_json_get(it, "path"));
        size_t kind = 0;
        while (kind < BY_COUNTOF(known) && !by_str_ends(type, by_str_of(known[kind])))
            kind++;
        if (kind == BY_COUNTOF(known))
            rc =
                by_fail(err, BY_EUNSUPPORTED, "its modules.json has '%.*s', which is not supported",
                        (int)BY_MIN(type.n, (size_t)100), type.p);
        if (kind == 1 && is_inside(path)) folder = path;
    }
    if (!rc) rc = read_json(dir, folder, "config.json", &pooling, err);
    *has_pooling = pooling != NULL;
    if (!rc && pooling) rc = read_pooling_config(out, pooling, err);
    by_json_free(pooling);
    by_json_free(modules);
    return rc;
}

/* llama.cpp's: 1 mean, 2 cls, 3 last; 0 none, 4 a classifier. */
static int read_gguf(struct vectors_plan *out, const struct by_model_dir *dir, bool *has_pooling,
                     struct by_err *err) {
    static const int of[] = {-1, POOLING_MEAN, POOLING_CLS, POOLING_LAST, -1};
    char key[160];
    int64_t type = 0;
    snprintf(key, sizeof key, "%s.pooling_type", by_model_dir_info(dir)->architecture);
    int rc = by_gguf_get_i64(by_model_dir_gguf(dir), key, 0, 4, &type, err);
    *has_pooling = !rc && of[type] >= 0;
    if (*has_pooling) out->pooling = (enum pooling)of[type];
    return rc;
}

/* What makes scores of a classifier's outputs: as a cross-encoder's config says, else as transformers' text-classification
 * does it. */
static enum score_kind score_of(const struct by_json *config, uint32_t n_labels) {
    struct by_str named =
        by_json_str(by_json_get(by_json_get(config, "sentence_transformers"), "activation_fn"));
    if (!named.n) named = by_json_str(by_json_get(config, "sbert_ce_default_activation_function"));
    if (by_str_ends(named, BY_STR(".Identity"))) return SCORE_AS_IS;
    if (by_str_ends(named, BY_STR(".Sigmoid"))) return SCORE_SIGMOID;
    struct by_str problem = by_json_str(by_json_get(config, "problem_type"));
    if (by_str_eqz(problem, "regression")) return SCORE_AS_IS;
    if (by_str_eqz(problem, "multi_label_classification") || n_labels == 1) return SCORE_SIGMOID;
    return SCORE_SOFTMAX;
}

static int choose(struct vectors_plan *out, const struct by_model_dir *dir, const struct model *m,
                  const char *word, bool *has_pooling, struct by_err *err) {
    for (size_t i = 0; i < BY_COUNTOF(pooling_names); i++) {
        if (strcmp(word, pooling_names[i]) != 0) continue;
        out->pooling = (enum pooling)i;
        *has_pooling = true;
        return 0;
    }
    out->pooling = model_is_encoder(m) ? POOLING_MEAN : POOLING_LAST;
    return by_model_dir_gguf(dir) ? read_gguf(out, dir, has_pooling, err)
                                  : read_modules(out, dir, has_pooling, err);
}

int vectors_plan(struct vectors_plan *out, const struct by_model_dir *dir, const struct model *m,
                 const char *word, struct by_err *err) {
    bool has_pooling = false;
    *out = (struct vectors_plan){.n_embed = model_hidden_size(m), .n_labels = model_n_labels(m)};
    out->score = score_of(by_model_dir_config(dir), out->n_labels);
    int rc = choose(out, dir, m, word, &has_pooling, err);
    bool is_mistake = !rc && out->pooling == POOLING_CLS && !model_is_encoder(m);
    if (is_mistake)
        rc = by_fail(err, BY_EUNSUPPORTED,
                     "cls pooling takes the first token's state, and in %s that has seen no other",
                     model_family(m));
    if (rc && !model_is_encoder(m) && strcmp(word, "auto") == 0) {
        by_warn("no embeddings are made: %s", err->text);
        *err = (struct by_err){0};
        out->n_embed = 0;
        return 0;
    }
    /* A classifier's states are made for its scores, unless the folder says how to pool them. */
    if (out->n_labels && !has_pooling) out->n_embed = 0;
    return rc ? by_fail_prefix(err, "%s", by_model_dir_path(dir)) : 0;
}
