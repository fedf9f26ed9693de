/* msg.h - every frame as a C struct, made from messages.def.
 *
 *     struct msg m = {.kind = MSG_ack, .ack = {.name = n, .n_tokens = 7}};
 *     msg_encode(&m, &buf);                        one msgpack array: [kind, session, seq, field, …]
 *     msg_decode(&m, frame, &arena, &err);         strings and arrays borrow from frame or lie in arena
 *
 * Always: decode checks every size against limits.h before it allocates, and refuses rather than guesses; what decode
 * takes, encode writes back to an equal message.
 * Owner: the caller; a decoded message lives as long as the frame and the arena. msg_…_copy makes one that lives as
 * long as another arena. */
#ifndef PROTO_MSG_H
#define PROTO_MSG_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "proto/limits.h"

struct msg_u32s {
    const uint32_t *p;
    uint32_t n;
};
struct msg_f32s {
    const float *p;
    uint32_t n;
};
struct msg_strs {
    const struct by_str *p;
    uint32_t n;
};

/* The C type behind each field type of messages.def. A record used as a field needs its line here. */
#define MSG_C_bool bool
#define MSG_C_u32 uint32_t
#define MSG_C_u64 uint64_t
#define MSG_C_i32 int32_t
#define MSG_C_i64 int64_t
#define MSG_C_f32 float
#define MSG_C_f64 double
#define MSG_C_str struct by_str
#define MSG_C_bin struct by_str
#define MSG_C_u32s struct msg_u32s
#define MSG_C_f32s struct msg_f32s
#define MSG_C_strs struct msg_strs
#define MSG_C_name struct msg_name
#define MSG_C_sampling struct msg_sampling
#define MSG_C_sampling_defaults struct msg_sampling_defaults
#define MSG_C_textual struct msg_textual
#define MSG_C_routing struct msg_routing
#define MSG_C_model struct msg_model
#define MSG_C_capacity struct msg_capacity
#define MSG_C_top struct msg_top

/* Enums and structs. */
#define ENUM(name, doc) enum name {
#define VALUE(id, value, text) id = value,
#define END_ENUM(name) \
    } \
    ;
#define RECORD(name, doc) struct msg_##name {
#define MESSAGE(name, code, doc) struct msg_##name {
#define FIELD(type, name, doc) MSG_C_##type name;
#define LIST(record, name, doc) \
    struct { \
        const struct msg_##record *p; \
        uint32_t n; \
    } name;
#define END(name) \
    } \
    ;
#include "proto/messages.def"

enum msg_kind {
#define MESSAGE(name, code, doc) MSG_##name = code,
#include "proto/messages.def"
};

enum { MSG_HEAD_FIELDS = 3 }; /* of a frame, before a message's own: kind, session, seq */
struct msg {
    enum msg_kind kind;
    uint64_t session; /* stamped and checked by wire.c */
    uint64_t seq;
    union {
#define MESSAGE(name, code, doc) struct msg_##name name;
#include "proto/messages.def"
    };
};

/* Appends the frame to out; look at out->is_full afterwards. */
void msg_encode(const struct msg *m, struct by_buf *out);
/* Writes seq into an encoded frame: wire.c numbers frames as they leave, not as they queue. */
void msg_stamp_seq(char *frame, uint64_t seq);
BY_MUST_USE int msg_decode(struct msg *m, struct by_str frame, struct by_arena *arena,
                           struct by_err *err);
/* bit for bit: NaN equals itself, 0 is not -0 */
bool msg_equal(const struct msg *a, const struct msg *b);
/* One line for traces: ack name=(7,1) sample=0 … Long arrays and strings are cut; prompts show their length only. */
void msg_print(const struct msg *m, struct by_buf *out);
bool msg_kind_known(uint32_t code);
const char *msg_kind_name(uint32_t code);            /* "ack"; "?" for an unknown code */
static inline bool msg_is_data(enum msg_kind kind) { /* costs credit */
    return kind >= 16 && kind < 32;
}
const char *role_text(uint32_t role);     /* "gpu-worker"; "?" for an unknown one */
const char *finish_text(uint32_t reason); /* "stop", "length", "abort"; "" while it runs */
const char *update_phase_text(uint32_t phase);
const char *vector_text(uint32_t want); /* "text", "embeddings", "scores" */

/* Deep copies: to's strings and arrays lie in the arena. msg_sampling_copy(&arena, from, to), … for every struct. */
#define RECORD(name, doc) \
    void msg_##name##_copy(struct by_arena *arena, const struct msg_##name *from, \
                           struct msg_##name *to);
#define MESSAGE(name, code, doc) RECORD(name, doc)
#include "proto/messages.def"

#endif
