/* jeval.h - what an expression of a parsed template is worth.
 *
 *     scopes:  globals [name number -> value]  ◀─ macro's scope ◀─ loop's scope   (assignments go to the innermost)
 *
 *     message['role'] == 'user'      by_jeval_operand finds both sides where they lie: nothing is copied
 *
 * Always: every node but constants and variables costs a step of the budget; the first failure ends the run, after it
 * values mean nothing. An expression assigns to no variable but those of macros that it calls.
 * Owner: the run. */
#ifndef COMMON_TEMPLATE_JEVAL_H
#define COMMON_TEMPLATE_JEVAL_H

#include "common/template/jast.h"

struct by_jbinding {
    uint32_t name;
    struct by_jval val;
};

struct by_jscope {
    struct by_jscope *parent;
    struct by_jbinding *at;
    uint32_t n, cap;
};

/* What was assigned to it; NULL: nothing. Valid until the next assignment. */
static inline const struct by_jval *by_jeval_find(const struct by_jrun *r, uint32_t name) {
    for (const struct by_jscope *s = r->scope; s; s = s->parent) {
        for (uint32_t i = 0; i < s->n; i++) {
            if (s->at[i].name == name) return &s->at[i].val;
        }
    }
    return r->globals[name].type != BY_J_ABSENT ? &r->globals[name] : NULL;
}

struct by_jval by_jeval(struct by_jrun *r, const struct by_jnode *n);
/* by_jeval and its truth, without the value in between where that is a bool anyway. */
bool by_jeval_is_true(struct by_jrun *r, const struct by_jnode *n);
const struct by_jval *by_jeval_operand_of(struct by_jrun *r, const struct by_jnode *n,
                                          struct by_jval *room);
/* message['role'] of a variable that holds a dict: what most of a template consists of. NULL: anything else. */
static inline const struct by_jval *by_jeval_member(struct by_jrun *r, const struct by_jnode *n) {
    const struct by_jval *of = by_jeval_find(r, n->a->name);
    if (!of || of->type != BY_J_DICT || of->dict->index || r->steps_left <= 0) return NULL;
    const struct by_jval *found = by_jval_get_str(r, of->dict, &n->val);
    r->steps_left -= found != NULL;
    return found;
}
/* The value of n where it lies: a constant, a variable, what a dict holds, none of which changes while an expression is
 * computed. Else it is computed into *room. */
static inline const struct by_jval *by_jeval_operand(struct by_jrun *r, const struct by_jnode *n,
                                                     struct by_jval *room) {
    const struct by_jval *v = NULL;
    if (n->kind == BY_JK_CONST) return &n->val;
    if (n->kind == BY_JK_NAME)
        v = by_jeval_find(r, n->name);
    else if (n->is_member)
        v = by_jeval_member(r, n);
    return v ? v : by_jeval_operand_of(r, n, room);
}

/* n's kids added up; first is the value of kid 0. */
struct by_jval by_jeval_sum(struct by_jrun *r, const struct by_jnode *n, struct by_jval first);
/* n, a CALL; caller (may be NULL): an argument of that name. */
struct by_jval by_jeval_call(struct by_jrun *r, const struct by_jnode *n,
                             const struct by_jval *caller);
/* n, a chain of FILTERs, over what it names, or over piped where it names nothing. */
struct by_jval by_jeval_filter(struct by_jrun *r, const struct by_jnode *n,
                               const struct by_jval *piped);

#endif
