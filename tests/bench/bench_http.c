/* bench_http - many streaming completions at once over plain sockets: a client that costs next to nothing.
 *
 *     bench_http PORT STREAMS TOKENS ROUNDS      each stream: ROUNDS requests of TOKENS tokens, one after the other
 *
 * Prints tokens, events, seconds, tokens a second, the mean and tail of the time between two reads of a stream, the time to the
 * first byte of a stream, and its own CPU time: on a small machine it takes its share of the cores. */
#include "tests/bench/bench.h"

#include "common/base/clock.h"
#include "common/base/proc.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STREAMS_MAX = 1024, GAPS_MAX = 1 << 20, TAIL = 32 };

struct stream {
    int fd;
    uint32_t n_rounds;
    uint64_t sent_ns, last_ns;
    char tail[TAIL]; /* of what came last: where [DONE] and the last chunk show */
};

static struct stream streams[STREAMS_MAX];
static double gaps[GAPS_MAX], firsts[GAPS_MAX];
static size_t n_gaps, n_firsts, n_events;
static uint32_t n_tokens;
static uint16_t port;

static void quit(const char *what) {
    fprintf(stderr, "bench_http: %s\n", what);
    exit(1);
}

static void send_request(const struct stream *s) {
    char body[256], all[512];
    size_t number = (size_t)(s - streams);
    int n = snprintf(body, sizeof body,
                     "{\"prompt\":[%zu,%u,7,7,7,7,7,7],\"max_tokens\":%u,\"temperature\":0,"
                     "\"ignore_eos\":true,\"stream\":true}",
                     10 + number % 600, 10 + s->n_rounds % 600, n_tokens);
    n = snprintf(all, sizeof all,
                 "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                 "Content-Length: %d\r\n\r\n%s",
                 n, body);
    ssize_t n_sent = send(s->fd, all, (size_t)n, MSG_NOSIGNAL);
    if (n_sent != n && s->n_rounds == 1) quit("cannot send"); /* later, take finds it closed */
}

static void ask(struct stream *s) {
    s->sent_ns = by_now_ns();
    s->last_ns = 0;
    s->n_rounds++;
    send_request(s);
}

static void open_stream(struct stream *s) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&a, sizeof a)) quit("cannot connect");
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void ask_anew(struct stream *s) {
    close(s->fd);
    open_stream(s);
    send_request(s);
}

/* An event ends in an empty line; one that is torn between two reads is not counted. */
static size_t count_events(const char *p, size_t n) {
    size_t count = 0;
    for (const char *end = p + n; (p = memmem(p, (size_t)(end - p), "\n\n", 2)) != NULL; p += 2)
        count++;
    return count;
}

static void keep_tail(struct stream *s, const char *p, size_t n) {
    if (n >= TAIL) {
        memcpy(s->tail, p + n - TAIL, TAIL);
        return;
    }
    memmove(s->tail, s->tail + n, TAIL - n);
    memcpy(s->tail + TAIL - n, p, n);
}

/* True: the answer is complete. */
static bool take(struct stream *s) {
    static char room[1 << 18];
    static const char end[] = "data: [DONE]\n\n\r\n0\r\n\r\n";
    ssize_t n = read(s->fd, room, sizeof room);
    /* some servers end a connection with each answer */
    if (n <= 0 && !s->last_ns && s->n_rounds > 1) {
        ask_anew(s);
        return false;
    }
    if (n <= 0) quit("the server closed a stream");
    uint64_t now = by_now_ns();
    if (!s->last_ns) {
        if (n < 15 || memcmp(room, "HTTP/1.1 200 OK", 15) != 0) quit("no 200 for a stream");
        if (n_firsts < GAPS_MAX) firsts[n_firsts++] = (double)(now - s->sent_ns);
    } else if (n_gaps < GAPS_MAX) {
        gaps[n_gaps++] = (double)(now - s->last_ns);
    }
    s->last_ns = now;
    n_events += count_events(room, (size_t)n);
    keep_tail(s, room, (size_t)n);
    return memcmp(s->tail + TAIL - (sizeof end - 1), end, sizeof end - 1) == 0;
}

static void run(size_t n_streams, uint32_t n_rounds) {
    static struct pollfd fds[STREAMS_MAX];
    size_t n_open = n_streams;
    for (size_t i = 0; i < n_streams; i++) {
        fds[i] = (struct pollfd){.fd = streams[i].fd, .events = POLLIN};
        ask(&streams[i]);
    }
    while (n_open) {
        if (poll(fds, n_streams, 60000) <= 0) quit("nothing came for a minute");
        for (size_t i = 0; i < n_streams; i++) {
            if (!fds[i].revents) continue;
            bool is_done = take(&streams[i]);
            fds[i].fd = streams[i].fd;
            if (!is_done) continue;
            if (streams[i].n_rounds < n_rounds) {
                ask(&streams[i]);
            } else {
                fds[i].fd = -1;
                n_open--;
            }
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 5) quit("usage: bench_http PORT STREAMS TOKENS ROUNDS");
    port = (uint16_t)strtoul(argv[1], NULL, 10);
    size_t n_streams = strtoul(argv[2], NULL, 10);
    n_tokens = (uint32_t)strtoul(argv[3], NULL, 10);
    uint32_t n_rounds = (uint32_t)strtoul(argv[4], NULL, 10);
    if (!n_streams || n_streams > STREAMS_MAX) quit("STREAMS is 1 to 1024");
    for (size_t i = 0; i < n_streams; i++)
        open_stream(&streams[i]);
    uint64_t from = by_now_ns();
    run(n_streams, n_rounds);
    double seconds = (double)(by_now_ns() - from) / 1e9;
    double n = (double)n_streams * n_tokens * n_rounds;
    bench_row("http", "tokens", n, "");
    bench_row("http", "events", (double)n_events, "");
    bench_row("http", "seconds", seconds, "s");
    bench_row("http", "rate", n / seconds, "tokens/s");
    bench_row("http", "gap p50", bench_quantile(gaps, n_gaps, 0.5) / 1e3, "us");
    bench_row("http", "gap p99", bench_quantile(gaps, n_gaps, 0.99) / 1e3, "us");
    bench_row("http", "first byte p50", bench_quantile(firsts, n_firsts, 0.5) / 1e3, "us");
    bench_row("http", "first byte p99", bench_quantile(firsts, n_firsts, 0.99) / 1e3, "us");
    bench_row("http", "client cpu", by_proc_cpu_seconds() / n * 1e6, "us/token");
    return 0;
}
