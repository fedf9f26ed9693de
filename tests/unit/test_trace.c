#include "scheduler/trace.h"

#include <unistd.h>

#include "common/base/file.h"
#include "tests/unit/core_world.h"

static uint64_t n_sent, sent_hash;

static void count_send(void *ctx, uint32_t peer, const struct msg *m) {
    struct by_buf b;
    by_buf_init(&b, LIMIT_FRAME_BYTES);
    msg_encode(m, &b);
    sent_hash = (sent_hash ^ by_str_hash(by_buf_str(&b)) ^ peer) * UINT64_C(0x100000001B3);
    n_sent++;
    by_buf_release(&b);
    w_send(ctx, peer, m);
}

/* A short life of a scheduler, written as it happens. */
static void write_life(const char *path) {
    struct world w = {.opt = {.n_replicas = 1,
                              .max_running = 8,
                              .max_queued = 9,
                              .chunked_prefill_size = 64,
                              .depth = 2,
                              .conservativeness = 0.25,
                              .policy = POLICY_LPM}};
    struct trace *t = NULL;
    struct by_err err;
    /* makes the tables of the stand-ins; its core gives way to one that is traced from the start */
    world_start(&w);
    core_free(w.core);
    assert_int_equal(trace_open(&t, path, &w.opt, &err), 0);
    n_sent = sent_hash = 0;
    w.core = core_new(&w.opt, &(struct core_sink){.send = count_send, .end = w_end, .ctx = &w});
    struct msg_hello hellos[] = {
        {.role = ROLE_ROUTER, .epoch = w.epoch},
        {.role = ROLE_TOKENIZER_WORKER, .epoch = 5},
        {.role = ROLE_DETOKENIZER, .epoch = 6},
        {.role = ROLE_GPU_WORKER,
         .epoch = 7,
         .model = {.n_vocab = W_VOCAB},
         .capacity = {
             .page_size = 4, .n_pages = 256, .n_slots = 8, .step_tokens_max = 256, .world = 1}}};
    uint32_t peers[] = {W_ROUTER, W_TOKENIZER, w.detok, w.worker[0].peer};
    for (uint32_t i = 0; i < 4; i++) {
        trace_up(t, ++w.now, peers[i], &hellos[i]);
        core_on_up(w.core, w.now, peers[i], &hellos[i]);
    }
    for (uint32_t rid = 1; rid <= 5; rid++) {
        struct w_req *q = w_prepare(&w, rid, 20, rid, 10);
        struct msg m = {.kind = MSG_tokenized,
                        .tokenized = {.name = {w.epoch, rid},
                                      .ids = {q->ids, q->n_ids},
                                      .sampling = q->sampling}};
        trace_message(t, ++w.now, W_TOKENIZER, &m);
        core_on_message(w.core, w.now, W_TOKENIZER, &m);
    }
    trace_step(t, ++w.now);
    core_next_step(w.core, w.now);
    trace_down(t, ++w.now, w.worker[0].peer, "killed");
    core_on_down(w.core, w.now, w.worker[0].peer, "killed");
    trace_step(t, ++w.now);
    core_next_step(w.core, w.now);
    trace_close(t);
    uint64_t n = n_sent, hash = sent_hash;
    world_stop(&w);
    n_sent = n;
    sent_hash = hash;
}

static char path[64];

static struct by_buf read_life(void) {
    struct by_buf b;
    struct by_err err;
    snprintf(path, sizeof path, "/tmp/banyan-trace-%ld", (long)getpid());
    write_life(path);
    by_buf_init(&b, 1 << 20);
    assert_int_equal(by_file_read(&b, path, &err), 0);
    unlink(path);
    return b;
}

TEST(a_replay_sends_what_was_sent) {
    UNUSED_STATE;
    struct by_buf b = read_life();
    struct trace_summary sum;
    struct by_err err;
    assert_int_equal(trace_replay(by_buf_str(&b), true, &sum, &err), 0);
    assert_int_equal(sum.n_ups, 4);
    assert_int_equal(sum.n_messages, 5);
    assert_int_equal(sum.n_downs, 1);
    assert_false(sum.is_cut);
    assert_int_equal(sum.n_frames, n_sent);
    assert_int_equal(sum.hash, sent_hash);
    by_buf_release(&b);
}

TEST(a_cut_trace_is_replayed_up_to_the_cut) {
    UNUSED_STATE;
    struct by_buf b = read_life();
    uint64_t last = 0;
    for (size_t n = 0; n <= b.n; n++) {
        struct trace_summary sum;
        struct by_err err = {0};
        int rc = trace_replay((struct by_str){b.p, n}, true, &sum, &err);
        if (rc) {
            assert_true(n < 512 && strlen(err.text) > 0); /* within the header line */
            continue;
        }
        assert_true(sum.n_frames >= last);
        last = sum.n_frames;
    }
    assert_int_equal(last, n_sent);
    by_buf_release(&b);
}

TEST(flipped_bytes_break_nothing) {
    UNUSED_STATE;
    uint64_t seed = test_seed();
    struct by_buf b = read_life();
    for (int i = 0; i < 5000; i++) {
        struct trace_summary sum;
        struct by_err err = {0};
        size_t at = by_rand_next(&seed) % b.n;
        char was = b.p[at];
        b.p[at] = (char)(was ^ (1 << by_rand_next(&seed) % 8));
        int rc = trace_replay(by_buf_str(&b), true, &sum, &err);
        if (rc) assert_true(strlen(err.text) > 0);
        b.p[at] = was;
    }
    by_buf_release(&b);
}

static void count_line(void *ctx, struct by_str line) {
    uint32_t *n = ctx;
    const char *want[] = {"hello", "hello", "hello", "hello", "tokenized"};
    assert_true(by_str_find(line, by_str_of(*n < 9 ? want[BY_MIN(*n, 4u)] : "gone: killed"), 0) !=
                SIZE_MAX);
    ++*n;
}

TEST(a_trace_prints_a_line_each_record) {
    UNUSED_STATE;
    struct by_buf b = read_life();
    struct by_err err;
    uint32_t n = 0;
    assert_int_equal(trace_print(by_buf_str(&b), count_line, &n, &err), 0);
    assert_int_equal(n, 10);
    by_buf_release(&b);
}

TESTS(RUN(a_replay_sends_what_was_sent), RUN(a_cut_trace_is_replayed_up_to_the_cut),
      RUN(flipped_bytes_break_nothing), RUN(a_trace_prints_a_line_each_record));
