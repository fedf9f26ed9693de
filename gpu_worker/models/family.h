/* family.h - one family of models as a constant: flags, and names where they differ from Llama's.
 *
 *     arch_gemma.c: family_gemma, family_gemma2 …      families.def lists them all
 *
 * Always: the families are those of by_family_find (common/modelfile), which says what their files leave out; a test
 * holds the two lists together.
 * Owner: constants. */
#ifndef GPU_WORKER_MODELS_FAMILY_H
#define GPU_WORKER_MODELS_FAMILY_H

#include "gpu_worker/models/arch.h"

struct role_name {
    enum role role;
    const char *name; /* '#' stands for the layer, '@' for the expert; "": not there */
};
enum { FAMILY_NAMES_MAX = 24 };

struct family {
    const char *name; /* transformers' model_type */
    enum norm_kind norm;
    bool is_ungated, is_post_ln, qk_whole, qk_norm_is_last, has_v_norm, is_encoder,
        ffn_norm_is_attn_norm;
    struct layout layout;
    const char *layer_prefix;                 /* NULL: Llama's */
    struct role_name names[FAMILY_NAMES_MAX]; /* where they differ from Llama's */
    struct role_name gguf[FAMILY_NAMES_MAX];  /* where a GGUF file's differ from the usual */
    /* What depends on the config; it is NULL for a GGUF. */
    void (*adjust)(struct arch *a, const struct by_model_info *m, const struct by_json *config);
};

/* NULL: not one of ours. */
const struct family *family_find(struct by_str name);
const struct family *family_at(size_t i); /* NULL past the end */

#define FAMILY(name) extern const struct family family_##name;
#include "gpu_worker/models/families.def"
#undef FAMILY

#endif
