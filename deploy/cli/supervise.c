#include "deploy/cli/supervise.h"

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/options.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 30000,
    YOUNG_MS = 5000,
    ENV_OURS_MAX = 16,
    STATUS_MAX = 1100, /* by_proc_last_words */
};

enum child_state { CHILD_WAITING, CHILD_STARTING, CHILD_READY, CHILD_GONE };

struct child {
    struct by_list node;
    struct supervisor *supervisor;
    char name[64];
    char **argv;
    char *extra_env[8];
    enum child_state state;
    bool was_ready, has_served; /* ever; since its last start */
    uint64_t started_ns;
    double seconds;
    uint64_t backoff_ms;
    uv_process_t *process; /* while it is_running; one a start: libuv closes it after its exit */
    bool is_running;
    uv_timer_t timer;
    uv_poll_t notify;
    int notify_fd;
    char notify_path[128];
    char status[STATUS_MAX];
    bool is_ending; /* the status says why */
};

struct supervisor {
    struct supervisor_options o;
    struct by_list children;
    bool may_start;
};

static void start(struct child *c);

/* ---- notify ---- */

static void take_line(struct child *c, const char *line) {
    struct supervisor *s = c->supervisor;
    if (strcmp(line, "STOPPING=1") == 0) c->is_ending = true;
    if (strncmp(line, "STATUS=", 7) == 0) {
        snprintf(c->status, sizeof c->status, "%s", line + 7);
        s->o.status(s->o.ctx, c, c->status);
    }
}

static void take_news(struct child *c) {
    char text[1536];
    for (ssize_t n; (n = recv(c->notify_fd, text, sizeof text - 1, MSG_DONTWAIT)) > 0;) {
        bool is_ready = false;
        text[n] = '\0';
        for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL;) {
            take_line(c, line);
            is_ready |= strcmp(line, "READY=1") == 0;
        }
        if (!is_ready || c->state != CHILD_STARTING) continue;
        c->state = CHILD_READY;
        c->was_ready = c->has_served = true;
        c->backoff_ms = 0;
        c->seconds = (double)(by_now_ns() - c->started_ns) / 1e9;
        c->supervisor->o.ready(c->supervisor->o.ctx, c);
    }
}

static void on_notify(uv_poll_t *h, int status, int events) {
    (void)status;
    (void)events;
    take_news(h->data);
}

static void open_notify(struct child *c) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    by_assert(strlen(c->supervisor->o.run_dir) <= SUPERVISE_DIR_MAX);
    snprintf(c->notify_path, sizeof c->notify_path, "%s/notify-%.30s", c->supervisor->o.run_dir,
             c->name);
    if (strlen(c->notify_path) >= sizeof a.sun_path)
        by_die("%s is too long for a socket", c->notify_path);
    memcpy(a.sun_path, c->notify_path, strlen(c->notify_path));
    unlink(c->notify_path); /* the folder is locked: its server died with all of its processes */
    c->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->notify_fd < 0 || bind(c->notify_fd, (struct sockaddr *)&a, sizeof a))
        by_die("%s: %s", c->notify_path, strerror(errno));
    int rc = uv_poll_init(c->supervisor->o.loop, &c->notify, c->notify_fd);
    by_assert(rc == 0);
    c->notify.data = c;
    uv_poll_start(&c->notify, UV_READABLE, on_notify);
}

/* ---- start and exit ---- */

static void on_timer(uv_timer_t *t) {
    start(t->data);
}

static void start_later(struct child *c) {
    uint64_t age_ms = (by_now_ns() - c->started_ns) / BY_NS_PER_MS, wait = 0;
    if (!c->has_served && age_ms < YOUNG_MS) {
        c->backoff_ms =
            c->backoff_ms ? BY_MIN(c->backoff_ms * 2, (uint64_t)BACKOFF_MAX_MS) : BACKOFF_FIRST_MS;
        wait = c->backoff_ms;
    }
    c->state = CHILD_WAITING;
    uv_timer_start(&c->timer, on_timer, wait, 0);
}

static void on_process_closed(uv_handle_t *h) {
    by_free(h);
}

static void take_exit(struct child *c, int64_t code, int sig) {
    struct supervisor *s = c->supervisor;
    take_news(c); /* its last words may still be on their way */
    c->is_running = false;
    c->state = CHILD_GONE;
    bool may = s->may_start;
    if (may && !c->was_ready && !sig) may = s->o.failed(s->o.ctx, c, code);
    s->o.exited(s->o.ctx, c, code, sig, may && s->may_start);
    if (may && s->may_start) start_later(c);
}

static void on_exit_(uv_process_t *p, int64_t code, int sig) {
    take_exit(p->data, code,
              sig); /* where it may still tell that it is ready, and be asked for its pid */
    uv_close((uv_handle_t *)p, on_process_closed);
}

/* Does this child get another value of the variable? */
static bool is_ours(const struct child *c, const char *variable) {
    size_t n = strcspn(variable, "=") + 1;
    bool is_ours =
        strncmp(variable, "NOTIFY_SOCKET=", n) == 0 || strncmp(variable, "BANYAN_PARENT=", n) == 0;
    for (size_t i = 0; i < BY_COUNTOF(c->extra_env) && c->extra_env[i]; i++)
        is_ours |= strncmp(variable, c->extra_env[i], n) == 0;
    return is_ours;
}

/* environ and ours, each name once: of two values a program sees the first. All of it, however much that is: Kubernetes brings
 * seven variables a Service, and keys stand last. The array is yours, the strings are borrowed for the spawn. */
static char **make_env(const struct child *c, char *parent, size_t parent_cap, char *notify,
                       size_t notify_cap) {
    extern char **environ;
    size_t n = 0;
    while (environ[n])
        n++;
    char **env = by_alloc_array(n + ENV_OURS_MAX, sizeof *env);
    n = 0;
    for (char **e = environ; *e; e++) {
        if (!is_ours(c, *e)) env[n++] = *e;
    }
    snprintf(parent, parent_cap, "BANYAN_PARENT=%d", (int)getpid());
    snprintf(notify, notify_cap, "NOTIFY_SOCKET=%s", c->notify_path);
    env[n++] = parent;
    env[n++] = notify;
    for (size_t i = 0; i < BY_COUNTOF(c->extra_env) && c->extra_env[i]; i++)
        env[n++] = c->extra_env[i];
    return env;
}

static void start(struct child *c) {
    char parent[64], notify[192];
    uv_stdio_container_t io[3] = {{.flags = UV_IGNORE},
                                  {.flags = UV_INHERIT_FD, .data.fd = 1},
                                  {.flags = UV_INHERIT_FD, .data.fd = 2}};
    char **env = make_env(c, parent, sizeof parent, notify, sizeof notify);
    uv_process_options_t o = {.file = c->argv[0],
                              .args = c->argv,
                              .env = env,
                              .exit_cb = on_exit_,
                              .stdio = io,
                              .stdio_count = 3,
                              .flags = UV_PROCESS_DETACHED};
    c->process = by_alloc(sizeof *c->process);
    c->process->data = c;
    c->state = CHILD_STARTING;
    c->has_served = c->is_ending = false;
    c->started_ns = by_now_ns();
    int rc = uv_spawn(c->supervisor->o.loop, c->process, &o);
    by_free(env);
    if (!rc) {
        c->is_running = true;
        return;
    }
    by_error("%s cannot be started: %s file=%s", c->name, uv_strerror(rc), c->argv[0]);
    uv_close((uv_handle_t *)c->process, on_process_closed);
    take_exit(c, 127, 0);
}

/* ---- the face ---- */

struct supervisor *supervisor_new(const struct supervisor_options *o) {
    struct supervisor *s = by_alloc(sizeof *s);
    s->o = *o;
    s->may_start = true;
    by_list_init(&s->children);
    return s;
}

static void clear_words(struct child *c) {
    if (c->argv) by_options_argv_free(c->argv);
    for (size_t i = 0; i < BY_COUNTOF(c->extra_env); i++) {
        by_free(c->extra_env[i]);
        c->extra_env[i] = NULL;
    }
}

void supervisor_free(struct supervisor *s) {
    if (!s) return;
    for (BY_LIST_EACH_SAFE(node, next, &s->children)) {
        struct child *c = BY_CONTAINER_OF(node, struct child, node);
        close(c->notify_fd);
        unlink(c->notify_path);
        clear_words(c);
        by_free(c);
    }
    by_free(s);
}

void child_set_argv(struct child *c, char **argv, const char *const *env) {
    clear_words(c);
    c->argv = argv;
    for (size_t i = 0; env && env[i]; i++) {
        by_assert(i < BY_COUNTOF(c->extra_env));
        c->extra_env[i] = by_strdup(env[i]);
    }
}

struct child *supervisor_add(struct supervisor *s, const char *name, char **argv,
                             const char *const *env) {
    struct child *c = by_alloc(sizeof *c);
    c->supervisor = s;
    snprintf(c->name, sizeof c->name, "%s", name);
    child_set_argv(c, argv, env);
    by_list_push(&s->children, &c->node);
    uv_timer_init(s->o.loop, &c->timer);
    c->timer.data = c;
    open_notify(c);
    if (s->may_start) start(c);
    return c;
}

const char *child_name(const struct child *c) {
    return c->name;
}

const char *child_status(const struct child *c) {
    return c->status;
}

const char *child_last_words(const struct child *c) {
    return c->is_ending ? c->status : "";
}

int child_pid(const struct child *c) {
    return c->is_running ? c->process->pid : 0;
}

double child_seconds(const struct child *c) {
    return c->seconds;
}

bool supervisor_all_ready(const struct supervisor *s) {
    for (BY_LIST_EACH(node, &s->children)) {
        if (BY_CONTAINER_OF(node, struct child, node)->state != CHILD_READY) return false;
    }
    return true;
}

bool supervisor_all_gone(const struct supervisor *s) {
    for (BY_LIST_EACH(node, &s->children)) {
        if (BY_CONTAINER_OF(node, struct child, node)->is_running) return false;
    }
    return true;
}

void supervisor_stop_starting(struct supervisor *s) {
    s->may_start = false;
    for (BY_LIST_EACH(node, &s->children))
        uv_timer_stop(&BY_CONTAINER_OF(node, struct child, node)->timer);
}

void child_signal(struct child *c, int sig) {
    if (c && c->is_running) uv_process_kill(c->process, sig);
}

void supervisor_signal_all(struct supervisor *s, int sig) {
    for (BY_LIST_EACH(node, &s->children))
        child_signal(BY_CONTAINER_OF(node, struct child, node), sig);
}
