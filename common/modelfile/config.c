#include "common/modelfile/config.h"

#include <stdio.h>
#include <string.h>

static const struct by_json *find_in(struct by_config *c, const struct by_json *j,
                                     const char *keys) {
    const struct by_json *null = NULL;
    for (const char *p = keys; *p;) {
        size_t n = strcspn(p, "|");
        snprintf(c->key, sizeof c->key, "%.*s", (int)BY_MIN(n, sizeof c->key - 1), p);
        const struct by_json *v = by_json_get(j, c->key);
        if (v && by_json_type(v) != BY_JSON_NULL) return v;
        if (v) null = v;
        p += n + (p[n] == '|');
    }
    return null;
}

bool by_config_knows(const struct by_config *c, const char *key) {
    return !c->defaults || by_json_get(c->defaults, key);
}

const struct by_json *by_config_find(struct by_config *c, const char *keys) {
    if (c->rc) return NULL;
    const struct by_json *v = find_in(c, c->config, keys);
    if (!v && c->defaults) v = find_in(c, c->defaults, keys);
    return v && by_json_type(v) != BY_JSON_NULL ? v : NULL;
}

bool by_config_has(struct by_config *c, const char *keys) {
    return by_config_find(c, keys) != NULL;
}

void by_config_copy(char *to, size_t cap, struct by_str s) {
    snprintf(to, cap, "%.*s", (int)BY_MIN(s.n, cap - 1), s.p ? s.p : "");
}

void by_config_fail(struct by_config *c, const char *key, const char *want,
                    const struct by_json *v) {
    if (!c->rc)
        c->rc = by_fail(c->err, BY_EFORMAT, "%s: %s: expected %s, got %s", c->where, key, want,
                        by_json_type_name(v));
}

uint32_t by_config_u32(struct by_config *c, const char *keys, uint32_t otherwise) {
    int64_t n;
    const struct by_json *v = by_config_find(c, keys);
    if (!v) return otherwise;
    if (by_json_type(v) == BY_JSON_ARRAY && by_json_len(v)) v = by_json_first(v);
    if (by_json_type(v) != BY_JSON_NUMBER || !by_json_to_i64(v, &n) || n < 0 || n > UINT32_MAX) {
        by_config_fail(c, c->key, "a whole number of at least 0", v);
        return otherwise;
    }
    return (uint32_t)n;
}

/* The value if it is of that type; NULL when it is missing or, with an error, of another. */
static const struct by_json *find_typed(struct by_config *c, const char *keys,
                                        enum by_json_type type, const char *want) {
    const struct by_json *v = by_config_find(c, keys);
    if (!v || by_json_type(v) == type) return v;
    by_config_fail(c, c->key, want, v);
    return NULL;
}

double by_config_f64(struct by_config *c, const char *keys, double otherwise) {
    const struct by_json *v = find_typed(c, keys, BY_JSON_NUMBER, "a number");
    return v ? by_json_f64(v) : otherwise;
}

bool by_config_bool(struct by_config *c, const char *keys, bool otherwise) {
    const struct by_json *v = find_typed(c, keys, BY_JSON_BOOL, "true or false");
    return v ? by_json_bool(v) : otherwise;
}

struct by_str by_config_str(struct by_config *c, const char *keys) {
    const struct by_json *v = find_typed(c, keys, BY_JSON_STRING, "a string");
    return v ? by_json_str(v) : (struct by_str){0};
}
