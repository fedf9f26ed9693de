/* clock_jump.c - a library that is preloaded into a program under test and sets its clock, as an operator or NTP does.
 *
 *     LD_PRELOAD=libclock-jump.so  CLOCK_FILE=/path  banyan-router …        the file holds seconds, as text
 *
 * CLOCK_REALTIME is what the kernel says and those seconds; CLOCK_MONOTONIC is left alone, as the kernel leaves it. The file is
 * read with each call: all processes jump at once. A time namespace could not do it: it moves every clock but this one. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int file = -1;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("CLOCK_FILE");
    if (path) file = open(path, O_RDONLY | O_CLOEXEC);
}

static long seconds(void) {
    char text[32] = "";
    ssize_t n = file >= 0 ? pread(file, text, sizeof text - 1, 0) : 0;
    return n > 0 ? strtol(text, NULL, 10) : 0;
}

int clock_gettime(clockid_t id, struct timespec *ts) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = (__typeof__(&clock_gettime))dlsym(RTLD_NEXT, "clock_gettime");
    int rc = real(id, ts);
    if (!rc && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) ts->tv_sec += seconds();
    return rc;
}

int gettimeofday(struct timeval *tv, void *zone) {
    struct timespec ts;
    (void)zone;
    int rc = clock_gettime(CLOCK_REALTIME, &ts);
    if (!rc) *tv = (struct timeval){.tv_sec = ts.tv_sec, .tv_usec = ts.tv_nsec / 1000};
    return rc;
}

time_t time(time_t *out) {
    struct timespec ts;
    time_t now = clock_gettime(CLOCK_REALTIME, &ts) ? (time_t)-1 : ts.tv_sec;
    if (out) *out = now;
    return now;
}
