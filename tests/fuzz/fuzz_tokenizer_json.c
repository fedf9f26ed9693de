/* Any bytes as a tokenizer.json: refused in words, or a tokenizer whose ids are its own and whose stream is its text. */
#include "tests/fuzz/tokenizer_use.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct by_tokenizer *t = NULL;
    struct by_err err = {0};
    if (by_tokenizer_parse(&t, fuzz_bytes(data, size), "fuzz", &err)) {
        by_assert(err.text[0] && !t);
        return 0;
    }
    use_tokenizer(t, data, size);
    return 0;
}
