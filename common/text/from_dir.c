/* from_dir.c - finds the tokenizer in a model's folder or GGUF file, and the names beside it. */
#include "common/base/json.h"
#include "common/text/tokenizer_parts.h"

static const struct by_json_limits config_limits = {.bytes_max = 64 << 20, .depth_max = 64};

/* "bos_token": "<s>" or {"content": "<s>", …} */
static void read_name(struct by_tokenizer *t, const struct by_json *j, const char *key,
                      int64_t *id) {
    const struct by_json *v = by_json_get(j, key);
    if (v && by_json_type(v) == BY_JSON_OBJECT) v = by_json_get(v, "content");
    uint32_t found;
    if (v && by_json_type(v) == BY_JSON_STRING && by_tokenizer_find(t, by_json_str(v), &found))
        *id = found;
}

/* A side file that may be missing; a broken one is an error, since a person wrote it. */
static int read_names(struct by_tokenizer *t, const struct by_model_dir *dir, const char *file,
                      struct by_err *err) {
    if (!by_model_dir_has(dir, file)) return 0;
    struct by_buf text;
    struct by_json *j = NULL;
    by_buf_init(&text, BY_TOKENIZER_FILE_MAX);
    int rc = by_model_dir_read(dir, file, &text, err);
    if (!rc) rc = by_json_parse(&j, by_buf_str(&text), &config_limits, err);
    if (rc) {
        rc = by_fail_prefix(err, "%s/%s", by_model_dir_path(dir), file);
    } else {
        read_name(t, j, "bos_token", &t->bos);
        read_name(t, j, "eos_token", &t->eos);
        rc = by_json_get_bool(j, file, "clean_up_tokenization_spaces", &t->clean_up, err);
    }
    by_json_free(j);
    by_buf_release(&text);
    return rc;
}

static int open_folder(struct by_tokenizer *t, const struct by_model_dir *dir, struct by_err *err) {
    if (!by_model_dir_has(dir, "tokenizer.json"))
        return by_fail(err, BY_ENOTFOUND, "there is no tokenizer.json");
    struct by_buf text;
    by_buf_init(&text, BY_TOKENIZER_FILE_MAX);
    int rc = by_model_dir_read(dir, "tokenizer.json", &text, err);
    if (!rc) rc = by_tokenizer_from_json(t, by_buf_str(&text), err);
    by_buf_release(&text);
    return rc ? by_fail_prefix(err, "tokenizer.json") : 0;
}

int by_tokenizer_open(struct by_tokenizer **out, const struct by_model_dir *dir,
                      struct by_err *err) {
    struct by_tokenizer *t = by_tokenizer_new();
    const struct by_gguf *g = by_model_dir_gguf(dir);
    int rc = g ? by_tokenizer_from_gguf(t, g, err) : open_folder(t, dir, err);
    if (!rc) rc = by_tokenizer_finish(t, err);
    if (rc) {
        rc = by_fail_prefix(err, "%s", by_model_dir_path(dir));
        goto fail;
    }
    if (!g) {
        rc = read_names(t, dir, "special_tokens_map.json", err);
        if (!rc) rc = read_names(t, dir, "tokenizer_config.json", err);
        if (rc) goto fail;
    }
    *out = t;
    return 0;
fail:
    by_tokenizer_close(t);
    return rc;
}
