/* server.h - one listener on libuv, a port or a socket file, and its connections (conn.h).
 *
 * Always: a socket file is never open to others, if it is private; a file that a killed server left is taken over, one that
 * somebody listens on is not.
 * Owner: the loop's thread. It lives until the process ends. */
#ifndef ROUTER_SERVER_H
#define ROUTER_SERVER_H

#include "common/base/err.h"
#include "router/conn.h"

struct server;

struct server_options {
    const char *host;
    int port;
    const char *unix_path; /* instead of host and port: a socket file; NULL: none */
    bool is_private;       /* of mode 0600 */
    struct conn_options conn;
};

BY_MUST_USE int server_open(struct server **out, uv_loop_t *loop, const struct server_options *o,
                            struct by_err *err);
void server_stop_listening(struct server *s);
void server_close_idle(struct server *s); /* connections that nothing is owed */
void server_close_all(struct server *s);
uint32_t server_n_busy(const struct server *s); /* the others */
int server_port(const struct server *s);        /* as bound; 0 for a socket file */

#endif
