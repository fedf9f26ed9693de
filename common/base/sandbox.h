/* sandbox.h - what a process gives up before it looks at bytes from outside: system calls that serving never needs.
 *
 *     execve, fork, ptrace, mount, bpf, keyctl, module and clock calls …      ─▶ EPERM
 *     io_uring, clone3                                                         ─▶ ENOSYS: the libraries have other ways
 *     sockets: Unix ones, and IPv4, IPv6 and netlink where the process has business there; others ─▶ EAFNOSUPPORT
 *
 * A seccomp filter of plain BPF over every thread of the process, for x86-64 and aarch64. It needs no right of its own:
 * by_proc_init has given up new ones.
 * Always: once entered there is no way out, threads made later included.
 * Owner: the process's main thread. */
#ifndef COMMON_BASE_SANDBOX_H
#define COMMON_BASE_SANDBOX_H

enum by_sandbox_use { BY_SANDBOX_LOCAL, BY_SANDBOX_NETWORK };

/* mode: --sandbox. auto: where the kernel lets us, else one line in the log. strict: or the process ends. off: not at all.
 * Sanitizers read other threads by ptrace: under them auto is off. */
void by_sandbox_enter(const char *mode, enum by_sandbox_use use);

#endif
