#include "common/template/chat_template.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/template/builtin.h"
#include "common/template/jeval.h"
#include "common/template/jchar.h"
#include "common/template/jjson.h"
#include "common/template/jops.h"
#include "common/template/jparse.h"

#include <stdio.h>

enum { SPECIAL_MAX = 64, CONFIG_MAX = 64 << 20, VOCABULARY_MAX = 512 << 20 };

#define CONTINUE_TAG "CONTINUE_FINAL_MESSAGE_TAG "

struct special { /* a variable that every run sees: bos_token … */
    struct by_str name, value;
};

struct by_chat_template {
    struct by_jprog prog, tool_prog;
    struct by_str source;
    bool has_tool_prog;
    struct by_arena arena; /* the special tokens */
    struct special special[SPECIAL_MAX];
    uint32_t n_special;
};

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
        (struct special){by_arena_copy(&t->arena, name), by_arena_copy(&t->arena, value)};
}

/* "bos_token": "<s>" or {"content": "<s>", …}; only names that end in _token. */
static void add_specials(struct by_chat_template *t, const struct by_json *j) {
    for (const struct by_json *it = j ? by_json_first(j) : NULL; it; it = by_json_next(it)) {
        struct by_str name = by_json_key(it);
        if (name.n < 6 || !by_str_eqz(by_str_sub(name, name.n - 6, 6), "_token")) continue;
        const struct by_json *v =
            by_json_type(it) == BY_JSON_OBJECT ? by_json_get(it, "content") : it;
        if (v && by_json_type(v) == BY_JSON_STRING) add_special(t, name, by_json_str(v));
    }
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
    if (rc) {
        by_chat_template_free(t);
        return rc;
    }
    *out = t;
    return 0;
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
    if (rc) {
        by_chat_template_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

/* ---- rendering ---- */

void by_chat_prompt_init(struct by_chat_prompt *p) {
    by_buf_init(&p->text, BY_JVAL_OUTPUT_MAX);
    by_buf_init(&p->marks, BY_JVAL_OUTPUT_MAX);
}

void by_chat_prompt_release(struct by_chat_prompt *p) {
    by_buf_release(&p->text);
    by_buf_release(&p->marks);
}

static struct by_jval lit(const char *z) {
    return by_jval_lit(z);
}

static const struct by_jval *member(struct by_jrun *r, const struct by_jval *obj, const char *key) {
    const struct by_jval *v =
        obj->type == BY_J_DICT ? by_jval_getz(r, obj->dict, by_str_of(key)) : NULL;
    return v && v->type != BY_J_NONE ? v : NULL;
}

/* transformers 5: the first of the three that is there fills reasoning_content, and thinking if that is missing. */
static struct by_jval alias_reasoning(struct by_jrun *r, struct by_jval message) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    const struct by_jval *reasoning = NULL;
    for (size_t i = 0; i < BY_COUNTOF(names) && !reasoning; i++)
        reasoning = member(r, &message, names[i]);
    if (!reasoning || r->code) return message;
    struct by_jval out = by_jval_dict(r, BY_J_DICT), value = *reasoning;
    bool ok = !r->code && by_jval_put(r, out.dict, lit("thinking"), value);
    for (uint32_t i = 0; ok && i < message.dict->n; i++)
        ok = by_jval_put(r, out.dict, message.dict->at[i].key, message.dict->at[i].val);
    if (ok) ok = by_jval_put(r, out.dict, lit("reasoning_content"), value);
    return ok ? out : message;
}

static struct by_jval with_tag(struct by_jrun *r, struct by_jval text) {
    struct by_jbuild *b = by_jrun_build(r);
    if (!b) return text;
    by_jbuild_add(b, text);
    by_jbuild_bytes(b, CONTINUE_TAG, sizeof CONTINUE_TAG - 1, true);
    return by_jrun_built(r, b);
}

/* continue_final_message: the last message's text gets a tag, behind which the rendered prompt is cut. */
static void tag_last(struct by_jrun *r, struct by_jlist *messages, struct by_jval *final) {
    struct by_jval *last = messages->n ? &messages->at[messages->n - 1] : NULL;
    const struct by_jval *content = last ? member(r, last, "content") : NULL;
    if (!content) {
        by_jrun_fail(
            r, BY_EINVAL,
            "continue_final_message is set, but the final message has no content to continue");
        return;
    }
    if (content->type == BY_J_STR) {
        *final = *content;
        (void)!by_jval_put(r, last->dict, lit("content"), with_tag(r, *content));
        return;
    }
    struct by_jlist *parts = content->type == BY_J_LIST ? content->list : NULL;
    for (uint32_t i = parts ? parts->n : 0; i-- > 0;) {
        const struct by_jval *text = member(r, &parts->at[i], "text");
        if (!text || text->type != BY_J_STR) continue;
        *final = *text;
        (void)!by_jval_put(r, parts->at[i].dict, lit("text"), with_tag(r, *text));
        return;
    }
    by_jrun_fail(r, BY_EINVAL,
                 "continue_final_message is set, but the final message has no text to continue");
}

static size_t find_last(struct by_str in, const char *what, size_t n) {
    for (size_t i = in.n >= n ? in.n - n + 1 : 0; i-- > 0;) {
        if (memcmp(in.p + i, what, n) == 0) return i;
    }
    return SIZE_MAX;
}

/* Where the prompt ends: at the tag; where the template trimmed the tag's blank, blanks before it go as well. */
static size_t cut_at_tag(struct by_jrun *r, struct by_str text) {
    const size_t bare = sizeof CONTINUE_TAG - 2, whole = sizeof CONTINUE_TAG - 1;
    size_t at = find_last(text, CONTINUE_TAG, bare);
    if (at == SIZE_MAX) {
        by_jrun_fail(
            r, BY_EINVAL,
            "continue_final_message is set, but the final message does not appear in the prompt");
        return 0;
    }
    if (text.n - at >= whole && text.p[at + bare] == ' ') return at;
    return by_jchar_drop_space(text, at);
}

static void set_global(struct by_jrun *r, const char *name, struct by_jval v) {
    uint64_t id;
    if (by_strmap_get(&r->prog->names, by_str_of(name), &id)) r->globals[id] = v;
}

static void set_globals(struct by_jrun *r, const struct by_chat_template *t,
                        const struct by_jval *chat, struct by_jval messages) {
    static const char *const plain[] = {"tools", "documents"};
    const struct by_jval *kwargs = member(r, chat, "kwargs"),
                         *adds = member(r, chat, "add_generation_prompt");
    for (uint32_t i = 0; i < t->n_special; i++) {
        uint64_t id;
        if (by_strmap_get(&r->prog->names, t->special[i].name, &id))
            r->globals[id] = by_jval_str(t->special[i].value, false);
    }
    set_global(r, "messages", messages);
    for (size_t i = 0; i < BY_COUNTOF(plain); i++) {
        const struct by_jval *v = member(r, chat, plain[i]);
        set_global(r, plain[i], v ? *v : by_jval_none());
    }
    set_global(r, "add_generation_prompt", by_jval_bool(adds && by_jops_truth(adds)));
    for (uint32_t i = 0; kwargs && kwargs->type == BY_J_DICT && i < kwargs->dict->n; i++) {
        const struct by_jentry *e = &kwargs->dict->at[i];
        uint64_t id;
        if (by_strmap_get(&r->prog->names, by_jval_bytes(&e->key), &id)) r->globals[id] = e->val;
    }
}

static struct by_jval read_messages(struct by_jrun *r, const struct by_jval *chat) {
    const struct by_jval *given = member(r, chat, "messages");
    if (!given || given->type != BY_J_LIST)
        return by_jrun_fail(r, BY_EINVAL, "messages: a list of messages is needed");
    struct by_jval out = by_jval_list(r, BY_J_LIST, given->list->n);
    for (uint32_t i = 0; i < given->list->n && !r->code; i++) {
        if (given->list->at[i].type != BY_J_DICT)
            return by_jrun_fail(r, BY_EINVAL, "messages[%u]: an object is needed", i);
        by_jval_push(r, out.list, alias_reasoning(r, given->list->at[i]));
    }
    return out;
}

static void give(const struct by_jbuild *from, size_t n, struct by_chat_prompt *to) {
    by_buf_clear(&to->text);
    by_buf_clear(&to->marks);
    by_buf_add(&to->text, from->bytes.p, n);
    if (from->marks.n) {
        by_buf_add(&to->marks, from->marks.p, n);
    } else if (from->has_user) {
        char *p = by_buf_reserve(&to->marks, n);
        if (p) memset(p, 1, n);
        if (p) to->marks.n += n;
    }
}

static void render(struct by_jrun *r, const struct by_chat_template *t, const struct by_jval *chat,
                   struct by_chat_prompt *out) {
    const struct by_jval *goes_on = member(r, chat, "continue_final_message"),
                         *tools = member(r, chat, "tools");
    struct by_jval messages = read_messages(r, chat), final = {0};
    if (r->code) return;
    bool continues = goes_on && by_jops_truth(goes_on);
    if (continues) tag_last(r, messages.list, &final);
    r->prog = tools && t->has_tool_prog ? &t->tool_prog : &t->prog;
    r->globals = by_jrun_get(r, (r->prog->n_names + 1) * sizeof *r->globals);
    r->out = by_jrun_build(r);
    if (r->code || !r->out) return;
    set_globals(r, t, chat, messages);
    struct by_jbuild *prompt = r->out;
    by_jeval_run(r);
    if (prompt->bytes.is_full)
        by_jrun_fail(r, BY_ELIMIT, "the prompt is longer than %d bytes", BY_JVAL_OUTPUT_MAX);
    size_t n = r->code ? 0 : prompt->bytes.n;
    if (!r->code && continues) n = cut_at_tag(r, by_buf_str(&prompt->bytes));
    if (!r->code) give(prompt, n, out);
}

int by_chat_template_render(const struct by_chat_template *t, struct by_str chat, uint64_t clock_s,
                            struct by_chat_prompt *out, struct by_err *err) {
    struct by_jrun r;
    struct by_jval v;
    by_jrun_init(&r, err);
    r.prog = &t->prog;
    r.clock_s = (int64_t)clock_s;
    int rc = by_jjson_read(&r, chat, &v, err);
    if (!rc) {
        render(&r, t, &v, out);
        rc = r.code;
    }
    by_jrun_release(&r);
    return rc;
}
