/* The memory of a peak goes back to the machine, though what is still in use lies in its midst. */
#include "common/base/mem.h"

#include "common/base/proc.h"
#include "tests/unit/test.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = true }; /* their heap keeps what is freed, to find who uses it still */
#else
enum { IS_SANITIZED = false };
#endif

enum { N = 2048, EACH = 8192, KEPT_EACH = 64 }; /* 16 MiB, of which each 64th stays */

TEST(bytes_alive_go_up_and_down) {
    UNUSED_STATE;
    uint64_t before = by_mem_n_bytes();
    char *p = by_alloc(100000);
    assert_true(by_mem_n_bytes() >= before + 100000);
    p = by_realloc(p, 300000);
    assert_true(by_mem_n_bytes() >= before + 300000);
    p = by_realloc(p, 10);
    assert_true(by_mem_n_bytes() < before + 100000);
    by_free(p);
    assert_true(by_mem_n_bytes() == before);
}

TEST(what_lies_free_between_what_is_in_use_goes_back) {
    UNUSED_STATE;
    static char *p[N];
    by_mem_one_heap();
    for (size_t i = 0; i < N; i++) {
        p[i] = by_alloc(EACH);
        memset(p[i], (int)i, EACH);
    }
    for (size_t i = 0; i < N; i++) {
        if (i % KEPT_EACH) by_free(p[i]);
    }
    by_mem_give_back();
    uint64_t least = by_proc_rss_bytes();
    for (size_t i = 0; i < N; i += KEPT_EACH)
        assert_int_equal((unsigned char)p[i][EACH - 1], (unsigned char)i);
    for (size_t i = 0; i < N; i++) {
        if (i % KEPT_EACH) p[i] = memset(by_alloc(EACH), 1, EACH);
    }
    uint64_t peak = by_proc_rss_bytes();
    for (size_t i = 0; i < N; i++)
        by_free(p[i]);
    if (!IS_SANITIZED) assert_true(peak > least + (uint64_t)N * EACH / 2);
}

TESTS(RUN(bytes_alive_go_up_and_down), RUN(what_lies_free_between_what_is_in_use_goes_back));
