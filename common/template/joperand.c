/* joperand.c - what expressions are made of: a value, and all that stands behind it. */
#include "common/template/jfilter.h"
#include "common/template/jmethod.h"
#include "common/template/jparse.h"
#include "common/template/jtest.h"

#include <errno.h>
#include <stdlib.h>

/* Decimal, or 0x 0o 0b; what does not fit 64 bits is refused. */
static struct by_jnode *parse_int(struct by_jparse *p) {
    struct by_str s = p->tok->text;
    int base = 10;
    if (s.n > 2 && s.p[0] == '0' && (s.p[1] | 32) >= 'a') {
        base = (s.p[1] | 32) == 'x' ? 16 : (s.p[1] | 32) == 'o' ? 8 : 2;
        s = by_str_sub(s, 2, s.n);
    }
    struct by_str z = by_arena_copy(&p->prog->arena, s);
    char *end;
    errno = 0;
    long long v = strtoll(z.p, &end, base);
    if (errno || end != z.p + z.n) return by_jparse_unexpected(p);
    by_jparse_next(p);
    return by_jparse_constant(p, by_jval_int(v));
}

static struct by_jnode *parse_float(struct by_jparse *p) {
    double f = 0;
    if (!by_str_to_f64(p->tok->text, &f)) return by_jparse_unexpected(p);
    by_jparse_next(p);
    return by_jparse_constant(p, by_jval_float(f));
}

/* "a" "b" is one string. */
static struct by_jnode *parse_string(struct by_jparse *p) {
    struct by_str first = p->tok->text;
    by_jparse_next(p);
    if (p->tok->type != BY_JTOK_STRING) return by_jparse_constant(p, by_jval_str(first, false));
    size_t n = first.n;
    for (const struct by_jtok *t = p->tok; t->type == BY_JTOK_STRING; t++)
        n += t->text.n;
    char *all = by_arena_get(&p->prog->arena, n + 1);
    memcpy(all, first.p, first.n);
    n = first.n;
    for (; p->tok->type == BY_JTOK_STRING; by_jparse_next(p)) {
        memcpy(all + n, p->tok->text.p, p->tok->text.n);
        n += p->tok->text.n;
    }
    return by_jparse_constant(p, by_jval_str((struct by_str){all, n}, false));
}

static struct by_jnode *parse_name(struct by_jparse *p) {
    static const struct {
        const char *name;
        struct by_jval val;
    } words[] = {
        {"true", {.type = BY_J_BOOL, .b = true}},
        {"True", {.type = BY_J_BOOL, .b = true}},
        {"false", {.type = BY_J_BOOL}},
        {"False", {.type = BY_J_BOOL}},
        {"none", {.type = BY_J_NONE}},
        {"None", {.type = BY_J_NONE}},
    };
    struct by_str name = p->tok->text;
    by_jparse_next(p);
    for (size_t i = 0; i < BY_COUNTOF(words); i++)
        if (by_str_eqz(name, words[i].name)) return by_jparse_constant(p, words[i].val);
    if (p->macro) {
        p->macro->uses_caller |= by_str_eqz(name, "caller");
        p->macro->uses_varargs |= by_str_eqz(name, "varargs");
        p->macro->uses_kwargs |= by_str_eqz(name, "kwargs");
    }
    struct by_jnode *n = by_jparse_node(p, BY_JK_NAME);
    n->name = by_jparse_name(p, name);
    return by_jparse_done(p, n);
}

static struct by_jnode *parse_list(struct by_jparse *p) {
    struct by_jnode *n = by_jparse_node(p, BY_JK_LIST);
    by_jparse_need_op(p, "[");
    while (!p->rc && !by_jparse_is_op(p, "]")) {
        if (n->kids.n) by_jparse_need_op(p, ",");
        if (by_jparse_is_op(p, "]")) break;
        by_jparse_kid(p, &n->kids, by_jparse_expr(p));
    }
    by_jparse_need_op(p, "]");
    return by_jparse_done(p, n);
}

static struct by_jnode *parse_dict(struct by_jparse *p) {
    struct by_jnode *n = by_jparse_node(p, BY_JK_DICT);
    by_jparse_need_op(p, "{");
    while (!p->rc && !by_jparse_is_op(p, "}")) {
        if (n->kids.n) by_jparse_need_op(p, ",");
        if (by_jparse_is_op(p, "}")) break;
        by_jparse_kid(p, &n->kids, by_jparse_expr(p));
        by_jparse_need_op(p, ":");
        by_jparse_kid(p, &n->kids, by_jparse_expr(p));
    }
    by_jparse_need_op(p, "}");
    return by_jparse_done(p, n);
}

/* Behind "(": a value in brackets, or a tuple; () is the empty tuple. */
static struct by_jnode *parse_parens(struct by_jparse *p) {
    by_jparse_need_op(p, "(");
    struct by_jnode *n;
    if (by_jparse_is_op(p, ")"))
        n = by_jparse_done(p, by_jparse_node(p, BY_JK_TUPLE));
    else
        n = by_jparse_tuple(p, true);
    by_jparse_need_op(p, ")");
    return p->rc ? NULL : n;
}

static struct by_jnode *parse_primary(struct by_jparse *p) {
    switch (p->tok->type) {
    case BY_JTOK_NAME:
        return parse_name(p);
    case BY_JTOK_STRING:
        return parse_string(p);
    case BY_JTOK_INT:
        return parse_int(p);
    case BY_JTOK_FLOAT:
        return parse_float(p);
    default:
        break;
    }
    if (by_jparse_is_op(p, "(")) return parse_parens(p);
    if (by_jparse_is_op(p, "[")) return parse_list(p);
    if (by_jparse_is_op(p, "{")) return parse_dict(p);
    return by_jparse_unexpected(p);
}

/* (a, b, key=c) into n->orelse and n->params. */
static void parse_args(struct by_jparse *p, struct by_jnode *n) {
    by_jparse_need_op(p, "(");
    bool is_first = true;
    while (!p->rc && !by_jparse_is_op(p, ")")) {
        if (!is_first) by_jparse_need_op(p, ",");
        if (by_jparse_is_op(p, ")")) break;
        is_first = false;
        if (by_jparse_is_op(p, "*") || by_jparse_is_op(p, "**")) {
            by_jparse_fail(
                p, BY_EUNSUPPORTED,
                "*args and **kwargs in a call are not supported: write the arguments out");
            return;
        }
        const struct by_jtok *after = p->tok->type == BY_JTOK_NAME ? p->tok + 1 : NULL;
        if (after && after->type == BY_JTOK_OP && by_str_eqz(after->text, "=")) {
            struct by_jnamed *kw = by_jparse_named(p, &n->params);
            kw->name = by_jval_str(p->tok->text, false);
            by_jparse_next(p);
            by_jparse_next(p);
            kw->value = by_jparse_expr(p);
        } else if (n->params.n) {
            by_jparse_fail(p, BY_EFORMAT, "a positional argument stands behind a keyword argument");
        } else {
            by_jparse_kid(p, &n->orelse, by_jparse_expr(p));
        }
        if (n->orelse.n + n->params.n > BY_JAST_ARGS_MAX)
            by_jparse_fail(p, BY_ELIMIT, "a call with too many arguments");
    }
    by_jparse_need_op(p, ")");
}

static struct by_jnode *parse_call(struct by_jparse *p, struct by_jnode *callee) {
    if (!callee) return NULL;
    struct by_jnode *n = by_jparse_node(p, BY_JK_CALL);
    n->a = callee;
    if (callee->kind == BY_JK_ATTR && by_jmethod_is_refused(by_jval_bytes(&callee->val)))
        return by_jparse_fail(p, BY_EUNSUPPORTED, "the method '" BY_STR_FMT "' is not supported",
                              BY_STR_ARG(by_jval_bytes(&callee->val)));
    parse_args(p, n);
    return by_jparse_done(p, n);
}

static struct by_jnode *parse_subscript(struct by_jparse *p) {
    struct by_jnode *start = NULL;
    if (!by_jparse_is_op(p, ":")) {
        start = by_jparse_expr(p);
        if (!by_jparse_is_op(p, ":")) return start;
    }
    struct by_jnode *n = by_jparse_node(p, BY_JK_SLICE), *part[3] = {start, NULL, NULL};
    for (int i = 1; i < 3 && by_jparse_take_op(p, ":"); i++)
        if (!by_jparse_is_op(p, ":") && !by_jparse_is_op(p, "]") && !by_jparse_is_op(p, ",")) {
            part[i] = by_jparse_expr(p);
            if (!part[i]) return NULL;
        }
    n->a = part[0];
    n->b = part[1];
    n->c = part[2];
    return by_jparse_done(p, n);
}

static const struct by_jattr *find_attr(struct by_jparse *p, struct by_str name) {
    struct by_jattr a, *kept;
    if (!by_jmethod_find(&a, name)) return NULL;
    kept = by_arena_get(&p->prog->arena, sizeof *kept);
    *kept = a;
    return kept;
}

static struct by_jnode *parse_dot(struct by_jparse *p, struct by_jnode *of) {
    by_jparse_next(p);
    struct by_jnode *n = by_jparse_node(p, BY_JK_ATTR);
    n->a = of;
    if (p->tok->type == BY_JTOK_INT) { /* a.0 is a[0] */
        n->kind = BY_JK_ITEM;
        n->b = parse_int(p);
        return n->b ? by_jparse_done(p, n) : NULL;
    }
    if (p->tok->type != BY_JTOK_NAME) return by_jparse_unexpected(p);
    n->val = by_jval_str(p->tok->text, false);
    n->builtin = find_attr(p, p->tok->text);
    n->is_member = of->kind == BY_JK_NAME && !n->builtin;
    by_jparse_next(p);
    return by_jparse_done(p, n);
}

static struct by_jnode *parse_item(struct by_jparse *p, struct by_jnode *of,
                                   struct by_jnode *index) {
    if (!index || !by_jparse_is_text(index)) return by_jparse_two(p, BY_JK_ITEM, of, index);
    struct by_jnode *n = by_jparse_one(p, BY_JK_NAMED, of);
    if (!n) return NULL;
    n->val = index->val;
    n->builtin = find_attr(p, by_jval_bytes(&index->val));
    n->is_member = of->kind == BY_JK_NAME;
    return n;
}

static struct by_jnode *parse_postfix(struct by_jparse *p, struct by_jnode *n) {
    while (n && !p->rc) {
        if (by_jparse_is_op(p, ".")) {
            n = parse_dot(p, n);
        } else if (by_jparse_take_op(p, "[")) {
            struct by_jnode *index = parse_subscript(p);
            if (by_jparse_is_op(p, ","))
                return by_jparse_fail(p, BY_EUNSUPPORTED,
                                      "a subscript with a comma is not supported");
            by_jparse_need_op(p, "]");
            n = parse_item(p, n, index);
        } else if (by_jparse_is_op(p, "(")) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    return p->rc ? NULL : n;
}

/* `of is [not] name [argument]` */
static struct by_jnode *parse_test(struct by_jparse *p, struct by_jnode *of) {
    by_jparse_next(p);
    bool is_negated = by_jparse_take_name(p, "not");
    struct by_jnode *n = by_jparse_node(p, BY_JK_TEST);
    n->a = of;
    if (p->tok->type != BY_JTOK_NAME) return by_jparse_unexpected(p);
    n->builtin = by_jtest_find(p->tok->text);
    if (!n->builtin)
        return by_jparse_fail(p, BY_EUNSUPPORTED, "the test '" BY_STR_FMT "' is not supported",
                              BY_STR_ARG(p->tok->text));
    by_jparse_next(p);
    bool is_operand = p->tok->type == BY_JTOK_NAME || p->tok->type == BY_JTOK_STRING ||
                      p->tok->type == BY_JTOK_INT || p->tok->type == BY_JTOK_FLOAT ||
                      by_jparse_is_op(p, "[") || by_jparse_is_op(p, "{");
    bool is_word =
        by_jparse_is_name(p, "else") || by_jparse_is_name(p, "or") || by_jparse_is_name(p, "and");
    if (by_jparse_is_name(p, "is"))
        return by_jparse_fail(p, BY_EFORMAT, "tests cannot be chained with is");
    if (by_jparse_is_op(p, "("))
        parse_args(p, n);
    else if (is_operand && !is_word)
        by_jparse_kid(p, &n->orelse, parse_postfix(p, parse_primary(p)));
    n = by_jparse_done(p, n);
    return is_negated ? by_jparse_one(p, BY_JK_NOT, n) : n;
}

struct by_jnode *by_jparse_filters(struct by_jparse *p, struct by_jnode *n, bool is_inline) {
    while (!p->rc && (is_inline || by_jparse_is_op(p, "|"))) {
        if (!is_inline) by_jparse_next(p);
        is_inline = false;
        struct by_jnode *f = by_jparse_node(p, BY_JK_FILTER);
        f->a = n;
        if (p->tok->type != BY_JTOK_NAME) return by_jparse_unexpected(p);
        f->builtin = by_jfilter_find(p->tok->text);
        if (!f->builtin)
            return by_jparse_fail(p, BY_EUNSUPPORTED,
                                  "the filter '" BY_STR_FMT "' is not supported",
                                  BY_STR_ARG(p->tok->text));
        by_jparse_next(p);
        if (by_jparse_is_op(p, "(")) parse_args(p, f);
        n = by_jparse_done(p, f);
    }
    return p->rc ? NULL : n;
}

static struct by_jnode *parse_unary(struct by_jparse *p, bool with_filters) {
    if (p->rc) return NULL;
    if (++p->depth > BY_JAST_DEPTH_MAX) return by_jparse_fail(p, BY_ELIMIT, "nested too deep");
    struct by_jnode *n;
    if (by_jparse_take_op(p, "-"))
        n = by_jparse_one(p, BY_JK_NEG, parse_unary(p, false));
    else if (by_jparse_take_op(p, "+"))
        n = by_jparse_one(p, BY_JK_POS, parse_unary(p, false));
    else
        n = parse_primary(p);
    n = parse_postfix(p, n);
    while (with_filters && n && !p->rc) {
        if (by_jparse_is_op(p, "|"))
            n = by_jparse_filters(p, n, false);
        else if (by_jparse_is_name(p, "is"))
            n = parse_test(p, n);
        else if (by_jparse_is_op(p, "("))
            n = parse_call(p, n);
        else
            break;
    }
    p->depth--;
    return p->rc ? NULL : n;
}

struct by_jnode *by_jparse_operand(struct by_jparse *p) {
    return parse_unary(p, true);
}
