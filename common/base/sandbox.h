/* sandbox.h - what a process gives up before it looks at bytes from outside: system calls that serving never needs.
 *
 *     ptrace, mount, bpf, keyctl, kexec and clock calls …                     ─▶ EPERM
 *     execve, fork, setuid, mknod, modules   (PROGRAMS: banyan serve may)      ─▶ EPERM
 *     io_uring, clone3                                                         ─▶ ENOSYS: the libraries have other ways
 *     sockets: Unix ones, and but for LOCAL IPv4, IPv6 and netlink; others     ─▶ EAFNOSUPPORT
 *
 * ioctl is open: a GPU's driver lives by it. The CUDA worker enters once its driver is up, which starts programs and makes
 * device files while it looks for the GPU.
 * A seccomp filter of plain BPF over every thread of the process, for x86-64 and aarch64. It needs no right of its own:
 * by_proc_init has given up new ones.
 * Always: once entered there is no way out, threads made later included.
 * Owner: the process's main thread. */
#ifndef COMMON_BASE_SANDBOX_H
#define COMMON_BASE_SANDBOX_H

#include "common/base/base.h"

enum by_sandbox_use { BY_SANDBOX_LOCAL, BY_SANDBOX_NETWORK, BY_SANDBOX_PROGRAMS };

/* mode: --sandbox. auto: where the kernel lets us, else one line in the log. strict: or the process ends. off: not at all.
 * Sanitizers read other threads by ptrace: under them auto is off. */
void by_sandbox_enter(const char *mode, enum by_sandbox_use use);
/* The filter alone: 0, or the errno for which there is none. For a process that has words of its own. */
BY_MUST_USE int by_sandbox_install(enum by_sandbox_use use);

#endif
