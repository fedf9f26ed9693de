/* jfunc.h - what a template can call: macros, bound methods, and the functions of the environment.
 *
 *     range(3)  namespace(a=1)  dict(a=1)  raise_exception("…")  strftime_now("%Y")  joiner()  cycler()
 *
 * Always: arguments are matched to parameters here, once for all kinds, with Python's complaints.
 * Owner: the run; the table of functions is constant. */
#ifndef COMMON_TEMPLATE_JFUNC_H
#define COMMON_TEMPLATE_JFUNC_H

#include "common/template/jast.h"

struct by_jkw {
    struct by_str name;
    struct by_jval val;
};
struct by_jargs {
    const struct by_jval *at;
    uint32_t n;
    const struct by_jkw *kw;
    uint32_t n_kw;
};
enum { BY_JFUNC_PARAMS_MAX = 6 };

/* What stands behind a BY_J_FUNC. `call` gets itself, for the state it carries. */
struct by_jfunc {
    struct by_jval (*call)(struct by_jrun *r, struct by_jfunc *self, const struct by_jargs *args);
    const char *name;
    struct by_jval self;          /* a method's object; joiner's separator; cycler's items */
    const void *method;           /* jmethod.c's row */
    const struct by_jnode *macro; /* macro: its node … */
    struct by_jscope *scope;      /* … and the scope it was made in */
    uint32_t count;               /* joiner, cycler: calls so far */
};

/* a copy in the run's arena */
struct by_jval by_jfunc_new(struct by_jrun *r, const struct by_jfunc *f);
struct by_jval by_jfunc_call(struct by_jrun *r, const struct by_jval *f,
                             const struct by_jargs *args);
/* Matches args to `params` ("old new count"); the first n_need must be given; ABSENT where none is. false: failed. */
BY_MUST_USE bool by_jfunc_bind(struct by_jrun *r, const char *who, const struct by_jargs *args,
                               const char *params, uint32_t n_need,
                               struct by_jval out[BY_JFUNC_PARAMS_MAX]);
/* The environment's function of that name; NULL when there is none. */
const struct by_jfunc *by_jfunc_global(struct by_str name);
/* "%s …" % args, and the filter format. */
struct by_jval by_jfunc_percent(struct by_jrun *r, const struct by_jval *format,
                                const struct by_jval *args);

#endif
