/* jtest.h - what may stand behind `is`: defined, string, mapping, odd …
 *
 *     message.content is string      x is not none      n is divisibleby 3
 *
 * Always: the table is constant; a name not in it is refused when the template is parsed.
 * Owner: nobody. */
#ifndef COMMON_TEMPLATE_JTEST_H
#define COMMON_TEMPLATE_JTEST_H

#include "common/template/jfunc.h"

struct by_jtest {
    const char *name;
    uint32_t n_args; /* beside the value itself */
    bool (*test)(struct by_jrun *r, const struct by_jval *v, const struct by_jval *arg);
};

const struct by_jtest *by_jtest_find(struct by_str name); /* NULL: there is none */
bool by_jtest_call(struct by_jrun *r, const struct by_jtest *t, const struct by_jval *v,
                   const struct by_jargs *args);

#endif
