/* shape.h - messages.def as data: what fields a record or message has. Walked to print, compare and copy; reading and writing
 * are code of their own for each row (msg.c, msg_encode.c).
 *
 *     shape "ack" ─▶ [ name: record ─▶ shape "name" ][ sample: u32 ][ n_tokens: u32 ][ is_final: bool ]
 *
 * Always: a struct lays its fields out in the order of the rows, each at the next multiple of its alignment, as the C
 * compiler does; shape_check (a test calls it) compares the sum with sizeof.
 * Owner: nobody; constant. */
#ifndef PROTO_SHAPE_H
#define PROTO_SHAPE_H

#include "common/base/arena.h"
#include "common/base/buf.h"

enum shape_type {
    SHAPE_BOOL,
    SHAPE_U32,
    SHAPE_U64,
    SHAPE_I32,
    SHAPE_I64,
    SHAPE_F32,
    SHAPE_F64,
    SHAPE_STR,
    SHAPE_BIN,
    SHAPE_U32S,
    SHAPE_F32S,
    SHAPE_STRS,
    SHAPE_RECORD,
    SHAPE_LIST
};

struct shape;
struct shape_field {
    const char *name;
    enum shape_type type;
    const struct shape *of; /* of a record or list */
};
struct shape {
    const char *name;
    uint32_t code; /* of a message; 0 for records */
    size_t size, align;
    const struct shape_field *fields;
    uint32_t n_fields;
};
/* What a list field is in memory, whatever its records. */
struct shape_list {
    const void *p;
    uint32_t n;
};

const struct shape *shape_of_kind(uint32_t code); /* NULL when unknown */
size_t shape_field_size(const struct shape_field *f);
/* Offset of field f, when the fields before it end at `at`. */
size_t shape_field_at(const struct shape_field *f, size_t at);
bool shape_check(void);
void shape_copy(struct by_arena *arena, const struct shape *s, const void *from, void *to);
bool shape_equal(const struct shape *s, const void *a, const void *b);
void shape_print(const struct shape *s, const void *p, struct by_buf *out);

#endif
