/* jast.h - a parsed template: one tree of nodes, made once, read by every run.
 *
 *     {% if x %}a{{ y|trim }}{% endif %}        IF
 *                                               └ BRANCH a: NAME x   kids: TEXT "a", OUTPUT
 *                                                                                    └ a: FILTER trim, a: NAME y
 *
 * Names are numbers: the outermost scope is an array over them, inner scopes are short lists of (number, value).
 * Always: nothing in it changes after parsing, so any number of threads may run it. A node's depth is one more than
 * its deepest child's and at most BY_JAST_DEPTH_MAX, which bounds the evaluator's own recursion.
 * Owner: the program; nodes, names and text lie in its arena. */
#ifndef COMMON_TEMPLATE_JAST_H
#define COMMON_TEMPLATE_JAST_H

#include "common/base/map.h"
#include "common/template/jval.h"

enum {
    BY_JAST_DEPTH_MAX = 200,
    BY_JAST_SOURCE_MAX = 1024 * 1024, /* bytes of a template */
    BY_JAST_ARGS_MAX = 255,
};

enum by_jkind {
    /* expressions */
    BY_JK_CONST,  /* val */
    BY_JK_NAME,   /* name */
    BY_JK_LIST,   /* kids */
    BY_JK_TUPLE,  /* kids */
    BY_JK_DICT,   /* kids: key, value, key, value … */
    BY_JK_ATTR,   /* a.val */
    BY_JK_NAMED,  /* a[val], val a text */
    BY_JK_ITEM,   /* a[b] */
    BY_JK_SLICE,  /* a:b:c, each may be NULL. Only as b of ITEM */
    BY_JK_CALL,   /* a(args) */
    BY_JK_FILTER, /* a|builtin(args); a is NULL in a filter block */
    BY_JK_TEST,   /* a is builtin(args) */
    BY_JK_NOT,
    BY_JK_NEG,
    BY_JK_POS,
    BY_JK_AND,
    BY_JK_OR,
    BY_JK_BINARY, /* a op b */
    BY_JK_SUM,    /* kids with + between them; texts that stand side by side are one already */
    BY_JK_CONCAT, /* kids joined with ~ */
    /* a, then kids of COMPARE with op and b: a < b < c. Its own b: a is_member, there is one kid, == and this text */
    BY_JK_COMPARE,
    BY_JK_COND, /* a if b else c; c may be NULL */
    /* statements */
    BY_JK_TEXT,         /* val */
    BY_JK_OUTPUT,       /* a */
    BY_JK_IF,           /* kids: BRANCH; the last one's a is NULL for else */
    BY_JK_BRANCH,       /* a, kids */
    BY_JK_FOR,          /* target a, over b, if c; kids; orelse */
    BY_JK_SET,          /* target a = b */
    BY_JK_SET_BLOCK,    /* target a, filter chain b or NULL, kids */
    BY_JK_NSREF,        /* target only: name.val */
    BY_JK_MACRO,        /* name, params, kids */
    BY_JK_CALL_BLOCK,   /* call a, with this node as the caller macro: params, kids */
    BY_JK_FILTER_BLOCK, /* chain a, kids */
    BY_JK_WITH,         /* params: targets and values; kids */
    BY_JK_SCOPE,        /* {% generation %}: kids */
    BY_JK_BREAK,
    BY_JK_CONTINUE,
};

enum by_jop {
    BY_JOP_ADD,
    BY_JOP_SUB,
    BY_JOP_MUL,
    BY_JOP_DIV,
    BY_JOP_FLOORDIV,
    BY_JOP_MOD,
    BY_JOP_POW
};
enum by_jcmp {
    BY_JCMP_EQ,
    BY_JCMP_NE,
    BY_JCMP_LT,
    BY_JCMP_LE,
    BY_JCMP_GT,
    BY_JCMP_GE,
    BY_JCMP_IN,
    BY_JCMP_NOT_IN
};

struct by_jnode;
struct by_jnodes {
    struct by_jnode **at;
    uint32_t n, cap;
};
struct by_jnamed { /* name=value in a call, a parameter with its default, a target of `with` */
    struct by_jval name;
    uint32_t id;
    struct by_jnode *target; /* with: what is set */
    struct by_jnode *value;  /* NULL: no default */
};
struct by_jnameds {
    struct by_jnamed *at;
    uint32_t n, cap;
};

struct by_jnode {
    uint8_t kind;                                /* enum by_jkind */
    uint8_t op;                                  /* BINARY: enum by_jop; COMPARE: enum by_jcmp */
    bool uses_caller, uses_varargs, uses_kwargs; /* MACRO, CALL_BLOCK */
    bool is_member; /* ATTR, NAMED: of a NAME, and what a dict holds comes before any method */
    uint16_t depth;
    uint32_t line;
    uint32_t name;
    struct by_jval val;
    struct by_jnode *a, *b, *c;
    struct by_jnodes kids, orelse; /* orelse: of FOR; positional arguments of CALL, FILTER, TEST */
    struct by_jnameds params;      /* also the keyword arguments of CALL, FILTER, TEST */
    /* FILTER: struct by_jfilter. TEST: struct by_jtest. ATTR, NAMED: struct by_jattr or NULL */
    const void *builtin;
};

struct by_jfunc;
struct by_jprog {
    struct by_arena arena;
    struct by_jnodes body;
    struct by_strmap names; /* name -> number */
    struct by_str *name_of;
    uint32_t n_names, names_cap;
    /* [n_names] what a name is that nothing was assigned to; NULL: undefined */
    const struct by_jfunc **func_of;
    uint32_t loop_name; /* the number of `loop`; n_names if nobody asks for it */
    bool has_generation;
};

#endif
