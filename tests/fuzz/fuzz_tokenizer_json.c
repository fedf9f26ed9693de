/* Any bytes as a tokenizer.json: refused in words, or a tokenizer whose ids are its own and whose stream is its text. */
#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/utf8.h"
#include "common/text/stream_decode.h"
#include "tests/fuzz/fuzz.h"

enum { OUT_MAX = 4 << 20, TEXT_MAX = 300 };

/* The head of the file serves as text: it holds the pieces of its own vocabulary. */
static void use(struct by_tokenizer *t, struct by_str text) {
    struct by_ids ids;
    struct by_buf whole, parts;
    struct by_err err = {0};
    struct by_stream_decode s;
    struct by_encode_options o = {.add_special_tokens = true, .allow_special = true};
    struct by_decode_options d = {0};
    by_ids_init(&ids, OUT_MAX / 16);
    by_buf_init(&whole, OUT_MAX);
    by_buf_init(&parts, OUT_MAX);
    if (by_tokenizer_encode(t, text, &o, &ids, &err)) by_assert(err.text[0]);
    for (size_t i = 0; i < ids.n; i++)
        by_assert(ids.p[i] < by_tokenizer_n_vocab(t));
    by_ids_add(&ids, by_tokenizer_n_vocab(t)); /* one that is nobody's */
    by_tokenizer_decode(t, ids.p, ids.n, &d, &whole);
    by_assert(by_utf8_valid(whole.p, whole.n));
    by_stream_decode_init(&s, t, &d);
    for (size_t i = 0; i < ids.n; i++)
        by_stream_decode_push(&s, ids.p[i], &parts);
    by_stream_decode_finish(&s, &parts);
    by_assert(by_utf8_valid(parts.p, parts.n));
    by_stream_decode_release(&s);
    by_buf_release(&parts);
    by_buf_release(&whole);
    by_ids_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct by_tokenizer *t = NULL;
    struct by_err err = {0};
    if (by_tokenizer_parse(&t, fuzz_bytes(data, size), "fuzz", &err)) {
        by_assert(err.text[0] && !t);
        return 0;
    }
    size_t n = BY_MIN(size, (size_t)TEXT_MAX);
    use(t, fuzz_bytes(data, by_utf8_clean_len((const char *)data, n)));
    by_tokenizer_close(t);
    return 0;
}
