/* The tokenizers of real models, which lie beside the project (registered only where they are). */
#include "tests/unit/tokenizer_vectors.h"

#define SHARED TEST_SHARED_DATA "/tokenizers"

VECTORS(cl100k, SHARED, "cl100k")
VECTORS(deepseek_coder, SHARED, "deepseek-coder")
VECTORS(deepseek_v3, SHARED, "deepseek-v3")
VECTORS(gemma4, SHARED, "gemma4")
VECTORS(gpt_neox, SHARED, "gpt-neox")
VECTORS(gpt2, SHARED, "gpt2")
VECTORS(llama3, SHARED, "llama3")
VECTORS(mistral_spm_v1, SHARED, "mistral-spm-v1")
VECTORS(mistral_spm_v3, SHARED, "mistral-spm-v3")
VECTORS(mistral_tekken_v3, SHARED, "mistral-tekken-v3")
VECTORS(phi3, SHARED, "phi3")
VECTORS(qwen3, SHARED, "qwen3")
VECTORS(smollm2, SHARED, "smollm2")
VECTORS(spm_botchan_bpe, SHARED, "spm-botchan-bpe")
VECTORS(starcoder2, SHARED, "starcoder2")
VECTORS(minilm_wordpiece, SHARED, "minilm-wordpiece")
VECTORS(spm_botchan_unigram, SHARED, "spm-botchan-unigram")
VECTORS(spm_kyoto_ja_unigram, SHARED, "spm-kyoto-ja-unigram")
VECTORS(xlm_r_unigram, SHARED, "xlm-r-unigram")

TESTS(RUN(xlm_r_unigram), RUN(spm_kyoto_ja_unigram), RUN(spm_botchan_unigram),
      RUN(minilm_wordpiece), RUN(cl100k), RUN(deepseek_coder), RUN(deepseek_v3), RUN(gemma4),
      RUN(gpt_neox), RUN(gpt2), RUN(llama3), RUN(mistral_spm_v1), RUN(mistral_spm_v3),
      RUN(mistral_tekken_v3), RUN(phi3), RUN(qwen3), RUN(smollm2), RUN(spm_botchan_bpe),
      RUN(starcoder2));
