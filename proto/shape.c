#include "proto/shape.h"

#include "proto/msg.h"

#define TYPE_bool SHAPE_BOOL, NULL
#define TYPE_u32 SHAPE_U32, NULL
#define TYPE_u64 SHAPE_U64, NULL
#define TYPE_i32 SHAPE_I32, NULL
#define TYPE_i64 SHAPE_I64, NULL
#define TYPE_f32 SHAPE_F32, NULL
#define TYPE_f64 SHAPE_F64, NULL
#define TYPE_str SHAPE_STR, NULL
#define TYPE_bin SHAPE_BIN, NULL
#define TYPE_u32s SHAPE_U32S, NULL
#define TYPE_f32s SHAPE_F32S, NULL
#define TYPE_strs SHAPE_STRS, NULL
#define TYPE_name SHAPE_RECORD, &shape_name
#define TYPE_sampling SHAPE_RECORD, &shape_sampling
#define TYPE_sampling_defaults SHAPE_RECORD, &shape_sampling_defaults
#define TYPE_textual SHAPE_RECORD, &shape_textual
#define TYPE_routing SHAPE_RECORD, &shape_routing
#define TYPE_model SHAPE_RECORD, &shape_model
#define TYPE_capacity SHAPE_RECORD, &shape_capacity
#define TYPE_top SHAPE_RECORD, &shape_top

/* Pass 1: the fields of everything; a record stands before its use, so its shape is declared when it is named. */
#define RECORD(name, doc) \
    static const struct shape shape_##name; \
    static const struct shape_field fields_##name[] = {
#define MESSAGE(name, code, doc) static const struct shape_field fields_##name[] = {
#define FIELD(type, name, doc) {#name, TYPE_##type},
#define LIST(record, name, doc) {#name, SHAPE_LIST, &shape_##record},
#define END(name) \
    { NULL, SHAPE_BOOL, NULL } \
    } \
    ;
#include "proto/messages.def"

/* Pass 2: the shapes. */
#define SHAPE(name, code) \
    { \
#name, code, sizeof(struct msg_##name), _Alignof(struct msg_##name), fields_##name, \
            BY_COUNTOF(fields_##name) - 1 \
    }
#define RECORD(name, doc) static const struct shape shape_##name = SHAPE(name, 0);
#define MESSAGE(name, code, doc) static const struct shape shape_##name = SHAPE(name, code);
#include "proto/messages.def"

static const struct shape *const shapes[] = {
#define RECORD(name, doc) &shape_##name,
#define MESSAGE(name, code, doc) RECORD(name, doc)
#include "proto/messages.def"
};

#define RECORD(name, doc) \
    void msg_##name##_copy(struct by_arena *arena, const struct msg_##name *from, \
                           struct msg_##name *to) { \
        shape_copy(arena, &shape_##name, from, to); \
    }
#define MESSAGE(name, code, doc) RECORD(name, doc)
#include "proto/messages.def"

const struct shape *shape_of_kind(uint32_t code) {
    for (size_t i = 0; i < BY_COUNTOF(shapes) && code; i++) {
        if (shapes[i]->code == code) return shapes[i];
    }
    return NULL;
}

static const size_t sizes[] = {
    [SHAPE_BOOL] = sizeof(bool),
    [SHAPE_U32] = 4,
    [SHAPE_U64] = 8,
    [SHAPE_I32] = 4,
    [SHAPE_I64] = 8,
    [SHAPE_F32] = 4,
    [SHAPE_F64] = 8,
    [SHAPE_STR] = sizeof(struct by_str),
    [SHAPE_BIN] = sizeof(struct by_str),
    [SHAPE_U32S] = sizeof(struct msg_u32s),
    [SHAPE_F32S] = sizeof(struct msg_f32s),
    [SHAPE_STRS] = sizeof(struct msg_strs),
    [SHAPE_LIST] = sizeof(struct shape_list),
};

size_t shape_field_size(const struct shape_field *f) {
    return f->type == SHAPE_RECORD ? f->of->size : sizes[f->type];
}

size_t shape_field_at(const struct shape_field *f, size_t at) {
    size_t align = f->type == SHAPE_RECORD ? f->of->align : BY_MIN(sizes[f->type], (size_t)8);
    return BY_ALIGN_UP(at, align);
}

static bool check_one(const struct shape *s) {
    size_t at = 0;
    for (uint32_t i = 0; i < s->n_fields; i++) {
        at = shape_field_at(&s->fields[i], at) + shape_field_size(&s->fields[i]);
    }
    return BY_ALIGN_UP(at, s->align) == s->size;
}

bool shape_check(void) {
    for (size_t i = 0; i < BY_COUNTOF(shapes); i++) {
        if (!check_one(shapes[i])) return false;
    }
    return true;
}

/* Bytes an element of an array field has; 0 for what is no array. */
static size_t element_size(const struct shape_field *f) {
    switch (f->type) {
    case SHAPE_U32S:
    case SHAPE_F32S:
        return 4;
    case SHAPE_STRS:
        return sizeof(struct by_str);
    case SHAPE_LIST:
        return f->of->size;
    default:
        return 0;
    }
}

static void copy_field(struct by_arena *arena, const struct shape_field *f, const void *from,
                       void *to) {
    if (f->type == SHAPE_RECORD) {
        shape_copy(arena, f->of, from, to);
    } else if (f->type == SHAPE_STR || f->type == SHAPE_BIN) {
        *(struct by_str *)to = by_arena_copy(arena, *(const struct by_str *)from);
    } else if (element_size(f)) {
        const struct shape_list *l = from;
        size_t each = element_size(f);
        char *p = by_arena_get_array(arena, l->n, each);
        if (l->n) memcpy(p, l->p, l->n * each);
        for (uint32_t i = 0; i < l->n && f->type == SHAPE_STRS; i++) {
            ((struct by_str *)(void *)p)[i] =
                by_arena_copy(arena, ((const struct by_str *)l->p)[i]);
        }
        for (uint32_t i = 0; i < l->n && f->type == SHAPE_LIST; i++) {
            shape_copy(arena, f->of, (const char *)l->p + i * each, p + i * each);
        }
        *(struct shape_list *)to = (struct shape_list){p, l->n};
    } else {
        memcpy(to, from, sizes[f->type]);
    }
}

void shape_copy(struct by_arena *arena, const struct shape *s, const void *from, void *to) {
    size_t at = 0;
    for (uint32_t i = 0; i < s->n_fields; i++) {
        const struct shape_field *f = &s->fields[i];
        at = shape_field_at(f, at);
        copy_field(arena, f, (const char *)from + at, (char *)to + at);
        at += shape_field_size(f);
    }
}

static bool equal_field(const struct shape_field *f, const void *a, const void *b) {
    if (f->type == SHAPE_RECORD) return shape_equal(f->of, a, b);
    if (f->type == SHAPE_STR || f->type == SHAPE_BIN) {
        return by_str_eq(*(const struct by_str *)a, *(const struct by_str *)b);
    }
    size_t each = element_size(f);
    if (!each) return memcmp(a, b, sizes[f->type]) == 0;
    const struct shape_list *x = a, *y = b;
    if (x->n != y->n) return false;
    if (f->type == SHAPE_U32S || f->type == SHAPE_F32S)
        return !x->n || memcmp(x->p, y->p, x->n * each) == 0;
    for (uint32_t i = 0; i < x->n; i++) {
        const char *p = (const char *)x->p + i * each, *q = (const char *)y->p + i * each;
        bool same = f->type == SHAPE_LIST ? shape_equal(f->of, p, q)
                                          : by_str_eq(((const struct by_str *)x->p)[i],
                                                      ((const struct by_str *)y->p)[i]);
        if (!same) return false;
    }
    return true;
}

bool shape_equal(const struct shape *s, const void *a, const void *b) {
    size_t at = 0;
    for (uint32_t i = 0; i < s->n_fields; i++) {
        const struct shape_field *f = &s->fields[i];
        at = shape_field_at(f, at);
        if (!equal_field(f, (const char *)a + at, (const char *)b + at)) return false;
        at += shape_field_size(f);
    }
    return true;
}

static void print_list(const struct shape_field *f, const struct shape_list *l,
                       struct by_buf *out) {
    enum { SHOW = 8 };
    by_buf_addf(out, "%u[", l->n);
    for (uint32_t i = 0; i < l->n && i < SHOW; i++) {
        if (i) by_buf_addc(out, ' ');
        if (f->type == SHAPE_U32S) by_buf_addf(out, "%u", ((const uint32_t *)l->p)[i]);
        if (f->type == SHAPE_F32S) by_buf_addf(out, "%g", (double)((const float *)l->p)[i]);
        if (f->type == SHAPE_STRS) by_buf_addf(out, "%zuB", ((const struct by_str *)l->p)[i].n);
        if (f->type == SHAPE_LIST) shape_print(f->of, (const char *)l->p + i * f->of->size, out);
    }
    by_buf_addz(out, l->n > SHOW ? " …]" : "]");
}

/* Strings can be prompts and outputs, which no log shows: only their length. */
static void print_field(const struct shape_field *f, const void *p, struct by_buf *out) {
    switch (f->type) {
    case SHAPE_BOOL:
        by_buf_addz(out, *(const bool *)p ? "true" : "false");
        break;
    case SHAPE_U32:
        by_buf_addf(out, "%u", *(const uint32_t *)p);
        break;
    case SHAPE_U64:
        by_buf_addf(out, "%llu", (unsigned long long)*(const uint64_t *)p);
        break;
    case SHAPE_I32:
        by_buf_addf(out, "%d", *(const int32_t *)p);
        break;
    case SHAPE_I64:
        by_buf_addf(out, "%lld", (long long)*(const int64_t *)p);
        break;
    case SHAPE_F32:
        by_buf_addf(out, "%g", (double)*(const float *)p);
        break;
    case SHAPE_F64:
        by_buf_addf(out, "%g", *(const double *)p);
        break;
    case SHAPE_STR:
    case SHAPE_BIN:
        by_buf_addf(out, "%zuB", ((const struct by_str *)p)->n);
        break;
    case SHAPE_RECORD:
        shape_print(f->of, p, out);
        break;
    default:
        print_list(f, p, out);
    }
}

void shape_print(const struct shape *s, const void *p, struct by_buf *out) {
    size_t at = 0;
    by_buf_addc(out, '(');
    for (uint32_t i = 0; i < s->n_fields; i++) {
        const struct shape_field *f = &s->fields[i];
        at = shape_field_at(f, at);
        by_buf_addf(out, "%s%s=", i ? " " : "", f->name);
        print_field(f, (const char *)p + at, out);
        at += shape_field_size(f);
    }
    by_buf_addc(out, ')');
}
