/* Any bytes as a frame: refused in words, or decoded to what encodes and decodes to the same again. */
#include "common/base/check.h"
#include "proto/msg.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct by_arena arena, again;
    struct by_buf frame, line;
    struct by_err err = {0};
    struct msg m, back;
    by_arena_init(&arena, 64 << 20);
    by_arena_init(&again, 64 << 20);
    by_buf_init(&frame, LIMIT_FRAME_BYTES);
    by_buf_init(&line, 1 << 20);
    if (msg_decode(&m, fuzz_bytes(data, size), &arena, &err)) {
        by_assert(err.text[0]);
    } else {
        msg_print(&m, &line);
        msg_encode(&m, &frame);
        by_assert(!frame.is_full && line.n);
        by_assert(msg_decode(&back, by_buf_str(&frame), &again, &err) == 0);
        by_assert(msg_equal(&m, &back));
        by_assert(back.session == m.session && back.seq == m.seq);
    }
    by_buf_release(&line);
    by_buf_release(&frame);
    by_arena_release(&again);
    by_arena_release(&arena);
    return 0;
}
