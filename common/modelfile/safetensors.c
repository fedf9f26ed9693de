#include "common/modelfile/safetensors.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/map.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    HEADER_DEPTH_MAX = 4,
    /* cJSON needs some 64 bytes a value, so text full of commas would cost far more than its own size. A matrix has
     * five commas; the rest is for __metadata__. */
    HEADER_COMMAS_MAX = BY_ST_FILE_TENSORS_MAX * 6 + 65536,
    INDEX_COMMAS_MAX = BY_TENSORS_MAX + 65536,
};

/* One mapped file; its JSON stays, because the names live in it. */
struct shard {
    struct by_mapped map;
    struct by_json *header;
};

struct by_safetensors {
    struct shard *shards;
    size_t n_shards;
    struct by_json *index; /* of a sharded model */
    struct by_tensor_info *tensors;
    size_t n, cap;
    struct by_strmap by_name;
};

static int fail_tensor(struct by_err *err, const char *file, struct by_str name,
                       const char *problem) {
    return by_fail(err, BY_EFORMAT, "%s: tensor '" BY_STR_FMT "': %s", file,
                   BY_STR_ARG(by_str_sub(name, 0, 100)), problem);
}

static int add_tensor(struct by_safetensors *s, const struct by_tensor_info *t, const char *file,
                      struct by_err *err) {
    uint64_t before;
    if (by_strmap_get(&s->by_name, t->name, &before))
        return fail_tensor(err, file, t->name, "is there twice");
    if (s->n == BY_TENSORS_MAX)
        return by_fail(err, BY_ELIMIT, "%s: more than %d tensors", file, BY_TENSORS_MAX);
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 256;
        s->tensors = by_realloc_array(s->tensors, s->cap, sizeof *s->tensors);
    }
    s->tensors[s->n] = *t;
    by_strmap_put(&s->by_name, t->name, s->n++);
    return 0;
}

static int read_shape(struct by_tensor_info *t, const struct by_json *entry, const char *file,
                      struct by_err *err) {
    const struct by_json *shape = by_json_get(entry, "shape");
    if (!shape || by_json_type(shape) != BY_JSON_ARRAY)
        return fail_tensor(err, file, t->name, "has no shape");
    for (const struct by_json *it = by_json_first(shape); it; it = by_json_next(it)) {
        int64_t dim;
        if (t->n_dims == BY_TENSOR_DIMS_MAX)
            return fail_tensor(err, file, t->name, "has more than 8 dimensions");
        if (!by_json_to_i64(it, &dim) || dim < 0)
            return fail_tensor(err, file, t->name, "has a dimension that is no whole number");
        t->shape[t->n_dims++] = (uint64_t)dim;
    }
    return 0;
}

static int read_offsets(const struct by_tensor_info *t, const struct by_json *entry,
                        const char *file, uint64_t *from, uint64_t *to, struct by_err *err) {
    const struct by_json *offsets = by_json_get(entry, "data_offsets");
    const struct by_json *first = offsets ? by_json_first(offsets) : NULL;
    const struct by_json *second = first ? by_json_next(first) : NULL;
    int64_t a, b;
    if (!second || by_json_next(second) || !by_json_to_i64(first, &a) ||
        !by_json_to_i64(second, &b) || a < 0 || b < a)
        return fail_tensor(err, file, t->name, "data_offsets is no pair of growing numbers");
    *from = (uint64_t)a;
    *to = (uint64_t)b;
    return 0;
}

/* data: the bytes after the header. */
static int read_tensor(struct by_tensor_info *t, const struct by_json *entry, struct by_str data,
                       const char *file, struct by_err *err) {
    uint64_t from = 0, to = 0;
    *t = (struct by_tensor_info){.name = by_json_key(entry)};
    if (t->name.n > BY_TENSOR_NAME_MAX)
        return fail_tensor(err, file, t->name, "has a name longer than 1024 bytes");
    const struct by_json *dtype = by_json_get(entry, "dtype");
    if (!dtype || by_json_type(dtype) != BY_JSON_STRING)
        return fail_tensor(err, file, t->name, "has no dtype");
    struct by_str type = by_json_str(dtype);
    t->dtype = by_dtype_of_name(type.p, type.n);
    if (t->dtype == BY_DTYPE_NONE) {
        return by_fail(err, BY_EUNSUPPORTED,
                       "%s: tensor '" BY_STR_FMT "' has the type '" BY_STR_FMT
                       "', which Banyan does not read",
                       file, BY_STR_ARG(t->name), BY_STR_ARG(by_str_sub(type, 0, 32)));
    }
    int rc = read_shape(t, entry, file, err);
    if (!rc) rc = read_offsets(t, entry, file, &from, &to, err);
    if (rc) return rc;
    char shown[160];
    if (!by_tensor_measure(t) || to - from != t->n_bytes) {
        return by_fail(err, BY_EFORMAT,
                       "%s: tensor '" BY_STR_FMT "': %s of shape %s does not take the %" PRIu64
                       " bytes at offset %" PRIu64,
                       file, BY_STR_ARG(t->name), by_dtype_name(t->dtype),
                       by_tensor_shape_show(t, shown, sizeof shown), to - from, from);
    }
    if (to > data.n) {
        return by_fail(err, BY_EFORMAT,
                       "%s: tensor '" BY_STR_FMT "' ends at offset %" PRIu64
                       " of the data, which has %zu bytes; the file is not whole, fetch it again",
                       file, BY_STR_ARG(t->name), to, data.n);
    }
    t->data = (const uint8_t *)data.p + from;
    return 0;
}

static int by_place(const void *a, const void *b) {
    const struct by_tensor_info *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

static int check_overlap(const struct by_tensor_info *first, size_t n, const char *file,
                         struct by_err *err) {
    if (n < 2) return 0;
    struct by_tensor_info *at = by_memdup(first, n * sizeof *at);
    qsort(at, n, sizeof *at, by_place);
    int rc = 0;
    for (size_t i = 1; i < n && !rc; i++) {
        if (at[i - 1].data + at[i - 1].n_bytes <= at[i].data) continue;
        rc = by_fail(err, BY_EFORMAT,
                     "%s: the tensors '" BY_STR_FMT "' and '" BY_STR_FMT "' overlap", file,
                     BY_STR_ARG(at[i - 1].name), BY_STR_ARG(at[i].name));
    }
    by_free(at);
    return rc;
}

static int parse_json(struct by_json **out, struct by_str text, size_t commas_max, const char *file,
                      struct by_err *err) {
    const struct by_json_limits limits = {
        .bytes_max = text.n, .depth_max = HEADER_DEPTH_MAX, .refuse_duplicates = true};
    size_t n_commas = 0;
    for (size_t i = 0; i < text.n; i++)
        n_commas += text.p[i] == ',';
    if (n_commas > commas_max)
        return by_fail(err, BY_ELIMIT, "%s: lists too many values (%zu)", file, n_commas);
    int rc = by_json_parse(out, text, &limits, err);
    return rc && err ? by_fail_prefix(err, "%s", file) : rc;
}

static int parse_header(struct by_json **out, struct by_str bytes, const char *file,
                        struct by_str *data, struct by_err *err) {
    uint64_t n;
    if (bytes.n < sizeof n)
        return by_fail(err, BY_EFORMAT, "%s: has %zu bytes and is no safetensors file", file,
                       bytes.n);
    memcpy(&n, bytes.p, sizeof n);
    if (n > BY_ST_HEADER_MAX) {
        return by_fail(err, BY_EFORMAT,
                       "%s: is no safetensors file (its header would have %" PRIu64 " bytes)", file,
                       n);
    }
    if (n > bytes.n - sizeof n) {
        return by_fail(err, BY_EFORMAT,
                       "%s: the file ends at byte %zu, inside its header of %" PRIu64
                       " bytes; it is not whole, fetch it again",
                       file, bytes.n, n);
    }
    struct by_str header = by_str_sub(bytes, sizeof n, (size_t)n);
    *data = by_str_sub(bytes, sizeof n + (size_t)n, bytes.n);
    int rc = parse_json(out, header, HEADER_COMMAS_MAX, file, err);
    if (rc) return rc;
    if (by_json_type(*out) != BY_JSON_OBJECT)
        return by_fail(err, BY_EFORMAT, "%s: the header is %s, not an object", file,
                       by_json_type_name(*out));
    return 0;
}

static int read_shard(struct by_safetensors *s, struct shard *shard, struct by_str bytes,
                      const char *file, struct by_err *err) {
    struct by_str data;
    size_t first = s->n;
    int rc = parse_header(&shard->header, bytes, file, &data, err);
    if (rc) return rc;
    const struct by_json *entry = by_json_first(shard->header);
    for (; entry && !rc; entry = by_json_next(entry)) {
        struct by_tensor_info t;
        if (by_str_eqz(by_json_key(entry), "__metadata__")) continue;
        if (s->n - first == BY_ST_FILE_TENSORS_MAX)
            return by_fail(err, BY_ELIMIT, "%s: more than %d tensors", file,
                           BY_ST_FILE_TENSORS_MAX);
        rc = read_tensor(&t, entry, data, file, err);
        if (!rc) rc = add_tensor(s, &t, file, err);
    }
    return rc ? rc : check_overlap(s->tensors + first, s->n - first, file, err);
}

static int open_shard(struct by_safetensors *s, const char *path, struct by_err *err) {
    struct shard *shard = &s->shards[s->n_shards++];
    int rc = by_file_map(&shard->map, path, err);
    if (rc) return rc;
    struct by_str bytes = {(const char *)shard->map.p, shard->map.n};
    return read_shard(s, shard, bytes, path, err);
}

/* A shard's name is a plain file name: no folder, so no way out of ours. (The file itself may be a symbolic link, as
 * in the Hub's cache: who can place links there can place files.) */
static bool is_plain_name(struct by_str name) {
    if (name.n == 0 || name.n > 255 || by_str_eqz(name, ".") || by_str_eqz(name, ".."))
        return false;
    return !memchr(name.p, '/', name.n) && !memchr(name.p, '\\', name.n);
}

static int open_listed(struct by_safetensors *s, struct by_str name, const char *dir,
                       const char *index_path, struct by_err *err) {
    if (!is_plain_name(name))
        return by_fail(err, BY_EFORMAT, "%s: the shard '" BY_STR_FMT "' is no plain file name",
                       index_path, BY_STR_ARG(by_str_sub(name, 0, 100)));
    if (s->n_shards == BY_ST_SHARDS_MAX)
        return by_fail(err, BY_ELIMIT, "%s: more than %d shards", index_path, BY_ST_SHARDS_MAX);
    char *file = by_strndup(name.p, name.n);
    char *path = by_path_join(dir, file);
    int rc = open_shard(s, path, err);
    if (rc && err) rc = by_fail_prefix(err, "%s", by_path_base(index_path));
    by_free(path);
    by_free(file);
    return rc;
}

/* Every tensor of the map must be there; one that the map does not know is kept (some exporters forget buffers). */
static int check_map(const struct by_safetensors *s, const struct by_json *map, const char *path,
                     struct by_err *err) {
    for (const struct by_json *it = by_json_first(map); it; it = by_json_next(it)) {
        if (by_safetensors_find(s, by_json_key(it))) continue;
        return by_fail(err, BY_EFORMAT,
                       "%s: tensor '" BY_STR_FMT "' should be in '" BY_STR_FMT "' but is not", path,
                       BY_STR_ARG(by_json_key(it)), BY_STR_ARG(by_json_str(it)));
    }
    return 0;
}

static int open_index(struct by_safetensors *s, const char *path, struct by_err *err) {
    struct by_buf text;
    struct by_strmap seen;
    char *dir = by_path_dir(path);
    by_buf_init(&text, BY_ST_INDEX_MAX);
    by_strmap_init(&seen);
    int rc = by_file_read(&text, path, err);
    if (rc) goto done;
    rc = parse_json(&s->index, by_buf_str(&text), INDEX_COMMAS_MAX, path, err);
    if (rc) goto done;
    const struct by_json *map = by_json_get(s->index, "weight_map");
    if (!map || by_json_type(map) != BY_JSON_OBJECT) {
        rc = by_fail(err, BY_EFORMAT, "%s: has no weight_map", path);
        goto done;
    }
    s->shards = by_alloc_array(BY_ST_SHARDS_MAX, sizeof *s->shards);
    for (const struct by_json *it = by_json_first(map); it && !rc; it = by_json_next(it)) {
        uint64_t before;
        struct by_str name = by_json_str(it);
        if (by_strmap_get(&seen, name, &before)) continue;
        by_strmap_put(&seen, name, 1);
        rc = open_listed(s, name, dir, path, err);
    }
    if (!rc) rc = check_map(s, map, path, err);
done:
    by_strmap_release(&seen);
    by_buf_release(&text);
    by_free(dir);
    return rc;
}

static struct by_safetensors *make(void) {
    struct by_safetensors *s = by_alloc(sizeof *s);
    by_strmap_init(&s->by_name);
    return s;
}

static int finish(struct by_safetensors *s, int rc, struct by_safetensors **out) {
    if (rc) {
        by_safetensors_close(s);
        s = NULL;
    }
    *out = s;
    return rc;
}

int by_safetensors_open(struct by_safetensors **out, const char *path, struct by_err *err) {
    struct by_safetensors *s = make();
    if (by_str_ends(by_str_of(path), BY_STR(".json")))
        return finish(s, open_index(s, path, err), out);
    s->shards = by_alloc(sizeof *s->shards);
    return finish(s, open_shard(s, path, err), out);
}

int by_safetensors_parse(struct by_safetensors **out, struct by_str bytes, const char *name,
                         struct by_err *err) {
    struct by_safetensors *s = make();
    s->shards = by_alloc(sizeof *s->shards);
    s->n_shards = 1;
    return finish(s, read_shard(s, &s->shards[0], bytes, name, err), out);
}

void by_safetensors_close(struct by_safetensors *s) {
    if (!s) return;
    by_strmap_release(&s->by_name);
    by_free(s->tensors);
    for (size_t i = 0; i < s->n_shards; i++) {
        by_json_free(s->shards[i].header);
        by_file_unmap(&s->shards[i].map);
    }
    by_free(s->shards);
    by_json_free(s->index);
    by_free(s);
}

size_t by_safetensors_n(const struct by_safetensors *s) {
    return s->n;
}

const struct by_tensor_info *by_safetensors_tensor(const struct by_safetensors *s, size_t i) {
    return i < s->n ? &s->tensors[i] : NULL;
}

const struct by_tensor_info *by_safetensors_find(const struct by_safetensors *s,
                                                 struct by_str name) {
    uint64_t i;
    return by_strmap_get(&s->by_name, name, &i) ? &s->tensors[i] : NULL;
}
