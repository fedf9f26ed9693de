/* tokenizer_use.h - what must hold of any tokenizer that hostile bytes made.
 *
 *     text ─encode─▶ ids, all its own ─decode─▶ UTF-8; and the same through a stream
 *
 * Owner: the fuzzer that includes it. */
#ifndef TESTS_FUZZ_TOKENIZER_USE_H
#define TESTS_FUZZ_TOKENIZER_USE_H

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/utf8.h"
#include "common/text/stream_decode.h"
#include "tests/fuzz/fuzz.h"

enum { OUT_MAX = 4 << 20, TEXT_MAX = 300 };

static void use_text(struct by_tokenizer *t, struct by_str text) {
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

/* The head of the file serves as text: it holds the pieces of its own vocabulary. */
static void use_tokenizer(struct by_tokenizer *t, const uint8_t *data, size_t size) {
    size_t n = BY_MIN(size, (size_t)TEXT_MAX);
    use_text(t, fuzz_bytes(data, by_utf8_clean_len((const char *)data, n)));
    use_text(
        t, BY_STR("The  \xE6\x97\xA5\xE6\x9C\xAC na\xC3\xAFve \xF0\x9F\x98\x80 99 bottles\n\n'll"));
    by_tokenizer_close(t);
}

#endif
