/* jexpr.c - operators, the loosest last; and what may be assigned to. */
#include "common/template/jparse.h"

static struct by_jnode *parse_or(struct by_jparse *p);

static struct by_jnode *binary(struct by_jparse *p, enum by_jop op, struct by_jnode *a,
                               struct by_jnode *b) {
    struct by_jnode *n = by_jparse_two(p, BY_JK_BINARY, a, b);
    if (n) n->op = op;
    return n;
}

static struct by_jnode *parse_pow(struct by_jparse *p) {
    struct by_jnode *n = by_jparse_operand(p);
    while (n && by_jparse_take_op(p, "**"))
        n = binary(p, BY_JOP_POW, n, by_jparse_operand(p));
    return n;
}

static struct by_jnode *parse_product(struct by_jparse *p) {
    static const struct {
        const char *text;
        enum by_jop op;
    } ops[] = {{"*", BY_JOP_MUL}, {"/", BY_JOP_DIV}, {"//", BY_JOP_FLOORDIV}, {"%", BY_JOP_MOD}};
    struct by_jnode *n = parse_pow(p);
    for (size_t i = 0; n && i < BY_COUNTOF(ops); i++)
        if (by_jparse_take_op(p, ops[i].text)) {
            n = binary(p, ops[i].op, n, parse_pow(p));
            i = (size_t)-1; /* look again from the first */
        }
    return n;
}

static struct by_jnode *parse_concat(struct by_jparse *p) {
    struct by_jnode *first = parse_product(p);
    if (!first || !by_jparse_is_op(p, "~")) return first;
    struct by_jnode *n = by_jparse_node(p, BY_JK_CONCAT);
    by_jparse_kid(p, &n->kids, first);
    while (!p->rc && by_jparse_take_op(p, "~"))
        by_jparse_kid(p, &n->kids, parse_product(p));
    return by_jparse_done(p, n);
}

/* Texts side by side become one: x + 'a' + 'b' is x + 'ab' for every x that 'a' can be added to. */
static void join_texts(struct by_jparse *p, struct by_jnodes *kids) {
    uint32_t n = 0;
    for (uint32_t i = 0, end; i < kids->n; i = end) {
        size_t bytes = 0, at = 0;
        for (end = i; end < kids->n && by_jparse_is_text(kids->at[end]); end++)
            bytes += kids->at[end]->val.n;
        if (end < i + 2) {
            kids->at[n++] = kids->at[i];
            end = i + 1;
            continue;
        }
        char *all = by_arena_get(&p->prog->arena, bytes + 1);
        for (uint32_t k = i; k < end; at += kids->at[k++]->val.n)
            memcpy(all + at, kids->at[k]->val.s, kids->at[k]->val.n);
        kids->at[n++] = by_jparse_constant(p, by_jval_str((struct by_str){all, bytes}, false));
    }
    kids->n = n;
}

/* first + b + c …, as one node. */
static struct by_jnode *parse_additions(struct by_jparse *p, struct by_jnode *first) {
    struct by_jnode *n = first->kind == BY_JK_SUM ? first : by_jparse_node(p, BY_JK_SUM);
    n->line = first->line;
    if (n != first) by_jparse_kid(p, &n->kids, first);
    while (!p->rc && by_jparse_take_op(p, "+"))
        by_jparse_kid(p, &n->kids, parse_concat(p));
    if (p->rc) return NULL;
    join_texts(p, &n->kids);
    return n->kids.n == 1 ? n->kids.at[0] : by_jparse_done(p, n);
}

static struct by_jnode *parse_sum(struct by_jparse *p) {
    struct by_jnode *n = parse_concat(p);
    while (n && !p->rc) {
        if (by_jparse_is_op(p, "+"))
            n = parse_additions(p, n);
        else if (by_jparse_take_op(p, "-"))
            n = binary(p, BY_JOP_SUB, n, parse_concat(p));
        else
            break;
    }
    return n;
}

/* The comparison at the current token, taken; -1: there is none. */
static int take_comparison(struct by_jparse *p) {
    static const char *const ops[] = {
        [BY_JCMP_EQ] = "==", [BY_JCMP_NE] = "!=", [BY_JCMP_LT] = "<",
        [BY_JCMP_LE] = "<=", [BY_JCMP_GT] = ">",  [BY_JCMP_GE] = ">="};
    for (int i = 0; i < (int)BY_COUNTOF(ops); i++)
        if (by_jparse_take_op(p, ops[i])) return i;
    if (by_jparse_take_name(p, "in")) return BY_JCMP_IN;
    const struct by_jtok *after = p->tok + 1;
    if (by_jparse_is_name(p, "not") && after->type == BY_JTOK_NAME &&
        by_str_eqz(after->text, "in")) {
        by_jparse_next(p);
        by_jparse_next(p);
        return BY_JCMP_NOT_IN;
    }
    return -1;
}

/* message['role'] == 'user' is known by its b. */
static struct by_jnode *done_compare(struct by_jparse *p, struct by_jnode *n) {
    if (!by_jparse_done(p, n)) return NULL;
    struct by_jnode *only = n->kids.n == 1 && n->a->is_member ? n->kids.at[0] : NULL;
    if (only && only->op == BY_JCMP_EQ && by_jparse_is_text(only->b)) n->b = only->b;
    return n;
}

static struct by_jnode *parse_compare(struct by_jparse *p) {
    struct by_jnode *first = parse_sum(p), *n = NULL;
    while (first && !p->rc) {
        int op = take_comparison(p);
        if (op < 0) break;
        if (!n) {
            n = by_jparse_node(p, BY_JK_COMPARE);
            n->a = first;
        }
        struct by_jnode *operand = by_jparse_node(p, BY_JK_COMPARE);
        operand->op = (uint8_t)op;
        operand->b = parse_sum(p);
        by_jparse_kid(p, &n->kids, operand->b ? by_jparse_done(p, operand) : NULL);
    }
    return n ? done_compare(p, n) : first;
}

static struct by_jnode *parse_not(struct by_jparse *p) {
    uint32_t n_nots = 0;
    while (by_jparse_take_name(p, "not"))
        n_nots++;
    struct by_jnode *n = parse_compare(p);
    while (n && n_nots-- > 0)
        n = by_jparse_one(p, BY_JK_NOT, n);
    return n;
}

static struct by_jnode *parse_and(struct by_jparse *p) {
    struct by_jnode *n = parse_not(p);
    while (n && by_jparse_take_name(p, "and"))
        n = by_jparse_two(p, BY_JK_AND, n, parse_not(p));
    return n;
}

static struct by_jnode *parse_or(struct by_jparse *p) {
    struct by_jnode *n = parse_and(p);
    while (n && by_jparse_take_name(p, "or"))
        n = by_jparse_two(p, BY_JK_OR, n, parse_and(p));
    return n;
}

/* a if b else c; the else part is a conditional itself, so the recursion is counted. */
struct by_jnode *by_jparse_expr(struct by_jparse *p) {
    if (p->rc) return NULL;
    if (++p->depth > BY_JAST_DEPTH_MAX) return by_jparse_fail(p, BY_ELIMIT, "nested too deep");
    struct by_jnode *n = parse_or(p);
    while (n && by_jparse_take_name(p, "if")) {
        struct by_jnode *cond = by_jparse_node(p, BY_JK_COND);
        cond->a = n;
        cond->b = parse_or(p);
        if (!p->rc && by_jparse_take_name(p, "else")) cond->c = by_jparse_expr(p);
        n = by_jparse_done(p, cond);
    }
    p->depth--;
    return p->rc ? NULL : n;
}

static bool ends_tuple(const struct by_jparse *p) {
    return p->tok->type == BY_JTOK_VAR_END || p->tok->type == BY_JTOK_BLOCK_END ||
           by_jparse_is_op(p, ")");
}

struct by_jnode *by_jparse_tuple(struct by_jparse *p, bool with_cond) {
    struct by_jnode *n = with_cond ? by_jparse_expr(p) : parse_or(p);
    if (!n || !by_jparse_is_op(p, ",")) return n;
    struct by_jnode *tuple = by_jparse_node(p, BY_JK_TUPLE);
    by_jparse_kid(p, &tuple->kids, n);
    while (!p->rc && by_jparse_take_op(p, ",") && !ends_tuple(p))
        by_jparse_kid(p, &tuple->kids, with_cond ? by_jparse_expr(p) : parse_or(p));
    return by_jparse_done(p, tuple);
}

static struct by_jnode *parse_target_one(struct by_jparse *p, bool with_ns) {
    static const char *const words[] = {"true", "True", "false", "False", "none", "None"};
    if (by_jparse_take_op(p, "(")) {
        struct by_jnode *n = by_jparse_target(p, with_ns);
        by_jparse_need_op(p, ")");
        return n;
    }
    if (p->tok->type != BY_JTOK_NAME) return by_jparse_unexpected(p);
    for (size_t i = 0; i < BY_COUNTOF(words); i++)
        if (by_jparse_is_name(p, words[i]))
            return by_jparse_fail(p, BY_EFORMAT, "cannot assign to '%s'", words[i]);
    struct by_jnode *n = by_jparse_node(p, BY_JK_NAME);
    n->name = by_jparse_name(p, p->tok->text);
    by_jparse_next(p);
    if (with_ns && by_jparse_take_op(p, ".")) {
        n->kind = BY_JK_NSREF;
        if (p->tok->type != BY_JTOK_NAME) return by_jparse_unexpected(p);
        n->val = by_jval_str(p->tok->text, false);
        by_jparse_next(p);
    }
    return by_jparse_done(p, n);
}

struct by_jnode *by_jparse_target(struct by_jparse *p, bool with_ns) {
    if (p->rc) return NULL;
    if (++p->depth > BY_JAST_DEPTH_MAX) return by_jparse_fail(p, BY_ELIMIT, "nested too deep");
    struct by_jnode *n = parse_target_one(p, with_ns);
    if (n && by_jparse_is_op(p, ",")) {
        struct by_jnode *tuple = by_jparse_node(p, BY_JK_TUPLE);
        by_jparse_kid(p, &tuple->kids, n);
        while (!p->rc && by_jparse_take_op(p, ",") &&
               (p->tok->type == BY_JTOK_NAME || by_jparse_is_op(p, "(")) &&
               !by_jparse_is_name(p, "in"))
            by_jparse_kid(p, &tuple->kids, parse_target_one(p, with_ns));
        n = by_jparse_done(p, tuple);
    }
    p->depth--;
    return p->rc ? NULL : n;
}
