#include "deploy/cli/progress.h"
#include "common/base/clock.h"
#include "common/base/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR = 20, DRAW_MS = 200, FIRST_MS = 500, LINE_MS = 10000 };

void progress_bytes(char *out, size_t cap, uint64_t n) {
    static const char *const units[] = {"kB", "MB", "GB", "TB"};
    double v = (double)n / 1e3;
    size_t u = 0;
    while (v >= 1000 && u + 1 < BY_COUNTOF(units)) {
        v /= 1000;
        u++;
    }
    snprintf(out, cap, "%.1f %s", v, units[u]);
}

void progress_start(struct progress *p, uint64_t total) {
    *p = (struct progress){.total = total, .started_ns = by_now_ns(), .is_terminal = isatty(2)};
    p->shown_ns = p->started_ns;
}

void progress_name(struct progress *p, const char *what, size_t n) {
    snprintf(p->what, sizeof p->what, "%.*s", (int)BY_MIN(n, sizeof p->what - 1), what);
}

static void draw(const struct progress *p, double percent, const char *done, const char *total,
                 const char *speed) {
    char bar[BAR + 1];
    int n = (int)(percent / 100 * BAR);
    memset(bar, ' ', BAR);
    memset(bar, '#', (size_t)BY_MIN(BY_MAX(n, 0), BAR));
    bar[BAR] = 0;
    fprintf(stderr, "\r\033[K%s  [%s] %3.0f %%  %s of %s  %s/s", p->what, bar, percent, done, total,
            speed);
}

static void show(struct progress *p) {
    uint64_t now = by_now_ns(), since = (now - p->shown_ns) / BY_NS_PER_MS,
             after = (now - p->started_ns) / BY_NS_PER_MS;
    if (after < FIRST_MS || since < (p->is_terminal ? DRAW_MS : LINE_MS)) return;
    char done[24], total[24], speed[24];
    double percent = p->total ? 100.0 * (double)BY_MIN(p->done, p->total) / (double)p->total : 0;
    progress_bytes(done, sizeof done, p->done);
    progress_bytes(total, sizeof total, BY_MAX(p->total, p->done));
    progress_bytes(speed, sizeof speed,
                   (p->done - BY_MIN(p->from, p->done)) * 1000 / BY_MAX(after, 1));
    if (p->is_terminal)
        draw(p, percent, done, total, speed);
    else
        by_info("fetching %s: %.0f %%, %s of %s, %s/s", p->what, percent, done, total, speed);
    p->shown_ns = now;
    p->was_shown = true;
}

void progress_add(struct progress *p, uint64_t n) {
    p->done += n;
    show(p);
}

void progress_skip(struct progress *p, uint64_t n) {
    p->done += n;
    p->from += n;
}

void progress_back(struct progress *p, uint64_t n) {
    p->done -= BY_MIN(n, p->done);
    p->from -= BY_MIN(n, p->from);
}

void progress_end(struct progress *p) {
    if (p->is_terminal && p->was_shown) fputs("\r\033[K", stderr);
}
