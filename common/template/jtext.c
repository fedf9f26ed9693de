#include "common/template/jtext.h"

#include "common/base/utf8.h"
#include "common/template/jchar.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The fewest digits that read back as the same double; exp10 is that of the first digit. */
static size_t shortest_digits(double f, char digits[20], int *exp10) {
    char text[40];
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof(text), "%.*e", precision, f);
        if (strtod(text, NULL) == f || precision == 16) break;
    }
    char *e = strchr(text, 'e');
    *exp10 = (int)strtol(e + 1, NULL, 10);
    size_t n = 0;
    for (char *p = text; p < e; p++)
        if (*p >= '0' && *p <= '9') digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    return n;
}

size_t by_jtext_float(double f, char out[BY_JTEXT_FLOAT_MAX]) {
    if (isnan(f) || isinf(f)) {
        const char *z = isnan(f) ? "nan" : f > 0 ? "inf" : "-inf";
        memcpy(out, z, strlen(z) + 1);
        return strlen(z);
    }
    char digits[20];
    int exp10;
    size_t n = shortest_digits(fabs(f), digits, &exp10), at = 0;
    if (signbit(f)) out[at++] = '-';
    if (exp10 < -4 || exp10 >= 16) { /* 1.5e-05, 1e+16 */
        out[at++] = digits[0];
        if (n > 1) {
            out[at++] = '.';
            memcpy(out + at, digits + 1, n - 1);
            at += n - 1;
        }
        return at + (size_t)snprintf(out + at, BY_JTEXT_FLOAT_MAX - at, "e%c%02d",
                                     exp10 < 0 ? '-' : '+', abs(exp10));
    }
    if (exp10 < 0) {
        out[at++] = '0';
        out[at++] = '.';
        for (int i = -1; i > exp10; i--)
            out[at++] = '0';
        memcpy(out + at, digits, n);
        return at + n;
    }
    for (int i = 0; i <= exp10 || i < (int)n; i++) {
        if (i == exp10 + 1) out[at++] = '.';
        out[at++] = i < (int)n ? digits[i] : '0';
    }
    if ((int)n <= exp10 + 1) {
        out[at++] = '.';
        out[at++] = '0';
    }
    return at;
}

static void add_int(struct by_jbuild *b, int64_t i) {
    char text[24];
    int n = snprintf(text, sizeof(text), "%lld", (long long)i);
    by_jbuild_bytes(b, text, (size_t)n, false);
}

static void add_float(struct by_jbuild *b, double f, bool is_json) {
    char text[BY_JTEXT_FLOAT_MAX];
    size_t n = by_jtext_float(f, text);
    if (is_json && isnan(f))
        by_jbuild_addz(b, "NaN");
    else if (is_json && isinf(f))
        by_jbuild_addz(b, f > 0 ? "Infinity" : "-Infinity");
    else
        by_jbuild_bytes(b, text, n, false);
}

static bool who_wrote(const struct by_jval *str, size_t i) {
    return str->marks ? str->marks[i] : str->is_user;
}

/* The escape for character cp in Python's repr; 0 bytes: it stands for itself. */
static size_t repr_escape(uint32_t cp, char quote, char out[12]) {
    switch (cp) {
    case '\n':
        return (size_t)snprintf(out, 12, "\\n");
    case '\r':
        return (size_t)snprintf(out, 12, "\\r");
    case '\t':
        return (size_t)snprintf(out, 12, "\\t");
    case '\\':
        return (size_t)snprintf(out, 12, "\\\\");
    default:
        break;
    }
    if (cp == (uint32_t)quote) return (size_t)snprintf(out, 12, "\\%c", quote);
    if (by_jchar_is_print(cp)) return 0;
    if (cp < 0x100) return (size_t)snprintf(out, 12, "\\x%02x", (unsigned)cp);
    return (size_t)snprintf(out, 12, cp < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)cp);
}

static void repr_str(struct by_jrun *r, struct by_jbuild *b, const struct by_jval *v) {
    bool has_single = v->n && memchr(v->s, '\'', v->n),
         has_double = v->n && memchr(v->s, '"', v->n);
    char quote = has_single && !has_double ? '"' : '\'';
    by_jrun_charge(r, v->n / 16);
    by_jbuild_bytes(b, &quote, 1, false);
    size_t start = 0, len;
    for (size_t i = 0; i < v->n; i += len) {
        char escape[12];
        uint32_t cp = by_utf8_decode(v->s + i, v->n - i, &len);
        size_t n = repr_escape(cp, quote, escape);
        if (n == 0) continue;
        by_jbuild_add(b, by_jval_cut(*v, start, i));
        by_jbuild_bytes(b, escape, n, who_wrote(v, i));
        start = i + len;
    }
    by_jbuild_add(b, by_jval_cut(*v, start, v->n));
    by_jbuild_bytes(b, &quote, 1, false);
}

static void repr_at(struct by_jrun *r, struct by_jbuild *b, const struct by_jval *v,
                    uint32_t depth);

static void repr_items(struct by_jrun *r, struct by_jbuild *b, const struct by_jval *v,
                       uint32_t depth) {
    const struct by_jlist *l = v->list;
    bool is_tuple = v->type == BY_J_TUPLE;
    by_jbuild_addz(b, is_tuple ? "(" : "[");
    for (uint32_t i = 0; i < l->n && !r->code; i++) {
        if (i) by_jbuild_addz(b, ", ");
        repr_at(r, b, &l->at[i], depth);
    }
    by_jbuild_addz(b, is_tuple ? (l->n == 1 ? ",)" : ")") : "]");
}

static void repr_dict(struct by_jrun *r, struct by_jbuild *b, const struct by_jdict *d,
                      uint32_t depth) {
    by_jbuild_addz(b, "{");
    for (uint32_t i = 0; i < d->n && !r->code; i++) {
        if (i) by_jbuild_addz(b, ", ");
        repr_at(r, b, &d->at[i].key, depth);
        by_jbuild_addz(b, ": ");
        repr_at(r, b, &d->at[i].val, depth);
    }
    by_jbuild_addz(b, "}");
}

static void repr_at(struct by_jrun *r, struct by_jbuild *b, const struct by_jval *v,
                    uint32_t depth) {
    by_jrun_charge(r, 1);
    if (depth > BY_JVAL_DEPTH_MAX)
        by_jrun_fail(r, BY_ELIMIT, "a value is nested more than %d deep", BY_JVAL_DEPTH_MAX);
    if (r->code) return;
    switch (v->type) {
    case BY_J_STR:
        repr_str(r, b, v);
        break;
    case BY_J_LIST:
    case BY_J_TUPLE:
        repr_items(r, b, v, depth + 1);
        break;
    case BY_J_NAMESPACE:
        by_jbuild_addz(b, "<Namespace ");
        repr_dict(r, b, v->dict, depth + 1);
        by_jbuild_addz(b, ">");
        break;
    case BY_J_DICT:
        repr_dict(r, b, v->dict, depth + 1);
        break;
    case BY_J_UNDEFINED:
        by_jbuild_addz(b, "Undefined");
        break;
    default:
        by_jtext_str(r, b, v);
    }
}

void by_jtext_repr(struct by_jrun *r, struct by_jbuild *b, const struct by_jval *v) {
    repr_at(r, b, v, 0);
}

void by_jtext_str(struct by_jrun *r, struct by_jbuild *b, const struct by_jval *v) {
    switch (v->type) {
    case BY_J_ABSENT:
    case BY_J_UNDEFINED:
        break;
    case BY_J_NONE:
        by_jbuild_addz(b, "None");
        break;
    case BY_J_BOOL:
        by_jbuild_addz(b, v->b ? "True" : "False");
        break;
    case BY_J_INT:
        add_int(b, v->i);
        break;
    case BY_J_FLOAT:
        add_float(b, v->f, false);
        break;
    case BY_J_BIG:
        by_jbuild_bytes(b, v->s, v->n, true);
        break;
    case BY_J_STR:
        by_jbuild_add(b, *v);
        break;
    case BY_J_ITER:
        by_jbuild_addz(b, "<generator>");
        break;
    case BY_J_LOOP:
        by_jbuild_addz(b, "<LoopContext>");
        break;
    case BY_J_FUNC:
        by_jbuild_addz(b, "<function>");
        break;
    default:
        by_jtext_repr(r, b, v);
    }
}

struct by_jval by_jtext_to_str(struct by_jrun *r, struct by_jval v) {
    if (v.type == BY_J_STR) return v;
    struct by_jbuild *b = by_jrun_build(r);
    by_jtext_str(r, b, &v);
    return by_jrun_built(r, b);
}

/* The escape for character cp in JSON; 0 bytes: it stands for itself. */
static size_t json_escape(uint32_t cp, bool ensure_ascii, char out[16]) {
    static const char shorts[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *at = cp && cp < 0x80 ? strchr(shorts, (int)cp) : NULL;
    if (at) {
        out[0] = '\\';
        out[1] = letters[at - shorts];
        return 2;
    }
    if (cp >= 0x20 && (cp < 0x7f || !ensure_ascii)) return 0;
    if (cp < 0x10000) return (size_t)snprintf(out, 16, "\\u%04x", (unsigned)cp);
    unsigned rest = (unsigned)cp - 0x10000;
    return (size_t)snprintf(out, 16, "\\u%04x\\u%04x", 0xd800 + (rest >> 10),
                            0xdc00 + (rest & 0x3ff));
}

static void json_str(struct by_jbuild *b, const struct by_jval *v, bool ensure_ascii) {
    by_jbuild_addz(b, "\"");
    size_t start = 0, len;
    for (size_t i = 0; i < v->n; i += len) {
        unsigned char c = (unsigned char)v->s[i];
        len = 1;
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') continue;
        uint32_t cp = by_utf8_decode(v->s + i, v->n - i, &len);
        char escape[16];
        size_t n = json_escape(cp, ensure_ascii, escape);
        if (n == 0) continue;
        by_jbuild_add(b, by_jval_cut(*v, start, i));
        by_jbuild_bytes(b, escape, n, who_wrote(v, i));
        start = i + len;
    }
    by_jbuild_add(b, by_jval_cut(*v, start, v->n));
    by_jbuild_addz(b, "\"");
}

struct json_out {
    struct by_jrun *r;
    struct by_jbuild *b;
    const struct by_jtext_json *how;
};

static void json_newline(const struct json_out *o, uint32_t level) {
    if (!o->how->has_indent) return;
    by_jbuild_addz(o->b, "\n");
    for (uint32_t i = 0; i < level; i++)
        by_jbuild_bytes(o->b, o->how->indent.p, o->how->indent.n, false);
}

static void json_sep(const struct json_out *o, uint32_t i, uint32_t level) {
    if (i) by_jbuild_bytes(o->b, o->how->item_sep.p, o->how->item_sep.n, false);
    json_newline(o, level);
}

static void json_at(const struct json_out *o, const struct by_jval *v, uint32_t depth);

/* Python turns keys that are numbers, booleans or None into strings. */
static void json_key(const struct json_out *o, const struct by_jval *k) {
    if (k->type == BY_J_STR) {
        json_str(o->b, k, o->how->ensure_ascii);
    } else if (k->type == BY_J_INT || k->type == BY_J_FLOAT || k->type == BY_J_BOOL ||
               k->type == BY_J_NONE || k->type == BY_J_BIG) {
        by_jbuild_addz(o->b, "\"");
        json_at(o, k, 0);
        by_jbuild_addz(o->b, "\"");
    } else {
        by_jrun_fail(o->r, BY_EINVAL, "tojson: keys must be str, int, float, bool or None, not %s",
                     by_jval_type_name(k));
    }
    by_jbuild_bytes(o->b, o->how->key_sep.p, o->how->key_sep.n, false);
}

static int by_key(const void *a, const void *b) {
    const struct by_jentry *x = a, *y = b;
    return by_str_cmp(by_jval_bytes(&x->key), by_jval_bytes(&y->key));
}

static void json_dict(const struct json_out *o, const struct by_jdict *d, uint32_t depth) {
    const struct by_jentry *at = d->at;
    if (o->how->sort_keys && d->n > 1) {
        struct by_jentry *sorted = by_jrun_get(o->r, d->n * sizeof(*sorted));
        if (!sorted) return;
        memcpy(sorted, d->at, d->n * sizeof(*sorted));
        for (uint32_t i = 0; i < d->n; i++)
            if (sorted[i].key.type != BY_J_STR) {
                by_jrun_fail(o->r, BY_EINVAL, "tojson: sort_keys needs keys that are str");
                return;
            }
        qsort(sorted, d->n, sizeof(*sorted), by_key);
        at = sorted;
    }
    by_jbuild_addz(o->b, "{");
    for (uint32_t i = 0; i < d->n && !o->r->code; i++) {
        json_sep(o, i, depth);
        json_key(o, &at[i].key);
        json_at(o, &at[i].val, depth);
    }
    if (d->n) json_newline(o, depth - 1);
    by_jbuild_addz(o->b, "}");
}

static void json_list(const struct json_out *o, const struct by_jlist *l, uint32_t depth) {
    by_jbuild_addz(o->b, "[");
    for (uint32_t i = 0; i < l->n && !o->r->code; i++) {
        json_sep(o, i, depth);
        json_at(o, &l->at[i], depth);
    }
    if (l->n) json_newline(o, depth - 1);
    by_jbuild_addz(o->b, "]");
}

static void json_at(const struct json_out *o, const struct by_jval *v, uint32_t depth) {
    by_jrun_charge(o->r, 1);
    if (depth > BY_JVAL_DEPTH_MAX)
        by_jrun_fail(o->r, BY_ELIMIT, "a value is nested more than %d deep", BY_JVAL_DEPTH_MAX);
    if (o->r->code) return;
    switch (v->type) {
    case BY_J_NONE:
        by_jbuild_addz(o->b, "null");
        break;
    case BY_J_BOOL:
        by_jbuild_addz(o->b, v->b ? "true" : "false");
        break;
    case BY_J_INT:
        add_int(o->b, v->i);
        break;
    case BY_J_FLOAT:
        add_float(o->b, v->f, true);
        break;
    case BY_J_BIG:
        by_jbuild_bytes(o->b, v->s, v->n, true);
        break;
    case BY_J_STR:
        json_str(o->b, v, o->how->ensure_ascii);
        break;
    case BY_J_LIST:
    case BY_J_TUPLE:
        json_list(o, v->list, depth + 1);
        break;
    case BY_J_DICT:
        json_dict(o, v->dict, depth + 1);
        break;
    default:
        by_jrun_fail(o->r, BY_EINVAL, "tojson: an object of type %s is not JSON serializable",
                     by_jval_type_name(v));
    }
}

void by_jtext_json(struct by_jrun *r, struct by_jbuild *b, const struct by_jval *v,
                   const struct by_jtext_json *how) {
    struct json_out o = {.r = r, .b = b, .how = how};
    json_at(&o, v, 0);
}
