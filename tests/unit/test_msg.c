/* Every message of messages.def, filled with random fields: there and back, cut short, damaged, older and newer. */
#include "proto/msg.h"

#include "common/base/arena.h"
#include "common/base/rand.h"
#include "proto/shape.h"
#include "tests/unit/test.h"

static struct by_arena arena;
static uint64_t seed;

static uint64_t roll(uint64_t below) {
    return by_rand_next(&seed) % below;
}

static uint64_t wide(void) {
    return roll(UINT64_MAX) >> roll(64);
}

static struct by_str some_text(void) {
    static const char *const words[] = {
        "", "a", "größe", "木", "\xf0\x9f\x8c\xb3 tree", "a longer text, with spaces"};
    return by_str_of(words[roll(BY_COUNTOF(words))]);
}

static void fill(const struct shape *s, char *to);

static struct shape_list some_list(const struct shape_field *f) {
    uint32_t n = (uint32_t)roll(5);
    size_t each = f->type == SHAPE_LIST   ? f->of->size
                  : f->type == SHAPE_STRS ? sizeof(struct by_str)
                                          : 4;
    char *p = by_arena_get_array(&arena, n + 1, each);
    for (uint32_t i = 0; i < n; i++) {
        if (f->type == SHAPE_LIST) fill(f->of, p + i * each);
        if (f->type == SHAPE_STRS) ((struct by_str *)(void *)p)[i] = some_text();
        if (f->type == SHAPE_U32S) ((uint32_t *)(void *)p)[i] = (uint32_t)wide();
        if (f->type == SHAPE_F32S) ((float *)(void *)p)[i] = (float)roll(1000) - 0.25f;
    }
    return (struct shape_list){p, n};
}

static void fill_field(const struct shape_field *f, char *to) {
    switch (f->type) {
    case SHAPE_BOOL:
        *(bool *)to = roll(2);
        break;
    case SHAPE_U32:
        *(uint32_t *)(void *)to = (uint32_t)wide();
        break;
    case SHAPE_I32:
        *(int32_t *)(void *)to = (int32_t)wide();
        break;
    case SHAPE_U64:
    case SHAPE_I64:
        *(uint64_t *)(void *)to = wide();
        break;
    case SHAPE_F32:
        *(float *)(void *)to = (float)roll(1000) / 7;
        break;
    case SHAPE_F64:
        *(double *)(void *)to = (double)wide() / 7;
        break;
    case SHAPE_STR:
        *(struct by_str *)(void *)to = some_text();
        break;
    case SHAPE_BIN:
        *(struct by_str *)(void *)to = (struct by_str){"\xff\x00\x80", roll(4)};
        break;
    case SHAPE_RECORD:
        fill(f->of, to);
        break;
    default:
        *(struct shape_list *)(void *)to = some_list(f);
    }
}

static void fill(const struct shape *s, char *to) {
    size_t at = 0;
    for (uint32_t i = 0; i < s->n_fields; i++) {
        at = shape_field_at(&s->fields[i], at);
        fill_field(&s->fields[i], to + at);
        at += shape_field_size(&s->fields[i]);
    }
}

static struct msg some_message(uint32_t code) {
    struct msg m = {.kind = (enum msg_kind)code, .session = wide(), .seq = wide()};
    fill(shape_of_kind(code), (char *)&m.hello);
    return m;
}

/* Calls check for each kind of message, `rounds` times with random fields. */
static void each_message(int rounds, void (*check)(const struct msg *m, struct by_str frame)) {
    seed = test_seed();
    uint32_t n = 0;
    by_arena_init(&arena, 0);
    struct by_buf frame;
    by_buf_init(&frame, LIMIT_FRAME_BYTES);
    for (uint32_t code = 0; code < 256; code++) {
        if (!msg_kind_known(code)) continue;
        n++;
        for (int i = 0; i < rounds; i++) {
            by_arena_clear(&arena);
            by_buf_clear(&frame);
            struct msg m = some_message(code);
            msg_encode(&m, &frame);
            assert_false(frame.is_full);
            check(&m, by_buf_str(&frame));
        }
    }
    assert_true(n > 10);
    by_buf_release(&frame);
    by_arena_release(&arena);
}

TEST(shapes_lie_as_the_compiler_lays_structs) {
    UNUSED_STATE;
    assert_true(shape_check());
}

static void check_there_and_back(const struct msg *m, struct by_str frame) {
    struct msg back;
    struct by_err err = {0};
    int rc = msg_decode(&back, frame, &arena, &err);
    if (rc) fail_msg("%s: %s", msg_kind_name(m->kind), err.text);
    assert_true(msg_equal(m, &back));
}

TEST(a_frame_decodes_to_the_message_that_was_encoded) {
    UNUSED_STATE;
    each_message(200, check_there_and_back);
}

static void check_ceiling(const struct msg *m, struct by_str frame) {
    struct by_buf b;
    for (size_t max = 0; max <= frame.n; max++) {
        by_buf_init(&b, max);
        msg_encode(m, &b);
        assert_true(b.n <= max);
        assert_int_equal(b.is_full, max < frame.n);
        if (!b.is_full) assert_memory_equal(b.p, frame.p, frame.n);
        by_buf_release(&b);
    }
}

TEST(a_frame_over_its_ceiling_says_so) {
    UNUSED_STATE;
    each_message(2, check_ceiling);
}

/* What is in a frame of `ask` behind its head and id. */
static void assert_bytes(struct msg m, const char *hex) {
    struct by_buf b;
    char got[64] = "";
    by_buf_init(&b, LIMIT_FRAME_BYTES);
    msg_encode(&m, &b);
    for (size_t i = 0; i < BY_MIN(strlen(hex) / 2, b.n - 20); i++)
        snprintf(got + 2 * i, 3, "%02x", (uint8_t)b.p[20 + i]);
    assert_string_equal(got, hex);
    by_buf_release(&b);
}

/* The borders of msgpack's forms, as its specification has them. */
TEST(each_value_takes_the_fewest_bytes) {
    UNUSED_STATE;
    static const struct {
        uint64_t id;
        const char *hex;
    } numbers[] = {{0, "00a0"},
                   {127, "7fa0"},
                   {128, "cc80a0"},
                   {255, "ccffa0"},
                   {256, "cd0100a0"},
                   {65535, "cdffffa0"},
                   {65536, "ce00010000a0"},
                   {UINT32_MAX, "ceffffffffa0"},
                   {UINT64_C(1) << 32, "cf0000000100000000a0"}};
    for (size_t i = 0; i < BY_COUNTOF(numbers); i++)
        assert_bytes((struct msg){.kind = MSG_ask, .ask.id = numbers[i].id}, numbers[i].hex);
    static const struct {
        int32_t code;
        const char *hex;
    } codes[] = {{-1, "ffa0"},
                 {-32, "e0a0"},
                 {-33, "d0dfa0"},
                 {-128, "d080a0"},
                 {-129, "d1ff7fa0"},
                 {-32768, "d18000a0"},
                 {-32769, "d2ffff7fffa0"},
                 {INT32_MIN, "d280000000a0"},
                 {200, "ccc8a0"}};
    for (size_t i = 0; i < BY_COUNTOF(codes); i++) {
        char hex[32];
        snprintf(hex, sizeof hex, "00%s", codes[i].hex);
        assert_bytes((struct msg){.kind = MSG_answer, .answer.code = codes[i].code}, hex);
    }
    static const struct {
        size_t n;
        const char *hex;
    } texts[] = {{31, "00bf"},      {32, "00d920"},      {255, "00d9ff"},
                 {256, "00da0100"}, {65535, "00daffff"}, {65536, "00db00010000"}};
    static char text[65536];
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i < BY_COUNTOF(texts); i++)
        assert_bytes((struct msg){.kind = MSG_ask, .ask.what = {text, texts[i].n}}, texts[i].hex);
}

/* The frame lies in a block of exactly its length, so that a sanitizer sees a read behind the end. */
static void check_cut(const struct msg *m, struct by_str frame) {
    (void)m;
    for (size_t n = 0; n < frame.n; n++) {
        char *cut = malloc(n + 1);
        memcpy(cut + 1, frame.p, n);
        struct msg back;
        struct by_err err = {0};
        assert_int_not_equal(msg_decode(&back, (struct by_str){cut + 1, n}, &arena, &err), 0);
        assert_true(err.text[0] != 0);
        free(cut);
    }
}

TEST(a_frame_cut_anywhere_is_refused) {
    UNUSED_STATE;
    each_message(2, check_cut);
}

static void check_damaged(const struct msg *m, struct by_str frame) {
    (void)m;
    char *copy = malloc(frame.n);
    for (int i = 0; i < 300; i++) {
        memcpy(copy, frame.p, frame.n);
        for (uint64_t k = roll(4) + 1; k; k--)
            copy[roll(frame.n)] = (char)roll(256);
        struct msg back, again;
        if (msg_decode(&back, (struct by_str){copy, frame.n}, &arena, NULL)) continue;
        struct by_buf b;
        by_buf_init(&b, LIMIT_FRAME_BYTES);
        msg_encode(&back, &b);
        assert_int_equal(msg_decode(&again, by_buf_str(&b), &arena, NULL), 0);
        assert_true(msg_equal(&back, &again));
        by_buf_release(&b);
    }
    free(copy);
}

TEST(a_damaged_frame_is_refused_or_is_another_message) {
    UNUSED_STATE;
    each_message(4, check_damaged);
}

/* [ack, session, seq, name, sample, n_tokens, is_final, from the future: [nil, "x", [1, 2]]] */
TEST(fields_of_a_newer_version_are_skipped) {
    UNUSED_STATE;
    static const char frame[] = "\x98\x20\x05\x06\x92\x07\x01\x00\x09\xc3\x93\xc0\xa1x\x92\x01\x02";
    struct msg m, want = {.kind = MSG_ack,
                          .session = 5,
                          .seq = 6,
                          .ack = {.name = {7, 1}, .n_tokens = 9, .is_final = true}};
    by_arena_init(&arena, 0);
    assert_int_equal(msg_decode(&m, (struct by_str){frame, sizeof frame - 1}, &arena, NULL), 0);
    assert_true(msg_equal(&m, &want));
    by_arena_release(&arena);
}

TEST(fields_that_an_older_version_does_not_send_are_zero) {
    UNUSED_STATE;
    struct msg m, want = {.kind = MSG_ack, .session = 5, .seq = 6, .ack = {.name = {7, 1}}};
    by_arena_init(&arena, 0);
    assert_int_equal(msg_decode(&m, by_str_of("\x94\x20\x05\x06\x92\x07\x01"), &arena, NULL), 0);
    assert_true(msg_equal(&m, &want));
    by_arena_release(&arena);
}

/* A list that says it has 65,536 records in a frame of a few bytes must not make us allocate them. */
TEST(a_list_longer_than_the_frame_is_refused_before_memory_is_taken) {
    UNUSED_STATE;
    static const char frame[] = "\x94\x05\x00\x00\xdd\x00\x01\x00\x00";
    struct msg m;
    struct by_err err = {0};
    by_arena_init(&arena, 0);
    assert_int_equal(msg_decode(&m, (struct by_str){frame, sizeof frame - 1}, &arena, &err),
                     BY_EFORMAT);
    assert_non_null(strstr(err.text, "peers"));
    assert_true(arena.n_bytes < 4096);
    by_arena_release(&arena);
}

TEST(an_array_that_ends_within_a_number_is_refused) {
    UNUSED_STATE;
    struct msg m = {.kind = MSG_generate, .generate = {.ids = {(const uint32_t[]){1, 2}, 2}}};
    struct by_buf b;
    struct by_err err = {0};
    by_buf_init(&b, 4096);
    by_arena_init(&arena, 0);
    msg_encode(&m, &b);
    char *bin = memmem(b.p, b.n, "\xc4\x08\x01\x00\x00\x00", 6);
    assert_non_null(bin);
    bin[1] = 7;
    assert_int_equal(msg_decode(&m, by_buf_str(&b), &arena, &err), BY_EFORMAT);
    assert_non_null(strstr(err.text, "field ids"));
    by_arena_release(&arena);
    by_buf_release(&b);
}

TEST(prints_lengths_of_text_and_never_the_text) {
    UNUSED_STATE;
    struct msg m = {.kind = MSG_failed,
                    .failed = {.name = {7, 1}, .code = -3, .text = by_str_of("secret")}};
    struct by_buf b;
    by_buf_init(&b, 4096);
    msg_print(&m, &b);
    by_buf_addc(&b, 0);
    assert_non_null(strstr(b.p, "text=6B"));
    assert_null(strstr(b.p, "secret"));
    by_buf_release(&b);
}

static void check_copy(const struct msg *m, struct by_str frame) {
    struct msg back, copy = {.kind = m->kind, .session = m->session, .seq = m->seq};
    struct by_arena life;
    char *bytes = malloc(frame.n);
    memcpy(bytes, frame.p, frame.n);
    assert_int_equal(msg_decode(&back, (struct by_str){bytes, frame.n}, &arena, NULL), 0);
    by_arena_init(&life, 0);
    shape_copy(&life, shape_of_kind(m->kind), &back.hello, &copy.hello);
    memset(bytes, 0xee, frame.n);
    free(bytes);
    assert_true(msg_equal(m, &copy));
    by_arena_release(&life);
}

TEST(a_deep_copy_outlives_the_frame) {
    UNUSED_STATE;
    each_message(10, check_copy);
}

TESTS(RUN(shapes_lie_as_the_compiler_lays_structs),
      RUN(a_frame_decodes_to_the_message_that_was_encoded), RUN(a_frame_cut_anywhere_is_refused),
      RUN(a_frame_over_its_ceiling_says_so), RUN(each_value_takes_the_fewest_bytes),
      RUN(a_damaged_frame_is_refused_or_is_another_message),
      RUN(fields_of_a_newer_version_are_skipped),
      RUN(fields_that_an_older_version_does_not_send_are_zero),
      RUN(a_list_longer_than_the_frame_is_refused_before_memory_is_taken),
      RUN(an_array_that_ends_within_a_number_is_refused),
      RUN(prints_lengths_of_text_and_never_the_text), RUN(a_deep_copy_outlives_the_frame));
