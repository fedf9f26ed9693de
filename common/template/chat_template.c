#include "common/template/chat_template.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/template/builtin.h"
#include "common/template/jchar.h"
#include "common/template/jexec.h"
#include "common/template/jjson.h"
#include "common/template/jops.h"
#include "common/template/jparse.h"

enum { SPECIAL_MAX = 64, CONFIG_MAX = 64 << 20, VOCABULARY_MAX = 512 << 20 };

#define CONTINUE_TAG "CONTINUE_FINAL_MESSAGE_TAG "

struct special { /* a variable that every run sees: bos_token … */
    struct by_str name, value;
};

/* The numbers that a program gave to the variables set for it. */
enum { VAR_MESSAGES, VAR_TOOLS, VAR_DOCUMENTS, VAR_ADDS, N_VARS };
struct vars {
    bool is_asked[N_VARS], asks_special[SPECIAL_MAX];
    uint32_t at[N_VARS], special[SPECIAL_MAX];
};

struct by_chat_template {
    struct by_jprog prog, tool_prog;
    struct vars vars, tool_vars;
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

static void find_vars(const struct by_chat_template *t, const struct by_jprog *p, struct vars *v) {
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

/* ---- rendering ---- */

void by_chat_prompt_init(struct by_chat_prompt *p) {
    *p = (struct by_chat_prompt){0};
    by_buf_init(&p->text, BY_JVAL_OUTPUT_MAX);
    by_buf_init(&p->marks, BY_JVAL_OUTPUT_MAX);
}

static void run_free(struct by_jrun *r) {
    if (r) by_jrun_release(r);
    by_free(r);
}

void by_chat_prompt_release(struct by_chat_prompt *p) {
    run_free(p->run);
    run_free(p->chat_run);
    by_free(p->chat);
    by_buf_release(&p->text);
    by_buf_release(&p->marks);
    *p = (struct by_chat_prompt){0};
}

static void ready_run(struct by_jrun **r, struct by_err *err) {
    if (!*r) {
        *r = by_alloc(sizeof **r);
        by_jrun_init(*r);
    }
    by_jrun_clear(*r, err);
}

static struct by_jval lit(const char *z) {
    return by_jval_lit(z);
}

static const struct by_jval *member(struct by_jrun *r, const struct by_jval *obj, const char *key) {
    const struct by_jval *v =
        obj->type == BY_J_DICT ? by_jval_getz(r, obj->dict, by_str_of(key)) : NULL;
    return v && v->type != BY_J_NONE ? v : NULL;
}

/* The first of the three that is there. */
static const struct by_jval *find_reasoning(const struct by_jval *message) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    const struct by_jval *reasoning = NULL;
    size_t best = BY_COUNTOF(names);
    for (uint32_t i = 0; i < message->dict->n; i++) {
        const struct by_jentry *e = &message->dict->at[i];
        if (e->key.n < 8 || e->val.type == BY_J_NONE) continue; /* shorter than all three */
        for (size_t k = 0; k < best; k++) {
            if (!by_jval_eqz(&e->key, names[k])) continue;
            reasoning = &e->val;
            best = k;
        }
    }
    return reasoning;
}

/* transformers 5: it fills reasoning_content, and thinking if that is missing. */
static struct by_jval alias_reasoning(struct by_jrun *r, struct by_jval message) {
    const struct by_jval *reasoning = find_reasoning(&message);
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

/* obj with one more member, or another value of it; obj itself stays as it is. */
static struct by_jval with_member(struct by_jrun *r, const struct by_jval *obj, const char *key,
                                  struct by_jval value) {
    struct by_jval out = by_jval_dict(r, BY_J_DICT);
    bool ok = !r->code;
    for (uint32_t i = 0; ok && i < obj->dict->n; i++)
        ok = by_jval_put(r, out.dict, obj->dict->at[i].key, obj->dict->at[i].val);
    return ok && by_jval_put(r, out.dict, lit(key), value) ? out : *obj;
}

static void tag_parts(struct by_jrun *r, struct by_jval *last, const struct by_jlist *parts,
                      struct by_jval *final) {
    struct by_jval copy = by_jval_list(r, BY_J_LIST, parts->n);
    for (uint32_t i = 0; i < parts->n && !r->code; i++)
        by_jval_push(r, copy.list, parts->at[i]);
    for (uint32_t i = parts->n; i-- > 0 && !r->code;) {
        const struct by_jval *text = member(r, &parts->at[i], "text");
        if (!text || text->type != BY_J_STR) continue;
        *final = *text;
        copy.list->at[i] = with_member(r, &parts->at[i], "text", with_tag(r, *text));
        *last = with_member(r, last, "content", copy);
        return;
    }
    by_jrun_fail(r, BY_EINVAL,
                 "continue_final_message is set, but the final message has no text to continue");
}

/* continue_final_message: the last message's text gets a tag, behind which the rendered prompt is cut. */
static void tag_last(struct by_jrun *r, struct by_jlist *messages, struct by_jval *final) {
    static const struct by_jlist none;
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
        *last = with_member(r, last, "content", with_tag(r, *content));
        return;
    }
    tag_parts(r, last, content->type == BY_J_LIST ? content->list : &none, final);
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

static void set_globals(struct by_jrun *r, const struct by_chat_template *t,
                        const struct by_jval *chat, const struct by_jval value[N_VARS]) {
    const struct vars *v = r->prog == &t->tool_prog ? &t->tool_vars : &t->vars;
    const struct by_jval *kwargs = member(r, chat, "kwargs");
    if (!kwargs) kwargs = member(r, chat, "chat_template_kwargs"); /* as clients spell it */
    for (uint32_t i = 0; i < t->n_special; i++) {
        if (v->asks_special[i]) r->globals[v->special[i]] = by_jval_str(t->special[i].value, false);
    }
    for (int i = 0; i < N_VARS; i++) {
        if (v->is_asked[i]) r->globals[v->at[i]] = value[i];
    }
    if (!v->is_asked[VAR_TOOLS] && by_jops_truth(&value[VAR_TOOLS]))
        by_warn_limited("the chat template knows no tools: a request's are not in its prompt");
    for (uint32_t i = 0; kwargs && kwargs->type == BY_J_DICT && i < kwargs->dict->n; i++) {
        const struct by_jentry *e = &kwargs->dict->at[i];
        uint64_t id;
        if (by_strmap_get(&r->prog->names, by_jval_bytes(&e->key), &id)) r->globals[id] = e->val;
    }
}

/* The messages as the template sees them; the list is the chat's own where nothing is to be changed. */
static struct by_jval read_messages(struct by_jrun *r, const struct by_jval *chat, bool changes) {
    const struct by_jval *given = member(r, chat, "messages");
    if (!given || given->type != BY_J_LIST)
        return by_jrun_fail(r, BY_EINVAL, "messages: a list of messages is needed");
    for (uint32_t i = 0; i < given->list->n; i++) {
        const struct by_jval *m = &given->list->at[i];
        if (m->type != BY_J_DICT)
            return by_jrun_fail(r, BY_EINVAL, "messages[%u]: an object is needed", i);
        changes |= find_reasoning(m) != NULL;
    }
    if (!changes) return *given;
    struct by_jval out = by_jval_list(r, BY_J_LIST, given->list->n);
    for (uint32_t i = 0; i < given->list->n && !r->code; i++)
        by_jval_push(r, out.list, alias_reasoning(r, given->list->at[i]));
    return out;
}

/* Hands the built text over, and takes the memory of the prompt before for the next one. */
static void give(struct by_jbuild *from, size_t n, struct by_chat_prompt *to) {
    struct by_jbuild old = *from;
    size_t room = BY_MIN(to->text.cap, to->marks.cap);
    if (!n ||
        room <
            old.cap / 2) { /* its own memory: the prompt's is none, or too little to be worth it */
        by_buf_clear(&to->text);
        by_buf_clear(&to->marks);
        by_buf_add(&to->text, old.p, n);
        if (old.has_user) by_buf_add(&to->marks, old.marks, n);
        return;
    }
    from->p = to->text.p;
    from->marks = (uint8_t *)to->marks.p;
    from->cap = room - BY_JBUILD_SLACK;
    to->text.p = old.p;
    to->marks.p = (char *)old.marks;
    to->text.cap = to->marks.cap = old.cap + BY_JBUILD_SLACK;
    to->text.n = n;
    to->marks.n = old.has_user ? n : 0;
    to->text.is_full = to->marks.is_full = false;
    to->text.p[n] = to->marks.p[to->marks.n] = '\0';
}

static void render(struct by_jrun *r, const struct by_chat_template *t, const struct by_jval *chat,
                   struct by_chat_prompt *out) {
    const struct by_jval *goes_on = member(r, chat, "continue_final_message"),
                         *tools = member(r, chat, "tools"),
                         *documents = member(r, chat, "documents"),
                         *adds = member(r, chat, "add_generation_prompt");
    bool continues = goes_on && by_jops_truth(goes_on);
    struct by_jval messages = read_messages(r, chat, continues), final = {0};
    if (r->code) return;
    if (continues) tag_last(r, messages.list, &final);
    r->prog = tools && t->has_tool_prog ? &t->tool_prog : &t->prog;
    r->globals = by_jrun_get(r, (r->prog->n_names + 1) * sizeof *r->globals);
    r->out = by_jrun_build(r);
    if (r->code || !r->out) return;
    set_globals(r, t, chat,
                (struct by_jval[N_VARS]){
                    [VAR_MESSAGES] = messages,
                    [VAR_TOOLS] = tools ? *tools : by_jval_none(),
                    [VAR_DOCUMENTS] = documents ? *documents : by_jval_none(),
                    [VAR_ADDS] = by_jval_bool(adds && by_jops_truth(adds)),
                });
    struct by_jbuild *prompt = r->out;
    by_jexec_run(r);
    if (prompt->is_full)
        by_jrun_fail(r, BY_ELIMIT, "the prompt is longer than %d bytes", BY_JVAL_OUTPUT_MAX);
    size_t n = r->code ? 0 : prompt->n;
    if (!r->code && continues) n = cut_at_tag(r, (struct by_str){prompt->p, n});
    if (!r->code) give(prompt, n, out);
}

int by_chat_prompt_read(struct by_chat_prompt *p, struct by_str chat, struct by_err *err) {
    ready_run(&p->chat_run, err);
    if (!p->chat) p->chat = by_alloc(sizeof *p->chat);
    return by_jjson_read(p->chat_run, chat, p->chat, err);
}

bool by_chat_prompt_fill(struct by_chat_prompt *p, bool and_missing) {
    const struct by_jval *messages = member(p->chat_run, p->chat, "messages");
    bool has_filled = false;
    for (uint32_t i = 0; messages && messages->type == BY_J_LIST && i < messages->list->n; i++) {
        const struct by_jval *m = &messages->list->at[i];
        if (m->type != BY_J_DICT || member(p->chat_run, m, "content")) continue;
        if (and_missing || by_jval_getz(p->chat_run, m->dict, by_str_of("content")))
            has_filled |= by_jval_put(p->chat_run, m->dict, lit("content"), lit(""));
    }
    return has_filled && !p->chat_run->code;
}

int by_chat_prompt_render(struct by_chat_prompt *p, const struct by_chat_template *t,
                          uint64_t clock_s, struct by_err *err) {
    ready_run(&p->run, err);
    p->run->prog = &t->prog;
    p->run->clock_s = (int64_t)clock_s;
    render(p->run, t, p->chat, p);
    return p->run->code;
}

int by_chat_template_render(const struct by_chat_template *t, struct by_str chat, uint64_t clock_s,
                            struct by_chat_prompt *out, struct by_err *err) {
    int rc = by_chat_prompt_read(out, chat, err);
    return rc ? rc : by_chat_prompt_render(out, t, clock_s, err);
}
