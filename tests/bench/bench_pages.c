/* bench_pages.c - taking, sharing and giving back page numbers. */
#include "scheduler/pages.h"
#include "tests/bench/bench.h"

enum { PAGES = 1 << 16, EACH = 64, ROUNDS = 20000 };

int main(void) {
    struct pages *p = pages_new(PAGES);
    uint32_t ids[EACH];
    uint64_t from = bench_cpu_ns();
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (!pages_take(p, EACH, ids)) abort();
        pages_share(p, ids, EACH);
        pages_give(p, ids, EACH);
        pages_give(p, ids, EACH);
    }
    double ns = (double)(bench_cpu_ns() - from) / ROUNDS / EACH;
    bench_row("pages take+share+give+give", "64 at a time", ns, "ns a page");
    pages_free(p);
    return 0;
}
