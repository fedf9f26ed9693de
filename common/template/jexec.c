#include "common/template/jexec.h"

#include "common/template/jeval.h"
#include "common/template/jfunc.h"
#include "common/template/jops.h"
#include "common/template/jtext.h"

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

static enum flow exec_all(struct by_jrun *r, const struct by_jnodes *kids);

/* ---- names ---- */

static void bind_in(struct by_jrun *r, struct by_jscope *s, uint32_t name, struct by_jval v) {
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->at[i].name != name) continue;
        s->at[i].val = v;
        return;
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 8;
        struct by_jbinding *at = by_jrun_get(r, cap * sizeof *at);
        if (!at) return;
        if (s->n) memcpy(at, s->at, s->n * sizeof *at);
        s->at = at;
        s->cap = cap;
    }
    s->at[s->n++] = (struct by_jbinding){name, v};
}

static void set_name(struct by_jrun *r, uint32_t name, struct by_jval v) {
    if (r->scope)
        bind_in(r, r->scope, name, v);
    else
        r->globals[name] = v;
}

static void set_word(struct by_jrun *r, const char *word, struct by_jval v) {
    uint64_t name;
    /* else nobody asks */
    if (by_strmap_get(&r->prog->names, by_str_of(word), &name)) set_name(r, (uint32_t)name, v);
}

static struct by_jscope *push_scope(struct by_jrun *r) {
    struct by_jscope *s = by_jrun_get(r, sizeof *s);
    if (!s) return NULL;
    s->parent = r->scope;
    r->scope = s;
    return s;
}

static void assign(struct by_jrun *r, const struct by_jnode *target, struct by_jval v) {
    if (r->code) return;
    if (target->kind == BY_JK_NAME) {
        set_name(r, target->name, v);
    } else if (target->kind == BY_JK_NSREF) {
        const struct by_jval *ns = by_jeval_find(r, target->name);
        if (!ns || ns->type != BY_J_NAMESPACE)
            by_jrun_fail(r, BY_EINVAL, "cannot assign attribute on non-namespace object");
        else if (!by_jval_put(r, ns->dict, target->val, v))
            return;
    } else {
        struct by_jlist *l = by_jops_iterate(r, &v);
        if (!l) return;
        if (l->n != target->kids.n) {
            by_jrun_fail(r, BY_EINVAL, "cannot unpack %u values into %u names", l->n,
                         target->kids.n);
            return;
        }
        for (uint32_t i = 0; i < l->n; i++)
            assign(r, target->kids.at[i], l->at[i]);
    }
}

/* ---- macros ---- */

static void bind_params(struct by_jrun *r, const struct by_jnode *m, const struct by_jargs *args) {
    for (uint32_t i = 0; i < m->params.n && !r->code; i++) {
        const struct by_jnamed *p = &m->params.at[i];
        struct by_jval v = {0};
        if (i < args->n) v = args->at[i];
        for (uint32_t k = 0; k < args->n_kw; k++) {
            if (by_str_eq(args->kw[k].name, by_jval_bytes(&p->name))) v = args->kw[k].val;
        }
        if (v.type == BY_J_ABSENT && p->value) v = by_jeval(r, p->value);
        if (v.type == BY_J_ABSENT && !r->code)
            v = by_jval_undefined(r, "parameter '" BY_STR_FMT "' was not provided",
                                  BY_STR_ARG(by_jval_bytes(&p->name)));
        set_name(r, p->id, v);
    }
}

/* What no parameter takes: varargs, kwargs and caller, if the macro names them; else a mistake. */
static void bind_rest(struct by_jrun *r, const struct by_jnode *m, const struct by_jargs *args) {
    struct by_jval rest = by_jval_list(r, BY_J_TUPLE, 0), kwargs = by_jval_dict(r, BY_J_DICT),
                   caller = {0};
    for (uint32_t i = m->params.n; i < args->n && !r->code; i++)
        by_jval_push(r, rest.list, args->at[i]);
    for (uint32_t k = 0; k < args->n_kw && !r->code; k++) {
        bool is_param = false;
        for (uint32_t i = 0; i < m->params.n; i++)
            is_param |= by_str_eq(args->kw[k].name, by_jval_bytes(&m->params.at[i].name));
        if (is_param) continue;
        if (m->uses_caller && by_str_eqz(args->kw[k].name, "caller"))
            caller = args->kw[k].val;
        else if (!by_jval_put(r, kwargs.dict, by_jval_str(args->kw[k].name, false),
                              args->kw[k].val))
            return;
    }
    if (r->code) return;
    if (rest.list->n && !m->uses_varargs) {
        by_jrun_fail(r, BY_EINVAL, "macro '" BY_STR_FMT "' takes not more than %u argument(s)",
                     BY_STR_ARG(by_jval_bytes(&m->val)), m->params.n);
    } else if (kwargs.dict->n && !m->uses_kwargs) {
        struct by_str word = by_jval_bytes(&kwargs.dict->at[0].key);
        by_jrun_fail(r, BY_EINVAL,
                     "macro '" BY_STR_FMT "' takes no keyword argument '" BY_STR_FMT "'",
                     BY_STR_ARG(by_jval_bytes(&m->val)), BY_STR_ARG(word));
    }
    if (m->uses_varargs) set_word(r, "varargs", rest);
    if (m->uses_kwargs) set_word(r, "kwargs", kwargs);
    if (m->uses_caller)
        set_word(r, "caller",
                 caller.type == BY_J_ABSENT ? by_jval_undefined(r, "No caller defined") : caller);
}

static struct by_jval call_macro(struct by_jrun *r, struct by_jfunc *self,
                                 const struct by_jargs *args) {
    struct by_jscope *scope = r->scope;
    struct by_jbuild *out = r->out, *mine = by_jrun_build(r);
    if (!mine) return (struct by_jval){0};
    if (++r->depth > BY_JVAL_DEPTH_MAX)
        return by_jrun_fail(r, BY_ELIMIT, "macros call each other more than %d deep",
                            BY_JVAL_DEPTH_MAX);
    r->scope = self->scope;
    r->out = mine;
    if (push_scope(r)) {
        bind_params(r, self->macro, args);
        bind_rest(r, self->macro, args);
        if (!r->code) exec_all(r, &self->macro->kids);
    }
    r->scope = scope;
    r->out = out;
    r->depth--;
    return r->code ? (struct by_jval){0} : by_jrun_built(r, mine);
}

static struct by_jval make_macro(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jfunc f = {.call = call_macro, .name = "macro", .macro = n, .scope = r->scope};
    return by_jfunc_new(r, &f);
}

/* ---- statements ---- */

static void print(struct by_jrun *r, const struct by_jval *v) {
    if (r->code) return;
    if (v->type == BY_J_STR)
        by_jbuild_put(r->out, v);
    else
        by_jtext_str(r, r->out, v);
}

static void emit(struct by_jrun *r, const struct by_jnode *n);

/* A sum of texts goes out term by term: where a later one is none, the whole run fails. */
static void emit_sum(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval room, empty = by_jval_lit("");
    const struct by_jval *v = by_jeval_operand(r, n->kids.at[0], &room);
    if (r->code) return;
    if (v->type != BY_J_STR) {
        room = by_jeval_sum(r, n, *v);
        print(r, &room);
        return;
    }
    by_jbuild_put(r->out, v);
    for (uint32_t i = 1; i < n->kids.n; i++) {
        v = by_jeval_operand(r, n->kids.at[i], &room);
        if (r->code) return;
        r->line = n->line;
        if (v->type != BY_J_STR) (void)by_jops_binary(r, BY_JOP_ADD, &empty, v); /* says so */
        if (r->code) return;
        by_jbuild_put(r->out, v);
    }
}

static void emit_cond(struct by_jrun *r, const struct by_jnode *n) {
    bool test = by_jeval_is_true(r, n->b);
    if (r->code) return;
    if (test)
        emit(r, n->a);
    else if (n->c)
        emit(r, n->c);
}

/* The value's text into the output, without a copy of it in between. */
static void emit(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval room;
    switch (n->kind) {
    case BY_JK_SUM:
        if (by_jrun_step(r)) emit_sum(r, n);
        return;
    case BY_JK_COND:
        if (by_jrun_step(r)) emit_cond(r, n);
        return;
    case BY_JK_CONCAT:
        for (uint32_t i = 0; i < n->kids.n && by_jrun_step(r); i++)
            emit(r, n->kids.at[i]);
        return;
    default:
        print(r, by_jeval_operand(r, n, &room));
    }
}

static enum flow exec_if(struct by_jrun *r, const struct by_jnode *n) {
    for (uint32_t i = 0; i < n->kids.n; i++) {
        const struct by_jnode *branch = n->kids.at[i];
        bool test = !branch->a || by_jeval_is_true(r, branch->a);
        if (r->code) return FLOW_NEXT;
        if (test) return exec_all(r, &branch->kids);
    }
    return FLOW_NEXT;
}

/* The items that pass `for x in y if cond`. */
static struct by_jlist *pass(struct by_jrun *r, const struct by_jnode *n, struct by_jlist *all) {
    if (!n->c) return all;
    struct by_jscope *outer = r->scope;
    struct by_jval kept = by_jval_list(r, BY_J_LIST, 0);
    struct by_jscope *s = push_scope(r);
    for (uint32_t i = 0; s && i < all->n && !r->code; i++) {
        s->n = 0;
        assign(r, n->a, all->at[i]);
        bool test = by_jeval_is_true(r, n->c);
        if (!r->code && test) by_jval_push(r, kept.list, all->at[i]);
    }
    r->scope = outer;
    return r->code ? NULL : kept.list;
}

static uint32_t nesting(const struct by_jrun *r) {
    struct by_jval v = {0};
    for (const struct by_jscope *s = r->scope; s && v.type != BY_J_LOOP; s = s->parent) {
        for (uint32_t i = 0; i < s->n; i++) {
            if (s->at[i].name == r->prog->loop_name) v = s->at[i].val;
        }
    }
    return v.type == BY_J_LOOP ? v.loop->nesting + 1 : 0;
}

static void exec_for(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval room;
    const struct by_jval *over = by_jeval_operand(r, n->b, &room);
    struct by_jlist *items = r->code ? NULL : by_jops_iterate(r, over);
    if (items) items = pass(r, n, items);
    if (!items) return;
    struct by_jscope *outer = r->scope;
    struct by_jloop *loop = by_jrun_get(r, sizeof *loop);
    if (!loop) return;
    *loop = (struct by_jloop){.items = items, .nesting = nesting(r)};
    struct by_jscope *s = push_scope(r);
    /* a round reached its end; for the else one cut short does not count */
    bool is_through = false;
    for (; s && loop->at < items->n && !r->code; loop->at++) {
        by_jrun_charge(r, 1);
        s->n = 0; /* what a round sets, the next one does not see */
        if (n->a->kind == BY_JK_NAME && s->cap)
            s->at[s->n++] = (struct by_jbinding){n->a->name, items->at[loop->at]};
        else
            assign(r, n->a, items->at[loop->at]);
        if (r->prog->loop_name < r->prog->n_names) /* else nobody asks */
            set_name(r, r->prog->loop_name, (struct by_jval){.type = BY_J_LOOP, .loop = loop});
        enum flow flow = r->code ? FLOW_BREAK : exec_all(r, &n->kids);
        if (flow == FLOW_BREAK) break;
        is_through |= flow == FLOW_NEXT;
    }
    r->scope = outer;
    if (!is_through && !r->code) exec_all(r, &n->orelse);
}

/* Runs kids with their output caught. */
static struct by_jval capture(struct by_jrun *r, const struct by_jnodes *kids) {
    struct by_jscope *outer = r->scope;
    struct by_jbuild *out = r->out, *mine = by_jrun_build(r);
    if (!mine || !push_scope(r)) return (struct by_jval){0};
    r->out = mine;
    exec_all(r, kids);
    r->out = out;
    r->scope = outer;
    return r->code ? (struct by_jval){0} : by_jrun_built(r, mine);
}

static void exec_with(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jscope *outer = r->scope;
    struct by_jval *vals = by_jrun_get(r, (n->params.n + 1) * sizeof *vals);
    for (uint32_t i = 0; vals && i < n->params.n && !r->code; i++)
        vals[i] = by_jeval(r, n->params.at[i].value);
    if (!r->code && push_scope(r)) {
        for (uint32_t i = 0; i < n->params.n; i++)
            assign(r, n->params.at[i].target, vals[i]);
        if (!r->code) exec_all(r, &n->kids);
    }
    r->scope = outer;
}

static void exec_call_block(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval caller = make_macro(r, n);
    struct by_jval v = r->code ? caller : by_jeval_call(r, n->a, &caller);
    print(r, &v);
}

static void exec_set_block(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval v = capture(r, &n->kids);
    if (!r->code && n->b) v = by_jeval_filter(r, n->b, &v);
    assign(r, n->a, v);
}

static void exec_filter_block(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval v = capture(r, &n->kids);
    if (!r->code) v = by_jeval_filter(r, n->a, &v);
    print(r, &v);
}

static void exec_scope(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jscope *outer = r->scope;
    if (push_scope(r)) exec_all(r, &n->kids);
    r->scope = outer;
}

static enum flow exec(struct by_jrun *r, const struct by_jnode *n) {
    if (!by_jrun_step(r)) return FLOW_NEXT;
    r->line = n->line;
    switch (n->kind) {
    case BY_JK_TEXT:
        by_jbuild_put(r->out, &n->val);
        break;
    case BY_JK_OUTPUT:
        emit(r, n->a);
        break;
    case BY_JK_IF:
        return exec_if(r, n);
    case BY_JK_FOR:
        exec_for(r, n);
        break;
    case BY_JK_SET:
        assign(r, n->a, by_jeval(r, n->b));
        break;
    case BY_JK_SET_BLOCK:
        exec_set_block(r, n);
        break;
    case BY_JK_MACRO:
        set_name(r, n->name, make_macro(r, n));
        break;
    case BY_JK_CALL_BLOCK:
        exec_call_block(r, n);
        break;
    case BY_JK_FILTER_BLOCK:
        exec_filter_block(r, n);
        break;
    case BY_JK_WITH:
        exec_with(r, n);
        break;
    case BY_JK_SCOPE:
        exec_scope(r, n);
        break;
    case BY_JK_BREAK:
        return FLOW_BREAK;
    case BY_JK_CONTINUE:
        return FLOW_CONTINUE;
    default:
        by_jrun_fail(r, BY_EINTERNAL, "an expression stands where a statement belongs");
    }
    return FLOW_NEXT;
}

static enum flow exec_all(struct by_jrun *r, const struct by_jnodes *kids) {
    for (uint32_t i = 0; i < kids->n && !r->code; i++) {
        enum flow flow = exec(r, kids->at[i]);
        if (flow != FLOW_NEXT) return flow;
        if (r->out->is_full)
            by_jrun_fail(r, BY_ELIMIT, "the prompt is longer than %d bytes", BY_JVAL_OUTPUT_MAX);
    }
    return FLOW_NEXT;
}

void by_jexec_run(struct by_jrun *r) {
    exec_all(r, &r->prog->body);
}
