#include "common/net/zap.h"

#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <zmq.h>

/* RFC 27: version, request id, domain, address, identity, mechanism, credentials. */
enum {
    PART_VERSION,
    PART_ID,
    PART_DOMAIN,
    PART_ADDRESS,
    PART_IDENTITY,
    PART_MECHANISM,
    PART_KEY,
    N_PARTS
};
enum { KEY_BYTES = 32, PART_MAX = 256 };

struct zap {
    void *socket;
    uint8_t allowed[BY_KEYS_ALLOWED_MAX][KEY_BYTES];
    size_t n_allowed;
};

struct part {
    size_t n; /* as it was; bytes has the first PART_MAX of it */
    char bytes[PART_MAX];
};

/* One request; false: libzmq is ending. */
static bool receive(struct zap *z, struct part parts[N_PARTS], int *n_parts) {
    int more = 1;
    for (*n_parts = 0; more; (*n_parts)++) {
        struct part spare, *p = *n_parts < N_PARTS ? &parts[*n_parts] : &spare;
        size_t size = sizeof more;
        int n;
        do {
            n = zmq_recv(z->socket, p->bytes, PART_MAX, 0);
        } while (n < 0 && errno == EINTR);
        if (n < 0 || zmq_getsockopt(z->socket, ZMQ_RCVMORE, &more, &size)) return false;
        p->n = (size_t)n;
    }
    return true;
}

static bool is_allowed(const struct zap *z, const struct part parts[N_PARTS], int n_parts) {
    if (n_parts != N_PARTS || parts[PART_MECHANISM].n != 5 ||
        memcmp(parts[PART_MECHANISM].bytes, "CURVE", 5) != 0 || parts[PART_KEY].n != KEY_BYTES)
        return false;
    for (size_t i = 0; i < z->n_allowed; i++) {
        if (memcmp(parts[PART_KEY].bytes, z->allowed[i], KEY_BYTES) == 0) return true;
    }
    return false;
}

static void answer(struct zap *z, const struct part *id, bool is_good) {
    zmq_send(z->socket, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(z->socket, id->bytes, BY_MIN(id->n, (size_t)PART_MAX), ZMQ_SNDMORE);
    zmq_send(z->socket, is_good ? "200" : "400", 3, ZMQ_SNDMORE);
    zmq_send(z->socket, is_good ? "OK" : "unknown key", is_good ? 2 : 11, ZMQ_SNDMORE);
    zmq_send(z->socket, "", 0, ZMQ_SNDMORE);
    zmq_send(z->socket, "", 0, 0);
}

static void *run(void *ctx) {
    struct zap *z = ctx;
    struct part parts[N_PARTS];
    for (int n; receive(z, parts, &n);) {
        bool is_good = is_allowed(z, parts, n);
        if (!is_good && n > PART_ADDRESS)
            by_warn_limited("a peer was refused: its key is not in --curve-key-file address=%.*s",
                            (int)BY_MIN(parts[PART_ADDRESS].n, (size_t)64),
                            parts[PART_ADDRESS].bytes);
        answer(z, &parts[PART_ID], is_good);
    }
    return NULL;
}

int by_zap_start(void *context, const struct by_keys *keys, struct by_err *err) {
    struct zap *z = by_alloc(sizeof *z); /* lives as long as the process */
    pthread_t thread;
    sigset_t all, before;
    for (z->n_allowed = 0; z->n_allowed < keys->n_allowed; z->n_allowed++) {
        const void *key = zmq_z85_decode(z->allowed[z->n_allowed], keys->allowed[z->n_allowed]);
        by_assert(key != NULL); /* by_keys_parse has looked */
    }
    z->socket = zmq_socket(context, ZMQ_REP);
    if (!z->socket || zmq_bind(z->socket, "inproc://zeromq.zap.01"))
        return by_fail(err, BY_EIO, "nobody can check keys: %s", zmq_strerror(errno));
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int rc = pthread_create(&thread, NULL, run, z);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) return by_fail(err, BY_EIO, "no thread to check keys: %s", strerror(rc));
    pthread_detach(thread);
    return 0;
}
