#include "common/base/sandbox.h"

#include "common/base/log.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NO_SECCOMP = 77 }; /* the child's: this kernel or container has none */

/* Runs `look` in a child that has entered; its exit status is how often something was not as it should be. */
static int in_sandbox(enum by_sandbox_use use, int (*look)(void)) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        by_log_init(&(struct by_log_options){.process = "test", .level = BY_LOG_ERROR});
        by_sandbox_enter("auto", use);
        _exit(prctl(PR_GET_SECCOMP) == 2 ? look() : NO_SECCOMP);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void hold(enum by_sandbox_use use, int (*look)(void)) {
    int status = in_sandbox(use, look);
    if (status == NO_SECCOMP) skip();
    assert_int_equal(status, 0);
}

static int wrong(bool ok, const char *what) {
    if (!ok) fprintf(stderr, "not denied as it should be: %s (%s)\n", what, strerror(errno));
    return !ok;
}

static bool is_denied(long rc, int error) {
    return rc == -1 && errno == error;
}

static int look_at_programs(void) {
    char *const argv[] = {"true", NULL};
    int n = 0;
    errno = 0;
    n += wrong(is_denied(execve("/bin/true", argv, NULL), EPERM), "execve");
    n += wrong(is_denied(fork(), EPERM), "fork");
    n += wrong(is_denied(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), EPERM), "clone of a process");
    n += wrong(is_denied(syscall(SYS_clone3, NULL, 0), ENOSYS), "clone3");
    n += wrong(system("true") != 0, "system");
    return n;
}

static int look_at_the_rest(void) {
    int n = 0;
    n += wrong(is_denied(ptrace(PTRACE_TRACEME, 0, NULL, NULL), EPERM), "ptrace");
    n += wrong(is_denied(mount("none", "/nowhere", "tmpfs", 0, NULL), EPERM), "mount");
    n += wrong(is_denied(unshare(CLONE_NEWUSER), EPERM), "unshare");
    n += wrong(is_denied(syscall(SYS_bpf, 0, NULL, 0), EPERM), "bpf");
    n += wrong(is_denied(syscall(SYS_keyctl, 0, 0, 0, 0), EPERM), "keyctl");
    n += wrong(is_denied(setresuid(0, 0, 0), EPERM), "setresuid");
    n += wrong(is_denied(syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0), EPERM),
               "process_vm_readv");
    return n;
}

/* banyan serve: programs start, and are held as well. */
static int look_at_a_supervisor(void) {
    char *const argv[] = {"true", NULL};
    int n = 0, status = -1;
    pid_t pid = fork();
    n += wrong(pid >= 0, "(fork)");
    if (pid == 0) {
        if (!is_denied(ptrace(PTRACE_TRACEME, 0, NULL, NULL), EPERM)) _exit(9);
        execv("/bin/true", argv);
        _exit(8);
    }
    n += wrong(waitpid(pid, &status, 0) == pid && status == 0, "(a program), or its ptrace");
    n += wrong(is_denied(syscall(SYS_bpf, 0, NULL, 0), EPERM), "bpf");
    n += wrong(is_denied(unshare(CLONE_NEWUSER), EPERM), "unshare");
    return n + wrong(is_denied(socket(AF_PACKET, SOCK_RAW, 0), EAFNOSUPPORT), "a packet socket");
}

static int look_at_local_sockets(void) {
    int n = 0;
    n += wrong(socket(AF_UNIX, SOCK_STREAM, 0) >= 0, "(a Unix socket)");
    n += wrong(is_denied(socket(AF_INET, SOCK_STREAM, 0), EAFNOSUPPORT), "an IPv4 socket");
    n += wrong(is_denied(socket(AF_INET6, SOCK_STREAM, 0), EAFNOSUPPORT), "an IPv6 socket");
    return n + wrong(is_denied(socket(AF_PACKET, SOCK_RAW, 0), EAFNOSUPPORT), "a packet socket");
}

static int look_at_network_sockets(void) {
    int n = 0;
    n += wrong(socket(AF_INET, SOCK_STREAM, 0) >= 0, "(an IPv4 socket)");
    n += wrong(socket(AF_NETLINK, SOCK_RAW, 0) >= 0, "(a netlink socket)");
    return n + wrong(is_denied(socket(AF_PACKET, SOCK_RAW, 0), EAFNOSUPPORT), "a packet socket");
}

static void *in_thread(void *arg) {
    *(int *)arg = look_at_programs();
    return NULL;
}

/* Work goes on: threads, files, memory; and a thread is held as well. */
static int look_at_work(void) {
    pthread_t thread;
    int inside = 1, n = 0;
    n += wrong(pthread_create(&thread, NULL, in_thread, &inside) == 0, "(a thread)");
    n += wrong(pthread_join(thread, NULL) == 0 && inside == 0, "(a thread's calls)");
    FILE *f = fopen("/proc/self/status", "r");
    n += wrong(f != NULL, "(a file)");
    if (f) fclose(f);
    return n + wrong(malloc(64 << 20) != NULL, "(memory)");
}

TEST(no_program_can_be_started) {
    UNUSED_STATE;
    hold(BY_SANDBOX_NETWORK, look_at_programs);
}

TEST(what_serving_never_needs_is_gone) {
    UNUSED_STATE;
    hold(BY_SANDBOX_NETWORK, look_at_the_rest);
}

TEST(a_supervisor_starts_programs_and_little_else) {
    UNUSED_STATE;
    hold(BY_SANDBOX_PROGRAMS, look_at_a_supervisor);
}

TEST(sockets_are_of_the_families_that_it_has_business_with) {
    UNUSED_STATE;
    hold(BY_SANDBOX_LOCAL, look_at_local_sockets);
    hold(BY_SANDBOX_NETWORK, look_at_network_sockets);
}

TEST(work_goes_on) {
    UNUSED_STATE;
    hold(BY_SANDBOX_LOCAL, look_at_work);
}

/* A container that forbids the call itself: auto goes on, strict ends with a sentence. */
static int refused(const char *mode) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog prog = {BY_COUNTOF(code), code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog)) return NO_SECCOMP;
    by_log_init(&(struct by_log_options){.process = "test", .level = BY_LOG_ERROR});
    by_sandbox_enter(mode, BY_SANDBOX_LOCAL);
    return socket(AF_INET, SOCK_STREAM, 0) >= 0 ? 0 : 2; /* no filter holds it */
}

static int status_of(const char *mode) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(3);
        _exit(refused(mode));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

TEST(where_it_is_forbidden_auto_goes_on_and_strict_ends) {
    UNUSED_STATE;
    int status = status_of("auto");
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_SECCOMP) skip();
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    status = status_of("strict");
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(off_is_off) {
    UNUSED_STATE;
    by_sandbox_enter("off", BY_SANDBOX_LOCAL);
    assert_int_equal(prctl(PR_GET_SECCOMP), 0);
}

TESTS(RUN(no_program_can_be_started), RUN(what_serving_never_needs_is_gone),
      RUN(a_supervisor_starts_programs_and_little_else),
      RUN(sockets_are_of_the_families_that_it_has_business_with), RUN(work_goes_on),
      RUN(where_it_is_forbidden_auto_goes_on_and_strict_ends), RUN(off_is_off));
