/* deadly_text.c - a library that is preloaded into a program under test: a tokenizer worker dies of a certain text, or a
 * detokenizer of a certain stop string.
 *
 *     LD_PRELOAD=libdeadly-text.so  DEADLY_TEXT=words  banyan-tokenizer-worker …         DEADLY_STOP=words  banyan-detokenizer …
 *
 *     generate  [16, session, seq, [epoch, rid], … words …]   comes in by zmq_msg_recv: that name is remembered
 *     tokenized [17, session, seq, [epoch, rid], …]           goes out by zmq_send: of a remembered name, the process ends
 *     and of a detokenizer tokens, 20, and text, 21
 *
 * So it dies as late as it can of reading, with all behind it unread. What it said before that may be on its way or not, as with
 * any crash. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

enum { KIND_GENERATE = 16, KIND_TOKENIZED = 17, KIND_TOKENS = 20, KIND_TEXT = 21 };
enum { NAMES_MAX = 64, NAME_BYTES = 19 };

static const char *words;
static int kind_in = KIND_GENERATE, kind_out = KIND_TOKENIZED;
static unsigned char names[NAMES_MAX][NAME_BYTES]; /* as they stand in frames */
static int n_names;

__attribute__((constructor)) static void start(void) {
    words = getenv("DEADLY_TEXT");
    if (words) return;
    words = getenv("DEADLY_STOP");
    kind_in = KIND_TOKENS;
    kind_out = KIND_TEXT;
}

/* Of a number of msgpack that begins with this byte. */
static size_t n_bytes(unsigned char first) {
    return first < 0x80                     ? 1
           : first >= 0xcc && first <= 0xcf ? 1 + ((size_t)1 << (first - 0xcc))
                                            : 99;
}

/* The bytes of [epoch, rid] in a frame of that kind; false: it is another frame. */
static bool name_of(const unsigned char *p, size_t n, int kind, unsigned char out[NAME_BYTES]) {
    size_t at = n && p[0] == 0xdc ? 3 : 1;
    if (n < 64 || p[at] != kind) return false;
    for (int i = 0; i < 3; i++)
        at += n_bytes(p[at] & 0xff);
    size_t len = 1 + n_bytes(p[at + 1]);
    len += n_bytes(p[at + len]);
    if (len > NAME_BYTES) return false;
    memset(out, 0, NAME_BYTES);
    memcpy(out, p + at, len);
    return true;
}

int zmq_msg_recv(zmq_msg_t *msg, void *socket, int flags) {
    static __typeof__(&zmq_msg_recv) real;
    if (!real) real = (__typeof__(&zmq_msg_recv))dlsym(RTLD_NEXT, "zmq_msg_recv");
    int n = real(msg, socket, flags);
    if (n > 0 && words && n_names < NAMES_MAX &&
        memmem(zmq_msg_data(msg), (size_t)n, words, strlen(words)))
        n_names += name_of(zmq_msg_data(msg), (size_t)n, kind_in, names[n_names]);
    return n;
}

int zmq_send(void *socket, const void *p, size_t n, int flags) {
    static __typeof__(&zmq_send) real;
    unsigned char name[NAME_BYTES];
    if (!real) real = (__typeof__(&zmq_send))dlsym(RTLD_NEXT, "zmq_send");
    bool is_answer = n_names && name_of(p, n, kind_out, name);
    for (int i = 0; is_answer && i < n_names; i++) {
        if (memcmp(names[i], name, NAME_BYTES) == 0) _exit(9);
    }
    return real(socket, p, n, flags);
}
