/* keys.h - the file that makes a process one of ours on a network: a CURVE key pair, and whom else to let in.
 *
 *     public 2r:9k$…      40 characters of Z85 each; who listens (and whoever may) has the server's pair
 *     secret x}I4[…
 *     allow  Yne@$…       in the server's file, none or more: public keys of those who have a pair of their own …
 *     server 2r:9k$…      … and in theirs: the server's public key
 *
 * Always: what was read is a whole pair whose halves belong together; the secret is never part of an error or a log line.
 * Owner: the caller. */
#ifndef COMMON_NET_KEYS_H
#define COMMON_NET_KEYS_H

#include "common/base/buf.h"
#include "common/base/err.h"

enum { BY_KEYS_Z85 = 41, BY_KEYS_ALLOWED_MAX = 64 }; /* 40 characters and a NUL */

struct by_keys {
    char public_key[BY_KEYS_Z85], secret_key[BY_KEYS_Z85];
    char server_key[BY_KEYS_Z85]; /* of whom we call; our own public key when the file names none */
    char allowed[BY_KEYS_ALLOWED_MAX][BY_KEYS_Z85]; /* our own public key first */
    size_t n_allowed;
};

/* A file that other users of the machine can read is refused. */
BY_MUST_USE int by_keys_read(struct by_keys *out, const char *path, struct by_err *err);
BY_MUST_USE int by_keys_parse(struct by_keys *out, struct by_str text, const char *path,
                              struct by_err *err);
BY_MUST_USE int by_keys_make(struct by_keys *out, struct by_err *err); /* a fresh pair */
void by_keys_write(const struct by_keys *k, struct by_buf *out); /* as by_keys_parse reads it */

#endif
