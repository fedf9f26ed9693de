#include "router/server.h"

#include "tests/unit/test.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct {
    uv_loop_t loop;
    struct server *server;
    char path[64];
} all;

static bool on_request(void *ctx, struct conn *c, const struct http1_request *r, bool is_whole) {
    (void)ctx;
    (void)r;
    if (is_whole) conn_respond(c, 200, "text/plain", by_str_of("here"), NULL);
    return is_whole;
}

static int open_server(void **state) {
    struct by_err err;
    (void)state;
    snprintf(all.path, sizeof all.path, "/tmp/banyan-server-%d.sock", (int)getpid());
    uv_loop_init(&all.loop);
    struct server_options o = {
        .unix_path = all.path,
        .conn = {.body_bytes_max = 1024, .connections_max = 2, .handle = on_request}};
    int rc = server_open(&all.server, &all.loop, &o, &err);
    if (rc) fail_msg("%s", err.text);
    return 0;
}

static void turn(int n) {
    while (n--)
        uv_run(&all.loop, UV_RUN_NOWAIT);
}

static int connect_to(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    turn(3);
    return fd;
}

/* The timer of slow clients ran for ever: a router that nobody asked woke up each second. */
TEST(an_idle_server_sleeps) {
    UNUSED_STATE;
    turn(3);
    assert_int_equal(uv_backend_timeout(&all.loop), -1);
    int fd = connect_to(all.path);
    assert_true(uv_backend_timeout(&all.loop) > 0);
    close(fd);
    turn(3);
    assert_int_equal(uv_backend_timeout(&all.loop), -1);
}

TEST(a_request_is_answered_and_its_connection_kept) {
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    char answer[1024];
    UNUSED_STATE;
    int fd = connect_to(all.path);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(write(fd, request, sizeof request - 1), sizeof request - 1);
        turn(3);
        ssize_t n = read(fd, answer, sizeof answer - 1);
        assert_true(n > 0);
        answer[n] = '\0';
        assert_memory_equal(answer, "HTTP/1.1 200", 12);
        assert_non_null(strstr(answer, "\r\n\r\nhere"));
    }
    close(fd);
    turn(3);
}

TEST(one_connection_too_many_is_closed_at_once) {
    char byte;
    UNUSED_STATE;
    int fds[3];
    for (int i = 0; i < 3; i++)
        fds[i] = connect_to(all.path);
    assert_int_equal(recv(fds[2], &byte, 1, 0), 0);
    assert_int_equal(recv(fds[1], &byte, 1, MSG_DONTWAIT), -1);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    turn(3);
}

TEST(a_live_servers_socket_file_is_not_taken_over) {
    struct server *second;
    struct by_err err;
    UNUSED_STATE;
    struct server_options o = {.unix_path = all.path, .conn = {.handle = on_request}};
    assert_int_equal(server_open(&second, &all.loop, &o, &err), BY_EIO);
    int fd = connect_to(all.path);
    close(fd);
    turn(3);
}

/* libuv cut the path off, and the server listened on what was left of it. */
TEST(a_path_that_no_socket_can_have_is_refused) {
    UNUSED_STATE;
    struct server *second;
    struct by_err err;
    char path[256];
    snprintf(path, sizeof path, "%s%0*d", all.path, 120, 0);
    struct server_options o = {.unix_path = path, .conn = {.handle = on_request}};
    assert_int_equal(server_open(&second, &all.loop, &o, &err), BY_EINVAL);
    assert_non_null(strstr(err.text, "a socket's path 107 at most"));
    path[107] = '\0';
    assert_int_equal(access(path, F_OK), -1);
}

static int close_server(void **state) {
    (void)state;
    server_stop_listening(all.server);
    server_close_all(all.server);
    turn(3);
    unlink(all.path);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        RUN(an_idle_server_sleeps),
        RUN(a_request_is_answered_and_its_connection_kept),
        RUN(one_connection_too_many_is_closed_at_once),
        RUN(a_live_servers_socket_file_is_not_taken_over),
        RUN(a_path_that_no_socket_can_have_is_refused),
    };
    return cmocka_run_group_tests(tests, open_server, close_server);
}
