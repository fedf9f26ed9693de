#include "common/base/json.h"

#include "common/base/mem.h"
#include "common/base/utf8.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>

/* cJSON recurses and knows neither our ceilings nor our strictness, so a scan without recursion goes first: it takes
 * exactly RFC 8259, within the depth, and leaves cJSON only text that it reads the same way. */
enum { DEPTH_HARD_MAX = 512 };

struct scan {
    struct by_str s;
    size_t i, n_nuls; /* \u0000 so far */
    uint32_t values_max, n_values, members_max;
    struct by_err *err;
};

/* What is open around the place that is read. */
struct level {
    char open;          /* { or [ */
    uint32_t n_members; /* so far */
};

static int bad(struct scan *c, const char *what) {
    return by_fail(c->err, BY_EFORMAT, "the JSON text is not valid at byte %zu: %s", c->i, what);
}

static char peek(const struct scan *c) {
    return c->i < c->s.n ? c->s.p[c->i] : '\0';
}

static void skip_blanks(struct scan *c) {
    while (c->i < c->s.n && strchr(" \t\r\n", c->s.p[c->i]) && c->s.p[c->i])
        c->i++;
}

static bool scan_hex4(struct scan *c, uint32_t *out) {
    if (!by_str_hex(c->s, c->i, 4, out)) return false;
    c->i += 4;
    return true;
}

static int scan_escape(struct scan *c) {
    char e = peek(c);
    if (e == '\0' || !strchr("\"\\/bfnrtu", e)) return bad(c, "an unknown escape");
    c->i++;
    if (e != 'u') return 0;
    uint32_t hi, lo;
    if (!scan_hex4(c, &hi)) return bad(c, "\\u needs four hex digits");
    if (hi == 0) c->n_nuls++;
    if (hi < 0xD800 || hi > 0xDFFF) return 0;
    bool is_pair =
        hi < 0xDC00 && c->s.n - c->i >= 6 && c->s.p[c->i] == '\\' && c->s.p[c->i + 1] == 'u';
    if (is_pair) c->i += 2;
    if (!is_pair || !scan_hex4(c, &lo) || lo < 0xDC00 || lo > 0xDFFF)
        return bad(c, "a lone surrogate");
    return 0;
}

static int scan_string(struct scan *c) {
    c->i++; /* the quote */
    while (c->i < c->s.n) {
        unsigned char ch = (unsigned char)c->s.p[c->i];
        if (ch == '"') {
            c->i++;
            return 0;
        }
        if (ch < 0x20) return bad(c, "a control character in a string");
        c->i++;
        if (ch == '\\') {
            int rc = scan_escape(c);
            if (rc) return rc;
        }
    }
    return bad(c, "a string without its end");
}

static bool scan_digits(struct scan *c) {
    size_t from = c->i;
    while (peek(c) >= '0' && peek(c) <= '9')
        c->i++;
    return c->i > from;
}

static int scan_number(struct scan *c) {
    size_t from = c->i;
    if (peek(c) == '-') c->i++;
    if (peek(c) == '0')
        c->i++;
    else if (!scan_digits(c))
        return bad(c, "a value was expected");
    if (peek(c) == '.') {
        c->i++;
        if (!scan_digits(c)) return bad(c, "digits were expected after the point");
    }
    bool has_exponent = peek(c) == 'e' || peek(c) == 'E';
    if (has_exponent) {
        c->i++;
        if (peek(c) == '+' || peek(c) == '-') c->i++;
        if (!scan_digits(c)) return bad(c, "digits were expected in the exponent");
    }
    double v; /* few digits without an exponent are always within */
    if (!has_exponent && c->i - from < 300) return 0;
    if (!by_str_to_f64(by_str_sub(c->s, from, c->i - from), &v))
        return bad(c, "a number out of range");
    return 0;
}

static int scan_scalar(struct scan *c) {
    static const char *const words[] = {"true", "false", "null"};
    if (peek(c) == '"') return scan_string(c);
    for (size_t k = 0; k < BY_COUNTOF(words); k++) {
        if (!by_str_starts(by_str_sub(c->s, c->i, 8), by_str_of(words[k]))) continue;
        c->i += strlen(words[k]);
        return 0;
    }
    return scan_number(c);
}

static int scan_key(struct scan *c) {
    skip_blanks(c);
    if (peek(c) != '"') return bad(c, "a key in quotes was expected");
    size_t n_nuls = c->n_nuls;
    int rc = scan_string(c);
    if (rc) return rc;
    if (c->n_nuls > n_nuls) return bad(c, "\\u0000 is not allowed in a key");
    skip_blanks(c);
    if (peek(c) != ':') return bad(c, "':' was expected");
    c->i++;
    return 0;
}

static int scan_member(struct scan *c, struct level *in) {
    if (c->members_max && ++in->n_members > c->members_max)
        return by_fail(c->err, BY_ELIMIT, "an object of the JSON text has more than %u members",
                       c->members_max);
    return scan_key(c);
}

/* After a value: closes what ends here. *more: another value follows. */
static int scan_after(struct scan *c, struct level *levels, uint32_t *depth, bool *more) {
    *more = false;
    while (*depth) {
        skip_blanks(c);
        bool is_object = levels[*depth - 1].open == '{';
        char ch = peek(c);
        if (ch == ',') {
            c->i++;
            *more = true;
            return is_object ? scan_member(c, &levels[*depth - 1]) : 0;
        }
        if (ch != (is_object ? '}' : ']'))
            return bad(c, is_object ? "',' or '}' was expected" : "',' or ']' was expected");
        c->i++;
        --*depth;
    }
    return 0;
}

static int scan_text(struct scan *c, uint32_t depth_max) {
    struct level levels[DEPTH_HARD_MAX];
    uint32_t depth = 0;
    bool more = true;
    while (more) {
        skip_blanks(c);
        char ch = peek(c);
        int rc = 0;
        if (c->values_max && ++c->n_values > c->values_max)
            return by_fail(c->err, BY_ELIMIT, "the JSON text has more than %u values",
                           c->values_max);
        if (ch == '{' || ch == '[') {
            if (depth == depth_max)
                return by_fail(c->err, BY_ELIMIT, "the JSON text is nested deeper than %u levels",
                               depth_max);
            levels[depth++] = (struct level){.open = ch};
            c->i++;
            skip_blanks(c);
            if (peek(c) == (ch == '{' ? '}' : ']')) {
                rc = scan_after(c, levels, &depth, &more);
            } else if (ch == '{') {
                rc = scan_member(c, &levels[depth - 1]);
            }
        } else {
            rc = scan_scalar(c);
            if (!rc) rc = scan_after(c, levels, &depth, &more);
        }
        if (rc) return rc;
    }
    skip_blanks(c);
    return c->i == c->s.n ? 0 : bad(c, "text after the end");
}

static const cJSON *of(const struct by_json *j) {
    return (const cJSON *)j;
}

static const struct by_json *to(const cJSON *j) {
    return (const struct by_json *)j;
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int refuse_duplicates_in(const cJSON *obj, struct by_err *err) {
    size_t n = (size_t)cJSON_GetArraySize(obj), i = 0;
    if (n < 2) return 0;
    const char **keys = by_alloc_array(n, sizeof *keys);
    for (const cJSON *it = obj->child; it; it = it->next)
        keys[i++] = it->string;
    qsort(keys, n, sizeof *keys, compare_keys);
    int rc = 0;
    for (i = 1; i < n && !rc; i++) {
        if (strcmp(keys[i - 1], keys[i]) == 0) {
            rc = by_fail(err, BY_EINVAL, "%s: the key is given twice", keys[i]);
        }
    }
    by_free(keys);
    return rc;
}

/* Depth was bounded by the scan, so recursion is too. */
static int refuse_duplicates(const cJSON *j, uint32_t depth, struct by_err *err) {
    int rc = cJSON_IsObject(j) ? refuse_duplicates_in(j, err) : 0;
    if (depth == DEPTH_HARD_MAX) return by_fail(err, BY_ELIMIT, "the JSON text is nested too deep");
    for (const cJSON *it = j->child; it && !rc; it = it->next) {
        if (it->child) rc = refuse_duplicates(it, depth + 1, err);
    }
    return rc;
}

/* cJSON ends a string at U+0000, so it goes through as C0 80, which valid UTF-8 never holds, and is put back afterwards:
 * the string then keeps its length in valuedouble, and valueint says so. */
static char *hide_nuls(struct by_str s, size_t *n) {
    char *out = by_try_alloc(s.n);
    size_t k = 0;
    for (size_t i = 0; out && i < s.n;) {
        if (s.p[i] != '\\') {
            out[k++] = s.p[i++];
        } else if (by_str_starts(by_str_sub(s, i, 6), BY_STR("\\u0000"))) {
            memcpy(out + k, "\xC0\x80", 2);
            k += 2;
            i += 6;
        } else {
            memcpy(out + k, s.p + i, 2);
            k += 2;
            i += 2;
        }
    }
    *n = k;
    return out;
}

static void show_nuls_in(cJSON *j) {
    size_t n = strlen(j->valuestring), k = 0;
    for (size_t i = 0; i < n; i++) {
        bool is_nul = (unsigned char)j->valuestring[i] == 0xC0;
        j->valuestring[k++] = is_nul ? '\0' : j->valuestring[i];
        i += is_nul;
    }
    j->valuestring[k] = '\0';
    j->valueint = 1;
    j->valuedouble = (double)k;
}

/* Depth was bounded by the scan, so recursion is too. */
static void show_nuls(cJSON *j, uint32_t depth) {
    if (cJSON_IsString(j)) show_nuls_in(j);
    for (cJSON *it = j->child; it && depth < DEPTH_HARD_MAX; it = it->next)
        show_nuls(it, depth + 1);
}

static cJSON *read_text(struct by_str text, bool has_nuls) {
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = by_try_alloc, .free_fn = by_free}); /* counted */
    if (!has_nuls) return cJSON_ParseWithLength(text.p, text.n);
    size_t n;
    char *hidden = hide_nuls(text, &n);
    cJSON *j = hidden ? cJSON_ParseWithLength(hidden, n) : NULL;
    by_free(hidden);
    if (j) show_nuls(j, 0);
    return j;
}

int by_json_parse(struct by_json **out, struct by_str text, const struct by_json_limits *lim,
                  struct by_err *err) {
    *out = NULL;
    if (text.n > lim->bytes_max) {
        return by_fail(err, BY_ETOOBIG, "the JSON text has %zu bytes; at most %zu are allowed",
                       text.n, lim->bytes_max);
    }
    if (!by_utf8_valid(text.p, text.n))
        return by_fail(err, BY_EFORMAT, "the JSON text is not valid UTF-8");
    struct scan c = {
        .s = text, .values_max = lim->values_max, .members_max = lim->members_max, .err = err};
    int rc = scan_text(&c, BY_MIN(lim->depth_max, (uint32_t)DEPTH_HARD_MAX));
    if (rc) return rc;
    cJSON *j = read_text(text, c.n_nuls > 0);
    if (!j) return by_fail(err, BY_EFORMAT, "the JSON text could not be read");
    rc = lim->refuse_duplicates ? refuse_duplicates(j, 0, err) : 0;
    if (rc)
        cJSON_Delete(j);
    else
        *out = (struct by_json *)j;
    return rc;
}

void by_json_free(struct by_json *j) {
    cJSON_Delete((cJSON *)j);
}

enum by_json_type by_json_type(const struct by_json *j) {
    const cJSON *c = of(j);
    if (!c || cJSON_IsNull(c)) return BY_JSON_NULL;
    if (cJSON_IsBool(c)) return BY_JSON_BOOL;
    if (cJSON_IsNumber(c)) return BY_JSON_NUMBER;
    if (cJSON_IsString(c)) return BY_JSON_STRING;
    return cJSON_IsArray(c) ? BY_JSON_ARRAY : BY_JSON_OBJECT;
}

const char *by_json_type_name(const struct by_json *j) {
    static const char *const names[] = {"null",     "a boolean", "a number",
                                        "a string", "an array",  "an object"};
    return names[by_json_type(j)];
}

size_t by_json_len(const struct by_json *j) {
    return j && of(j)->child ? (size_t)cJSON_GetArraySize(of(j)) : 0;
}

const struct by_json *by_json_get(const struct by_json *obj, const char *key) {
    return cJSON_IsObject(of(obj)) ? to(cJSON_GetObjectItemCaseSensitive(of(obj), key)) : NULL;
}

const struct by_json *by_json_first(const struct by_json *j) {
    return j ? to(of(j)->child) : NULL;
}

const struct by_json *by_json_next(const struct by_json *it) {
    return to(of(it)->next);
}

struct by_str by_json_key(const struct by_json *it) {
    return by_str_of(of(it)->string);
}

struct by_str by_json_str(const struct by_json *j) {
    const cJSON *c = of(j);
    if (!cJSON_IsString(c)) return (struct by_str){0};
    return c->valueint ? (struct by_str){c->valuestring, (size_t)c->valuedouble}
                       : by_str_of(c->valuestring);
}

double by_json_f64(const struct by_json *j) {
    return cJSON_IsNumber(of(j)) ? of(j)->valuedouble : 0;
}

bool by_json_bool(const struct by_json *j) {
    return cJSON_IsTrue(of(j));
}

/* cJSON keeps doubles, so whole numbers are exact up to 2^53; larger ones are refused rather than changed. */
bool by_json_to_i64(const struct by_json *j, int64_t *out) {
    if (!cJSON_IsNumber(of(j))) return false;
    double v = of(j)->valuedouble;
    if (v != floor(v) || fabs(v) > 9007199254740992.0) return false;
    *out = (int64_t)v;
    return true;
}

static int wrong_type(const char *path, const char *key, const char *want, const struct by_json *j,
                      struct by_err *err) {
    return by_fail(err, BY_EINVAL, "%s%s%s: expected %s, got %s", path, *path ? "." : "", key, want,
                   by_json_type_name(j));
}

/* The member, if it is there and not null. */
static const struct by_json *member(const struct by_json *obj, const char *key) {
    const struct by_json *j = by_json_get(obj, key);
    return by_json_type(j) == BY_JSON_NULL ? NULL : j;
}

int by_json_get_str(const struct by_json *obj, const char *path, const char *key,
                    struct by_str *out, struct by_err *err) {
    const struct by_json *j = member(obj, key);
    if (!j) return 0;
    if (by_json_type(j) != BY_JSON_STRING) return wrong_type(path, key, "a string", j, err);
    *out = by_json_str(j);
    return 0;
}

int by_json_get_i64(const struct by_json *obj, const char *path, const char *key, int64_t min,
                    int64_t max, int64_t *out, struct by_err *err) {
    const struct by_json *j = member(obj, key);
    int64_t v;
    if (!j) return 0;
    if (by_json_type(j) != BY_JSON_NUMBER) return wrong_type(path, key, "a whole number", j, err);
    if (!by_json_to_i64(j, &v) || v < min || v > max) {
        return by_fail(err, BY_EINVAL,
                       "%s%s%s: expected a whole number from %lld to %lld, got %.17g", path,
                       *path ? "." : "", key, (long long)min, (long long)max, by_json_f64(j));
    }
    *out = v;
    return 0;
}

int by_json_get_f64(const struct by_json *obj, const char *path, const char *key, double min,
                    double max, double *out, struct by_err *err) {
    const struct by_json *j = member(obj, key);
    if (!j) return 0;
    if (by_json_type(j) != BY_JSON_NUMBER) return wrong_type(path, key, "a number", j, err);
    double v = by_json_f64(j);
    if (!(v >= min && v <= max)) {
        return by_fail(err, BY_EINVAL, "%s%s%s: expected a number from %.15g to %.15g, got %.15g",
                       path, *path ? "." : "", key, min, max, v);
    }
    *out = v;
    return 0;
}

int by_json_get_bool(const struct by_json *obj, const char *path, const char *key, bool *out,
                     struct by_err *err) {
    const struct by_json *j = member(obj, key);
    if (!j) return 0;
    if (by_json_type(j) != BY_JSON_BOOL) return wrong_type(path, key, "true or false", j, err);
    *out = by_json_bool(j);
    return 0;
}

int by_json_get_array(const struct by_json *obj, const char *path, const char *key,
                      const struct by_json **out, struct by_err *err) {
    const struct by_json *j = member(obj, key);
    if (!j) return 0;
    if (by_json_type(j) != BY_JSON_ARRAY) return wrong_type(path, key, "an array", j, err);
    *out = j;
    return 0;
}

int by_json_get_object(const struct by_json *obj, const char *path, const char *key,
                       const struct by_json **out, struct by_err *err) {
    const struct by_json *j = member(obj, key);
    if (!j) return 0;
    if (by_json_type(j) != BY_JSON_OBJECT) return wrong_type(path, key, "an object", j, err);
    *out = j;
    return 0;
}

/* Depth was bounded when the tree was parsed. */
static void print_value(const struct by_json *j, struct by_buf *out, uint32_t depth) {
    enum by_json_type t = by_json_type(j);
    if (depth > DEPTH_HARD_MAX) return;
    if (t == BY_JSON_NULL) by_buf_addz(out, "null");
    if (t == BY_JSON_BOOL) by_buf_addz(out, by_json_bool(j) ? "true" : "false");
    if (t == BY_JSON_NUMBER) by_buf_add_json_f64(out, by_json_f64(j));
    if (t == BY_JSON_STRING) by_buf_add_json_str(out, by_json_str(j));
    if (t != BY_JSON_ARRAY && t != BY_JSON_OBJECT) return;
    by_buf_addc(out, t == BY_JSON_ARRAY ? '[' : '{');
    for (const struct by_json *it = by_json_first(j); it; it = by_json_next(it)) {
        if (it != by_json_first(j)) by_buf_addc(out, ',');
        if (t == BY_JSON_OBJECT) {
            by_buf_add_json_str(out, by_json_key(it));
            by_buf_addc(out, ':');
        }
        print_value(it, out, depth + 1);
    }
    by_buf_addc(out, t == BY_JSON_ARRAY ? ']' : '}');
}

void by_json_print(const struct by_json *j, struct by_buf *out) {
    print_value(j, out, 0);
}
