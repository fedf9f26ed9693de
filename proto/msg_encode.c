/* msg_encode.c - a message into bytes: what messages.def's rows become for a writer.
 *
 * Each value takes the fewest bytes there are for it, as msgpack-c packs it: its template, over room of our own. Its packer
 * calls back for each piece, which takes five times as long. */
#include "common/base/check.h"
#include "proto/msg.h"

#include <msgpack.h>

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

static inline int append(struct writer *w, const void *p, size_t n) {
    char *to = room(w, n);
    if (to) memcpy(to, p, n);
    return 0;
}

#define msgpack_pack_inline_func(name) static inline int pack##name
#define msgpack_pack_inline_func_cint(name) static inline int pack##name
#define msgpack_pack_inline_func_fixint(name) static inline int pack_fix##name
#define msgpack_pack_user struct writer *
#define msgpack_pack_append_buffer(w, p, n) return append(w, p, n)
#include <msgpack/pack_template.h>

/* What the rows call. */
static inline void put_bool(struct writer *w, const bool *v) {
    (void)(*v ? pack_true(w) : pack_false(w));
}
static inline void put_u32(struct writer *w, const uint32_t *v) {
    pack_uint32(w, *v);
}
static inline void put_u64(struct writer *w, const uint64_t *v) {
    pack_uint64(w, *v);
}
static inline void put_i32(struct writer *w, const int32_t *v) {
    pack_int32(w, *v);
}
static inline void put_i64(struct writer *w, const int64_t *v) {
    pack_int64(w, *v);
}
static inline void put_f32(struct writer *w, const float *v) {
    pack_float(w, *v);
}
static inline void put_f64(struct writer *w, const double *v) {
    pack_double(w, *v);
}
static inline void put_str(struct writer *w, const struct by_str *s) {
    pack_str(w, s->n);
    if (s->n) pack_str_body(w, s->p, s->n);
}
static inline void put_bytes(struct writer *w, const void *p, size_t n) {
    pack_bin(w, n);
    if (n) pack_bin_body(w, p, n);
}
static inline void put_bin(struct writer *w, const struct by_str *s) {
    put_bytes(w, s->p, s->n);
}
static inline void put_u32s(struct writer *w, const struct msg_u32s *l) {
    put_bytes(w, l->p, (size_t)l->n * sizeof *l->p);
}
static inline void put_f32s(struct writer *w, const struct msg_f32s *l) {
    put_bytes(w, l->p, (size_t)l->n * sizeof *l->p);
}
static inline void put_strs(struct writer *w, const struct msg_strs *l) {
    pack_array(w, l->n);
    for (uint32_t i = 0; i < l->n; i++)
        put_str(w, &l->p[i]);
}

/* Pass 1: how many fields each has. */
#define RECORD(name, doc) enum { N_##name = 0
#define MESSAGE(name, code, doc) RECORD(name, doc)
#define FIELD(type, name, doc) +1
#define LIST(record, name, doc) +1
#define END(name) \
    } \
    ;
#include "proto/messages.def"

/* Pass 2: a function for each; a record is an array within the frame's. */
#define RECORD(name, doc) \
    static void put_##name(struct writer *w, const struct msg_##name *m) { \
        pack_array(w, N_##name);
#define MESSAGE(name, code, doc) \
    static void put_##name(struct writer *w, const struct msg_##name *m) { \
        (void)w, (void)m;
#define FIELD(type, name, doc) put_##type(w, &m->name);
#define LIST(record, name, doc) \
    pack_array(w, m->name.n); \
    for (uint32_t i = 0; i < m->name.n; i++) \
        put_##record(w, &m->name.p[i]);
#define END(name) }
#include "proto/messages.def"

static void put_head(struct writer *w, const struct msg *m, uint32_t n_fields) {
    pack_array(w, MSG_HEAD_FIELDS + n_fields);
    pack_uint32(w, (uint32_t)m->kind);
    pack_fix_uint64(w, m->session);
    pack_fix_uint64(w, m->seq); /* of fixed width: msg_stamp_seq finds it */
}

void msg_encode(const struct msg *m, struct by_buf *out) {
    struct writer w = {.out = out};
    switch (m->kind) {
#define MESSAGE(name, code, doc) \
    case MSG_##name: \
        put_head(&w, m, N_##name); \
        put_##name(&w, &m->name); \
        break;
#include "proto/messages.def"
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
