/* fuzz.h - what every fuzzer is: one function that takes hostile bytes and must come back.
 *
 *     libFuzzer ─┐
 *                ├─▶ LLVMFuzzerTestOneInput(bytes) ─▶ the parser under test, and what must always hold of its answer
 *     main.c  ───┘        0: come back; anything else is a crash, a sanitizer's report or a failed by_assert
 *
 * Always: an input that fails once is added to corpora/<name>/, which main.c runs in every build.
 * Owner: the one thread of the fuzzer. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "common/base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline struct by_str fuzz_bytes(const uint8_t *data, size_t size) {
    return (struct by_str){(const char *)data, size};
}

#endif
