/* Any frames from any peer at the scheduler's core: refused, dropped or obeyed; what always holds must hold.
 *
 *     [what u8][peer u8][n u16][n bytes]*     what: 0 a frame of peer, 1 time passes, 2 peer goes, 3 the worker answers well
 *
 * A router, a tokenizer worker, a detokenizer and a gpu worker are there from the start; a hello makes a peer of one's own. */
#include "common/base/check.h"
#include "common/base/log.h"
#include "scheduler/core.h"
#include "tests/fuzz/fuzz.h"

enum { PEERS = 8, WORKER = 4, SLOTS = 8, HEAD = 4, STEPS_MAX = 64 };

static struct seat {
    struct core *core;
    bool is_up[PEERS];
    uint64_t now, step, answered;
    uint32_t n_samples[4]; /* of the worker's steps, by number */
} seat;

static void on_send(void *ctx, uint32_t peer, const struct msg *m) {
    (void)ctx;
    by_assert(peer < PEERS && seat.is_up[peer]);
    if (peer != WORKER || m->kind != MSG_step) return;
    seat.step = m->step.step;
    seat.n_samples[seat.step % 4] = 0;
    for (uint32_t i = 0; i < m->step.row_samples.n; i++)
        seat.n_samples[seat.step % 4] += m->step.row_samples.p[i];
}

static void on_end(void *ctx, uint32_t peer, const char *why) {
    (void)ctx;
    by_assert(why[0]);
    seat.is_up[peer] = false;
}

static void up(uint32_t peer, const struct msg_hello *h) {
    struct by_err err = {0};
    if (seat.is_up[peer] || h->capacity.n_pages > 4096 || core_admit(seat.core, h, &err)) return;
    seat.is_up[peer] = true;
    if (peer == WORKER) seat.step = seat.answered = 0;
    core_on_up(seat.core, seat.now, peer, h);
}

static void start(void) {
    struct core_options o = {.n_replicas = 2,
                             .max_running = SLOTS,
                             .max_queued = 20,
                             .chunked_prefill_size = 16,
                             .depth = 2,
                             .conservativeness = 0.5,
                             .policy = POLICY_FAIR};
    struct core_sink sink = {.send = on_send, .end = on_end};
    by_log_init(&(struct by_log_options){.process = "fuzz", .level = BY_LOG_ERROR});
    seat = (struct seat){.core = core_new(&o, &sink), .now = 1};
    for (uint32_t peer = 1; peer <= WORKER; peer++) {
        static const enum role roles[] = {0, ROLE_ROUTER, ROLE_TOKENIZER_WORKER, ROLE_DETOKENIZER,
                                          ROLE_GPU_WORKER};
        struct msg_hello h = {.role = roles[peer],
                              .epoch = peer,
                              .model = {.n_vocab = 100, .context_len = 256},
                              .capacity = {.page_size = 4,
                                           .n_pages = 48,
                                           .n_slots = SLOTS,
                                           .step_tokens_max = 32,
                                           .world = 1}};
        up(peer, &h);
    }
}

static void answer_well(const uint8_t *bytes, uint32_t n) {
    uint32_t tokens[SLOTS];
    if (!seat.is_up[WORKER] || seat.answered == seat.step) return;
    uint32_t n_tokens = seat.n_samples[++seat.answered % 4];
    for (uint32_t i = 0; i < n_tokens; i++)
        tokens[i] = i < n ? bytes[i] % 100 : 1;
    struct msg m = {.kind = MSG_step_done,
                    .step_done = {.step = seat.answered, .tokens = {tokens, n_tokens}}};
    core_on_message(seat.core, seat.now, WORKER, &m);
}

static void frame(uint32_t peer, const uint8_t *bytes, uint32_t n) {
    struct by_arena arena;
    struct by_err err;
    struct msg m;
    by_arena_init(&arena, 16 << 20);
    if (msg_decode(&m, fuzz_bytes(bytes, n), &arena, &err) == 0) {
        if (m.kind == MSG_hello)
            up(peer, &m.hello);
        else if (seat.is_up[peer])
            core_on_message(seat.core, seat.now, peer, &m);
    }
    by_arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    start();
    while (size >= HEAD) {
        uint32_t peer = 1 + data[1] % (PEERS - 1), n = data[2] | (uint32_t)data[3] << 8;
        n = (uint32_t)BY_MIN((size_t)n, size - HEAD);
        if (data[0] % 4 == 0) frame(peer, data + HEAD, n);
        if (data[0] % 4 == 1) seat.now += (uint64_t)n * 10000000;
        if (data[0] % 4 == 2 && seat.is_up[peer]) {
            seat.is_up[peer] = false;
            core_on_down(seat.core, seat.now, peer, "gone");
        }
        if (data[0] % 4 == 3) answer_well(data + HEAD, n);
        for (uint32_t i = 0; i < STEPS_MAX && core_next_step(seat.core, seat.now); i++)
            ;
        by_assert(core_check(seat.core));
        data += HEAD + n;
        size -= HEAD + n;
    }
    core_free(seat.core);
    return 0;
}
