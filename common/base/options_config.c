#include "common/base/options_config.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <string.h>
#include <yaml.h>

enum { CONFIG_BYTES_MAX = 1 << 20 };

struct reader {
    yaml_parser_t parser;
    const char *path;
    struct by_err *err;
};

static int fail_at(struct reader *r, const yaml_event_t *e, const char *what) {
    return by_fail(r->err, BY_EFORMAT, "%s:%zu: %s", r->path, e->start_mark.line + 1, what);
}

static int next(struct reader *r, yaml_event_t *e) {
    if (yaml_parser_parse(&r->parser, e)) return 0;
    return by_fail(r->err, BY_EFORMAT, "%s:%zu: %s", r->path, r->parser.problem_mark.line + 1,
                   r->parser.problem ? r->parser.problem : "not valid YAML");
}

/* YAML's words for nothing. */
static bool is_null(const yaml_event_t *e) {
    struct by_str s = by_str_of((const char *)e->data.scalar.value);
    return e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (by_str_eqz(s, "~") || by_str_ieqz(s, "null"));
}

/* One event inside the map: a key (kept in *key) or the value that belongs to it. */
static int take(struct reader *r, const yaml_event_t *e, char **key,
                int (*set)(void *, const char *, const char *, struct by_err *), void *ctx) {
    if (e->type != YAML_SCALAR_EVENT)
        return fail_at(r, e, "only 'name: value' lines are understood here");
    const char *text = (const char *)e->data.scalar.value;
    if (!*key) {
        *key = by_strdup(text);
        return 0;
    }
    int rc = set(ctx, *key, is_null(e) ? "" : text, r->err);
    by_free(*key);
    *key = NULL;
    return rc;
}

static int read_map(struct reader *r,
                    int (*set)(void *, const char *, const char *, struct by_err *), void *ctx) {
    char *key = NULL;
    int rc = 0;
    bool is_inside = false, is_done = false;
    while (!rc && !is_done) {
        yaml_event_t e;
        rc = next(r, &e);
        if (rc) break;
        if (e.type == YAML_STREAM_END_EVENT)
            is_done = true;
        else if (is_inside && e.type == YAML_MAPPING_END_EVENT)
            is_inside = false;
        else if (is_inside)
            rc = take(r, &e, &key, set, ctx);
        else if (e.type == YAML_MAPPING_START_EVENT)
            is_inside = true;
        else if (e.type == YAML_SCALAR_EVENT && e.data.scalar.length) {
            rc = fail_at(r, &e, "only 'name: value' lines are understood here");
        }
        yaml_event_delete(&e);
    }
    by_free(key);
    return rc;
}

int by_options_read_config(const char *path,
                           int (*set)(void *ctx, const char *key, const char *value,
                                      struct by_err *err),
                           void *ctx, struct by_err *err) {
    struct by_buf text;
    by_buf_init(&text, CONFIG_BYTES_MAX);
    int rc = by_file_read(&text, path, err);
    struct reader r = {.path = path, .err = err};
    if (!rc && yaml_parser_initialize(&r.parser)) {
        yaml_parser_set_input_string(&r.parser, (const unsigned char *)(text.p ? text.p : ""),
                                     text.n);
        rc = read_map(&r, set, ctx);
        yaml_parser_delete(&r.parser);
    }
    by_buf_release(&text);
    return rc;
}
