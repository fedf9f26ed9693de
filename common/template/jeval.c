#include "common/template/jeval.h"

#include "common/template/jfilter.h"
#include "common/template/jmethod.h"
#include "common/template/jops.h"
#include "common/template/jtest.h"
#include "common/template/jtext.h"

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

struct binding {
    uint32_t name;
    struct by_jval val;
};

struct by_jscope {
    struct by_jscope *parent;
    struct binding *at;
    uint32_t n, cap;
};

static struct by_jval eval(struct by_jrun *r, const struct by_jnode *n);
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
        struct binding *at = by_jrun_get(r, cap * sizeof *at);
        if (!at) return;
        if (s->n) memcpy(at, s->at, s->n * sizeof *at);
        s->at = at;
        s->cap = cap;
    }
    s->at[s->n++] = (struct binding){name, v};
}

static void set_name(struct by_jrun *r, uint32_t name, struct by_jval v) {
    if (r->scope)
        bind_in(r, r->scope, name, v);
    else
        r->globals[name] = v;
}

static void set_word(struct by_jrun *r, const char *word, struct by_jval v) {
    uint64_t name;
    if (by_strmap_get(&r->prog->names, by_str_of(word), &name))
        set_name(r, (uint32_t)name, v); /* else nobody asks */
}

static struct by_jval get_name(struct by_jrun *r, uint32_t name) {
    for (const struct by_jscope *s = r->scope; s; s = s->parent) {
        for (uint32_t i = 0; i < s->n; i++) {
            if (s->at[i].name == name) return s->at[i].val;
        }
    }
    if (r->globals[name].type != BY_J_ABSENT) return r->globals[name];
    struct by_str word = r->prog->name_of[name];
    const struct by_jfunc *f = by_jfunc_global(word);
    if (f) return by_jfunc_new(r, f);
    return by_jval_undefined(r, "'" BY_STR_FMT "' is undefined", BY_STR_ARG(word));
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
        struct by_jval ns = get_name(r, target->name);
        if (ns.type != BY_J_NAMESPACE)
            by_jrun_fail(r, BY_EINVAL, "cannot assign attribute on non-namespace object");
        else if (!by_jval_put(r, ns.dict, target->val, v))
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

/* ---- calls ---- */

struct call { /* room for evaluated arguments, in the run's arena */
    struct by_jargs args;
    struct by_jval *at;
    struct by_jkw *kw;
};

/* extra: how many keyword arguments the caller will add. */
static bool eval_args(struct by_jrun *r, const struct by_jnode *n, uint32_t extra, struct call *c) {
    *c = (struct call){0};
    if (n->orelse.n) c->at = by_jrun_get(r, n->orelse.n * sizeof *c->at);
    if (n->params.n + extra) c->kw = by_jrun_get(r, (n->params.n + extra) * sizeof *c->kw);
    if (r->code) return false;
    for (uint32_t i = 0; i < n->orelse.n && !r->code; i++)
        c->at[i] = eval(r, n->orelse.at[i]);
    for (uint32_t i = 0; i < n->params.n && !r->code; i++)
        c->kw[i] =
            (struct by_jkw){by_jval_bytes(&n->params.at[i].name), eval(r, n->params.at[i].value)};
    c->args = (struct by_jargs){.at = c->at, .n = n->orelse.n, .kw = c->kw, .n_kw = n->params.n};
    return !r->code;
}

static struct by_jval eval_call(struct by_jrun *r, const struct by_jnode *n,
                                const struct by_jval *caller) {
    struct call c;
    struct by_jval f = eval(r, n->a);
    if (r->code || !eval_args(r, n, 1, &c)) return (struct by_jval){0};
    if (caller) c.kw[c.args.n_kw++] = (struct by_jkw){BY_STR("caller"), *caller};
    r->line = n->line;
    return by_jfunc_call(r, &f, &c.args);
}

static void bind_params(struct by_jrun *r, const struct by_jnode *m, const struct by_jargs *args) {
    for (uint32_t i = 0; i < m->params.n && !r->code; i++) {
        const struct by_jnamed *p = &m->params.at[i];
        struct by_jval v = {0};
        if (i < args->n) v = args->at[i];
        for (uint32_t k = 0; k < args->n_kw; k++) {
            if (by_str_eq(args->kw[k].name, by_jval_bytes(&p->name))) v = args->kw[k].val;
        }
        if (v.type == BY_J_ABSENT && p->value) v = eval(r, p->value);
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

/* ---- expressions ---- */

static struct by_jval eval_filter(struct by_jrun *r, const struct by_jnode *n,
                                  const struct by_jval *piped) {
    struct call c;
    struct by_jval v;
    if (n->a)
        v = n->a->kind == BY_JK_FILTER ? eval_filter(r, n->a, piped) : eval(r, n->a);
    else
        v = *piped;
    if (r->code || !eval_args(r, n, 0, &c)) return (struct by_jval){0};
    r->line = n->line;
    return by_jfilter_call(r, n->builtin, &v, &c.args);
}

static struct by_jval eval_test(struct by_jrun *r, const struct by_jnode *n) {
    struct call c;
    struct by_jval v = eval(r, n->a);
    if (r->code || !eval_args(r, n, 0, &c)) return (struct by_jval){0};
    r->line = n->line;
    return by_jval_bool(by_jtest_call(r, n->builtin, &v, &c.args));
}

static struct by_jval eval_items(struct by_jrun *r, const struct by_jnode *n, enum by_jtype type) {
    struct by_jval out = by_jval_list(r, type, n->kids.n);
    for (uint32_t i = 0; i < n->kids.n && !r->code; i++) {
        struct by_jval one = eval(r, n->kids.at[i]);
        if (!r->code) by_jval_push(r, out.list, one);
    }
    return out;
}

static struct by_jval eval_dict(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval out = by_jval_dict(r, BY_J_DICT);
    for (uint32_t i = 0; i + 1 < n->kids.n && !r->code; i += 2) {
        struct by_jval key = eval(r, n->kids.at[i]), val = eval(r, n->kids.at[i + 1]);
        if (!r->code && !by_jval_put(r, out.dict, key, val)) break;
    }
    return out;
}

static struct by_jval eval_item(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval obj = eval(r, n->a);
    if (n->b->kind != BY_JK_SLICE) {
        struct by_jval key = eval(r, n->b);
        return r->code ? (struct by_jval){0} : by_jops_item(r, &obj, &key);
    }
    const struct by_jnode *nodes[3] = {n->b->a, n->b->b, n->b->c};
    struct by_jval part[3];
    for (int i = 0; i < 3; i++)
        part[i] = nodes[i] ? eval(r, nodes[i]) : by_jval_none();
    return r->code ? (struct by_jval){0} : by_jops_slice(r, &obj, part);
}

static struct by_jval eval_concat(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jbuild *b = by_jrun_build(r);
    if (!b) return (struct by_jval){0};
    for (uint32_t i = 0; i < n->kids.n && !r->code; i++) {
        struct by_jval one = eval(r, n->kids.at[i]);
        if (!r->code) by_jtext_str(r, b, &one);
    }
    return by_jrun_built(r, b);
}

static struct by_jval eval_compare(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval left = eval(r, n->a);
    for (uint32_t i = 0; i < n->kids.n && !r->code; i++) {
        struct by_jval right = eval(r, n->kids.at[i]->b);
        if (r->code) break;
        r->line = n->line;
        if (!by_jops_compare(r, (enum by_jcmp)n->kids.at[i]->op, &left, &right))
            return by_jval_bool(false);
        left = right;
    }
    return by_jval_bool(true);
}

static struct by_jval eval_logic(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval left = eval(r, n->a);
    if (r->code) return left;
    bool is_true = by_jops_truth(&left);
    return is_true == (n->kind == BY_JK_AND) ? eval(r, n->b) : left;
}

static struct by_jval eval_cond(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval test = eval(r, n->b);
    if (r->code) return test;
    if (by_jops_truth(&test)) return eval(r, n->a);
    if (n->c) return eval(r, n->c);
    return by_jval_undefined(
        r,
        "the inline if-expression on line %u evaluated to false and no else section was defined.",
        n->line);
}

static struct by_jval eval_unary(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval v = eval(r, n->a);
    if (r->code) return v;
    if (n->kind == BY_JK_NOT) return by_jval_bool(!by_jops_truth(&v));
    return by_jops_negate(r, &v, n->kind == BY_JK_POS);
}

static struct by_jval eval_binary(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval a = eval(r, n->a), b = eval(r, n->b);
    if (r->code) return a;
    r->line = n->line;
    return by_jops_binary(r, (enum by_jop)n->op, &a, &b);
}

static struct by_jval eval_attr(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval obj = eval(r, n->a);
    r->line = n->line;
    return r->code ? obj : by_jops_attr(r, &obj, &n->val);
}

static struct by_jval eval(struct by_jrun *r, const struct by_jnode *n) {
    by_jrun_charge(r, 1);
    if (r->code) return (struct by_jval){0};
    r->line = n->line;
    switch (n->kind) {
    case BY_JK_CONST:
        return n->val;
    case BY_JK_NAME:
        return get_name(r, n->name);
    case BY_JK_LIST:
        return eval_items(r, n, BY_J_LIST);
    case BY_JK_TUPLE:
        return eval_items(r, n, BY_J_TUPLE);
    case BY_JK_DICT:
        return eval_dict(r, n);
    case BY_JK_ATTR:
        return eval_attr(r, n);
    case BY_JK_ITEM:
        return eval_item(r, n);
    case BY_JK_CALL:
        return eval_call(r, n, NULL);
    case BY_JK_FILTER:
        return eval_filter(r, n, NULL);
    case BY_JK_TEST:
        return eval_test(r, n);
    case BY_JK_NOT:
    case BY_JK_NEG:
    case BY_JK_POS:
        return eval_unary(r, n);
    case BY_JK_AND:
    case BY_JK_OR:
        return eval_logic(r, n);
    case BY_JK_BINARY:
        return eval_binary(r, n);
    case BY_JK_CONCAT:
        return eval_concat(r, n);
    case BY_JK_COMPARE:
        return eval_compare(r, n);
    case BY_JK_COND:
        return eval_cond(r, n);
    default:
        return by_jrun_fail(r, BY_EINTERNAL, "a statement stands where an expression belongs");
    }
}

/* ---- statements ---- */

static void print(struct by_jrun *r, const struct by_jval *v) {
    if (!r->code) by_jtext_str(r, r->out, v);
}

static enum flow exec_if(struct by_jrun *r, const struct by_jnode *n) {
    for (uint32_t i = 0; i < n->kids.n; i++) {
        const struct by_jnode *branch = n->kids.at[i];
        struct by_jval test = branch->a ? eval(r, branch->a) : by_jval_bool(true);
        if (r->code) return FLOW_NEXT;
        if (by_jops_truth(&test)) return exec_all(r, &branch->kids);
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
        struct by_jval test = eval(r, n->c);
        if (!r->code && by_jops_truth(&test)) by_jval_push(r, kept.list, all->at[i]);
    }
    r->scope = outer;
    return r->code ? NULL : kept.list;
}

static uint32_t nesting(const struct by_jrun *r) {
    uint64_t name;
    struct by_jval v = {0};
    if (by_strmap_get(&r->prog->names, BY_STR("loop"), &name)) {
        for (const struct by_jscope *s = r->scope; s && v.type != BY_J_LOOP; s = s->parent) {
            for (uint32_t i = 0; i < s->n; i++) {
                if (s->at[i].name == (uint32_t)name) v = s->at[i].val;
            }
        }
    }
    return v.type == BY_J_LOOP ? v.loop->nesting + 1 : 0;
}

static void exec_for(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval over = eval(r, n->b);
    struct by_jlist *items = r->code ? NULL : by_jops_iterate(r, &over);
    if (items) items = pass(r, n, items);
    if (!items) return;
    struct by_jscope *outer = r->scope;
    struct by_jloop *loop = by_jrun_get(r, sizeof *loop);
    if (!loop) return;
    *loop = (struct by_jloop){.items = items, .nesting = nesting(r)};
    struct by_jscope *s = push_scope(r);
    bool is_through =
        false; /* a round reached its end; for the else one cut short does not count */
    for (; s && loop->at < items->n && !r->code; loop->at++) {
        by_jrun_charge(r, 1);
        s->n = 0; /* what a round sets, the next one does not see */
        assign(r, n->a, items->at[loop->at]);
        set_word(r, "loop", (struct by_jval){.type = BY_J_LOOP, .loop = loop});
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
        vals[i] = eval(r, n->params.at[i].value);
    if (!r->code && push_scope(r)) {
        for (uint32_t i = 0; i < n->params.n; i++)
            assign(r, n->params.at[i].target, vals[i]);
        if (!r->code) exec_all(r, &n->kids);
    }
    r->scope = outer;
}

static void exec_call_block(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval caller = make_macro(r, n);
    struct by_jval v = r->code ? caller : eval_call(r, n->a, &caller);
    print(r, &v);
}

static void exec_set_block(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval v = capture(r, &n->kids);
    if (!r->code && n->b) v = eval_filter(r, n->b, &v);
    assign(r, n->a, v);
}

static void exec_filter_block(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval v = capture(r, &n->kids);
    if (!r->code) v = eval_filter(r, n->a, &v);
    print(r, &v);
}

static void exec_scope(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jscope *outer = r->scope;
    if (push_scope(r)) exec_all(r, &n->kids);
    r->scope = outer;
}

static enum flow exec(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval v;
    by_jrun_charge(r, 1);
    if (r->code) return FLOW_NEXT;
    r->line = n->line;
    switch (n->kind) {
    case BY_JK_TEXT:
        by_jbuild_add(r->out, n->val);
        break;
    case BY_JK_OUTPUT:
        v = eval(r, n->a);
        print(r, &v);
        break;
    case BY_JK_IF:
        return exec_if(r, n);
    case BY_JK_FOR:
        exec_for(r, n);
        break;
    case BY_JK_SET:
        assign(r, n->a, eval(r, n->b));
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
        if (r->out->bytes.is_full)
            by_jrun_fail(r, BY_ELIMIT, "the prompt is longer than %d bytes", BY_JVAL_OUTPUT_MAX);
    }
    return FLOW_NEXT;
}

void by_jeval_run(struct by_jrun *r) {
    exec_all(r, &r->prog->body);
}
