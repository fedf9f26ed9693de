#include "common/template/jeval.h"

#include "common/template/jfilter.h"
#include "common/template/jops.h"
#include "common/template/jtest.h"
#include "common/template/jtext.h"

static struct by_jval get_name(struct by_jrun *r, uint32_t name) {
    const struct by_jval *v = by_jeval_find(r, name);
    if (v) return *v;
    const struct by_jfunc *f = r->prog->func_of[name];
    return f ? by_jfunc_new(r, f) : by_jval_missing(NULL, r->prog->name_of[name]);
}

/* ---- operands ---- */

/* obj.name and obj['name'] */
static const struct by_jval *member(struct by_jrun *r, const struct by_jnode *n,
                                    struct by_jval *room) {
    const struct by_jval *obj = by_jeval_operand(r, n->a, room);
    if (!by_jrun_step(r)) {
        *room = (struct by_jval){0};
        return room;
    }
    if (obj->type == BY_J_DICT && (n->kind == BY_JK_NAMED || !n->builtin)) {
        const struct by_jval *found = by_jval_get_str(r, obj->dict, &n->val);
        if (found) return found;
        if (!n->builtin) {
            *room = by_jval_missing(by_jval_type_name(obj), by_jval_bytes(&n->val));
            return room;
        }
    }
    r->line = n->line;
    struct by_jval of = *obj;
    *room = n->kind == BY_JK_ATTR ? by_jops_attr(r, &of, &n->val, n->builtin)
                                  : by_jops_item_named(r, &of, &n->val, n->builtin);
    return room;
}

const struct by_jval *by_jeval_operand_of(struct by_jrun *r, const struct by_jnode *n,
                                          struct by_jval *room) {
    if (n->kind == BY_JK_NAMED || n->kind == BY_JK_ATTR) return member(r, n, room);
    *room = by_jeval(r, n);
    return room;
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
        c->at[i] = by_jeval(r, n->orelse.at[i]);
    for (uint32_t i = 0; i < n->params.n && !r->code; i++)
        c->kw[i] = (struct by_jkw){by_jval_bytes(&n->params.at[i].name),
                                   by_jeval(r, n->params.at[i].value)};
    c->args = (struct by_jargs){.at = c->at, .n = n->orelse.n, .kw = c->kw, .n_kw = n->params.n};
    return !r->code;
}

/* What is called: a method's row with its object in *f, or the function itself in *f. */
static const struct by_jmethod *eval_callee(struct by_jrun *r, const struct by_jnode *n,
                                            struct by_jval *f) {
    if (n->kind != BY_JK_ATTR || !n->builtin) {
        *f = by_jeval(r, n);
        return NULL;
    }
    struct by_jval obj = by_jeval(r, n->a);
    const struct by_jmethod *m = r->code ? NULL : by_jmethod_of(n->builtin, &obj);
    r->line = n->line;
    *f = m || r->code ? obj : by_jops_attr(r, &obj, &n->val, n->builtin);
    return m;
}

struct by_jval by_jeval_call(struct by_jrun *r, const struct by_jnode *n,
                             const struct by_jval *caller) {
    struct call c;
    struct by_jval f;
    const struct by_jmethod *m = eval_callee(r, n->a, &f);
    if (r->code || !eval_args(r, n, 1, &c)) return (struct by_jval){0};
    if (caller) c.kw[c.args.n_kw++] = (struct by_jkw){BY_STR("caller"), *caller};
    r->line = n->line;
    return m ? by_jmethod_call(r, m, f, &c.args) : by_jfunc_call(r, &f, &c.args);
}

/* ---- expressions ---- */

struct by_jval by_jeval_filter(struct by_jrun *r, const struct by_jnode *n,
                               const struct by_jval *piped) {
    struct call c;
    struct by_jval v;
    if (n->a)
        v = n->a->kind == BY_JK_FILTER ? by_jeval_filter(r, n->a, piped) : by_jeval(r, n->a);
    else
        v = *piped;
    if (r->code || !eval_args(r, n, 0, &c)) return (struct by_jval){0};
    r->line = n->line;
    return by_jfilter_call(r, n->builtin, &v, &c.args);
}

static bool eval_test(struct by_jrun *r, const struct by_jnode *n) {
    struct call c;
    struct by_jval room;
    const struct by_jval *v = by_jeval_operand(r, n->a, &room);
    if (r->code || !eval_args(r, n, 0, &c)) return false;
    r->line = n->line;
    return by_jtest_call(r, n->builtin, v, &c.args);
}

static struct by_jval eval_items(struct by_jrun *r, const struct by_jnode *n, enum by_jtype type) {
    struct by_jval out = by_jval_list(r, type, n->kids.n);
    for (uint32_t i = 0; i < n->kids.n && !r->code; i++) {
        struct by_jval one = by_jeval(r, n->kids.at[i]);
        if (!r->code) by_jval_push(r, out.list, one);
    }
    return out;
}

static struct by_jval eval_dict(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval out = by_jval_dict(r, BY_J_DICT);
    for (uint32_t i = 0; i + 1 < n->kids.n && !r->code; i += 2) {
        struct by_jval key = by_jeval(r, n->kids.at[i]), val = by_jeval(r, n->kids.at[i + 1]);
        if (!r->code && !by_jval_put(r, out.dict, key, val)) break;
    }
    return out;
}

static struct by_jval eval_item(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval obj = by_jeval(r, n->a);
    if (n->b->kind != BY_JK_SLICE) {
        struct by_jval key = by_jeval(r, n->b);
        return r->code ? (struct by_jval){0} : by_jops_item(r, &obj, &key);
    }
    const struct by_jnode *nodes[3] = {n->b->a, n->b->b, n->b->c};
    struct by_jval part[3];
    for (int i = 0; i < 3; i++)
        part[i] = nodes[i] ? by_jeval(r, nodes[i]) : by_jval_none();
    return r->code ? (struct by_jval){0} : by_jops_slice(r, &obj, part);
}

static struct by_jval eval_concat(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jbuild *b = by_jrun_build(r);
    if (!b) return (struct by_jval){0};
    for (uint32_t i = 0; i < n->kids.n && !r->code; i++) {
        struct by_jval one = by_jeval(r, n->kids.at[i]);
        if (!r->code) by_jtext_str(r, b, &one);
    }
    return by_jrun_built(r, b);
}

static inline bool compare(struct by_jrun *r, enum by_jcmp op, const struct by_jval *a,
                           const struct by_jval *b) {
    if (op == BY_JCMP_EQ && a->type == BY_J_STR && b->type == BY_J_STR && a->n < 64)
        return by_jval_same(a, b);
    return by_jops_compare(r, op, a, b);
}

static bool eval_chain(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval room[2];
    const struct by_jval *left = by_jeval_operand(r, n->a, &room[0]);
    for (uint32_t i = 0; i < n->kids.n && !r->code; i++) {
        const struct by_jval *right = by_jeval_operand(r, n->kids.at[i]->b, &room[~i & 1]);
        if (r->code) break;
        r->line = n->line;
        if (!compare(r, (enum by_jcmp)n->kids.at[i]->op, left, right)) return false;
        left = right;
    }
    return true;
}

/* a < b, or a < b < c … */
static inline bool eval_compare(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval room[2];
    const struct by_jval *found = n->b ? by_jeval_member(r, n->a) : NULL;
    if (found && found->type == BY_J_STR && n->b->val.n < 64)
        return by_jval_same(found, &n->b->val);
    if (n->kids.n > 1) return eval_chain(r, n);
    const struct by_jnode *last = n->kids.at[0];
    const struct by_jval *left = by_jeval_operand(r, n->a, &room[0]),
                         *right = by_jeval_operand(r, last->b, &room[1]);
    if (r->code) return false;
    r->line = n->line;
    return compare(r, (enum by_jcmp)last->op, left, right);
}

static struct by_jval eval_logic(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval left = by_jeval(r, n->a);
    if (r->code) return left;
    bool is_true = by_jops_truth(&left);
    return is_true == (n->kind == BY_JK_AND) ? by_jeval(r, n->b) : left;
}

static struct by_jval eval_cond(struct by_jrun *r, const struct by_jnode *n) {
    bool test = by_jeval_is_true(r, n->b);
    if (r->code) return (struct by_jval){0};
    if (test) return by_jeval(r, n->a);
    if (n->c) return by_jeval(r, n->c);
    return by_jval_undefined(
        r,
        "the inline if-expression on line %u evaluated to false and no else section was defined.",
        n->line);
}

static struct by_jval eval_unary(struct by_jrun *r, const struct by_jnode *n) {
    if (n->kind == BY_JK_NOT) return by_jval_bool(!by_jeval_is_true(r, n->a));
    struct by_jval v = by_jeval(r, n->a);
    if (r->code) return v;
    return by_jops_negate(r, &v, n->kind == BY_JK_POS);
}

static struct by_jval eval_binary(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval a = by_jeval(r, n->a), b = by_jeval(r, n->b);
    if (r->code) return a;
    r->line = n->line;
    return by_jops_binary(r, (enum by_jop)n->op, &a, &b);
}

/* eval and its truth, without the value in between where it is a bool anyway. */
bool by_jeval_is_true(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval room;
    /* the most by far */
    if (n->kind == BY_JK_COMPARE) return by_jrun_step(r) && eval_compare(r, n);
    switch (n->kind) {
    case BY_JK_TEST:
        return by_jrun_step(r) && eval_test(r, n);
    case BY_JK_NOT:
        return by_jrun_step(r) && !by_jeval_is_true(r, n->a);
    case BY_JK_AND:
        return by_jrun_step(r) && by_jeval_is_true(r, n->a) && by_jeval_is_true(r, n->b);
    case BY_JK_OR:
        return by_jrun_step(r) && (by_jeval_is_true(r, n->a) || by_jeval_is_true(r, n->b));
    default:
        return by_jops_truth(by_jeval_operand(r, n, &room));
    }
}

/* Texts are kept apart until the end, so that each byte is copied once. */
struct by_jval by_jeval_sum(struct by_jrun *r, const struct by_jnode *n, struct by_jval first) {
    enum { PARTS = 12 };
    struct by_jval part[PARTS], next;
    uint32_t n_parts = 1; /* more than one: all are str */
    part[0] = first;
    for (uint32_t i = 1; i < n->kids.n; i++) {
        next = by_jeval(r, n->kids.at[i]);
        if (r->code) return (struct by_jval){0};
        bool is_text = part[n_parts - 1].type == BY_J_STR && next.type == BY_J_STR;
        r->line = n->line;
        if (n_parts > 1 && (!is_text || n_parts == PARTS)) {
            part[0] = by_jrun_join(r, part, n_parts);
            n_parts = 1;
        }
        if (is_text)
            part[n_parts++] = next;
        else
            part[0] = by_jops_binary(r, BY_JOP_ADD, &part[0], &next);
    }
    return n_parts > 1 ? by_jrun_join(r, part, n_parts) : part[0];
}

struct by_jval by_jeval(struct by_jrun *r, const struct by_jnode *n) {
    struct by_jval room = {0};
    if (n->kind == BY_JK_NAMED || n->kind == BY_JK_ATTR) return *member(r, n, &room);
    if (!by_jrun_step(r)) return room;
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
    case BY_JK_ITEM:
        return eval_item(r, n);
    case BY_JK_CALL:
        return by_jeval_call(r, n, NULL);
    case BY_JK_FILTER:
        return by_jeval_filter(r, n, NULL);
    case BY_JK_TEST:
        return by_jval_bool(eval_test(r, n));
    case BY_JK_NOT:
    case BY_JK_NEG:
    case BY_JK_POS:
        return eval_unary(r, n);
    case BY_JK_AND:
    case BY_JK_OR:
        return eval_logic(r, n);
    case BY_JK_BINARY:
        return eval_binary(r, n);
    case BY_JK_SUM:
        return by_jeval_sum(r, n, by_jeval(r, n->kids.at[0]));
    case BY_JK_CONCAT:
        return eval_concat(r, n);
    case BY_JK_COMPARE:
        return by_jval_bool(eval_compare(r, n));
    case BY_JK_COND:
        return eval_cond(r, n);
    default:
        return by_jrun_fail(r, BY_EINTERNAL, "a statement stands where an expression belongs");
    }
}
