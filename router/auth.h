/* auth.h - API keys: who asks, what they may do, and how much of it.
 *
 *     # --api-key-file: one a line; everything behind the key may be missing
 *     sk-5f0c…   name=alice   rate=60   running=8   tokens=100000
 *     sk-91aa…   name=ops     admin
 *     sk-c011…   name=batch   priority=-5         highest priority that its requests may have: 0, if it does not say
 *
 *     rate: requests a minute    running: requests at a time    tokens: prompt and output tokens a minute, paid when known
 *
 * A bucket holds one minute's worth and fills steadily; tokens may go below zero, since a request is paid when it is over.
 * Always: comparing takes as long for a wrong key as for a right one, and looks at all of them. A key is never logged.
 * Owner: the loop's thread. */
#ifndef ROUTER_AUTH_H
#define ROUTER_AUTH_H

#include "common/base/err.h"
#include "common/base/str.h"

enum { AUTH_KEYS_MAX = 4096, AUTH_NAME_MAX = 64, AUTH_KEY_BYTES_MIN = 8, AUTH_KEY_BYTES_MAX = 512 };

struct auth_key {
    char *key;
    bool is_of_file;          /* it goes when the file does not have it any more */
    char name[AUTH_NAME_MAX]; /* the tenant; "" for --api-key and --admin-api-key */
    bool is_admin;
    double rate, tokens; /* a minute; 0: no limit */
    uint32_t running;    /* at a time; 0: no limit */
    int32_t priority_max;
    double rate_left, tokens_left;
    uint64_t filled_ns;
    uint32_t n_running;
};

struct auth {
    struct auth_key **keys; /* [n] */
    size_t n, n_admins;
    struct auth_key **gone; /* [n_gone], until their last request is over */
    size_t n_gone;
    bool has_file; /* then only an admin's key changes the server */
};

struct auth *auth_new(void);
void auth_free(struct auth *a);
/* --api-key, --admin-api-key; NULL: none */
void auth_add(struct auth *a, const char *key, bool is_admin);
BY_MUST_USE int auth_read(struct auth *a, const char *path, struct by_err *err);
BY_MUST_USE int auth_parse(struct auth *a, struct by_str text, const char *path,
                           struct by_err *err);

/* The file again: keys that are new in it, gone from it, or have other limits. What runs goes on, and what a key has used
 * stays used. When the file cannot be read nothing changes, and err says why. */
BY_MUST_USE int auth_reread(struct auth *a, const char *path, struct by_err *err);

struct auth_key *auth_find(const struct auth *a, struct by_str key); /* NULL: not one of ours */
/* May whoever has this key (NULL: none) use what asks for a key, or for an admin's? 0, BY_EAUTH or BY_EFORBIDDEN. */
BY_MUST_USE int auth_may(const struct auth *a, const struct auth_key *k, bool wants_admin);

/* A request of k begins: 0, or BY_EFULL with a sentence and how long to wait. k NULL: nobody counts. */
BY_MUST_USE int auth_start(struct auth_key *k, uint64_t now_ns, uint32_t *retry_ms,
                           struct by_err *err);
void auth_end(struct auth_key *k, uint64_t n_tokens); /* of each that auth_start let in */

#endif
