#include "common/template/jops.h"

#include "common/template/jchar.h"
#include "common/template/jfunc.h"
#include "common/template/jmethod.h"
#include "common/template/jtext.h"

#include <math.h>

bool by_jops_truth(const struct by_jval *v) {
    switch (v->type) {
    case BY_J_ABSENT:
    case BY_J_UNDEFINED:
    case BY_J_NONE:
        return false;
    case BY_J_BOOL:
        return v->b;
    case BY_J_INT:
        return v->i != 0;
    case BY_J_FLOAT:
        return v->f != 0;
    case BY_J_STR:
        return v->n > 0;
    case BY_J_LIST:
    case BY_J_TUPLE:
        return v->list->n > 0;
    case BY_J_DICT:
        return v->dict->n > 0;
    default:
        return true;
    }
}

bool by_jops_is_number(const struct by_jval *v) {
    return v->type == BY_J_BOOL || v->type == BY_J_INT || v->type == BY_J_FLOAT;
}

double by_jops_number(const struct by_jval *v) {
    return v->type == BY_J_BOOL ? v->b : v->type == BY_J_INT ? (double)v->i : v->f;
}

static bool is_whole(const struct by_jval *v) {
    return v->type == BY_J_BOOL || v->type == BY_J_INT;
}

static int64_t whole(const struct by_jval *v) {
    return v->type == BY_J_BOOL ? v->b : v->i;
}

static int order_lists(struct by_jrun *r, const struct by_jlist *a, const struct by_jlist *b,
                       const char *op) {
    by_jrun_charge(r, BY_MIN(a->n, b->n));
    for (uint32_t i = 0; i < a->n && i < b->n && !r->code; i++)
        if (!by_jval_equal(r, &a->at[i], &b->at[i]))
            return by_jops_order(r, &a->at[i], &b->at[i], op);
    return (a->n > b->n) - (a->n < b->n);
}

int by_jops_order(struct by_jrun *r, const struct by_jval *a, const struct by_jval *b,
                  const char *op) {
    if (is_whole(a) && is_whole(b)) return (whole(a) > whole(b)) - (whole(a) < whole(b));
    if (by_jops_is_number(a) && by_jops_is_number(b)) {
        double x = by_jops_number(a), y = by_jops_number(b);
        return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
    }
    /* the order of UTF-8 bytes is that of code points */
    if (a->type == BY_J_STR && b->type == BY_J_STR) {
        by_jrun_charge_bytes(r, BY_MIN(a->n, b->n));
        int c = by_str_cmp(by_jval_bytes(a), by_jval_bytes(b));
        return (c > 0) - (c < 0);
    }
    if (a->type == b->type && (a->type == BY_J_LIST || a->type == BY_J_TUPLE)) {
        if (++r->depth > BY_JVAL_DEPTH_MAX)
            by_jrun_fail(r, BY_ELIMIT, "a value is nested too deep");
        int c = r->code ? 0 : order_lists(r, a->list, b->list, op);
        r->depth--;
        return c;
    }
    by_jrun_fail(r, BY_EINVAL, "'%s' not supported between instances of '%s' and '%s'", op,
                 by_jval_type_name(a), by_jval_type_name(b));
    return 0;
}

bool by_jops_contains(struct by_jrun *r, const struct by_jval *in, const struct by_jval *what) {
    switch (in->type) {
    case BY_J_STR:
        if (what->type != BY_J_STR) {
            by_jrun_fail(r, BY_EINVAL, "'in <string>' requires string as left operand, not %s",
                         by_jval_type_name(what));
            return false;
        }
        by_jrun_charge(r, in->n / 64);
        return by_str_find(by_jval_bytes(in), by_jval_bytes(what), 0) != SIZE_MAX;
    case BY_J_DICT:
    case BY_J_NAMESPACE:
        return by_jval_get(r, in->dict, *what) != NULL;
    case BY_J_LIST:
    case BY_J_TUPLE:
    case BY_J_ITER: {
        const struct by_jlist *l = by_jops_iterate(r, in);
        if (l) by_jrun_charge(r, l->n / 4);
        for (uint32_t i = 0; l && i < l->n && !r->code; i++)
            if (by_jval_equal(r, &l->at[i], what)) return true;
        return false;
    }
    case BY_J_UNDEFINED:
        return false;
    default:
        by_jrun_fail(r, BY_EINVAL, "argument of type '%s' is not iterable", by_jval_type_name(in));
        return false;
    }
}

bool by_jops_compare(struct by_jrun *r, enum by_jcmp op, const struct by_jval *a,
                     const struct by_jval *b) {
    switch (op) {
    case BY_JCMP_EQ:
        return by_jval_equal(r, a, b);
    case BY_JCMP_NE:
        return !by_jval_equal(r, a, b);
    case BY_JCMP_IN:
        return by_jops_contains(r, b, a);
    case BY_JCMP_NOT_IN:
        return !by_jops_contains(r, b, a);
    case BY_JCMP_LT:
        return by_jops_order(r, a, b, "<") == -1;
    case BY_JCMP_GT:
        return by_jops_order(r, a, b, ">") == 1;
    case BY_JCMP_LE: {
        int c = by_jops_order(r, a, b, "<=");
        return c == -1 || c == 0;
    }
    case BY_JCMP_GE: {
        int c = by_jops_order(r, a, b, ">=");
        return c == 1 || c == 0;
    }
    }
    return false;
}

static struct by_jval join_lists(struct by_jrun *r, const struct by_jval *a,
                                 const struct by_jval *b) {
    uint64_t n = (uint64_t)a->list->n + b->list->n;
    by_jrun_charge(r, n / 8);
    if (r->code) return (struct by_jval){0};
    struct by_jval v = by_jval_list(r, a->type, (uint32_t)n);
    if (r->code) return v;
    if (a->list->n) memcpy(v.list->at, a->list->at, a->list->n * sizeof(struct by_jval));
    if (b->list->n)
        memcpy(v.list->at + a->list->n, b->list->at, b->list->n * sizeof(struct by_jval));
    v.list->n = (uint32_t)n;
    return v;
}

static struct by_jval repeat(struct by_jrun *r, const struct by_jval *v, int64_t times) {
    uint64_t each = v->type == BY_J_STR ? v->n : v->list->n;
    uint64_t limit = v->type == BY_J_STR ? BY_JVAL_OUTPUT_MAX : BY_JVAL_STEPS_MAX;
    if (times < 0) times = 0;
    if (each && (uint64_t)times > limit / each)
        return by_jrun_fail(r, BY_ELIMIT, "a value repeated %lld times is too large",
                            (long long)times);
    if (each == 0) times = 0;
    if (v->type == BY_J_STR) {
        struct by_jbuild *b = by_jrun_build(r);
        by_jrun_charge(r, (uint64_t)times);
        for (int64_t i = 0; i < times && !r->code; i++)
            by_jbuild_add(b, *v);
        return by_jrun_built(r, b);
    }
    struct by_jval out = by_jval_list(r, v->type, (uint32_t)(each * (uint64_t)times));
    for (int64_t i = 0; i < times && !r->code; i++) {
        by_jrun_charge(r, each);
        for (uint32_t k = 0; k < each; k++)
            by_jval_push(r, out.list, v->list->at[k]);
    }
    return out;
}

static int64_t floor_div(int64_t a, int64_t b) {
    int64_t q = a / b;
    return q - ((a % b != 0) && ((a < 0) != (b < 0)));
}

static double float_mod(double x, double y) {
    double m = fmod(x, y);
    return m != 0 && (m < 0) != (y < 0) ? m + y : m;
}

/* base ** exp for exp >= 0; false: does not fit. */
static bool int_pow(int64_t base, int64_t exp, int64_t *out) {
    int64_t v = 1;
    while (exp > 0) {
        if ((exp & 1) && __builtin_mul_overflow(v, base, &v)) return false;
        exp >>= 1;
        if (exp && __builtin_mul_overflow(base, base, &base)) return false;
    }
    *out = v;
    return true;
}

static struct by_jval zero_division(struct by_jrun *r) {
    return by_jrun_fail(r, BY_EINVAL, "division by zero");
}

static struct by_jval int_op(struct by_jrun *r, enum by_jop op, int64_t x, int64_t y) {
    int64_t v = 0;
    bool overflows = false;
    switch (op) {
    case BY_JOP_ADD:
        overflows = __builtin_add_overflow(x, y, &v);
        break;
    case BY_JOP_SUB:
        overflows = __builtin_sub_overflow(x, y, &v);
        break;
    case BY_JOP_MUL:
        overflows = __builtin_mul_overflow(x, y, &v);
        break;
    case BY_JOP_DIV:
        return y == 0 ? zero_division(r) : by_jval_float((double)x / (double)y);
    case BY_JOP_FLOORDIV:
        if (y == 0) return zero_division(r);
        overflows = x == INT64_MIN && y == -1;
        if (!overflows) v = floor_div(x, y);
        break;
    case BY_JOP_MOD:
        if (y == 0) return zero_division(r);
        if (y != -1) v = x - floor_div(x, y) * y;
        break;
    case BY_JOP_POW:
        if (y < 0) return x == 0 ? zero_division(r) : by_jval_float(pow((double)x, (double)y));
        overflows = !int_pow(x, y, &v);
        break;
    }
    if (overflows) return by_jrun_fail(r, BY_ELIMIT, "an integer past 64 bits");
    return by_jval_int(v);
}

static struct by_jval float_op(struct by_jrun *r, enum by_jop op, double x, double y) {
    switch (op) {
    case BY_JOP_ADD:
        return by_jval_float(x + y);
    case BY_JOP_SUB:
        return by_jval_float(x - y);
    case BY_JOP_MUL:
        return by_jval_float(x * y);
    case BY_JOP_DIV:
        return y == 0 ? zero_division(r) : by_jval_float(x / y);
    case BY_JOP_FLOORDIV:
        return y == 0 ? zero_division(r) : by_jval_float(floor((x - float_mod(x, y)) / y + 0.5));
    case BY_JOP_MOD:
        return y == 0 ? zero_division(r) : by_jval_float(float_mod(x, y));
    case BY_JOP_POW:
        if (x < 0 && y != floor(y)) return by_jrun_fail(r, BY_EUNSUPPORTED, "a complex number");
        return x == 0 && y < 0 ? zero_division(r) : by_jval_float(pow(x, y));
    }
    return (struct by_jval){0};
}

static struct by_jval wrong_types(struct by_jrun *r, enum by_jop op, const struct by_jval *a,
                                  const struct by_jval *b) {
    static const char *const signs[] = {"+", "-", "*", "/", "//", "%", "**"};
    const struct by_jval *u = a->type == BY_J_UNDEFINED ? a : b->type == BY_J_UNDEFINED ? b : NULL;
    if (u) return by_jrun_fail_undefined(r, u);
    const char *an = by_jval_type_name(a), *bn = by_jval_type_name(b);
    if (op == BY_JOP_ADD && (a->type == BY_J_STR || a->type == BY_J_LIST || a->type == BY_J_TUPLE))
        return by_jrun_fail(r, BY_EINVAL, "can only concatenate %s (not \"%s\") to %s", an, bn, an);
    return by_jrun_fail(r, BY_EINVAL, "unsupported operand type(s) for %s: '%s' and '%s'",
                        signs[op], an, bn);
}

struct by_jval by_jops_binary(struct by_jrun *r, enum by_jop op, const struct by_jval *a,
                              const struct by_jval *b) {
    if (op == BY_JOP_ADD && a->type == BY_J_STR && b->type == BY_J_STR)
        return by_jrun_join(r, (struct by_jval[2]){*a, *b}, 2);
    if (is_whole(a) && is_whole(b)) return int_op(r, op, whole(a), whole(b));
    if (by_jops_is_number(a) && by_jops_is_number(b))
        return float_op(r, op, by_jops_number(a), by_jops_number(b));
    bool a_seq = a->type == BY_J_STR || a->type == BY_J_LIST || a->type == BY_J_TUPLE;
    bool b_seq = b->type == BY_J_STR || b->type == BY_J_LIST || b->type == BY_J_TUPLE;
    if (op == BY_JOP_ADD && a->type == b->type && a_seq) return join_lists(r, a, b);
    if (op == BY_JOP_MUL && a_seq && is_whole(b)) return repeat(r, a, whole(b));
    if (op == BY_JOP_MUL && b_seq && is_whole(a)) return repeat(r, b, whole(a));
    if (op == BY_JOP_MOD && a->type == BY_J_STR) return by_jfunc_percent(r, a, b);
    return wrong_types(r, op, a, b);
}

struct by_jval by_jops_negate(struct by_jrun *r, const struct by_jval *a, bool keep) {
    if (is_whole(a)) {
        if (keep) return by_jval_int(whole(a));
        return int_op(r, BY_JOP_SUB, 0, whole(a));
    }
    if (a->type == BY_J_FLOAT) return by_jval_float(keep ? a->f : -a->f);
    if (a->type == BY_J_UNDEFINED) return wrong_types(r, BY_JOP_SUB, a, a);
    return by_jrun_fail(r, BY_EINVAL, "bad operand type for unary %s: '%s'", keep ? "+" : "-",
                        by_jval_type_name(a));
}

int64_t by_jops_len(struct by_jrun *r, const struct by_jval *v) {
    switch (v->type) {
    case BY_J_STR:
        by_jrun_charge(r, v->n / 64);
        return (int64_t)by_jchar_count(by_jval_bytes(v));
    case BY_J_LIST:
    case BY_J_TUPLE:
        return v->list->n;
    case BY_J_DICT:
        return v->dict->n;
    case BY_J_UNDEFINED:
        return 0;
    default:
        by_jrun_fail(r, BY_EINVAL, "object of type '%s' has no len()", by_jval_type_name(v));
        return -1;
    }
}

static struct by_jval no_attr(struct by_jrun *r, const struct by_jval *obj,
                              const struct by_jval *name) {
    if (obj->type == BY_J_UNDEFINED) return by_jrun_fail_undefined(r, obj);
    struct by_jval text = by_jtext_to_str(r, *name);
    return by_jval_missing(by_jval_type_name(obj), by_jval_bytes(&text));
}

/* The character or item number i; negative counts from the end; ABSENT when it is not there. */
static struct by_jval index_at(struct by_jrun *r, const struct by_jval *obj, int64_t i) {
    if (obj->type == BY_J_STR) {
        struct by_str s = by_jval_bytes(obj);
        by_jrun_charge(r, s.n / 64);
        if (i < 0) i += (int64_t)by_jchar_count(s);
        size_t from = i < 0 ? s.n : by_jchar_offset(s, (size_t)i);
        if (from == s.n) return (struct by_jval){0};
        struct by_str rest = {s.p + from, s.n - from};
        return by_jval_cut(*obj, from, from + by_jchar_offset(rest, 1));
    }
    int64_t n = obj->list->n;
    if (i < 0) i += n;
    return i < 0 || i >= n ? (struct by_jval){0} : obj->list->at[i];
}

static struct by_jval own_item(struct by_jrun *r, const struct by_jval *obj,
                               const struct by_jval *key) {
    if (obj->type == BY_J_DICT) {
        const struct by_jval *found = by_jval_get(r, obj->dict, *key);
        return found ? *found : (struct by_jval){0};
    }
    bool is_seq = obj->type == BY_J_STR || obj->type == BY_J_LIST || obj->type == BY_J_TUPLE;
    if (is_seq && is_whole(key)) return index_at(r, obj, whole(key));
    return (struct by_jval){0};
}

struct by_jval by_jops_attr(struct by_jrun *r, const struct by_jval *obj,
                            const struct by_jval *name, const struct by_jattr *attr) {
    struct by_jval v = by_jmethod_attr(r, obj, name, attr);
    if (v.type == BY_J_ABSENT) v = own_item(r, obj, name);
    return v.type == BY_J_ABSENT && !r->code ? no_attr(r, obj, name) : v;
}

struct by_jval by_jops_item_named(struct by_jrun *r, const struct by_jval *obj,
                                  const struct by_jval *key, const struct by_jattr *attr) {
    struct by_jval v = own_item(r, obj, key);
    if (v.type == BY_J_ABSENT) v = by_jmethod_attr(r, obj, key, attr);
    return v.type == BY_J_ABSENT && !r->code ? no_attr(r, obj, key) : v;
}

struct by_jval by_jops_item(struct by_jrun *r, const struct by_jval *obj,
                            const struct by_jval *key) {
    struct by_jattr attr;
    struct by_jval v = own_item(r, obj, key);
    if (v.type == BY_J_ABSENT && key->type == BY_J_STR)
        v = by_jmethod_attr(r, obj, key, by_jmethod_find(&attr, by_jval_bytes(key)));
    return v.type == BY_J_ABSENT && !r->code ? no_attr(r, obj, key) : v;
}

/* Python's slice.indices: clamps start and stop for a sequence of n, fills the defaults. false: failed. */
static bool slice_bounds(struct by_jrun *r, const struct by_jval part[3], int64_t n,
                         int64_t out[3]) {
    for (int i = 0; i < 3; i++)
        if (part[i].type != BY_J_NONE && !is_whole(&part[i])) {
            by_jrun_fail(r, BY_EINVAL, "slice indices must be integers or None");
            return false;
        }
    int64_t step = part[2].type == BY_J_NONE ? 1 : whole(&part[2]);
    if (step == 0) {
        by_jrun_fail(r, BY_EINVAL, "slice step cannot be zero");
        return false;
    }
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    for (int i = 0; i < 2; i++) {
        int64_t v;
        if (part[i].type == BY_J_NONE) {
            v = (i == 0) == (step > 0) ? low : high;
        } else {
            v = whole(&part[i]);
            if (v < 0) v = v < -n ? low : v + n;
            v = BY_MAX(low, BY_MIN(high, v));
        }
        out[i] = v;
    }
    out[2] = BY_MAX(step, -INT64_MAX);
    return true;
}

static struct by_jval slice_str(struct by_jrun *r, const struct by_jval *obj, const int64_t at[3],
                                uint64_t n) {
    struct by_str s = by_jval_bytes(obj);
    if (at[2] == 1) {
        size_t from = by_jchar_offset(s, (size_t)at[0]);
        struct by_str rest = {s.p + from, s.n - from};
        return by_jval_cut(*obj, from, from + by_jchar_offset(rest, n));
    }
    struct by_jval chars = {.type = BY_J_STR};
    struct by_jlist *l = by_jops_iterate(r, obj);
    struct by_jbuild *b = by_jrun_build(r);
    for (uint64_t i = 0; l && i < n; i++) {
        chars = l->at[at[0] + (int64_t)i * at[2]];
        by_jbuild_add(b, chars);
    }
    return by_jrun_built(r, b);
}

struct by_jval by_jops_slice(struct by_jrun *r, const struct by_jval *obj,
                             const struct by_jval part[3]) {
    if (obj->type != BY_J_STR && obj->type != BY_J_LIST && obj->type != BY_J_TUPLE) {
        struct by_jval name = by_jval_lit("slice");
        return no_attr(r, obj, &name);
    }
    int64_t len = by_jops_len(r, obj), at[3];
    if (r->code || !slice_bounds(r, part, len, at)) return (struct by_jval){0};
    int64_t span = at[2] > 0 ? at[1] - at[0] : at[0] - at[1], step = at[2] > 0 ? at[2] : -at[2];
    uint64_t n = span > 0 ? (uint64_t)((span - 1) / step + 1) : 0;
    by_jrun_charge(r, n / 8);
    if (obj->type == BY_J_STR) return n ? slice_str(r, obj, at, n) : by_jval_cut(*obj, 0, 0);
    struct by_jval v = by_jval_list(r, obj->type, (uint32_t)n);
    for (uint64_t i = 0; i < n && !r->code; i++)
        by_jval_push(r, v.list, obj->list->at[at[0] + (int64_t)i * at[2]]);
    return v;
}

static struct by_jlist *characters(struct by_jrun *r, const struct by_jval *v) {
    struct by_str s = by_jval_bytes(v);
    size_t n = by_jchar_count(s);
    by_jrun_charge(r, n);
    if (r->code) return NULL;
    struct by_jval out = by_jval_list(r, BY_J_LIST, (uint32_t)n);
    for (size_t i = 0, len; i < s.n && !r->code; i += len) {
        for (len = 1; i + len < s.n && ((unsigned char)s.p[i + len] & 0xc0) == 0x80;)
            len++;
        by_jval_push(r, out.list, by_jval_cut(*v, i, i + len));
    }
    return out.list;
}

struct by_jlist *by_jops_iterate(struct by_jrun *r, const struct by_jval *v) {
    struct by_jval out;
    if (r->code) return NULL;
    switch (v->type) {
    case BY_J_LIST:
    case BY_J_TUPLE:
        return v->list;
    case BY_J_STR:
        return characters(r, v);
    case BY_J_DICT:
        by_jrun_charge(r, v->dict->n);
        out = by_jval_list(r, BY_J_LIST, v->dict->n);
        for (uint32_t i = 0; i < v->dict->n && !r->code; i++)
            by_jval_push(r, out.list, v->dict->at[i].key);
        return out.list;
    case BY_J_ITER:
        out = by_jval_list(r, BY_J_LIST, 0);
        if (r->code) return NULL;
        out.list->at = v->iter->list->at + v->iter->pos;
        out.list->n = out.list->cap = v->iter->list->n - v->iter->pos;
        v->iter->pos = v->iter->list->n;
        return out.list;
    case BY_J_UNDEFINED:
        out = by_jval_list(r, BY_J_LIST, 0);
        return r->code ? NULL : out.list;
    default:
        by_jrun_fail(r, BY_EINVAL, "'%s' object is not iterable", by_jval_type_name(v));
        return NULL;
    }
}
