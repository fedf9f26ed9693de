#include "common/template/jfilter.h"

#include "common/base/utf8.h"
#include "common/template/jchar.h"
#include "common/template/jmethod.h"
#include "common/template/jops.h"
#include "common/template/jstr.h"
#include "common/template/jtext.h"

#include <math.h>
#include <stdlib.h>

bool by_jfilter_given(const struct by_jval *v) {
    return v->type != BY_J_ABSENT && v->type != BY_J_NONE;
}

bool by_jfilter_flag(const struct by_jval *v) {
    return v->type != BY_J_ABSENT && by_jops_truth(v);
}

int64_t by_jfilter_whole(struct by_jrun *r, const struct by_jval *v, int64_t otherwise) {
    if (!by_jfilter_given(v)) return otherwise;
    if (v->type == BY_J_INT) return v->i;
    if (v->type == BY_J_BOOL) return v->b;
    by_jrun_fail(r, BY_EINVAL, "a filter expected a whole number, got '%s'", by_jval_type_name(v));
    return otherwise;
}

/* ---- text ---- */

static struct by_jval f_trim(struct by_jrun *r, const struct by_jval *v,
                             const struct by_jval *arg) {
    return by_jstr_strip(r, by_jtext_to_str(r, *v), by_jfilter_given(&arg[0]) ? &arg[0] : NULL, 3);
}

static struct by_jval f_upper(struct by_jrun *r, const struct by_jval *v,
                              const struct by_jval *arg) {
    (void)arg;
    return by_jstr_case(r, by_jtext_to_str(r, *v), BY_JSTR_UPPER);
}

static struct by_jval f_lower(struct by_jrun *r, const struct by_jval *v,
                              const struct by_jval *arg) {
    (void)arg;
    return by_jstr_case(r, by_jtext_to_str(r, *v), BY_JSTR_LOWER);
}

static struct by_jval f_title(struct by_jrun *r, const struct by_jval *v,
                              const struct by_jval *arg) {
    (void)arg;
    return by_jstr_case(r, by_jtext_to_str(r, *v), BY_JSTR_WORDS);
}

static struct by_jval f_capitalize(struct by_jrun *r, const struct by_jval *v,
                                   const struct by_jval *arg) {
    (void)arg;
    return by_jstr_case(r, by_jtext_to_str(r, *v), BY_JSTR_CAPITALIZE);
}

static struct by_jval f_replace(struct by_jrun *r, const struct by_jval *v,
                                const struct by_jval *arg) {
    int64_t count = by_jfilter_whole(r, &arg[2], -1);
    return by_jstr_replace(r, by_jtext_to_str(r, *v), by_jtext_to_str(r, arg[0]),
                           by_jtext_to_str(r, arg[1]), count);
}

static struct by_jval f_string(struct by_jrun *r, const struct by_jval *v,
                               const struct by_jval *arg) {
    (void)arg;
    return by_jtext_to_str(r, *v);
}

static struct by_jval f_safe(struct by_jrun *r, const struct by_jval *v,
                             const struct by_jval *arg) {
    (void)r;
    (void)arg;
    return *v;
}

static struct by_jval f_escape(struct by_jrun *r, const struct by_jval *v,
                               const struct by_jval *arg) {
    static const struct {
        char from;
        const char *to;
    } map[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
    (void)arg;
    struct by_jval s = by_jtext_to_str(r, *v);
    struct by_jbuild *b = by_jrun_build(r);
    for (uint32_t i = 0; b && !r->code && i < s.n; i++) {
        const char *to = NULL;
        for (size_t k = 0; k < BY_COUNTOF(map); k++) {
            if (s.s[i] == map[k].from) to = map[k].to;
        }
        struct by_jval one = by_jval_cut(s, i, i + 1);
        if (to)
            by_jbuild_bytes(b, to, strlen(to), one.marks ? one.marks[0] : one.is_user);
        else
            by_jbuild_add(b, one);
    }
    return b ? by_jrun_built(r, b) : (struct by_jval){0};
}

/* The end of the line that begins at from; len: bytes of what ends it, 0 at the end of the text. */
static uint32_t line_end(const struct by_jval *s, uint32_t from, size_t *len) {
    for (uint32_t at = from; at < s->n; at += (uint32_t)*len) {
        uint32_t cp = by_utf8_decode(s->s + at, s->n - at, len);
        if (!by_jchar_is_line_end(cp)) continue;
        if (cp == '\r' && at + 1 < s->n && s->s[at + 1] == '\n') *len = 2;
        return at;
    }
    *len = 0;
    return s->n;
}

/* indent(width=4, first=False, blank=False): every line but the first, but for empty ones. Whatever ended a line, \n does. */
static struct by_jval f_indent(struct by_jrun *r, const struct by_jval *v,
                               const struct by_jval *arg) {
    struct by_jval s = by_jtext_to_str(r, *v), pad;
    bool first = by_jfilter_flag(&arg[1]), blank = by_jfilter_flag(&arg[2]);
    if (arg[0].type == BY_J_STR) {
        pad = arg[0];
    } else {
        int64_t width = by_jfilter_whole(r, &arg[0], 4);
        if (r->code || width < 0 || width > 1000)
            return by_jrun_fail(r, BY_EINVAL, "indent: a width from 0 to 1000 is needed");
        char *blanks = by_jrun_get(r, (size_t)width + 1);
        if (!blanks) return (struct by_jval){0};
        memset(blanks, ' ', (size_t)width);
        pad = by_jval_str((struct by_str){blanks, (size_t)width}, false);
    }
    struct by_jbuild *b = by_jrun_build(r);
    by_jrun_charge(r, 1 + s.n / 16);
    for (uint32_t from = 0, line = 0; b && !r->code; line++) {
        size_t len;
        uint32_t to = line_end(&s, from, &len);
        if ((line ? to > from || blank : first)) by_jbuild_add(b, pad);
        by_jbuild_add(b, by_jval_cut(s, from, to));
        from = to + (uint32_t)len;
        /* jinja2 puts \n behind the text, and a \r there is half of that */
        if (!len || (from == s.n && s.s[to] == '\r' && len == 1)) break;
        struct by_jval end = by_jval_cut(s, to, to + 1);
        by_jbuild_bytes(b, "\n", 1, end.marks ? end.marks[0] : end.is_user);
    }
    return b ? by_jrun_built(r, b) : (struct by_jval){0};
}

static struct by_jval f_center(struct by_jrun *r, const struct by_jval *v,
                               const struct by_jval *arg) {
    struct by_jval s = by_jtext_to_str(r, *v);
    int64_t width = by_jfilter_whole(r, &arg[0], 80), room = width - by_jops_len(r, &s);
    if (r->code || room <= 0) return s;
    int64_t left = room / 2 + (room & width & 1); /* as CPython's str.center */
    return by_jstr_pad(r, s, left, room - left, by_jval_lit(" "));
}

static struct by_jval f_wordcount(struct by_jrun *r, const struct by_jval *v,
                                  const struct by_jval *arg) {
    (void)arg;
    struct by_jval s = by_jtext_to_str(r, *v);
    int64_t n = 0;
    bool in_word = false;
    by_jrun_charge_bytes(r, s.n);
    for (size_t i = 0, len; i < s.n; i += len) {
        uint32_t cp = by_utf8_decode(s.s + i, s.n - i, &len);
        bool is_word = cp == '_' || by_jchar_is_alnum(cp);
        n += is_word && !in_word;
        in_word = is_word;
    }
    return by_jval_int(n);
}

static struct by_jval f_format(struct by_jrun *r, const struct by_jval *v,
                               const struct by_jargs *args) {
    struct by_jval tuple = by_jval_list(r, BY_J_TUPLE, args->n);
    if (r->code) return (struct by_jval){0};
    for (uint32_t i = 0; i < args->n; i++)
        by_jval_push(r, tuple.list, args->at[i]);
    struct by_jval format = by_jtext_to_str(r, *v);
    return by_jfunc_percent(r, &format, &tuple);
}

/* transformers' own tojson: no HTML escapes, ensure_ascii off. */
static struct by_jval f_tojson(struct by_jrun *r, const struct by_jval *v,
                               const struct by_jval *arg) {
    struct by_jtext_json how = {.item_sep = BY_STR(", "),
                                .key_sep = BY_STR(": "),
                                .ensure_ascii = by_jfilter_flag(&arg[0]),
                                .sort_keys = by_jfilter_flag(&arg[3])};
    static const char blanks[65] =
        "                                                                ";
    if (by_jfilter_given(&arg[1])) {
        how.has_indent = true;
        how.item_sep = BY_STR(",");
        if (arg[1].type == BY_J_STR)
            how.indent = by_jval_bytes(&arg[1]);
        else
            how.indent = (struct by_str){
                blanks,
                (size_t)BY_MIN(BY_MAX(by_jfilter_whole(r, &arg[1], 0), INT64_C(0)), INT64_C(64))};
    }
    if (by_jfilter_given(&arg[2])) {
        struct by_jlist *pair = by_jops_iterate(r, &arg[2]);
        if (!pair) return (struct by_jval){0};
        if (pair->n != 2 || pair->at[0].type != BY_J_STR || pair->at[1].type != BY_J_STR)
            return by_jrun_fail(r, BY_EINVAL, "tojson: separators are two strings");
        how.item_sep = by_jval_bytes(&pair->at[0]);
        how.key_sep = by_jval_bytes(&pair->at[1]);
    }
    struct by_jbuild *b = by_jrun_build(r);
    if (!b) return (struct by_jval){0};
    by_jtext_json(r, b, v, &how);
    return by_jrun_built(r, b);
}

static struct by_jval f_default(struct by_jrun *r, const struct by_jval *v,
                                const struct by_jval *arg) {
    (void)r;
    bool replaces = v->type == BY_J_UNDEFINED || (by_jfilter_flag(&arg[1]) && !by_jops_truth(v));
    if (!replaces) return *v;
    return arg[0].type == BY_J_ABSENT ? by_jval_lit("") : arg[0];
}

static struct by_jval f_items(struct by_jrun *r, const struct by_jval *v,
                              const struct by_jval *arg) {
    (void)arg;
    if (v->type == BY_J_UNDEFINED) return by_jval_list(r, BY_J_ITER, 0);
    if (v->type != BY_J_DICT)
        return by_jrun_fail(r, BY_EINVAL, "Can only get item pairs from a mapping.");
    return by_jmethod_items(r, v->dict);
}

static struct by_jval f_attr(struct by_jrun *r, const struct by_jval *v,
                             const struct by_jval *arg) {
    struct by_jattr attr;
    bool is_name = arg[0].type == BY_J_STR;
    return by_jops_attr(r, v, &arg[0],
                        is_name ? by_jmethod_find(&attr, by_jval_bytes(&arg[0])) : NULL);
}

/* ---- numbers ---- */

static struct by_jval f_abs(struct by_jrun *r, const struct by_jval *v, const struct by_jval *arg) {
    (void)arg;
    if (v->type == BY_J_FLOAT) return by_jval_float(fabs(v->f));
    int64_t i = by_jfilter_whole(r, v, 0);
    return by_jval_int(i < 0 && i != INT64_MIN ? -i : i);
}

/* As Python's float() reads it: decimal, inf or nan. */
static bool read_float(const char *text, double *f) {
    char *end;
    *f = strtod(text, &end);
    return !*end && !strpbrk(text, "xX(");
}

/* As Python's int(): a base that there is not reads nothing. */
static bool read_int(const char *text, int64_t base, int64_t *i) {
    char *end;
    if (base != 0 && (base < 2 || base > 36)) return false; /* strtoll would leave end as it is */
    *i = strtoll(text, &end, (int)base);
    return !*end;
}

static struct by_jval f_int(struct by_jrun *r, const struct by_jval *v, const struct by_jval *arg) {
    struct by_jval otherwise = arg[0].type == BY_J_ABSENT ? by_jval_int(0) : arg[0];
    if (v->type == BY_J_INT || v->type == BY_J_BOOL)
        return by_jval_int(v->type == BY_J_INT ? v->i : v->b);
    if (v->type == BY_J_FLOAT)
        return isfinite(v->f) && fabs(v->f) < 9e18 ? by_jval_int((int64_t)v->f) : otherwise;
    if (v->type != BY_J_STR) return otherwise;
    struct by_jval s = by_jstr_strip(r, *v, NULL, 3);
    char text[64];
    int64_t i, base = by_jfilter_whole(r, &arg[1], 10);
    double f;
    if (r->code || !s.n || s.n >= sizeof text) return otherwise;
    memcpy(text, s.s, s.n);
    text[s.n] = '\0';
    if (read_int(text, base, &i)) return by_jval_int(i);
    return read_float(text, &f) && isfinite(f) && fabs(f) < 9e18 ? by_jval_int((int64_t)f)
                                                                 : otherwise;
}

static struct by_jval f_float(struct by_jrun *r, const struct by_jval *v,
                              const struct by_jval *arg) {
    struct by_jval otherwise = arg[0].type == BY_J_ABSENT ? by_jval_float(0) : arg[0];
    if (by_jops_is_number(v)) return by_jval_float(by_jops_number(v));
    if (v->type != BY_J_STR) return otherwise;
    struct by_jval s = by_jstr_strip(r, *v, NULL, 3);
    char text[64];
    double f;
    if (r->code || !s.n || s.n >= sizeof text) return otherwise;
    memcpy(text, s.s, s.n);
    text[s.n] = '\0';
    return read_float(text, &f) ? by_jval_float(f) : otherwise;
}

static struct by_jval f_round(struct by_jrun *r, const struct by_jval *v,
                              const struct by_jval *arg) {
    int64_t places = by_jfilter_whole(r, &arg[0], 0);
    if (!by_jops_is_number(v))
        return by_jrun_fail(r, BY_EINVAL, "round needs a number, got '%s'", by_jval_type_name(v));
    if (places < -300 || places > 300)
        return by_jrun_fail(r, BY_EINVAL, "round: the precision is out of range");
    double x = by_jops_number(v), scale = pow(10, (double)places);
    if (arg[1].type == BY_J_STR && by_jval_eqz(&arg[1], "ceil"))
        return by_jval_float(ceil(x * scale) / scale);
    if (arg[1].type == BY_J_STR && by_jval_eqz(&arg[1], "floor"))
        return by_jval_float(floor(x * scale) / scale);
    return by_jval_float(nearbyint(x * scale) / scale); /* half to even, as Python's round */
}

static const struct by_jfilter filters[] = {
    {"trim", "chars", 0, f_trim, NULL},
    {"upper", "", 0, f_upper, NULL},
    {"lower", "", 0, f_lower, NULL},
    {"title", "", 0, f_title, NULL},
    {"capitalize", "", 0, f_capitalize, NULL},
    {"replace", "old new count", 2, f_replace, NULL},
    {"string", "", 0, f_string, NULL},
    {"safe", "", 0, f_safe, NULL},
    {"escape", "", 0, f_escape, NULL},
    {"e", "", 0, f_escape, NULL},
    {"indent", "width first blank", 0, f_indent, NULL},
    {"center", "width", 0, f_center, NULL},
    {"wordcount", "", 0, f_wordcount, NULL},
    {"format", NULL, 0, NULL, f_format},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, f_tojson, NULL},
    {"default", "default_value boolean", 0, f_default, NULL},
    {"d", "default_value boolean", 0, f_default, NULL},
    {"items", "", 0, f_items, NULL},
    {"attr", "name", 1, f_attr, NULL},
    {"abs", "", 0, f_abs, NULL},
    {"int", "default base", 0, f_int, NULL},
    {"float", "default", 0, f_float, NULL},
    {"round", "precision method", 0, f_round, NULL},
    {NULL, NULL, 0, NULL, NULL},
};

static const struct by_jfilter *row_of(const struct by_jfilter *rows, struct by_str name) {
    for (; rows->name; rows++) {
        if (by_str_eqz(name, rows->name)) return rows;
    }
    return NULL;
}

const struct by_jfilter *by_jfilter_find(struct by_str name) {
    const struct by_jfilter *f = row_of(filters, name);
    return f ? f : row_of(by_jfilter_lists, name);
}

struct by_jval by_jfilter_call(struct by_jrun *r, const struct by_jfilter *f,
                               const struct by_jval *v, const struct by_jargs *args) {
    struct by_jval bound[BY_JFUNC_PARAMS_MAX];
    if (r->code) return (struct by_jval){0};
    if (f->apply_args) return f->apply_args(r, v, args);
    if (!by_jfunc_bind(r, f->name, args, f->params, f->n_need, bound)) return (struct by_jval){0};
    return f->apply(r, v, bound);
}
