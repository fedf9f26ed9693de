#include "common/template/jfunc.h"

#include "common/template/jops.h"
#include "common/template/jtext.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RANGE_MAX = 100000 }; /* Jinja's sandbox says so, too */

struct by_jval by_jfunc_new(struct by_jrun *r, const struct by_jfunc *f) {
    struct by_jfunc *copy = by_jrun_get(r, sizeof(*copy));
    if (!copy) return (struct by_jval){0};
    *copy = *f;
    return (struct by_jval){.type = BY_J_FUNC, .func = copy};
}

struct by_jval by_jfunc_call(struct by_jrun *r, const struct by_jval *f,
                             const struct by_jargs *args) {
    if (r->code) return (struct by_jval){0};
    if (f->type == BY_J_UNDEFINED) return by_jrun_fail_undefined(r, f);
    if (f->type != BY_J_FUNC)
        return by_jrun_fail(r, BY_EINVAL, "'%s' object is not callable", by_jval_type_name(f));
    return f->func->call(r, f->func, args);
}

/* Which of the words of params is name; n_params when none. */
static uint32_t param_index(const char *params, struct by_str name, uint32_t *n_params) {
    struct by_str rest = by_str_of(params), word;
    uint32_t n = 0, found = UINT32_MAX;
    for (bool more = rest.n > 0; more; n++) {
        more = by_str_split(&rest, ' ', &word);
        if (by_str_eq(word, name)) found = n;
    }
    *n_params = n;
    return BY_MIN(found, n);
}

bool by_jfunc_bind(struct by_jrun *r, const char *who, const struct by_jargs *args,
                   const char *params, uint32_t n_need, struct by_jval out[BY_JFUNC_PARAMS_MAX]) {
    uint32_t n_params = n_need;
    if (args->n > n_need) (void)param_index(params, (struct by_str){0}, &n_params);
    if (args->n > n_params) {
        by_jrun_fail(r, BY_EINVAL, "%s() takes at most %u arguments but %u were given", who,
                     n_params, args->n);
        return false;
    }
    for (uint32_t i = 0; i < BY_JFUNC_PARAMS_MAX; i++)
        out[i] = i < args->n ? args->at[i] : (struct by_jval){0};
    for (uint32_t i = 0; i < args->n_kw; i++) {
        uint32_t at = param_index(params, args->kw[i].name, &n_params);
        if (at == n_params || out[at].type != BY_J_ABSENT) {
            by_jrun_fail(r, BY_EINVAL, "%s() got %s argument '" BY_STR_FMT "'", who,
                         at == n_params ? "an unexpected keyword" : "multiple values for",
                         BY_STR_ARG(args->kw[i].name));
            return false;
        }
        out[at] = args->kw[i].val;
    }
    for (uint32_t i = 0; i < n_need; i++)
        if (out[i].type == BY_J_ABSENT) {
            by_jrun_fail(r, BY_EINVAL, "%s() misses argument %u of (%s)", who, i + 1, params);
            return false;
        }
    return true;
}

static struct by_jval call_range(struct by_jrun *r, struct by_jfunc *self,
                                 const struct by_jargs *args) {
    struct by_jval v[BY_JFUNC_PARAMS_MAX];
    int64_t at[3] = {0, 0, 1};
    if (!by_jfunc_bind(r, self->name, args, "start stop step", 1, v)) return (struct by_jval){0};
    for (int i = 0; i < 3; i++) {
        if (v[i].type == BY_J_ABSENT) continue;
        if (v[i].type != BY_J_INT && v[i].type != BY_J_BOOL)
            return by_jrun_fail(r, BY_EINVAL, "'%s' object cannot be interpreted as an integer",
                                by_jval_type_name(&v[i]));
        at[i] = v[i].type == BY_J_BOOL ? v[i].b : v[i].i;
    }
    if (v[1].type == BY_J_ABSENT) {
        at[1] = at[0];
        at[0] = 0;
    }
    if (at[2] == 0) return by_jrun_fail(r, BY_EINVAL, "range() arg 3 must not be zero");
    bool is_up = at[2] > 0;
    uint64_t span = is_up ? (uint64_t)at[1] - (uint64_t)at[0] : (uint64_t)at[0] - (uint64_t)at[1];
    uint64_t step = is_up ? (uint64_t)at[2] : 0 - (uint64_t)at[2];
    uint64_t n = (is_up ? at[1] > at[0] : at[0] > at[1]) ? (span - 1) / step + 1 : 0;
    if (n > RANGE_MAX)
        return by_jrun_fail(r, BY_ELIMIT, "a range of more than %d items", RANGE_MAX);
    by_jrun_charge(r, n);
    struct by_jval out = by_jval_list(r, BY_J_LIST, r->code ? 0 : (uint32_t)n);
    for (uint64_t i = 0; i < n && !r->code; i++)
        by_jval_push(r, out.list, by_jval_int((int64_t)((uint64_t)at[0] + i * (uint64_t)at[2])));
    return out;
}

/* dict(a=1), dict(other, a=1), dict([[k, v]]); namespace() alike. */
static struct by_jval make_dict(struct by_jrun *r, const struct by_jargs *args, enum by_jtype type,
                                const char *who) {
    struct by_jval out = by_jval_dict(r, type);
    if (args->n > 1)
        return by_jrun_fail(r, BY_EINVAL, "%s expected at most 1 argument, got %u", who, args->n);
    if (args->n == 1 && (args->at[0].type == BY_J_DICT || args->at[0].type == BY_J_NAMESPACE)) {
        const struct by_jdict *from = args->at[0].dict;
        by_jrun_charge(r, from->n);
        for (uint32_t i = 0; i < from->n && !r->code; i++)
            if (!by_jval_put(r, out.dict, from->at[i].key, from->at[i].val)) break;
    } else if (args->n == 1) {
        const struct by_jlist *pairs = by_jops_iterate(r, &args->at[0]);
        for (uint32_t i = 0; pairs && i < pairs->n && !r->code; i++) {
            const struct by_jlist *pair = by_jops_iterate(r, &pairs->at[i]);
            if (pair && pair->n != 2) return by_jrun_fail(r, BY_EINVAL, "%s needs pairs", who);
            if (!pair || !by_jval_put(r, out.dict, pair->at[0], pair->at[1])) break;
        }
    }
    for (uint32_t i = 0; i < args->n_kw && !r->code; i++)
        if (!by_jval_put(r, out.dict, by_jval_str(args->kw[i].name, false), args->kw[i].val)) break;
    return r->code ? (struct by_jval){0} : out;
}

static struct by_jval call_dict(struct by_jrun *r, struct by_jfunc *self,
                                const struct by_jargs *args) {
    return make_dict(r, args, BY_J_DICT, self->name);
}

static struct by_jval call_namespace(struct by_jrun *r, struct by_jfunc *self,
                                     const struct by_jargs *args) {
    struct by_jval ns = make_dict(r, args, BY_J_NAMESPACE, self->name);
    for (uint32_t i = 0; !r->code && i < ns.dict->n; i++) {
        const struct by_jval *key = &ns.dict->at[i].key;
        if (key->type == BY_J_STR && key->n && key->s[0] == '_')
            return by_jrun_fail(r, BY_EINVAL,
                                "a namespace may not have attributes that begin with _");
    }
    return ns;
}

static struct by_jval call_raise(struct by_jrun *r, struct by_jfunc *self,
                                 const struct by_jargs *args) {
    struct by_jval v[BY_JFUNC_PARAMS_MAX];
    if (!by_jfunc_bind(r, self->name, args, "message", 1, v)) return (struct by_jval){0};
    struct by_jval text = by_jtext_to_str(r, v[0]);
    if (r->code) return text;
    r->is_raised = true;
    r->code = by_fail(r->err, BY_EINVAL, BY_STR_FMT, BY_STR_ARG(by_jval_bytes(&text)));
    r->steps_left = -1;
    return (struct by_jval){0};
}

/* datetime.now().strftime(format): local time; a time without zone prints %Z and %z as nothing. */
static struct by_jval call_strftime_now(struct by_jrun *r, struct by_jfunc *self,
                                        const struct by_jargs *args) {
    struct by_jval v[BY_JFUNC_PARAMS_MAX];
    if (!by_jfunc_bind(r, self->name, args, "format", 1, v)) return (struct by_jval){0};
    if (v[0].type != BY_J_STR)
        return by_jrun_fail(r, BY_EINVAL, "strftime_now() needs a format that is a str");
    time_t now = (time_t)r->clock_s;
    struct tm tm;
    if (!localtime_r(&now, &tm))
        return by_jrun_fail(r, BY_EINVAL, "strftime_now(): the clock shows no valid time");
    struct by_jbuild *b = by_jrun_build(r);
    for (uint32_t i = 0; i < v[0].n; i++) {
        if (v[0].s[i] != '%' || i + 1 == v[0].n) {
            by_jbuild_add(b, by_jval_cut(v[0], i, i + 1));
            continue;
        }
        char spec[4] = {'%', v[0].s[++i], 0, 0}, text[128];
        if (spec[1] == '-' && i + 1 < v[0].n) spec[2] = v[0].s[++i]; /* %-d: no leading zero */
        if (spec[1] == 'Z' || spec[1] == 'z') continue;
        if (spec[1] == 'f') {
            by_jbuild_addz(b, "000000");
            continue;
        }
        text[0] = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        /* one known-length directive of the template's */
        size_t n = strftime(text, sizeof(text), spec, &tm);
#pragma GCC diagnostic pop
        by_jbuild_bytes(b, text, n, false);
    }
    return by_jrun_built(r, b);
}

static struct by_jval joiner_next(struct by_jrun *r, struct by_jfunc *self,
                                  const struct by_jargs *args) {
    (void)r;
    (void)args;
    return self->count++ ? self->self : by_jval_lit("");
}

static struct by_jval call_joiner(struct by_jrun *r, struct by_jfunc *self,
                                  const struct by_jargs *args) {
    struct by_jval v[BY_JFUNC_PARAMS_MAX];
    if (!by_jfunc_bind(r, self->name, args, "sep", 0, v)) return (struct by_jval){0};
    struct by_jfunc f = {
        .call = joiner_next, .name = "joiner", .self = v[0].type ? v[0] : by_jval_lit(", ")};
    return by_jfunc_new(r, &f);
}

static const struct by_jfunc globals[] = {
    {.name = "range", .call = call_range},
    {.name = "dict", .call = call_dict},
    {.name = "namespace", .call = call_namespace},
    {.name = "raise_exception", .call = call_raise},
    {.name = "strftime_now", .call = call_strftime_now},
    {.name = "joiner", .call = call_joiner},
};

const struct by_jfunc *by_jfunc_global(struct by_str name) {
    for (size_t i = 0; i < BY_COUNTOF(globals); i++)
        if (by_str_eqz(name, globals[i].name)) return &globals[i];
    return NULL;
}

/* One %-directive: flags, width and precision as printf has them. */
static void percent_one(struct by_jrun *r, struct by_jbuild *b, const char *flags, char kind,
                        const struct by_jval *v) {
    char spec[24], text[400];
    int n = 0;
    if (strchr("sr", kind)) {
        struct by_jbuild *t = by_jrun_build(r);
        if (kind == 's')
            by_jtext_str(r, t, v);
        else
            by_jtext_repr(r, t, v);
        struct by_jval s = by_jrun_built(r, t);
        if (flags[0]) {
            by_jrun_fail(r, BY_EUNSUPPORTED, "%%%s%c in a format is not supported", flags, kind);
            return;
        }
        by_jbuild_add(b, s);
        return;
    }
    if (!by_jops_is_number(v)) {
        by_jrun_fail(r, BY_EINVAL, "%%%c format: a number is required, not %s", kind,
                     by_jval_type_name(v));
        return;
    }
    bool is_int = strchr("dixXo", kind) != NULL;
    if (kind == 'i') kind = 'd';
    snprintf(spec, sizeof(spec), is_int ? "%%%sll%c" : "%%%s%c", flags, kind);
    double f = by_jops_number(v);
    if (is_int && !(f > -9e18 && f < 9e18)) {
        by_jrun_fail(r, BY_ELIMIT, "an integer past 64 bits");
        return;
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (is_int)
        n = snprintf(text, sizeof(text), spec,
                     v->type == BY_J_INT ? (long long)v->i : (long long)f);
    else
        n = snprintf(text, sizeof(text), spec, f);
#pragma GCC diagnostic pop
    if (n < 0 || n >= (int)sizeof(text)) {
        by_jrun_fail(r, BY_ELIMIT, "a formatted number is too long");
        return;
    }
    by_jbuild_bytes(b, text, (size_t)n, false);
}

struct by_jval by_jfunc_percent(struct by_jrun *r, const struct by_jval *format,
                                const struct by_jval *args) {
    const struct by_jval *items = args->type == BY_J_TUPLE ? args->list->at : args;
    uint32_t n_items = args->type == BY_J_TUPLE ? args->list->n : 1, used = 0;
    struct by_jbuild *b = by_jrun_build(r);
    for (uint32_t i = 0; i < format->n && !r->code; i++) {
        if (format->s[i] != '%') {
            by_jbuild_add(b, by_jval_cut(*format, i, i + 1));
            continue;
        }
        char flags[12] = {0};
        size_t n_flags = 0;
        for (i++; i < format->n && strchr("-+ #0123456789.", format->s[i]) && n_flags < 6; i++)
            flags[n_flags++] = format->s[i];
        char kind = i < format->n ? format->s[i] : 0;
        if (kind == '%' && n_flags == 0) {
            by_jbuild_addz(b, "%");
        } else if (!kind || !strchr("srdixXofFeEgG", kind)) {
            by_jrun_fail(r, BY_EUNSUPPORTED, "this %% directive is not supported in a format");
        } else if (used == n_items) {
            by_jrun_fail(r, BY_EINVAL, "not enough arguments for format string");
        } else {
            percent_one(r, b, flags, kind, &items[used++]);
        }
    }
    if (used < n_items && args->type != BY_J_DICT)
        by_jrun_fail(r, BY_EINVAL, "not all arguments converted during string formatting");
    return by_jrun_built(r, b);
}
