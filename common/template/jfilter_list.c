#include "common/template/jfilter.h"
#include "common/template/jmethod.h"
#include "common/template/jops.h"
#include "common/template/jstr.h"
#include "common/template/jtest.h"
#include "common/template/jtext.h"

/* ---- attribute paths: "function.name", "0" ---- */

static struct by_jval at_path(struct by_jrun *r, struct by_jval v, const struct by_jval *path) {
    if (path->type == BY_J_INT) return by_jops_item(r, &v, path);
    if (path->type != BY_J_STR)
        return by_jrun_fail(r, BY_EINVAL, "an attribute is named by a string");
    struct by_str rest = by_jval_bytes(path), word;
    for (bool more = true; more && !r->code;) {
        uint64_t i;
        more = by_str_split(&rest, '.', &word);
        struct by_jval key =
            by_str_to_u64(word, &i) ? by_jval_int((int64_t)i) : by_jval_str(word, false);
        v = by_jops_item(r, &v, &key);
    }
    return v;
}

static struct by_jval keyed(struct by_jrun *r, struct by_jval v, const struct by_jval *attribute) {
    return by_jfilter_given(attribute) ? at_path(r, v, attribute) : v;
}

/* ---- lists ---- */

static struct by_jval f_length(struct by_jrun *r, const struct by_jval *v,
                               const struct by_jval *arg) {
    (void)arg;
    if (v->type == BY_J_UNDEFINED) return by_jval_int(0);
    int64_t n = by_jops_len(r, v);
    return r->code ? (struct by_jval){0} : by_jval_int(n);
}

static struct by_jval f_first(struct by_jrun *r, const struct by_jval *v,
                              const struct by_jval *arg) {
    (void)arg;
    struct by_jlist *l = by_jops_iterate(r, v);
    if (!l) return (struct by_jval){0};
    return l->n ? l->at[0] : by_jval_undefined(r, "No first item, sequence was empty.");
}

static struct by_jval f_last(struct by_jrun *r, const struct by_jval *v,
                             const struct by_jval *arg) {
    (void)arg;
    struct by_jlist *l = by_jops_iterate(r, v);
    if (!l) return (struct by_jval){0};
    return l->n ? l->at[l->n - 1] : by_jval_undefined(r, "No last item, sequence was empty.");
}

static struct by_jval copy_list(struct by_jrun *r, const struct by_jval *v, enum by_jtype type) {
    struct by_jlist *l = by_jops_iterate(r, v);
    if (!l) return (struct by_jval){0};
    struct by_jval out = by_jval_list(r, type, l->n);
    for (uint32_t i = 0; !r->code && i < l->n; i++)
        by_jval_push(r, by_jval_items(&out), l->at[i]);
    return out;
}

static struct by_jval f_list(struct by_jrun *r, const struct by_jval *v,
                             const struct by_jval *arg) {
    (void)arg;
    return copy_list(r, v, BY_J_LIST);
}

static struct by_jval f_reverse(struct by_jrun *r, const struct by_jval *v,
                                const struct by_jval *arg) {
    (void)arg;
    struct by_jval parts[3] = {by_jval_none(), by_jval_none(), by_jval_int(-1)};
    if (v->type == BY_J_STR) return by_jops_slice(r, v, parts);
    struct by_jlist *l = by_jops_iterate(r, v);
    if (!l) return (struct by_jval){0};
    struct by_jval out = by_jval_list(r, BY_J_ITER, l->n);
    for (uint32_t i = l->n; !r->code && i-- > 0;)
        by_jval_push(r, by_jval_items(&out), l->at[i]);
    return out;
}

static struct by_jval f_join(struct by_jrun *r, const struct by_jval *v,
                             const struct by_jval *arg) {
    struct by_jlist *l = by_jops_iterate(r, v);
    struct by_jbuild *b = l ? by_jrun_build(r) : NULL;
    if (!b) return (struct by_jval){0};
    for (uint32_t i = 0; i < l->n && !r->code; i++) {
        struct by_jval item = keyed(r, l->at[i], &arg[1]);
        by_jrun_charge(r, 1);
        if (i && arg[0].type != BY_J_ABSENT) by_jtext_str(r, b, &arg[0]);
        if (!r->code) by_jtext_str(r, b, &item);
    }
    return by_jrun_built(r, b);
}

/* ---- sorting ---- */

struct order {
    struct by_jrun *r;
    bool ignores_case, is_reversed;
};

struct sortable {
    struct by_jval key, val;
    uint32_t at;
};

static int compare(const struct order *o, const struct sortable *a, const struct sortable *b) {
    int c = o->r->code ? 0 : by_jops_order(o->r, &a->key, &b->key, "<");
    if (c == 2) c = 0;
    return o->is_reversed ? -c : c;
}

/* Merge sort: stable, and its number of comparisons is bounded whatever the order says. */
static void merge_sort(const struct order *o, struct sortable *at, struct sortable *room,
                       uint32_t n) {
    if (n < 2 || o->r->code) return;
    uint32_t half = n / 2, i = 0, j = half;
    merge_sort(o, at, room, half);
    merge_sort(o, at + half, room, n - half);
    by_jrun_charge(o->r, n);
    for (uint32_t k = 0; k < n; k++)
        room[k] = j == n || (i < half && compare(o, &at[i], &at[j]) <= 0) ? at[i++] : at[j++];
    memcpy(at, room, n * sizeof *at);
}

static struct by_jval sort_key(struct by_jrun *r, struct by_jval v, bool ignores_case) {
    return ignores_case && v.type == BY_J_STR ? by_jstr_case(r, v, BY_JSTR_LOWER) : v;
}

static struct by_jval sorted(const struct order *o, struct by_jlist *l,
                             const struct by_jval *attribute) {
    struct by_jrun *r = o->r;
    struct sortable *at = by_jrun_get(r, (size_t)l->n * sizeof *at),
                    *room = by_jrun_get(r, (size_t)l->n * sizeof *room);
    struct by_jval out = by_jval_list(r, BY_J_LIST, l->n);
    if (!at || !room || r->code) return (struct by_jval){0};
    for (uint32_t i = 0; i < l->n; i++)
        at[i] = (struct sortable){sort_key(r, keyed(r, l->at[i], attribute), o->ignores_case),
                                  l->at[i], i};
    merge_sort(o, at, room, l->n);
    for (uint32_t i = 0; i < l->n && !r->code; i++)
        by_jval_push(r, out.list, at[i].val);
    return out;
}

static struct by_jval f_sort(struct by_jrun *r, const struct by_jval *v,
                             const struct by_jval *arg) {
    struct order o = {
        .r = r, .is_reversed = by_jfilter_flag(&arg[0]), .ignores_case = !by_jfilter_flag(&arg[1])};
    struct by_jlist *l = by_jops_iterate(r, v);
    return l ? sorted(&o, l, &arg[2]) : (struct by_jval){0};
}

static struct by_jval f_dictsort(struct by_jrun *r, const struct by_jval *v,
                                 const struct by_jval *arg) {
    struct by_jval by =
        by_jval_int(arg[1].type == BY_J_STR && by_jval_eqz(&arg[1], "value") ? 1 : 0);
    struct order o = {
        .r = r, .ignores_case = !by_jfilter_flag(&arg[0]), .is_reversed = by_jfilter_flag(&arg[2])};
    if (v->type != BY_J_DICT)
        return by_jrun_fail(r, BY_EINVAL, "dictsort needs a mapping, got '%s'",
                            by_jval_type_name(v));
    struct by_jval items = by_jmethod_items(r, v->dict);
    struct by_jlist *l = r->code ? NULL : by_jops_iterate(r, &items);
    return l ? sorted(&o, l, &by) : (struct by_jval){0};
}

static struct by_jval extreme(struct by_jrun *r, const struct by_jval *v, const struct by_jval *arg,
                              int sign) {
    struct by_jlist *l = by_jops_iterate(r, v);
    if (!l) return (struct by_jval){0};
    if (!l->n) return by_jval_undefined(r, "No aggregated item, sequence was empty.");
    uint32_t best = 0;
    for (uint32_t i = 1; i < l->n && !r->code; i++) {
        struct by_jval a = sort_key(r, keyed(r, l->at[i], &arg[1]), !by_jfilter_flag(&arg[0]));
        struct by_jval b = sort_key(r, keyed(r, l->at[best], &arg[1]), !by_jfilter_flag(&arg[0]));
        if (!r->code && by_jops_order(r, &a, &b, "<") == sign) best = i;
        by_jrun_charge(r, 1);
    }
    return l->at[best];
}

static struct by_jval f_min(struct by_jrun *r, const struct by_jval *v, const struct by_jval *arg) {
    return extreme(r, v, arg, -1);
}

static struct by_jval f_max(struct by_jrun *r, const struct by_jval *v, const struct by_jval *arg) {
    return extreme(r, v, arg, 1);
}

static struct by_jval f_unique(struct by_jrun *r, const struct by_jval *v,
                               const struct by_jval *arg) {
    struct by_jlist *l = by_jops_iterate(r, v);
    struct by_jval out = by_jval_list(r, BY_J_ITER, 0), seen = by_jval_dict(r, BY_J_DICT);
    for (uint32_t i = 0; l && i < l->n && !r->code; i++) {
        struct by_jval key = sort_key(r, keyed(r, l->at[i], &arg[1]), !by_jfilter_flag(&arg[0]));
        by_jrun_charge(r, 1);
        if (r->code || by_jval_get(r, seen.dict, key)) continue;
        if (by_jval_put(r, seen.dict, key, by_jval_bool(true)))
            by_jval_push(r, by_jval_items(&out), l->at[i]);
    }
    return out;
}

static struct by_jval f_groupby(struct by_jrun *r, const struct by_jval *v,
                                const struct by_jval *arg) {
    struct order o = {.r = r, .ignores_case = !by_jfilter_flag(&arg[2])};
    struct by_jlist *l = by_jops_iterate(r, v);
    struct by_jval list = l ? sorted(&o, l, &arg[0]) : (struct by_jval){0},
                   out = by_jval_list(r, BY_J_LIST, 0), group = {0};
    struct by_jval last = {0};
    for (uint32_t i = 0; !r->code && i < list.list->n; i++) {
        struct by_jval key = keyed(r, list.list->at[i], &arg[0]);
        if (key.type == BY_J_UNDEFINED && by_jfilter_given(&arg[1])) key = arg[1];
        if (!i || !by_jval_equal(r, &key, &last)) {
            struct by_jval pair = by_jval_list(r, BY_J_TUPLE, 2);
            group = by_jval_list(r, BY_J_LIST, 1);
            if (r->code) break;
            by_jval_push(r, pair.list, key);
            by_jval_push(r, pair.list, group);
            by_jval_push(r, out.list, pair);
        }
        by_jval_push(r, group.list, list.list->at[i]);
        last = key;
    }
    return out;
}

/* ---- map, select, reject ---- */

/* The arguments behind the first `skip`. */
static struct by_jargs rest_of(const struct by_jargs *a, uint32_t skip) {
    return (struct by_jargs){.at = a->at + BY_MIN(skip, a->n),
                             .n = a->n - BY_MIN(skip, a->n),
                             .kw = a->kw,
                             .n_kw = a->n_kw};
}

static const struct by_jval *keyword(const struct by_jargs *a, const char *name) {
    for (uint32_t i = 0; i < a->n_kw; i++) {
        if (by_str_eqz(a->kw[i].name, name)) return &a->kw[i].val;
    }
    return NULL;
}

static struct by_jval f_map(struct by_jrun *r, const struct by_jval *v,
                            const struct by_jargs *args) {
    const struct by_jval *attribute = keyword(args, "attribute"),
                         *otherwise = keyword(args, "default");
    const struct by_jfilter *f = NULL;
    if (!attribute) {
        if (!args->n || args->at[0].type != BY_J_STR)
            return by_jrun_fail(r, BY_EINVAL, "map requires a filter argument");
        f = by_jfilter_find(by_jval_bytes(&args->at[0]));
        if (!f)
            return by_jrun_fail(r, BY_EINVAL, "No filter named '" BY_STR_FMT "'.",
                                BY_STR_ARG(by_jval_bytes(&args->at[0])));
    }
    struct by_jargs rest = rest_of(args, 1);
    struct by_jlist *l = by_jops_iterate(r, v);
    struct by_jval out = by_jval_list(r, BY_J_ITER, l ? l->n : 0);
    for (uint32_t i = 0; l && i < l->n && !r->code; i++) {
        struct by_jval one =
            f ? by_jfilter_call(r, f, &l->at[i], &rest) : at_path(r, l->at[i], attribute);
        if (!f && one.type == BY_J_UNDEFINED && otherwise) one = *otherwise;
        by_jrun_charge(r, 1);
        if (!r->code) by_jval_push(r, by_jval_items(&out), one);
    }
    return out;
}

/* select, reject (no attribute) and selectattr, rejectattr: keeps what passes the test, or by truth without one. */
static struct by_jval keep(struct by_jrun *r, const struct by_jval *v, const struct by_jargs *args,
                           bool by_attr, bool want) {
    const struct by_jtest *t = NULL;
    if (by_attr && !args->n)
        return by_jrun_fail(r, BY_EINVAL, "Missing parameter for attribute name");
    struct by_jargs rest = rest_of(args, by_attr ? 1 : 0);
    if (rest.n) {
        if (rest.at[0].type != BY_J_STR)
            return by_jrun_fail(r, BY_EINVAL, "a test is named by a string");
        t = by_jtest_find(by_jval_bytes(&rest.at[0]));
        if (!t)
            return by_jrun_fail(r, BY_EINVAL, "No test named '" BY_STR_FMT "'.",
                                BY_STR_ARG(by_jval_bytes(&rest.at[0])));
    }
    struct by_jargs test_args = rest_of(&rest, 1);
    struct by_jlist *l = by_jops_iterate(r, v);
    struct by_jval out = by_jval_list(r, BY_J_ITER, 0);
    for (uint32_t i = 0; l && i < l->n && !r->code; i++) {
        struct by_jval one = by_attr ? at_path(r, l->at[i], &args->at[0]) : l->at[i];
        by_jrun_charge(r, 1);
        if (r->code) break;
        bool passes = t ? by_jtest_call(r, t, &one, &test_args) : by_jops_truth(&one);
        if (!r->code && passes == want) by_jval_push(r, by_jval_items(&out), l->at[i]);
    }
    return out;
}

static struct by_jval f_select(struct by_jrun *r, const struct by_jval *v,
                               const struct by_jargs *args) {
    return keep(r, v, args, false, true);
}

static struct by_jval f_reject(struct by_jrun *r, const struct by_jval *v,
                               const struct by_jargs *args) {
    return keep(r, v, args, false, false);
}

static struct by_jval f_selectattr(struct by_jrun *r, const struct by_jval *v,
                                   const struct by_jargs *args) {
    return keep(r, v, args, true, true);
}

static struct by_jval f_rejectattr(struct by_jrun *r, const struct by_jval *v,
                                   const struct by_jargs *args) {
    return keep(r, v, args, true, false);
}

static struct by_jval f_batch(struct by_jrun *r, const struct by_jval *v,
                              const struct by_jval *arg) {
    int64_t size = by_jfilter_whole(r, &arg[0], 1);
    struct by_jlist *l = by_jops_iterate(r, v);
    struct by_jval out = by_jval_list(r, BY_J_ITER, 0), row = {0};
    if (!r->code && size < 1)
        return by_jrun_fail(r, BY_EINVAL, "batch: at least 1 item a row is needed");
    for (uint32_t i = 0; l && i < l->n && !r->code; i++) {
        if (i % size == 0) {
            row = by_jval_list(r, BY_J_LIST, 0);
            by_jval_push(r, by_jval_items(&out), row);
        }
        if (!r->code) by_jval_push(r, row.list, l->at[i]);
    }
    for (int64_t n = l && l->n ? (size - l->n % size) % size : 0;
         by_jfilter_given(&arg[1]) && n > 0 && !r->code; n--) {
        by_jrun_charge(r, 1);
        by_jval_push(r, row.list, arg[1]);
    }
    return out;
}

static struct by_jval f_sum(struct by_jrun *r, const struct by_jval *v, const struct by_jval *arg) {
    struct by_jlist *l = by_jops_iterate(r, v);
    struct by_jval total = arg[1].type == BY_J_ABSENT ? by_jval_int(0) : arg[1];
    for (uint32_t i = 0; l && i < l->n && !r->code; i++) {
        struct by_jval one = keyed(r, l->at[i], &arg[0]);
        by_jrun_charge(r, 1);
        if (!r->code) total = by_jops_binary(r, BY_JOP_ADD, &total, &one);
    }
    return total;
}

const struct by_jfilter by_jfilter_lists[] = {
    {"length", "", 0, f_length, NULL},
    {"count", "", 0, f_length, NULL},
    {"first", "", 0, f_first, NULL},
    {"last", "", 0, f_last, NULL},
    {"list", "", 0, f_list, NULL},
    {"reverse", "", 0, f_reverse, NULL},
    {"join", "d attribute", 0, f_join, NULL},
    {"sort", "reverse case_sensitive attribute", 0, f_sort, NULL},
    {"dictsort", "case_sensitive by reverse", 0, f_dictsort, NULL},
    {"min", "case_sensitive attribute", 0, f_min, NULL},
    {"max", "case_sensitive attribute", 0, f_max, NULL},
    {"unique", "case_sensitive attribute", 0, f_unique, NULL},
    {"groupby", "attribute default case_sensitive", 1, f_groupby, NULL},
    {"map", NULL, 0, NULL, f_map},
    {"select", NULL, 0, NULL, f_select},
    {"reject", NULL, 0, NULL, f_reject},
    {"selectattr", NULL, 0, NULL, f_selectattr},
    {"rejectattr", NULL, 0, NULL, f_rejectattr},
    {"batch", "linecount fill_with", 1, f_batch, NULL},
    {"sum", "attribute start", 0, f_sum, NULL},
    {NULL, NULL, 0, NULL, NULL},
};
