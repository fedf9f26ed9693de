/* What ranks of a group put together on a device, the host between them; and which ways a card has shown to be right. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "gpu_worker/cuda/cuda_module.h"
#include "gpu_worker/cuda/proven.h"
#include "tests/kernels/ops_world.h"

enum { RANKS = 3 };

static struct backend *gpu;

/* What three ranks have, this one's the first. */
struct parts {
    const float *x[RANKS];
    uint32_t n_calls;
};

static int all_ranks(void *ctx, const float *x, size_t n, float *all) {
    struct parts *p = ctx;
    if (memcmp(x, p->x[0], n * sizeof *x) != 0) return BY_EINTERNAL;
    for (uint32_t k = 0; k < RANKS; k++) {
        memcpy(all + k * n, p->x[k], n * sizeof *all);
        p->x[k] += n;
    }
    p->n_calls++;
    return 0;
}

static int no_rank(void *ctx, const float *x, size_t n, float *all) {
    (void)x;
    (void)n;
    (void)all;
    ((struct parts *)ctx)->n_calls++;
    return BY_EUNAVAILABLE;
}

struct gathering {
    const struct op_gather *op;
    int (*on_host)(void *ctx, const float *x, size_t n, float *all);
    struct parts *parts;
    int rc;
};

static void gather_lane(struct lane *l, void *ctx) {
    struct gathering *g = ctx;
    g->rc = gpu->gather(l, g->op, g->on_host, g->parts);
}

static const float *put(float *host, size_t n) {
    world_floats(host, n, 1);
    const float *there = gpu->put(gpu, host, n);
    assert_non_null(there);
    return there;
}

/* What no rank has stays as it is. */
static uint32_t check_gather(uint32_t n, uint32_t own_ld, const uint32_t *starts) {
    const uint32_t all_ld = starts[RANKS] + 2;
    const size_t n_own = (size_t)n * own_ld, n_all = (size_t)n * all_ld;
    float *x = by_alloc_array(RANKS * n_own, sizeof *x),
          *want = by_alloc_array(n_all, sizeof *want);
    float *own = (float *)(uintptr_t)put(x, n_own), *all = (float *)(uintptr_t)put(want, n_all);
    world_floats(x + n_own, 2 * n_own, 1);
    struct parts parts = {.x = {x, x + n_own, x + 2 * n_own}};
    const struct op_gather op = {.own = own,
                                 .all = all,
                                 .own_ld = own_ld,
                                 .all_ld = all_ld,
                                 .starts = starts,
                                 .world = RANKS,
                                 .n = n};
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t k = 0; k < RANKS; k++)
            memcpy(want + (size_t)r * all_ld + starts[k], parts.x[k] + (size_t)r * own_ld,
                   (starts[k + 1] - starts[k]) * sizeof *want);
    struct gathering g = {&op, all_ranks, &parts, -1};
    gpu->run(gpu, gather_lane, &g);
    assert_int_equal(g.rc, 0);
    assert_memory_equal(gpu->get(gpu, all, n_all), want, n_all * sizeof *want);
    uint32_t n_calls = parts.n_calls;
    g = (struct gathering){&op, no_rank, &parts, 0};
    gpu->run(gpu, gather_lane, &g);
    assert_int_equal(g.rc, BY_EUNAVAILABLE);
    assert_int_equal(parts.n_calls, n_calls + 1);
    by_free(x);
    by_free(want);
    gpu->free(gpu, own);
    gpu->free(gpu, all);
    return n_calls;
}

TEST(ranks_put_their_columns_together) {
    UNUSED_STATE;
    struct by_err err;
    const struct cuda_options o = {.deadline_ms = 1000};
    if (banyan_cuda_module()->open(&gpu, &o, &err)) fail_msg("%s", err.text);
    const struct kv_shape small = {1, 8, 8, 16, KV_F32, false}; /* with a pool comes scratch */
    void *pool = gpu->kv_new(gpu, &small, 1);
    assert_non_null(pool);
    assert_int_equal(check_gather(1, 16, (const uint32_t[]){0, 16, 32, 41}), 1);
    assert_int_equal(check_gather(7, 304, (const uint32_t[]){0, 304, 592, 883}), 1);
    /* Rows that are more than scratch holds at once. */
    assert_int_equal(check_gather(3, 2100000, (const uint32_t[]){0, 5, 2100005, 2100006}), 2);
    gpu->kv_free(gpu, pool);
    gpu->close(gpu);
}

TEST(ways_are_proven_for_one_card_each_in_one_version) {
    UNUSED_STATE;
    char folder[] = "/tmp/by-proven-XXXXXX", path[64];
    struct by_str rest = by_str_of(proven_versions), windows;
    by_str_split(&rest, ',', &windows);
    assert_true(by_str_starts(windows, BY_STR("windows ")) && windows.n == strlen("windows ") + 12);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/cuda-proven", folder);
    setenv("BANYAN_CACHE", folder, 1);
    unsetenv("BANYAN_TEST_CUDA_WAYS");
    assert_int_equal(proven_ways("Card 9000"), 0);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "nonsense\nsomething 1a Card 9000\n%.*s Card 9000\nwgmma 1a Card 9000\n",
            (int)windows.n, windows.p);
    fprintf(f, "%.*s Torn", (int)windows.n, windows.p);
    fclose(f);
    assert_int_equal(proven_ways("Card 9000"), PROVEN_WINDOWS);
    assert_int_equal(proven_ways("Card 900"), 0);
    assert_int_equal(proven_ways("Torn"), 0);
    setenv("BANYAN_TEST_CUDA_WAYS", "none,windows", 1);
    assert_int_equal(proven_ways("Card 900"), PROVEN_WINDOWS);
    setenv("BANYAN_TEST_CUDA_WAYS", "none", 1);
    assert_int_equal(proven_ways("Card 9000"), 0);
    unsetenv("BANYAN_TEST_CUDA_WAYS");
    unsetenv("BANYAN_CACHE");
    unlink(path);
    rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {RUN(ranks_put_their_columns_together),
                                       RUN(ways_are_proven_for_one_card_each_in_one_version)};
    return WORLD_TESTS("ranks", tests, NULL, NULL);
}
