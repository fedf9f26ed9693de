#include "common/base/log.h"

#include "common/base/clock.h"
#include "common/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static struct by_log_options opt = {.process = "banyan", .level = BY_LOG_INFO};
static const char *const level_names[] = {"error", "warn", "info", "debug"};

void by_log_init(const struct by_log_options *o) {
    opt = *o;
}

bool by_log_level_parse(const char *name, enum by_log_level *out) {
    if (strcmp(name, "warning") == 0) name = "warn";
    for (size_t i = 0; i < BY_COUNTOF(level_names); i++) {
        if (strcmp(name, level_names[i]) != 0) continue;
        *out = (enum by_log_level)i;
        return true;
    }
    return false;
}

bool by_log_enabled(enum by_log_level level) {
    return level <= opt.level;
}

static void put_time(char *out, size_t cap) {
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(out, cap, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, cap - n, ".%03ldZ", ts.tv_nsec / 1000000);
}

/* Escapes for JSON mode; in text mode only control characters are replaced, so that a line stays a line and a terminal does what it
 * did. What is no UTF-8 (a file's name, a sentence that was cut) becomes U+FFFD: a line of JSON that is none is lost to who reads it. */
static size_t put_text(char *out, size_t cap, struct by_str text) {
    size_t n = 0;
    for (size_t i = 0, len; i < text.n && n + 8 < cap; i += len) {
        uint32_t c = by_utf8_decode(text.p + i, text.n - i, &len);
        if (c < 0x20 || (c >= 0x7f && c < 0xa0)) {
            n += (size_t)snprintf(out + n, cap - n, opt.json ? "\\u%04x" : "\\x%02x", c);
        } else {
            if (opt.json && (c == '"' || c == '\\')) out[n++] = '\\';
            n += by_utf8_encode(c, out + n); /* BY_UTF8_BAD as U+FFFD */
        }
    }
    return n;
}

void by_log(enum by_log_level level, const char *fmt, ...) {
    if (!by_log_enabled(level)) return;
    char text[1536], line[4096], ts[40];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    put_time(ts, sizeof ts);
    const char *head =
        opt.json ? "{\"ts\":\"%s\",\"level\":\"%s\",\"process\":\"%s\",\"msg\":\"" : "%s %-5s %s: ";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = (size_t)snprintf(line, sizeof line, head, ts, level_names[level], opt.process);
#pragma GCC diagnostic pop
    n += put_text(line + n, sizeof line - n - 4, by_str_of(text));
    if (opt.json) {
        line[n++] = '"';
        line[n++] = '}';
    }
    line[n++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, n);
    (void)written; /* nobody is left to tell */
}

void by_log_members(const char *msg, struct by_str members) {
    char ts[40], head[256];
    put_time(ts, sizeof ts);
    int n = snprintf(head, sizeof head,
                     "{\"ts\":\"%s\",\"level\":\"info\",\"process\":\"%s\",\"msg\":\"%s\"", ts,
                     opt.process, msg);
    char end[] = "}\n";
    struct iovec parts[] = {{head, (size_t)n}, {(void *)(uintptr_t)members.p, members.n}, {end, 2}};
    ssize_t written = writev(STDERR_FILENO, parts, 3); /* in one, so that lines do not mix */
    (void)written;
}

bool by_log_gate_pass(struct by_log_gate *g, uint32_t burst) {
    int64_t second = (int64_t)(by_now_ns() / 1000000000u);
    if (second != g->second) {
        if (g->n_held) by_warn("%u lines like the next were not shown", g->n_held);
        *g = (struct by_log_gate){.second = second};
    }
    if (g->n_this_second < burst) {
        g->n_this_second++;
        return true;
    }
    g->n_held++;
    return false;
}
