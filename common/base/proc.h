/* proc.h - what a process sets up once: signals, parent death, limits, titles, crash lines.
 *
 * Always: by_proc_start is the first call in a daemon's main. SIGTERM and SIGINT set a flag and wake by_proc_stop_fd.
 * Owner: the process's main thread. */
#ifndef COMMON_BASE_PROC_H
#define COMMON_BASE_PROC_H

#include "common/base/log.h"
#include "common/base/options.h"

/* Exit statuses after which starting again would not help. UNSUPPORTED: of a gpu worker that could run, but does not know this
 * model: banyan serve then asks transformers. */
enum { BY_EXIT_CONFIG = 78 /* EX_CONFIG of sysexits.h */, BY_EXIT_UNSUPPORTED = 79 };

/* Logs, SIGPIPE and SIGXFSZ ignored, fd limit raised to the hard limit, a one-line report on SIGSEGV & co, and death when the
 * parent dies if the environment says BANYAN_PARENT=<pid> (banyan serve sets it). Warns of variables that are misspelt. */
void by_proc_init(const char *name);
/* The first lines of every daemon: its options into *out (yours), or a sentence about them and the end (BY_EXIT_CONFIG); its
 * log, as they want it, in the name of the program without "banyan-"; and by_proc_init. */
void by_proc_start(struct by_options *out, const struct by_options_program *program, int argc,
                   char **argv);
int by_proc_stop_fd(void);      /* readable once SIGTERM or SIGINT came; poll it */
bool by_proc_should_stop(void); /* has it come? */
uint32_t by_proc_n_stops(void); /* how many times: the second one means "now" */
/* How loudly to say that another process is lost: once a stop has come they all go, and it is no alarm. */
enum by_log_level by_proc_loss_level(void);
uint64_t by_proc_epoch(void); /* drawn at start from the system's randomness, never 0 */
bool by_proc_is_orphan(void); /* banyan serve started us and is gone */
/* At our end, if we are an orphan: removes from the run directory what serve can remove no more, and the directory itself
 * when it was one of serve's making and the last of us has left. */
void by_proc_tidy(const char *run_dir);
/* Tells the supervisor ("READY=1", "STATUS=loading 40 %") by the sd_notify protocol: systemd, and banyan serve. */
void by_notify(const char *state);
/* Why this process ends: an error in the log, and the status that it leaves behind, which banyan serve repeats at its own end and
 * `systemctl status` shows. */
void by_proc_last_words(const char *why);
/* How often by_notify("WATCHDOG=1") is due, from the thread that does the work: a third of systemd's WatchdogSec. 0: nobody
 * watches. */
uint64_t by_proc_watchdog_ns(void);
uint64_t by_proc_rss_bytes(void);
/* May it have too few files open for so many connections? *have: how many it may. */
bool by_proc_lacks_files(uint64_t n_connections, uint64_t *have);
double by_proc_cpu_seconds(void);
uint64_t by_proc_n_fds(void);      /* files that are open now */
uint64_t by_proc_fds_max(void);    /* … that may be */
uint32_t by_proc_n_cpus(void);     /* CPUs this process may use: affinity mask and cgroup quota */
uint64_t by_proc_memory_max(void); /* bytes it may use: the machine's, and the cgroup's limit */
BY_MUST_USE char *by_proc_exe_dir(void); /* folder of this program; yours */

#endif
