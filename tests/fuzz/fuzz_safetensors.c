/* Any bytes as a safetensors file: each tensor that is accepted lies inside it. */
#include "common/base/check.h"
#include "common/modelfile/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct by_safetensors *s = NULL;
    struct by_err err = {0};
    static volatile uint64_t sink;
    if (by_safetensors_parse(&s, fuzz_bytes(data, size), "fuzz", &err)) {
        by_assert(err.text[0] && !s);
        return 0;
    }
    for (size_t i = 0; i < by_safetensors_n(s); i++) {
        const struct by_tensor_info *t = by_safetensors_tensor(s, i);
        by_assert(by_safetensors_find(s, t->name) == t);
        by_assert(t->data >= data && t->n_bytes <= (size_t)(data + size - t->data));
        if (t->n_bytes) sink += t->data[0] + t->data[t->n_bytes - 1];
    }
    by_safetensors_close(s);
    return 0;
}
