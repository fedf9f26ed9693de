/* What a supervisor does with children that are quick, with an environment that is large, and once it stops. */
#include "deploy/cli/supervise.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "tests/unit/test.h"

#include <unistd.h>

static struct {
    char dir[32];
    uv_loop_t loop;
    struct supervisor *supervisor;
    uint32_t n_ready, n_exited;
    int ready_pids[4];
    int64_t codes[4];
    bool is_slow; /* the first that is ready keeps us for so long that the others are over */
} world;

/* The end of a child interrupts usleep. */
static void doze(uint64_t ms) {
    uint64_t until = by_now_ns() + ms * BY_NS_PER_MS;
    while (by_now_ns() < until)
        usleep(1000);
}

static void on_ready(void *ctx, struct child *c) {
    (void)ctx;
    world.ready_pids[world.n_ready++] = child_pid(c);
    supervisor_stop_starting(world.supervisor); /* again */
    if (world.is_slow && world.n_ready == 1) doze(700);
}

static void on_status(void *ctx, struct child *c, const char *status) {
    (void)ctx;
    (void)c;
    (void)status;
}

static void on_exited(void *ctx, struct child *c, int64_t code, int sig, bool will_restart) {
    (void)ctx;
    (void)c;
    assert_int_equal(sig, 0);
    assert_false(will_restart);
    world.codes[world.n_exited++] = code;
    if (supervisor_all_gone(world.supervisor)) uv_stop(&world.loop);
}

static bool on_failed(void *ctx, struct child *c, int64_t code) {
    (void)ctx;
    (void)c;
    (void)code;
    return false;
}

static void set_up(void) {
    snprintf(world.dir, sizeof world.dir, "/tmp/banyan-sup-XXXXXX");
    assert_non_null(mkdtemp(world.dir));
    assert_int_equal(uv_loop_init(&world.loop), 0);
    world.n_ready = world.n_exited = 0;
    world.supervisor = supervisor_new(&(struct supervisor_options){.loop = &world.loop,
                                                                   .run_dir = world.dir,
                                                                   .ready = on_ready,
                                                                   .status = on_status,
                                                                   .exited = on_exited,
                                                                   .failed = on_failed});
}

static void let_go(uv_handle_t *h, void *arg) {
    (void)arg;
    if (!uv_is_closing(h)) uv_close(h, NULL);
}

static void tear_down(void) {
    uv_walk(&world.loop, let_go, NULL);
    uv_run(&world.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&world.loop), 0);
    supervisor_free(world.supervisor);
    by_dir_remove(world.dir);
    assert_false(by_file_is_dir(world.dir));
}

static void run_script(const char *name, const char *script) {
    char **argv = by_alloc_array(4, sizeof *argv);
    argv[0] = by_strdup("/bin/sh");
    argv[1] = by_strdup("-c");
    argv[2] = by_strdup(script);
    supervisor_add(world.supervisor, name, argv, NULL);
}

#define SAY_READY \
    "python3 -c 'import os, socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)" \
    ".sendto(b\"READY=1\", os.environ[\"NOTIFY_SOCKET\"])'"

/* One that said READY and ended while the loop was busy with another: asked for its pid, the supervisor died of a NULL. The exit
 * of the third makes the loop look at all children before it looks at what the second has said. */
TEST(one_that_is_ready_and_gone_at_once_was_ready) {
    UNUSED_STATE;
    set_up();
    world.is_slow = true;
    run_script("first", SAY_READY "; sleep 2");
    run_script("second", "sleep 0.9; " SAY_READY "; exit 3");
    run_script("third", "sleep 0.2; exit 4");
    doze(700);
    uv_run(&world.loop, UV_RUN_DEFAULT);
    world.is_slow = false;
    assert_int_equal(world.n_ready, 2);
    assert_true(world.ready_pids[0] > 0 && world.ready_pids[1] > 0);
    assert_int_equal(world.n_exited, 3);
    tear_down();
}

/* What did not fit into 496 variables was left out, the key that clients must send among it: Kubernetes brings seven a Service. */
TEST(a_large_environment_arrives_whole) {
    UNUSED_STATE;
    enum { MANY = 2000 };
    char name[32];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "SERVICE_%d_PORT", i);
        assert_int_equal(setenv(name, "tcp://10.0.0.1:80", 1), 0);
    }
    assert_int_equal(setenv("BANYAN_API_KEY", "the last", 1), 0);
    set_up();
    run_script("reader", "test \"$BANYAN_API_KEY\" = 'the last' && test -n \"$SERVICE_1999_PORT\"");
    uv_run(&world.loop, UV_RUN_DEFAULT);
    assert_int_equal(world.n_exited, 1);
    assert_int_equal(world.codes[0], 0);
    tear_down();
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "SERVICE_%d_PORT", i);
        unsetenv(name);
    }
    unsetenv("BANYAN_API_KEY");
}

/* The first could not be started, so all stop; those that came after it were started all the same, and killed five seconds later. */
TEST(nothing_is_started_once_it_stops) {
    UNUSED_STATE;
    set_up();
    supervisor_stop_starting(world.supervisor);
    run_script("late", "exit 0");
    assert_true(supervisor_all_gone(world.supervisor));
    tear_down();
}

TESTS(RUN(one_that_is_ready_and_gone_at_once_was_ready), RUN(a_large_environment_arrives_whole),
      RUN(nothing_is_started_once_it_stops));
