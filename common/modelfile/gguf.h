/* gguf.h - reads ggml's model file in place, from a mapping.
 *
 *     +--------+---------+-----------+----------+---------------------+----------------------+---------+--------+
 *     | "GGUF" | u32 ver | u64 n_ten | u64 n_kv | n_kv x (key, value) | n_ten x tensor info  | padding | data … |
 *     +--------+---------+-----------+----------+---------------------+----------------------+---------+--------+
 *     key: u64 length, bytes     value: u32 type, payload     array: u32 type, u64 n, n payloads
 *     tensor info: name, u32 n_dims, u64 dims (fastest first), u32 ggml type, u64 offset into data
 *
 * Always, once open: every string, array and tensor lies inside the file, so walking them needs no further check;
 * names and keys are unique; tensors do not overlap.
 * Owner: whoever opened; one thread opens, any may read. Versions 2 and 3, little endian. */
#ifndef COMMON_MODELFILE_GGUF_H
#define COMMON_MODELFILE_GGUF_H

#include "common/base/err.h"
#include "common/modelfile/tensor_info.h"

enum by_gguf_type {
    BY_GGUF_U8 = 0,
    BY_GGUF_I8,
    BY_GGUF_U16,
    BY_GGUF_I16,
    BY_GGUF_U32,
    BY_GGUF_I32,
    BY_GGUF_F32,
    BY_GGUF_BOOL,
    BY_GGUF_STR,
    BY_GGUF_ARRAY,
    BY_GGUF_U64,
    BY_GGUF_I64,
    BY_GGUF_F64,
    BY_GGUF_N_TYPES,
};

enum {
    BY_GGUF_KEYS_MAX = 1 << 16,
    BY_GGUF_KEY_BYTES_MAX = 1 << 16,
    BY_GGUF_ARRAY_MAX = 1 << 24, /* elements; the largest vocabularies have 2^18 tokens */
};

struct by_gguf;

/* Maps path and reads its header. The file must stay as it is while it is open. */
BY_MUST_USE int by_gguf_open(struct by_gguf **out, const char *path, struct by_err *err);
/* The same over bytes of the caller's, which must outlive it; `name` is for errors. */
BY_MUST_USE int by_gguf_parse(struct by_gguf **out, struct by_str bytes, const char *name,
                              struct by_err *err);
void by_gguf_close(struct by_gguf *g); /* NULL is fine */

size_t by_gguf_n_tensors(const struct by_gguf *g);
const struct by_tensor_info *by_gguf_tensor(const struct by_gguf *g, size_t i);
/* NULL: not there */
const struct by_tensor_info *by_gguf_find(const struct by_gguf *g, struct by_str name);

/* One key and its value, in file order. */
struct by_gguf_key {
    struct by_str name;
    enum by_gguf_type type;
    enum by_gguf_type item_type; /* of an array */
    uint64_t n;                  /* elements of an array, bytes of a string, else 1 */
    const uint8_t *payload;      /* unaligned */
};
size_t by_gguf_n_keys(const struct by_gguf *g);
const struct by_gguf_key *by_gguf_key_at(const struct by_gguf *g, size_t i);
/* NULL: not there */
const struct by_gguf_key *by_gguf_key(const struct by_gguf *g, const char *key);

/* Typed getters: a missing key is *out untouched and 0; a wrong type or a value out of range is an error that names
 * the key. Any integer type serves where an integer is asked for, any number where a float is. */
BY_MUST_USE int by_gguf_get_str(const struct by_gguf *g, const char *key, struct by_str *out,
                                struct by_err *err);
BY_MUST_USE int by_gguf_get_i64(const struct by_gguf *g, const char *key, int64_t min, int64_t max,
                                int64_t *out, struct by_err *err);
BY_MUST_USE int by_gguf_get_f64(const struct by_gguf *g, const char *key, double min, double max,
                                double *out, struct by_err *err);
BY_MUST_USE int by_gguf_get_bool(const struct by_gguf *g, const char *key, bool *out,
                                 struct by_err *err);

/* Walks an array without copying it:
 *
 *     struct by_gguf_array a;                                  a.n elements; 0 when the key is missing
 *     rc = by_gguf_get_array(g, "tokenizer.ggml.tokens", BY_GGUF_STR, &a, err);
 *     while (by_gguf_next_str(&a, &token)) …                   each token borrowed from the mapping
 *
 * Strings come in order only; numbers also by index. */
struct by_gguf_array {
    enum by_gguf_type type;
    uint64_t n;       /* elements in all */
    uint64_t i;       /* elements given out */
    const uint8_t *p; /* the next one */
    const uint8_t *base;
};
/* want: BY_GGUF_STR, BY_GGUF_BOOL, or BY_GGUF_I64 (any integers), BY_GGUF_F64 (any numbers). */
BY_MUST_USE int by_gguf_get_array(const struct by_gguf *g, const char *key, enum by_gguf_type want,
                                  struct by_gguf_array *out, struct by_err *err);
bool by_gguf_next_str(struct by_gguf_array *a, struct by_str *out); /* false at the end */
/* i < n; a u64 past INT64_MAX gives INT64_MAX */
int64_t by_gguf_at_i64(const struct by_gguf_array *a, uint64_t i);
double by_gguf_at_f64(const struct by_gguf_array *a, uint64_t i); /* i < n */

#endif
