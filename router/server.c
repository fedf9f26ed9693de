#include "router/server.h"

#include "common/base/file.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 1024 };

struct server {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    struct server_options o;
    struct conn_group conns;
};

static void on_connection(uv_stream_t *listener, int status) {
    struct server *s = listener->data;
    if (status) {
        by_warn_limited("a connection was not accepted: %s%s", uv_strerror(status),
                        status == UV_EMFILE ? "; allow more (ulimit -n, LimitNOFILE), or fewer "
                                              "connections (--max-connections)"
                                            : "");
        return;
    }
    conn_group_accept(&s->conns, listener);
}

static int bind_tcp(struct server *s, struct by_err *err) {
    struct sockaddr_storage a;
    char port[16];
    snprintf(port, sizeof port, "%d", s->o.port);
    uv_getaddrinfo_t find;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    int rc = uv_getaddrinfo(s->handle.loop, &find, NULL, s->o.host, port, &hints);
    if (rc) return by_fail(err, BY_EIO, "--host %s: %s", s->o.host, uv_strerror(rc));
    memcpy(&a, find.addrinfo->ai_addr, find.addrinfo->ai_addrlen);
    uv_freeaddrinfo(find.addrinfo);
    rc = uv_tcp_bind(&s->tcp, (const struct sockaddr *)&a, 0);
    if (!rc) rc = uv_listen(&s->stream, BACKLOG, on_connection);
    if (!rc) return 0;
    const char *remedy =
        rc == UV_EADDRINUSE ? "; another program has it: stop that, or choose one by --port"
        : rc == UV_EACCES
            ? "; low ports take CAP_NET_BIND_SERVICE: choose one from 1024 on by --port"
        : rc == UV_EADDRNOTAVAIL ? "; it is no address of this machine: see --host"
                                 : "";
    return by_fail(err, BY_EIO, "cannot listen on %s port %d: %s%s", s->o.host, s->o.port,
                   uv_strerror(rc), remedy);
}

/* A socket that nobody listens on: who made it was killed. */
static bool is_left_over(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct stat st;
    if (lstat(path, &st) || !S_ISSOCK(st.st_mode)) return false;
    memcpy(a.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_dead =
        fd >= 0 && connect(fd, (const struct sockaddr *)&a, sizeof a) && errno == ECONNREFUSED;
    if (fd >= 0) close(fd);
    return is_dead;
}

static int bind_unix(struct server *s, struct by_err *err) {
    const char *path = s->o.unix_path;
    size_t most = sizeof(((struct sockaddr_un){0}).sun_path) - 1;
    if (strlen(path) > most) /* libuv would cut it off, and listen there */
        return by_fail(err, BY_EINVAL,
                       "cannot listen on %s: it has %zu bytes, and a socket's path %zu at most",
                       path, strlen(path), most);
    if (is_left_over(path)) unlink(path);
    int rc = uv_pipe_bind(&s->pipe, path);
    /* Nobody can connect before it listens: it is never open to others. */
    if (!rc && s->o.is_private && chmod(path, S_IRUSR | S_IWUSR))
        rc = uv_translate_sys_error(errno);
    if (!rc) rc = uv_listen(&s->stream, BACKLOG, on_connection);
    if (!rc) return 0;
    char *dir = by_path_dir(path);
    if (rc == UV_EACCES && !by_file_is_dir(dir)) /* libuv's word for ENOENT as well */
        rc = by_fail(err, BY_EIO, "cannot listen on %s: there is no folder %s", path, dir);
    else
        rc = by_fail(err, BY_EIO, "cannot listen on %s: %s%s", path, uv_strerror(rc),
                     rc == UV_EADDRINUSE ? "; another program has it, or the file is no socket"
                                         : "");
    by_free(dir);
    return rc;
}

int server_open(struct server **out, uv_loop_t *loop, const struct server_options *o,
                struct by_err *err) {
    struct server *s = by_alloc(sizeof *s);
    s->o = *o;
    if (o->unix_path)
        uv_pipe_init(loop, &s->pipe, 0);
    else
        uv_tcp_init(loop, &s->tcp);
    s->handle.data = s;
    int rc = o->unix_path ? bind_unix(s, err) : bind_tcp(s, err);
    if (rc) {
        by_free(s); /* the process ends: the handle needs no closing */
        return rc;
    }
    conn_group_init(&s->conns, loop, &o->conn);
    *out = s;
    return 0;
}

void server_stop_listening(struct server *s) {
    if (s->conns.is_last) return;
    s->conns.is_last = true;
    uv_close(&s->handle, NULL);
}

void server_close_idle(struct server *s) {
    conn_group_close_idle(&s->conns);
}

void server_close_all(struct server *s) {
    conn_group_close_all(&s->conns);
}

uint32_t server_n_busy(const struct server *s) {
    return conn_group_n_busy(&s->conns);
}

int server_port(const struct server *s) {
    struct sockaddr_storage a;
    int n = sizeof a;
    if (s->o.unix_path || uv_tcp_getsockname(&s->tcp, (struct sockaddr *)&a, &n)) return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                         : ((struct sockaddr_in *)&a)->sin_port);
}
