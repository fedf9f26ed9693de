/* msg_encode.c - a message into bytes: what messages.def's rows become for a writer.
 *
 * A frame has few forms. A library's packer is called for each value and calls back for each piece of it; that takes five times as
 * long as what is written here. */
#include "common/base/check.h"
#include "proto/msg.h"

/* ---- each value in the fewest bytes there are for it ---- */

struct writer {
    struct by_buf *out; /* its n is brought up to date when room runs out, and at the end */
    char *p, *end;      /* room in it; NULL at first, and when it is full */
};

static bool more(struct writer *w, size_t n) {
    struct by_buf *out = w->out;
    if (w->p) out->n = (size_t)(w->p - out->p);
    w->p = by_buf_reserve(out, n);
    w->end = w->p ? out->p + BY_MIN(out->cap - 1, out->max) : NULL;
    return w->p != NULL;
}

/* n more bytes, not 0; NULL: the frame is over its limit, and out says so. */
static inline char *room(struct writer *w, size_t n) {
    if ((size_t)(w->end - w->p) < n && !more(w, n)) return NULL;
    w->p += n;
    return w->p - n;
}

static inline void put_byte(struct writer *w, unsigned byte) {
    char *to = room(w, 1);
    if (to) *to = (char)byte;
}

/* A type and the low n bytes of v, the highest first. */
static inline void put_wide(struct writer *w, unsigned type, uint64_t v, unsigned n) {
    char *to = room(w, 1 + n);
    if (!to) return;
    *to++ = (char)type;
    while (n-- > 0)
        *to++ = (char)(v >> 8 * n);
}

static inline void put_uint(struct writer *w, uint64_t v) {
    if (v < 0x80)
        put_byte(w, (unsigned)v);
    else if (v <= UINT8_MAX)
        put_wide(w, 0xcc, v, 1);
    else if (v <= UINT16_MAX)
        put_wide(w, 0xcd, v, 2);
    else if (v <= UINT32_MAX)
        put_wide(w, 0xce, v, 4);
    else
        put_wide(w, 0xcf, v, 8);
}

static inline void put_int(struct writer *w, int64_t v) {
    if (v >= 0)
        put_uint(w, (uint64_t)v);
    else if (v >= -32)
        put_byte(w, (unsigned)v);
    else if (v >= INT8_MIN)
        put_wide(w, 0xd0, (uint64_t)v, 1);
    else if (v >= INT16_MIN)
        put_wide(w, 0xd1, (uint64_t)v, 2);
    else if (v >= INT32_MIN)
        put_wide(w, 0xd2, (uint64_t)v, 4);
    else
        put_wide(w, 0xd3, (uint64_t)v, 8);
}

static inline void put_array(struct writer *w, uint32_t n) {
    if (n < 16)
        put_byte(w, 0x90 | n);
    else
        put_wide(w, n <= UINT16_MAX ? 0xdc : 0xdd, n, n <= UINT16_MAX ? 2 : 4);
}

static inline void put_raw(struct writer *w, const void *p, size_t n) {
    char *to = n ? room(w, n) : NULL;
    if (to) memcpy(to, p, n);
}

/* `type` is the one whose length is a byte; those of two and four follow. */
static inline void put_bytes(struct writer *w, unsigned type, const void *p, size_t n) {
    if (n <= UINT8_MAX)
        put_wide(w, type, n, 1);
    else
        put_wide(w, n <= UINT16_MAX ? type + 1 : type + 2, n, n <= UINT16_MAX ? 2 : 4);
    put_raw(w, p, n);
}

/* What the rows call. */
static inline void put_bool(struct writer *w, const bool *v) {
    put_byte(w, *v ? 0xc3 : 0xc2);
}
static inline void put_u32(struct writer *w, const uint32_t *v) {
    put_uint(w, *v);
}
static inline void put_u64(struct writer *w, const uint64_t *v) {
    put_uint(w, *v);
}
static inline void put_i32(struct writer *w, const int32_t *v) {
    put_int(w, *v);
}
static inline void put_i64(struct writer *w, const int64_t *v) {
    put_int(w, *v);
}
static inline void put_f32(struct writer *w, const float *v) {
    uint32_t bits;
    memcpy(&bits, v, sizeof bits);
    put_wide(w, 0xca, bits, 4);
}
static inline void put_f64(struct writer *w, const double *v) {
    uint64_t bits;
    memcpy(&bits, v, sizeof bits);
    put_wide(w, 0xcb, bits, 8);
}
static inline void put_str(struct writer *w, const struct by_str *s) {
    if (s->n < 32) {
        put_byte(w, 0xa0 | (unsigned)s->n);
        put_raw(w, s->p, s->n);
    } else {
        put_bytes(w, 0xd9, s->p, s->n);
    }
}
static inline void put_bin(struct writer *w, const struct by_str *s) {
    put_bytes(w, 0xc4, s->p, s->n);
}
static inline void put_u32s(struct writer *w, const struct msg_u32s *l) {
    put_bytes(w, 0xc4, l->p, (size_t)l->n * sizeof *l->p);
}
static inline void put_f32s(struct writer *w, const struct msg_f32s *l) {
    put_bytes(w, 0xc4, l->p, (size_t)l->n * sizeof *l->p);
}
static inline void put_strs(struct writer *w, const struct msg_strs *l) {
    put_array(w, l->n);
    for (uint32_t i = 0; i < l->n; i++)
        put_str(w, &l->p[i]);
}

/* Pass 1: how many fields each has. */
#define ENUM(name, doc)
#define VALUE(id, value, text)
#define END_ENUM(name)
#define RECORD(name, doc) enum { N_##name = 0
#define MESSAGE(name, code, doc) RECORD(name, doc)
#define FIELD(type, name, doc) +1
#define LIST(record, name, doc) +1
#define END(name) \
    } \
    ;
#include "proto/messages.def"
#undef RECORD
#undef MESSAGE
#undef FIELD
#undef LIST
#undef END

/* Pass 2: a function for each; a record is an array within the frame's. */
#define RECORD(name, doc) \
    static void put_##name(struct writer *w, const struct msg_##name *m) { \
        put_array(w, N_##name);
#define MESSAGE(name, code, doc) \
    static void put_##name(struct writer *w, const struct msg_##name *m) { \
        (void)w, (void)m;
#define FIELD(type, name, doc) put_##type(w, &m->name);
#define LIST(record, name, doc) \
    put_array(w, m->name.n); \
    for (uint32_t i = 0; i < m->name.n; i++) \
        put_##record(w, &m->name.p[i]);
#define END(name) }
#include "proto/messages.def"
#undef RECORD
#undef MESSAGE
#undef FIELD
#undef LIST
#undef END

static void put_head(struct writer *w, const struct msg *m, uint32_t n_fields) {
    put_array(w, MSG_HEAD_FIELDS + n_fields);
    put_uint(w, m->kind);
    put_wide(w, 0xcf, m->session, 8);
    put_wide(w, 0xcf, m->seq, 8); /* of fixed width: msg_stamp_seq finds it */
}

void msg_encode(const struct msg *m, struct by_buf *out) {
    struct writer w = {.out = out};
    switch (m->kind) {
#define RECORD(name, doc)
#define MESSAGE(name, code, doc) \
    case MSG_##name: \
        put_head(&w, m, N_##name); \
        put_##name(&w, &m->name); \
        break;
#define FIELD(type, name, doc)
#define LIST(record, name, doc)
#define END(name)
#include "proto/messages.def"
#undef ENUM
#undef VALUE
#undef END_ENUM
#undef RECORD
#undef MESSAGE
#undef FIELD
#undef LIST
#undef END
    }
    by_assert(w.p || out->is_full); /* it was a kind */
    if (w.p) out->n = (size_t)(w.p - out->p);
    if (w.p) *w.p = '\0';
}

void msg_stamp_seq(char *frame, uint64_t seq) {
    size_t array = (uint8_t)frame[0] == 0xdc ? 3 : 1, kind = 1, session = 9;
    char *at = frame + array + kind + session;
    by_assert((uint8_t)*at == 0xcf); /* uint64 */
    for (int i = 0; i < 8; i++)
        at[1 + i] = (char)(seq >> (56 - 8 * i));
}
