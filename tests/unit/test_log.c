/* What a client or a file's name brings into a log line: it stays one line, JSON stays JSON, and no terminal obeys it. */
#include "common/base/log.h"

#include "common/base/json.h"
#include "tests/unit/test.h"

#include <unistd.h>

static char said[8192];

/* The line that `text` makes. */
static struct by_str log_of(bool json, const char *text) {
    int ends[2], before = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    by_log_init(&(struct by_log_options){.process = "test", .level = BY_LOG_INFO, .json = json});
    dup2(ends[1], STDERR_FILENO);
    by_info("%s", text);
    dup2(before, STDERR_FILENO);
    close(before);
    close(ends[1]);
    ssize_t n = read(ends[0], said, sizeof said);
    close(ends[0]);
    assert_true(n > 0);
    return (struct by_str){said, (size_t)n};
}

/* ESC [ and its one-character twin U+009B, a line's end, a quote, a byte of Latin-1, a character that was cut. */
#define HOSTILE \
    "a\n\x1b[31m\xc2\x9b" \
    "32m\"\\\xe9z\xe4\xbd\xa0\xe4\xbd"

TEST(a_line_of_text_holds_no_control_character) {
    UNUSED_STATE;
    struct by_str line = log_of(false, HOSTILE);
    assert_true(by_str_ends(
        line, BY_STR("test: a\\x0a\\x1b[31m\\x9b32m\"\\\xef\xbf\xbdz\xe4\xbd\xa0\xef\xbf\xbd\n")));
}

TEST(a_line_of_json_is_json) {
    UNUSED_STATE;
    const struct by_json_limits lim = {.bytes_max = sizeof said, .depth_max = 4};
    struct by_json *j = NULL;
    struct by_err err = {0};
    struct by_str line = log_of(true, HOSTILE);
    int rc = by_json_parse(&j, line, &lim, &err);
    if (rc) fail_msg("%s", err.text);
    assert_true(by_str_eqz(by_json_str(by_json_get(j, "msg")),
                           "a\n\x1b[31m\xc2\x9b"
                           "32m\"\\\xef\xbf\xbdz\xe4\xbd\xa0\xef\xbf\xbd"));
    by_json_free(j);
}

/* A path of thousands of bytes is cut, between two characters, and the line still ends. */
TEST(a_long_line_is_cut_and_whole) {
    UNUSED_STATE;
    const struct by_json_limits lim = {.bytes_max = sizeof said, .depth_max = 4};
    static char text[8000];
    struct by_json *j = NULL;
    for (size_t i = 0; i + 2 < sizeof text; i += 2)
        memcpy(text + i, i % 64 ? "\xc3\xa9" : "\x01\"", 2);
    assert_int_equal(by_json_parse(&j, log_of(true, text), &lim, NULL), 0);
    by_json_free(j);
}

TESTS(RUN(a_line_of_text_holds_no_control_character), RUN(a_line_of_json_is_json),
      RUN(a_long_line_is_cut_and_whole));
