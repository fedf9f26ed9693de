#include "common/template/jmethod.h"

#include "common/template/jops.h"
#include "common/template/jstr.h"

enum { V = BY_JFUNC_PARAMS_MAX };

static struct by_jval dict_get(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    const struct by_jval *found = by_jval_get(r, self.dict, v[0]);
    return found ? *found : v[1].type == BY_J_ABSENT ? by_jval_none() : v[1];
}

struct by_jval by_jmethod_items(struct by_jrun *r, const struct by_jdict *d) {
    by_jrun_charge(r, d->n);
    struct by_jval out = by_jval_list(r, BY_J_LIST, d->n);
    for (uint32_t i = 0; i < d->n && !r->code; i++) {
        struct by_jval pair = by_jval_list(r, BY_J_TUPLE, 2);
        if (r->code) break;
        by_jval_push(r, pair.list, d->at[i].key);
        by_jval_push(r, pair.list, d->at[i].val);
        by_jval_push(r, out.list, pair);
    }
    return out;
}

static struct by_jval dict_items(struct by_jrun *r, struct by_jval self,
                                 const struct by_jval v[V]) {
    (void)v;
    return by_jmethod_items(r, self.dict);
}

static struct by_jval dict_keys(struct by_jrun *r, struct by_jval self, const struct by_jval v[V]) {
    (void)v;
    struct by_jlist *l = by_jops_iterate(r, &self);
    return l ? (struct by_jval){.type = BY_J_LIST, .list = l} : (struct by_jval){0};
}

static struct by_jval dict_values(struct by_jrun *r, struct by_jval self,
                                  const struct by_jval v[V]) {
    (void)v;
    by_jrun_charge(r, self.dict->n);
    struct by_jval out = by_jval_list(r, BY_J_LIST, self.dict->n);
    for (uint32_t i = 0; i < self.dict->n && !r->code; i++)
        by_jval_push(r, out.list, self.dict->at[i].val);
    return out;
}

static struct by_jval self_itself(struct by_jrun *r, struct by_jval self,
                                  const struct by_jval v[V]) {
    (void)r;
    (void)v;
    return self; /* copy(): values never change, so the same one will do */
}

static const struct by_jmethod dict_methods[] = {
    {"get", "key default", 1, dict_get}, {"items", "", 0, dict_items}, {"keys", "", 0, dict_keys},
    {"values", "", 0, dict_values},      {"copy", "", 0, self_itself}, {NULL, NULL, 0, NULL},
};

static struct by_jval list_index(struct by_jrun *r, struct by_jval self,
                                 const struct by_jval v[V]) {
    by_jrun_charge(r, self.list->n);
    for (uint32_t i = 0; i < self.list->n && !r->code; i++)
        if (by_jval_equal(r, &self.list->at[i], &v[0])) return by_jval_int(i);
    return by_jrun_fail(r, BY_EINVAL, "the value is not in the list");
}

static struct by_jval list_count(struct by_jrun *r, struct by_jval self,
                                 const struct by_jval v[V]) {
    int64_t n = 0;
    by_jrun_charge(r, self.list->n);
    for (uint32_t i = 0; i < self.list->n && !r->code; i++)
        n += by_jval_equal(r, &self.list->at[i], &v[0]);
    return by_jval_int(n);
}

static const struct by_jmethod list_methods[] = {
    {"index", "value", 1, list_index},
    {"count", "value", 1, list_count},
    {"copy", "", 0, self_itself},
    {NULL, NULL, 0, NULL},
};

struct by_jval by_jmethod_call(struct by_jrun *r, const struct by_jmethod *m, struct by_jval self,
                               const struct by_jargs *args) {
    struct by_jval v[V];
    if (r->code || !by_jfunc_bind(r, m->name, args, m->params, m->n_need, v))
        return (struct by_jval){0};
    return m->call(r, self, v);
}

static struct by_jval call_method(struct by_jrun *r, struct by_jfunc *self,
                                  const struct by_jargs *args) {
    return by_jmethod_call(r, self->method, self->self, args);
}

static const struct by_jmethod *find_method(const struct by_jmethod *rows, struct by_str name) {
    for (; rows->name; rows++) {
        if (by_str_eqz(name, rows->name)) return rows;
    }
    return NULL;
}

static bool is_word_of(const char *words, struct by_str name) {
    struct by_str rest = by_str_of(words), word;
    for (bool more = true; more;) {
        more = by_str_split(&rest, ' ', &word);
        if (by_str_eq(word, name)) return true;
    }
    return false;
}

/* What the sandbox keeps from templates: it may be looked at (undefined), but any use says why it is not there. */
static struct by_jval unsafe(struct by_jrun *r, const struct by_jval *obj,
                             const struct by_jval *name) {
    return by_jval_undefined(r, "access to attribute '" BY_STR_FMT "' of '%s' object is unsafe",
                             BY_STR_ARG(by_jval_bytes(name)), by_jval_type_name(obj));
}

static struct by_jval loop_cycle(struct by_jrun *r, struct by_jfunc *self,
                                 const struct by_jargs *args) {
    if (args->n == 0) return by_jrun_fail(r, BY_EINVAL, "no items for cycling given");
    return args->at[self->self.loop->at % args->n];
}

static struct by_jval loop_changed(struct by_jrun *r, struct by_jfunc *self,
                                   const struct by_jargs *args) {
    struct by_jloop *loop = self->self.loop;
    struct by_jval now = by_jval_list(r, BY_J_TUPLE, args->n);
    for (uint32_t i = 0; i < args->n && !r->code; i++)
        by_jval_push(r, now.list, args->at[i]);
    bool is_same = loop->last_seen.type != BY_J_ABSENT && by_jval_equal(r, &loop->last_seen, &now);
    loop->last_seen = now;
    return by_jval_bool(!is_same);
}

enum loop_attr {
    LOOP_NONE,
    LOOP_INDEX,
    LOOP_INDEX0,
    LOOP_FIRST,
    LOOP_LAST,
    LOOP_LENGTH,
    LOOP_REVINDEX,
    LOOP_REVINDEX0,
    LOOP_DEPTH,
    LOOP_DEPTH0,
    LOOP_PREVITEM,
    LOOP_NEXTITEM,
    LOOP_CYCLE,
    LOOP_CHANGED,
};
static const char *const loop_attrs[] = {
    [LOOP_INDEX] = "index",         [LOOP_INDEX0] = "index0",     [LOOP_FIRST] = "first",
    [LOOP_LAST] = "last",           [LOOP_LENGTH] = "length",     [LOOP_REVINDEX] = "revindex",
    [LOOP_REVINDEX0] = "revindex0", [LOOP_DEPTH] = "depth",       [LOOP_DEPTH0] = "depth0",
    [LOOP_PREVITEM] = "previtem",   [LOOP_NEXTITEM] = "nextitem", [LOOP_CYCLE] = "cycle",
    [LOOP_CHANGED] = "changed",
};

static struct by_jval loop_value(struct by_jrun *r, const struct by_jval *obj,
                                 enum loop_attr what) {
    const struct by_jloop *l = obj->loop;
    uint32_t n = l->items->n;
    struct by_jfunc f = {.call = loop_cycle, .name = "cycle", .self = *obj};
    switch (what) {
    case LOOP_NONE:
        break;
    case LOOP_INDEX:
        return by_jval_int((int64_t)l->at + 1);
    case LOOP_INDEX0:
        return by_jval_int(l->at);
    case LOOP_FIRST:
        return by_jval_bool(l->at == 0);
    case LOOP_LAST:
        return by_jval_bool(l->at + 1 == n);
    case LOOP_LENGTH:
        return by_jval_int(n);
    case LOOP_REVINDEX:
        return by_jval_int((int64_t)n - l->at);
    case LOOP_REVINDEX0:
        return by_jval_int((int64_t)n - l->at - 1);
    case LOOP_DEPTH:
        return by_jval_int((int64_t)l->nesting + 1);
    case LOOP_DEPTH0:
        return by_jval_int(l->nesting);
    case LOOP_PREVITEM:
        return l->at ? l->items->at[l->at - 1] : by_jval_undefined(r, "there is no previous item");
    case LOOP_NEXTITEM:
        return l->at + 1 < n ? l->items->at[l->at + 1]
                             : by_jval_undefined(r, "there is no next item");
    case LOOP_CYCLE:
        return by_jfunc_new(r, &f);
    case LOOP_CHANGED:
        f.call = loop_changed;
        f.name = "changed";
        return by_jfunc_new(r, &f);
    }
    return (struct by_jval){0};
}

const struct by_jattr *by_jmethod_find(struct by_jattr *a, struct by_str name) {
    bool is_dunder = name.n >= 2 && name.p[0] == '_' && name.p[1] == '_';
    *a = (struct by_jattr){.str = find_method(by_jstr_methods, name),
                           .dict = find_method(dict_methods, name),
                           .list = find_method(list_methods, name)};
    for (size_t i = LOOP_INDEX; i < BY_COUNTOF(loop_attrs); i++)
        if (by_str_eqz(name, loop_attrs[i])) a->loop = (uint8_t)i;
    a->is_dict_unsafe = is_word_of("clear pop popitem setdefault update", name);
    a->is_list_unsafe = is_word_of("append clear pop reverse insert sort extend remove", name);
    a->is_unsafe =
        is_dunder && is_word_of("__class__ __dict__ __doc__ __init__ __subclasses__ __mro__ "
                                "__globals__ __getattribute__",
                                name);
    bool is_any = a->str || a->dict || a->list || a->loop || a->is_dict_unsafe ||
                  a->is_list_unsafe || a->is_unsafe;
    return is_any ? a : NULL;
}

const struct by_jmethod *by_jmethod_of(const struct by_jattr *a, const struct by_jval *obj) {
    switch (obj->type) {
    case BY_J_STR:
        return a->str;
    case BY_J_DICT:
        return a->dict;
    case BY_J_LIST:
    case BY_J_TUPLE:
        return a->list;
    default:
        return NULL;
    }
}

struct by_jval by_jmethod_attr(struct by_jrun *r, const struct by_jval *obj,
                               const struct by_jval *name, const struct by_jattr *attr) {
    if (obj->type == BY_J_NAMESPACE) {
        const struct by_jval *found = by_jval_get(r, obj->dict, *name);
        return found ? *found : (struct by_jval){0};
    }
    if (obj->type == BY_J_FUNC && obj->func->macro && by_jval_eqz(name, "name"))
        return by_jval_lit(obj->func->name);
    if (!attr) return (struct by_jval){0};
    if (obj->type == BY_J_LOOP) return loop_value(r, obj, (enum loop_attr)attr->loop);
    const struct by_jmethod *m = by_jmethod_of(attr, obj);
    if (m) {
        struct by_jfunc f = {.call = call_method, .name = m->name, .self = *obj, .method = m};
        return by_jfunc_new(r, &f);
    }
    if ((obj->type == BY_J_DICT && attr->is_dict_unsafe) ||
        (obj->type == BY_J_LIST && attr->is_list_unsafe) ||
        (obj->type != BY_J_UNDEFINED && attr->is_unsafe))
        return unsafe(r, obj, name);
    return (struct by_jval){0};
}

bool by_jmethod_is_refused(struct by_str name) {
    return is_word_of("format format_map encode decode translate maketrans expandtabs casefold "
                      "isidentifier isprintable "
                      "isascii istitle rindex fromkeys",
                      name);
}
