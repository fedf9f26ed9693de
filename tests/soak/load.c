/* load.c - the clients of a soak: many connections in one thread, so that what is measured is the server.
 *
 *     soak-load play  PORT FILE OUT EXPECTED        all requests of FILE at once, a connection each; what came goes to OUT
 *     soak-load rate  PORT FILE RATE SECONDS CONNS  RATE requests a second whatever comes back; 0: CONNS clients, each
 *                                                   asks again when it has its answer
 *     soak-load probe PORT FILE N                   N requests one after the other; ns to the first byte, a line each
 *     soak-load hold  PORT FILE IDLE LIVE           IDLE connections that say nothing, LIVE streams that are read and begun again
 *     soak-load drip  PORT FILE N BYTES             N connections: FILE's request but its last BYTES bytes, then a byte a second
 *     soak-load sip   PORT FILE N                   N streams of which a byte a second is read
 *
 * FILE: [u32 length, little endian][an HTTP request]*. hold, drip and sip say "ready" when all stand, and end with their
 * stdin. OUT, for each connection of play: u64 bytes, first_ns, last_ns, gap_ns (the longest silence), then the bytes.
 * Always: Connection: close is in the requests of play and probe, so that the end of an answer is the connection's. */
#include "common/base/base.h"
#include "common/base/clock.h"
#include "common/base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REQUESTS_MAX = 4096, CONNS_MAX = 20000, ROOM = 1 << 18, EVENTS = 512, HEAD_MAX = 4096 };

struct request {
    char *p;
    uint32_t n;
};

struct conn {
    int fd;
    bool is_open, is_busy, is_live;
    uint64_t sent_ns, first_ns, last_ns, gap_ns;
    size_t left; /* rate: bytes of the body still to come; of the head while n < its end */
    bool has_head;
    char *p; /* play: all that came; rate: the head so far */
    size_t n, cap;
};

static struct request requests[REQUESTS_MAX];
static size_t n_requests;
static struct conn *conns;
static size_t n_conns;
static int poller;
static uint16_t port;
static char room[ROOM];

static BY_NORETURN void quit(const char *what) {
    fprintf(stderr, "soak-load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void read_requests(const char *path) {
    FILE *f = fopen(path, "rb");
    uint32_t n;
    if (!f) quit(path);
    while (n_requests < REQUESTS_MAX && fread(&n, sizeof n, 1, f) == 1) {
        struct request *r = &requests[n_requests++];
        *r = (struct request){by_alloc(n), n};
        if (fread(r->p, 1, n, f) != n) quit(path);
    }
    fclose(f);
    if (!n_requests) quit("no request in the file");
}

static void dial(struct conn *c) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    int one = 1;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) quit("socket");
    while (connect(c->fd, (struct sockaddr *)&a, sizeof a))
        if (errno != EAGAIN && errno != EINTR) quit("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e)) quit("epoll_ctl");
    c->is_open = true;
}

static void hang_up(struct conn *c) {
    if (c->is_open) close(c->fd);
    c->is_open = c->is_busy = false;
}

static void ask(struct conn *c, size_t which, uint32_t keep_back) {
    const struct request *r = &requests[which % n_requests];
    uint32_t n = r->n - BY_MIN(keep_back, r->n);
    c->sent_ns = by_now_ns();
    c->first_ns = c->last_ns = c->gap_ns = 0;
    c->n = c->left = 0;
    c->has_head = false;
    c->is_busy = true;
    if (send(c->fd, r->p, n, MSG_NOSIGNAL) != (ssize_t)n) quit("send");
}

static size_t count_events(const char *p, size_t n) {
    size_t count = 0;
    for (const char *end = p + n; (p = memmem(p, (size_t)(end - p), "\n\n", 2)) != NULL; p += 2)
        count++;
    return count;
}

/* What came: 0 at the end, or when the connection is lost. */
static size_t take(struct conn *c) {
    ssize_t n = recv(c->fd, room, sizeof room, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return SIZE_MAX;
    if (n <= 0) return 0;
    uint64_t now = by_now_ns(), before = c->last_ns ? c->last_ns : c->sent_ns;
    if (!c->first_ns) c->first_ns = now;
    c->gap_ns = BY_MAX(c->gap_ns, now - before);
    c->last_ns = now;
    return (size_t)n;
}

static void keep(struct conn *c, size_t n) {
    if (c->n + n > c->cap) {
        c->cap = 2 * (c->n + n);
        c->p = by_realloc(c->p, c->cap);
    }
    memcpy(c->p + c->n, room, n);
    c->n += n;
}

static void play(const char *out, size_t expected) {
    size_t n_open = n_requests, n_events = 0, said = 0;
    for (size_t i = 0; i < n_requests; i++)
        dial(&conns[i]);
    for (size_t i = 0; i < n_requests; i++)
        ask(&conns[i], i, 0);
    while (n_open) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(poller, events, EVENTS, 120000);
        if (n <= 0) quit("nothing came for two minutes");
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            size_t got = take(c);
            if (got == SIZE_MAX) continue;
            if (!got) {
                hang_up(c);
                n_open--;
                continue;
            }
            keep(c, got);
            n_events += count_events(room, got);
            for (; said < 100 && n_events * 100 >= (said + 1) * expected; said++)
                printf("%zu\n", said + 1);
            fflush(stdout);
        }
    }
    FILE *f = fopen(out, "wb");
    if (!f) quit(out);
    for (size_t i = 0; i < n_requests; i++) {
        const struct conn *c = &conns[i];
        uint64_t head[] = {c->n, c->first_ns ? c->first_ns - c->sent_ns : 0,
                           c->last_ns ? c->last_ns - c->sent_ns : 0, c->gap_ns};
        fwrite(head, sizeof head, 1, f);
        fwrite(c->p, 1, c->n, f);
    }
    if (fclose(f)) quit(out);
}

/* ---- rate ---- */

static uint64_t *refused_ns, *done_ns;
static size_t n_refused, n_done, n_other, n_sent, n_late, cap_ns;

static void note(uint64_t *list, size_t *n, uint64_t ns) {
    if (*n < cap_ns) list[(*n)++] = ns;
}

/* The head of an answer is here when it holds an empty line: its length tells how much of the body is to come. */
static bool head_of(struct conn *c) {
    char *end = memmem(c->p, c->n, "\r\n\r\n", 4), *field;
    if (!end) return false;
    *end = 0;
    field = strcasestr(c->p, "content-length: ");
    c->left = field ? strtoul(field + 16, NULL, 10) : 0;
    size_t body = c->n - (size_t)(end + 4 - c->p);
    c->left -= BY_MIN(body, c->left);
    c->has_head = true;
    return true;
}

/* True: the answer is whole. */
static bool answered(struct conn *c, size_t got) {
    if (c->has_head)
        c->left -= BY_MIN(got, c->left);
    else
        keep(c, got);
    if (!c->has_head && !head_of(c)) return false;
    if (c->left) return false;
    uint64_t took = by_now_ns() - c->sent_ns;
    int status = (int)strtol(c->p + 9, NULL, 10);
    if (status == 200)
        note(done_ns, &n_done, took);
    else if (status == 429)
        note(refused_ns, &n_refused, took);
    else
        n_other++;
    c->is_busy = false;
    return true;
}

static void on_answers(int timeout_ms, bool is_again) {
    struct epoll_event events[EVENTS];
    int n = epoll_wait(poller, events, EVENTS, timeout_ms);
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        size_t got = take(c);
        if (got == SIZE_MAX) continue;
        if (!got) {
            n_other += c->is_busy;
            hang_up(c);
            continue;
        }
        if (answered(c, got) && is_again) {
            ask(c, n_sent, 0);
            n_sent++;
        }
    }
}

static struct conn *free_conn(size_t *hint) {
    for (size_t i = 0; i < n_conns; i++) {
        struct conn *c = &conns[(*hint + i) % n_conns];
        if (c->is_busy) continue;
        *hint = (size_t)(c - conns) + 1;
        if (!c->is_open) dial(c);
        return c;
    }
    return NULL;
}

static int by_ns(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void say(const char *name, uint64_t *list, size_t n) {
    qsort(list, n, sizeof *list, by_ns);
    printf("%s %zu %.3f %.3f\n", name, n, n ? (double)list[n / 2] / 1e6 : 0,
           n ? (double)list[BY_MIN(n - 1, n * 99 / 100)] / 1e6 : 0);
}

static void rate(double per_second, double seconds) {
    uint64_t from = by_now_ns(), span = (uint64_t)(seconds * 1e9), now;
    size_t hint = 0;
    cap_ns = 1 << 22;
    refused_ns = by_alloc_array(cap_ns, sizeof *refused_ns);
    done_ns = by_alloc_array(cap_ns, sizeof *done_ns);
    for (size_t i = 0; per_second == 0 && i < n_conns; i++) {
        dial(&conns[i]);
        ask(&conns[i], n_sent++, 0);
    }
    for (now = from; now - from < span; now = by_now_ns()) {
        size_t due = (size_t)(per_second * (double)(now - from) / 1e9);
        while (n_sent < due) {
            struct conn *c = free_conn(&hint);
            n_late += !c;
            if (c) ask(c, n_sent, 0);
            n_sent++;
        }
        on_answers(1, per_second == 0);
    }
    printf("sent %zu\nother %zu\nlate %zu\n", n_sent, n_other, n_late);
    say("done", done_ns, n_done);
    say("refused", refused_ns, n_refused);
}

/* ---- probe, hold, drip, sip ---- */

static void probe(size_t n) {
    struct conn *c = &conns[0];
    for (size_t i = 0; i < n; i++) {
        dial(c);
        ask(c, i, 0);
        while (take(c)) {
            struct pollfd p = {.fd = c->fd, .events = POLLIN};
            if (poll(&p, 1, 60000) <= 0) quit("nothing came for a minute");
        }
        if (!c->first_ns) quit("no answer");
        printf("%llu\n", (unsigned long long)(c->first_ns - c->sent_ns));
        hang_up(c);
    }
}

static bool is_over(int timeout_ms) {
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&p, 1, timeout_ms) > 0;
}

static void ready(void) {
    printf("ready\n");
    fflush(stdout);
}

static void hold(size_t n_idle, size_t n_live) {
    size_t n_events = 0, n_begun = n_live, n_lost = 0;
    for (size_t i = 0; i < n_idle + n_live; i++)
        dial(&conns[i]);
    for (size_t i = n_idle; i < n_idle + n_live; i++) {
        conns[i].is_live = true;
        ask(&conns[i], i, 0);
    }
    for (bool is_said = false; !is_over(0);) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(poller, events, EVENTS, 100);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            size_t got = take(c);
            if (got == SIZE_MAX) continue;
            n_events += count_events(room, got ? got : 0);
            if (got) continue;
            n_lost += !c->is_live;
            hang_up(c);
            if (!c->is_live) continue;
            dial(c);
            ask(c, n_begun++, 0);
        }
        if (!is_said && n_events >= n_live) {
            is_said = true;
            ready();
        }
    }
    printf("events %zu begun %zu lost %zu\n", n_events, n_begun, n_lost);
}

/* Sends a byte a second of each; sip reads one instead. Says how many the server has closed when stdin ends. */
static void drip(size_t n, uint32_t keep_back, bool is_sip) {
    size_t n_closed = 0;
    for (size_t i = 0; i < n; i++) {
        int small = 4096;
        conns[i].fd = -1;
        dial(&conns[i]);
        if (is_sip) setsockopt(conns[i].fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        ask(&conns[i], i, keep_back);
    }
    ready();
    while (!is_over(1000)) {
        for (size_t i = 0; i < n; i++) {
            struct conn *c = &conns[i];
            char byte = 'x';
            if (!c->is_open) continue;
            ssize_t done = is_sip ? recv(c->fd, &byte, 1, MSG_DONTWAIT)
                                  : send(c->fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
            bool is_gone = is_sip ? done == 0 : recv(c->fd, room, sizeof room, MSG_DONTWAIT) == 0;
            if (!is_gone && (done >= 0 || errno == EAGAIN)) continue;
            hang_up(c);
            n_closed++;
        }
    }
    printf("closed %zu\n", n_closed);
}

int main(int argc, char **argv) {
    if (argc < 5) quit("usage: soak-load MODE PORT FILE …; see the head of load.c");
    const char *mode = argv[1],
               *words[] = {argv[4], argc > 5 ? argv[5] : "0", argc > 6 ? argv[6] : "0"};
    size_t n[3];
    for (int i = 0; i < 3; i++)
        n[i] = strtoul(words[i], NULL, 10);
    port = (uint16_t)strtoul(argv[2], NULL, 10);
    read_requests(argv[3]);
    poller = epoll_create1(EPOLL_CLOEXEC);
    n_conns = strcmp(mode, "rate") == 0 ? n[2] : CONNS_MAX;
    conns = by_alloc_array(n_conns + 1, sizeof *conns);
    if (poller < 0) quit("epoll");
    if (strcmp(mode, "play") == 0)
        play(words[0], n[1]);
    else if (strcmp(mode, "rate") == 0)
        rate(strtod(words[0], NULL), strtod(words[1], NULL));
    else if (strcmp(mode, "probe") == 0)
        probe(n[0]);
    else if (strcmp(mode, "hold") == 0 && n[0] <= CONNS_MAX && n[0] + n[1] <= CONNS_MAX)
        hold(n[0], n[1]);
    else if ((strcmp(mode, "drip") == 0 || strcmp(mode, "sip") == 0) && n[0] <= CONNS_MAX)
        drip(n[0], (uint32_t)n[1], mode[0] == 's');
    else
        quit("no such mode, or too many");
    return 0;
}
