#include "common/base/proc.h"

#include "common/base/cgroup.h"
#include "common/base/check.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/options_meant.h"
#include "common/base/rand.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int stop_pipe[2] = {-1, -1};
static atomic_uint n_stops;
static uint64_t epoch;

static void on_stop(int sig) {
    (void)sig;
    int saved = errno;
    atomic_fetch_add(&n_stops, 1);
    ssize_t put = write(stop_pipe[1], "", 1);
    (void)put; /* a full pipe is readable too */
    errno = saved;
}

/* Async-signal-safe: one line, then the default action (a core, if the system wants one). */
static void on_crash(int sig) {
    static const char head[] = "banyan: crashed by signal ";
    char line[64];
    size_t n = sizeof head - 1;
    memcpy(line, head, n);
    if (sig >= 10) line[n++] = (char)('0' + sig / 10);
    line[n++] = (char)('0' + sig % 10);
    line[n++] = '\n';
    ssize_t put = write(STDERR_FILENO, line, n);
    (void)put;
    signal(sig, SIG_DFL);
    raise(sig);
}

static void raise_fd_limit(void) {
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim) != 0) return;
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
}

bool by_proc_lacks_files(uint64_t n_connections, uint64_t *have) {
    enum { BESIDES = 256 };
    struct rlimit lim;
    *have = getrlimit(RLIMIT_NOFILE, &lim) ? UINT64_MAX : lim.rlim_max;
    return *have < n_connections + BESIDES;
}

/* banyan serve says who it is; when it dies, however it dies, we get SIGTERM and tidy up. */
static void follow_parent(void) {
    const char *text = getenv("BANYAN_PARENT");
    uint64_t pid;
    if (!text || !by_str_to_u64(by_str_of(text), &pid)) return;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if ((uint64_t)getppid() != pid) raise(SIGTERM); /* it died before we asked */
}

static void warn(const char *text) {
    by_warn("%s", text);
}

void by_proc_init(const char *name) {
    by_mem_one_heap();
    prctl(PR_SET_NAME, name);
    /* whatever happens to us, no set-uid program will help it */
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    epoch = by_rand_u64() | 1;
    if (pipe2(stop_pipe, O_CLOEXEC | O_NONBLOCK) != 0) by_die("no pipe: %s", strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a log file at its limit: the write fails, and that is all */
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    struct sigaction crash = {.sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND};
    for (size_t i = 0; i < BY_COUNTOF(crashes); i++)
        sigaction(crashes[i], &crash, NULL);
    raise_fd_limit();
    follow_parent();
    if (!getenv("BANYAN_PARENT")) by_options_strange_env(warn); /* else the parent has told */
}

void by_proc_start(struct by_options *out, const struct by_options_program *program, int argc,
                   char **argv) {
    struct by_err err;
    if (by_options_parse(out, program, argc, argv, &err)) {
        by_proc_last_words(err.text);
        exit(BY_EXIT_CONFIG);
    }
    struct by_log_options log = {.process = program->name + strlen("banyan-"),
                                 .json = out->log_json};
    by_assert(by_log_level_parse(out->log_level, &log.level)); /* the table knows no other words */
    by_log_init(&log);
    by_proc_init(log.process);
}

int by_proc_stop_fd(void) {
    return stop_pipe[0];
}

bool by_proc_should_stop(void) {
    return atomic_load(&n_stops) > 0;
}

uint32_t by_proc_n_stops(void) {
    return atomic_load(&n_stops);
}

enum by_log_level by_proc_loss_level(void) {
    return by_proc_should_stop() ? BY_LOG_INFO : BY_LOG_WARN;
}

uint64_t by_proc_epoch(void) {
    return epoch;
}

bool by_proc_is_orphan(void) {
    const char *text = getenv("BANYAN_PARENT");
    uint64_t pid;
    return text && by_str_to_u64(by_str_of(text), &pid) && (uint64_t)getppid() != pid;
}

void by_proc_tidy(const char *run_dir) {
    DIR *d = run_dir && by_proc_is_orphan() ? opendir(run_dir) : NULL;
    if (!d) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strncmp(e->d_name, "notify-", 7) == 0) unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
    const char *name = strrchr(run_dir, '/');
    if (name && strncmp(name, "/banyan-", 8) == 0) rmdir(run_dir); /* not empty: others are here */
}

uint64_t by_proc_rss_bytes(void) {
    struct by_buf text;
    by_buf_init(&text, 4096);
    uint64_t pages = 0;
    if (by_file_read(&text, "/proc/self/statm", NULL) == 0) {
        struct by_str rest = by_buf_str(&text), word;
        by_str_split(&rest, ' ', &word);
        by_str_split(&rest, ' ', &word);
        if (!by_str_to_u64(word, &pages)) pages = 0;
    }
    by_buf_release(&text);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

double by_proc_cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

uint64_t by_proc_fds_max(void) {
    struct rlimit lim;
    return getrlimit(RLIMIT_NOFILE, &lim) ? 0 : lim.rlim_cur;
}

/* /proc/self/fd would be read at 5 us a file, and a loop with ten thousand connections would stand for 50 ms at each look. Asked
 * for nothing, poll says of a whole table which of its files are none. */
uint64_t by_proc_n_fds(void) {
    struct by_buf text;
    uint64_t n_slots = 0, n = 0;
    by_buf_init(&text, 16384);
    const char *at =
        by_file_read(&text, "/proc/self/status", NULL) == 0 ? strstr(text.p, "FDSize:") : NULL;
    if (at) n_slots = BY_MIN(strtoull(at + 7, NULL, 10), by_proc_fds_max());
    struct pollfd *all = by_alloc_array(n_slots, sizeof *all);
    for (uint64_t i = 0; i < n_slots; i++)
        all[i].fd = (int)i;
    if (poll(all, n_slots, 0) >= 0) {
        for (uint64_t i = 0; i < n_slots; i++)
            n += all[i].revents != POLLNVAL;
    }
    by_free(all);
    by_buf_release(&text);
    return n;
}

uint32_t by_proc_n_cpus(void) {
    cpu_set_t set;
    uint32_t n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = (uint32_t)CPU_COUNT(&set);
    struct by_cgroup group;
    by_cgroup_read(&group, BY_CGROUP_ROOT, BY_CGROUP_MINE);
    return group.n_cpus ? BY_MIN(n, group.n_cpus) : n;
}

uint64_t by_proc_memory_max(void) {
    struct by_cgroup group;
    by_cgroup_read(&group, BY_CGROUP_ROOT, BY_CGROUP_MINE);
    uint64_t all = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return BY_MIN(all, group.memory_max);
}

char *by_proc_exe_dir(void) {
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n < 0) by_die("cannot read /proc/self/exe: %s", strerror(errno));
    path[n] = '\0';
    return by_path_dir(path);
}

enum { READY_WAIT_S = 10 };
static bool is_ready_told;

/* The sd_notify protocol: one datagram to $NOTIFY_SOCKET ('@' means the abstract namespace). Ten of them wait at a receiver that
 * is busy; one more is dropped, unless it is the first that says READY, for which somebody waits. A worker says it again with
 * each new scheduler: then streams wait, and they are not to wait for a supervisor (test_proc). */
void by_notify(const char *state) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!path || !*path || strlen(path) >= sizeof to.sun_path) return;
    memcpy(to.sun_path, path, strlen(path));
    if (path[0] == '@') to.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    const struct timeval most = {.tv_sec = READY_WAIT_S};
    bool may_wait = !is_ready_told && strncmp(state, "READY=1", 7) == 0 &&
                    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most) == 0;
    ssize_t put = sendto(fd, state, strlen(state), MSG_NOSIGNAL | (may_wait ? 0 : MSG_DONTWAIT),
                         (struct sockaddr *)&to, len);
    if (may_wait && put >= 0) is_ready_told = true; /* nobody listens: we serve all the same */
    close(fd);
}

void by_proc_last_words(const char *why) {
    char state[1100];
    by_error("%s", why);
    snprintf(state, sizeof state, "STOPPING=1\nSTATUS=%.*s", (int)strcspn(why, "\n"), why);
    by_notify(state);
}

uint64_t by_proc_watchdog_ns(void) {
    const char *usec = getenv("WATCHDOG_USEC"), *whose = getenv("WATCHDOG_PID");
    uint64_t us, pid;
    if (!usec || !by_str_to_u64(by_str_of(usec), &us) || us > UINT64_MAX / 1000) return 0;
    if (whose && (!by_str_to_u64(by_str_of(whose), &pid) || pid != (uint64_t)getpid())) return 0;
    return us * 1000 / 3;
}
