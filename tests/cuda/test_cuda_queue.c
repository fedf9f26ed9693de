/* The queue over the emulated device: when a list becomes a graph and when it must not, staging, and what a failure leaves. */
#include "gpu_worker/cuda/queue.h"
#include "tests/unit/test.h"

enum { COMMANDS = 8, N = 16 };

static struct port *port;
static struct queue *queue;
static uint32_t *there; /* [COMMANDS][N] on the device */
static uint32_t *here;  /* the same, pinned */
static uint32_t n_calls;

/* A command: copies N words of a staged array to place `to` of there. */
struct copy {
    const uint32_t *from;
    uint32_t to;
};

static int copy_command(void *ctx, const void *args) {
    struct copy c;
    (void)ctx;
    memcpy(&c, args, sizeof c);
    n_calls++;
    return port_to_device(port, there + c.to * N, c.from, N * sizeof *there);
}

/* Copies to all places; with ranks that meet the first of them is where they do. */
static int try_run(const uint32_t *array, size_t n, uint32_t first_to, bool ranks_meet) {
    queue_begin(queue);
    const uint32_t *staged = queue_stage(queue, array, n * sizeof *array);
    assert_ptr_equal(staged, queue_stage(queue, array, n * sizeof *array));
    for (uint32_t i = 0; i < COMMANDS; i++) {
        struct copy c;
        memset(&c, 0, sizeof c);
        c.from = staged;
        c.to = (first_to + i) % COMMANDS;
        (i == 0 && ranks_meet ? queue_meet : queue_call)(queue, copy_command, NULL, &c, sizeof c);
    }
    return queue_end(queue);
}

static void run(const uint32_t *array, size_t n, uint32_t first_to) {
    assert_int_equal(try_run(array, n, first_to, false), 0);
}

static void check(const uint32_t *array) {
    queue_begin(queue);
    assert_int_equal(port_to_host(port, here, there, COMMANDS * N * sizeof *here), 0);
    assert_int_equal(queue_end(queue), 0);
    assert_int_equal(queue_wait(queue, 1000), 0);
    for (uint32_t i = 0; i < COMMANDS; i++)
        assert_memory_equal(here + i * N, array, N * sizeof *array);
}

TEST(a_list_that_comes_again_is_a_graph_with_new_contents) {
    UNUSED_STATE;
    uint32_t array[64];
    for (uint32_t turn = 0; turn < 6; turn++) {
        for (uint32_t i = 0; i < 64; i++)
            array[i] = 100 * turn + i;
        run(array, 20 + turn, 0); /* grows within its room */
        check(array);
    }
    struct queue_counts c = queue_counted(queue);
    assert_int_equal(c.n_graphs, 1);
    assert_int_equal(c.n_graph_runs, 5);
    assert_int_equal(n_calls, 2 * COMMANDS); /* once by themselves, once recorded */
}

TEST(a_list_that_differs_in_one_argument_is_another) {
    UNUSED_STATE;
    uint32_t array[64] = {1, 2, 3};
    for (uint32_t turn = 0; turn < 4; turn++)
        run(array, 20, turn);
    check(array);
    assert_int_equal(queue_counted(queue).n_graphs, 0);
    assert_int_equal(n_calls, 4 * COMMANDS);
}

TEST(arrays_larger_than_all_before_find_room) {
    UNUSED_STATE;
    static uint32_t array[1 << 20];
    for (uint32_t n = 16; n <= 1u << 20; n *= 4) {
        array[3] = n;
        run(array, n, 0);
        check(array);
    }
    array[3] = 7;
    for (int turn = 0; turn < 3; turn++)
        run(array, 16, 0);
    check(array);
}

/* A full device: the graph that is there goes on, other lists do without. */
TEST(what_there_is_no_memory_to_record_still_runs) {
    UNUSED_STATE;
    uint32_t array[64] = {0};
    for (uint32_t turn = 0; turn < 8; turn++) {
        array[0] = turn;
        run(array, 20, turn % 2);
        check(array);
    }
    assert_int_equal(queue_counted(queue).n_graphs, 1);
    assert_int_equal(queue_counted(queue).n_graph_runs, 3);
    /* the second list is recorded once, for nothing */
    assert_int_equal(n_calls, (2 + 1 + 4) * COMMANDS);
}

/* As the others have a graph for each list: two lists with room for one, which are recorded by turns. */
TEST(where_ranks_meet_a_graph_makes_room_for_another) {
    UNUSED_STATE;
    uint32_t array[64] = {0};
    for (uint32_t turn = 0; turn < 8; turn++) {
        array[0] = turn;
        assert_int_equal(try_run(array, 20, turn % 2, true), 0);
        check(array);
    }
    assert_int_equal(queue_counted(queue).n_graph_runs, 6);
    assert_int_equal(queue_counted(queue).n_graphs, 6);
}

TEST(where_ranks_meet_no_graph_at_all_is_told) {
    UNUSED_STATE;
    uint32_t array[64] = {0};
    assert_int_equal(try_run(array, 20, 0, true), 0); /* first sight */
    assert_int_not_equal(try_run(array, 20, 0, true), 0);
    assert_non_null(strstr(port_error(port), "no memory for a graph of 8 commands"));
}

TEST(more_lists_than_graphs_are_kept_still_run) {
    UNUSED_STATE;
    uint32_t array[64] = {5};
    for (uint32_t n = 0; n < 700;
         n++) { /* 350 lists, each twice: their arrays begin at other places */
        queue_begin(queue);
        static const char filler[400];
        for (uint32_t i = 0; i <= n / 2; i++)
            queue_stage(queue, filler + i, 1);
        const uint32_t *staged = queue_stage(queue, array, sizeof array);
        for (uint32_t i = 0; i < COMMANDS; i++) {
            struct copy c;
            memset(&c, 0, sizeof c);
            c.from = staged;
            c.to = i;
            queue_call(queue, copy_command, NULL, &c, sizeof c);
        }
        assert_int_equal(queue_end(queue), 0);
    }
    check(array);
}

TEST(what_a_run_fetches_is_there_when_the_run_is_reached) {
    UNUSED_STATE;
    uint32_t array[64], n_looks = 0;
    uint64_t runs[3];
    uint32_t *to = port_pinned(port, 3 * sizeof *to);
    for (uint32_t i = 0; i < 3; i++) {
        array[0] = 10 + i;
        queue_begin(queue);
        const uint32_t *staged = queue_stage(queue, array, sizeof array);
        for (uint32_t k = 0; k < COMMANDS; k++) {
            struct copy c;
            memset(&c, 0, sizeof c);
            c.from = staged;
            queue_call(queue, copy_command, NULL, &c, sizeof c);
        }
        queue_fetch(queue, to + i, there, sizeof *to);
        assert_int_equal(queue_end(queue), 0);
        runs[i] = queue_counted(queue).n_runs;
    }
    assert_int_equal(queue_reached(queue, runs[1], 60000), 0); /* some of it is done, not all */
    while (!queue_reached(queue, runs[1], 60000))
        n_looks++;
    assert_true(n_looks < 100);
    assert_int_equal(queue_reached(queue, runs[0], 60000), 1);
    assert_int_equal(to[0], 10);
    assert_int_equal(to[1], 11);
    assert_int_equal(to[2], UINT32_MAX); /* not reached: as it was */
    assert_int_equal(queue_wait(queue, 60000), 0);
    assert_int_equal(queue_reached(queue, runs[2], 60000), 1);
    assert_int_equal(to[2], 12);
    port_pinned_free(port, to);
}

/* The first look finds 16 commands done, and no more time. */
TEST(a_run_that_is_late_fails) {
    UNUSED_STATE;
    uint32_t array[64] = {0};
    for (int turn = 0; turn < 3; turn++)
        run(array, 20, 0);
    assert_int_equal(queue_reached(queue, 3, 0), -1);
    assert_non_null(strstr(port_error(port), "not done after 0 ms"));
    assert_int_not_equal(queue_wait(queue, 1000), 0);
}

TEST(after_a_failure_nothing_is_done_any_more) {
    UNUSED_STATE;
    uint32_t array[64] = {0};
    for (int turn = 0; turn < 3; turn++)
        run(array, 20, 0);
    assert_int_not_equal(queue_wait(queue, 1000), 0);
    assert_non_null(strstr(port_error(port), "illegal memory access"));
    queue_begin(queue);
    queue_stage(queue, array, sizeof array);
    assert_int_not_equal(queue_end(queue), 0);
    assert_int_not_equal(queue_wait(queue, 1000), 0);
}

static int set_up(void **state) {
    struct port_device device;
    struct by_err err;
    (void)state;
    if (port_open(&port, 0, &device, &err)) fail_msg("%s", err.text);
    queue = queue_new(port, true);
    there = port_malloc(port, COMMANDS * N * sizeof *there);
    here = port_pinned(port, COMMANDS * N * sizeof *here);
    n_calls = 0;
    return 0;
}

static int set_up_for_one_graph(void **state) {
    setenv("BANYAN_EMU_GRAPHS", "1", 1);
    return set_up(state);
}

static int set_up_for_no_graph(void **state) {
    setenv("BANYAN_EMU_GRAPHS", "0", 1);
    return set_up(state);
}

static int set_up_to_fail(void **state) {
    setenv("BANYAN_EMU_FAIL", "9", 1);
    return set_up(state);
}

static int tear_down(void **state) {
    (void)state;
    unsetenv("BANYAN_EMU_FAIL");
    unsetenv("BANYAN_EMU_GRAPHS");
    queue_free(queue);
    port_free(port, there);
    port_pinned_free(port, here);
    port_close(port);
    return 0;
}

#define ALONE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
TESTS(ALONE(a_list_that_comes_again_is_a_graph_with_new_contents),
      ALONE(a_list_that_differs_in_one_argument_is_another),
      ALONE(arrays_larger_than_all_before_find_room),
      ALONE(more_lists_than_graphs_are_kept_still_run),
      ALONE(what_a_run_fetches_is_there_when_the_run_is_reached), ALONE(a_run_that_is_late_fails),
      cmocka_unit_test_setup_teardown(what_there_is_no_memory_to_record_still_runs,
                                      set_up_for_one_graph, tear_down),
      cmocka_unit_test_setup_teardown(where_ranks_meet_a_graph_makes_room_for_another,
                                      set_up_for_one_graph, tear_down),
      cmocka_unit_test_setup_teardown(where_ranks_meet_no_graph_at_all_is_told, set_up_for_no_graph,
                                      tear_down),
      cmocka_unit_test_setup_teardown(after_a_failure_nothing_is_done_any_more, set_up_to_fail,
                                      tear_down));
