#include "proto/msg.h"

#include "common/base/check.h"
#include "common/base/utf8.h"
#include "proto/shape.h"

#include <msgpack.h>

/* Writing goes through msgpack-c. Reading is a walk of our own over the bytes: msgpack-c's unpacker builds the whole
 * object tree before one of our ceilings could be asked, and recursion and allocation would be the sender's to choose.
 * A frame has few forms, so the walk is short. */

enum { HEAD_FIELDS = 3 /* kind, session, seq */, SKIP_MAX = 1 << 20 };

static int write_bytes(void *ctx, const char *p, size_t n) {
    by_buf_add(ctx, p, n);
    return 0;
}

static void put_shape(msgpack_packer *pk, const struct shape *s, const void *p);

static void put_bin(msgpack_packer *pk, const void *p, size_t n) {
    msgpack_pack_bin(pk, n);
    if (n) msgpack_pack_bin_body(pk, p, n);
}

static void put_str(msgpack_packer *pk, struct by_str s) {
    msgpack_pack_str(pk, s.n);
    if (s.n) msgpack_pack_str_body(pk, s.p, s.n);
}

static void put_field(msgpack_packer *pk, const struct shape_field *f, const void *p) {
    const struct shape_list *l = p;
    switch (f->type) {
    case SHAPE_BOOL:
        *(const bool *)p ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
        break;
    case SHAPE_U32:
        msgpack_pack_uint32(pk, *(const uint32_t *)p);
        break;
    case SHAPE_U64:
        msgpack_pack_uint64(pk, *(const uint64_t *)p);
        break;
    case SHAPE_I32:
        msgpack_pack_int32(pk, *(const int32_t *)p);
        break;
    case SHAPE_I64:
        msgpack_pack_int64(pk, *(const int64_t *)p);
        break;
    case SHAPE_F32:
        msgpack_pack_float(pk, *(const float *)p);
        break;
    case SHAPE_F64:
        msgpack_pack_double(pk, *(const double *)p);
        break;
    case SHAPE_STR:
        put_str(pk, *(const struct by_str *)p);
        break;
    case SHAPE_BIN:
        put_bin(pk, ((const struct by_str *)p)->p, ((const struct by_str *)p)->n);
        break;
    case SHAPE_U32S:
    case SHAPE_F32S:
        put_bin(pk, l->p, (size_t)l->n * 4);
        break;
    case SHAPE_STRS:
        msgpack_pack_array(pk, l->n);
        for (uint32_t i = 0; i < l->n; i++)
            put_str(pk, ((const struct by_str *)l->p)[i]);
        break;
    case SHAPE_RECORD:
        put_shape(pk, f->of, p);
        break;
    case SHAPE_LIST:
        msgpack_pack_array(pk, l->n);
        for (uint32_t i = 0; i < l->n; i++)
            put_shape(pk, f->of, (const char *)l->p + i * f->of->size);
        break;
    }
}

static void put_fields(msgpack_packer *pk, const struct shape *s, const void *p) {
    size_t at = 0;
    for (uint32_t i = 0; i < s->n_fields; i++) {
        at = shape_field_at(&s->fields[i], at);
        put_field(pk, &s->fields[i], (const char *)p + at);
        at += shape_field_size(&s->fields[i]);
    }
}

static void put_shape(msgpack_packer *pk, const struct shape *s, const void *p) {
    msgpack_pack_array(pk, s->n_fields);
    put_fields(pk, s, p);
}

void msg_encode(const struct msg *m, struct by_buf *out) {
    const struct shape *s = shape_of_kind(m->kind);
    by_assert(s != NULL);
    msgpack_packer pk;
    msgpack_packer_init(&pk, out, write_bytes);
    msgpack_pack_array(&pk, s->n_fields + HEAD_FIELDS);
    msgpack_pack_uint32(&pk, s->code);
    msgpack_pack_fix_uint64(&pk, m->session);
    msgpack_pack_fix_uint64(&pk, m->seq); /* of fixed width: msg_stamp_seq finds it */
    put_fields(&pk, s, &m->hello);
}

void msg_stamp_seq(char *frame, uint64_t seq) {
    size_t array = (uint8_t)frame[0] == 0xdc ? 3 : 1, kind = 1, session = 9;
    char *at = frame + array + kind + session;
    by_assert((uint8_t)*at == 0xcf); /* uint64 */
    for (int i = 0; i < 8; i++)
        at[1 + i] = (char)(seq >> (56 - 8 * i));
}

/* ---- reading ---- */

struct reader {
    const uint8_t *p;
    size_t n, i;
    struct by_arena *arena;
    struct by_err *err;
    const char *shape, *field; /* for the error text */
};

static int bad(struct reader *r, const char *what) {
    return by_fail(r->err, BY_EFORMAT, "frame %s, field %s, byte %zu: %s", r->shape, r->field, r->i,
                   what);
}

static int take(struct reader *r, size_t n, const uint8_t **out) {
    if (n > r->n - r->i) return bad(r, "the frame ends too early");
    *out = r->p + r->i;
    r->i += n;
    return 0;
}

static uint64_t big_endian(const uint8_t *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* The head of a value: its msgpack family, and the number or length that comes with it. */
enum family {
    IS_NIL,
    IS_BOOL,
    IS_UINT,
    IS_INT,
    IS_F32,
    IS_F64,
    IS_STR,
    IS_BIN,
    IS_ARRAY,
    IS_OTHER
};
struct head {
    enum family family;
    /* value of bool, uint, bits of int and floats; length of str, bin, array; items of a map (x2) */
    uint64_t u;
};

static int read_head(struct reader *r, struct head *h) {
    static const struct {
        enum family family;
        uint8_t n_bytes;
    } wide[0x20] = {
        [0x00] = {IS_NIL, 0},  [0x02] = {IS_BOOL, 0},  [0x03] = {IS_BOOL, 0},
        [0x04] = {IS_BIN, 1},  [0x05] = {IS_BIN, 2},   [0x06] = {IS_BIN, 4},
        [0x0a] = {IS_F32, 4},  [0x0b] = {IS_F64, 8},   [0x0c] = {IS_UINT, 1},
        [0x0d] = {IS_UINT, 2}, [0x0e] = {IS_UINT, 4},  [0x0f] = {IS_UINT, 8},
        [0x10] = {IS_INT, 1},  [0x11] = {IS_INT, 2},   [0x12] = {IS_INT, 4},
        [0x13] = {IS_INT, 8},  [0x19] = {IS_STR, 1},   [0x1a] = {IS_STR, 2},
        [0x1b] = {IS_STR, 4},  [0x1c] = {IS_ARRAY, 2}, [0x1d] = {IS_ARRAY, 4},
    };
    const uint8_t *b = NULL;
    *h = (struct head){0};
    int rc = take(r, 1, &b);
    if (rc) return rc;
    uint8_t t = *b;
    if (t < 0x80) return *h = (struct head){IS_UINT, t}, 0;
    if (t >= 0xe0) return *h = (struct head){IS_INT, (uint64_t)(int64_t)(int8_t)t}, 0;
    if (t < 0x90) return bad(r, "a map, which frames do not have");
    if (t < 0xa0) return *h = (struct head){IS_ARRAY, t & 0x0fu}, 0;
    if (t < 0xc0) return *h = (struct head){IS_STR, t & 0x1fu}, 0;
    size_t n = wide[t - 0xc0].n_bytes;
    h->family = wide[t - 0xc0].family;
    if (t != 0xc0 && h->family == IS_NIL)
        return bad(r, "a map or extension, which frames do not have");
    rc = take(r, n, &b);
    if (rc) return rc;
    h->u = h->family == IS_BOOL ? t == 0xc3 : big_endian(b, n);
    if (h->family == IS_INT && n < 8) { /* sign */
        unsigned shift = 64 - 8 * (unsigned)n;
        h->u = (uint64_t)((int64_t)(h->u << shift) >> shift);
    }
    return 0;
}

/* Steps over one value that this version does not know, without recursion. */
static int skip(struct reader *r) {
    uint64_t left = 1;
    for (uint32_t steps = 0; left; steps++) {
        struct head h;
        const uint8_t *b;
        if (steps == SKIP_MAX) return bad(r, "too many values");
        int rc = read_head(r, &h);
        if (rc) return rc;
        left--;
        if (h.family == IS_ARRAY) left += h.u;
        if (h.family != IS_STR && h.family != IS_BIN) continue;
        rc = take(r, h.u, &b);
        if (rc) return rc;
    }
    return 0;
}

static int read_int(struct reader *r, bool is_signed, uint64_t max, uint64_t *out) {
    struct head h;
    int rc = read_head(r, &h);
    if (rc) return rc;
    if (h.family == IS_NIL) return *out = 0, 0;
    if (h.family != IS_UINT && h.family != IS_INT) return bad(r, "a whole number was expected");
    bool is_negative = h.family == IS_INT && (int64_t)h.u < 0;
    /* max is the largest positive value; the smallest negative one is -max - 1 */
    if (is_negative ? !is_signed || ~h.u > max : h.u > max) return bad(r, "a number out of range");
    *out = h.u;
    return 0;
}

static int read_float(struct reader *r, double *out) {
    struct head h;
    int rc = read_head(r, &h);
    if (rc) return rc;
    uint32_t bits = (uint32_t)h.u;
    float f;
    memcpy(&f, &bits, 4);
    switch (h.family) {
    case IS_NIL:
        *out = 0;
        return 0;
    case IS_F32:
        *out = (double)f;
        return 0;
    case IS_F64:
        memcpy(out, &h.u, 8);
        return 0;
    case IS_UINT:
        *out = (double)h.u;
        return 0;
    case IS_INT:
        *out = (double)(int64_t)h.u;
        return 0;
    default:
        return bad(r, "a number was expected");
    }
}

static int read_bytes(struct reader *r, enum family want, struct by_str *out) {
    struct head h;
    const uint8_t *b = NULL;
    int rc = read_head(r, &h);
    if (rc) return rc;
    if (h.family == IS_NIL) return *out = (struct by_str){0}, 0;
    if (h.family != want)
        return bad(r, want == IS_STR ? "a string was expected" : "bytes were expected");
    if (h.u > LIMIT_STR_BYTES) return bad(r, "a string or array over the limit");
    rc = take(r, h.u, &b);
    if (rc) return rc;
    if (want == IS_STR && !by_utf8_valid((const char *)b, h.u))
        return bad(r, "a string that is not UTF-8");
    *out = (struct by_str){(const char *)b, h.u};
    return 0;
}

static int read_words(struct reader *r, struct shape_list *out) {
    struct by_str s;
    int rc = read_bytes(r, IS_BIN, &s);
    if (rc) return rc;
    if (s.n % 4) return bad(r, "an array of 4-byte numbers has a broken last one");
    if (s.n / 4 > LIMIT_TOKENS) return bad(r, "an array over the limit");
    out->n = (uint32_t)(s.n / 4);
    out->p = s.p;
    if (!out->n || (uintptr_t)s.p % 4 == 0) return 0;
    void *copy = by_arena_try(r->arena, s.n);
    if (!copy) return bad(r, "there is no memory for this array");
    out->p = memcpy(copy, s.p, s.n);
    return 0;
}

static int read_shape(struct reader *r, const struct shape *s, void *to);
static int read_fields(struct reader *r, const struct shape *s, uint64_t n, void *to);

/* Room for the elements of a list: each takes at least a byte of the frame, so n is bounded by what is left. */
static int read_list_head(struct reader *r, size_t each, struct shape_list *out) {
    struct head h;
    int rc = read_head(r, &h);
    if (rc) return rc;
    *out = (struct shape_list){0};
    if (h.family == IS_NIL) return 0;
    if (h.family != IS_ARRAY) return bad(r, "a list was expected");
    if (h.u > LIMIT_LIST || h.u > r->n - r->i) return bad(r, "a list over the limit");
    out->p = by_arena_try(r->arena, h.u * each);
    if (!out->p) return bad(r, "there is no memory for this list");
    out->n = (uint32_t)h.u;
    return 0;
}

static int read_list(struct reader *r, const struct shape *of, struct shape_list *out) {
    int rc = read_list_head(r, of->size, out);
    for (uint32_t i = 0; i < out->n && !rc; i++) {
        rc = read_shape(r, of, (char *)(uintptr_t)out->p + i * of->size);
    }
    return rc;
}

static int read_strs(struct reader *r, struct shape_list *out) {
    int rc = read_list_head(r, sizeof(struct by_str), out);
    for (uint32_t i = 0; i < out->n && !rc; i++) {
        rc = read_bytes(r, IS_STR, (struct by_str *)(uintptr_t)out->p + i);
    }
    return rc;
}

static int read_scalar(struct reader *r, enum shape_type type, void *to) {
    uint64_t u = 0;
    double d = 0;
    int rc = 0;
    switch (type) {
    case SHAPE_U32:
        rc = read_int(r, false, UINT32_MAX, &u);
        *(uint32_t *)to = (uint32_t)u;
        return rc;
    case SHAPE_U64:
        return read_int(r, false, UINT64_MAX, to);
    case SHAPE_I32:
        rc = read_int(r, true, INT32_MAX, &u);
        *(int32_t *)to = (int32_t)(int64_t)u;
        return rc;
    case SHAPE_I64:
        return read_int(r, true, INT64_MAX, to);
    case SHAPE_F32:
        rc = read_float(r, &d);
        *(float *)to = (float)d;
        return rc;
    default:
        return read_float(r, to);
    }
}

static int read_bool(struct reader *r, bool *out) {
    struct head h;
    int rc = read_head(r, &h);
    if (rc) return rc;
    if (h.family > IS_UINT || h.u > 1)
        return h.family == IS_NIL ? 0 : bad(r, "true or false was expected");
    *out = h.family != IS_NIL && h.u == 1;
    return 0;
}

static int read_field(struct reader *r, const struct shape_field *f, void *to) {
    r->field = f->name;
    switch (f->type) {
    case SHAPE_BOOL:
        return read_bool(r, to);
    case SHAPE_STR:
        return read_bytes(r, IS_STR, to);
    case SHAPE_BIN:
        return read_bytes(r, IS_BIN, to);
    case SHAPE_U32S:
    case SHAPE_F32S:
        return read_words(r, to);
    case SHAPE_STRS:
        return read_strs(r, to);
    case SHAPE_RECORD:
        return read_shape(r, f->of, to);
    case SHAPE_LIST:
        return read_list(r, f->of, to);
    default:
        return read_scalar(r, f->type, to);
    }
}

static int read_fields(struct reader *r, const struct shape *s, uint64_t n, void *to) {
    size_t at = 0;
    int rc = 0;
    for (uint32_t i = 0; i < s->n_fields && i < n && !rc; i++) {
        at = shape_field_at(&s->fields[i], at);
        rc = read_field(r, &s->fields[i], (char *)to + at);
        at += shape_field_size(&s->fields[i]);
    }
    /* fields of a newer version */
    for (uint64_t i = s->n_fields; i < n && !rc; i++)
        rc = skip(r);
    return rc;
}

/* Records nest as deep as messages.def says, not as deep as the sender likes. */
static int read_shape(struct reader *r, const struct shape *s, void *to) {
    struct head h;
    int rc = read_head(r, &h);
    if (rc) return rc;
    if (h.family == IS_NIL) return 0;
    if (h.family != IS_ARRAY) return bad(r, "a record was expected");
    return read_fields(r, s, h.u, to);
}

int msg_decode(struct msg *m, struct by_str frame, struct by_arena *arena, struct by_err *err) {
    struct reader r = {.p = (const uint8_t *)frame.p,
                       .n = frame.n,
                       .arena = arena,
                       .err = err,
                       .shape = "?",
                       .field = "kind"};
    struct head h;
    uint64_t kind;
    *m = (struct msg){0};
    if (frame.n > LIMIT_FRAME_BYTES)
        return by_fail(err, BY_ELIMIT, "a frame of %zu bytes is over the limit", frame.n);
    int rc = read_head(&r, &h);
    if (rc) return rc;
    if (h.family != IS_ARRAY || h.u < HEAD_FIELDS)
        return bad(&r, "a frame is an array of kind, session, seq and fields");
    rc = read_int(&r, false, UINT32_MAX, &kind);
    if (rc) return rc;
    const struct shape *s = shape_of_kind((uint32_t)kind);
    if (!s)
        return by_fail(err, BY_EFORMAT, "a frame of the unknown kind %llu",
                       (unsigned long long)kind);
    r.shape = s->name;
    m->kind = (enum msg_kind)kind;
    rc = read_int(&r, false, UINT64_MAX, &m->session);
    if (!rc) rc = read_int(&r, false, UINT64_MAX, &m->seq);
    if (!rc) rc = read_fields(&r, s, h.u - HEAD_FIELDS, &m->hello);
    if (!rc && r.i != r.n) rc = bad(&r, "bytes behind the end");
    return rc;
}

bool msg_equal(const struct msg *a, const struct msg *b) {
    return a->kind == b->kind && a->session == b->session && a->seq == b->seq &&
           shape_equal(shape_of_kind(a->kind), &a->hello, &b->hello);
}

void msg_print(const struct msg *m, struct by_buf *out) {
    const struct shape *s = shape_of_kind(m->kind);
    by_buf_addf(out, "%s session=%llx seq=%llu ", s ? s->name : "?", (unsigned long long)m->session,
                (unsigned long long)m->seq);
    if (s) shape_print(s, &m->hello, out);
}

bool msg_kind_known(uint32_t code) {
    return shape_of_kind(code) != NULL;
}

const char *msg_kind_name(uint32_t code) {
    const struct shape *s = shape_of_kind(code);
    return s ? s->name : "?";
}

/* The texts of one ENUM of messages.def: role_text, finish_text. */
#define RECORD(name, doc)
#define MESSAGE(name, code, doc)
#define FIELD(type, name, doc)
#define LIST(record, name, doc)
#define END(name)
#define ENUM(name, doc) \
    const char *name##_text(uint32_t value) { \
        switch ((enum name)value) {
#define VALUE(id, value, text) \
    case id: \
        return text;
#define END_ENUM(name) \
    } \
    return "?"; \
    }
#include "proto/messages.def"
