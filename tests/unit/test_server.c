#include "router/server.h"

#include "common/base/mem.h"

#include "tests/unit/test.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { LARGE_BYTES = 600 * 1024 };

static struct {
    uv_loop_t loop;
    struct server *server;
    char path[64];
} all;

static bool on_request(void *ctx, struct conn *c, const struct http1_request *r, bool is_whole) {
    static char large[LARGE_BYTES];
    struct by_str body = BY_STR("here");
    (void)ctx;
    if (by_str_eqz(r->path, "/no")) {
        conn_respond(c, 404, "text/plain", body, NULL);
        return true;
    }
    if (by_str_eqz(r->path, "/large")) body = (struct by_str){large, sizeof large};
    if (is_whole) conn_respond(c, 200, "text/plain", body, NULL);
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

static void say(int fd, const char *bytes, size_t n) {
    while (n) {
        ssize_t done = send(fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done > 0) bytes += done, n -= (size_t)done;
        turn(1);
    }
}

/* All that comes until `n` bytes are there or the connection ends. */
static size_t hear(int fd, char *out, size_t n) {
    size_t have = 0;
    for (;;) {
        turn(2);
        ssize_t got = recv(fd, out + have, n - have, MSG_DONTWAIT);
        if (got > 0) have += (size_t)got;
        if (got == 0 || have == n) return have;
        if (got < 0 && errno != EAGAIN) return have;
    }
}

/* Who was refused by the head of a small request lost the connection with it, and each further try made another. */
TEST(a_small_body_of_a_refused_request_is_read_past) {
    static const char refused[] = "POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\n",
                      expects[] = "POST /no HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                                  "Content-Length: 600\r\n\r\n",
                      next[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    char body[600] = {0}, answer[4096];
    UNUSED_STATE;
    int fd = connect_to(all.path);
    for (size_t at = 0; at <= sizeof body; at += 200) { /* answered before, amid or with its body */
        say(fd, refused, sizeof refused - 1);
        say(fd, body, at);
        ssize_t n = recv(fd, answer, sizeof answer - 1, MSG_DONTWAIT);
        assert_true(n > 0);
        answer[n] = '\0';
        assert_memory_equal(answer, "HTTP/1.1 404", 12);
        assert_null(strstr(answer, "Connection: close"));
        say(fd, body, sizeof body - at);
        say(fd, next, sizeof next - 1);
        n = recv(fd, answer, sizeof answer - 1, MSG_DONTWAIT);
        assert_true(n > 12);
        assert_memory_equal(answer, "HTTP/1.1 200", 12);
    }
    say(fd, expects, sizeof expects - 1); /* whether its body comes nobody can tell */
    assert_true(hear(fd, answer, sizeof answer) > 0);
    assert_non_null(strstr(answer, "Connection: close"));
    close(fd);
    turn(3);
}

/* ---- all together ---- */

static struct server *open_small_one(const char *path, uint64_t more) {
    struct server *s;
    struct by_err err;
    struct server_options o = {.unix_path = path,
                               .conn = {.body_bytes_max = 1 << 20,
                                        .connections_max = 8,
                                        .held_max = (by_mem_n_bytes() + more) / 3 * 4,
                                        .handle = on_request}};
    if (server_open(&s, &all.loop, &o, &err)) fail_msg("%s", err.text);
    return s;
}

static void close_small_one(struct server *s, const char *path) {
    server_stop_listening(s);
    server_close_all(s);
    turn(3);
    unlink(path);
}

/* Each upload was within its own limit, and a thousand of them were 16 GB. */
TEST(the_oldest_large_upload_gives_way) {
    static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n",
                      small[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    static char body[400000], answer[4096];
    char path[80];
    UNUSED_STATE;
    snprintf(path, sizeof path, "%s.small", all.path);
    struct server *s = open_small_one(path, 800 * 1024);
    int first = connect_to(path), second = connect_to(path), third = connect_to(path);
    say(first, head, sizeof head - 1);
    say(first, body, 300000);
    say(second, head, sizeof head - 1);
    say(second, body, 300000);
    turn(3);
    size_t n = hear(first, answer, sizeof answer - 1);
    answer[n] = '\0';
    assert_memory_equal(answer, "HTTP/1.1 429", 12);
    assert_non_null(strstr(answer, "\r\nRetry-After: 1\r\n"));
    say(third, small, sizeof small - 1);
    assert_int_equal(hear(third, answer, 12), 12);
    assert_memory_equal(answer, "HTTP/1.1 200", 12);
    say(second, body, 100000);
    assert_int_equal(hear(second, answer, 12), 12);
    assert_memory_equal(answer, "HTTP/1.1 200", 12);
    close(first);
    close(second);
    close(third);
    close_small_one(s, path);
}

/* Small ones were spared, however many: 12,000 who read 250 KiB a byte a second would have kept all others out for good. */
TEST(above_all_of_it_the_oldest_connection_gives_way_whatever_it_holds) {
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                      part[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab";
    char path[80], answer[4096];
    UNUSED_STATE;
    snprintf(path, sizeof path, "%s.small", all.path);
    struct server *s = open_small_one(path, 1 << 20);
    int first = connect_to(path), second = connect_to(path), third = connect_to(path);
    say(second, part, sizeof part - 1);
    say(first, request, sizeof request - 1); /* now the second is the oldest, then the third */
    assert_int_equal(recv(first, answer, 12, MSG_DONTWAIT), 12);
    char *much = by_alloc(4 << 20);
    turn(8);
    by_free(much);
    size_t n = hear(second, answer, sizeof answer - 1);
    answer[n] = '\0';
    assert_memory_equal(answer, "HTTP/1.1 429", 12);
    assert_int_equal(hear(third, answer, sizeof answer), 0);
    int fourth = connect_to(path); /* and then all is well */
    say(fourth, request, sizeof request - 1);
    assert_int_equal(hear(fourth, answer, 12), 12);
    assert_memory_equal(answer, "HTTP/1.1 200", 12);
    close(first);
    close(second);
    close(third);
    close(fourth);
    close_small_one(s, path);
}

/* Nor did it matter how many answers of 256 MB were not taken. */
TEST(the_oldest_large_answer_gives_way) {
    static const char request[] = "GET /large HTTP/1.1\r\nHost: a\r\n\r\n";
    static char answer[LARGE_BYTES];
    char path[80];
    UNUSED_STATE;
    snprintf(path, sizeof path, "%s.small", all.path);
    struct server *s = open_small_one(path, 900 * 1024);
    int first = connect_to(path), second = connect_to(path);
    say(first, request, sizeof request - 1);
    turn(3);
    say(second, request, sizeof request - 1);
    turn(6);
    assert_true(hear(first, answer, sizeof answer) < LARGE_BYTES);
    assert_int_equal(hear(second, answer, sizeof answer), LARGE_BYTES);
    close(first);
    close(second);
    close_small_one(s, path);
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
        RUN(a_small_body_of_a_refused_request_is_read_past),
        RUN(the_oldest_large_upload_gives_way),
        RUN(the_oldest_large_answer_gives_way),
        RUN(above_all_of_it_the_oldest_connection_gives_way_whatever_it_holds),
    };
    return cmocka_run_group_tests(tests, open_server, close_server);
}
