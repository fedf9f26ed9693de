/* json.h - the one door to cJSON: parse hostile text safely, read it with typed getters that name the path.
 *
 *     by_json_parse: our own scan first (size, depth, how many values, UTF-8, no raw control characters, lone
 *     surrogates refused, duplicate keys refused when asked), then cJSON.
 *     err->text: "sampling_params.top_p: expected a number, got a string"
 *
 * Always: getters never change the tree; a wrong type is an error, a missing key is *out untouched and 0. A string value may
 * hold U+0000, a key may not.
 * Numbers are doubles: by_json_get_i64 refuses what is no whole number, and what lies beyond 2^53.
 * Owner: whoever parsed frees with by_json_free. */
#ifndef COMMON_BASE_JSON_H
#define COMMON_BASE_JSON_H

#include "common/base/buf.h"
#include "common/base/err.h"

struct by_json; /* one value; is a cJSON underneath */

struct by_json_limits {
    size_t bytes_max;
    uint32_t depth_max;
    uint32_t values_max;  /* in all of it: each costs a node; 0: no ceiling of its own */
    uint32_t members_max; /* of one object: a look-up walks them; 0: likewise */
    bool refuse_duplicates;
};
enum by_json_type {
    BY_JSON_NULL,
    BY_JSON_BOOL,
    BY_JSON_NUMBER,
    BY_JSON_STRING,
    BY_JSON_ARRAY,
    BY_JSON_OBJECT
};

BY_MUST_USE int by_json_parse(struct by_json **out, struct by_str text,
                              const struct by_json_limits *lim, struct by_err *err);
void by_json_free(struct by_json *j); /* the root only; NULL is fine */

enum by_json_type by_json_type(const struct by_json *j);
/* "a string", "null", … */
const char *by_json_type_name(const struct by_json *j);
/* of an array or object; O(n) */
size_t by_json_len(const struct by_json *j);
/* NULL when missing or no object */
const struct by_json *by_json_get(const struct by_json *obj, const char *key);
/* Walks an array or object: it = by_json_first(j); it = by_json_next(it). */
const struct by_json *by_json_first(const struct by_json *j);
const struct by_json *by_json_next(const struct by_json *it);
struct by_str by_json_key(const struct by_json *it); /* of an object's member; borrowed */
/* The value itself, when the type is known; anything else gives empty / 0 / false. Borrowed. */
struct by_str by_json_str(const struct by_json *j);
double by_json_f64(const struct by_json *j);
bool by_json_bool(const struct by_json *j);
/* a whole number up to 2^53, which a double holds exactly */
BY_MUST_USE bool by_json_to_i64(const struct by_json *j, int64_t *out);

/* Typed members. `path` is what the error names before the key ("" at the root). null counts as missing. */
BY_MUST_USE int by_json_get_str(const struct by_json *obj, const char *path, const char *key,
                                struct by_str *out, struct by_err *err);
BY_MUST_USE int by_json_get_i64(const struct by_json *obj, const char *path, const char *key,
                                int64_t min, int64_t max, int64_t *out, struct by_err *err);
BY_MUST_USE int by_json_get_f64(const struct by_json *obj, const char *path, const char *key,
                                double min, double max, double *out, struct by_err *err);
BY_MUST_USE int by_json_get_bool(const struct by_json *obj, const char *path, const char *key,
                                 bool *out, struct by_err *err);
BY_MUST_USE int by_json_get_array(const struct by_json *obj, const char *path, const char *key,
                                  const struct by_json **out, struct by_err *err);
BY_MUST_USE int by_json_get_object(const struct by_json *obj, const char *path, const char *key,
                                   const struct by_json **out, struct by_err *err);

/* Writes j as compact JSON text (UTF-8, shortest numbers). */
void by_json_print(const struct by_json *j, struct by_buf *out);

#endif
