/* model_subjects.h - the tiny models of the shared data and of tests/vectors/models: one for each family and format.
 *
 *     {.path = "gemma2", .is_one_of_few = true}      folder or file under tiny/, its golden.json, and how close to it one can come
 *
 * Always: every causal model there is listed.
 * Owner: constants of the test program. */
#ifndef TESTS_MODELS_MODEL_SUBJECTS_H
#define TESTS_MODELS_MODEL_SUBJECTS_H

#include "common/base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TINY TEST_SHARED_DATA "/tiny/"

struct subject {
    const char *path, *golden; /* golden NULL: golden.json in the folder */
    bool is_own;               /* of tests/vectors/models */
    uint32_t context_len;      /* of the model when it is opened */
    const char *only;          /* one case, where others need another context */
    bool is_one_of_few;        /* where not all are run */
};
static const struct subject subjects[] = {
    {.path = "llama-gqa", .is_one_of_few = true},
    {.path = "llama-tied"},
    {.path = "llama-mqa-bias-headdim"},
    {.path = "llama-rope-llama3"},
    {.path = "llama-rope-linear"},
    {.path = "llama-rope-yarn"},
    {.path = "llama-gqa-sharded", .golden = "llama-gqa/golden.json"},
    {.path = "llama-gqa-gguf/llama-gqa-F16.gguf",
     .golden = "llama-gqa-gguf/llama-gqa-F16.golden.json"},
    {.path = "llama-gqa-gguf/llama-gqa-Q8_0.gguf",
     .golden = "llama-gqa-gguf/llama-gqa-Q8_0.golden.json"},
    {.path = "llama-gqa-gguf/llama-gqa-Q4_0.gguf",
     .golden = "llama-gqa-gguf/llama-gqa-Q4_0.golden.json"},
    {.path = "llama-gqa-gguf/llama-gqa-Q4_1.gguf",
     .golden = "llama-gqa-gguf/llama-gqa-Q4_1.golden.json",
     .is_one_of_few = true},
    {.path = "llama-gqa-gguf/llama-gqa-Q5_0.gguf",
     .golden = "llama-gqa-gguf/llama-gqa-Q5_0.golden.json"},
    {.path = "llama-gqa-gguf/llama-gqa-Q5_1.gguf",
     .golden = "llama-gqa-gguf/llama-gqa-Q5_1.golden.json"},
    {.path = "mistral-swa"},
    {.path = "mixtral"},
    {.path = "qwen2"},
    {.path = "qwen2-moe", .is_one_of_few = true},
    {.path = "qwen3"},
    {.path = "qwen3-moe"},
    {.path = "gemma"},
    {.path = "gemma2", .is_one_of_few = true},
    {.path = "gemma3-text"},
    {.path = "gemma4", .is_own = true, .is_one_of_few = true},
    {.path = "gemma4-moe", .is_own = true, .is_one_of_few = true},
    {.path = "helium"},
    {.path = "smollm3"},
    {.path = "granite"},
    {.path = "olmo2"},
    {.path = "cohere"},
    {.path = "glm4"},
    {.path = "stablelm"},
    {.path = "starcoder2"},
    {.path = "phi3"},
    {.path = "phi3-longrope", .context_len = 64, .only = "len1"},
    {.path = "phi3-longrope", .context_len = 64, .only = "len17"},
    {.path = "phi3-longrope", .only = "len130"},
    {.path = "gpt2"},
    {.path = "gpt-neox", .is_one_of_few = true},
    {.path = "opt"},
    {.path = "falcon-mqa"},
    {.path = "falcon-newarch"},
    {.path = "deepseek-v2-lite"},
    {.path = "deepseek-v3", .is_one_of_few = true},
    {.path = "gpt-oss"},
    {.path = "gpt-oss-mxfp4", .is_one_of_few = true},
    {.path = "llama-gqa-gptq"},
    {.path = "llama-gqa-gptq-actorder"},
    {.path = "llama-gqa-awq"},
    {.path = "llama-gqa-fp8-block"},
};

/* Where the model lies, and what it is held to. Both return out. */
static inline const char *subject_path(const struct subject *s, char *out, size_t cap) {
    snprintf(out, cap, "%s%s", s->is_own ? TEST_VECTORS "/models/" : TINY, s->path);
    return out;
}
static inline const char *subject_golden(const struct subject *s, char *out, size_t cap) {
    snprintf(out, cap, "%s%s%s", s->is_own ? TEST_VECTORS "/models/" : TINY,
             s->golden ? s->golden : s->path, s->golden ? "" : "/golden.json");
    return out;
}

/* ONLY=gemma in the environment picks by name. */
static inline bool subject_is_chosen(const struct subject *s, bool is_few) {
    const char *only = getenv("ONLY");
    return (!only || strstr(s->path, only)) && (!is_few || s->is_one_of_few);
}

#endif
