/* tp_nccl.c, which is made for NCCL, over a library of this file with the real header: what ranks are told that cannot be a
 * group, a rank that never comes, an address that is none, and that a sum is a command of the queue. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nccl.h>

#include "gpu_worker/cuda/cuda.h"
#include "gpu_worker/cuda/cuda_group.h"
#include "tests/unit/test.h"

enum { DEADLINE_MS = 60000, SOON_MS = 20, N = 5 };

/* The library: what it answers, what it was asked. */
static struct {
    int version;
    ncclResult_t init, async, reduce;
    uint32_t n_polls; /* of those in which the answer is still to come */
    const char *last_error;
    uint32_t n_aborted, n_ranks, rank;
    ncclUniqueId id;
    int64_t least[2]; /* of what the other ranks have to share; both 0: as much as this one */
    size_t shared, window;
    /* what its threads write when the call that asked for it is long over */
    ncclWindow_t *window_to;
    ncclResult_t alloc, registered;
} lib;
static int communicator;

ncclResult_t ncclGetVersion(int *version) {
    *version = lib.version;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    for (size_t i = 0; i < sizeof *id; i++)
        ((uint8_t *)id)[i] = (uint8_t)(i * 37 + 11);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int n, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
    assert_int_equal(config->blocking, 0);
    *comm = (ncclComm_t)&communicator;
    lib.n_ranks = (uint32_t)n, lib.rank = (uint32_t)rank, lib.id = id;
    return lib.init;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *out) {
    assert_ptr_equal(comm, &communicator);
    *out = lib.n_polls ? ncclInProgress : lib.async;
    lib.n_polls -= lib.n_polls > 0;
    if (!lib.n_polls && lib.window_to) {
        *lib.window_to = (ncclWindow_t)&lib;
        lib.window_to = NULL;
    }
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    assert_ptr_equal(comm, &communicator);
    assert_true(alarm(60) > 0); /* it may hang: somebody ends it then */
    lib.n_aborted++;
    lib.window = 0;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t r) {
    return r == ncclInvalidUsage ? "invalid usage" : "another error";
}

const char *ncclGetLastError(ncclComm_t comm) {
    (void)comm;
    return lib.last_error;
}

ncclResult_t ncclMemAlloc(void **p, size_t n) {
    *p = lib.alloc ? NULL : malloc(n);
    if (*p) lib.shared = n;
    return lib.alloc;
}

ncclResult_t ncclMemFree(void *p) {
    assert_int_equal(lib.window, 0); /* it goes first */
    free(p);
    lib.shared = 0;
    return ncclSuccess;
}

ncclResult_t ncclCommWindowRegister(ncclComm_t comm, void *p, size_t n, ncclWindow_t *out,
                                    int flags) {
    assert_ptr_equal(comm, &communicator);
    assert_true(p && n == lib.shared && flags == NCCL_WIN_COLL_SYMMETRIC);
    lib.window = lib.registered ? 0 : n;
    if (lib.registered) return lib.registered;
    lib.window_to = out;
    lib.n_polls = 3;
    return ncclInProgress;
}

ncclResult_t ncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t window) {
    assert_ptr_equal(comm, &communicator);
    assert_true(window == (ncclWindow_t)&lib && lib.window);
    lib.window = 0;
    return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t t, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
    assert_true(from == to && stream);
    assert_ptr_equal(comm, &communicator);
    if (t == ncclInt64) {
        assert_true(op == ncclMin && n == 2);
        if (lib.least[0] || lib.least[1]) memcpy(to, lib.least, sizeof lib.least);
        return lib.reduce;
    }
    assert_true(t == ncclFloat32 && op == ncclSum);
    for (size_t i = 0; i < n && !lib.reduce; i++)
        ((float *)to)[i] *= (float)lib.n_ranks;
    return lib.reduce;
}

/* The other ranks have what this one has, each a hundred more than the one before. */
ncclResult_t ncclAllGather(const void *from, void *to, size_t n, ncclDataType_t t, ncclComm_t comm,
                           cudaStream_t stream) {
    assert_true(t == ncclFloat32 && stream);
    assert_ptr_equal(comm, &communicator);
    for (uint32_t k = 0; k < lib.n_ranks && !lib.reduce; k++)
        for (size_t i = 0; i < n; i++)
            ((float *)to)[k * n + i] = ((const float *)from)[i] + 100 * (float)k;
    return lib.reduce;
}

/* ---- two ranks, as far as this room sees them ---- */

static struct cuda ranks[2];
static struct by_err err;
static char address[256];

static int set_up(void **state) {
    (void)state;
    memset(&lib, 0, sizeof lib);
    lib.version = 22809;
    for (uint32_t i = 0; i < 2; i++) {
        struct cuda *c = &ranks[i];
        memset(c, 0, sizeof *c);
        if (port_open(&c->port, i, &c->device, &err)) fail_msg("%s", err.text);
        c->queue = queue_new(c->port, true);
        c->options.deadline_ms = DEADLINE_MS;
    }
    return cuda_group_new(&ranks[0].b, address, sizeof address, &err);
}

static int tear_down(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        cuda_group_leave(&ranks[i].b);
        cuda_free_all(&ranks[i]);
        port_pinned_free(ranks[i].port, ranks[i].host);
        queue_free(ranks[i].queue);
        port_close(ranks[i].port);
    }
    return 0;
}

static void refused(uint32_t rank, const char *why) {
    assert_int_not_equal(cuda_group_join(&ranks[rank].b, address, rank, 2, &err), 0);
    assert_null(ranks[rank].group);
    if (!strstr(err.text, why)) fail_msg("\"%s\" does not say \"%s\"", err.text, why);
}

TEST(two_ranks_meet_by_the_id_of_the_first) {
    UNUSED_STATE;
    ncclUniqueId id;
    ncclGetUniqueId(&id);
    for (uint32_t i = 0; i < 2; i++) {
        lib.n_polls = 3;
        lib.init = i ? ncclInProgress : ncclSuccess;
        assert_int_equal(cuda_group_join(&ranks[i].b, address, i, 2, &err), 0);
        assert_non_null(ranks[i].group);
        assert_true(lib.n_ranks == 2 && lib.rank == i && !lib.n_polls);
        assert_memory_equal(&lib.id, &id, sizeof id);
    }
}

TEST(what_the_operator_set_stays) {
    UNUSED_STATE;
    setenv("NCCL_RAS_ENABLE", "1", 1);
    unsetenv("NCCL_GRAPH_REGISTER");
    assert_int_equal(cuda_group_join(&ranks[1].b, address, 1, 2, &err), 0);
    assert_string_equal(getenv("NCCL_RAS_ENABLE"), "1");
    assert_string_equal(getenv("NCCL_GRAPH_REGISTER"), "0");
    unsetenv("NCCL_RAS_ENABLE");
}

TEST(a_sum_is_done_in_its_place_in_the_run) {
    UNUSED_STATE;
    struct cuda *c = &ranks[1];
    float host[N] = {1, 2, 3, 4, 5}, *x = port_malloc(c->port, sizeof host);
    assert_int_equal(cuda_group_join(&c->b, address, 1, 2, &err), 0);
    assert_int_equal(port_load(c->port, x, host, sizeof host), 0);
    queue_begin(c->queue);
    cuda_group_sum(c, x, N - 1);
    assert_true(x[0] == 1);
    assert_int_equal(queue_end(c->queue), 0);
    assert_int_equal(queue_wait(c->queue, DEADLINE_MS), 0);
    assert_true(x[0] == 2 && x[N - 2] == 8 && x[N - 1] == 5);
    lib.reduce = ncclInternalError;
    queue_begin(c->queue);
    cuda_group_sum(c, x, N);
    assert_int_not_equal(queue_end(c->queue), 0);
    assert_non_null(strstr(port_error(c->port), "a sum over the ranks"));
    port_free(c->port, x);
}

TEST(a_gather_is_done_in_its_place_in_the_run) {
    UNUSED_STATE;
    struct cuda *c = &ranks[1];
    float host[N] = {1, 2, 3, 4, 5}, *x = port_malloc(c->port, sizeof host),
          *all = port_malloc(c->port, 2 * sizeof host);
    assert_int_equal(cuda_group_join(&c->b, address, 1, 2, &err), 0);
    assert_int_equal(port_load(c->port, x, host, sizeof host), 0);
    queue_begin(c->queue);
    cuda_group_gather(c, x, N, all);
    assert_int_equal(queue_end(c->queue), 0);
    assert_int_equal(queue_wait(c->queue, DEADLINE_MS), 0);
    assert_true(all[0] == 1 && all[N - 1] == 5 && all[N] == 101 && all[2 * N - 1] == 105);
    lib.reduce = ncclInternalError;
    queue_begin(c->queue);
    cuda_group_gather(c, x, N, all);
    assert_int_not_equal(queue_end(c->queue), 0);
    assert_non_null(strstr(port_error(c->port), "a gather over the ranks"));
    port_free(c->port, x);
    port_free(c->port, all);
}

TEST(sums_lie_in_a_window_where_all_ranks_have_one) {
    UNUSED_STATE;
    struct cuda *c = &ranks[0];
    float *x = cuda_group_alloc(c, 64);
    assert_true(x && c->sums == x && c->sums_bytes == 64);
    assert_int_equal(cuda_group_join(&c->b, address, 0, 2, &err), 0);
    assert_int_equal(lib.window, 64);
    cuda_group_leave(&c->b);
    assert_int_equal(alarm(0), 0);
    assert_true(c->sums && lib.shared); /* the next group's too */
    assert_int_equal(cuda_group_join(&c->b, address, 0, 2, &err), 0);
    assert_int_equal(lib.window, 64);
    cuda_group_free(c); /* while there is a group: other weights have taken the place of these */
    assert_true(!c->sums && !lib.shared && !lib.window);
}

TEST(without_a_window_on_every_rank_there_is_none) {
    UNUSED_STATE;
    struct cuda *c = &ranks[0];
    assert_non_null(cuda_group_alloc(c, 64));
    lib.least[1] = -64; /* a rank has none */
    assert_int_equal(cuda_group_join(&c->b, address, 0, 2, &err), 0);
    assert_int_equal(lib.window, 0);
    cuda_group_leave(&c->b);
    cuda_group_free(c);
    lib.least[0] = lib.least[1] = 0;
    lib.alloc = ncclInvalidUsage; /* nor this one */
    assert_null(cuda_group_alloc(c, 64));
    assert_int_equal(cuda_group_join(&c->b, address, 0, 2, &err), 0);
    assert_int_equal(lib.window, 0);
    lib.alloc = ncclSuccess;
    c->options.shares_device = true;
    assert_null(cuda_group_alloc(c, 64));
    c->options.shares_device = false;
}

TEST(a_window_or_a_first_sum_that_fails_is_told) {
    UNUSED_STATE;
    assert_non_null(cuda_group_alloc(&ranks[0], 64));
    lib.registered = ncclSystemError;
    refused(0, "the group's first sum: another error");
    lib.registered = ncclSuccess;
    lib.reduce = ncclSystemError;
    refused(0, "the group's first sum: another error");
    assert_int_equal(lib.n_aborted, 2);
    cuda_group_free(&ranks[0]);
}

TEST(other_versions_are_told_with_their_numbers) {
    UNUSED_STATE;
    lib.version = 23203;
    refused(1, "rank 1 has NCCL 23203, rank 0 has 22809: install one version");
}

TEST(one_device_for_two_ranks_is_told) {
    UNUSED_STATE;
    ranks[1].device = ranks[0].device;
    refused(1, "rank 1 has the device of rank 0 (SIMT emulator)");
    assert_int_equal(lib.n_ranks, 0);
    ranks[1].options.shares_device = true;
    unsetenv("NCCL_HOSTID");
    assert_int_equal(cuda_group_join(&ranks[1].b, address, 1, 2, &err), 0);
    assert_non_null(getenv("NCCL_HOSTID"));
}

TEST(a_rank_that_never_comes_is_waited_for_no_longer_than_the_deadline) {
    UNUSED_STATE;
    lib.init = lib.async = ncclInProgress;
    ranks[0].options.deadline_ms = SOON_MS;
    refused(0, "rank 0 of 2: not all ranks have joined within 0.02 s");
    assert_int_equal(lib.n_aborted, 1);
}

TEST(what_the_library_says_is_passed_on) {
    UNUSED_STATE;
    lib.init = ncclInvalidUsage;
    lib.last_error = "Duplicate GPU detected : rank 1 and rank 2 both on CUDA device 1b000";
    refused(1, "joining the group: invalid usage: Duplicate GPU detected : rank 1 and rank 2");
    lib.init = ncclInProgress, lib.async = ncclSystemError, lib.last_error = "";
    refused(1, "joining the group: another error (NCCL_DEBUG=WARN says more)");
}

TEST(an_address_that_is_none_is_refused) {
    UNUSED_STATE;
    char good[sizeof address];
    memcpy(good, address, sizeof good);
    for (size_t i = 0; i < strlen(good); i += 7) { /* cut short */
        memcpy(address, good, sizeof good);
        address[i] = '\0';
        refused(1, "none of NCCL's");
    }
    memcpy(address, good, sizeof good);
    address[strlen(good) - 3] = '!';
    refused(1, "none of NCCL's");
    snprintf(address, sizeof address, "ipc:///tmp/x");
    refused(1, "none of NCCL's");
    assert_int_equal(lib.n_ranks, 0);
}

#define ONE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        ONE(two_ranks_meet_by_the_id_of_the_first),
        ONE(what_the_operator_set_stays),
        ONE(a_sum_is_done_in_its_place_in_the_run),
        ONE(a_gather_is_done_in_its_place_in_the_run),
        ONE(sums_lie_in_a_window_where_all_ranks_have_one),
        ONE(without_a_window_on_every_rank_there_is_none),
        ONE(a_window_or_a_first_sum_that_fails_is_told),
        ONE(other_versions_are_told_with_their_numbers),
        ONE(one_device_for_two_ranks_is_told),
        ONE(a_rank_that_never_comes_is_waited_for_no_longer_than_the_deadline),
        ONE(what_the_library_says_is_passed_on),
        ONE(an_address_that_is_none_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
