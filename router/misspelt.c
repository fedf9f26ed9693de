#include "router/misspelt.h"

#include "common/base/log.h"
#include "router/params.h"

#include <stdio.h>
#include <string.h>

enum {
    MEMBERS_SEEN = 64, /* of a body */
    SHORT = 4,         /* names below it are near to everything */
    LONG = 10,         /* from here on two letters may be wrong */
    NAME_MAX = 40,
};

/* The i-th name that the form knows; NULL behind the last. */
static const char *name_at(const struct form *form, size_t i) {
    if (i < form->n_fields) return form->fields[i].name;
    return form->params == FORM_OPENAI_PARAMS ? params_openai_name(i - form->n_fields) : NULL;
}

static bool is_known(const struct form *form, struct by_str key) {
    const char *name = name_at(form, 0);
    char first = key.n ? key.p[0] : '\0'; /* of most it tells */
    for (size_t i = 1; name; name = name_at(form, i++)) {
        if (*name == first && by_str_eqz(key, name)) return true;
    }
    return false;
}

static bool is_near(const char *key, const char *name) {
    size_t a = strlen(key), b = strlen(name), far = a > b ? a - b : b - a;
    unsigned limit = BY_MIN(a, b) < LONG ? 1 : 2;
    return a >= SHORT && b >= SHORT && far <= limit && by_str_distance(key, name) <= limit;
}

static const char *nearest(const struct form *form, struct by_str key) {
    char text[NAME_MAX + 1];
    if (key.n > NAME_MAX) return NULL;
    snprintf(text, sizeof text, BY_STR_FMT, BY_STR_ARG(key));
    const char *name = name_at(form, 0);
    for (size_t i = 1; name && !is_near(text, name); i++)
        name = name_at(form, i);
    return name;
}

void misspelt_tell(const struct form *form, const struct by_json *body, struct by_str path,
                   struct by_strmap *told) {
    size_t n = 0;
    for (const struct by_json *it = by_json_first(body); it && n < MEMBERS_SEEN;
         it = by_json_next(it), n++) {
        struct by_str key = by_json_key(it);
        const char *meant = is_known(form, key) ? NULL : nearest(form, key);
        uint64_t was;
        if (!meant || by_strmap_get(told, by_str_of(meant), &was)) continue;
        by_strmap_put(told, by_str_of(meant), 1);
        by_warn(BY_STR_FMT ": a request's field " BY_STR_FMT " is none and was ignored; %s is one",
                BY_STR_ARG(path), BY_STR_ARG(key), meant);
    }
}
