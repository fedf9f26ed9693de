/* Tokenizers that are no tokenizer.json: SentencePiece, ranks, GGUF; small ones, trained for the project. */
#include "tests/unit/tokenizer_vectors.h"

#define FILES TEST_VECTORS "/tokenizer_files"

FOLDER_VECTORS(spm_llama, FILES, "spm-llama")
FOLDER_VECTORS(spm_llama_new, FILES, "spm-llama-new")
FOLDER_VECTORS(spm_llama_unigram, FILES, "spm-llama-unigram")
FOLDER_VECTORS(spm_gemma, FILES, "spm-gemma")
FOLDER_VECTORS(spm_t5, FILES, "spm-t5")
FOLDER_VECTORS(spm_xlmr, FILES, "spm-xlmr")
FOLDER_VECTORS(tiktoken_cl100k, FILES, "tiktoken-cl100k")
FOLDER_VECTORS(tiktoken_o200k, FILES, "tiktoken-o200k")
FOLDER_VECTORS(tekken, FILES, "tekken")
FOLDER_VECTORS(gguf_llama, FILES, "gguf-llama")
FOLDER_VECTORS(gguf_gemma, FILES, "gguf-gemma")
FOLDER_VECTORS(gguf_bert, FILES, "gguf-bert")

static void refuse(const char *bytes, size_t n, const char *file, const char *why) {
    struct by_tokenizer *t = NULL;
    struct by_err err = {0};
    int rc = by_tokenizer_parse_as(&t, (struct by_str){bytes, n}, file, &err);
    if (!rc) fail_msg("%s was taken", file);
    if (!strstr(err.text, why)) fail_msg("%s: '%s' does not say '%s'", file, err.text, why);
}

#define REFUSE(bytes, file, why) refuse(bytes, sizeof(bytes) - 1, file, why)

TEST(broken_files_are_refused_by_name) {
    UNUSED_STATE;
    REFUSE("", "tokenizer.model", "no pieces");
    REFUSE("\x0A\x05\x0A\x01", "tokenizer.model", "cut short");
    REFUSE("\x0A\x05\x0A\x7F"
           "abc",
           "tokenizer.model", "piece 0 is broken");
    REFUSE("\x0A\x03\x0A\x01\xFF", "tokenizer.model", "not UTF-8");
    REFUSE("\x0A\x03\x0A\x01"
           "a\x12\x02\x18\x03",
           "tokenizer.model", "WORD");
    REFUSE("\x0A\x08\x0A\x01"
           "a\x15\x00\x00\xC0\x7F",
           "tokenizer.model", "no number");
    REFUSE("\x0A\x03\x0A\x01"
           "a\x1A\x06\x12\x04"
           "abcd",
           "tokenizer.model", "character map");
    REFUSE("IQ== 0\nIg== 0\n", "cl100k_base.tiktoken", "two tokens");
    REFUSE("IQ== 0\nI!== 1\n", "cl100k_base.tiktoken", "bad base64");
    REFUSE("IQ== 0\nIg==\n", "cl100k_base.tiktoken", "line 2");
    REFUSE("IQ== 99999999999\n", "cl100k_base.tiktoken", "past the limit");
    REFUSE("IQ== 0\n", "mystery.tiktoken", "not known by its name");
    REFUSE("{\"config\":{},\"vocab\":[]}", "tekken.json", "no pattern");
    REFUSE("{\"vocab\":[]}", "tekken.json", "config");
}

/* Pieces so long that all their cuts would take minutes. */
TEST(a_vocabulary_of_long_pieces_is_refused_at_once) {
    UNUSED_STATE;
    struct by_buf b;
    by_buf_init(&b, 64 << 20);
    for (unsigned i = 0; i < 600;
         i++) { /* 8,000 bytes each, all the same but for their beginnings */
        char head[] = {0x0A, (char)0xC3, 0x3E, 0x0A, (char)0xC0, 0x3E};
        by_buf_add(&b, head, sizeof head);
        for (unsigned k = 0; k < 8000; k++)
            by_buf_addc(&b, k < 4 ? (char)('a' + (i >> 3 * k) % 8) : 'x');
    }
    by_buf_addz(&b, "\x12\x02\x18\x02");
    refuse(b.p, b.n, "tokenizer.model", "too long and too many");
    by_buf_release(&b);
}

TESTS(RUN(spm_llama), RUN(spm_llama_new), RUN(spm_llama_unigram), RUN(spm_gemma), RUN(spm_t5),
      RUN(spm_xlmr), RUN(tiktoken_cl100k), RUN(tiktoken_o200k), RUN(tekken), RUN(gguf_llama),
      RUN(gguf_gemma), RUN(gguf_bert), RUN(broken_files_are_refused_by_name),
      RUN(a_vocabulary_of_long_pieces_is_refused_at_once));
