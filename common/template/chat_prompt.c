/* A chat, as JSON, becomes the values that a template sees, and the template's output a prompt. */
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/template/chat_template.h"
#include "common/template/chat_template_parts.h"
#include "common/template/jchar.h"
#include "common/template/jexec.h"
#include "common/template/jjson.h"
#include "common/template/jops.h"

#define CONTINUE_TAG "CONTINUE_FINAL_MESSAGE_TAG "

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

/* The template does not ask for them. */
static void lose_tools(struct by_jrun *r, const struct by_jval *chat) {
    const struct by_jval *needs = member(r, chat, "needs_tools");
    if (needs && by_jops_truth(needs))
        by_jrun_fail(r, BY_EUNSUPPORTED,
                     "tools: the model does not support tools: its chat template would not show "
                     "them; leave them out, or start the server with a --chat-template that does");
    else
        by_warn_limited("the chat template knows no tools: a request's are not in its prompt");
}

static void set_globals(struct by_jrun *r, const struct by_chat_template *t,
                        const struct by_jval *chat, const struct by_jval value[N_VARS]) {
    const struct by_chat_vars *v = r->prog == &t->tool_prog ? &t->tool_vars : &t->vars;
    const struct by_jval *kwargs = member(r, chat, "kwargs");
    if (!kwargs) kwargs = member(r, chat, "chat_template_kwargs"); /* as clients spell it */
    for (uint32_t i = 0; i < t->n_special; i++) {
        if (v->asks_special[i]) r->globals[v->special[i]] = by_jval_str(t->special[i].value, false);
    }
    for (int i = 0; i < N_VARS; i++) {
        if (v->is_asked[i]) r->globals[v->at[i]] = value[i];
    }
    if (!v->is_asked[VAR_TOOLS] && by_jops_truth(&value[VAR_TOOLS])) lose_tools(r, chat);
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
    if (r->code) return;
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
