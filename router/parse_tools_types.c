#include "router/parse_tools_types.h"

#include "common/base/json.h"
#include "router/parse_tools_form.h"

#include <stdlib.h>

enum { CHOICES_MAX = 16, CHOICES_DEEP = 3 }; /* of one argument; more are not looked at */

static unsigned bit_of(enum by_json_type type) {
    return 1U << type;
}

static unsigned named(struct by_str name) {
    static const struct {
        const char *name;
        enum by_json_type type;
    } rows[] = {{"string", BY_JSON_STRING}, {"integer", BY_JSON_NUMBER}, {"number", BY_JSON_NUMBER},
                {"boolean", BY_JSON_BOOL},  {"object", BY_JSON_OBJECT},  {"array", BY_JSON_ARRAY},
                {"null", BY_JSON_NULL}};
    for (size_t i = 0; i < BY_COUNTOF(rows); i++) {
        if (by_str_eqz(name, rows[i].name)) return bit_of(rows[i].type);
    }
    return 0;
}

/* By type, else by the values of enum, and those of anyOf and oneOf. */
static unsigned types_of(const struct by_json *schema, unsigned depth) {
    static const char *const choices[] = {"anyOf", "oneOf"};
    const struct by_json *type = by_json_get(schema, "type");
    unsigned types = named(by_json_str(type)), n = 0;
    for (const struct by_json *t = by_json_first(type); t && n < CHOICES_MAX;
         t = by_json_next(t), n++)
        types |= named(by_json_str(t));
    if (types) return types;
    n = 0;
    for (const struct by_json *v = by_json_first(by_json_get(schema, "enum")); v && n < CHOICES_MAX;
         v = by_json_next(v), n++)
        types |= bit_of(by_json_type(v));
    for (size_t i = 0; i < BY_COUNTOF(choices) && depth < CHOICES_DEEP; i++) {
        n = 0;
        for (const struct by_json *c = by_json_first(by_json_get(schema, choices[i]));
             c && n < CHOICES_MAX; c = by_json_next(c), n++)
            types |= types_of(c, depth + 1);
    }
    return types;
}

static int by_name(const void *a, const void *b) {
    const struct parse_tools_type *x = a, *y = b;
    int order = by_str_cmp(x->function, y->function);
    return order ? order : by_str_cmp(x->key, y->key);
}

void parse_tools_types_read(struct parse_tools_types *t, const struct by_json *tools,
                            struct by_arena *arena) {
    size_t n = 0;
    for (const struct by_json *it = by_json_first(tools); it; it = by_json_next(it))
        n += by_json_len(
            by_json_get(by_json_get(by_json_get(it, "function"), "parameters"), "properties"));
    n = BY_MIN(n, (size_t)PARSE_TOOLS_TYPES_MAX);
    *t = (struct parse_tools_types){.rows = by_arena_get_array(arena, n, sizeof *t->rows)};
    for (const struct by_json *it = by_json_first(tools); it; it = by_json_next(it)) {
        const struct by_json *f = by_json_get(it, "function");
        struct by_str name = by_arena_copy(arena, by_json_str(by_json_get(f, "name")));
        for (const struct by_json *p =
                 by_json_first(by_json_get(by_json_get(f, "parameters"), "properties"));
             p && t->n < n; p = by_json_next(p))
            t->rows[t->n++] = (struct parse_tools_type){name, by_arena_copy(arena, by_json_key(p)),
                                                        types_of(p, 0)};
    }
    if (t->n) qsort(t->rows, t->n, sizeof *t->rows, by_name);
}

unsigned parse_tools_types_of(const struct parse_tools_types *t, struct by_str function,
                              struct by_str key) {
    const struct parse_tools_type asked = {.function = function, .key = key}, *found = NULL;
    if (t && t->n) found = bsearch(&asked, t->rows, t->n, sizeof *t->rows, by_name);
    return found ? found->types : 0;
}

/* True, False and None are how templates write what is no text. */
static struct by_str word_of_python(struct by_str text, unsigned types) {
    if (types & bit_of(BY_JSON_BOOL) && by_str_ieqz(text, "true")) return BY_STR("true");
    if (types & bit_of(BY_JSON_BOOL) && by_str_ieqz(text, "false")) return BY_STR("false");
    if (types & bit_of(BY_JSON_NULL) && by_str_eqz(text, "None")) return BY_STR("null");
    return text;
}

void parse_tools_types_add(struct by_buf *out, struct by_str text, unsigned types) {
    bool may_be_text = !types || types & bit_of(BY_JSON_STRING), is_json = false;
    struct by_str value = by_str_trim(text);
    if (types != bit_of(BY_JSON_STRING)) {
        value = word_of_python(value, types);
        struct by_json *j = value.n ? parse_tools_json(value) : NULL;
        enum by_json_type type = by_json_type(j);
        bool is_asked = !types || types & bit_of(type);
        is_json = j && (!may_be_text || (is_asked && type != BY_JSON_STRING));
        by_json_free(j);
    }
    if (is_json)
        by_buf_add_str(out, value);
    else
        by_buf_add_json_str(out, (struct by_str){text.n ? text.p : "", text.n});
}
