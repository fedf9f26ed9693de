/* jparse.h - tokens into a tree; what is not supported is refused here, by name and line.
 *
 *     jparse.c     statements: {% for %} {% if %} {% set %} …
 *     jexpr.c      expressions, loosest binding first: cond ▷ or ▷ and ▷ not ▷ compare ▷ + - ▷ ~ ▷ * / // % ▷ ** ▷ operand
 *     joperand.c   unary ▷ literals, names, lists, brackets ▷ . [] () | is
 *
 * Always: nested deeper than BY_JAST_DEPTH_MAX is an error, so that neither parser nor evaluator can run out of stack.
 * After the first error everything returns NULL and `rc` is set.
 * Owner: one thread while parsing; the tree belongs to the program. */
#ifndef COMMON_TEMPLATE_JPARSE_H
#define COMMON_TEMPLATE_JPARSE_H

#include "common/template/jast.h"
#include "common/template/jlex.h"

struct by_jparse {
    struct by_jprog *prog;
    const struct by_jtok *tok; /* the current one; the list ends with EOF, which stays current */
    struct by_err *err;
    int rc;
    uint32_t depth;
    uint32_t n_loops;       /* enclosing for loops: break and continue need one */
    struct by_jnode *macro; /* the macro being parsed, if any */
};

BY_MUST_USE int by_jparse(struct by_jprog *prog, struct by_str source, struct by_err *err);

/* jparse.c, for all three */
BY_PRINTF(3, 4)
struct by_jnode *by_jparse_fail(struct by_jparse *p, int code, const char *fmt, ...);
struct by_jnode *by_jparse_node(struct by_jparse *p, enum by_jkind kind); /* at the current line */
/* Sets the depth from the children; NULL past the limit. Every node goes through it once it is complete. */
struct by_jnode *by_jparse_done(struct by_jparse *p, struct by_jnode *n);
/* NULL without a, or without b: that failure is noted. */
struct by_jnode *by_jparse_two(struct by_jparse *p, enum by_jkind kind, struct by_jnode *a,
                               struct by_jnode *b);
struct by_jnode *by_jparse_one(struct by_jparse *p, enum by_jkind kind, struct by_jnode *a);
struct by_jnode *by_jparse_constant(struct by_jparse *p, struct by_jval v);
bool by_jparse_is_text(const struct by_jnode *n);           /* a constant that is a str */
struct by_jnode *by_jparse_unexpected(struct by_jparse *p); /* the current token; NULL */
void by_jparse_kid(struct by_jparse *p, struct by_jnodes *kids, struct by_jnode *n);
/* one more, empty */
struct by_jnamed *by_jparse_named(struct by_jparse *p, struct by_jnameds *list);
uint32_t by_jparse_name(struct by_jparse *p, struct by_str name);
void by_jparse_next(struct by_jparse *p);
bool by_jparse_is_op(const struct by_jparse *p, const char *op);
bool by_jparse_is_name(const struct by_jparse *p, const char *name);
bool by_jparse_take_op(struct by_jparse *p, const char *op);
bool by_jparse_take_name(struct by_jparse *p, const char *name);
void by_jparse_need_op(struct by_jparse *p, const char *op);

/* jexpr.c */
struct by_jnode *by_jparse_expr(struct by_jparse *p);
/* a, b, c without brackets; one expression alone is itself. with_cond: may `x if y else z` stand there? */
struct by_jnode *by_jparse_tuple(struct by_jparse *p, bool with_cond);
/* What may be assigned to: a name, a tuple of them, or (with_ns) name.attr. */
struct by_jnode *by_jparse_target(struct by_jparse *p, bool with_ns);

/* joperand.c */
struct by_jnode *by_jparse_operand(struct by_jparse *p);
/* |f(x)|g on top of n; is_inline: the first filter stands without | ({% filter f|g %}). */
struct by_jnode *by_jparse_filters(struct by_jparse *p, struct by_jnode *n, bool is_inline);

#endif
