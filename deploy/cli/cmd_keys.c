#include "deploy/cli/cmd.h"
#include "common/base/file.h"
#include "common/base/options.h"
#include "common/net/keys.h"

#include <stdio.h>
#include <sys/stat.h>

/* banyan keys FILE [SERVERS-FILE]: a fresh key pair, for processes that meet over tcp://. */

static int write_keys(const struct by_keys *k, const char *path, struct by_err *err) {
    struct by_buf text;
    if (by_file_exists(path))
        return by_fail(err, BY_EINVAL, "%s is there already; its keys may be in use", path);
    by_buf_init(&text, 16384);
    by_keys_write(k, &text);
    umask(0077);
    int rc = by_file_write(path, by_buf_str(&text), err);
    explicit_bzero(text.p, text.n);
    by_buf_release(&text);
    return rc;
}

int cmd_keys(int argc, char **argv) {
    static const struct by_options_program program = {
        .name = "banyan keys",
        .summary = "makes keys for the processes of a server that meet over tcp://; with the "
                   "server's file, a pair for a host that only calls",
        .usage = "FILE [SERVERS-FILE]",
        .n_words = 2};
    struct by_options o;
    struct by_err err = {0};
    struct by_keys keys, servers;
    int rc = by_options_parse(&o, &program, argc, argv, &err);
    bool is_guest = !rc && o.n_rest == 2;
    if (!rc && o.n_rest != 1 && !is_guest)
        rc = by_fail(&err, BY_EINVAL, "where to? banyan keys FILE [SERVERS-FILE]");
    if (!rc) rc = by_keys_make(&keys, &err);
    if (!rc && is_guest) {
        rc = by_keys_read(&servers, o.rest[1], &err);
        if (!rc) memcpy(keys.server_key, servers.public_key, sizeof keys.server_key);
    }
    if (!rc) rc = write_keys(&keys, o.rest[0], &err);
    if (rc) return cmd_fail("keys", err.text);
    if (is_guest)
        printf(
            "%s: for routers and gpu workers of another host; add this line to %s wherever it is:\n"
            "allow %s\n",
            o.rest[0], o.rest[1], keys.public_key);
    else
        printf("%s: give it to every process as --curve-key-file, and to nobody else\n", o.rest[0]);
    explicit_bzero(&keys, sizeof keys);
    explicit_bzero(&servers, sizeof servers);
    by_options_release(&o);
    return 0;
}
