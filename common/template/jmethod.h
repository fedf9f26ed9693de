/* jmethod.h - attributes of values: the methods of list and dict (jstr.h has those of str), and what a loop and a namespace show.
 *
 *     "a,b".split(",")   message.get("name")   loop.index0   ns.found
 *
 * Always: methods that would change a list or dict (append, update …) are refused as transformers' sandbox does.
 * Owner: the run; the tables are constant. */
#ifndef COMMON_TEMPLATE_JMETHOD_H
#define COMMON_TEMPLATE_JMETHOD_H

#include "common/template/jfunc.h"

/* The state of one for loop, seen as `loop`. */
struct by_jloop {
    const struct by_jlist *items;
    uint32_t at;      /* of the current one */
    uint32_t nesting; /* loops around it */
    /* loop.changed: the arguments of the call before; ABSENT before the first */
    struct by_jval last_seen;
};

/* A row of the tables. */
struct by_jmethod {
    const char *name;
    const char *params; /* "sep maxsplit" */
    uint32_t n_need;
    struct by_jval (*call)(struct by_jrun *r, struct by_jval self,
                           const struct by_jval args[BY_JFUNC_PARAMS_MAX]);
};

/* What a name is to the types that have attributes; found once where the template spells it out. */
struct by_jattr {
    const struct by_jmethod *str, *dict, *list;
    uint8_t loop; /* which member of `loop`; 0: none */
    /* of a dict, of a list, of any: the sandbox keeps it */
    bool is_dict_unsafe, is_list_unsafe, is_unsafe;
};
/* Fills a and returns it; NULL: to every type it is an item at most. */
const struct by_jattr *by_jmethod_find(struct by_jattr *a, struct by_str name);

/* The attribute, or ABSENT when obj has none of that name (it may still be an item). */
struct by_jval by_jmethod_attr(struct by_jrun *r, const struct by_jval *obj,
                               const struct by_jval *name, const struct by_jattr *attr);
/* obj's method of that name, NULL if it has none, and its call: obj.name(args) without a function in between. */
const struct by_jmethod *by_jmethod_of(const struct by_jattr *a, const struct by_jval *obj);
struct by_jval by_jmethod_call(struct by_jrun *r, const struct by_jmethod *m, struct by_jval self,
                               const struct by_jargs *args);
/* a method of Python's that we know and do not have */
bool by_jmethod_is_refused(struct by_str name);

/* list of (key, value) */
struct by_jval by_jmethod_items(struct by_jrun *r, const struct by_jdict *d);

#endif
