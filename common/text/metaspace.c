#include "common/text/metaspace.h"

#include "common/base/utf8.h"

static int parse_scheme(struct by_metaspace *m, struct by_str name, const char *where,
                        struct by_err *err) {
    static const char *const names[] = {
        [BY_PREPEND_ALWAYS] = "always", [BY_PREPEND_FIRST] = "first", [BY_PREPEND_NEVER] = "never"};
    for (unsigned i = 0; i < BY_COUNTOF(names); i++) {
        if (!by_str_eqz(name, names[i])) continue;
        m->scheme = (enum by_metaspace_scheme)i;
        return 0;
    }
    return by_fail(err, BY_EUNSUPPORTED,
                   "%s: Metaspace's prepend_scheme '" BY_STR_FMT
                   "' is not known: always, first or never",
                   where, BY_STR_ARG(by_str_sub(name, 0, 100)));
}

int by_metaspace_parse(struct by_metaspace *m, const struct by_json *j, const char *where,
                       struct by_err *err) {
    struct by_str scheme = BY_STR("always");
    bool add_prefix_space = true;
    *m = (struct by_metaspace){.mark = BY_STR("\xE2\x96\x81"), .is_split = true};
    int rc = by_json_get_str(j, where, "replacement", &m->mark, err);
    if (!rc) rc = by_json_get_str(j, where, "prepend_scheme", &scheme, err);
    if (!rc) rc = by_json_get_bool(j, where, "split", &m->is_split, err);
    if (!rc) rc = by_json_get_bool(j, where, "add_prefix_space", &add_prefix_space, err);
    if (!rc) rc = parse_scheme(m, scheme, where, err);
    if (rc) return rc;
    if (!add_prefix_space) m->scheme = BY_PREPEND_NEVER;
    if (by_utf8_count(m->mark.p, m->mark.n) != 1)
        return by_fail(err, BY_EFORMAT, "%s: Metaspace's replacement is not one character", where);
    return 0;
}
