#include "common/base/sandbox.h"

#include "common/base/check.h"
#include "common/base/log.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
enum {
    ARCH = AUDIT_ARCH_X86_64,
    NR_MAX = 0x3fffffff
}; /* above: x32's numbers for the same calls */
#elif defined(__aarch64__)
enum { ARCH = AUDIT_ARCH_AARCH64, NR_MAX = 0x3fffffff };
#else
enum { ARCH = 0, NR_MAX = 0 }; /* no table of numbers: there is no sandbox */
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = true };
#else
enum { IS_SANITIZED = false };
#endif

/* Serving needs none of these. */
static const uint32_t denied[] = {
    __NR_ptrace,
    __NR_process_vm_readv,
    __NR_process_vm_writev,
    __NR_mount,
    __NR_umount2,
    __NR_pivot_root,
    __NR_chroot,
    __NR_setns,
    __NR_unshare,
    __NR_delete_module,
    __NR_kexec_load,
    __NR_bpf,
    __NR_perf_event_open,
    __NR_userfaultfd,
    __NR_keyctl,
    __NR_add_key,
    __NR_request_key,
    __NR_open_by_handle_at,
    __NR_name_to_handle_at,
    __NR_reboot,
    __NR_swapon,
    __NR_swapoff,
    __NR_acct,
    __NR_quotactl,
    __NR_settimeofday,
    __NR_clock_settime,
    __NR_adjtimex,
    __NR_clock_adjtime,
    __NR_sethostname,
    __NR_setdomainname,
    __NR_syslog,
    __NR_vhangup,
    __NR_fanotify_init,
#ifdef __NR_kexec_file_load
    __NR_kexec_file_load,
#endif
#ifdef __NR_pidfd_getfd
    __NR_pidfd_getfd,
#endif
#ifdef __NR_iopl
    __NR_iopl,
    __NR_ioperm,
    __NR_modify_ldt,
    __NR_uselib,
#endif
};

/* Only who starts programs needs them; nvidia-modprobe, which a CUDA driver may start, brings a module and makes device files. */
static const uint32_t of_programs[] = {
    __NR_execve, __NR_execveat, __NR_init_module, __NR_finit_module, __NR_mknodat,   __NR_setuid,
    __NR_setgid, __NR_setreuid, __NR_setregid,    __NR_setresuid,    __NR_setresgid, __NR_setgroups,
#ifdef __NR_fork
    __NR_fork,   __NR_vfork,    __NR_mknod,
#endif
};

/* What libraries try first, and do without. */
static const uint32_t absent[] = {
    __NR_clone3,
#ifdef __NR_io_uring_setup
    __NR_io_uring_setup,
    __NR_io_uring_enter,
    __NR_io_uring_register,
#endif
};

enum { PROGRAM_MAX = 256 };
struct program {
    struct sock_filter code[PROGRAM_MAX];
    unsigned short n;
};

static void put(struct program *p, struct sock_filter f) {
    by_assert(p->n < PROGRAM_MAX);
    p->code[p->n++] = f;
}

static void load(struct program *p, size_t offset) {
    put(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void answer(struct program *p, uint32_t verdict) {
    put(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, verdict));
}

/* When the loaded word is `value`, the next statement; else the one behind it. */
static void when(struct program *p, uint32_t value) {
    put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1));
}

static void deny(struct program *p, uint32_t call, int error) {
    when(p, call);
    answer(p, SECCOMP_RET_ERRNO | (uint32_t)error);
}

/* Threads are allowed, processes are not. The low half of an argument: both machines are little endian. */
static void filter_clone(struct program *p) {
    put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_clone, 0, 4));
    load(p, offsetof(struct seccomp_data, args[0]));
    put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1));
    answer(p, SECCOMP_RET_ALLOW);
    answer(p, SECCOMP_RET_ERRNO | EPERM);
}

static void filter_socket(struct program *p, enum by_sandbox_use use) {
    /* Netlink: how libzmq and getaddrinfo look at the machine's interfaces. */
    static const uint32_t families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
    uint32_t n = use == BY_SANDBOX_LOCAL ? 1 : BY_COUNTOF(families);
    put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_socket, 0,
                                        (uint8_t)(2 + 2 * n)));
    load(p, offsetof(struct seccomp_data, args[0]));
    for (uint32_t i = 0; i < n; i++) {
        when(p, families[i]);
        answer(p, SECCOMP_RET_ALLOW);
    }
    answer(p, SECCOMP_RET_ERRNO | EAFNOSUPPORT);
}

static void write_program(struct program *p, enum by_sandbox_use use) {
    load(p, offsetof(struct seccomp_data, arch));
    put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0));
    answer(p, SECCOMP_RET_KILL_PROCESS);
    load(p, offsetof(struct seccomp_data, nr));
    put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, NR_MAX, 0, 1));
    answer(p, SECCOMP_RET_ERRNO | ENOSYS);
    for (size_t i = 0; i < BY_COUNTOF(denied); i++)
        deny(p, denied[i], EPERM);
    for (size_t i = 0; i < BY_COUNTOF(absent); i++)
        deny(p, absent[i], ENOSYS);
    if (use != BY_SANDBOX_PROGRAMS) {
        for (size_t i = 0; i < BY_COUNTOF(of_programs); i++)
            deny(p, of_programs[i], EPERM);
    }
    filter_socket(p, use); /* these load another word, when the call is theirs */
    if (use != BY_SANDBOX_PROGRAMS) filter_clone(p);
    answer(p, SECCOMP_RET_ALLOW);
}

int by_sandbox_install(enum by_sandbox_use use) {
    struct program p = {.n = 0};
    if (ARCH == 0) return ENOSYS;
    write_program(&p, use);
    struct sock_fprog prog = {.len = p.n, .filter = p.code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return errno;
    long rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog);
    if (rc == 0) return 0;
    return rc > 0 ? EAGAIN : errno; /* above 0: a thread that could not follow */
}

void by_sandbox_enter(const char *mode, enum by_sandbox_use use) {
    bool is_strict = strcmp(mode, "strict") == 0;
    if (strcmp(mode, "off") == 0 || (IS_SANITIZED && !is_strict)) return;
    int error = by_sandbox_install(use);
    if (!error) return;
    if (is_strict)
        by_die("--sandbox strict: the kernel takes no seccomp filter: %s", strerror(error));
    by_warn("the kernel takes no seccomp filter (%s): serving goes on without one",
            strerror(error));
}
