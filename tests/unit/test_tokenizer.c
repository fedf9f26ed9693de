/* The small tokenizers, which the project carries. */
#include "tests/unit/tokenizer_vectors.h"

#define TINY TEST_VECTORS "/tokenizers"

VECTORS(tiny_bbpe_gpt2, TINY, "tiny-bbpe-gpt2")
VECTORS(tiny_bbpe_llama3, TINY, "tiny-bbpe-llama3")
VECTORS(tiny_bbpe_qwen2, TINY, "tiny-bbpe-qwen2")
VECTORS(tiny_spm_gemma, TINY, "tiny-spm-gemma")
VECTORS(tiny_spm_llama, TINY, "tiny-spm-llama")
VECTORS(tiny_unigram, TINY, "tiny-unigram")
VECTORS(tiny_wordpiece, TINY, "tiny-wordpiece")

TESTS(RUN(tiny_wordpiece), RUN(tiny_unigram), RUN(tiny_bbpe_gpt2), RUN(tiny_bbpe_llama3),
      RUN(tiny_bbpe_qwen2), RUN(tiny_spm_gemma), RUN(tiny_spm_llama));
