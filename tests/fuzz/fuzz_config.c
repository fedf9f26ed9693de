/* Any bytes as config.json, and again as generation_config.json: refused in words, or sizes that fit each other. */
#include "common/base/check.h"
#include "common/modelfile/hf_config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct by_json_limits lim = {.bytes_max = BY_CONFIG_BYTES_MAX,
                                       .depth_max = BY_CONFIG_DEPTH_MAX};
    struct by_json *j = NULL;
    struct by_err err = {0};
    struct by_model_info m;
    if (by_json_parse(&j, fuzz_bytes(data, size), &lim, &err)) return 0;
    if (by_hf_config_read(&m, j, "fuzz", &err)) {
        by_assert(err.text[0]);
    } else {
        by_assert(m.n_eos <= BY_COUNTOF(m.eos));
        by_assert(m.n_layers && m.hidden && m.n_heads && m.vocab);
        by_assert(m.n_kv_heads && m.n_heads % m.n_kv_heads == 0);
        if (by_hf_config_add_generation(&m, j, "fuzz", &err)) by_assert(err.text[0]);
        by_assert(m.n_eos <= BY_COUNTOF(m.eos));
    }
    by_json_free(j);
    return 0;
}
