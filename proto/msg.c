#include "proto/msg.h"

#include "common/base/utf8.h"
#include "proto/shape.h"

/* Reading is a walk of our own over the bytes: a library's unpacker builds the whole object tree before one of our ceilings could
 * be asked, and recursion and allocation would be the sender's to choose. A frame has few forms, so the walk is short. */

enum { SKIP_MAX = 1 << 20 };

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

static int read_long_head(struct reader *r, struct head *h) {
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

/* Most values are small numbers. */
static inline int read_head(struct reader *r, struct head *h) {
    if (r->i == r->n || r->p[r->i] >= 0x80) return read_long_head(r, h);
    *h = (struct head){IS_UINT, r->p[r->i++]};
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

/* n elements of 4 bytes each: borrowed, or copied to where they may lie. */
static int read_words(struct reader *r, const void **out, uint32_t *n) {
    struct by_str s;
    int rc = read_bytes(r, IS_BIN, &s);
    if (rc) return rc;
    if (s.n % 4) return bad(r, "an array of 4-byte numbers has a broken last one");
    if (s.n / 4 > LIMIT_TOKENS) return bad(r, "an array over the limit");
    *n = (uint32_t)(s.n / 4);
    *out = s.p;
    if (!*n || (uintptr_t)s.p % 4 == 0) return 0;
    void *copy = by_arena_try(r->arena, s.n);
    if (!copy) return bad(r, "there is no memory for this array");
    *out = memcpy(copy, s.p, s.n);
    return 0;
}

/* Room for the elements of a list: each takes at least a byte of the frame, so n is bounded by what is left. */
static int read_list(struct reader *r, size_t each, void **out, uint32_t *n) {
    struct head h;
    int rc = read_head(r, &h);
    if (rc) return rc;
    if (h.family == IS_NIL) return 0;
    if (h.family != IS_ARRAY) return bad(r, "a list was expected");
    if (h.u > LIMIT_LIST || h.u > r->n - r->i) return bad(r, "a list over the limit");
    *out = by_arena_try(r->arena, h.u * each);
    if (!*out) return bad(r, "there is no memory for this list");
    *n = (uint32_t)h.u;
    return 0;
}

/* What the rows call. */
static inline int read_bool(struct reader *r, bool *to) {
    struct head h;
    int rc = read_head(r, &h);
    if (rc) return rc;
    if (h.family > IS_UINT || h.u > 1) return bad(r, "true or false was expected");
    *to = h.u == 1;
    return 0;
}
static inline int read_u32(struct reader *r, uint32_t *to) {
    uint64_t u = 0;
    int rc = read_int(r, false, UINT32_MAX, &u);
    *to = (uint32_t)u;
    return rc;
}
static inline int read_u64(struct reader *r, uint64_t *to) {
    return read_int(r, false, UINT64_MAX, to);
}
static inline int read_i32(struct reader *r, int32_t *to) {
    uint64_t u = 0;
    int rc = read_int(r, true, INT32_MAX, &u);
    *to = (int32_t)(int64_t)u;
    return rc;
}
static inline int read_i64(struct reader *r, int64_t *to) {
    return read_int(r, true, INT64_MAX, (uint64_t *)to);
}
static inline int read_f64(struct reader *r, double *to) {
    return read_float(r, to);
}
static inline int read_f32(struct reader *r, float *to) {
    double d = 0;
    int rc = read_float(r, &d);
    *to = (float)d;
    return rc;
}
static inline int read_str(struct reader *r, struct by_str *to) {
    return read_bytes(r, IS_STR, to);
}
static inline int read_bin(struct reader *r, struct by_str *to) {
    return read_bytes(r, IS_BIN, to);
}
static inline int read_u32s(struct reader *r, struct msg_u32s *to) {
    const void *p = NULL;
    int rc = read_words(r, &p, &to->n);
    to->p = p;
    return rc;
}
static inline int read_f32s(struct reader *r, struct msg_f32s *to) {
    const void *p = NULL;
    int rc = read_words(r, &p, &to->n);
    to->p = p;
    return rc;
}
static inline int read_strs(struct reader *r, struct msg_strs *to) {
    void *p = NULL;
    int rc = read_list(r, sizeof(struct by_str), &p, &to->n);
    to->p = p;
    for (uint32_t i = 0; i < to->n && !rc; i++)
        rc = read_str(r, (struct by_str *)p + i);
    return rc;
}

/* A record is an array within the frame's; nil is one of zeros. */
static int read_record(struct reader *r, uint64_t *n) {
    struct head h;
    int rc = read_head(r, &h);
    if (rc) return rc;
    if (h.family != IS_ARRAY && h.family != IS_NIL) return bad(r, "a record was expected");
    *n = h.u;
    return 0;
}

/* A function for each row: n fields of it, and another for the record with its head. They nest as deep as messages.def says, not
 * as deep as the sender likes. What a newer version has behind them is skipped. */
#define RECORD(name, doc) MESSAGE(name, 0, doc)
#define MESSAGE(name, code, doc) \
    static int read_fields_##name(struct reader *r, uint64_t n, struct msg_##name *to) { \
        int rc = 0; \
        (void)to;
#define FIELD(type, name, doc) \
    if (n > 0 && !rc) { \
        n--; \
        r->field = #name; \
        rc = read_##type(r, &to->name); \
    }
#define LIST(record, name, doc) \
    if (n > 0 && !rc) { \
        void *p = NULL; \
        n--; \
        r->field = #name; \
        rc = read_list(r, sizeof(struct msg_##record), &p, &to->name.n); \
        to->name.p = p; \
        for (uint32_t i = 0; i < to->name.n && !rc; i++) \
            rc = read_##record(r, (struct msg_##record *)p + i); \
    }
#define END(name) \
    while (n-- > 0 && !rc) \
        rc = skip(r); \
    return rc; \
    } \
    static inline int read_##name(struct reader *r, struct msg_##name *to) { \
        uint64_t n = 0; \
        int rc = read_record(r, &n); \
        return rc ? rc : read_fields_##name(r, n, to); \
    }
#include "proto/messages.def"

static int read_kind(struct reader *r, uint64_t n, struct msg *m) {
    switch (m->kind) {
#define MESSAGE(name, code, doc) \
    case MSG_##name: \
        return read_fields_##name(r, n, &m->name);
#include "proto/messages.def"
    }
    return bad(r, "a kind without a reader");
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
    if (h.family != IS_ARRAY || h.u < MSG_HEAD_FIELDS)
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
    if (!rc) rc = read_kind(&r, h.u - MSG_HEAD_FIELDS, m);
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
