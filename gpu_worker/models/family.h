/* family.h - one family of models as a constant: flags, and names where they differ from Llama's.
 *
 *     arch_gemma.c: family_gemma, family_gemma2 …      registry.c lists them all
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
    bool is_ungated, is_post_ln, qk_whole, qk_norm_is_last, is_encoder, ffn_norm_is_attn_norm;
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

extern const struct family family_llama, family_mistral, family_smollm3, family_granite,
    family_helium, family_mixtral, family_qwen2, family_qwen2_moe, family_qwen3, family_qwen3_moe,
    family_gemma, family_gemma2, family_gemma3_text, family_olmo2, family_cohere, family_glm4,
    family_phi3, family_stablelm, family_starcoder2, family_gpt2, family_gpt_neox, family_opt,
    family_falcon, family_deepseek_v2, family_deepseek_v3, family_gpt_oss, family_bert, family_glm,
    family_seed_oss, family_ernie4_5, family_arcee, family_cohere2, family_olmo3, family_exaone4,
    family_ministral, family_vaultgemma, family_phi, family_nemotron, family_jais2,
    family_gpt_bigcode, family_hyperclovax, family_ministral3, family_hunyuan_v1_dense,
    family_exaone, family_minicpm3, family_youtu;
extern const struct family family_glm4_moe, family_glm4_moe_lite, family_solar_open, family_dots1;

#endif
