/* Any bytes as JSON: refused in words, or printed as what reads back and prints the same. */
#include "common/base/check.h"
#include "common/base/json.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct by_json_limits lim = {
        .bytes_max = 1 << 20, .depth_max = 64, .refuse_duplicates = size & 1};
    struct by_json *j = NULL, *again = NULL;
    struct by_err err = {0};
    struct by_buf text, twice;
    if (by_json_parse(&j, fuzz_bytes(data, size), &lim, &err)) {
        by_assert(err.text[0] && !j);
        return 0;
    }
    by_buf_init(&text, 16 << 20);
    by_buf_init(&twice, 16 << 20);
    by_json_print(j, &text);
    const struct by_json_limits wide = {.bytes_max = 16 << 20, .depth_max = 64};
    by_assert(by_json_parse(&again, by_buf_str(&text), &wide, &err) == 0);
    by_json_print(again, &twice);
    by_assert(by_str_eq(by_buf_str(&text), by_buf_str(&twice)));
    by_buf_release(&twice);
    by_buf_release(&text);
    by_json_free(again);
    by_json_free(j);
    return 0;
}
