#include "common/template/chat_template.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/template/builtin.h"
#include "common/template/chat_template_parts.h"
#include "common/template/jchar.h"
#include "common/template/jparse.h"

enum { CONFIG_MAX = 64 << 20, VOCABULARY_MAX = 512 << 20 };

/* ---- parsing ---- */

static void prog_release(struct by_jprog *p) {
    by_strmap_release(&p->names);
    by_arena_release(&p->arena);
}

static int prog_parse(struct by_jprog *p, struct by_str source, struct by_err *err) {
    *p = (struct by_jprog){0};
    by_arena_init(&p->arena, 0);
    by_strmap_init(&p->names);
    by_jchar_init();
    return by_jparse(p, by_arena_copy(&p->arena, source), err);
}

static struct by_chat_template *new_template(void) {
    struct by_chat_template *t = by_alloc(sizeof *t);
    by_arena_init(&t->arena, 0);
    by_arena_init(&t->prog.arena, 0);
    by_strmap_init(&t->prog.names);
    return t;
}

void by_chat_template_free(struct by_chat_template *t) {
    if (!t) return;
    prog_release(&t->prog);
    if (t->has_tool_prog) prog_release(&t->tool_prog);
    by_arena_release(&t->arena);
    by_free(t);
}

struct by_str by_chat_template_source(const struct by_chat_template *t) {
    return t->source;
}

static int set_source(struct by_chat_template *t, struct by_str source, struct by_err *err) {
    prog_release(&t->prog);
    t->source = by_arena_copy(&t->arena, source);
    return prog_parse(&t->prog, source, err);
}

static void add_special(struct by_chat_template *t, struct by_str name, struct by_str value) {
    for (uint32_t i = 0; i < t->n_special; i++) {
        if (by_str_eq(t->special[i].name, name)) return; /* the first one counts */
    }
    if (t->n_special == SPECIAL_MAX) return;
    t->special[t->n_special++] =
        (struct by_chat_special){by_arena_copy(&t->arena, name), by_arena_copy(&t->arena, value)};
}

/* "bos_token": "<s>" or {"content": "<s>", …}; only names that end in _token. */
static void add_specials(struct by_chat_template *t, const struct by_json *j) {
    for (const struct by_json *it = j ? by_json_first(j) : NULL; it; it = by_json_next(it)) {
        const struct by_json *v = it;
        if (!by_str_ends(by_json_key(it), by_str_of("_token"))) continue;
        if (by_json_type(it) == BY_JSON_OBJECT) v = by_json_get(it, "content");
        if (by_json_str(v).p) add_special(t, by_json_key(it), by_json_str(v));
    }
}

static bool find_var(const struct by_jprog *p, struct by_str name, uint32_t *at) {
    uint64_t id = 0;
    bool is_asked = by_strmap_get(&p->names, name, &id);
    *at = (uint32_t)id;
    return is_asked;
}

static void find_vars(const struct by_chat_template *t, const struct by_jprog *p,
                      struct by_chat_vars *v) {
    static const char *const names[N_VARS] = {[VAR_MESSAGES] = "messages",
                                              [VAR_TOOLS] = "tools",
                                              [VAR_DOCUMENTS] = "documents",
                                              [VAR_ADDS] = "add_generation_prompt"};
    for (int i = 0; i < N_VARS; i++)
        v->is_asked[i] = find_var(p, by_str_of(names[i]), &v->at[i]);
    for (uint32_t i = 0; i < t->n_special; i++)
        v->asks_special[i] = find_var(p, t->special[i].name, &v->special[i]);
}

/* The last step of making one: gives it away, or frees it. */
static int finish(struct by_chat_template *t, int rc, struct by_chat_template **out) {
    if (rc) {
        by_chat_template_free(t);
        return rc;
    }
    find_vars(t, &t->prog, &t->vars);
    if (t->has_tool_prog) find_vars(t, &t->tool_prog, &t->tool_vars);
    *out = t;
    return 0;
}

int by_chat_template_parse(struct by_chat_template **out, struct by_str source,
                           struct by_str special, struct by_err *err) {
    const struct by_json_limits lim = {.bytes_max = CONFIG_MAX, .depth_max = 64};
    struct by_json *j = NULL;
    struct by_chat_template *t = new_template();
    int rc = set_source(t, source, err);
    if (!rc && special.n) rc = by_json_parse(&j, special, &lim, err);
    add_specials(t, j);
    by_json_free(j);
    return finish(t, rc, out);
}

/* ---- finding ---- */

static int read_json(const struct by_model_dir *dir, const char *name, struct by_json **out,
                     struct by_err *err) {
    const struct by_json_limits lim = {.bytes_max = CONFIG_MAX, .depth_max = 64};
    struct by_buf text;
    by_buf_init(&text, CONFIG_MAX);
    int rc = by_model_dir_read(dir, name, &text, err);
    if (!rc && by_json_parse(out, by_buf_str(&text), &lim, err))
        rc = by_fail_prefix(err, "%s", name);
    by_buf_release(&text);
    return rc;
}

/* chat_template of tokenizer_config.json: a text, or [{"name", "template"}, …]. *found says whether one was there. */
static int take_config(struct by_chat_template *t, const struct by_json *config, bool *found,
                       struct by_err *err) {
    const struct by_json *v = by_json_get(config, "chat_template");
    if (!v || by_json_type(v) == BY_JSON_NULL) return 0;
    if (by_json_type(v) == BY_JSON_STRING) {
        *found = true;
        return set_source(t, by_json_str(v), err);
    }
    int rc = 0;
    for (const struct by_json *it = by_json_first(v); it && !rc; it = by_json_next(it)) {
        struct by_str name = by_json_str(by_json_get(it, "name")),
                      text = by_json_str(by_json_get(it, "template"));
        if (by_str_eqz(name, "default") || (!*found && !by_json_next(it))) {
            *found = true;
            rc = set_source(t, text, err);
        }
        if (by_str_eqz(name, "tool_use") && !t->has_tool_prog) {
            t->has_tool_prog = true;
            rc = prog_parse(&t->tool_prog, text, err);
        }
    }
    return rc;
}

static int take_file(struct by_chat_template *t, const char *path, struct by_err *err) {
    struct by_buf text;
    by_buf_init(&text, BY_JAST_SOURCE_MAX);
    int rc = by_file_read(&text, path, err);
    if (!rc && set_source(t, by_buf_str(&text), err)) rc = by_fail_prefix(err, "%s", path);
    by_buf_release(&text);
    return rc;
}

static int open_folder(struct by_chat_template *t, const struct by_model_dir *dir, bool *found,
                       struct by_err *err) {
    struct by_json *config = NULL, *map = NULL;
    struct by_buf text;
    int rc = 0;
    by_buf_init(&text, BY_JAST_SOURCE_MAX);
    if (by_model_dir_has(dir, "tokenizer_config.json"))
        rc = read_json(dir, "tokenizer_config.json", &config, err);
    if (!rc && by_model_dir_has(dir, "special_tokens_map.json"))
        rc = read_json(dir, "special_tokens_map.json", &map, err);
    if (!rc && !*found && by_model_dir_has(dir, "chat_template.jinja")) {
        *found = true;
        rc = by_model_dir_read(dir, "chat_template.jinja", &text, err);
        if (!rc && set_source(t, by_buf_str(&text), err))
            rc = by_fail_prefix(err, "chat_template.jinja");
    }
    if (!rc && config && !*found) rc = take_config(t, config, found, err);
    add_specials(t, config);
    add_specials(t, map);
    by_buf_release(&text);
    by_json_free(config);
    by_json_free(map);
    return rc;
}

static void add_gguf_special(struct by_chat_template *t, const struct by_gguf *g, const char *key,
                             const char *name) {
    int64_t id = -1;
    struct by_gguf_array tokens = {0};
    struct by_str piece = {0};
    if (by_gguf_get_i64(g, key, 0, INT64_MAX, &id, NULL) || id < 0) return;
    if (by_gguf_get_array(g, "tokenizer.ggml.tokens", BY_GGUF_STR, &tokens, NULL)) return;
    for (int64_t i = 0; i <= id; i++) {
        if (!by_gguf_next_str(&tokens, &piece)) return;
    }
    add_special(t, by_str_of(name), piece);
}

static int open_gguf(struct by_chat_template *t, const struct by_gguf *g, bool *found,
                     struct by_err *err) {
    struct by_str source = {0};
    int rc = 0;
    if (!*found && by_gguf_key(g, "tokenizer.chat_template")) {
        *found = true;
        rc = by_gguf_get_str(g, "tokenizer.chat_template", &source, err);
        if (!rc) rc = set_source(t, source, err);
    }
    add_gguf_special(t, g, "tokenizer.ggml.bos_token_id", "bos_token");
    add_gguf_special(t, g, "tokenizer.ggml.eos_token_id", "eos_token");
    add_gguf_special(t, g, "tokenizer.ggml.padding_token_id", "pad_token");
    add_gguf_special(t, g, "tokenizer.ggml.unknown_token_id", "unk_token");
    return rc;
}

/* ---- built in ---- */

static int take_builtin(struct by_chat_template *t, const struct by_builtin_template *b,
                        struct by_err *err) {
    int rc = set_source(t, by_str_of(b->source), err);
    if (rc) return by_fail_prefix(err, "the built-in template '%s'", b->name);
    by_info("the model has no chat template of its own; built in template=%s", b->name);
    return 0;
}

static int fail_name(const char *name, struct by_err *err) {
    struct by_buf names;
    by_buf_init(&names, 1024);
    for (size_t i = 0; by_builtin_template_at(i); i++)
        by_buf_addf(&names, "%s%s", i ? ", " : "", by_builtin_template_at(i)->name);
    int rc = by_fail(err, BY_ENOTFOUND,
                     "--chat-template %s: there is no such file, and no built-in template has this "
                     "name (they are: %s)",
                     name, names.p);
    by_buf_release(&names);
    return rc;
}

/* --chat-template: a file, else one of the built-in names. */
static int take_named(struct by_chat_template *t, const char *name, struct by_err *err) {
    if (by_file_exists(name)) return take_file(t, name, err);
    const struct by_builtin_template *b = by_builtin_template_named(by_str_of(name));
    return b ? set_source(t, by_str_of(b->source), err) : fail_name(name, err);
}

static bool gguf_has(void *ctx, struct by_str want) {
    struct by_gguf_array tokens = {0};
    struct by_str piece;
    if (by_gguf_get_array(ctx, "tokenizer.ggml.tokens", BY_GGUF_STR, &tokens, NULL)) return false;
    while (by_gguf_next_str(&tokens, &piece)) {
        if (by_str_eq(piece, want)) return true;
    }
    return false;
}

/* The tokenizer's files as text: a marker stands there as a name of its own, in quotes unless the file is binary. */
static bool text_has(void *ctx, struct by_str want) {
    return by_str_find(by_buf_str(ctx), want, 0) != SIZE_MAX;
}

static int take_family(struct by_chat_template *t, const struct by_model_dir *dir, bool *found,
                       struct by_err *err) {
    static const char *const files[] = {"tokenizer.json", "tekken.json", "tokenizer.model",
                                        "added_tokens.json", "tokenizer_config.json"};
    const struct by_gguf *g = by_model_dir_gguf(dir);
    const struct by_builtin_template *b;
    if (g) {
        b = by_builtin_template_for(gguf_has, (void *)(uintptr_t)g); /* only read */
    } else {
        struct by_buf text, one;
        by_buf_init(&text, VOCABULARY_MAX);
        by_buf_init(&one, VOCABULARY_MAX);
        for (size_t i = 0; i < BY_COUNTOF(files); i++) {
            by_buf_clear(&one);
            if (by_model_dir_has(dir, files[i]) && !by_model_dir_read(dir, files[i], &one, NULL))
                by_buf_add_str(&text, by_buf_str(&one));
        }
        b = by_builtin_template_for(text_has, &text);
        by_buf_release(&one);
        by_buf_release(&text);
    }
    *found = b != NULL;
    return b ? take_builtin(t, b, err) : 0;
}

int by_chat_template_open(struct by_chat_template **out, const struct by_model_dir *dir,
                          const char *path, struct by_err *err) {
    struct by_chat_template *t = new_template();
    bool found = path != NULL;
    int rc = path ? take_named(t, path, err) : 0;
    const struct by_gguf *g = by_model_dir_gguf(dir);
    if (!rc) rc = g ? open_gguf(t, g, &found, err) : open_folder(t, dir, &found, err);
    if (!rc && !found) rc = take_family(t, dir, &found, err);
    if (!rc && !found)
        rc = by_fail(err, BY_ENOTFOUND,
                     "%s has no chat template, and its vocabulary is of no family that has one "
                     "built in; send a "
                     "prompt to /generate or /v1/completions, or name one (chatml, llama2, …) or a "
                     "Jinja file "
                     "with --chat-template",
                     by_model_dir_path(dir));
    return finish(t, rc, out);
}
