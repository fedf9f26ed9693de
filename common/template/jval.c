#include "common/template/jval.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/base/rand.h"

#include <stdarg.h>
#include <stdio.h>

enum {
    INDEX_FROM = 9,        /* entries: below, a walk is faster than a hash */
    BUILD_FIRST = 256,     /* bytes of a text under construction */
    BUILDS_KEPT = 1 << 20, /* bytes of them that stay from run to run */
};

void by_jrun_init(struct by_jrun *r) {
    *r = (struct by_jrun){0};
    by_arena_init(&r->arena, BY_JVAL_ARENA_MAX);
}

static void release_builds(struct by_jrun *r) {
    while (r->all_builds) {
        struct by_jbuild *b = r->all_builds;
        r->all_builds = b->next_all;
        by_free(b->p);
        by_free(b->marks);
        by_free(b);
    }
    r->free_builds = NULL;
}

void by_jrun_release(struct by_jrun *r) {
    release_builds(r);
    by_arena_release(&r->arena);
    *r = (struct by_jrun){0};
}

void by_jrun_clear(struct by_jrun *r, struct by_err *err) {
    size_t kept = 0;
    for (const struct by_jbuild *b = r->all_builds; b; b = b->next_all)
        kept += b->cap;
    if (kept > BUILDS_KEPT) release_builds(r);
    r->free_builds = r->all_builds;
    for (struct by_jbuild *b = r->all_builds; b; b = b->next_all) {
        b->next_free = b->next_all;
        b->n = 0;
        b->is_full = b->has_user = b->has_trusted = false;
    }
    by_arena_clear(&r->arena);
    *r = (struct by_jrun){.arena = r->arena,
                          .err = err,
                          .steps_left = BY_JVAL_STEPS_MAX,
                          .all_builds = r->all_builds,
                          .free_builds = r->free_builds};
}

struct by_jval by_jrun_fail(struct by_jrun *r, int code, const char *fmt, ...) {
    if (r->code) return (struct by_jval){0};
    char text[BY_ERR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (r->line)
        r->code = by_fail(r->err, code, "chat template, line %u: %s", r->line, text);
    else /* it has not begun: what it is given is wrong */
        r->code = by_fail(r->err, code, "%s", text);
    r->steps_left = -1;
    return (struct by_jval){0};
}

bool by_jrun_is_short(struct by_jrun *r) {
    by_jrun_fail(r, BY_ELIMIT, "it takes more than %d steps", BY_JVAL_STEPS_MAX);
    return true;
}

static void *no_room(struct by_jrun *r) {
    by_jrun_fail(r, BY_ELIMIT, "its values take more than %d bytes", BY_JVAL_ARENA_MAX);
    return NULL;
}

void *by_jrun_get(struct by_jrun *r, size_t n) {
    void *p = r->code ? NULL : by_arena_try(&r->arena, n);
    return p ? p : no_room(r);
}

/* Room for a text, and for its marks if it is mixed. */
static char *get_text(struct by_jrun *r, size_t n, bool is_mixed) {
    char *p = r->code ? NULL : by_arena_try_raw(&r->arena, is_mixed ? 2 * n : n);
    return p ? p : no_room(r);
}

struct by_jbuild *by_jrun_build(struct by_jrun *r) {
    struct by_jbuild *b = r->free_builds;
    if (b) {
        r->free_builds = b->next_free;
        return b;
    }
    b = by_alloc(sizeof(*b));
    b->next_all = r->all_builds;
    r->all_builds = b;
    return b;
}

struct by_jval by_jrun_built(struct by_jrun *r, struct by_jbuild *b) {
    struct by_jval v = by_jval_str((struct by_str){0}, b->has_user);
    size_t n = b->n;
    if (b->is_full)
        by_jrun_fail(r, BY_ELIMIT, "it builds a text of more than %d bytes", BY_JVAL_OUTPUT_MAX);
    by_jrun_charge(r, n / 64);
    bool is_mixed = b->has_user && b->has_trusted;
    char *p = n ? get_text(r, n, is_mixed) : NULL;
    if (p) {
        memcpy(p, b->p, n);
        if (is_mixed) memcpy(p + n, b->marks, n);
        v.s = p;
        v.n = (uint32_t)n;
        v.marks = is_mixed ? (const uint8_t *)p + n : NULL;
    }
    b->n = 0;
    b->is_full = b->has_user = b->has_trusted = false;
    b->next_free = r->free_builds;
    r->free_builds = b;
    return v;
}

/* How a text of several is marked: by its first, or with a mark for each byte. */
static bool is_mixture(const struct by_jval *strs, uint32_t n) {
    const struct by_jval *first = NULL;
    for (uint32_t i = 0; i < n; i++) {
        if (!strs[i].n) continue;
        if (strs[i].marks || (first && first->is_user != strs[i].is_user)) return true;
        first = &strs[i];
    }
    return false;
}

struct by_jval by_jrun_join(struct by_jrun *r, const struct by_jval *strs, uint32_t n) {
    const struct by_jval *only = NULL;
    size_t bytes = 0, at = 0, n_full = 0;
    for (uint32_t i = 0; i < n; i++) {
        bytes += strs[i].n;
        n_full += strs[i].n > 0;
        if (strs[i].n) only = &strs[i];
    }
    if (n_full < 2) return n_full ? *only : by_jval_lit("");
    if (bytes > BY_JVAL_OUTPUT_MAX)
        return by_jrun_fail(r, BY_ELIMIT, "it builds a text of more than %d bytes",
                            BY_JVAL_OUTPUT_MAX);
    by_jrun_charge(r, bytes / 64);
    bool is_mixed = is_mixture(strs, n);
    char *p = get_text(r, bytes, is_mixed);
    if (!p) return (struct by_jval){0};
    for (uint32_t i = 0; i < n; at += strs[i++].n) {
        if (!strs[i].n) continue;
        memcpy(p + at, strs[i].s, strs[i].n);
        if (is_mixed && strs[i].marks) memcpy(p + bytes + at, strs[i].marks, strs[i].n);
        if (is_mixed && !strs[i].marks) memset(p + bytes + at, strs[i].is_user, strs[i].n);
    }
    struct by_jval v = by_jval_str((struct by_str){p, bytes}, only->is_user);
    v.marks = is_mixed ? (const uint8_t *)p + bytes : NULL;
    return v;
}

bool by_jbuild_grow(struct by_jbuild *b, size_t n) {
    if (n > BY_JVAL_OUTPUT_MAX - b->n) b->is_full = true;
    if (b->is_full) return false;
    size_t cap = BY_MAX(b->cap * 2, (size_t)BUILD_FIRST);
    cap = BY_MAX(cap, b->n + n);
    b->p = by_realloc(b->p, cap + BY_JBUILD_SLACK);
    b->marks = by_realloc(b->marks, cap + BY_JBUILD_SLACK);
    b->cap = cap;
    return true;
}

/* Most pieces of a prompt are a few bytes long: they go without a call. */
void by_jbuild_bytes(struct by_jbuild *b, const char *p, size_t n, bool is_user) {
    if (n == 0 || (n > b->cap - b->n && !by_jbuild_grow(b, n))) return;
    char *to = b->p + b->n;
    uint8_t *marks = b->marks + b->n;
    if (n <= BY_JBUILD_SLACK) {
        static_assert(BY_JBUILD_SLACK == 16, "as many bytes as one of these stores");
        memset(marks, is_user, 16);
        if (n >= 8) {
            uint64_t x, y; /* first and last eight, which may overlap */
            memcpy(&x, p, 8);
            memcpy(&y, p + n - 8, 8);
            memcpy(to, &x, 8);
            memcpy(to + n - 8, &y, 8);
        } else {
            for (size_t i = 0; i < n; i++)
                to[i] = p[i];
        }
    } else {
        memcpy(to, p, n);
        memset(marks, is_user, n);
    }
    b->n += n;
    *(is_user ? &b->has_user : &b->has_trusted) = true;
}

void by_jbuild_mixed(struct by_jbuild *b, const struct by_jval *str) {
    size_t n = str->n;
    if (n == 0 || (n > b->cap - b->n && !by_jbuild_grow(b, n))) return;
    memcpy(b->p + b->n, str->s, n);
    memcpy(b->marks + b->n, str->marks, n);
    b->n += n;
    if (!b->has_user) b->has_user = memchr(str->marks, 1, n) != NULL;
    if (!b->has_trusted) b->has_trusted = memchr(str->marks, 0, n) != NULL;
}

struct by_jval by_jval_cut(struct by_jval str, size_t from, size_t to) {
    by_assert(from <= to && to <= str.n);
    str.s += from;
    str.n = (uint32_t)(to - from);
    if (str.marks) str.marks += from;
    return str;
}

struct by_jval by_jval_undefined(struct by_jrun *r, const char *fmt, ...) {
    char text[256];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    size_t len = BY_MIN((size_t)BY_MAX(n, 0), sizeof(text) - 1);
    char *p = by_jrun_get(r, len + 1);
    if (!p) return (struct by_jval){0};
    memcpy(p, text, len);
    return (struct by_jval){.type = BY_J_UNDEFINED, .s = p, .n = (uint32_t)len, .is_user = true};
}

struct by_jval by_jrun_fail_undefined(struct by_jrun *r, const struct by_jval *u) {
    enum { SHOWN = 80 }; /* bytes of the name */
    struct by_str name = {u->s, u->n};
    if (u->is_user) return by_jrun_fail(r, BY_EINVAL, BY_STR_FMT, BY_STR_ARG(name));
    name = by_str_sub(name, 0, SHOWN);
    if (!u->of)
        return by_jrun_fail(r, BY_EINVAL, "'" BY_STR_FMT "' is undefined", BY_STR_ARG(name));
    bool is_none = by_str_eqz(BY_STR("NoneType"), u->of);
    return by_jrun_fail(r, BY_EINVAL, "'%s%s' has no attribute '" BY_STR_FMT "'",
                        is_none ? "None" : u->of, is_none ? "" : " object", BY_STR_ARG(name));
}

const char *by_jval_type_name(const struct by_jval *v) {
    static const char *const names[] = {
        [BY_J_ABSENT] = "nothing", [BY_J_UNDEFINED] = "Undefined",
        [BY_J_NONE] = "NoneType",  [BY_J_BOOL] = "bool",
        [BY_J_INT] = "int",        [BY_J_FLOAT] = "float",
        [BY_J_BIG] = "int",        [BY_J_STR] = "str",
        [BY_J_LIST] = "list",      [BY_J_TUPLE] = "tuple",
        [BY_J_DICT] = "dict",      [BY_J_NAMESPACE] = "Namespace",
        [BY_J_ITER] = "generator", [BY_J_LOOP] = "LoopContext",
        [BY_J_FUNC] = "function",
    };
    return names[v->type];
}

struct by_jval by_jval_list(struct by_jrun *r, enum by_jtype type, uint32_t cap) {
    struct by_jlist *l = by_jrun_get(r, sizeof(*l));
    if (!l) return (struct by_jval){0};
    if (cap) {
        l->at = by_jrun_get(r, cap * sizeof(*l->at));
        if (!l->at) return (struct by_jval){0};
        l->cap = cap;
    }
    if (type != BY_J_ITER) return (struct by_jval){.type = (uint8_t)type, .list = l};
    struct by_jiter *it = by_jrun_get(r, sizeof(*it));
    if (!it) return (struct by_jval){0};
    it->list = l;
    return (struct by_jval){.type = BY_J_ITER, .iter = it};
}

struct by_jlist *by_jval_items(const struct by_jval *v) {
    by_assert(v->type == BY_J_LIST || v->type == BY_J_TUPLE || v->type == BY_J_ITER);
    return v->type == BY_J_ITER ? v->iter->list : v->list;
}

void by_jval_push(struct by_jrun *r, struct by_jlist *l, struct by_jval v) {
    if (l->n == l->cap) {
        uint32_t cap = BY_MAX(4u, l->cap * 2);
        struct by_jval *at = by_jrun_get(r, cap * sizeof(*at));
        if (!at) return;
        if (l->n) memcpy(at, l->at, l->n * sizeof(*at));
        l->at = at;
        l->cap = cap;
    }
    l->at[l->n++] = v;
}

struct by_jval by_jval_dict(struct by_jrun *r, enum by_jtype type) {
    struct by_jdict *d = by_jrun_get(r, sizeof(*d));
    if (!d) return (struct by_jval){0};
    return (struct by_jval){.type = (uint8_t)type, .dict = d};
}

static bool as_number(const struct by_jval *v, double *out) {
    switch (v->type) {
    case BY_J_BOOL:
        *out = v->b;
        return true;
    case BY_J_INT:
        *out = (double)v->i;
        return true;
    case BY_J_FLOAT:
        *out = v->f;
        return true;
    default:
        return false;
    }
}

/* Equal keys hash alike: 1, 1.0 and true are one key. */
static uint64_t hash_key(struct by_jrun *r, const struct by_jval *k, uint32_t depth) {
    double f;
    static uint64_t seed; /* else a request could bring keys that all fall into one place */
    if (!seed) seed = by_rand_u64() | 1;
    if (k->type == BY_J_STR || k->type == BY_J_BIG) {
        by_jrun_charge_bytes(r, k->n);
        return (by_str_hash(by_jval_bytes(k)) * seed) >> 32;
    }
    if (as_number(k, &f)) return by_str_hash((struct by_str){(const char *)&f, sizeof(f)});
    uint64_t h = k->type;
    if (k->type != BY_J_TUPLE || depth >= BY_JVAL_DEPTH_MAX) return h;
    by_jrun_charge(r, k->list->n);
    for (uint32_t i = 0; i < k->list->n && !r->code; i++)
        h = h * 31 + hash_key(r, &k->list->at[i], depth + 1);
    return h;
}

static bool is_hashable(struct by_jrun *r, const struct by_jval *k, uint32_t depth) {
    if (k->type == BY_J_STR) return true;
    if (k->type == BY_J_LIST || k->type == BY_J_DICT || k->type == BY_J_ABSENT) return false;
    if (k->type != BY_J_TUPLE) return true;
    if (depth >= BY_JVAL_DEPTH_MAX) return false;
    by_jrun_charge(r, k->list->n);
    for (uint32_t i = 0; i < k->list->n && !r->code; i++)
        if (!is_hashable(r, &k->list->at[i], depth + 1)) return false;
    return true;
}

static void index_put(struct by_jdict *d, uint32_t pos) {
    uint32_t mask = d->index_cap - 1, i = (uint32_t)d->at[pos].hash & mask;
    while (d->index[i])
        i = (i + 1) & mask;
    d->index[i] = pos + 1;
}

/* Position of key in d->at, or d->n. */
static uint32_t find(struct by_jrun *r, const struct by_jdict *d, const struct by_jval *key,
                     uint64_t hash) {
    if (!d->index) {
        bool is_str = key->type == BY_J_STR;
        if (is_str) by_jrun_charge_bytes(r, (size_t)key->n * d->n);
        for (uint32_t i = 0; i < d->n; i++) {
            const struct by_jval *k = &d->at[i].key;
            if (is_str ? k->type == BY_J_STR && by_jval_same(k, key) : by_jval_equal(r, k, key))
                return i;
        }
        return d->n;
    }
    uint32_t mask = d->index_cap - 1;
    for (uint32_t i = (uint32_t)hash & mask; d->index[i]; i = (i + 1) & mask) {
        const struct by_jentry *e = &d->at[d->index[i] - 1];
        if (e->hash == hash && by_jval_equal(r, &e->key, key)) return d->index[i] - 1;
    }
    return d->n;
}

static void grow(struct by_jrun *r, struct by_jdict *d) {
    uint32_t cap = BY_MAX(4u, d->cap * 2);
    struct by_jentry *at = by_jrun_get(r, cap * sizeof(*at));
    if (!at) return;
    if (d->n) memcpy(at, d->at, d->n * sizeof(*at));
    d->at = at;
    d->cap = cap;
    if (cap < INDEX_FROM) return;
    uint32_t *index = by_jrun_get(r, (size_t)cap * 2 * sizeof(*index));
    if (!index) return;
    d->index = index;
    d->index_cap = cap * 2;
    for (uint32_t i = 0; i < d->n; i++) {
        d->at[i].hash = hash_key(r, &d->at[i].key, 0);
        index_put(d, i);
    }
}

bool by_jval_put(struct by_jrun *r, struct by_jdict *d, struct by_jval key, struct by_jval val) {
    if (!is_hashable(r, &key, 0)) {
        by_jrun_fail(r, BY_EINVAL, "unhashable type: '%s'", by_jval_type_name(&key));
        return false;
    }
    uint64_t hash = d->index ? hash_key(r, &key, 0) : 0;
    uint32_t i = find(r, d, &key, hash);
    if (i < d->n) {
        d->at[i].val = val; /* the first key stays, as in Python */
        return true;
    }
    if (d->n == d->cap) grow(r, d);
    if (r->code) return false;
    d->at[d->n] =
        (struct by_jentry){.key = key, .val = val, .hash = d->index ? hash_key(r, &key, 0) : 0};
    d->n++;
    if (d->index) index_put(d, d->n - 1);
    return true;
}

const struct by_jval *by_jval_get(struct by_jrun *r, const struct by_jdict *d, struct by_jval key) {
    uint32_t i = find(r, d, &key, d->index ? hash_key(r, &key, 0) : 0);
    return i < d->n ? &d->at[i].val : NULL;
}

const struct by_jval *by_jval_getz(struct by_jrun *r, const struct by_jdict *d, struct by_str key) {
    return by_jval_get(r, d, by_jval_str(key, false));
}

static bool equal_at(struct by_jrun *r, const struct by_jval *a, const struct by_jval *b,
                     uint32_t depth);

static bool lists_equal(struct by_jrun *r, const struct by_jlist *a, const struct by_jlist *b,
                        uint32_t depth) {
    if (a == b) return true;
    if (a->n != b->n) return false;
    by_jrun_charge(r, a->n);
    for (uint32_t i = 0; i < a->n; i++)
        if (!equal_at(r, &a->at[i], &b->at[i], depth)) return false;
    return true;
}

static bool dicts_equal(struct by_jrun *r, const struct by_jdict *a, const struct by_jdict *b,
                        uint32_t depth) {
    if (a == b) return true;
    if (a->n != b->n) return false;
    by_jrun_charge(r, a->n);
    for (uint32_t i = 0; i < a->n; i++) {
        const struct by_jval *other = by_jval_get(r, b, a->at[i].key);
        if (!other || !equal_at(r, &a->at[i].val, other, depth)) return false;
    }
    return true;
}

/* Every level is charged, because a value may hold another many times over: x = [x, x] doubles at each round. */
static bool equal_at(struct by_jrun *r, const struct by_jval *a, const struct by_jval *b,
                     uint32_t depth) {
    double x, y;
    if (a->type == BY_J_INT && b->type == BY_J_INT) return a->i == b->i;
    if (as_number(a, &x) && as_number(b, &y)) return x == y;
    if (a->type != b->type || depth >= BY_JVAL_DEPTH_MAX || r->code) return false;
    switch (a->type) {
    case BY_J_STR:
    case BY_J_BIG:
        if (a->n == b->n) by_jrun_charge_bytes(r, a->n);
        return by_jval_same(a, b);
    case BY_J_LIST:
    case BY_J_TUPLE:
        return lists_equal(r, a->list, b->list, depth + 1);
    case BY_J_DICT:
        return dicts_equal(r, a->dict, b->dict, depth + 1);
    case BY_J_UNDEFINED:
    case BY_J_NONE:
        return true;
    default:
        return a->func == b->func;
    }
}

bool by_jval_equal(struct by_jrun *r, const struct by_jval *a, const struct by_jval *b) {
    return equal_at(r, a, b, 0);
}
