/* Any bytes as a GGUF file: header, tensors, sizes of the model, tokenizer; what was accepted can be walked and used. */
#include "common/base/check.h"
#include "common/modelfile/gguf_config.h"
#include "common/text/tokenizer_parts.h"
#include "tests/fuzz/fuzz.h"

static uint64_t touch(const struct by_gguf *g) {
    uint64_t sum = 0;
    for (size_t i = 0; i < by_gguf_n_keys(g); i++) {
        const struct by_gguf_key *k = by_gguf_key_at(g, i);
        struct by_gguf_array a = {0};
        struct by_str piece;
        char *name = by_strndup(k->name.p, k->name.n);
        if (k->type == BY_GGUF_ARRAY && k->item_type == BY_GGUF_STR &&
            !by_gguf_get_array(g, name, BY_GGUF_STR, &a, NULL)) {
            while (by_gguf_next_str(&a, &piece))
                sum += piece.n ? (uint8_t)piece.p[piece.n - 1] : 0;
        }
        by_free(name);
    }
    for (size_t i = 0; i < by_gguf_n_tensors(g); i++) {
        const struct by_tensor_info *t = by_gguf_tensor(g, i);
        if (t->n_bytes) sum += t->data[0] + t->data[t->n_bytes - 1];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct by_gguf *g = NULL;
    struct by_err err = {0};
    struct by_model_info info;
    static volatile uint64_t sink;
    if (by_gguf_parse(&g, fuzz_bytes(data, size), "fuzz", &err)) {
        by_assert(err.text[0] && !g);
        return 0;
    }
    sink += touch(g);
    if (by_gguf_config_read(&info, g, "fuzz", &err)) by_assert(err.text[0]);
    struct by_tokenizer *t = by_tokenizer_new();
    int rc = by_tokenizer_from_gguf(t, g, &err);
    if (!rc) rc = by_tokenizer_finish(t, &err);
    by_gguf_close(g); /* a tokenizer outlives its file */
    struct by_ids ids;
    by_ids_init(&ids, 4096);
    struct by_encode_options o = {.add_special_tokens = true, .allow_special = true};
    if (!rc) rc = by_tokenizer_encode(t, BY_STR("Hello  wörld, 木 <s></s>\n"), &o, &ids, &err);
    by_ids_release(&ids);
    by_tokenizer_close(t);
    return 0;
}
