/* from_dir.c - finds the tokenizer in a model's folder or GGUF file, and the names beside it. */
#include "common/base/json.h"
#include "common/text/tokenizer_parts.h"

static const struct by_json_limits config_limits = {.bytes_max = 64 << 20, .depth_max = 64};

/* Files that hold a tokenizer, the one that says most first. */
static const char *const files[] = {"tokenizer.json",
                                    "tekken.json",
                                    "tokenizer.model",
                                    "spiece.model",
                                    "sentencepiece.bpe.model",
                                    "tiktoken.model",
                                    "qwen.tiktoken",
                                    "cl100k_base.tiktoken",
                                    "o200k_base.tiktoken",
                                    "o200k_harmony.tiktoken",
                                    "p50k_base.tiktoken",
                                    "r50k_base.tiktoken",
                                    "gpt2.tiktoken"};

const char *by_tokenizer_file_of(const struct by_model_dir *dir) {
    for (size_t i = 0; i < BY_COUNTOF(files); i++) {
        if (by_model_dir_has(dir, files[i])) return files[i];
    }
    return NULL;
}

/* ---- names beside the tokenizer ---- */

/* "bos_token": "<s>" or {"content": "<s>", …} */
static void read_name(struct by_tokenizer *t, const struct by_json *j, const char *key,
                      int64_t *id) {
    const struct by_json *v = by_json_get(j, key);
    if (v && by_json_type(v) == BY_JSON_OBJECT) v = by_json_get(v, "content");
    uint32_t found;
    if (v && by_json_type(v) == BY_JSON_STRING && by_tokenizer_find(t, by_json_str(v), &found))
        *id = found;
}

static int read_names(struct by_tokenizer *t, const struct by_json *j, const char *file,
                      struct by_err *err) {
    if (!j) return 0;
    read_name(t, j, "bos_token", &t->bos);
    read_name(t, j, "eos_token", &t->eos);
    return by_json_get_bool(j, file, "clean_up_tokenization_spaces", &t->clean_up, err);
}

static int add_decoder_token(struct by_tokenizer *t, const struct by_json *j, struct by_err *err) {
    struct by_added_token token = {.special = false};
    int rc = by_json_get_str(j, "added_tokens_decoder", "content", &token.content, err);
    if (!rc) rc = by_json_get_bool(j, "added_tokens_decoder", "special", &token.special, err);
    if (!rc) rc = by_json_get_bool(j, "added_tokens_decoder", "lstrip", &token.lstrip, err);
    if (!rc) rc = by_json_get_bool(j, "added_tokens_decoder", "rstrip", &token.rstrip, err);
    if (!rc) rc = by_json_get_bool(j, "added_tokens_decoder", "normalized", &token.normalized, err);
    if (!rc)
        rc = by_json_get_bool(j, "added_tokens_decoder", "single_word", &token.single_word, err);
    return rc ? rc : by_tokenizer_add(t, &token, err);
}

int by_tokenizer_add_config(struct by_tokenizer *t, const struct by_text_config *c,
                            struct by_err *err) {
    const struct by_json *list = NULL;
    int rc = by_json_get_object(c->tokenizer, "", "added_tokens_decoder", &list, err);
    for (const struct by_json *it = by_json_first(list); it && !rc; it = by_json_next(it))
        rc = add_decoder_token(t, it, err);
    for (const struct by_json *it = by_json_first(c->added); it && !rc && !list;
         it = by_json_next(it)) {
        struct by_added_token token = {.content = by_json_key(it)};
        rc = by_tokenizer_add(t, &token, err);
    }
    return rc ? rc : read_names(t, c->tokenizer, "tokenizer_config.json", err);
}

/* A side file that may be missing; a broken one is an error, since a person wrote it. */
static int read_side(struct by_json **out, const struct by_model_dir *dir, const char *file,
                     struct by_err *err) {
    *out = NULL;
    if (!by_model_dir_has(dir, file)) return 0;
    struct by_buf text;
    by_buf_init(&text, BY_TOKENIZER_FILE_MAX);
    int rc = by_model_dir_read(dir, file, &text, err);
    if (!rc) rc = by_json_parse(out, by_buf_str(&text), &config_limits, err);
    by_buf_release(&text);
    return rc ? by_fail_prefix(err, "%s/%s", by_model_dir_path(dir), file) : 0;
}

/* ---- opening ---- */

static int read_file(struct by_tokenizer *t, const char *file, struct by_str bytes,
                     const struct by_text_config *c, struct by_err *err) {
    struct by_str name = by_str_of(file);
    if (by_str_eqz(name, "tokenizer.json")) return by_tokenizer_from_json(t, bytes, err);
    if (by_str_eqz(name, "tekken.json")) return by_tokenizer_from_tekken(t, bytes, err);
    bool is_text = by_str_ends(name, BY_STR(".tiktoken")) || by_tokenizer_is_tiktoken(bytes);
    return is_text ? by_tokenizer_from_tiktoken(t, bytes, file, c, err)
                   : by_tokenizer_from_spm(t, bytes, c, err);
}

int by_tokenizer_parse_as(struct by_tokenizer **out, struct by_str bytes, const char *file,
                          struct by_err *err) {
    struct by_tokenizer *t = by_tokenizer_new();
    int rc = read_file(t, file, bytes, &(struct by_text_config){0}, err);
    if (!rc) rc = by_tokenizer_finish(t, err);
    if (rc) {
        by_tokenizer_close(t);
        return by_fail_prefix(err, "%s", file);
    }
    *out = t;
    return 0;
}

static int open_folder(struct by_tokenizer *t, const struct by_model_dir *dir,
                       const struct by_text_config *c, struct by_err *err) {
    const char *file = by_tokenizer_file_of(dir);
    if (!file)
        return by_fail(err, BY_ENOTFOUND,
                       "there is no tokenizer.json, and no other file that holds a tokenizer");
    struct by_buf text;
    by_buf_init(&text, BY_TOKENIZER_FILE_MAX);
    int rc = by_model_dir_read(dir, file, &text, err);
    if (!rc) rc = read_file(t, file, by_buf_str(&text), c, err);
    by_buf_release(&text);
    return rc ? by_fail_prefix(err, "%s", file) : by_tokenizer_finish(t, err);
}

static int open_with_names(struct by_tokenizer *t, const struct by_model_dir *dir,
                           struct by_err *err) {
    struct by_json *map = NULL, *config = NULL, *added = NULL;
    int rc = read_side(&map, dir, "special_tokens_map.json", err);
    if (!rc) rc = read_side(&config, dir, "tokenizer_config.json", err);
    if (!rc) rc = read_side(&added, dir, "added_tokens.json", err);
    if (!rc) {
        rc = open_folder(t, dir, &(struct by_text_config){config, added}, err);
        if (rc) rc = by_fail_prefix(err, "%s", by_model_dir_path(dir));
    }
    if (!rc) rc = read_names(t, map, "special_tokens_map.json", err);
    if (!rc) rc = read_names(t, config, "tokenizer_config.json", err);
    by_json_free(added);
    by_json_free(config);
    by_json_free(map);
    return rc;
}

int by_tokenizer_open(struct by_tokenizer **out, const struct by_model_dir *dir,
                      struct by_err *err) {
    struct by_tokenizer *t = by_tokenizer_new();
    const struct by_gguf *g = by_model_dir_gguf(dir);
    int rc;
    if (g) {
        rc = by_tokenizer_from_gguf(t, g, err);
        if (!rc) rc = by_tokenizer_finish(t, err);
        if (rc) rc = by_fail_prefix(err, "%s", by_model_dir_path(dir));
    } else {
        rc = open_with_names(t, dir, err);
    }
    if (rc) {
        by_tokenizer_close(t);
        return rc;
    }
    *out = t;
    return 0;
}
