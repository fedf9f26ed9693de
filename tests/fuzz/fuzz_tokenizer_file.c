/* Any bytes as a tokenizer.model, a tekken.json, a .tiktoken (the first byte says which) or a GGUF file: refused in words, or
 * a tokenizer whose ids are its own. */
#include "common/text/tokenizer_parts.h"
#include "tests/fuzz/tokenizer_use.h"

static int open_gguf(struct by_tokenizer **out, struct by_str bytes, struct by_err *err) {
    struct by_gguf *g = NULL;
    int rc = by_gguf_parse(&g, bytes, "fuzz", err);
    if (rc) return rc;
    struct by_tokenizer *t = by_tokenizer_new();
    rc = by_tokenizer_from_gguf(t, g, err);
    if (!rc) rc = by_tokenizer_finish(t, err);
    by_gguf_close(g);
    if (rc) {
        by_tokenizer_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const files[] = {"tokenizer.model", "tekken.json", "cl100k_base.tiktoken",
                                        "qwen.tiktoken"};
    struct by_tokenizer *t = NULL;
    struct by_err err = {0};
    if (!size) return 0;
    unsigned kind = data[0] % 8;
    struct by_str bytes = fuzz_bytes(data + 1, size - 1);
    int rc = kind < BY_COUNTOF(files) ? by_tokenizer_parse_as(&t, bytes, files[kind], &err)
                                      : open_gguf(&t, fuzz_bytes(data, size), &err);
    if (rc) {
        by_assert(err.text[0] && !t);
        return 0;
    }
    use_tokenizer(t, data + 1, size - 1);
    return 0;
}
