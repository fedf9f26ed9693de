#include "proto/endpoint.h"

#include "common/base/str.h"

#include <stdio.h>

enum { IPC_PATH_MAX = 107 }; /* sockaddr_un's */

static int take(char out[ENDPOINT_MAX], const char *option, const char *given, struct by_err *err) {
    struct by_str s = by_str_of(given);
    bool is_ipc = by_str_starts(s, BY_STR("ipc://"));
    if (!is_ipc && !by_str_starts(s, BY_STR("tcp://")))
        return by_fail(err, BY_EINVAL, "%s: '%s' is neither tcp://HOST:PORT nor ipc://PATH", option,
                       given);
    if (s.n >= ENDPOINT_MAX || (is_ipc && s.n > IPC_PATH_MAX + 6))
        return by_fail(err, BY_ELIMIT, "%s: '%s' is too long", option, given);
    snprintf(out, ENDPOINT_MAX, "%s", given);
    return 0;
}

static int in_run_dir(char out[ENDPOINT_MAX], const struct by_options *o, const char *name,
                      const char *option, struct by_err *err) {
    if (!o->run_dir)
        return by_fail(
            err, BY_EINVAL,
            "--run-dir is needed: the folder for the sockets, the same for all processes; "
            "or %s tcp://HOST:PORT",
            option);
    int n = snprintf(out, ENDPOINT_MAX, "ipc://%s/%s", o->run_dir, name);
    if (n >= ENDPOINT_MAX || n > IPC_PATH_MAX + 6)
        return by_fail(err, BY_ELIMIT, "--run-dir %s is too long: a socket's path ends at %d bytes",
                       o->run_dir, IPC_PATH_MAX);
    return 0;
}

int endpoint_read(struct endpoint *out, const struct by_options *o, const char *kind,
                  struct by_err *err) {
    static const char option[] = "--scheduler-endpoint";
    char name[128];
    *out = (struct endpoint){{0}, {0}};
    int rc = o->scheduler_endpoint
                 ? take(out->scheduler, option, o->scheduler_endpoint, err)
                 : in_run_dir(out->scheduler, o, ENDPOINT_SCHEDULER_SOCKET, option, err);
    if (rc || !kind) return rc;
    if (o->bind) {
        bool is_any =
            strstr(o->bind, "//0.0.0.0:") || strstr(o->bind, "//[::]:") || strstr(o->bind, "//*:");
        if (is_any && !o->advertise)
            return by_fail(err, BY_EINVAL,
                           "--bind %s: nobody can call that; give --advertise tcp://HOST:PORT too",
                           o->bind);
        return take(out->mine, "--bind", o->bind, err);
    }
    snprintf(name, sizeof name, ENDPOINT_OWN_SOCKET, kind, o->instance);
    return in_run_dir(out->mine, o, name, "--bind", err);
}

const char *endpoint_advertised(const struct by_options *o, const char *bound) {
    return o->advertise ? o->advertise : bound;
}
