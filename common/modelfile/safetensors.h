/* safetensors.h - reads one or many safetensors files in place.
 *
 *     +----------------+----------------------------------------------------+---------------------------+
 *     | u64 header_len | {"name":{"dtype":"BF16","shape":[2,3],             | data: offsets count from  |
 *     |                |          "data_offsets":[from,to]}, "__metadata__"}| here; no gaps, no overlap |
 *     +----------------+----------------------------------------------------+---------------------------+
 *     sharded: model.safetensors.index.json {"weight_map":{"name":"model-00001-of-00003.safetensors", …}}
 *
 * Always, once open: each tensor lies inside its file, its bytes are what dtype and shape need, tensors of a file do
 * not overlap, names are unique over all shards; a shard's name never leaves the folder of its index.
 * Owner: whoever opened; one thread opens, any may read. */
#ifndef COMMON_MODELFILE_SAFETENSORS_H
#define COMMON_MODELFILE_SAFETENSORS_H

#include "common/base/err.h"
#include "common/modelfile/tensor_info.h"

enum {
    BY_ST_HEADER_MAX = 64 << 20,      /* bytes of one header */
    BY_ST_FILE_TENSORS_MAX = 1 << 18, /* tensors of one file */
    BY_ST_INDEX_MAX = 256 << 20,      /* bytes of index.json */
    BY_ST_SHARDS_MAX = 4096,
};

struct by_safetensors;

/* path: a .safetensors file, or an index.json whose shards lie beside it. */
BY_MUST_USE int by_safetensors_open(struct by_safetensors **out, const char *path,
                                    struct by_err *err);
/* One file's bytes, which must outlive it; `name` is for errors. */
BY_MUST_USE int by_safetensors_parse(struct by_safetensors **out, struct by_str bytes,
                                     const char *name, struct by_err *err);
void by_safetensors_close(struct by_safetensors *s); /* NULL is fine */

size_t by_safetensors_n(const struct by_safetensors *s);
const struct by_tensor_info *by_safetensors_tensor(const struct by_safetensors *s, size_t i);
const struct by_tensor_info *by_safetensors_find(const struct by_safetensors *s,
                                                 struct by_str name); /* NULL: none */

#endif
