#include "common/modelfile/gguf.h"

#include "common/base/file.h"
#include "common/base/map.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    ALIGNMENT_DEFAULT = 32,
    ALIGNMENT_MAX = 1 << 20,
    DIMS_MAX = 4,         /* ggml's own */
    KEY_BYTES_MIN = 13,   /* length, type, one byte of value */
    TENSOR_BYTES_MIN = 24 /* name length, n_dims, type, offset */
};

struct by_gguf {
    struct by_mapped map; /* empty when the caller owns the bytes */
    struct by_str bytes;
    struct by_gguf_key *keys;
    struct by_tensor_info *tensors;
    size_t n_keys, n_tensors;
    struct by_strmap key_index, tensor_index;
};

/* Where reading stands. `what` and `of` name the thing being read, for errors. */
struct cursor {
    const char *file;
    const uint8_t *p; /* the whole file */
    size_t n, i;
    struct by_str what;
    struct by_err *err;
};

static const uint8_t type_bytes[BY_GGUF_N_TYPES] = {
    [BY_GGUF_U8] = 1,  [BY_GGUF_I8] = 1,    [BY_GGUF_U16] = 2, [BY_GGUF_I16] = 2,
    [BY_GGUF_U32] = 4, [BY_GGUF_I32] = 4,   [BY_GGUF_F32] = 4, [BY_GGUF_BOOL] = 1,
    [BY_GGUF_STR] = 0, [BY_GGUF_ARRAY] = 0, [BY_GGUF_U64] = 8, [BY_GGUF_I64] = 8,
    [BY_GGUF_F64] = 8,
};
static const char *const type_names[BY_GGUF_N_TYPES] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64",
};

static int fail_cut(struct cursor *c) {
    return by_fail(c->err, BY_EFORMAT,
                   "%s: the file ends at byte %zu, in the middle of " BY_STR_FMT
                   "; it is not whole, fetch it again",
                   c->file, c->n, BY_STR_ARG(by_str_sub(c->what, 0, 100)));
}

static int fail_at(struct cursor *c, const char *problem, uint64_t value) {
    return by_fail(c->err, BY_EFORMAT, "%s: " BY_STR_FMT " at byte %zu: %s (%" PRIu64 ")", c->file,
                   BY_STR_ARG(by_str_sub(c->what, 0, 100)), c->i, problem, value);
}

static int read_u32(struct cursor *c, uint32_t *out) {
    if (c->n - c->i < sizeof *out) return fail_cut(c);
    memcpy(out, c->p + c->i, sizeof *out);
    c->i += sizeof *out;
    return 0;
}

static int read_u64(struct cursor *c, uint64_t *out) {
    if (c->n - c->i < sizeof *out) return fail_cut(c);
    memcpy(out, c->p + c->i, sizeof *out);
    c->i += sizeof *out;
    return 0;
}

static int read_str(struct cursor *c, size_t max, struct by_str *out) {
    uint64_t n = 0;
    int rc = read_u64(c, &n);
    if (rc) return rc;
    if (n > max) return fail_at(c, "a string is too long", n);
    if (n > c->n - c->i) return fail_cut(c);
    *out = (struct by_str){(const char *)c->p + c->i, (size_t)n};
    c->i += (size_t)n;
    return 0;
}

static int skip(struct cursor *c, uint64_t n) {
    if (n > c->n - c->i) return fail_cut(c);
    c->i += (size_t)n;
    return 0;
}

static int read_array(struct cursor *c, struct by_gguf_key *k) {
    uint32_t type = 0;
    struct by_str ignored;
    int rc = read_u32(c, &type);
    if (!rc) rc = read_u64(c, &k->n);
    if (rc) return rc;
    if (type >= BY_GGUF_N_TYPES || type == BY_GGUF_ARRAY)
        return fail_at(c, "an array of an unknown type", type);
    if (k->n > BY_GGUF_ARRAY_MAX) return fail_at(c, "an array has too many elements", k->n);
    k->item_type = (enum by_gguf_type)type;
    k->payload = c->p + c->i;
    if (type != BY_GGUF_STR) return skip(c, k->n * type_bytes[type]);
    for (uint64_t i = 0; i < k->n && !rc; i++)
        rc = read_str(c, c->n, &ignored);
    return rc;
}

static int read_key(struct cursor *c, struct by_gguf_key *k) {
    uint32_t type = 0;
    c->what = BY_STR("the name of a key");
    int rc = read_str(c, BY_GGUF_KEY_BYTES_MAX, &k->name);
    if (rc) return rc;
    c->what = k->name;
    rc = read_u32(c, &type);
    if (rc) return rc;
    if (type >= BY_GGUF_N_TYPES) return fail_at(c, "a value of an unknown type", type);
    k->type = (enum by_gguf_type)type;
    k->n = 1;
    k->payload = c->p + c->i;
    if (type == BY_GGUF_ARRAY) return read_array(c, k);
    if (type != BY_GGUF_STR) return skip(c, type_bytes[type]);
    struct by_str s;
    rc = read_str(c, c->n, &s);
    if (rc) return rc;
    k->payload = (const uint8_t *)s.p;
    k->n = s.n;
    return 0;
}

static int read_keys(struct by_gguf *g, struct cursor *c) {
    g->keys = by_alloc_array(g->n_keys, sizeof *g->keys);
    by_strmap_reserve(&g->key_index, g->n_keys);
    for (size_t i = 0; i < g->n_keys; i++) {
        uint64_t before;
        int rc = read_key(c, &g->keys[i]);
        if (rc) return rc;
        if (by_strmap_get(&g->key_index, g->keys[i].name, &before))
            return fail_at(c, "the key is there twice", i);
        by_strmap_put(&g->key_index, g->keys[i].name, i);
    }
    return 0;
}

static int read_dims(struct cursor *c, struct by_tensor_info *t) {
    uint32_t n = 0;
    int rc = read_u32(c, &n);
    if (rc) return rc;
    if (n > DIMS_MAX) return fail_at(c, "too many dimensions", n);
    t->n_dims = n;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t dim = 0;
        rc = read_u64(c, &dim);
        if (rc) return rc;
        if (dim == 0) return fail_at(c, "a dimension of zero", i);
        t->shape[n - 1 - i] = dim; /* ggml writes the fastest first */
    }
    return 0;
}

/* data keeps the offset until the start of the data is known. */
static int read_tensor(struct cursor *c, struct by_tensor_info *t, uint64_t *offset) {
    uint32_t type = 0;
    c->what = BY_STR("the name of a tensor");
    int rc = read_str(c, BY_TENSOR_NAME_MAX, &t->name);
    if (rc) return rc;
    c->what = t->name;
    rc = read_dims(c, t);
    if (!rc) rc = read_u32(c, &type);
    if (!rc) rc = read_u64(c, offset);
    if (rc) return rc;
    t->dtype = by_dtype_of_ggml(type);
    if (t->dtype == BY_DTYPE_NONE) {
        return by_fail(c->err, BY_EUNSUPPORTED,
                       "%s: tensor '" BY_STR_FMT "' has the type %s (number %u), which Banyan does "
                       "not read; use a file quantised as Q4_0, Q4_K_M, Q8_0 or similar",
                       c->file, BY_STR_ARG(t->name), by_dtype_ggml_name(type), type);
    }
    if (!by_tensor_measure(t)) return fail_at(c, "a shape that does not fit its type", type);
    return 0;
}

static int place_tensor(struct cursor *c, struct by_tensor_info *t, uint64_t offset, size_t start,
                        size_t alignment) {
    c->what = t->name;
    c->i = start;
    if (offset % alignment != 0) return fail_at(c, "an offset off the alignment", offset);
    if (offset > c->n - start || t->n_bytes > c->n - start - offset) {
        return by_fail(
            c->err, BY_EFORMAT,
            "%s: tensor '" BY_STR_FMT "' needs %zu bytes at offset %" PRIu64
            " of the data, but the file ends at byte %zu; it is not whole, fetch it again",
            c->file, BY_STR_ARG(t->name), t->n_bytes, offset, c->n);
    }
    t->data = c->p + start + offset;
    return 0;
}

static int by_place(const void *a, const void *b) {
    const struct by_tensor_info *x = *(struct by_tensor_info *const *)a;
    const struct by_tensor_info *y = *(struct by_tensor_info *const *)b;
    return (x->data > y->data) - (x->data < y->data);
}

static int check_overlap(const struct by_gguf *g, struct cursor *c) {
    if (g->n_tensors < 2) return 0;
    const struct by_tensor_info **at = by_alloc_array(g->n_tensors, sizeof *at);
    for (size_t i = 0; i < g->n_tensors; i++)
        at[i] = &g->tensors[i];
    qsort(at, g->n_tensors, sizeof *at, by_place);
    int rc = 0;
    for (size_t i = 1; i < g->n_tensors && !rc; i++) {
        if (at[i - 1]->data + at[i - 1]->n_bytes <= at[i]->data) continue;
        rc = by_fail(c->err, BY_EFORMAT,
                     "%s: the tensors '" BY_STR_FMT "' and '" BY_STR_FMT "' overlap at byte %td",
                     c->file, BY_STR_ARG(at[i - 1]->name), BY_STR_ARG(at[i]->name),
                     at[i]->data - c->p);
    }
    by_free(at);
    return rc;
}

static int read_alignment(const struct by_gguf *g, struct cursor *c, size_t *out) {
    int64_t v = ALIGNMENT_DEFAULT;
    int rc = by_gguf_get_i64(g, "general.alignment", 1, ALIGNMENT_MAX, &v, c->err);
    if (rc) return c->err ? by_fail_prefix(c->err, "%s", c->file) : rc;
    c->what = BY_STR("general.alignment");
    if (v & (v - 1)) return fail_at(c, "no power of two", (uint64_t)v);
    *out = (size_t)v;
    return 0;
}

static int read_tensors(struct by_gguf *g, struct cursor *c) {
    g->tensors = by_alloc_array(g->n_tensors, sizeof *g->tensors);
    uint64_t *offsets = by_alloc_array(g->n_tensors, sizeof *offsets);
    by_strmap_reserve(&g->tensor_index, g->n_tensors);
    int rc = 0;
    for (size_t i = 0; i < g->n_tensors && !rc; i++) {
        uint64_t before;
        rc = read_tensor(c, &g->tensors[i], &offsets[i]);
        if (rc) break;
        if (by_strmap_get(&g->tensor_index, g->tensors[i].name, &before))
            rc = fail_at(c, "the tensor is there twice", i);
        by_strmap_put(&g->tensor_index, g->tensors[i].name, i);
    }
    size_t alignment = ALIGNMENT_DEFAULT;
    if (!rc) rc = read_alignment(g, c, &alignment);
    size_t start = BY_ALIGN_UP(c->i, alignment);
    if (!rc && g->n_tensors && start > c->n) {
        c->what = BY_STR("the padding before the data");
        rc = fail_cut(c);
    }
    for (size_t i = 0; i < g->n_tensors && !rc; i++)
        rc = place_tensor(c, &g->tensors[i], offsets[i], start, alignment);
    by_free(offsets);
    return rc ? rc : check_overlap(g, c);
}

static int read_counts(struct by_gguf *g, struct cursor *c) {
    uint32_t version = 0;
    uint64_t n_tensors = 0, n_keys = 0;
    c->what = BY_STR("the header");
    if (c->n < 4 || memcmp(c->p, "GGUF", 4) != 0)
        return by_fail(c->err, BY_EFORMAT, "%s: is not a GGUF file (it does not begin with 'GGUF')",
                       c->file);
    c->i = 4;
    int rc = read_u32(c, &version);
    if (rc) return rc;
    if (version != 2 && version != 3)
        return fail_at(c, "a GGUF version that Banyan does not read; convert it to 3", version);
    rc = read_u64(c, &n_tensors);
    if (!rc) rc = read_u64(c, &n_keys);
    if (rc) return rc;
    if (n_keys > BY_GGUF_KEYS_MAX) return fail_at(c, "too many keys", n_keys);
    if (n_tensors > BY_TENSORS_MAX) return fail_at(c, "too many tensors", n_tensors);
    if (n_keys * KEY_BYTES_MIN + n_tensors * TENSOR_BYTES_MIN > c->n - c->i) return fail_cut(c);
    g->n_keys = (size_t)n_keys;
    g->n_tensors = (size_t)n_tensors;
    return 0;
}

int by_gguf_parse(struct by_gguf **out, struct by_str bytes, const char *name, struct by_err *err) {
    *out = NULL;
    struct by_gguf *g = by_alloc(sizeof *g);
    struct cursor c = {.file = name, .p = (const uint8_t *)bytes.p, .n = bytes.n, .err = err};
    g->bytes = bytes;
    by_strmap_init(&g->key_index);
    by_strmap_init(&g->tensor_index);
    int rc = read_counts(g, &c);
    if (!rc) rc = read_keys(g, &c);
    if (!rc) rc = read_tensors(g, &c);
    if (rc) {
        by_gguf_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

int by_gguf_open(struct by_gguf **out, const char *path, struct by_err *err) {
    struct by_mapped map;
    *out = NULL;
    int rc = by_file_map(&map, path, err);
    if (rc) return rc;
    rc = by_gguf_parse(out, (struct by_str){(const char *)map.p, map.n}, path, err);
    if (rc)
        by_file_unmap(&map);
    else
        (*out)->map = map;
    return rc;
}

void by_gguf_close(struct by_gguf *g) {
    if (!g) return;
    by_strmap_release(&g->tensor_index);
    by_strmap_release(&g->key_index);
    by_free(g->tensors);
    by_free(g->keys);
    by_file_unmap(&g->map);
    by_free(g);
}

size_t by_gguf_n_tensors(const struct by_gguf *g) {
    return g->n_tensors;
}

const struct by_tensor_info *by_gguf_tensor(const struct by_gguf *g, size_t i) {
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const struct by_tensor_info *by_gguf_find(const struct by_gguf *g, struct by_str name) {
    uint64_t i;
    return by_strmap_get(&g->tensor_index, name, &i) ? &g->tensors[i] : NULL;
}

size_t by_gguf_n_keys(const struct by_gguf *g) {
    return g->n_keys;
}

const struct by_gguf_key *by_gguf_key_at(const struct by_gguf *g, size_t i) {
    return i < g->n_keys ? &g->keys[i] : NULL;
}

const struct by_gguf_key *by_gguf_key(const struct by_gguf *g, const char *key) {
    uint64_t i;
    return by_strmap_get(&g->key_index, by_str_of(key), &i) ? &g->keys[i] : NULL;
}

static int fail_type(struct by_err *err, const char *key, const char *want,
                     const struct by_gguf_key *k) {
    bool is_array = k->type == BY_GGUF_ARRAY;
    return by_fail(err, BY_EFORMAT, "%s: expected %s, got %s%s", key, want,
                   is_array ? "an array of " : "", type_names[is_array ? k->item_type : k->type]);
}

static bool is_integer(enum by_gguf_type t) {
    return t != BY_GGUF_F32 && t != BY_GGUF_F64 && t != BY_GGUF_BOOL && t != BY_GGUF_STR &&
           t != BY_GGUF_ARRAY;
}

static bool is_number(enum by_gguf_type t) {
    return is_integer(t) || t == BY_GGUF_F32 || t == BY_GGUF_F64;
}

static int64_t int_at(enum by_gguf_type t, const uint8_t *p) {
    union {
        int16_t i16;
        uint16_t u16;
        int32_t i32;
        uint32_t u32;
        int64_t i64;
        uint64_t u64;
    } v = {0};
    memcpy(&v, p, type_bytes[t]);
    switch (t) {
    case BY_GGUF_I8:
        return (int8_t)*p;
    case BY_GGUF_U16:
        return v.u16;
    case BY_GGUF_I16:
        return v.i16;
    case BY_GGUF_U32:
        return v.u32;
    case BY_GGUF_I32:
        return v.i32;
    case BY_GGUF_U64:
        return v.u64 > INT64_MAX ? INT64_MAX : (int64_t)v.u64;
    case BY_GGUF_I64:
        return v.i64;
    default:
        return *p; /* U8, BOOL */
    }
}

static double f64_at(enum by_gguf_type t, const uint8_t *p) {
    double d;
    float f;
    if (t == BY_GGUF_F64) {
        memcpy(&d, p, sizeof d);
        return d;
    }
    if (t != BY_GGUF_F32) return (double)int_at(t, p);
    memcpy(&f, p, sizeof f);
    return (double)f;
}

int by_gguf_get_str(const struct by_gguf *g, const char *key, struct by_str *out,
                    struct by_err *err) {
    const struct by_gguf_key *k = by_gguf_key(g, key);
    if (!k) return 0;
    if (k->type != BY_GGUF_STR) return fail_type(err, key, "a string", k);
    *out = (struct by_str){(const char *)k->payload, (size_t)k->n};
    return 0;
}

int by_gguf_get_i64(const struct by_gguf *g, const char *key, int64_t min, int64_t max,
                    int64_t *out, struct by_err *err) {
    const struct by_gguf_key *k = by_gguf_key(g, key);
    if (!k) return 0;
    if (!is_integer(k->type)) return fail_type(err, key, "an integer", k);
    int64_t v = int_at(k->type, k->payload);
    if (v < min || v > max) {
        return by_fail(err, BY_EINVAL, "%s: %" PRId64 " is outside of %" PRId64 " to %" PRId64, key,
                       v, min, max);
    }
    *out = v;
    return 0;
}

int by_gguf_get_f64(const struct by_gguf *g, const char *key, double min, double max, double *out,
                    struct by_err *err) {
    const struct by_gguf_key *k = by_gguf_key(g, key);
    if (!k) return 0;
    if (!is_number(k->type)) return fail_type(err, key, "a number", k);
    double v = f64_at(k->type, k->payload);
    if (!(v >= min && v <= max))
        return by_fail(err, BY_EINVAL, "%s: %g is outside of %g to %g", key, v, min, max);
    *out = v;
    return 0;
}

int by_gguf_get_bool(const struct by_gguf *g, const char *key, bool *out, struct by_err *err) {
    const struct by_gguf_key *k = by_gguf_key(g, key);
    if (!k) return 0;
    if (k->type != BY_GGUF_BOOL) return fail_type(err, key, "a bool", k);
    *out = *k->payload != 0;
    return 0;
}

int by_gguf_get_array(const struct by_gguf *g, const char *key, enum by_gguf_type want,
                      struct by_gguf_array *out, struct by_err *err) {
    const struct by_gguf_key *k = by_gguf_key(g, key);
    *out = (struct by_gguf_array){.type = want};
    if (!k) return 0;
    bool fits = k->type == BY_GGUF_ARRAY && (want == BY_GGUF_I64   ? is_integer(k->item_type)
                                             : want == BY_GGUF_F64 ? is_number(k->item_type)
                                                                   : k->item_type == want);
    if (!fits) {
        const char *names = want == BY_GGUF_STR   ? "an array of strings"
                            : want == BY_GGUF_I64 ? "an array of integers"
                            : want == BY_GGUF_F64 ? "an array of numbers"
                                                  : "an array of another type";
        return fail_type(err, key, names, k);
    }
    out->type = k->item_type;
    out->n = k->n;
    out->p = out->base = k->payload;
    return 0;
}

bool by_gguf_next_str(struct by_gguf_array *a, struct by_str *out) {
    uint64_t n = 0;
    if (a->i == a->n) return false;
    memcpy(&n, a->p, sizeof n);
    *out = (struct by_str){(const char *)a->p + sizeof n, (size_t)n};
    a->p += sizeof n + n;
    a->i++;
    return true;
}

int64_t by_gguf_at_i64(const struct by_gguf_array *a, uint64_t i) {
    return int_at(a->type, a->base + i * type_bytes[a->type]);
}

double by_gguf_at_f64(const struct by_gguf_array *a, uint64_t i) {
    return f64_at(a->type, a->base + i * type_bytes[a->type]);
}
