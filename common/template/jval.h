/* jval.h - the values a template computes with, and the run they live in.
 *
 *     int 7   float 1.5   str "abc"   list [..]   dict {..}   undefined 'x'   func
 *
 *     a str knows who wrote it:   "<|im_start|>" + message.role + "\n"
 *         bytes  < | i m _ s t a r t | > u s e r \n
 *         marks  0 0 0 0 0 0 0 0 0 0 0 0 1 1 1 1 0      1: came with the request, 0: stands in the template
 *
 * A str is a slice {s, n} with either one answer for all its bytes (is_user) or a mark for each (marks). Cutting keeps
 * the marks by pointing into them; joining goes through a builder that writes them out. So special tokens are taken
 * from what the template wrote and never from what a user wrote, whatever filters the text went through.
 *
 * Always: values are never changed once others can see them, but for namespaces, iterators and loop objects. All of
 * them live in the run's arena and die with it. A failed run (code != 0) computes nothing more.
 * Owner: one run, one thread. */
#ifndef COMMON_TEMPLATE_JVAL_H
#define COMMON_TEMPLATE_JVAL_H

#include "common/base/arena.h"
#include "common/base/err.h"

#ifndef BY_JVAL_SMALLER
#define BY_JVAL_SMALLER \
    1 /* what the budgets are divided by: more for fuzzing, which is to meet them */
#endif

enum {
    /* nodes evaluated, items walked, and 64-byte pieces copied */
    BY_JVAL_STEPS_MAX = 500000 / BY_JVAL_SMALLER,
    /* bytes of the prompt, and of any one string built on the way */
    BY_JVAL_OUTPUT_MAX = 4 * 1024 * 1024 / BY_JVAL_SMALLER,
    BY_JVAL_ARENA_MAX = 128 * 1024 * 1024 / BY_JVAL_SMALLER, /* bytes of all values of a run */
    BY_JVAL_DEPTH_MAX = 64, /* nested macro calls and blocks, and nested lists and dicts */
};

enum by_jtype {
    BY_J_ABSENT,    /* no value at all: an argument not given, a name not set */
    BY_J_UNDEFINED, /* puts its sentence together only where it is asked why: by_jval_why */
    BY_J_NONE,
    BY_J_BOOL,
    BY_J_INT,
    BY_J_FLOAT,
    BY_J_BIG, /* an integer past 64 bits, kept as its digits: prints, but does not calculate */
    BY_J_STR,
    BY_J_LIST,
    BY_J_TUPLE,
    BY_J_DICT,
    BY_J_NAMESPACE,
    BY_J_ITER, /* what map, select … give: walked once, true even when empty, as Python's generators */
    BY_J_LOOP, /* the `loop` of a for */
    BY_J_FUNC,
};

struct by_jval {
    uint8_t type; /* enum by_jtype */
    bool is_user; /* str without marks: who wrote all of it. undefined: s is the sentence itself */
    uint32_t n;   /* str, big, undefined: bytes */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s; /* str, big; undefined: the name that was asked for, or a sentence */
        struct by_jlist *list;
        struct by_jdict *dict;
        struct by_jiter *iter;
        struct by_jloop *loop;
        struct by_jfunc *func;
    };
    union {
        const uint8_t *marks; /* str: NULL, or n bytes: 1 where a user wrote the byte */
        const char *of;       /* undefined: the type that has no such attribute; NULL: a variable */
    };
};

struct by_jlist {
    struct by_jval *at;
    uint32_t n, cap;
};
struct by_jentry {
    struct by_jval key, val;
    uint64_t hash;
};
struct by_jdict { /* in order of insertion; index is built once it is worth it */
    struct by_jentry *at;
    uint32_t n, cap;
    uint32_t *index; /* [index_cap] 1 + position in at, 0: empty; NULL while n is small */
    uint32_t index_cap;
};
struct by_jiter {
    struct by_jlist *list;
    uint32_t pos;
};

enum { BY_JBUILD_SLACK = 16 };
/* A string under construction; see by_jrun_build. */
struct by_jbuild {
    char *p;
    uint8_t *marks; /* [n] who wrote each byte */
    size_t n, cap;  /* behind cap there is BY_JBUILD_SLACK */
    bool is_full;   /* more than BY_JVAL_OUTPUT_MAX were to be added */
    bool has_user, has_trusted;
    struct by_jbuild *next_free, *next_all;
};

struct by_jprog;
struct by_jscope;

struct by_jrun {
    struct by_arena arena;
    struct by_err *err;
    int code;       /* 0, or why the run failed; err says it in words */
    bool is_raised; /* the template itself refused: raise_exception */
    uint32_t line;  /* of the node being evaluated */
    uint32_t depth;
    int64_t steps_left;
    int64_t clock_s; /* what strftime_now shows, seconds since 1970 */
    const struct by_jprog *prog;
    struct by_jval *globals; /* [prog->n_names] the outermost scope */
    struct by_jscope *scope; /* innermost */
    struct by_jbuild *out;   /* where output goes now */
    struct by_jbuild *free_builds, *all_builds;
};

void by_jrun_init(struct by_jrun *r);
void by_jrun_release(struct by_jrun *r);
/* For the next run: its values are gone, its memory stays. */
void by_jrun_clear(struct by_jrun *r, struct by_err *err);
/* Ends the run with "line N: …"; returns ABSENT so that a failing function is one line. The first failure counts. */
BY_PRINTF(3, 4) struct by_jval by_jrun_fail(struct by_jrun *r, int code, const char *fmt, ...);
/* Fails the run when the budget is used up; a failed run has none left, so who charges need not look at code. */
bool by_jrun_is_short(struct by_jrun *r);
static inline void by_jrun_charge(struct by_jrun *r, uint64_t steps) {
    r->steps_left -= (int64_t)BY_MIN(steps, (uint64_t)BY_JVAL_STEPS_MAX + 1);
    if (r->steps_left < 0) (void)by_jrun_is_short(r);
}
/* For a look at n bytes that may be looked at again and again: a step for each 64. */
static inline void by_jrun_charge_bytes(struct by_jrun *r, size_t n) {
    if (n >= 64) by_jrun_charge(r, n / 64);
}
/* One step, and whether the run goes on. */
static inline bool by_jrun_step(struct by_jrun *r) {
    return --r->steps_left >= 0 || !by_jrun_is_short(r);
}
BY_MUST_USE void *by_jrun_get(struct by_jrun *r, size_t n); /* zeroed; NULL: the run has failed */
BY_MUST_USE struct by_jbuild *by_jrun_build(struct by_jrun *r);
/* What was built, as a value of the run; the builder may not be used any more. */
struct by_jval by_jrun_built(struct by_jrun *r, struct by_jbuild *b);

BY_MUST_USE bool by_jbuild_grow(struct by_jbuild *b, size_t n); /* false: is_full */
void by_jbuild_bytes(struct by_jbuild *b, const char *p, size_t n, bool is_user);
void by_jbuild_mixed(struct by_jbuild *b, const struct by_jval *str); /* one that has marks */
static inline void by_jbuild_put(struct by_jbuild *b, const struct by_jval *str) {
    if (str->marks)
        by_jbuild_mixed(b, str);
    else
        by_jbuild_bytes(b, str->s, str->n, str->is_user);
}
static inline void by_jbuild_add(struct by_jbuild *b, struct by_jval str) {
    by_jbuild_put(b, &str);
}
/* All of them, str each, as one. */
struct by_jval by_jrun_join(struct by_jrun *r, const struct by_jval *strs, uint32_t n);
static inline void by_jbuild_addz(struct by_jbuild *b, const char *z) {
    by_jbuild_bytes(b, z, strlen(z), false);
}

static inline struct by_jval by_jval_none(void) {
    return (struct by_jval){.type = BY_J_NONE};
}
static inline struct by_jval by_jval_bool(bool b) {
    return (struct by_jval){.type = BY_J_BOOL, .b = b};
}
static inline struct by_jval by_jval_int(int64_t i) {
    return (struct by_jval){.type = BY_J_INT, .i = i};
}
static inline struct by_jval by_jval_float(double f) {
    return (struct by_jval){.type = BY_J_FLOAT, .f = f};
}
/* A str over bytes that outlive the run. n is below 4 GiB: longer text is refused where it enters. */
static inline struct by_jval by_jval_str(struct by_str s, bool is_user) {
    return (struct by_jval){
        .type = BY_J_STR, .s = s.p ? s.p : "", .n = (uint32_t)s.n, .is_user = is_user};
}
static inline struct by_jval by_jval_lit(const char *z) {
    return by_jval_str(by_str_of(z), false);
}
static inline struct by_str by_jval_bytes(const struct by_jval *v) {
    return (struct by_str){v->s, v->n};
}
static inline bool by_jval_is(const struct by_jval *v, enum by_jtype t) {
    return v->type == t;
}
/* Two texts alike? Most that templates compare are names of a few bytes, for which memcmp's call is the larger part. */
static inline bool by_jval_same(const struct by_jval *a, const struct by_jval *b) {
    uint64_t x[2] = {0}, y[2] = {0};
    size_t n = a->n;
    if (n != b->n) return false;
    if (n > 16 || n < 4) return n == 0 || memcmp(a->s, b->s, n) == 0;
    if (n >= 8) { /* two halves that may overlap */
        memcpy(&x[0], a->s, 8), memcpy(&x[1], a->s + n - 8, 8);
        memcpy(&y[0], b->s, 8), memcpy(&y[1], b->s + n - 8, 8);
    } else {
        memcpy(&x[0], a->s, 4), memcpy(&x[1], a->s + n - 4, 4);
        memcpy(&y[0], b->s, 4), memcpy(&y[1], b->s + n - 4, 4);
    }
    return ((x[0] ^ y[0]) | (x[1] ^ y[1])) == 0;
}
static inline bool by_jval_eqz(const struct by_jval *v, const char *z) {
    return v->type == BY_J_STR && by_str_eqz(by_jval_bytes(v), z);
}
/* Bytes [from, to) of a str, marks kept. */
struct by_jval by_jval_cut(struct by_jval str, size_t from, size_t to);
/* Undefined with the sentence that using it gives. */
BY_PRINTF(2, 3) struct by_jval by_jval_undefined(struct by_jrun *r, const char *fmt, ...);
/* The two that templates look for all the time: no such variable (of: NULL), no such attribute of that type. The name
 * outlives the run. */
static inline struct by_jval by_jval_missing(const char *of, struct by_str name) {
    return (struct by_jval){.type = BY_J_UNDEFINED, .s = name.p, .n = (uint32_t)name.n, .of = of};
}
/* Fails the run with the undefined's sentence. */
struct by_jval by_jrun_fail_undefined(struct by_jrun *r, const struct by_jval *undefined);
const char *
by_jval_type_name(const struct by_jval *v); /* as Python names it: "str", "NoneType" … */

/* list, tuple or iter */
struct by_jval by_jval_list(struct by_jrun *r, enum by_jtype type, uint32_t cap);
struct by_jlist *by_jval_items(const struct by_jval *v); /* of such a value */
void by_jval_push(struct by_jrun *r, struct by_jlist *l, struct by_jval v);
struct by_jval by_jval_dict(struct by_jrun *r, enum by_jtype type); /* dict or namespace */
/* false: the key cannot be one (a list …) and the run has failed. */
BY_MUST_USE bool by_jval_put(struct by_jrun *r, struct by_jdict *d, struct by_jval key,
                             struct by_jval val);
/* NULL when it is not there */
const struct by_jval *by_jval_get(struct by_jrun *r, const struct by_jdict *d, struct by_jval key);
/* The same for a str, which is what templates ask for; most dicts are small. */
static inline const struct by_jval *by_jval_get_str(struct by_jrun *r, const struct by_jdict *d,
                                                    const struct by_jval *key) {
    if (d->index) return by_jval_get(r, d, *key);
    by_jrun_charge_bytes(r, (size_t)key->n * d->n);
    for (uint32_t i = 0; i < d->n; i++) {
        const struct by_jval *k = &d->at[i].key;
        if (k->n == key->n && k->type == BY_J_STR && by_jval_same(k, key)) return &d->at[i].val;
    }
    return NULL;
}
const struct by_jval *by_jval_getz(struct by_jrun *r, const struct by_jdict *d, struct by_str key);
/* Python's ==, nested values included; false past the depth limit. */
bool by_jval_equal(struct by_jrun *r, const struct by_jval *a, const struct by_jval *b);

#endif
