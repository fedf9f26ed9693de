/* jfilter.h - what may stand behind |: trim, tojson, join, selectattr …
 *
 *     message.content | trim      tools | map(attribute="function") | list      x | default("none", true)
 *
 * Always: the table is constant; a name not in it is refused when the template is parsed. A filter never changes its
 * value; what a user wrote keeps its mark.
 * Owner: nobody. */
#ifndef COMMON_TEMPLATE_JFILTER_H
#define COMMON_TEMPLATE_JFILTER_H

#include "common/template/jfunc.h"

struct by_jfilter {
    const char *name;
    const char *params; /* "attribute default"; NULL: apply_args sees the arguments as they are */
    uint32_t n_need;
    struct by_jval (*apply)(struct by_jrun *r, const struct by_jval *v, const struct by_jval *arg);
    struct by_jval (*apply_args)(struct by_jrun *r, const struct by_jval *v,
                                 const struct by_jargs *args);
};

const struct by_jfilter *by_jfilter_find(struct by_str name); /* NULL: there is none */
struct by_jval by_jfilter_call(struct by_jrun *r, const struct by_jfilter *f,
                               const struct by_jval *v, const struct by_jargs *args);

/* jfilter_list.c's rows: what takes a list. The last has no name. */
extern const struct by_jfilter by_jfilter_lists[];

/* Arguments, for both files of filters. */
bool by_jfilter_given(const struct by_jval *v); /* neither left out nor none */
bool by_jfilter_flag(const struct by_jval *v);  /* its truth; left out: false */
int64_t by_jfilter_whole(struct by_jrun *r, const struct by_jval *v, int64_t otherwise);

#endif
