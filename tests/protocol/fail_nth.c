/* fail_nth.c - a library that is preloaded into a program under test and makes its nth call of a kind fail, once.
 *
 *     LD_PRELOAD=libfail-nth.so  FAIL_NTH=alloc:5  banyan-router …        SIGUSR2: from now on calls are counted
 *
 *     alloc   calloc, malloc, realloc of the program's own code     NULL, ENOMEM
 *     read    read, pread, recv, recvmsg, open                      EIO
 *     write   write, writev, send, sendmsg                          EIO
 *     zmq     zmq_send, zmq_msg_recv                                EFAULT, an error that is not meant to come
 *
 * Calls that libraries make among themselves are not counted: what is tried is our code. libuv's reads and writes of
 * client sockets are ours to survive too, and are. Always: nothing fails before SIGUSR2, and never more than once; when it
 * does, a line "fail-nth: KIND" on stderr says that it came. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char kind[16];
static atomic_long left; /* calls until the one that fails; 0: none does */
static long nth;
static uintptr_t code_from, code_to, uv_from, uv_to;

static int find_code(struct dl_phdr_info *info, size_t size, void *ctx) {
    bool is_uv = info->dlpi_name && strstr(info->dlpi_name, "libuv");
    (void)size;
    if (!is_uv && *(int *)ctx) return 0;
    *(int *)ctx = 1; /* the first is the program itself */
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X)) continue;
        *(is_uv ? &uv_from : &code_from) = info->dlpi_addr + p->p_vaddr;
        *(is_uv ? &uv_to : &code_to) = info->dlpi_addr + p->p_vaddr + p->p_memsz;
    }
    return 0;
}

static void arm(int sig) {
    (void)sig;
    atomic_store(&left, nth);
}

__attribute__((constructor)) static void start(void) {
    const char *text = getenv("FAIL_NTH"), *colon = text ? strchr(text, ':') : NULL;
    int seen = 0;
    if (!colon || (size_t)(colon - text) >= sizeof kind) return;
    memcpy(kind, text, (size_t)(colon - text));
    nth = strtol(colon + 1, NULL, 10);
    dl_iterate_phdr(find_code, &seen);
    signal(SIGUSR2, arm);
}

static bool is_in(const void *at, uintptr_t from, uintptr_t to) {
    return (uintptr_t)at >= from && (uintptr_t)at < to;
}

static bool fails(const char *what, const void *caller, bool with_uv) {
    if (atomic_load_explicit(&left, memory_order_relaxed) <= 0 || strcmp(kind, what) != 0)
        return false;
    if (!is_in(caller, code_from, code_to) && !(with_uv && is_in(caller, uv_from, uv_to)))
        return false;
    if (atomic_fetch_sub(&left, 1) != 1) return false;
    static const char said[] = "fail-nth: ";
    char line[sizeof said + sizeof kind];
    int n = snprintf(line, sizeof line, "%s%s\n", said, kind);
    syscall(SYS_write, STDERR_FILENO, line, (size_t)n); /* past what fails here */
    return true;
}

/* The real one of a function. dlsym may allocate: glibc's own names for the allocators need no search. */
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CALLER __builtin_return_address(0)

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t each);
extern void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n) {
    if (!fails("alloc", CALLER, false)) return __libc_malloc(n);
    errno = ENOMEM;
    return NULL;
}

void *calloc(size_t n, size_t each) {
    if (!fails("alloc", CALLER, false)) return __libc_calloc(n, each);
    errno = ENOMEM;
    return NULL;
}

void *realloc(void *p, size_t n) {
    if (!fails("alloc", CALLER, false)) return __libc_realloc(p, n);
    errno = ENOMEM;
    return NULL;
}

#define FAILING(what, error) \
    if (fails(what, CALLER, true)) { \
        errno = error; \
        return -1; \
    }

ssize_t read(int fd, void *p, size_t n) {
    FAILING("read", EIO)
    return REAL(read)(fd, p, n);
}

ssize_t pread(int fd, void *p, size_t n, off_t at) {
    FAILING("read", EIO)
    return REAL(pread)(fd, p, n, at);
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags) {
    FAILING("read", EIO)
    return REAL(recvmsg)(fd, m, flags);
}

int open(const char *path, int flags, ...) {
    va_list ap;
    va_start(ap, flags);
    mode_t mode = (flags & O_CREAT) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    FAILING("read", EIO)
    return REAL(open)(path, flags, mode);
}

ssize_t write(int fd, const void *p, size_t n) {
    FAILING("write", EIO)
    return REAL(write)(fd, p, n);
}

ssize_t writev(int fd, const struct iovec *v, int n) {
    FAILING("write", EIO)
    return REAL(writev)(fd, v, n);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags) {
    FAILING("write", EIO)
    return REAL(sendmsg)(fd, m, flags);
}

/* libzmq's, by the shapes of zmq.h. */
int zmq_send(void *socket, const void *p, size_t n, int flags);
int zmq_send(void *socket, const void *p, size_t n, int flags) {
    FAILING("zmq", EFAULT)
    return REAL(zmq_send)(socket, p, n, flags);
}

int zmq_msg_recv(void *msg, void *socket, int flags);
int zmq_msg_recv(void *msg, void *socket, int flags) {
    FAILING("zmq", EFAULT)
    return REAL(zmq_msg_recv)(msg, socket, flags);
}
