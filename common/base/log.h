/* log.h - one line an event on stderr.
 *
 *     2026-01-02T03:04:05.678Z info  scheduler: worker joined instance=gpu-0 pages=4096
 *     {"ts":"2026-01-02T03:04:05.678Z","level":"info","process":"scheduler","msg":"worker joined instance=gpu-0 …"}
 *
 * error: a person must act. warn: we coped, look soon. info: life of the process. debug: life of a request.
 * A sentence, then key=value. Never prompts or outputs above debug.
 *
 * Always: a line is written with one write(2), so lines of several processes do not mix.
 * Owner: the process; by_log_init once in main. Thread safe. */
#ifndef COMMON_BASE_LOG_H
#define COMMON_BASE_LOG_H

#include "common/base/str.h"

enum by_log_level { BY_LOG_ERROR, BY_LOG_WARN, BY_LOG_INFO, BY_LOG_DEBUG };

struct by_log_options {
    const char *process; /* who speaks; borrowed for ever */
    enum by_log_level level;
    bool json;
};

void by_log_init(const struct by_log_options *o);
/* "error", "warn" (or "warning"), "info", "debug" -> level; false for anything else. */
BY_MUST_USE bool by_log_level_parse(const char *name, enum by_log_level *out);
bool by_log_enabled(enum by_log_level level);
BY_PRINTF(2, 3) void by_log(enum by_log_level level, const char *fmt, ...);

/* One JSON object a line, also without json: {"ts":…,"level":"info","process":…,"msg":MSG and then `members`, which begin with a
 * comma. Of any length; the caller sees to it that it is JSON. */
void by_log_members(const char *msg, struct by_str members);

#define by_error(...) by_log(BY_LOG_ERROR, __VA_ARGS__)
#define by_warn(...) by_log(BY_LOG_WARN, __VA_ARGS__)
#define by_info(...) by_log(BY_LOG_INFO, __VA_ARGS__)
#define by_debug(...) \
    do { \
        if (by_log_enabled(BY_LOG_DEBUG)) by_log(BY_LOG_DEBUG, __VA_ARGS__); \
    } while (0)

/* For lines a client can trigger: at most `burst` a second from this place; then one line says how many were held. */
struct by_log_gate {
    int64_t second;
    uint32_t n_this_second;
    uint32_t n_held;
};
BY_MUST_USE bool by_log_gate_pass(struct by_log_gate *g, uint32_t burst);
#define by_warn_limited(...) \
    do { \
        static struct by_log_gate gate_; \
        if (by_log_gate_pass(&gate_, 5)) by_warn(__VA_ARGS__); \
    } while (0)

#endif
