#include "common/template/jtest.h"

#include "common/template/jfilter.h"
#include "common/template/jops.h"
#include "common/template/jtext.h"

#include <math.h>

#define TEST_FN(name) \
    static bool name(struct by_jrun *r, const struct by_jval *v, const struct by_jval *arg)

TEST_FN(is_defined) {
    (void)r, (void)arg;
    return v->type != BY_J_UNDEFINED;
}
TEST_FN(is_undefined) {
    (void)r, (void)arg;
    return v->type == BY_J_UNDEFINED;
}
TEST_FN(is_none) {
    (void)r, (void)arg;
    return v->type == BY_J_NONE;
}
TEST_FN(is_boolean) {
    (void)r, (void)arg;
    return v->type == BY_J_BOOL;
}
TEST_FN(is_true) {
    (void)r, (void)arg;
    return v->type == BY_J_BOOL && v->b;
}
TEST_FN(is_false) {
    (void)r, (void)arg;
    return v->type == BY_J_BOOL && !v->b;
}
TEST_FN(is_integer) {
    (void)r, (void)arg;
    return v->type == BY_J_INT || v->type == BY_J_BIG;
}
TEST_FN(is_float) {
    (void)r, (void)arg;
    return v->type == BY_J_FLOAT;
}
TEST_FN(is_number) {
    (void)r, (void)arg;
    return by_jops_is_number(v) || v->type == BY_J_BIG;
}
TEST_FN(is_string) {
    (void)r, (void)arg;
    return v->type == BY_J_STR;
}
TEST_FN(is_mapping) {
    (void)r, (void)arg;
    return v->type == BY_J_DICT;
}
/* Whatever has len() and can be indexed: Undefined has a length and __getitem__ that raises, so it is not one. */
TEST_FN(is_sequence) {
    (void)r, (void)arg;
    return v->type == BY_J_STR || v->type == BY_J_LIST || v->type == BY_J_TUPLE ||
           v->type == BY_J_DICT;
}
TEST_FN(is_iterable) {
    (void)arg;
    return is_sequence(r, v, arg) || v->type == BY_J_ITER || v->type == BY_J_UNDEFINED ||
           v->type == BY_J_LOOP;
}
TEST_FN(is_callable) {
    (void)r, (void)arg;
    return v->type == BY_J_FUNC;
}
/* str(v).islower() and isupper(): cased characters, all of one case. */
static bool has_case(struct by_jrun *r, const struct by_jval *v, const char *method) {
    struct by_jattr attr;
    struct by_jval str = by_jtext_to_str(r, *v), name = by_jval_lit(method),
                   f = by_jops_attr(r, &str, &name, by_jmethod_find(&attr, by_str_of(method)));
    struct by_jargs none = {0};
    struct by_jval found = by_jfunc_call(r, &f, &none);
    return found.type == BY_J_BOOL && found.b;
}
TEST_FN(is_lower) {
    (void)arg;
    return has_case(r, v, "islower");
}
TEST_FN(is_upper) {
    (void)arg;
    return has_case(r, v, "isupper");
}
TEST_FN(is_same) {
    (void)r;
    if (v->type != arg->type) return false;
    return v->type == BY_J_STR ? v->s == arg->s && v->n == arg->n : by_jval_equal(r, v, arg);
}
TEST_FN(is_in) {
    return by_jops_contains(r, arg, v);
}

static int64_t remainder_of(struct by_jrun *r, const struct by_jval *v, int64_t by) {
    struct by_jval divisor = by_jval_int(by), m = by_jops_binary(r, BY_JOP_MOD, v, &divisor);
    return m.type == BY_J_INT ? m.i : m.type == BY_J_FLOAT && m.f == floor(m.f) ? (int64_t)m.f : -1;
}
TEST_FN(is_odd) {
    (void)arg;
    return remainder_of(r, v, 2) == 1;
}
TEST_FN(is_even) {
    (void)arg;
    return remainder_of(r, v, 2) == 0;
}
TEST_FN(is_divisible) {
    struct by_jval m = by_jops_binary(r, BY_JOP_MOD, v, arg);
    return !r->code && by_jops_is_number(&m) && by_jops_number(&m) == 0;
}
TEST_FN(is_eq) {
    return by_jops_compare(r, BY_JCMP_EQ, v, arg);
}
TEST_FN(is_ne) {
    return by_jops_compare(r, BY_JCMP_NE, v, arg);
}
TEST_FN(is_lt) {
    return by_jops_compare(r, BY_JCMP_LT, v, arg);
}
TEST_FN(is_le) {
    return by_jops_compare(r, BY_JCMP_LE, v, arg);
}
TEST_FN(is_gt) {
    return by_jops_compare(r, BY_JCMP_GT, v, arg);
}
TEST_FN(is_ge) {
    return by_jops_compare(r, BY_JCMP_GE, v, arg);
}
TEST_FN(is_filter) {
    (void)r, (void)arg;
    return v->type == BY_J_STR && by_jfilter_find(by_jval_bytes(v));
}
TEST_FN(is_test) {
    (void)r, (void)arg;
    return v->type == BY_J_STR && by_jtest_find(by_jval_bytes(v));
}
TEST_FN(is_escaped) {
    (void)r, (void)v, (void)arg;
    return false;
}

static const struct by_jtest tests[] = {
    {"defined", 0, is_defined},
    {"undefined", 0, is_undefined},
    {"none", 0, is_none},
    {"boolean", 0, is_boolean},
    {"true", 0, is_true},
    {"false", 0, is_false},
    {"integer", 0, is_integer},
    {"float", 0, is_float},
    {"number", 0, is_number},
    {"string", 0, is_string},
    {"mapping", 0, is_mapping},
    {"sequence", 0, is_sequence},
    {"iterable", 0, is_iterable},
    {"callable", 0, is_callable},
    {"lower", 0, is_lower},
    {"upper", 0, is_upper},
    {"sameas", 1, is_same},
    {"in", 1, is_in},
    {"odd", 0, is_odd},
    {"even", 0, is_even},
    {"divisibleby", 1, is_divisible},
    {"eq", 1, is_eq},
    {"equalto", 1, is_eq},
    {"==", 1, is_eq},
    {"ne", 1, is_ne},
    {"!=", 1, is_ne},
    {"lt", 1, is_lt},
    {"lessthan", 1, is_lt},
    {"<", 1, is_lt},
    {"le", 1, is_le},
    {"<=", 1, is_le},
    {"gt", 1, is_gt},
    {"greaterthan", 1, is_gt},
    {">", 1, is_gt},
    {"ge", 1, is_ge},
    {">=", 1, is_ge},
    {"filter", 0, is_filter},
    {"test", 0, is_test},
    {"escaped", 0, is_escaped},
};

const struct by_jtest *by_jtest_find(struct by_str name) {
    for (size_t i = 0; i < BY_COUNTOF(tests); i++)
        if (by_str_eqz(name, tests[i].name)) return &tests[i];
    return NULL;
}

bool by_jtest_call(struct by_jrun *r, const struct by_jtest *t, const struct by_jval *v,
                   const struct by_jargs *args) {
    if (r->code) return false;
    if (args->n_kw || args->n != t->n_args) {
        by_jrun_fail(r, BY_EINVAL, "the test '%s' takes %u arguments", t->name, t->n_args);
        return false;
    }
    return t->test(r, v, args->n ? &args->at[0] : NULL);
}
