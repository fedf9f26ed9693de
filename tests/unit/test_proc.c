/* What a process tells its supervisor: READY arrives, however many messages wait already. */
#include "common/base/proc.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/test.h"

static struct {
    int fd;
    _Atomic bool may_read;
    uint32_t n_status;
} receiver;

/* Reads until READY comes; NULL: the socket was closed or nothing came for a long time. */
static void *read_ready(void *ctx) {
    char text[256];
    (void)ctx;
    while (!atomic_load(&receiver.may_read))
        usleep(100);
    for (ssize_t n; (n = recv(receiver.fd, text, sizeof text - 1, 0)) > 0;) {
        text[n] = '\0';
        if (strcmp(text, "READY=1\nSTATUS=serving") == 0) return &receiver;
        receiver.n_status++;
    }
    return NULL;
}

TEST(ready_arrives_behind_more_messages_than_a_socket_holds) {
    UNUSED_STATE;
    char dir[] = "/tmp/banyan-proc-XXXXXX";
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    const struct timeval most = {.tv_sec = 60};
    pthread_t reader;
    void *got;
    assert_non_null(mkdtemp(dir));
    snprintf(a.sun_path, sizeof a.sun_path, "%s/notify", dir);
    receiver.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(receiver.fd >= 0);
    assert_int_equal(setsockopt(receiver.fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most), 0);
    assert_int_equal(bind(receiver.fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(pthread_create(&reader, NULL, read_ready, NULL), 0);
    setenv("NOTIFY_SOCKET", a.sun_path, 1);
    for (int i = 0; i < 2000; i++)
        by_notify("STATUS=loading the model");
    atomic_store(&receiver.may_read, true);
    by_notify("READY=1\nSTATUS=serving");
    assert_int_equal(pthread_join(reader, &got), 0);
    assert_non_null(got);
    assert_in_range(receiver.n_status, 1, 1999); /* those that found no room are gone */
    /* A worker said it again with each new scheduler, nobody read, and all streams stood for ten seconds. */
    for (int i = 0; i < 2000; i++)
        by_notify("STATUS=loading the model");
    alarm(9);
    by_notify("READY=1\nSTATUS=serving");
    alarm(0);
    unsetenv("NOTIFY_SOCKET");
    close(receiver.fd);
    unlink(a.sun_path);
    rmdir(dir);
}

TEST(nobody_listening_is_no_trouble) {
    UNUSED_STATE;
    setenv("NOTIFY_SOCKET", "/tmp/banyan-nobody-listens-here", 1);
    by_notify("READY=1");
    by_notify("STATUS=alone");
    assert_int_equal(access("/tmp/banyan-nobody-listens-here", F_OK), -1);
    unsetenv("NOTIFY_SOCKET");
}

TESTS(RUN(ready_arrives_behind_more_messages_than_a_socket_holds),
      RUN(nobody_listening_is_no_trouble));
